"""Texts without padding: what stands where, and that no state differs from the padded way."""

import dataclasses

import numpy as np
import pytest
import torch

from capfilt.blocks.med import Med, MedConfig, with_first
from capfilt.blocks.packed_rows import Run, pack, runs

CPU = torch.device("cpu")
TINY = MedConfig(vocab=50, width=24, depth=3, heads=3, mlp=40, positions=30, dropout=0.3)
ENC, SEEN_WIDTH = 49, 16


def a_med(config: MedConfig = TINY) -> Med:
    med = Med(config, SEEN_WIDTH, frozenset(("read", "look")))
    generator = torch.Generator().manual_seed(0)
    for p in med.parameters():
        torch.nn.init.normal_(p, std=0.25, generator=generator)
    return med.eval()


def texts(lengths: list[int]) -> list[np.ndarray]:
    rng = np.random.default_rng(len(lengths))
    return [rng.integers(1, 48, length, dtype=np.int32) for length in lengths]


def padded(rows: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.tensor([[int(i < len(row)) for i in range(max(map(len, rows)))] for row in rows])
    ids = torch.zeros_like(mask)
    ids[mask.bool()] = torch.from_numpy(np.concatenate(rows)).long()
    return ids, mask


def test_runs_gather_neighbours_that_meet_equally_many():
    assert runs([3, 3, 2, 0, 3]) == (
        Run(2, slice(0, 2), slice(0, 6)),
        Run(1, slice(2, 3), slice(6, 8)),
        Run(1, slice(4, 5), slice(8, 11)),
    )
    assert runs([0, 0]) == ()


def test_every_token_has_its_place_in_its_text():
    rows = pack([np.array([5, 6, 7]), np.array([8]), np.array([9, 10])], [2, 1], CPU, mark=ENC)
    assert rows.ids.tolist() == [ENC, 6, 7, ENC, ENC, 10] and rows.places.tolist() == [0, 1, 2, 0, 0, 1]
    assert rows.first.tolist() == [0, 3, 4] and rows.mask.tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    assert rows.tokens == runs([4, 2]) and rows.texts == runs([2, 1])
    x = torch.arange(6.0)[:, None]
    assert rows.apart(x)[rows.mask.bool()].flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert torch.equal(rows.together(rows.apart(x)), x)


def test_texts_of_one_length_are_only_looked_at_otherwise():
    rows, x = pack([np.array([5, 6]), np.array([8, 9])], [2], CPU), torch.randn(4, 3)
    assert rows.table is None
    assert rows.apart(x).data_ptr() == rows.together(rows.apart(x)).data_ptr() == x.data_ptr()


def test_packing_leaves_the_rows_alone():
    row = np.array([5, 6, 7])
    pack([row], [1], CPU, mark=ENC)
    assert row.tolist() == [5, 6, 7]


@pytest.mark.parametrize("lengths", [[4, 9, 1, 6, 6], [5, 5, 5, 5], [7]])
def test_reading_is_as_padded(lengths):
    med, rows = a_med(), texts(lengths)
    with torch.inference_mode():
        want = med.read(*padded(rows), first_only=True)[:, 0]
        found = med.first_states(pack(rows, [len(rows)], CPU))
    assert torch.allclose(found, want, atol=1e-5) and want.std() > 0.1


@pytest.mark.parametrize("way", ["projected", "absorbed", "mixed"])
@pytest.mark.parametrize("mark", [None, ENC])
@pytest.mark.parametrize(
    ("counts", "lengths"),
    [
        ([5], [3, 8, 8, 2, 11]),
        ([1, 1, 1], [4, 9, 6]),
        ([2, 0, 1, 3], [4, 9, 5, 1, 7, 3]),
        ([2, 2], [6, 6, 6, 6]),
        ([2, 1, 2], [3, 4, 7, 5, 2]),  # equally many tokens, not equally many texts
    ],
)
def test_looking_is_as_each_text_padded_at_its_image(counts, lengths, mark, way):
    med, rows = a_med(), texts(lengths)
    image = torch.randn(len(counts), 13, SEEN_WIDTH, generator=torch.Generator().manual_seed(1))
    owner = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    with torch.inference_mode():
        ids, mask = padded(rows)
        ids = ids if mark is None else with_first(ids, mark)
        want = med.look(ids, mask, med.project(image[owner]), first_only=True)[:, 0]
        projected = med.project(image)
        seen = {"projected": projected, "absorbed": [image] * 3, "mixed": [*projected[:2], image]}[way]
        found = med.first_states(pack(rows, counts, CPU, mark), seen)
    assert torch.allclose(found, want, atol=1e-5) and want.std() > 0.1


def test_in_the_last_layer_an_image_meets_only_as_many_rows_as_it_has_texts():
    med = a_med(dataclasses.replace(TINY, depth=2))
    image = torch.randn(2, 200, SEEN_WIDTH)
    early, late = med.seen(image, queries=60, last=2)
    assert isinstance(early, tuple) and isinstance(late, torch.Tensor)
    assert all(isinstance(seen, tuple) for seen in med.seen(image, queries=60))
    assert all(isinstance(seen, torch.Tensor) for seen in med.seen(image, queries=2))
