"""The demo: the whole cycle on the drawn world, in minutes, on a laptop's processor."""

import dataclasses

from capfilt.bootstrap.config import BootstrapConfig, Sources
from capfilt.clean.decide import Rule
from capfilt.data.world import WorldConfig
from capfilt.models.blip import CAPTIONING, PRESETS, RETRIEVAL, Objective
from capfilt.predict.decode import Decoding
from capfilt.train.loop import TrainConfig
from capfilt.train.schedule import Schedule

SPOKEN = Decoding(method="nucleus", top_p=0.9, top_k=50, repetition_penalty=1.0, max_length=24, min_length=3)
# So few steps leave no time for the second moment to settle at .999, nor for the temperature to wander.
SHORT = TrainConfig(steps=900, batch=64, betas=(0.9, 0.98), temperature_rate=0.02)


def demo(pairs: str | None = None, human: str | None = None, test: str | None = None, seed: int = 0) -> BootstrapConfig:
    """The whole cycle on 12,000 noisy drawn pairs (or on --pairs and --human), small enough for two cores.

    `capfilt bootstrap`; time and results in docs/numbers.md, "demo".
    """
    world = WorldConfig(level="demo", px=48, seed=seed) if pairs is None else None
    return BootstrapConfig(
        model=PRESETS["demo"],
        world=world,
        sources=Sources(pairs, human, test, store_px=48),
        pretrain=dataclasses.replace(SHORT, schedule=Schedule(rate=1.25e-3, warmup=50)),
        captioner=dataclasses.replace(SHORT, schedule=Schedule(rate=3e-3, warmup=50)),
        filter=dataclasses.replace(SHORT, steps=350, schedule=Schedule(rate=8e-4, warmup=20), alpha_epochs=1.0),
        objective=Objective(momentum=0.995, alpha=0.0),
        filter_objective=dataclasses.replace(RETRIEVAL, momentum=0.99, alpha=0.0),
        captioner_objective=dataclasses.replace(CAPTIONING, smoothing=0.0),  # smoothed words end up in the nucleus
        human=1500,
        human_times=2.0,
        max_length=20,  # the longest human caption has 19 ids; what is cut is padding and junk
        pool=0.35,
        near=0.35,
        filter_rounds=2,
        captioner_learns="kept",
        learn_rule=Rule(kind="human", share=0.8, itc=10.0),
        rule=Rule(kind="human", share=0.85, itc=10.0),
        decoding=SPOKEN,
        captions=dataclasses.replace(SPOKEN, method="greedy"),
        seed=seed,
    )


def smoke(
    pairs: str | None = None, human: str | None = None, test: str | None = None, seed: int = 0
) -> BootstrapConfig:
    """The demo cut down to seconds: every stage runs, nothing is learned. For tests and for trying settings."""
    full = demo(pairs, human, test, seed)
    return dataclasses.replace(
        full,
        model=dataclasses.replace(PRESETS["tiny"], vit=dataclasses.replace(PRESETS["tiny"].vit, px=48)),
        pretrain=dataclasses.replace(full.pretrain, steps=6, batch=8, schedule=Schedule(rate=1e-3)),
        captioner=dataclasses.replace(full.captioner, steps=3, batch=8),
        filter=dataclasses.replace(full.filter, steps=3, batch=8),
        web=60,
        human=24,
        human_times=1.0,
        held_back=8,
        test=16,
        rerank=8,
    )
