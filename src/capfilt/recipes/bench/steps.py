"""The pre-training step against the plain way of writing it, and against itself through torch.compile."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from capfilt.blocks import attention
from capfilt.errors import CheckFailed
from capfilt.models.blip import PRESETS, Blip, BlipConfig, Objective
from capfilt.objectives.matching import draw
from capfilt.pair import Batch
from capfilt.ranks import Ranks
from capfilt.recipes.bench.work import CPU, Work, late, need, waited
from capfilt.recipes.plain_step import padded, plain_losses
from capfilt.runtime import generator

if TYPE_CHECKING:
    from capfilt.recipes.bench.peers import Shelf

LENGTHS = (8, 16)  # text lengths, uniform; web captions average 12 tokens
Losses = dict[str, torch.Tensor]


def step(shelf: "Shelf", preset: str, size: int, precision: str, px: int | None = None) -> Work:
    """Forward, backward and update of `size` pairs, against the plain step. px: other than the preset's."""
    where = shelf.device
    if where.type == "cpu":
        need(precision)
    config = _config(preset, px)
    batch, objective = _batch(config, size).to(where), Objective()
    uniform = torch.rand(2, size, generator=generator("bench")).to(where)

    def ours() -> Callable[[], Losses]:
        trainer = _Trainer(config, precision, where)
        return lambda: trainer.step(partial(trainer.model.losses, batch, objective, 0.4, uniform))

    def plain() -> Callable[[], Losses]:
        trainer, fixed = _Trainer(config, precision, where), padded(batch)
        drawn = _drawn(config, batch, objective, uniform)

        def step() -> Losses:
            with plain_attention(True):
                return trainer.step(partial(plain_losses, trainer.model, fixed, objective, 0.4, drawn))

        return step

    return Work(
        waited(late(ours), where),
        {"the plain step": waited(late(plain), where)},
        partial(_same_losses, 1e-3 if precision == "fp32" else 5e-2),
        {"pairs": size},
    )


def compiled(shelf: "Shelf") -> Work:
    """The demo's step through torch.compile, against the same step without; compiling is not counted, but told."""
    config, size, objective = _config("demo"), 64, Objective()
    batches = [_batch(config, size, below) for below in (16, 15, 14)]  # the second length makes it compile for any
    eager, fast = _Trainer(config, "fp32"), _Trainer(config, "fp32")
    losses = torch.compile(fast.model.losses)
    uniform = torch.rand(2, size, generator=generator("bench"))
    began = time.perf_counter()
    for batch in batches:
        fast.step(partial(losses, batch, objective, 0.4, uniform))
    compiling = time.perf_counter() - began
    for batch in batches:
        eager.step(partial(eager.model.losses, batch, objective, 0.4, uniform))
    return Work(
        lambda: fast.step(partial(losses, batches[0], objective, 0.4, uniform)),
        {
            "the same step, not compiled": lambda: eager.step(
                partial(eager.model.losses, batches[0], objective, 0.4, uniform)
            )
        },
        partial(_same_losses, 1e-3),
        {"pairs": size, "compiling_s": round(compiling, 1)},
    )


@contextmanager
def plain_attention(plain: bool) -> Iterator[None]:
    """Attention by matmuls, or by torch's fused kernel, whatever would be chosen."""
    before = attention.plain
    attention.plain = lambda q: plain
    try:
        yield
    finally:
        attention.plain = before


def _same_losses(most: float, ours: Losses, peer: Losses) -> dict[str, Any]:
    worst = max(abs(ours[k].item() - peer[k].item()) for k in ours)
    if not worst <= most:
        raise CheckFailed(f"the two steps differ by {worst:.2g} in a loss, more than {most}")
    return {"difference": float(f"{worst:.2g}")}


class _Trainer:
    def __init__(self, config: BlipConfig, precision: str, device: torch.device = CPU):
        torch.manual_seed(0)
        self.model = Blip(config).init_weights().train().to(device)
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(parameters, 1e-5, fused=True)
        self.autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")

    def step(self, losses: Callable[[], Mapping[str, torch.Tensor]]) -> Losses:
        """Forward, backward, update."""
        with self.autocast:
            found = losses()
        torch.stack(list(found.values())).sum().backward()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return {k: v.detach() for k, v in found.items()}


def _config(preset: str, px: int | None = None) -> BlipConfig:
    config = PRESETS[preset]
    if px is not None:
        config = dataclasses.replace(config, vit=dataclasses.replace(config.vit, px=px))
    text = dataclasses.replace(config.text, dropout=0.0)
    return dataclasses.replace(config, text=text, queue=min(config.queue, 2048))


def _batch(config: BlipConfig, size: int, below: int = LENGTHS[1]) -> Batch:
    g = generator("bench", "batch")
    lengths = torch.randint(LENGTHS[0], below, (size,), generator=g)
    longest = int(lengths.max())
    mask = (torch.arange(longest) < lengths[:, None]).long()
    ids = torch.randint(10, config.text.vocab - 2, (size, longest), generator=g) * mask
    pixels = torch.randn(size, 3, config.vit.px, config.vit.px, generator=g)
    return Batch(pixels, ids, mask, torch.arange(size), torch.arange(size))


def _drawn(config: BlipConfig, batch: Batch, objective: Objective, uniform: torch.Tensor):
    torch.manual_seed(0)
    model = Blip(config).init_weights().to(uniform.device)
    with torch.no_grad():
        compared = model.compare(batch, model.vit(batch.pixels), objective)
        odds = model.negative_odds(compared, batch, objective, Ranks())
    return tuple(draw(o, u)[0] for o, u in zip(odds, uniform, strict=True))
