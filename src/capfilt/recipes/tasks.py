"""`capfilt train blip-...`: BLIP tuned for one task with the paper's settings, or a small one trained from nothing.

Every recipe here takes a pre-trained Blip's sizes and gives a TaskConfig; `tune` runs it. Published towers (224 px and
more) are tuned at the paper's image size, smaller ones at their own. What the paper reached stands with each recipe;
none of it was measured here: the weights and images that it takes are not at hand.
"""

import contextlib
import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from capfilt.blocks.med import MedConfig, SpecialIds
from capfilt.blocks.vit import VitConfig
from capfilt.config import to_dict, with_sets
from capfilt.errors import ConfigError
from capfilt.files import lease, read_json, write_json
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import CAPTIONING, PRESETS, RETRIEVAL, Blip, BlipConfig, Objective
from capfilt.models.blip_nlvr import BlipNlvrConfig, Reasoning
from capfilt.models.blip_visdial import BlipVisdialConfig, Continuing
from capfilt.models.blip_vqa import Answering, BlipVqaConfig
from capfilt.ranks import ALONE, Ranks
from capfilt.recipes.task_kinds import Dialogues, Pairs, Part, Questions, Statements, TaskConfig
from capfilt.runtime import derive, machine, sigterm_raises
from capfilt.train.loop import TrainConfig, fit
from capfilt.train.schedule import Schedule
from capfilt.train.settings import outcome
from capfilt.weights.checkpoint import OURS, Opened, open_checkpoint
from capfilt.weights.rename import to_own
from capfilt.weights.sizes import PROMPT, Config
from capfilt.weights.start import start_from
from capfilt.weights.store import MODELS, Model

SIZES: dict[str, BlipConfig] = {
    "tiny": PRESETS["tiny"],
    "small": dataclasses.replace(PRESETS["demo"], text=dataclasses.replace(PRESETS["demo"].text, positions=256)),
    "base": PRESETS["base"],
    "large": PRESETS["large"],
}
PUBLISHED_PX, LARGE, QUEUE = 224, 1024, 57600
SETTINGS, RESULTS = "task.json", "results.json"


@dataclass(frozen=True)
class TaskSources:
    """What a run learns from and is measured on, and what it starts from.

    data, val: annotation files, or a collection of pairs; nothing is measured without `val`.
    images:    folder of the images that annotations name; None: that of the annotations.
    init:      a checkpoint or run to tune; or one of `SIZES`, to be trained from nothing.
    """

    data: tuple[str, ...]
    val: tuple[str, ...] = ()
    images: str | None = None
    init: str = "small"

    def absolute(self) -> "TaskSources":
        """The same files, findable from any folder; remote paths stay as they are."""
        data, val, images = (
            tuple(path if "://" in path else os.path.abspath(path) for path in paths)
            for paths in (self.data, self.val, (self.images,) if self.images else ())
        )
        return TaskSources(data, val, images[0] if images else None, self.init)


# ---- one recipe a task -----------------------------------------------------------------------------------------------


def caption(blip: BlipConfig) -> TaskConfig:
    """Captions for images (COCO): 5 epochs at 1e-5, 384 px, behind the prompt "a picture of ".

    ViT-L: 2e-6. The paper reaches CIDEr 129.7 on COCO's Karpathy test (14M images, ViT-B).
    """
    vit = _vit(blip, 384, checkpoint={LARGE: 5})
    model = dataclasses.replace(blip, vit=vit, text=_text(blip), roles=("speak",), queue=0, prompt=PROMPT)
    return TaskConfig(model, CAPTIONING, Pairs(), _training(blip, 1e-5, large=2e-6), epochs=5, max_length=40)


def retrieval(blip: BlipConfig) -> TaskConfig:
    """Texts for images and images for texts (COCO, Flickr30k): 6 epochs of ITC and ITM at 1e-5, 384 px.

    ViT-L: 5e-6. For Flickr30k the original draws hard negatives on each rank alone (--set objective.across=queue) and
    re-ranks 128 (--set kind.k=128). The paper reaches TR@1 80.6, IR@1 63.1 on COCO (14M images, ViT-B).
    """
    vit = _vit(blip, 384, checkpoint={768: 4, LARGE: 12})
    queue = QUEUE if _published(blip) else 0  # of few rows, most would meet their own old keys in it
    model = dataclasses.replace(blip, vit=vit, text=_text(blip), roles=("read", "look"), queue=queue, prompt="")
    train = dataclasses.replace(_training(blip, 1e-5, large=5e-6), alpha_epochs=1.0)
    return TaskConfig(model, RETRIEVAL, Pairs(), train, epochs=6, max_length=35)


def vqa(blip: BlipConfig) -> TaskConfig:
    """Answers to questions (VQAv2 and Visual Genome): 10 epochs at 2e-5, 480 px.

    The paper reaches 77.5 on VQAv2's test-dev (14M images, ViT-B).
    """
    model = BlipVqaConfig(_vit(blip, 480, drop_path=0.1), _text(blip), blip.special)
    return TaskConfig(model, Answering(), Questions(), _training(blip, 2e-5), epochs=10, max_length=35)


