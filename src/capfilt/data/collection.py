"""A collection ready for work: decoded pictures, their texts, what is known of their truth, and rows that failed."""

import itertools
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from capfilt.config import fingerprint
from capfilt.data.decoders import Decoders
from capfilt.data.sources import Failure, Source, open_source
from capfilt.data.table import PairTable
from capfilt.data.world import Judgement, World
from capfilt.errors import DataError, ImageError
from capfilt.files import atomic, read_json, sha256, storage_errors, write_json
from capfilt.pair import Pair, Row
from capfilt.progress import Progress

BATCH = 256


@dataclass(frozen=True)
class Collection:
    """M images with their texts.

    pictures:   (M, S, S, 3) uint8.
    texts:      for each image its captions.
    references: for each image the captions that a written one is compared with (the texts, where there are no others).
    kinds:      for each image the known kind of its web text, or None where truth is unknown.
    match:      for each image whether its web text is true, or None.
    failed:     rows that could not be used, with their reason.
    judge:      judges any caption of image i, where the source knows its own truth.
    """

    keys: tuple[str, ...]
    pictures: np.ndarray
    texts: tuple[tuple[str, ...], ...]
    references: tuple[tuple[str, ...], ...]
    kinds: tuple[str, ...] | None = None
    match: tuple[bool, ...] | None = None
    failed: tuple[Row, ...] = ()
    judge: Callable[[int, str], Judgement] | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def table(self) -> PairTable:
        """Every (image, text) row."""
        return PairTable.of(self.pictures, self.texts)

    def part(self, start: int, stop: int | None = None) -> "Collection":
        """Images `start` to `stop`; failures stay with the first part."""
        cut = slice(start, stop)
        judge = self.judge
        return Collection(
            self.keys[cut],
            self.pictures[cut],
            self.texts[cut],
            self.references[cut],
            self.kinds[cut] if self.kinds else None,
            self.match[cut] if self.match else None,
            self.failed if start == 0 else (),
            (lambda i, text: judge(start + i, text)) if judge else None,
        )


def from_world(world: World, split: str, count: int, wordings: int = 5) -> Collection:
    """`count` scenes of the drawn world: `web` with its noise, `test` with full captions, others with a human one."""
    scenes = [world.scene(split, i) for i in range(count)]
    web = [world.web_text(split, i) for i in range(count)] if split == "web" else None
    human = tuple(tuple(world.caption(s, f"{split}-{i}-{k}") for k in range(wordings)) for i, s in enumerate(scenes))
    texts: tuple[tuple[str, ...], ...]
    if web is not None:
        texts = tuple((w.text,) for w in web)
    elif split == "test":
        texts = tuple((world.full_caption(scene),) for scene in scenes)
    else:
        texts = tuple(captions[:1] for captions in human)
    return Collection(
        keys=tuple(f"{split}-{i:06d}" for i in range(count)),
        pictures=world.pictures(split, count),
        texts=texts,
        references=human,
        kinds=tuple(w.kind for w in web) if web else None,
        match=tuple(w.match for w in web) if web else None,
        judge=lambda i, text: world.judge(scenes[i], text),
    )


def from_source(path: str, out: Path, px: int, one_text: bool = False, workers: int = 0) -> Collection:
    """Reads a real collection once into `out` (pictures as one array, rows as JSON); a second call maps what is there.

    px:       pictures are squashed to px x px as the model will see them (larger, where training crops).
    one_text: a row per (image, text) pair, as web data are judged; else an image keeps all its captions.

    Every row that cannot be used becomes a failed Row with its reason; nothing is left out silently.
    """
    mark = fingerprint({"path": os.path.abspath(path), "px": px, "one_text": one_text})
    if not ((out / "rows.json").is_file() and read_json(out / "rows.json")["fingerprint"] == mark):
        _ingest(path, out, px, one_text, workers or os.cpu_count() or 1, mark)
    rows = read_json(out / "rows.json")
    pictures = np.load(out / "pictures.npy", mmap_mode="r")
    texts = tuple(tuple(t) for t in rows["texts"])
    truth = rows["truth"]
    known = all(truth) and bool(truth)
    return Collection(
        keys=tuple(rows["keys"]),
        pictures=pictures,
        texts=texts,
        references=texts,
        kinds=tuple(t["kind"] for t in truth) if known else None,
        match=tuple(bool(t["match"]) for t in truth) if known else None,
        failed=tuple(Row(**row) for row in rows["failed"]),
    )


def _ingest(path: str, out: Path, px: int, one_text: bool, workers: int, mark: str) -> None:
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    raw = out / "pictures.raw"
    rows: dict[str, list[Any]] = {"keys": [], "texts": [], "truth": [], "failed": []}
    source = open_source(path)
    with storage_errors(raw), open(raw, "wb") as pixels, Decoders(workers, px) as decoders, Progress("reading") as bar:
        for batch in _batches(source):
            pairs = [item for item in batch if isinstance(item, Pair)]
            rows["failed"] += [_failed(f.key, f.reason, f.message) for f in batch if isinstance(f, Failure)]
            for pair, result in zip(pairs, decoders.decode(p.image or b"" for p in pairs), strict=True):
                if isinstance(result, ImageError):
                    rows["failed"].append(_failed(pair.key, result.reason, str(result), pair.texts))
                    continue
                for i, texts in enumerate([(text,) for text in pair.texts] if one_text else [pair.texts]):
                    rows["keys"].append(_printable(pair.key if i == 0 else f"{pair.key}#{i}"))
                    rows["texts"].append(texts)
                    rows["truth"].append(pair.meta.get("truth"))
                    pixels.write(result)
            bar.update(len(rows["keys"]) + len(rows["failed"]))
    if not rows["keys"]:
        reasons = ", ".join(sorted({row["reason"].partition(":")[0] for row in rows["failed"]}))
        raise DataError(f"{path}: none of {len(rows['failed'])} rows can be used ({reasons}).")

    def write(temporary: Path) -> None:
        shape = {"descr": "|u1", "fortran_order": False, "shape": (len(rows["keys"]), px, px, 3)}
        with open(temporary, "wb") as handle, open(raw, "rb") as unframed:
            np.lib.format.write_array_header_1_0(handle, shape)
            shutil.copyfileobj(unframed, handle)  # unlike np.save, it says why when the disk refuses

    atomic(out / "pictures.npy", write)
    raw.unlink()
    write_json(out / "rows.json", {"fingerprint": mark, "pictures": sha256(out / "pictures.npy"), **rows})


def _batches(source: Source) -> Iterator[list[Pair | Failure]]:
    items = source.read()
    while batch := list(itertools.islice(items, BATCH)):
        yield batch


def _failed(key: str, reason: str, message: str, texts: Sequence[str] = ()) -> dict[str, Any]:
    why = _printable(f"{reason}: {message}")
    return vars(Row(key=_printable(key), decision="failed", reason=why, text_web=texts[0] if texts else None))


def _printable(text: str) -> str:
    """Names of files may hold bytes that are no text (lone surrogates here); they are written out, as \\udcff."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
