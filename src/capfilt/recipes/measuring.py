"""`capfilt eval MODEL --task ...`: any checkpoint on a task's own files, measured as the paper measures it."""

import contextlib
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from capfilt.config import to_dict, with_sets
from capfilt.data.pictures import Album
from capfilt.errors import ConfigError
from capfilt.files import lease, write_json, write_text
from capfilt.models.blip import Blip
from capfilt.predict.faithful import RIGHT, Faithful
from capfilt.predict.ready import ready
from capfilt.recipes.measured_tasks import TASKS, Files, Task
from capfilt.runtime import device, machine
from capfilt.weights.checkpoint import Opened, open_checkpoint

RESULTS = "results.json"


@dataclass(frozen=True)
class Settings:
    """kind: those of the task.

    split: `train`, `val` or `test`, of a file that holds several; of NLVR, the folder of its pictures.
    limit: so many rows from the first; all if None.
    vocab: as `weights.checkpoint.open_checkpoint`.
    precision: as `predict.ready.ready`; None: the weights as they are.
    """

    kind: Task
    split: str = "test"
    limit: int | None = None
    vocab: str | None = None
    precision: str | None = None
    faithful: Faithful = RIGHT


def measure(model: str, task: str, files: Files, out: Path | None = None, sets: Iterable[str] = ()) -> dict[str, Any]:
    """Measures a checkpoint; returns what `results.json` says.

    out: folder for the results, the predictions, and the decoded pictures, which another call with these files uses
        again; nothing is kept without.

    Raises:
        ConfigError: an unknown task or setting, a model of another task, or nothing to tell because the truth of every
            row is kept back and there is no `out` for the predictions.
        DataError: files that cannot be read, or no usable row in them.
        WeightsError: as `weights.checkpoint.open_checkpoint`.
    """
    if task not in TASKS:
        raise ConfigError(f"task {task!r} is not one of {', '.join(TASKS)}")
    if not files.data:
        raise ConfigError(f"{task}: nothing to measure with; give --data")
    if out is not None and any((out / name).is_file() for name in ("task.json", "stages.json")):
        raise ConfigError(f"{out}: holds the run that made a model; its results stay. Choose another --out")
    sets = list(sets)
    settings = with_sets(Settings(TASKS[task]()), sets)
    opened = open_checkpoint(model, vocab=settings.vocab)
    _check(opened, task, settings)
    rows, notes = _rows(settings, files)
    settings = with_sets(Settings(TASKS[task]().usual(rows)), sets)
    kind = settings.kind
    if out is None and not any(map(kind.known, rows)):
        raise ConfigError(f"{files.data[0]}: its truth is kept back; give --out for what is to be handed in")
    with _folder(out) as folder:
        names = chain.from_iterable(map(kind.images, rows))
        album = kind.album(names, folder / "pictures", opened.model.config.vit.px)
        at_work = opened.model.to(device())
        if settings.precision is not None:
            at_work = ready(at_work, settings.precision)
        measured = kind.measure(at_work, opened.tokenizer, rows, album, settings.faithful)
        results = {
            "task": task,
            "model": to_dict(opened.origin),
            "data": to_dict(files),
            "settings": to_dict(settings),
            "numbers": measured.numbers,
            "unread": dict(_unread(kind, rows, album).most_common()),
            "notes": notes,
            "predictions": kind.file if out else None,
            "machine": machine(),
        }
        if out:
            _write(out / kind.file, measured.predictions)
            write_json(out / RESULTS, results)
    return results


def _check(opened: Opened, task: str, settings: Settings) -> None:
    kind, model = settings.kind, opened.model
    if not isinstance(model, kind.model) or (isinstance(model, Blip) and not {*kind.roles} <= {*model.config.roles}):
        needed = f"one that can {' and '.join(kind.roles)}" if kind.roles else f"a {kind.model.__name__}"
        raise ConfigError(f"{opened.origin.where}: a {opened.origin.kind} model; --task {task} needs {needed}")
    idle = [name for name, on in vars(settings.faithful).items() if on and name not in kind.switches]
    if idle:
        raise ConfigError(f"faithful.{idle[0]}: --task {task} heeds {', '.join(kind.switches) or 'no such switch'}")
    if settings.limit is not None and settings.limit < 1:
        raise ConfigError(f"limit={settings.limit}: at least one row")


def _rows(settings: Settings, files: Files) -> tuple[Sequence[Any], list[str]]:
    """Annotations, and what their readers had to say."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        rows = settings.kind.read(files, settings.split)[: settings.limit]
    notes = [str(one.message) for one in told]
    for note in notes:
        warnings.warn(note, stacklevel=3)
    return rows, notes


@contextlib.contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    """`out`, held for this run; else one that is gone afterwards."""
    if out is None:
        with tempfile.TemporaryDirectory(prefix="capfilt-") as folder:
            yield Path(folder)
    else:
        with lease(out):
            yield out


def _unread(kind: Task, rows: Sequence[Any], album: Album) -> Counter[str]:
    """Reason code → how many rows lack an image because of it."""
    lost = (next((name for name in kind.images(row) if name in album.failed), None) for row in rows)
    return Counter(album.failed[name].partition(":")[0] for name in lost if name is not None)


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    if path.suffix == ".csv":
        write_text(path, "".join(",".join(map(str, row.values())) + "\n" for row in rows))
    else:
        write_json(path, rows)
