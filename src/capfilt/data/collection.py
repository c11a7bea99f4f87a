"""A collection ready for work: decoded pictures, their texts, what is known of their truth, and rows that failed."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from capfilt.config import fingerprint
from capfilt.data.arrays import write_bytes
from capfilt.data.decoders import Decoded, Decoders, Reading
from capfilt.data.sources import Failure, Source, open_source
from capfilt.data.table import Chosen, PairTable, Pictures
from capfilt.data.world import Judgement, World
from capfilt.errors import ConfigError, DataError, ImageError
from capfilt.files import atomic, read_json, storage_errors, write_json
from capfilt.pair import Pair, Row
from capfilt.progress import Progress

BATCH = 256
T = TypeVar("T")


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
    picture:    (M,) numbers, equal where two of the images are the same one; all differ if None.
    notes:      what was odd about images and texts that are used all the same, and how often (`animated`,
                `text_truncated`, ...).
    """

    keys: tuple[str, ...]
    pictures: Pictures
    texts: tuple[tuple[str, ...], ...]
    references: tuple[tuple[str, ...], ...]
    kinds: tuple[str, ...] | None = None
    match: tuple[bool, ...] | None = None
    failed: tuple[Row, ...] = ()
    judge: Callable[[int, str], Judgement] | None = None
    picture: np.ndarray | None = None
    notes: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    def table(self, texts: Sequence[Sequence[str]] | None = None) -> PairTable:
        """Every (image, text) row. texts: for each image others (or none) in place of its own."""
        return PairTable.of(self.pictures, self.texts if texts is None else texts, self.picture)

    def only(self, index: np.ndarray) -> "Collection":
        """The images at these places, in this order, without the failures and notes of the whole."""
        judge = self.judge

        def at(values: Sequence[T]) -> tuple[T, ...]:
            return tuple(values[i] for i in index)

        return Collection(
            at(self.keys),
            Chosen(self.pictures, index),
            at(self.texts),
            at(self.references),
            at(self.kinds) if self.kinds else None,
            at(self.match) if self.match else None,
            judge=(lambda i, text: judge(int(index[i]), text)) if judge else None,
            picture=self.picture[index] if self.picture is not None else None,
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


def from_source(
    path: str,
    out: Path,
    px: int,
    one_text: bool = False,
    reading: Reading | None = None,
    image: str | None = None,
    text: str | None = None,
    anew: bool = False,
    mix: str | None = None,
) -> Collection:
    """Reads a real collection once into `out` (pictures as one array, rows as JSON); a second call maps what is there.

    px:       pictures are squashed to px x px as the model will see them (larger, where training crops).
    one_text: a row per (image, text) pair, as web data are judged; else an image keeps all its captions, also those
              of other rows (texts of known truth stay rows of their own).
    image, text: columns, where the usual names do not fit.
    mix:      of a cleaning run, as `open_source` has it.
    reading:  how pictures are decoded; by as many processes as there are processor cores unless it says otherwise.
    anew:     what `out` holds may make way, where the source has changed or is another. Else that is a ConfigError:
              a model may have learned from it. A source that is gone is no change; all of it is in `out`.

    Every row that cannot be used becomes a failed Row with its reason; nothing is left out silently.
    """
    about = out / "rows.json"
    rows = read_json(about) if about.is_file() else None
    try:
        source = open_source(path, image=image, text=text, mix=mix)
        how = {"root": source.origin.root, "px": px, "one_text": one_text, "image": image, "text": text}
        scaled = {"scaled": True} if reading and reading.scaled else {}
        mixed = {"mix": mix} if mix is not None else {}
        mark = fingerprint({**how, **scaled, **mixed, "files": source.state()})
    except DataError:
        if anew or rows is None or rows.get("path") != path:
            raise
        mark = rows["fingerprint"]
    if rows is not None and rows["fingerprint"] != mark:
        if not anew:
            raise ConfigError(f"{path}: changed since this run read it. Use another --out, or put it back.")
        about.unlink()  # first, so that it never describes other pictures than are there
        rows = None
    if rows is None:
        _ingest(source, out, px, one_text, reading, mark)
        rows = read_json(about)
    texts = tuple(tuple(t) for t in rows["texts"])
    truth = rows["truth"]
    known = all(truth) and bool(truth)
    return Collection(
        keys=tuple(rows["keys"]),
        pictures=np.load(out / "pictures.npy", mmap_mode="r"),
        texts=texts,
        references=texts,
        kinds=tuple(t["kind"] for t in truth) if known else None,
        match=tuple(bool(t["match"]) for t in truth) if known else None,
        failed=tuple(Row(**row) for row in rows["failed"]),
        picture=np.array(rows["picture"]),
        notes=rows["notes"],
    )


def _ingest(source: Source, out: Path, px: int, one_text: bool, reading: Reading | None, mark: str) -> None:
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    raw, taken, decoders = out / "pictures.raw", _Taken(one_text), Decoders(px, reading)
    with storage_errors(raw), open(raw, "wb") as pixels, decoders, Progress("reading") as bar:
        for batch in _batches(source):
            for item in batch:
                if isinstance(item, Failure):
                    taken.fail(item.key, item.reason, item.message)
            pairs = [(hashlib.sha256(item.image or b"").digest(), item) for item in batch if isinstance(item, Pair)]
            images = {digest: pair.image or b"" for digest, pair in pairs}
            decoded = dict(zip(images, decoders.decode(images.values()), strict=True))
            for digest, pair in pairs:
                found = decoded[digest]
                if isinstance(found, ImageError):
                    taken.fail(pair.key, found.reason, str(found), pair.texts)
                else:
                    pixels.write(found.pixels.tobytes() * taken.take(pair, digest, found))
            bar.update(len(taken.keys) + len(taken.failed))
    if not taken.keys:
        reasons = ", ".join(sorted({row["reason"].partition(":")[0] for row in taken.failed}))
        raise DataError(f"{source.path}: none of {len(taken.failed)} rows can be used ({reasons}).")

    def write(temporary: Path) -> None:
        with open(raw, "rb") as unframed:
            write_bytes(temporary, (len(taken.keys), px, px, 3), iter(lambda: unframed.read(2**20), b""))

    atomic(out / "pictures.npy", write)
    raw.unlink()
    rows = {name: getattr(taken, name) for name in ("notes", "keys", "picture", "texts", "truth", "failed")}
    write_json(out / "rows.json", {"path": source.path, "fingerprint": mark, **rows})


class _Taken:
    """What `rows.json` says, as it comes in."""

    def __init__(self, one_text: bool):
        self._one_text = one_text
        self._first: dict[bytes, int] = {}  # hash of an image's bytes → the first row that shows it
        self.keys: list[str] = []
        self.picture: list[int] = []
        self.texts: list[list[str]] = []
        self.truth: list[Any] = []
        self.failed: list[dict[str, Any]] = []
        self.notes: Counter[str] = Counter()

    def take(self, pair: Pair, digest: bytes, found: Decoded) -> int:
        """Takes in a pair and returns how many rows it adds: none where its texts join those of an image before."""
        truth, first = pair.meta.get("truth"), self._first.setdefault(digest, len(self.keys))
        self.notes.update(pair.meta.get("text_flags", ()))
        self.notes.update(found.notes if first == len(self.keys) else ())
        if first < len(self.keys) and not self._one_text and truth is None:
            self.texts[first] += [text for text in pair.texts if text not in self.texts[first]]
            return 0
        rows = [[text] for text in pair.texts] if self._one_text else [list(pair.texts)]
        self.keys += [_printable(pair.key if i == 0 else f"{pair.key}#{i}") for i in range(len(rows))]
        self.picture += [first] * len(rows)
        self.texts += rows
        self.truth += [truth] * len(rows)
        return len(rows)

    def fail(self, key: str, reason: str, message: str, texts: Sequence[str] = ()) -> None:
        """Takes in a row that cannot be used."""
        row = Row(_printable(key), "failed", _printable(f"{reason}: {message}"), texts[0] if texts else None)
        self.failed.append(vars(row))


def _batches(source: Source) -> Iterator[list[Pair | Failure]]:
    items = source.read()
    while batch := list(itertools.islice(items, BATCH)):
        yield batch


def _printable(text: str) -> str:
    """Names of files may hold bytes that are no text (lone surrogates here); they are written out, as \\udcff."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
