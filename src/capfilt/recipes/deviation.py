"""What bf16 and int8 change in the answers of a run's models, on drawn pictures that none of them has seen.

    python -m capfilt.recipes.deviation runs/demo                     # some 3 minutes on one core
    python -m capfilt.recipes.deviation runs/demo --precision bf16 --pictures 2000 --seed 1

The bootstrapped model writes; the run's filter judges a caption of each picture's own and a web text that does not
fit. Every precision is asked for one picture at a time and held against the models as they were trained, 64 at a time:
so the row fp32 is the noise floor. int8 is the vision tower's; the text side of so narrow a model stays fp32 beside it.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from capfilt.bootstrap.config import BootstrapConfig
from capfilt.clean.decide import joint_score
from capfilt.config import from_dict
from capfilt.data.world import World
from capfilt.errors import DataError
from capfilt.files import read_json
from capfilt.models.blip import Blip
from capfilt.predict.predictor import Predictor
from capfilt.predict.ready import ready
from capfilt.runtime import derive, device
from capfilt.weights import store

BATCH = 64
WAYS: dict[str, dict[str, Any]] = {"greedy": {"method": "greedy"}, "beam3": {"method": "beam", "beams": 3}}
GOALS: dict[str, dict[str, float]] = {  # shares of equal captions, at least; differences of the probability, at most
    "bf16": {"greedy": 0.99, "beam3": 0.99, "itm_max": 0.01},
    "int8": {"greedy": 0.97, "beam3": 0.97, "itm_max": 0.03},
}


@dataclass(frozen=True)
class Run:
    """A finished run of the drawn world: what it was, its writer and its filter, and the filter's bar."""

    config: BootstrapConfig
    writer: Predictor
    judge: Predictor
    bar: float

    def at(self, precision: str) -> "Run":
        """The same, its models ready in that precision, one picture at a time."""
        made = [
            Predictor(ready(p.model, precision), p.tokenizer, batch=1, max_length=p.max_length)
            for p in (self.writer, self.judge)
        ]
        return dataclasses.replace(self, writer=made[0], judge=made[1])


@dataclass(frozen=True)
class Answers:
    """captions: of each way of writing, one a picture. matched: probability and cosine of each picture's texts."""

    captions: dict[str, list[str]]
    matched: Float[np.ndarray, "n 2 2"]


def deviation(
    folder: Path, precisions: Sequence[str] = ("bf16", "int8"), pictures: int = 500, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Prints and returns a row a precision, fp32 first.

    greedy, beam3: share of captions that are the same. truth: share of the facts stated in greedy ones that hold.
    itm_max, itm_mean, cosine_max, cosine_mean: differences of the filter's probability and cosine. flipped: share of
    texts that the run's bar decides otherwise.

    Raises ConfigError for a precision that there is not, or not here; DataError for a run of another data set, or one
    that is not over.
    """
    run = _opened(folder)
    assert run.config.world is not None
    seed = derive(run.config.world.seed, "deviation", seed)  # never the seed of what was learned from
    world = World(dataclasses.replace(run.config.world, seed=seed, noise=1.0))
    scenes = [world.scene("test", i) for i in range(pictures)]
    shown = world.pictures("test", pictures)
    texts = [[world.caption(scene, seed), world.web_text("test", i).text] for i, scene in enumerate(scenes)]
    before, found = _answers(run, shown, texts), {}
    for precision in dict.fromkeys(("fp32", *precisions)):
        after = _answers(run.at(precision), shown, texts)
        judged = map(world.judge, scenes, after.captions["greedy"])
        found[precision] = row = {**_compared(before, after, run), "truth": float(np.mean([j.truth for j in judged]))}
        print(_told(precision, row), flush=True)
    return found


def _opened(folder: Path) -> Run:
    stages = read_json(folder / "stages.json") if (folder / "stages.json").is_file() else {}
    if "models/bootstrapped" not in stages:
        raise DataError(f"{folder}: no run that is over. Give the folder of one, as `capfilt bootstrap` leaves it.")
    config = from_dict(BootstrapConfig, read_json(folder / "config.json"))
    if config.world is None:
        raise DataError(f"{folder}: not a run of the drawn world, so no fresh pictures of its kind can be had")
    made = []
    for name in ("models/bootstrapped", "cleaners/filter"):
        model, tokenizer = store.load(folder / name)
        assert isinstance(model, Blip)
        made.append(Predictor(model.to(device()), tokenizer, batch=BATCH, max_length=config.max_length))
    return Run(config, made[0], made[1], stages["ledger"]["threshold"])


def _answers(run: Run, shown: np.ndarray, texts: list[list[str]]) -> Answers:
    captions = {}
    for name, way in WAYS.items():
        decoding = dataclasses.replace(run.config.captions, **way)
        captions[name] = [c.text for c in run.writer.caption(shown, range(len(shown)), decoding)]
    return Answers(captions, np.array(run.judge.match(shown, texts)))


def _compared(before: Answers, after: Answers, run: Run) -> dict[str, float]:
    row = {
        name: float(np.mean([a == b for a, b in zip(before.captions[name], after.captions[name], strict=True)]))
        for name in WAYS
    }
    off = np.abs(after.matched - before.matched)
    for i, name in enumerate(("itm", "cosine")):
        row |= {f"{name}_max": float(off[..., i].max()), f"{name}_mean": float(off[..., i].mean())}
    weight = run.config.rule.itc
    old, new = (
        np.array([joint_score(itm, itc, weight) >= run.bar for itm, itc in of.matched.reshape(-1, 2).tolist()])
        for of in (before, after)
    )
    return {**row, "flipped": float((old != new).mean())}


def _told(precision: str, row: dict[str, float]) -> str:
    goals = GOALS.get(precision, {})
    return f"{precision}: " + ", ".join(
        f"{name} {value:.4g}" + (f" (goal {goals[name]})" if name in goals else "") for name, value in row.items()
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The commands above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run of the demo")
    parser.add_argument("--precision", nargs="+", default=["bf16", "int8"], metavar="NAME")
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    deviation(given.run, given.precision, given.pictures, given.seed)


if __name__ == "__main__":
    main()
