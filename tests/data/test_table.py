"""Batches as a function of the step: order, ranks, repeats, near misses."""

import numpy as np
import pytest
import torch

from capfilt.data.table import Batches, NearMisses, PairTable, Tokens, Unmatched
from capfilt.errors import DataError
from capfilt.inputs.tokenizer import TextTokenizer

TEXTS = [f"a {colour} {shape}" for colour in ("red", "blue", "green") for shape in ("ball", "box", "star")]


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.train(TEXTS, 64)


def pictures(count: int) -> np.ndarray:
    return np.stack([np.full((8, 8, 3), i, np.uint8) for i in range(count)])


def table() -> PairTable:
    return PairTable.of(pictures(9), [[t] for t in TEXTS])


def test_every_row_once_an_epoch_and_another_order_the_next(tokenizer):
    batches = Batches(table(), tokenizer, 3, seed=1, px=8)
    epochs = [torch.cat([batches[step].image_id for step in steps]).tolist() for steps in ((0, 1, 2), (3, 4, 5))]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(9))
    assert epochs[0] != epochs[1]


def test_a_batch_may_cross_the_end_of_an_epoch(tokenizer):
    batches = Batches(table(), tokenizer, 4, seed=1, px=8)
    ids = torch.cat([batches[step].image_id for step in range(9)])
    assert np.bincount(ids.numpy()).tolist() == [4] * 9


def test_two_ranks_see_the_joint_batch(tokenizer):
    joint = Batches(table(), tokenizer, 4, seed=1, px=8)[5]
    parts = []
    for rank in range(2):
        batches = Batches(table(), tokenizer, 4, seed=1, px=8)
        batches.rank, batches.world = rank, 2
        parts.append(batches[5])
    assert torch.equal(joint.pixels, torch.cat([p.pixels for p in parts]))
    assert torch.equal(joint.text_id, torch.cat([p.text_id for p in parts]))


def test_joined_tables_share_their_pictures_and_keep_their_rows():
    array = pictures(3)
    web = PairTable.of(array, [["w0"], ["w1"], ["w2"]])
    kept = PairTable.of(array, [[], ["s1", "t1"], []])
    human = PairTable.of(pictures(2), [["h0"], ["h1"]])
    joined = PairTable.joined((human, web, kept))
    assert len(joined.pictures) == 2
    shown = [(int(joined.picture(int(i))[0, 0, 0]), t) for i, t in zip(joined.image, joined.texts, strict=True)]
    assert shown == [(0, "h0"), (1, "h1"), (0, "w0"), (1, "w1"), (2, "w2"), (1, "s1"), (1, "t1")]


def test_repeats_may_be_broken_numbers():
    repeated = table().repeated(2.5)
    assert len(repeated) == 9 * 2 + 4
    assert set(np.bincount(repeated.image)) == {2, 3}
    assert repeated.repeated(1.0).texts == repeated.texts


def test_near_misses_change_one_word_for_one_that_fits(tokenizer):
    tokens = Tokens(TEXTS[:-1], tokenizer, 20)  # "a green star" is never said
    misses, random = NearMisses(tokens), np.random.default_rng(0)
    for i in range(len(TEXTS) - 1):
        row = tokens.row(i)
        missed = misses.of(row, random)
        assert missed is not None
        assert (missed != row).sum() == 1
        assert set(missed.tolist()) <= set(tokens.flat.tolist())


def test_unmatched_rows_come_in_their_shares(tokenizer):
    batches = Batches(table(), tokenizer, 8, seed=3, px=8, unmatched=Unmatched(pool=0.5, near=0.25, texts=("red box",)))
    pool_row = batches.pool.row(0)
    seen = {"pool": 0, "near": 0, "none": 0}
    for step in range(100):
        batch = batches[step]
        for i in range(8):
            row = batch.extra_ids[i][batch.extra_mask[i].bool()].numpy()
            kind = "none" if not len(row) else "pool" if np.array_equal(row, pool_row) else "near"
            seen[kind] += 1
    assert seen["pool"] == pytest.approx(400, abs=60)
    assert seen["near"] == pytest.approx(200, abs=50)


def test_what_cannot_be_trained_on_says_so(tokenizer):
    with pytest.raises(DataError, match="no pair to learn from"):
        PairTable.of(pictures(2), [[], []])
    with pytest.raises(DataError, match="batch=1: contrast and matching need at least 2"):
        Batches(table(), tokenizer, 1, seed=0, px=8)


def test_pictures_of_another_size_are_brought_to_the_models(tokenizer):
    assert Batches(table(), tokenizer, 2, seed=0, px=4)[0].pixels.shape == (2, 3, 4, 4)
