"""The text transformer in training: computing a layer again going back changes memory, nothing else."""

import dataclasses

import pytest
import torch

from capfilt.models.blip import PRESETS, Blip, Objective
from capfilt.pair import Batch

TINY = PRESETS["tiny"]


def trained(checkpoint_layers: int, dropout: float) -> tuple[dict[str, torch.Tensor], int]:
    """Gradients of a step of a model with large random weights, and the bytes that it kept for going back."""
    torch.manual_seed(0)
    text = dataclasses.replace(TINY.text, depth=3, dropout=dropout, checkpoint_layers=checkpoint_layers)
    model = Blip(dataclasses.replace(TINY, text=text)).train()
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim:
                p.normal_(0, 0.25)
    ids = torch.randint(7, 60, (4, 9))
    ids[:, 0], mask = 2, torch.ones_like(ids)
    mask[1, 5:] = 0
    batch = Batch(torch.randn(4, 3, 32, 32), ids * mask, mask, torch.arange(4), torch.arange(4))
    kept: dict[int, int] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        found = model.losses(batch, Objective(), 0.4, torch.rand(2, 4))
    torch.stack(list(found.values())).sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, sum(kept.values())


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_layers_that_compute_again_have_the_same_gradients(dropout):
    kept, all_bytes = trained(0, dropout)
    again, some_bytes = trained(3, dropout)
    last, fewer_bytes = trained(1, dropout)
    assert kept.keys() == again.keys() == last.keys()
    for name, grad in kept.items():
        assert torch.allclose(grad, again[name], rtol=1e-4, atol=1e-5), name
        assert torch.allclose(grad, last[name], rtol=1e-4, atol=1e-5), name
    assert some_bytes < fewer_bytes < all_bytes
    assert some_bytes < 0.7 * all_bytes
