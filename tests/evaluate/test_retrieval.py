"""Recall and re-ranking against the original BLIP evaluation's recorded run, brute force and numbers by hand."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capfilt.errors import ConfigError, DataError
from capfilt.evaluate.retrieval import NEVER, best_ranks, candidates, recalls, rerank, retrieval

THEIRS = {"txt_r1": "tr1", "txt_r5": "tr5", "txt_r10": "tr10", "img_r1": "ir1", "img_r5": "ir5", "img_r10": "ir10"}


@pytest.fixture(scope="module")
def golden(root):
    case = json.loads((root / "tests" / "golden" / "blip_rerank.json").read_text("utf-8"))
    arrays = {name: np.array(case[name], np.float32) for name in ("sims", "score_i2t", "score_t2i")}
    return {**case, **arrays, "text_image": np.array(case["text_image"])}


def test_golden_rerank_and_metrics(golden):
    sims, i2t, t2i = golden["sims"], golden["score_i2t"], golden["score_t2i"]
    asked = np.where(i2t > NEVER, i2t, t2i.T)
    logits = np.where(asked > NEVER, asked - sims, np.nan)  # the original never asked about the rest, nor may we
    calls = []

    def itm_score(images, texts):
        calls.append(set(images.tolist()))
        return logits[images, texts]

    ours = rerank(sims, golden["k"], itm_score)
    np.testing.assert_allclose(ours[0], i2t, atol=1e-5)
    np.testing.assert_allclose(ours[1], t2i, atol=1e-5)
    assert calls == [{image} for image in range(len(sims))]
    found = retrieval(ours[0], golden["text_image"], ours[1])
    for theirs, name in THEIRS.items():
        assert 100 * getattr(found, name) == pytest.approx(golden["metrics"][theirs])
    assert 100 * found.mean == pytest.approx(golden["metrics"]["r_mean"])


def test_golden_case_is_the_one_in_shared(shared, golden):
    from safetensors.numpy import load_file

    arrays = load_file(shared / "golden" / "blip" / "02_retrieval_itm" / "io.safetensors")
    for name, theirs in (("sims", "sims"), ("score_i2t", "score_i2t"), ("score_t2i", "score_t2i")):
        np.testing.assert_array_equal(golden[name], arrays[f"out.rerank_{theirs}"])


def test_by_hand():
    # Three images; the texts 0 and 1 belong to image 0, 2 to image 1, 3 to image 2.
    scores = np.array([[0.1, 0.9, 0.5, 0.2], [0.8, 0.7, 0.6, 0.1], [0.3, 0.2, 0.4, 0.35]])
    found = retrieval(scores, np.array([0, 0, 1, 2]))
    assert found.tr_ranks.tolist() == [1, 3, 2]  # the best of image 0's texts counts
    assert found.ir_ranks.tolist() == [3, 1, 1, 1]
    assert found.summary() == pytest.approx(
        {"tr1": 1 / 3, "tr5": 1, "tr10": 1, "ir1": 3 / 4, "ir5": 1, "ir10": 1, "mean": (1 / 3 + 3 / 4 + 4) / 6}
    )
    assert found.hits()["ir1"].tolist() == [0, 1, 1, 1]


def test_ties_go_against_us():
    assert best_ranks(np.zeros((2, 7)), [[0], [3, 4]]).tolist() == [7, 6]
    assert recalls(np.zeros((1, 20)), [[0]])["r10"] == 0.0


def test_both_ways_of_naming_right_answers_agree():
    scores = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    mask = np.array([[False, True, True], [True, False, False]])
    assert best_ranks(scores, mask).tolist() == best_ranks(scores, [[1, 2], [0]]).tolist() == [2, 3]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 9), st.randoms(use_true_random=False))
def test_ranks_are_those_of_sorting(queries, count, random):
    scores = np.array([random.sample(range(100), count) for _ in range(queries)], float)
    right = [random.sample(range(count), random.randint(1, count)) for _ in range(queries)]
    wanted = []
    for row, own in zip(scores, right, strict=True):
        order = sorted(range(count), key=lambda c: -row[c])
        wanted.append(1 + min(order.index(c) for c in own))
    assert best_ranks(scores, right).tolist() == wanted
    assert best_ranks(np.exp(scores / 10), right).tolist() == wanted  # only the order counts


def test_candidates_are_the_best_of_each_row_and_column():
    sim = np.array([[0.9, 0.1, 0.2], [0.8, 0.3, 0.7]])
    for_image, for_text = candidates(sim, 1)
    assert for_image.tolist() == [[True, False, False], [True, False, False]]
    assert for_text.tolist() == [[True, False, False], [False, True, True]]


def test_rerank_asks_once_for_each_pair_and_takes_any_k():
    sim = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    pairs = []

    def itm_score(images, texts):
        pairs.extend(zip(images.tolist(), texts.tolist(), strict=True))
        return np.zeros(len(texts), np.float32)

    few = rerank(sim, 2, itm_score)
    assert len(pairs) == len(set(pairs)) <= 2 * (5 + 8)
    assert ((few[0] > NEVER).sum(1) == 2).all() and ((few[1] > NEVER).sum(1) == 2).all()
    every = rerank(sim, 256, itm_score)  # more than there are: all of them
    np.testing.assert_array_equal(every[0], sim)
    np.testing.assert_array_equal(every[1], sim.T)


def test_mistakes_say_so():
    scores = np.zeros((2, 3))
    with pytest.raises(DataError, match="1 of 2 queries lack a right answer"):
        best_ranks(scores, [[0], []])
    with pytest.raises(DataError, match="NaN"):
        best_ranks(np.array([[np.nan, 1.0]]), [[0]])
    with pytest.raises(DataError, match="there are 3 candidates"):
        best_ranks(scores, [[0], [3]])
    with pytest.raises(DataError, match="must be equal"):
        best_ranks(scores, np.ones((3, 2), bool))
    with pytest.raises(DataError, match="for 1 queries"):
        best_ranks(scores, [[0]])
    with pytest.raises(DataError, match="no query"):
        recalls(np.zeros((0, 3)), [])
    with pytest.raises(DataError, match="images 0 to 2"):
        retrieval(scores, np.array([0, 1, 2]))
    with pytest.raises(ConfigError, match="k=0"):
        rerank(scores, 0, lambda images, texts: np.zeros(len(texts)))
    with pytest.raises(DataError, match="itm_score"):
        rerank(scores, 2, lambda images, texts: np.zeros(1))
