"""The two passes of a run over shards of rows: `Scan` looks at every row, `Score` lets the models work on what is left.

A stage is a description that travels; it is opened where the work is done (`engines`), once, and then works shard by
shard. What it makes of a shard hangs on the shard and its settings alone.
"""

import gc
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from capfilt import runtime
from capfilt.clean.columns import SCORES
from capfilt.clean.measure import SIDE, measure
from capfilt.clean.scorers import Scorers, parsed
from capfilt.data.decoders import Decoders, Reading
from capfilt.data.fetch import Fetching
from capfilt.data.refs import Images
from capfilt.errors import ConfigError, ImageError
from capfilt.models.blip import Blip
from capfilt.predict.capfilt import CapFilt, Judged
from capfilt.predict.decode import NUCLEUS, Decoding
from capfilt.predict.predictor import Predictor
from capfilt.predict.ready import engine_of
from capfilt.predict.use import Model
from capfilt.runtime import derive
from capfilt.weights.checkpoint import open_checkpoint

TOGETHER = 128  # images that the models are given at once: bounds pixels in memory
DIGITS = 4  # of a score; what is behind hangs on which rows share a batch


class Worker(Protocol):
    """A stage, opened."""

    def work(self, table: pa.Table) -> pa.Table:
        """One shard in, one shard out, row by row."""
        ...

    def close(self) -> None:
        """Gives back what it holds."""
        ...


class Stage(Protocol):
    """A description of work, small enough to travel. name: the ledger's stage that it makes."""

    @property
    def name(self) -> str: ...

    def open(self, device: str | None = None) -> Worker:
        """Where it is called the work is done; None for the device that `runtime.device` chooses."""
        ...


@dataclass(frozen=True)
class Scan:
    """INTAKE → ROWS: every image is loaded, decoded and measured; no model is needed."""

    workers: int | None = None
    limit_s: float = 60.0
    fetching: Fetching | None = None
    name: str = "rows"

    def open(self, device: str | None = None) -> "_Scanner":
        return _Scanner(self)


class _Scanner:
    def __init__(self, stage: Scan) -> None:
        self.images = Images(stage.fetching).__enter__()
        self.decoders = Decoders(SIDE, Reading(stage.workers, scaled=True, limit_s=stage.limit_s)).__enter__()

    def work(self, table: pa.Table) -> pa.Table:
        return measure(table, self.images, self.decoders)

    def close(self) -> None:
        self.decoders.__exit__(None, None, None)
        self.images.__exit__(None, None, None)


@dataclass(frozen=True)
class Models:
    """Which models work on a run, and how: all that their answers hang on.

    captioner, filter: names for `weights.checkpoint.open_checkpoint`.
    precision, engine: as `predict.ready` has them; `auto` is settled once a run (`settled`).
    n:         candidates an image; all are judged.
    decoding:  how they are written.
    scorers:   further numbers about an image (`clean.scorers`).
    itc_least: texts whose cosine lies below are not looked at any closer; None looks at all.
    """

    captioner: str
    filter: str
    px: int | None = None
    precision: str = "auto"
    engine: str = "auto"
    n: int = 1
    decoding: Decoding = NUCLEUS
    itc_least: float | None = None
    seed: int = 0
    scorers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.n < 1 or (self.n > 1 and self.decoding.method == "greedy"):
            raise ConfigError(f"n={self.n}, {self.decoding.method}: at least 1 candidate an image, of greedy just 1")

        for text in self.scorers:
            parsed(text)

    def load(self, name: str, device: str | None = None) -> Model:
        """One of the two, at work. Raises as `open_checkpoint`; ConfigError for a model of one task alone."""
        where = device or str(runtime.device())
        key = (name, self.px, self.precision, self.engine, where)
        if key not in _OPENED:
            found = open_checkpoint(name, px=self.px)
            if not isinstance(found.model, Blip):
                raise ConfigError(f"{name}: a model of one task; a captioner and a filter are needed")
            model, how = found.model.to(where), (self.precision, self.engine)
            _OPENED[key] = Model(model, found.tokenizer, None, found.origin, None, *how, mapped=True)
        return _OPENED[key]

    def settled(self) -> "Models":
        """The same, with what `auto` comes to here: a run that goes on elsewhere then gives the same."""
        speaker = self.load(self.captioner)
        return replace(self, precision=speaker.precision.precision, engine=engine_of(speaker.at_work))

    def weights(self) -> dict[str, str]:
        """SHA-256 of both models' numbers, whatever files they came in."""
        return {name: _digest(self.load(name).model) for name in (self.captioner, self.filter)}


_OPENED: dict[tuple[str | int | None, ...], Model] = {}  # of this process: a model is opened once


