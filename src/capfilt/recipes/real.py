"""Recipes for real photographs: a small collection from scratch, and the paper's own settings."""

import dataclasses

from capfilt.bootstrap.config import BootstrapConfig, Sources
from capfilt.clean.decide import Rule
from capfilt.inputs.augment import AugmentConfig
from capfilt.models.blip import CAPTIONING, PRESETS, RETRIEVAL, BlipConfig, Objective
from capfilt.predict.decode import BEAM, NUCLEUS
from capfilt.train.loop import TrainConfig
from capfilt.train.schedule import Schedule

PHOTO = BlipConfig(
    dataclasses.replace(PRESETS["base"].vit, px=96, patch=12, width=192, depth=6, heads=6, mlp=768, stem="conv"),
    dataclasses.replace(PRESETS["base"].text, width=192, depth=3, heads=6, mlp=768, positions=64),
    embed=128,
    queue=2048,
)


def flickr(
    pairs: str | None = None, human: str | None = None, test: str | None = None, seed: int = 0
) -> BootstrapConfig:
    """A few thousand real photographs, trained from scratch: hours on two cores, minutes on a GPU.

    `capfilt bootstrap --recipe flickr --pairs web.jsonl --human human.jsonl`; results in docs/numbers.md, "Flickr8k".
    """
    return BootstrapConfig(
        model=PHOTO,
        sources=Sources(pairs, human, test, store_px=128),
        pretrain=TrainConfig(steps=4000, batch=64, schedule=Schedule(rate=1e-3, warmup=200), alpha_epochs=4.0),
        captioner=TrainConfig(steps=800, batch=64, schedule=Schedule(rate=3e-4, warmup=50)),
        filter=TrainConfig(steps=800, batch=64, schedule=Schedule(rate=3e-4, warmup=50), alpha_epochs=1.0),
        held_back=100,
        vocabulary=3000,
        max_length=24,
        augmentation=AugmentConfig(crop_min=0.5, flip=True, randaugment=False),
        objective=Objective(momentum=0.99),
        filter_objective=dataclasses.replace(RETRIEVAL, momentum=0.99),
        pool=0.5,
        rule=Rule(kind="human", share=0.8),
        decoding=dataclasses.replace(NUCLEUS, max_length=24),
        captions=dataclasses.replace(BEAM, max_length=24),
        seed=seed,
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
        captioner_objective=dataclasses.replace(CAPTIONING, prompt=0),
        decoding=NUCLEUS,
        captions=BEAM,
        rule=Rule(),
        rerank=256,
        seed=seed,
    )
