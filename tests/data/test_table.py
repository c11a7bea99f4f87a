"""Batches as a function of the step: order, ranks, repeats, near misses."""

import pickle

import numpy as np
import pytest
import torch

from capfilt.data.table import Batches, Feeding, NearMisses, PairTable, Tokens, Unmatched
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
    batches = Batches(table(), tokenizer, Feeding(3, seed=1, px=8))
    epochs = [torch.cat([batches[step].image_id for step in steps]).tolist() for steps in ((0, 1, 2), (3, 4, 5))]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(9))
    assert epochs[0] != epochs[1]


def test_a_batch_may_cross_the_end_of_an_epoch(tokenizer):
    batches = Batches(table(), tokenizer, Feeding(4, seed=1, px=8))
    ids = torch.cat([batches[step].image_id for step in range(9)])
    assert np.bincount(ids.numpy()).tolist() == [4] * 9


def test_two_ranks_see_the_joint_batch(tokenizer):
    texts = [[f"{t}{' box' * (i % 3)}"] for i, t in enumerate(TEXTS)]
    wrong = Unmatched(pool=0.3, near=0.3, texts=("red box",))
    batches = Batches(PairTable.of(pictures(9), texts), tokenizer, Feeding(4, seed=1, px=8), unmatched=wrong)
    differ = False
    for step in range(9):
        batches.rank, batches.world = 0, 1
        joint, parts = batches[step], []
        for batches.rank in range(2):
            batches.world = 2
            parts.append(batches[step])
        for name, whole in vars(joint).items():
            shares = [getattr(part, name) for part in parts]
            assert shares == [None, None] if whole is None else torch.equal(whole, torch.cat(shares)), name
        longest = [int(part.mask.sum(1).max()) for part in parts]
        differ |= longest[0] != longest[1]
    assert differ, "no step whose ranks would pad to another length"


def test_loaders_in_processes_of_their_own_get_the_same_batches(tokenizer):
    batches = Batches(table(), tokenizer, Feeding(4, seed=1, px=8))
    first = batches[2]
    sent = pickle.loads(pickle.dumps(batches))
    assert torch.equal(sent[2].image_id, first.image_id) and torch.equal(sent[2].ids, first.ids)


def test_texts_that_read_the_same_have_one_id(tokenizer):
    texts = ["A red ball .", "a red ball", "a blue ball", "a red ball star"]
    tokens = Tokens(texts, tokenizer, len(tokenizer.encode(["a red ball"])[0]))
    assert tokens.id.tolist() == [0, 0, 1, 0]  # the last one is cut
    assert tokens.row(1).tolist() == tokenizer.encode(["a blue ball"])[0].tolist()


def test_rows_that_show_one_picture_have_one_image():
    part = PairTable.of(pictures(4), [["a"], ["b", "c"], [], ["d"]], np.array([7, 5, 7, 7]))
    assert part.image.tolist() == [0, 1, 1, 0]


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
    batches = Batches(
        table(), tokenizer, Feeding(8, seed=3, px=8), unmatched=Unmatched(pool=0.5, near=0.25, texts=("red box",))
    )
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


def test_a_rows_own_text_is_no_unmatched_one(tokenizer):
    pool = Unmatched(pool=1.0, texts=("A red ball!", "a blue box"))
    batches = Batches(table(), tokenizer, Feeding(9, seed=3, px=8), unmatched=pool)
    own, given = tokenizer.encode(["a red ball"])[0].tolist(), {True: set(), False: set()}
    for step in range(20):
        batch = batches[step]
        for ids, mask, extra in zip(batch.ids, batch.mask, batch.extra_ids, strict=True):
            given[ids[mask.bool()].tolist() == own].add(extra.tolist() == own)
    assert given == {True: {False}, False: {True, False}}


def test_what_cannot_be_trained_on_says_so(tokenizer):
    with pytest.raises(DataError, match="no pair to learn from"):
        PairTable.of(pictures(2), [[], []])
    with pytest.raises(DataError, match="batch=1: contrast and matching need at least 2"):
        Batches(table(), tokenizer, Feeding(1, seed=0, px=8))


def test_pictures_of_another_size_are_brought_to_the_models(tokenizer):
    assert Batches(table(), tokenizer, Feeding(2, seed=0, px=4))[0].pixels.shape == (2, 3, 4, 4)
