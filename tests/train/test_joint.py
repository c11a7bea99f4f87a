"""Micro-batches that are one batch: the same gradients, the same twins and queues, whatever they are cut into."""

import dataclasses
from contextlib import nullcontext

import pytest
import torch

from capfilt.errors import ConfigError
from capfilt.models.blip import PRESETS, RETRIEVAL, Blip, Objective
from capfilt.pair import Batch
from capfilt.ranks import ALONE
from capfilt.train.joint import JointStep


def loud(dropout: float = 0.0, queue: int = 32) -> Blip:
    """Large random weights, so that no gradient hides below a tolerance; norms' weights around 1 keep signals alive."""
    torch.manual_seed(0)
    tiny = PRESETS["tiny"]
    model = Blip(dataclasses.replace(tiny, queue=queue, text=dataclasses.replace(tiny.text, dropout=dropout)))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim:
                p.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.25)
    return model.train()


def parts_of(size: int, count: int, extra: bool = False) -> list[Batch]:
    """`count` batches of `size`, each with texts of a length of its own."""
    g = torch.Generator().manual_seed(3)
    parts = []
    for i in range(count):
        length = 5 + (3 * i) % 4
        ids = torch.randint(7, 60, (size, length), generator=g)
        ids[:, 0], mask = 2, torch.ones(size, length, dtype=torch.long)
        mask[0, 3:] = 0
        number = torch.arange(i * size, (i + 1) * size)
        more = {}
        if extra and i != 1:
            given = torch.ones(size, 4, dtype=torch.long)
            given[::2] = 0
            more = {"extra_ids": torch.randint(7, 60, (size, 4), generator=g) * given, "extra_mask": given}
        parts.append(
            Batch(torch.randn(size, 3, 32, 32, generator=g), ids * mask, mask, number // 2, number % 5, **more)
        )
    return parts


def one_batch(parts: list[Batch]) -> Batch:
    """All rows of `parts`, padded to the longest."""

    def cat(name: str) -> torch.Tensor:
        rows = [getattr(p, name) for p in parts]
        rows = [torch.zeros_like(parts[0].extra_ids) if row is None else row for row in rows]
        longest = max(row.shape[1] for row in rows)
        return torch.cat([torch.nn.functional.pad(row, (0, longest - row.shape[1])) for row in rows])

    names = ("ids", "mask", *(("extra_ids", "extra_mask") if parts[0].extra_ids is not None else ()))
    whole = {name: torch.cat([getattr(p, name) for p in parts]) for name in ("pixels", "image_id", "text_id")}
    return Batch(**whole, **{name: cat(name) for name in names})


def grads(model: Blip) -> dict[str, torch.Tensor]:
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("extra", [False, True])
@pytest.mark.parametrize(
    "objective",
    [Objective(), Objective(losses=("itc",)), Objective(losses=("itm",)), Objective(prompt=2), RETRIEVAL],
    ids=["all", "itc", "itm", "prompted", "retrieval"],
)
def test_gradients_are_those_of_one_batch(objective, extra, count):
    one, many = loud(), loud()
    parts = parts_of(12 // count, count, extra)
    uniform = torch.rand(2, 12, generator=torch.Generator().manual_seed(1))
    for step in range(2):  # the second one meets a filled queue
        losses = one.losses(one_batch(parts), objective, 0.4, uniform)
        torch.stack(list(losses.values())).sum().backward()
        found = JointStep(many, parts, objective, ALONE, nullcontext(), [0] * count).backward(0.4, uniform)
        assert found.keys() == losses.keys()
        assert all(found[k].item() == pytest.approx(losses[k].item(), rel=1e-5) for k in losses), step
    wanted, got = grads(one), grads(many)
    assert wanted.keys() == got.keys()
    for name, grad in wanted.items():
        assert torch.allclose(grad, got[name], rtol=1e-3, atol=1e-4 * max(1.0, grad.abs().max())), name
    for (name, x), y in zip(one.state_dict().items(), many.state_dict().values(), strict=True):
        assert torch.allclose(x.float(), y.float(), atol=1e-5), name
    assert int(many.twins.pointer) == 24


def test_without_twins_too():
    one, many = loud(queue=0), loud(queue=0)
    parts, uniform = parts_of(4, 3), torch.rand(2, 12)
    torch.stack(list(one.losses(one_batch(parts), Objective(), 0.0, uniform).values())).sum().backward()
    JointStep(many, parts, Objective(), ALONE, nullcontext(), [0] * 3).backward(0.0, uniform)
    for name, grad in grads(one).items():
        assert torch.allclose(grad, grads(many)[name], rtol=1e-3, atol=1e-4 * max(1.0, grad.abs().max())), name


def test_comparing_within_parts_alone_is_something_else():
    """Otherwise the test above would show nothing."""
    one, apart = loud(), loud()
    parts, uniform = parts_of(4, 3), torch.rand(2, 12)
    one.losses(one_batch(parts), Objective(), 0.4, uniform)["itc"].backward()
    for part, u in zip(parts, uniform.split(4, dim=1), strict=True):
        (apart.losses(part, Objective(), 0.4, u)["itc"] / 3).backward()
    a, b = one.image_proj.weight.grad, apart.image_proj.weight.grad
    assert (a - b).abs().max() > 0.05 * a.abs().max()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_towers_drop_the_same_both_times(monkeypatch, precision):
    """What the second pass makes is what the first one made, up to rounding; another seed makes something else."""
    model, parts = loud(dropout=0.3), parts_of(4, 3)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    original = JointStep._towers

    def watched(self, i):
        found = original(self, i)
        seen.append(tuple(x.detach().clone() for x in found))
        return found

    monkeypatch.setattr(JointStep, "_towers", watched)
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")
    JointStep(model, parts, Objective(), ALONE, autocast, [5, 6, 7]).backward(0.4, torch.rand(2, 12))
    assert len(seen) == 6
    for first, second in zip(seen[:3], seen[3:], strict=True):
        close = 1e-4 if precision == "fp32" else 5e-2
        assert all(torch.allclose(a, b, atol=close) for a, b in zip(first, second, strict=True))
    with torch.no_grad():
        other = model.text_vec(parts[0].ids, parts[0].mask)
    assert not torch.allclose(other, seen[0][1], atol=0.1)
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad), "weights cast twice lose no gradient"


def test_a_mean_over_padding_cannot_be_joint():
    with pytest.raises(ConfigError, match="accumulate_exact=false"):
        JointStep(loud(), parts_of(4, 2), Objective(smoothing_rule="torch110"), ALONE, nullcontext(), [0, 0])


def test_what_is_held_does_not_grow_with_the_parts():
    """Bytes that autograd keeps at once: one part's, not all parts'."""
    model = loud()
    parts, uniform = parts_of(4, 6), torch.rand(2, 24)

    def peak(work) -> int:
        held, most = 0, 0

        class Kept:
            def __init__(self, x: torch.Tensor):
                nonlocal held, most
                self.x = x
                held += x.nbytes
                most = max(most, held)

            def __del__(self):
                nonlocal held
                held -= self.x.nbytes

        with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.x):
            work()
        return most

    def whole() -> None:
        torch.stack(list(model.losses(one_batch(parts), Objective(), 0.4, uniform).values())).sum().backward()

    step = JointStep(model, parts, Objective(), ALONE, nullcontext(), [0] * 6)
    assert peak(lambda: step.backward(0.4, uniform)) < peak(whole) / 3