def nlvr(blip: BlipConfig) -> TaskConfig:
    """True or false of two images (NLVR2): 15 epochs at 3e-5, 384 px.

    The paper reaches 82.7 on dev (14M images, ViT-B).
    """
    vit = _vit(blip, 384, drop_path=0.1)
    model = BlipNlvrConfig(vit, _text(blip), blip.special, merge_from=blip.text.depth // 2)
    return TaskConfig(model, Reasoning(), Statements(), _training(blip, 3e-5), epochs=15)


def visdial(blip: BlipConfig) -> TaskConfig:
    """The right answer in a dialogue about an image (VisDial): 20 epochs of 240 at 2e-5, 384 px.

    The paper reaches MRR 69.4 on val; it gives no code, so drop path and the number of wrong options are ours.
    """
    model = BlipVisdialConfig(_vit(blip, 384), _text(blip), blip.special)
    train = dataclasses.replace(_training(blip, 2e-5), batch=240)
    return TaskConfig(model, Continuing(), Dialogues(), train, epochs=20)


TASKS: dict[str, Callable[[BlipConfig], TaskConfig]] = {
    "blip-caption": caption,
    "blip-retrieval": retrieval,
    "blip-vqa": vqa,
    "blip-nlvr": nlvr,
    "blip-visdial": visdial,
}


def _published(blip: BlipConfig) -> bool:
    return blip.vit.px >= PUBLISHED_PX


def _vit(blip: BlipConfig, px: int, drop_path: float = 0.0, checkpoint: dict[int, int] | None = None) -> VitConfig:
    """A published tower as the task has it; checkpoint: width → last blocks that are computed again going back."""
    if not _published(blip):
        return blip.vit
    blocks = (checkpoint or {}).get(blip.vit.width, 0)
    drop_path = 0.1 if blip.vit.width == LARGE else drop_path  # the original never leaves it off in ViT-L
    return dataclasses.replace(blip.vit, px=px, drop_path=drop_path, checkpoint_blocks=blocks)


def _text(blip: BlipConfig) -> MedConfig:
    """The original tunes with dropout, whatever a checkpoint made for inference says (Hugging Face's say 0)."""
    return dataclasses.replace(blip.text, dropout=0.1) if _published(blip) else blip.text


def _training(blip: BlipConfig, rate: float, large: float | None = None) -> TrainConfig:
    """The original's: 256 a step, weight decay .05 on everything, a cosine in whole epochs, no warm-up."""
    if large is not None and blip.vit.width == LARGE:
        rate = large
    return TrainConfig(steps=1, batch=256, schedule=Schedule("epoch_cosine", rate=rate))


def from_nothing(train: TrainConfig, blip: BlipConfig) -> TrainConfig:
    """Ours, where there is nothing to tune: the paper trains no task from scratch. Higher rates, warmed up."""
    if _published(blip):
        return dataclasses.replace(train, schedule=Schedule("cosine", rate=1e-4, warmup=3000))
    short = dataclasses.replace(train, batch=64, betas=(0.9, 0.98), temperature_rate=0.1)
    return dataclasses.replace(short, schedule=Schedule("cosine", rate=1e-3, warmup=100))


# ---- one run ---------------------------------------------------------------------------------------------------------


def tune(name: str, sources: TaskSources, out: Path, sets: Iterable[str] = (), ranks: Ranks = ALONE) -> dict[str, Any]:
    """Runs the recipe `name` into `out`; returns what `results.json` says. What is done already is not done again.

    Raises ConfigError for a recipe or setting that does not exist, or a checkpoint that cannot start the task.
    """
    opened = None if sources.init in SIZES else open_checkpoint(sources.init)
    config = configured(name, opened, sources.init)
    return train_task(name, with_sets(config, sets), sources, out, opened, ranks)


def configured(name: str, opened: Opened | None = None, size: str = "small") -> TaskConfig:
    """The recipe's settings: for what a checkpoint holds, or for a model of one of `SIZES` trained from nothing."""
    if name not in TASKS:
        raise ConfigError(f"recipe {name!r} is not one of {', '.join(TASKS)}")
    if opened is None:
        config = TASKS[name](SIZES[size])
        return dataclasses.replace(config, train=from_nothing(config.train, SIZES[size]))
    source = opened.model.config
    if isinstance(source, BlipConfig):
        return TASKS[name](source)
    blip = BlipConfig(source.vit, source.text, source.special)
    config = TASKS[name](blip)
    if type(config.model) is not type(source):
        raise ConfigError(
            f"--init {opened.origin.where}: a {opened.origin.kind} model, which {name} cannot start from; give a "
            "pre-trained one, or one of the task itself"
        )
    return dataclasses.replace(config, model=dataclasses.replace(source, vit=config.model.vit, text=config.model.text))


def train_task(
    name: str,
    config: TaskConfig,
    sources: TaskSources,
    out: Path,
    opened: Opened | None = None,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Trains and measures by these settings. opened: what `sources.init` holds, if it is a checkpoint."""
    if config.epochs is not None and config.train.steps != 1:
        raise ConfigError(
            f"epochs={config.epochs} and train.steps={config.train.steps} both say how long; "
            "--set epochs=null where steps shall"
        )
    if config.epochs is not None and config.epochs <= 0:
        raise ConfigError(f"epochs={config.epochs}: more than 0")
    sources = sources.absolute()
    settings = _settings(name, config, sources)
    with _folder(out, settings, ranks):
        if ranks.first((out / RESULTS).is_file()):
            return read_json(out / RESULTS)
        kind: Any = config.kind  # its methods agree among themselves on what rows are
        data = ranks.in_turn(lambda: kind.read(_part(config, sources, "train", out)))
        val = ranks.in_turn(lambda: kind.read(_part(config, sources, "val", out))) if sources.val else None
        if not ranks.rank:  # not before: a folder is no run's until there is something to learn from
            write_json(out / SETTINGS, settings)
        tokenizer = opened.tokenizer if opened else ranks.in_turn(lambda: _vocabulary(config, kind.texts(data), out))
        config = _with_words(config, tokenizer)
        model = _first_weights(config, opened)
        batches = kind.batches(data, tokenizer, config)
        train = config.train
        if config.epochs is not None:
            steps = round(config.epochs * batches.steps_per_epoch / train.accumulate)
            train = dataclasses.replace(train, steps=max(1, steps))
        done = fit(model, batches, config.objective, train, out, name, ranks)

        if not ranks.rank:  # one measures; the others wait at the barrier
            found = {"task": name, "rows": batches.describe()["rows"], "unread": _reasons(data)}
            found |= {"steps": done["steps"], "train_seconds": done["seconds"], "machine": machine()}
            if val is not None:
                found["val"] = {**kind.measure(model, tokenizer, val, data, config.longest), "unread": _reasons(val)}
            write_json(out / RESULTS, found)
        ranks.barrier()
        return read_json(out / RESULTS)


def _settings(name: str, config: TaskConfig, sources: TaskSources) -> dict[str, Any]:
    """All that results depend on."""
    return {"task": name, "sources": to_dict(sources), "config": outcome(to_dict(config))}


@contextlib.contextmanager
def _folder(out: Path, settings: dict[str, Any], ranks: Ranks) -> Iterator[None]:
    """Holds the folder for a run of these settings; where one of others is, that is refused."""
    with lease(out) if not ranks.rank else contextlib.nullcontext(), sigterm_raises():
        if (out / SETTINGS).is_file() and outcome(read_json(out / SETTINGS)) != settings:
            raise ConfigError(f"{out}: holds a run of other settings or data. Use another --out, or delete the folder.")
        ranks.barrier()
        yield


def _part(config: TaskConfig, sources: TaskSources, split: str, out: Path) -> Part:
    paths, px = (sources.data, config.kept_px) if split == "train" else (sources.val, config.model.vit.px)
    return Part(paths, sources.images, split, out / "data" / split, px)


def _vocabulary(config: TaskConfig, texts: Iterable[str], out: Path) -> TextTokenizer:
    folder = out / "tokenizer"
    if not (folder / "tokenizer.json").is_file():
        prompt = [config.model.prompt] if isinstance(config.model, BlipConfig) else []
        TextTokenizer.train([*texts, *prompt], config.vocabulary).save(folder)
    return TextTokenizer.load(folder)


def _with_words(config: TaskConfig, tokenizer: TextTokenizer) -> TaskConfig:
    """The settings with the vocabulary's size and marks; what is given before each caption is not learned."""
    text = dataclasses.replace(config.model.text, vocab=len(tokenizer))
    model: Config = dataclasses.replace(config.model, text=text, special=SpecialIds(**tokenizer.marks))
    objective = config.objective
    if isinstance(model, BlipConfig) and model.prompt and isinstance(objective, Objective):
        given = len(tokenizer.encode([model.prompt])[0]) - 1  # [SEP] is no part of it
        objective = dataclasses.replace(objective, prompt=given)
    return dataclasses.replace(config, model=model, objective=objective)


def _first_weights(config: TaskConfig, opened: Opened | None) -> Model:
    torch.manual_seed(derive(config.train.seed, "init"))
    build: Any = next(model for model, kind in MODELS.values() if isinstance(config.model, kind))
    model = build(config.model).init_weights()
    if opened is not None and isinstance(opened.model, Blip):
        start_from(model, opened.model)
    elif opened is not None:
        held = opened.model.state_dict()
        model.load_state_dict(to_own(held, OURS, model.state_dict(), opened.origin.where, resize=True))
    return model


def _reasons(data: Any) -> dict[str, int]:
    """Reason code → how many images or rows could not be used."""
    return dict(Counter(row.reason.partition(":")[0] for row in data.failed).most_common())
