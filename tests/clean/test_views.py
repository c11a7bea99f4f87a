"""Decisions of a whole run: the files, the counts that add up, and what stands in the way."""

import pytest
from pyarrow import parquet

from capfilt.clean import views
from capfilt.clean.columns import DECISIONS
from capfilt.clean.policies import Policy
from capfilt.clean.reviews import Review, append
from capfilt.clean.views import decide_run
from capfilt.errors import CheckFailed, ConfigError
from capfilt.files import read_json

from .run_tables import flags, row_id, rows, run, scores

FIRST = rows(a={"texts": ["w"], "source": "x"}, b=["w"], c={"failed": "truncated", "error": "PNG of 7 bytes"})
SECOND = rows(d=["w"], e=["w"])
JUDGED = scores(a=([0.9], {"s": 0.1}), b=([0.1], {"s": 0.8})), scores(d=([0.2], {"s": 0.2}), e=([0.9], {"s": 0.9}))


def decisions(out):
    return {row["key"]: row["decision"] for row in parquet.read_table(out / "decisions.parquet").to_pylist()}


@pytest.fixture
def whole(tmp_path):
    return run(tmp_path, (FIRST, JUDGED[0]), (SECOND, JUDGED[1]))


def test_the_files_and_the_counts(whole):
    counts = decide_run(whole, Policy())
    assert counts == {"in": 5, "kept": 2, "replaced": 1, "dropped": 1, "failed": 1}
    assert decisions(whole) == {"a": "keep", "b": "replace", "c": "failed", "d": "drop", "e": "keep"}
    assert parquet.read_schema(whole / "decisions.parquet").equals(DECISIONS)
    told = read_json(whole / "decisions.json")
    assert told["policy"]["name"] == "blip" and told["thresholds"] == {"": {"web": 0.5, "synthetic": 0.5}}
    assert told["counts"] == counts and told["done"] and told["rules"] == {} and told["reviews"] == 0
    assert told["sources"] == {
        "s": {"in": 4, "kept": 1, "replaced": 1, "dropped": 1, "failed": 1},
        "x": {"in": 1, "kept": 1, "replaced": 0, "dropped": 0, "failed": 0},
    }
    assert told["kinds"] == {"both_passed": 1, "none_passed": 1, "synthetic_passed": 1, "truncated": 1, "web_passed": 1}


def test_bytes_do_not_hang_on_when_or_how_often(whole, tmp_path_factory):
    decide_run(whole, Policy())
    first = (whole / "decisions.parquet").read_bytes()
    decide_run(whole, Policy(threshold=0.05))
    assert decisions(whole)["d"] == "keep"
    decide_run(whole, Policy())
    again = run(tmp_path_factory.mktemp("again"), (FIRST, JUDGED[0]), (SECOND, JUDGED[1]))
    decide_run(again, Policy())
    assert (whole / "decisions.parquet").read_bytes() == first == (again / "decisions.parquet").read_bytes()


@pytest.mark.parametrize("at_once", [1, 2, 3, 100])
def test_parts_of_any_size_decide_alike(whole, monkeypatch, at_once):
    policy = Policy("keep-web", top=0.5, by="source")
    parquet.write_table(
        flags(rows(a=[], b=[], c=[], d=[], e=[]), d="blank"), whole / "flags.parquet", row_group_size=at_once
    )
    decide_run(whole, policy)
    before = decisions(whole)
    monkeypatch.setattr(views, "AT_ONCE", at_once)
    decide_run(whole, policy)
    assert decisions(whole) == before == {"a": "keep", "b": "drop", "c": "failed", "d": "drop", "e": "keep"}
    told = read_json(whole / "decisions.json")
    assert told["rules"] == {"blank": 1} and told["kinds"]["blank"] == 1
    assert told["thresholds"]["x"]["web"] == told["thresholds"]["s"]["web"] == 0.9


def test_a_run_that_is_not_whole_is_not_done(tmp_path):
    out = run(tmp_path, (FIRST, JUDGED[0]), (SECOND, None))
    assert decide_run(out, Policy()) == {"in": 5, "kept": 1, "replaced": 1, "dropped": 0, "failed": 3}
    told = read_json(out / "decisions.json")
    assert not told["done"] and told["kinds"]["not_scored"] == 2


def test_people_are_heeded_unless_told_otherwise(whole):
    append(whole, Review(row_id("a"), "reject"), Review(row_id("d"), "edit", None, "mine"))
    assert decide_run(whole, Policy()) == {"in": 5, "kept": 1, "replaced": 2, "dropped": 1, "failed": 1}
    assert read_json(whole / "decisions.json")["reviews"] == 2
    decide_run(whole, Policy(), reviews=False)
    assert decisions(whole)["a"] == "keep" and read_json(whole / "decisions.json")["reviews"] == 0


def test_nothing_went_in(tmp_path):
    assert decide_run(tmp_path, Policy("replace-low", by="source")) == dict.fromkeys(
        ("in", "kept", "replaced", "dropped", "failed"), 0
    )
    assert parquet.read_table(tmp_path / "decisions.parquet").num_rows == 0


def test_flags_of_another_state_of_the_run(whole):
    for broken in (flags(FIRST), flags(SECOND)):
        parquet.write_table(broken, whole / "flags.parquet")
        with pytest.raises(CheckFailed, match="same order"):
            decide_run(whole, Policy())


def test_a_failure_leaves_the_decisions_as_they_were(whole):
    decide_run(whole, Policy())
    before = (whole / "decisions.parquet").read_bytes(), (whole / "decisions.json").read_bytes()
    with pytest.raises(ConfigError, match="no row has a value"):
        decide_run(whole, Policy(top=0.3, by="nothing"))
    assert ((whole / "decisions.parquet").read_bytes(), (whole / "decisions.json").read_bytes()) == before


def test_counts_that_do_not_add_up(whole, monkeypatch):
    decide_run(whole, Policy())
    before, decide = (whole / "decisions.parquet").read_bytes(), views.decide
    monkeypatch.setattr(views, "decide", lambda *given: decide(*given)[1:])
    with pytest.raises(CheckFailed, match="do not add up"):
        decide_run(whole, Policy(threshold=0.1))
    assert (whole / "decisions.parquet").read_bytes() == before and (whole / "decisions.json").is_file()
