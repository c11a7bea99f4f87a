"""What people said: on disk at once, the last word counts, and it goes before any policy."""

import json

import pytest

from capfilt.clean.policies import Policy, decide
from capfilt.clean.reviews import NAME, Review, append, heed, last_words
from capfilt.errors import ConfigError, DataError

from .run_tables import row_id, rows, scores

WEB, OTHER = Review("a", "accept", "web", "a boat"), Review("a", "reject")


def test_the_last_word_counts(tmp_path):
    assert last_words(tmp_path) == {}
    append(tmp_path)
    append(tmp_path, WEB, Review("b", "edit", None, "Ein Boot\u2028am See"))
    append(tmp_path, OTHER)
    found = last_words(tmp_path)
    assert found["a"] == OTHER and found["b"].text == "Ein Boot\u2028am See" and found["b"].at.endswith("+00:00")
    assert len((tmp_path / NAME).read_text("utf-8").split("\n")) == 4  # nothing is taken out


def test_undo_takes_back_one_word_at_a_time(tmp_path):
    undo = Review("a", "undo")
    append(tmp_path, WEB, OTHER, undo)
    assert last_words(tmp_path) == {"a": WEB}
    append(tmp_path, undo, undo)
    assert last_words(tmp_path) == {}
    append(tmp_path, OTHER)
    assert last_words(tmp_path) == {"a": OTHER}


def test_a_line_cut_anywhere_costs_itself_alone(tmp_path):
    append(tmp_path, WEB, Review("é", "reject"))
    whole = (tmp_path / NAME).read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first, len(whole)):
        (tmp_path / NAME).write_bytes(whole[:cut])
        assert last_words(tmp_path) == {"a": WEB}
        append(tmp_path, Review("c", "reject"))
        assert set(last_words(tmp_path)) == {"a", "c"}


def test_a_line_that_is_no_review_is_named(tmp_path):
    for line in ("no JSON", '["a"]', '{"id": "a", "verdict": "like"}', '{"id": "a"}'):
        (tmp_path / NAME).write_text(json.dumps({"id": "b", "verdict": "reject"}) + "\n" + line + "\n")
        with pytest.raises(DataError, match="line 2 is not a review"):
            last_words(tmp_path)


@pytest.mark.parametrize(
    "said",
    [("like",), ("accept", None, "text"), ("accept", "web", " "), ("edit", None, None), ("reject", "both")],
)
def test_what_is_no_review(said):
    with pytest.raises(ConfigError, match="review of a"):
        Review("a", *said)


def test_people_go_before_the_policy():
    table = rows(
        a=["w"], b=["w"], c=["w"], d=["w"], e={"failed": "truncated", "error": "PNG of 7 bytes"}, f=["w"], g=["w"]
    )
    judged = scores(**{key: ([0.9], {"s": 0.9}) for key in "abcdg"})
    words = {
        row_id(review.id): review
        for review in (
            Review("a", "accept", "synthetic", "s"),
            Review("b", "reject", "web", "w"),
            Review("c", "edit", "web", "mine"),
            Review("d", "accept", "web", "w"),
            Review("e", "edit", None, "unseen"),
            Review("f", "accept", "web", "w"),
            Review("elsewhere", "reject"),
        )
    }
    decided = decide(Policy(), {}, table, judged)
    found = heed(decided, words)
    told = {row["key"]: (row["decision"], row["text"], row["texts"], row["reason"]) for row in found.to_pylist()}
    assert told == {
        "a": ("replace", "s", ["s"], "a person accepted the synthetic text"),
        "b": ("drop", None, [], "a person rejected it"),
        "c": ("replace", "mine", ["mine"], "a person wrote it"),
        "d": ("keep", "w", ["w"], "a person accepted the web text"),
        "e": ("failed", None, [], "truncated: PNG of 7 bytes"),
        "f": ("keep", "w", ["w"], "a person accepted the web text"),  # nobody had scored it
        "g": ("keep", "w", ["w", "s"], decided["reason"][6].as_py()),
    }
    assert found["itm_web"].equals(decided["itm_web"]) and heed(decided, {}).equals(decided)
