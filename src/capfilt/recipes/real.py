"""Recipes for real photographs: a small collection from scratch, and the paper's own settings."""

import dataclasses

from capfilt.bootstrap.config import BootstrapConfig, Sources
from capfilt.clean.decide import Rule
from capfilt.inputs.augment import AugmentConfig
from capfilt.models.blip import PRESETS, BlipConfig
from capfilt.predict.decode import BEAM, NUCLEUS
from capfilt.recipes.demo import SHORT, demo
from capfilt.train.loop import TrainConfig
from capfilt.train.schedule import Schedule

PHOTO = BlipConfig(
    dataclasses.replace(PRESETS["demo"].vit, px=96, patch=16, width=128, depth=2, mlp=512, stem="histogram"),
    dataclasses.replace(PRESETS["demo"].text, width=128, mlp=512, positions=64, dropout=0.1),
    PRESETS["demo"].special,
    embed=128,
    queue=0,  # in a short run at a high rate a queue gives away which keys are new
)


def flickr(
    pairs: str | None = None, human: str | None = None, test: str | None = None, seed: int = 0
) -> BootstrapConfig:
    """A few thousand real photographs, trained from scratch: the demo's cycle with more steps, pixels and width.

    `capfilt bootstrap --recipe flickr --pairs web.jsonl --human human.jsonl`; results in docs/numbers.md, "real
    photographs".
    """
    return dataclasses.replace(
        demo(pairs, human, test, seed),
        world=None,
        model=PHOTO,
        sources=Sources(pairs, human, test, store_px=128),
        pretrain=dataclasses.replace(SHORT, steps=4000, temperature_rate=0.1, schedule=Schedule(rate=8e-4, warmup=100)),
        captioner=dataclasses.replace(SHORT, steps=900, schedule=Schedule(rate=1e-3, warmup=50)),
        filter=dataclasses.replace(SHORT, steps=400, schedule=Schedule(rate=6e-4, warmup=30)),
        human_times=1.0,
        filter_rounds=1,
        captioner_learns="human",
        rule=Rule(kind="top", share=0.4),  # so many passes let the web texts in by heart: held-back pairs place no bar
        vocabulary=3000,
        max_length=24,
        augmentation=AugmentConfig(crop_min=0.35, flip=True, randaugment=False),
        captions=dataclasses.replace(BEAM, max_length=24),
    )


def paper(
    pairs: str | None = None, human: str | None = None, test: str | None = None, seed: int = 0
) -> BootstrapConfig:
    """BLIP's own recipe at base size (arXiv 2201.12086, §4.1): weeks of GPU time; not measured here.

    Batch 2,880, 20 epochs of 14 M pairs, rate 3e-4 falling by 0.85 an epoch; then 5 and 6 epochs of COCO at 1e-5.
    """
    steps = 20 * 14_000_000 // 2880
    decay = Schedule("epoch_decay", rate=3e-4, floor=1e-6, warmup=3000, decay=0.85)
    tuning = TrainConfig(steps=5 * 567_000 // 256, batch=256, schedule=Schedule("epoch_cosine", rate=1e-5))
    return BootstrapConfig(
        model=PRESETS["base"],
        sources=Sources(pairs, human, test, store_px=256),
        pretrain=TrainConfig(steps=steps, batch=2880, schedule=decay, workers=8),
        captioner=tuning,
        filter=dataclasses.replace(tuning, steps=6 * 567_000 // 256, alpha_epochs=1.0),
        held_back=0,
        vocabulary=30524,
        augmentation=AugmentConfig(crop_min=0.2),
        decoding=NUCLEUS,
        captions=BEAM,
        rule=Rule(),
        rerank=256,
        seed=seed,
    )