def _digest(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


@dataclass(frozen=True)
class Score:
    """ROWS and `rule` → SCORES: candidates are written, and all texts judged, of rows without failure or rule."""

    models: Models
    workers: int | None = None
    limit_s: float = 60.0
    fetching: Fetching | None = None
    name: str = "scores"

    def open(self, device: str | None = None) -> "_Scorer":
        return _Scorer(self, device)


class _Scorer:
    def __init__(self, stage: Score, device: str | None) -> None:
        self.stage, models = stage, stage.models
        speaker = models.load(models.captioner, device)
        judge = speaker if models.filter == models.captioner else models.load(models.filter, device)
        self.capfilt = CapFilt(*(Predictor(m.at_work, m.tokenizer) for m in (speaker, judge)))
        self.scorers = Scorers(models.scorers, self.capfilt.judge)
        self.images = Images(stage.fetching).__enter__()
        reading = Reading(stage.workers, limit_s=stage.limit_s)
        self.decoders = Decoders(speaker.px, reading).__enter__()

    def work(self, table: pa.Table) -> pa.Table:
        """As `Worker`. Needs the columns id, texts, ref, failed and rule."""
        out: list[dict[str, Any]] = [dict(empty(), id=row) for row in table["id"].to_pylist()]
        usable = pc.and_(pc.is_null(table["failed"]), pc.is_null(table["rule"]))
        rows = table.select(["id", "texts", "ref"]).to_pylist()
        todo = np.flatnonzero(usable.to_numpy(zero_copy_only=False)).tolist()
        ready: list[tuple[int, np.ndarray]] = []
        for i, found in zip(todo, self._pixels([rows[i]["ref"] for i in todo]), strict=True):
            if isinstance(found, ImageError):
                out[i] |= {"failed": found.reason, "error": str(found)}
            else:
                ready.append((i, found))
            if len(ready) == TOGETHER:
                self._judge(ready, rows, out)
                ready = []
        if ready:
            self._judge(ready, rows, out)
        return pa.Table.from_pylist(out, schema=SCORES)

    def _pixels(self, refs: Sequence[str]) -> Iterator[np.ndarray | ImageError]:
        """Pictures at the models' size, read ahead."""
        unloaded: list[ImageError | None] = []

        def loaded() -> Iterator[bytes]:
            for ref in refs:
                try:
                    data = self.images.load(ref)
                    unloaded.append(None)
                except ImageError as error:
                    unloaded.append(error)
                    data = b""
                yield data

        for i, found in enumerate(self.decoders.decode(loaded())):
            error = unloaded[i]
            yield error if error else found if isinstance(found, ImageError) else found.pixels

    def _judge(self, ready: list[tuple[int, np.ndarray]], rows: list[dict], out: list[dict]) -> None:
        at = [i for i, _ in ready]
        models = self.stage.models
        asked = (
            np.stack([pixels for _, pixels in ready]),
            [rows[i]["texts"] for i in at],
            [derive(models.seed, "caption", rows[i]["id"]) for i in at],
            models.decoding,
            models.n,
            models.itc_least,
        )
        judged = self._within_memory(*asked)
        extra = self.scorers(asked[0], np.stack([found.vector for found in judged])) if models.scorers else []
        for i, numbers in zip(at, extra, strict=bool(extra)):
            out[i]["extra"] = json.dumps(numbers)
        for i, found in zip(at, judged, strict=True):
            out[i] |= _scores(found)
            if not found.web and not out[i]["synthetic"]:
                why = next((caption.error for caption in found.captions if caption.error), "nothing was written")
                out[i] |= {"failed": "no_caption", "error": f"no text of its own, and {why}"}

    def _within_memory(self, *asked: Any) -> list[Judged]:
        """Answers do not hang on how many rows go together: where they do not fit into memory, half as many go."""
        while True:
            both = self.capfilt.captioner, self.capfilt.judge
            try:
                return self.capfilt(*asked)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                full = not isinstance(error, RuntimeError) or "can't allocate memory" in str(error)
                if not (full or isinstance(error, torch.OutOfMemoryError)) or min(p.batch for p in both) == 1:
                    raise
            for predictor in both:
                predictor.batch = max(1, predictor.batch // 2)
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def close(self) -> None:
        self.decoders.__exit__(None, None, None)
        self.images.__exit__(None, None, None)


def empty() -> dict[str, Any]:
    """The scores of a row that no model saw."""
    lists = ("itm_web", "itc_web", "synthetic", "logp", "itm_synthetic", "itc_synthetic")
    return {"id": None, **{name: [] for name in lists}, "extra": None, "failed": None, "error": None}


def _scores(found: Judged) -> dict[str, Any]:
    written = [(c, m) for c, m in zip(found.captions, found.synthetic, strict=True) if c.error is None]
    return {
        "itm_web": [round(m.probability, DIGITS) for m in found.web],
        "itc_web": [round(m.cosine, DIGITS) for m in found.web],
        "synthetic": [c.text for c, _ in written],
        "logp": [round(c.score, DIGITS) for c, _ in written],
        "itm_synthetic": [round(m.probability, DIGITS) for _, m in written],
        "itc_synthetic": [round(m.cosine, DIGITS) for _, m in written],
    }
