"""Our numbers against the `transformers` library, small; `make parity` does the same at base size."""

from pathlib import Path

import pytest
import torch

from capfilt.recipes import parity
from capfilt.recipes.parity import GOAL, compared

pytest.importorskip("transformers")

MEASURES = {
    "caption": {"caption: logits", "caption: ids that differ, of 8"},
    "match": {"match: ITM", "match: ITC"},
    "vqa": {"vqa: question states", "vqa: answer logits"},
}


@pytest.mark.parametrize("kind", MEASURES)
def test_the_same_numbers(kind, tmp_path: Path):
    found, _ = compared(kind, "tiny", tmp_path, images=8)
    assert set(found) == MEASURES[kind]
    assert all(value <= GOAL for value in found.values()), found


@pytest.mark.parametrize("kind", MEASURES)
def test_other_numbers_are_seen(kind, tmp_path: Path, monkeypatch):
    """One bias of the first block moved shows in every measure."""
    opened = parity.open_checkpoint

    def moved(folder: Path):
        found = opened(folder)
        with torch.no_grad():
            found.model.vit.blocks[0].attention.out.bias[0] += 0.1
        return found

    monkeypatch.setattr(parity, "open_checkpoint", moved)
    found, _ = compared(kind, "tiny", tmp_path, images=8)
    found.pop("caption: ids that differ, of 8", None)
    assert all(value > GOAL for value in found.values()), found
