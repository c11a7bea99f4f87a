"""Caption scores against the reference implementation's gold values, and against numbers worked out by hand."""

import importlib.util
import json
import math
import shutil
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capfilt.errors import ConfigError, DataError
from capfilt.evaluate import captions
from capfilt.evaluate.captions import extra_scores, score_captions

OURS = {
    "Bleu_1": "bleu1",
    "Bleu_2": "bleu2",
    "Bleu_3": "bleu3",
    "Bleu_4": "bleu4",
    "ROUGE_L": "rouge_l",
    "CIDEr": "cider",
}
LISTS = ("constant", "dropped", "human0", "repeated", "shuffled")


def gold(shared, name):
    return json.loads((shared / "data" / "metrics" / f"flickr8k-val300.{name}.json").read_text("utf-8"))


def given_list(shared, name):
    said = {row["image_id"]: row["caption"] for row in gold(shared, f"hyp-{name}")}
    references = gold(shared, "refs")
    return list(said), list(said.values()), [references[key] for key in said]


@pytest.mark.parametrize("name", LISTS)
def test_gold_corpus_and_images(shared, name):
    keys, said, human = given_list(shared, name)
    found = score_captions(said, human)
    for theirs, value in gold(shared, "expected")["corpus"][name].items():
        if theirs in OURS:
            assert found.summary()[OURS[theirs]] == pytest.approx(value, abs=1e-9)
    lines = (shared / "data" / "metrics" / "flickr8k-val300.per-image.jsonl").read_text("utf-8").splitlines()
    rows = {row["image_id"]: row for row in map(json.loads, lines) if row["hyp"] == name}
    for theirs in ("Bleu_1", "Bleu_4", "ROUGE_L", "CIDEr"):
        np.testing.assert_allclose(found.per_image[OURS[theirs]], [rows[key][theirs] for key in keys], atol=1e-9)


def test_gold_texts_come_tokenised_too(shared):
    keys, _, _ = given_list(shared, "human0")
    said, references = gold(shared, "hyp-human0.ptb"), gold(shared, "refs.ptb")
    found = score_captions([said[key] for key in keys], [references[key] for key in keys], tokenize=False)
    assert found.cider == pytest.approx(gold(shared, "expected")["corpus"]["human0"]["CIDEr"], abs=1e-9)


@pytest.mark.skipif(
    importlib.util.find_spec("pycocoevalcap") is None or shutil.which("java") is None,
    reason="METEOR needs the metrics extra and Java",
)
def test_gold_meteor(shared):
    _, said, human = given_list(shared, "human0")
    value, each = extra_scores(said, human)["meteor"]
    assert value == pytest.approx(gold(shared, "expected")["corpus"]["human0"]["METEOR"], abs=1e-6)
    assert len(each) == 300


def test_bleu_by_hand():
    # 5 of 6 words and 1 of 5 pairs are in a reference; the closest reference is as long, so no penalty.
    found = score_captions(["the cat sat on the hat", "x y"], [["the mat the cat on hat", "dog"], ["x y"]])
    assert found.per_image["bleu1"][0] == pytest.approx(5 / 6)
    assert found.per_image["bleu2"][0] == pytest.approx(math.sqrt(5 / 6 * 1 / 5))
    assert found.bleu1 == pytest.approx(7 / 8)
    assert found.bleu2 == pytest.approx(math.sqrt(7 / 8 * 2 / 6))


def test_brevity_is_punished_against_the_closest_reference():
    found = score_captions(["a b"], [["a b c d", "a b c d e f g"]], corpus=[["a"], ["b"]])
    assert found.bleu1 == pytest.approx(math.exp(1 - 4 / 2))


def test_rouge_by_hand():
    # Common subsequence a c d: precision 3/4 and recall 3/5.
    found = score_captions(["a c x d", "x"], [["a b c d e"], ["y"]])
    p, r = 3 / 4, 3 / 5
    assert found.per_image["rouge_l"].tolist() == pytest.approx([2.44 * p * r / (r + 1.44 * p), 0.0])


def test_cider_by_hand():
    # Orders 3 and 4 are empty. Every gram is in one image of two, so all weights are ln 2 and cancel.
    said, human = ["a a b", "p q"], [["a b"], ["p q"]]
    found = score_captions(said, human)
    penalty = math.exp(-1 / 72)  # one pair more than the reference has
    plain = 3 / math.sqrt(5 * 2) + 1 / math.sqrt(2)  # (2·1 + 1·1) / (√5 √2), then pairs: aa, ab against ab
    clipped = 2 / math.sqrt(5 * 2) + 1 / math.sqrt(2)
    assert found.per_image["cider_plain"].tolist() == pytest.approx([10 / 4 * plain, 10 / 4 * 2])
    assert found.per_image["cider"].tolist() == pytest.approx([10 / 4 * clipped * penalty, 10 / 4 * 2])


def test_empty_captions_score_nothing_and_break_nothing():
    found = score_captions(["", "...", "a red dog runs"], [["a dog"], ["a cat", ""], ["a red dog runs"]])
    for name, values in found.per_image.items():
        assert np.isfinite(values).all(), name
        assert values[:2].max() < 1e-6, name
        assert values[2] > 0.9, name


def test_one_image_says_why_cider_is_zero():
    with pytest.warns(UserWarning, match="1 image"):
        found = score_captions(["a dog runs in snow"], [["a dog runs in snow"]])
    assert (found.cider, found.rouge_l) == (0.0, 1.0)
    others = [["a dog runs in snow"], ["a cat"], ["two men"]]
    assert score_captions(["a dog runs in snow"], [["a dog runs in snow"]], corpus=others).cider == pytest.approx(10)


@pytest.mark.parametrize(("said", "human"), [([], []), (["a"], []), (["a", "b"], [["a"], []])])
def test_what_cannot_be_scored_says_so(said, human):
    with pytest.raises(DataError, match="score_captions"):
        score_captions(said, human)


texts = st.lists(st.sampled_from("abc"), max_size=9)


@given(texts, texts)
def test_common_subsequence_is_that_of_the_table(a, b):
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    assert captions._common(a, b) == table[-1][-1]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=3)), min_size=2, max_size=5), st.randoms())
def test_bounds_and_order(rows, random):
    said, human = [" ".join(h) for h, _ in rows], [[" ".join(t) for t in ts] for _, ts in rows]
    found = score_captions(said, human, tokenize=False)
    for name, values in found.per_image.items():
        assert ((values >= 0) & (values <= (10 if "cider" in name else 1) + 1e-9)).all(), name
    assert (found.per_image["cider"] <= found.per_image["cider_plain"] + 1e-9).all()
    order = list(range(len(rows)))
    random.shuffle(order)
    moved = score_captions([said[i] for i in order], [human[i][::-1] for i in order], tokenize=False)
    assert moved.summary() == pytest.approx(found.summary())


def test_extras_say_what_to_install(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.warns(UserWarning, match="Install a Java runtime"):
        assert extra_scores(["a"], [["a"]]) is None
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/java")
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    with pytest.warns(UserWarning, match=r"pip install 'capfilt\[metrics\]'"):
        assert extra_scores(["a"], [["a"]]) is None
    with pytest.raises(ConfigError, match="bleurt"):
        extra_scores(["a"], [["a"]], names=["bleurt"])
