"""A run as a folder of training data: images and their texts in the layouts that trainers read.

`OUT/export.json` says what the folder is, which of its parts are whole, which rows have no image any more, and at the
end `"done": true`. The same command goes on where it was stopped; a folder that holds anything else is refused.
"""

import dataclasses
import functools
import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from capfilt.clean.export.gps import without_gps
from capfilt.clean.export.places import Place
from capfilt.clean.export.rows import Choice, chosen, line, record, total
from capfilt.clean.export.shards import Sample, image_name, planned, write_parquet, write_tar
from capfilt.data.refs import Images
from capfilt.data.run_source import VIEW, images_of, load
from capfilt.data.tar_shards import split_name
from capfilt.errors import ConfigError, ImageError, NothingToRead
from capfilt.files import sha256
from capfilt.inputs.images import SUFFIXES
from capfilt.progress import Progress

Account = dict[str, Any]
LONGEST_PART = 240  # bytes of a file's or folder's name


@dataclass
class Job:
    """One export at work. failed: rows whose image cannot be had, as the manifest tells them."""

    rows: Callable[[], Iterator[dict[str, Any]]]
    place: Place
    images: Images
    strip_gps: bool
    failed: list[dict[str, Any]] = field(default_factory=list)

    def samples(self, rows: list[dict[str, Any]]) -> Iterator[Sample]:
        """Each row with its image, as it is written."""
        for row in rows:
            try:
                data = load(self.images, row)
            except ImageError as error:
                self.failed.append({"id": row["id"], "key": row["key"], "reason": error.reason, "error": str(error)})
                continue
            yield row, without_gps(data) if self.strip_gps else data


def export_folder(run: Path, out: str, form: str, choice: Choice, strip_gps: bool = False) -> Account:
    """Writes the rows that have a text, here or wherever fsspec reaches; → the manifest.

    form: one of `FORMATS`.

    Raises:
        ConfigError: `out` holds something else, or decisions are asked for that leave no text.
        NothingToRead: no decided run, or no row to write.
        BusyError: another export is writing there.
    """
    choice, place, count = choice.with_text(), Place(out), total(run)
    mix = dataclasses.asdict(choice.mix) if choice.mix else None
    of = {"format": form, "decisions": list(choice.decisions or ()), "mix": mix, "strip_gps": strip_gps}
    of["view"] = sha256(run / VIEW)
    _check(place, out, of)
    with place.held(), images_of(LocalFileSystem(), str(run)) as images, Progress("exporting", count) as bar:
        account = place.account() or {**of, "parts": [], "done": False}
        place.tell(account)  # from now on the folder is known for what it is

        def rows() -> Iterator[dict[str, Any]]:
            for number, row in enumerate(chosen(run, choice), 1):
                if row["text"]:
                    yield row
                bar.update(number)

        parts = _WRITERS[form](Job(rows, place, images, strip_gps), account)
        done = sum(part["rows"] for part in parts)
        failed = sum(len(part["failed"]) for part in parts)
        if not done and not failed:
            raise NothingToRead(f"{run}: no row has a text to export (decisions {', '.join(choice.decisions or ())})")
        account = {**of, "rows": done, "parts": parts, "failed": failed, "done": True}
        place.tell(account)
    return account


def _check(place: Place, out: str, of: Account) -> None:
    before = place.account()
    if before is None:
        if found := place.names():
            raise ConfigError(f"{out}: holds {found[0]} and no export of capfilt's. Choose another --out.")
    elif other := [name for name, value in of.items() if before.get(name) != value]:
        what = ", ".join(f"{name} {before.get(name)}" for name in other)
        raise ConfigError(f"{out}: holds another export ({what}). Choose another --out, or delete it.")


def _shards(write: Callable[..., None], suffix: str, job: Job, account: Account) -> list[Account]:
    """Shards that are whole and lack no image stay; the others are made."""
    parts = {part["file"]: part for part in account["parts"]}
    for number, rows in enumerate(planned(job.rows())):
        name = f"{number:05d}.{suffix}"
        part = parts.get(name)
        if part and not part["failed"] and job.place.verify(part):
            continue
        job.failed = []
        made = job.place.file(name, functools.partial(_write, write, job, rows))
        parts[name] = {**made, "rows": len(rows) - len(job.failed), "failed": job.failed}
        job.place.tell({**account, "parts": list(parts.values())})
    return list(parts.values())


def _write(write: Callable[..., None], job: Job, rows: list[dict[str, Any]], path: Path) -> None:
    write(path, job.samples(rows))


def _imagefolder(job: Job, account: Account) -> list[Account]:
    """Images in folders by the first digits of their ids, then the table that names them."""
    written = 0

    def write(path: Path) -> None:
        nonlocal written
        with open(path, "w", encoding="utf-8") as table:
            for row in job.rows():
                name = f"{row['id'][:2]}/{image_name(row)}"
                there = not job.strip_gps and job.place.has(name, row["sha256"])
                for _, image in () if there else job.samples([row]):
                    job.place.put(name, image)
                    there = True
                if there:
                    table.write(line({"file_name": name, **record(row)}) + "\n")
                    written += 1
        job.place.settle()

    made = job.place.file("metadata.jsonl", write)
    return [{**made, "rows": written, "failed": job.failed}]


def _sidecars(job: Job, account: Account) -> list[Account]:
    """A text for each key, as it would lie beside its image; a second key of the same stem keeps its suffix."""
    taken = set[str]()
    for row in job.rows():
        stem, full = _names(row)
        name = next(n for n in (stem, full, row["id"]) if n not in taken)
        taken.add(name)
        job.place.put(f"{name}.txt", row["text"].encode() + b"\n")
    job.place.settle()
    return [{"file": "", "rows": len(taken), "failed": []}]


def _names(row: dict[str, Any]) -> tuple[str, str]:
    """A key as a path that stays inside its folder, without and with the suffix of an image; else the row's id."""
    full = posixpath.normpath("/" + row["key"].replace("\\", "/").replace("\0", "")).lstrip("/")
    if not full or any(len(part.encode()) > LONGEST_PART or part.startswith(".") for part in full.split("/")):
        return row["id"], row["id"]
    stem, suffix = split_name(full)
    return (stem if suffix in SUFFIXES else full), full


_WRITERS: dict[str, Callable[[Job, Account], list[Account]]] = {
    "imagefolder": _imagefolder,
    "webdataset": functools.partial(_shards, write_tar, "tar"),
    "parquet": functools.partial(_shards, write_parquet, "parquet"),
    "sidecar": _sidecars,
}
FORMATS = tuple(_WRITERS)
