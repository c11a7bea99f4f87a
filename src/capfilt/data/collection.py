"""A collection ready for work: decoded pictures, their texts, what is known of their truth, and the rows that failed."""

import functools
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from capfilt.config import fingerprint
from capfilt.data.sources import Failure, open_source
from capfilt.data.table import PairTable
from capfilt.data.world import Judgement, World
from capfilt.errors import DataError, ImageError
from capfilt.files import atomic, read_json, sha256, storage_errors, write_json
from capfilt.inputs.images import decode, to_pixels
from capfilt.inputs.texts import plain_text
from capfilt.pair import Row
from capfilt.progress import Progress

BATCH = 256


@dataclass(frozen=True)
class Collection:
    """M images with their texts.

    pictures:   (M, S, S, 3) uint8.
    texts:      for each image its captions.
    references: for each image the captions that a written one is compared with (the texts, where a source has no others).
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
    """`count` scenes of the drawn world: `web` with its noise, `test` with full captions, any other with one human caption."""
    scenes = [world.scene(split, i) for i in range(count)]
    web = [world.web_text(split, i) for i in range(count)] if split == "web" else None
    human = tuple(tuple(world.caption(s, f"{split}-{i}-{k}") for k in range(wordings)) for i, s in enumerate(scenes))
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
    keys: list[str] = []
    texts: list[list[str]] = []
    truth: list[dict | None] = []
    failed: list[Row] = []
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    raw = out / "pictures.raw"
    source = open_source(path)
    with storage_errors(raw), open(raw, "wb") as pixels, ProcessPoolExecutor(workers) as pool, Progress("reading") as bar:
        for batch in _batches(source):
            good = [p for p in batch if not isinstance(p, Failure)]
            failed += [_failed(f.key, f.reason, f.message) for f in batch if isinstance(f, Failure)]
            decoded = pool.map(functools.partial(_decode, px=px), [p.image for p in good], chunksize=8)
            for pair, result in zip(good, decoded, strict=True):
                captions = [t for t in (plain_text(t)[0] for t in pair.texts) if t.strip()]
                if isinstance(result, ImageError):
                    failed.append(_failed(pair.key, result.reason, str(result), captions))
                elif not captions:
                    failed.append(_failed(pair.key, "no_text", "no caption came with this image"))
                else:
                    for i, group in enumerate([[t] for t in captions] if one_text else [captions]):
                        keys.append(pair.key if i == 0 else f"{pair.key}#{i}")
                        texts.append(group)
                        truth.append(pair.meta.get("truth"))
                        pixels.write(result)
            bar.update(len(keys) + len(failed))
    if not keys:
        reasons = ", ".join(sorted({row.reason.partition(":")[0] for row in failed}))
        raise DataError(f"{path}: none of {len(failed)} rows can be used ({reasons}).")
    flat = np.memmap(raw, dtype=np.uint8, mode="r", shape=(len(keys), px, px, 3))

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as handle:  # a file object, so that numpy keeps the name as it is
            np.save(handle, flat)

    atomic(out / "pictures.npy", write)
    raw.unlink()
    rows = {"keys": keys, "texts": texts, "truth": truth, "failed": [vars(row) for row in failed]}
    write_json(out / "rows.json", {"fingerprint": mark, "pictures": sha256(out / "pictures.npy"), **rows})


def _batches(source):
    batch = []
    for item in source.read():
        batch.append(item)
        if len(batch) == BATCH:
            yield batch
            batch = []
    yield batch


def _decode(data: bytes, px: int) -> bytes | ImageError:
    try:
        return to_pixels(decode(data), px).tobytes()
    except ImageError as error:
        return error


def _failed(key: str, reason: str, message: str, texts: list[str] | None = None) -> Row:
    return Row(key=key, decision="failed", reason=f"{reason}: {message}", text_web=texts[0] if texts else None)
