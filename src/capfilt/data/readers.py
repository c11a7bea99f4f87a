"""From files to pairs: how a row of a table, a folder's image with its sidecars, and a shard's sample become a Pair.

Images are not loaded here: a Pair says where its image lies (`refs.Ref`). Nothing here gives up on a whole source: what
cannot be used comes out as a Failure with a reason. Each reader yields (place, Pair or Failure); the place is how a
message about the row begins.
"""

import json
import posixpath
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from capfilt.data import tar_shards
from capfilt.data.refs import MAX_IMAGE_BYTES, Ref, opened, whole, whole_path
from capfilt.data.rows import (
    KEY_COLUMNS,
    STORED,
    TEXT_COLUMNS,
    Row,
    Seen,
    Stored,
    captions_of,
    fixed_columns,
    mark_of,
    pick,
    pick_image,
    table_rows,
)
from capfilt.data.tar_shards import BROKEN_STREAM, TAR_SUFFIXES, Member, escapes, split_name
from capfilt.errors import DataError, ImageError
from capfilt.inputs.images import SUFFIXES
from capfilt.inputs.texts import plain_text
from capfilt.pair import Pair

LONGEST_NAME = 1024
TEXT_SIDECARS = ("txt", "caption", "text")

Load = Callable[[], bytes]


@dataclass(frozen=True)
class Failure:
    """A row that cannot be used: its key (or its place), a reason code (listed in `sources`), and one clear line.

    texts: its captions, where it was read that far.
    """

    key: str
    reason: str
    message: str
    source: str = ""
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Origin:
    """Where to read and how.

    root:      rows may name files inside it and nowhere else.
    is_folder: the whole folder `root` was given, not one file in it.
    image, text: columns, where the usual names do not fit.
    needed:    a row without a text is a Failure.
    urls:      an image's address is a place to load it from, not a Failure.
    """

    fs: Any = field(repr=False, compare=False)
    root: str
    is_folder: bool
    files: tuple[str, ...] = field(repr=False)
    image: str | None = None
    text: str | None = None
    needed: bool = True
    urls: bool = False


Read = tuple[str, Pair | Failure]


class _Unusable(ImageError):
    """What is wrong with a row, its image aside."""


def read_tables(origin: Origin) -> Iterator[Read]:
    """A row of each table is a pair. A table with fixed columns that lacks the image or the text raises DataError."""
    names = _Names()
    for file in origin.files:
        base = posixpath.basename(file)
        try:
            truth = _truth(origin, file)
            with opened(origin.fs, file) as handle:
                for number, row in table_rows(handle, file, origin.image):
                    place = f"{base}:{number}"
                    if isinstance(row, str):
                        yield place, Failure(place, "bad_row", f"{place}: {row}", file)
                        continue
                    if number == 1 and fixed_columns(file):
                        _check_columns(origin, file, row)
                    yield place, _table_row(origin, file, number, row, truth, names)
        except BROKEN_STREAM as error:
            yield base, _broken(file, base, error)


def read_folder(origin: Origin) -> Iterator[Read]:
    """Each image with the sidecars of its name; a text without an image is a Failure."""
    sidecars: dict[str, tuple[str, ...]] = defaultdict(tuple)
    for file in origin.files:
        stem, suffix = split_name(file)
        if suffix not in SUFFIXES:
            sidecars[stem] += (file,)
    alone = sidecars.keys() - {stem for stem, suffix in map(split_name, origin.files) if suffix in SUFFIXES}
    for file in origin.files:
        stem, suffix = split_name(file)
        key = posixpath.relpath(file, origin.root)
        if suffix in SUFFIXES:
            beside = {split_name(name)[1]: _sidecar_loader(origin.fs, name) for name in sidecars.get(stem, ())}
            ref = Ref("file", whole_path(origin.fs, file))
            yield key, _sample(origin, key, file, ref, beside, one_a_line=True)
        elif stem in alone:
            yield key, Failure(key, "no_image", f"{key}: no image of that name beside it", file)


def read_shards(origin: Origin) -> Iterator[Read]:
    """Each sample of each shard, keyed `shard/name`. A cut shard gives its whole samples, then one Failure."""
    for file in origin.files:
        try:
            with opened(origin.fs, file) as handle:
                for item in _read_shard(origin, file, handle):
                    yield item.key, item
        except BROKEN_STREAM as error:
            name = posixpath.relpath(file, origin.root)
            yield name, _broken(file, name, error)


def _read_shard(origin: Origin, file: str, handle: IO[bytes]) -> Iterator[Pair | Failure]:
    relative, path = posixpath.relpath(file, origin.root), whole_path(origin.fs, file)
    shard = next((relative[: -len(s)] for s in TAR_SUFFIXES if relative.lower().endswith(s)), relative)
    packed = not file.lower().endswith(".tar")
    texts = (*TEXT_SIDECARS, "json", *filter(None, [origin.text]))
    index = tar_shards.index(handle, keep=texts if packed else ())
    last = next(reversed(index.samples), None) if index.cut else None
    halves = []
    for name, members in index.samples.items():
        beside = {suffix: _member_loader(handle, member) for suffix, member in members.items()}
        image = next((member for suffix, member in members.items() if suffix in SUFFIXES), None)
        ref = Ref("part", path, image.offset, image.size) if image else None
        item = _sample(origin, f"{shard}/{name}", file, ref, beside, one_a_line=False)
        lacks = item.reason in ("no_text", "no_image") if isinstance(item, Failure) else not item.texts and name == last
        if index.cut and lacks:
            halves.append(name)  # its other half lies behind the cut
        else:
            yield item
    for name, reason, message in index.faults:
        yield Failure(f"{shard}/{name}", reason, f"{relative}: {message}", file)
    if index.cut:
        reason = "truncated" if index.members else "unreadable"
        lost = f"; {len(halves)} samples are incomplete ({', '.join(halves[:3])})" if halves else ""
        yield Failure(shard, reason, f"{relative}: {index.cut}{lost}", file)


class _Names:
    """Keys of rows that have none of their own: the image's name, with other texts again `name@2`, `name@3`, ..."""

    def __init__(self) -> None:
        self._seen, self._again = Seen(), dict[int, int]()

    def key(self, name: str, texts: tuple[str, ...]) -> str:
        if not self._seen.add(name, texts):
            raise _Unusable("duplicate_key", f"{name} came before with the same text")
        if self._seen.add(name):
            return name
        mark = mark_of(name)
        self._again[mark] = self._again.get(mark, 1) + 1
        return f"{name}@{self._again[mark]}"


def _table_row(
    origin: Origin, file: str, number: int, row: Row, truth: dict[Any, Row], names: _Names
) -> Pair | Failure:
    text_column, image_column = pick(row, origin.text, TEXT_COLUMNS), pick_image(row, origin.image)
    texts, flags = _plain(captions_of(row[text_column]) if text_column else [])
    place = f"{posixpath.basename(file)}:{number}"
    key, key_column = _row_key(origin, file, place, row)
    try:
        if origin.needed and not texts:
            raise _Unusable("no_text", f"no caption (columns: {', '.join(map(str, row))})")
        ref = _row_image(origin, file, number, row, image_column)
        if not key_column:  # one caption a row is common: then an image comes again, and each row has a key of its own
            key = names.key(key, texts)
    except ImageError as error:
        return Failure(key, error.reason, f"{place}: {error}", file, texts)
    used = (image_column, text_column, key_column)
    meta = {column: v for column, v in row.items() if column not in used and not _stored(v)}
    known = truth.get((_name_in(row, image_column), texts))
    meta |= {"truth": known} if known else {}
    meta |= {"text_flags": flags} if flags else {}
    return Pair(key, ref, texts, file, meta)


def _row_key(origin: Origin, file: str, place: str, row: Row) -> tuple[str, str | None]:
    """The row's key and the column it stands in: an explicit key, else the image's name, else the row's place."""
    column = pick(row, None, KEY_COLUMNS)
    if column and row[column] not in (None, ""):
        return str(row[column]), column
    name = _name_in(row, pick_image(row, origin.image))
    if not name or len(name) > LONGEST_NAME:
        return place, None
    if "://" in name:
        return name, None
    inner = posixpath.relpath(posixpath.dirname(file), origin.root) if origin.is_folder else ""
    return posixpath.normpath("/" + posixpath.join(inner, name)).lstrip("/"), None  # no `..` ever leaves in a key


def _name_in(row: Row, column: str | None) -> str:
    value = row[column] if column else None
    name = value.get("path") if isinstance(value, dict) else value
    return name if isinstance(name, str) else ""


def _stored(value: Any) -> bool:
    """Whether a cell is another picture of the row, left where it lies."""
    return isinstance(value.get("bytes") if isinstance(value, dict) else value, Stored)


def _row_image(origin: Origin, file: str, number: int, row: Row, column: str | None) -> Ref:
    """Where the image lies: in the cell, in the file that it names, or on the net."""
    value = row[column] if column else None
    data = value.get("bytes") if isinstance(value, dict) else value
    if column and (data is STORED or isinstance(data, bytes)):
        return Ref("cell", whole_path(origin.fs, file), row=number - 1, column=column)
    name = _name_in(row, column)
    if not name:
        raise _Unusable("no_image", f"no image (columns: {', '.join(map(str, row))})")
    if "://" in name and not origin.urls:
        raise _Unusable(
            "url", f"{name} is on the net; download it first (capfilt clean and plan fetch with --fetch HOST)"
        )
    return Ref("url", name) if "://" in name else _find(origin, file, name)


def _find(origin: Origin, file: str, name: str) -> Ref:
    """The file that a row means: beside the table, in `images/`, or in the same two places one folder up."""
    if len(name) > LONGEST_NAME:
        raise _Unusable("missing_file", f"the image cell holds {len(name)} characters, which is no file name")
    base = posixpath.dirname(file)
    parent = posixpath.dirname(base)
    places = (base,) if escapes(name) else (base, f"{base}/images", parent, f"{parent}/images")
    paths = [posixpath.normpath(posixpath.join(place, name)) for place in places]
    inside = [path for path in paths if path.startswith(origin.root.rstrip("/") + "/")]
    if not inside or "\0" in name:
        raise _Unusable("outside_folder", f"{name!r} points outside {origin.root}")
    first, *instead = (whole_path(origin.fs, path) for path in inside)
    return Ref("file", first, instead=tuple(instead))


def _sample(
    origin: Origin, key: str, file: str, image: Ref | None, beside: Mapping[str, Load], one_a_line: bool
) -> Pair | Failure:
    """An image and what has the same name: text, and JSON whose other fields become meta."""
    texts: tuple[str, ...] = ()
    try:
        meta, captions = _told_beside(origin, beside, one_a_line)
        texts, flags = _plain(captions)
        if image is None:
            raise _Unusable("no_image", f"no image among {', '.join(beside) or 'its members'}")
        if origin.needed and not texts:
            others = ", ".join(s for s in beside if s not in SUFFIXES)
            raise _Unusable("no_text", f"no caption among {others or 'sidecars'}")
    except ImageError as error:
        return Failure(key, error.reason, f"{key}: {error}", file, texts)
    meta |= {"text_flags": flags} if flags else {}
    return Pair(key, image, texts, file, meta)


def _told_beside(origin: Origin, beside: Mapping[str, Load], one_a_line: bool) -> tuple[Row, list[str | bytes]]:
    """(the fields of the JSON, the captions)."""
    meta: Row = {}
    if "json" in beside:
        try:
            value = json.loads(beside["json"]().decode("utf-8", "replace"))
            meta = value if isinstance(value, dict) else {"json": value}
        except (ValueError, RecursionError) as error:
            meta = {"json_error": str(error)}
    captions: list[str | bytes] = []
    for suffix in TEXT_SIDECARS if origin.text is None else (origin.text,):
        if suffix in beside and not captions:
            raw = beside[suffix]()
            captions = list(raw.splitlines()) if one_a_line else [raw]
    column = pick(meta, origin.text, TEXT_COLUMNS)
    if not captions and column:
        captions = captions_of(meta.pop(column))
    return meta, captions


def _plain(captions: Iterable[str | bytes]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Captions as safe text, blank ones left out, and every flag that came up."""
    both = [plain_text(caption) for caption in captions]
    return tuple(text for text, _ in both if text), tuple(dict.fromkeys(flag for _, flags in both for flag in flags))


def truth_beside(file: str) -> str | None:
    """`X.truth.jsonl` for `X.jsonl`, whether it is there or not; other tables have none."""
    return file.removesuffix(".jsonl") + ".truth.jsonl" if file.endswith(".jsonl") else None


def _truth(origin: Origin, file: str) -> dict[Any, Row]:
    """What the file `truth_beside` knows: (image name, texts) → its other columns, `kind` and `match`."""
    beside = truth_beside(file)
    if beside is None or not origin.fs.isfile(beside):
        return {}
    known = {}
    with opened(origin.fs, beside) as handle:
        for _, row in table_rows(handle, beside):
            if not isinstance(row, str):
                image, text = pick_image(row, origin.image), pick(row, origin.text, TEXT_COLUMNS)
                texts = _plain(captions_of(row[text]))[0] if text else ()
                known[_name_in(row, image), texts] = {c: v for c, v in row.items() if c not in (image, text)}
    return known


def _check_columns(origin: Origin, file: str, row: Row) -> None:
    image, text = pick_image(row, origin.image), pick(row, origin.text, TEXT_COLUMNS)
    for what, wanted, column in (("image", origin.image, image), ("text", origin.text, text)):
        if column is None and (wanted or what == "image" or origin.needed):
            missing = f"no column {wanted!r}" if wanted else f"no {what} column found"
            there = ", ".join(map(str, row))
            raise DataError(f"{file}: {missing} among {there}. Name it with `--set sources.{what}=COLUMN`.")


def _broken(file: str, name: str, error: BaseException) -> Failure:
    """One failure for a whole file that cannot be read on."""
    reason = "missing_file" if isinstance(error, FileNotFoundError) else "unreadable"
    reason = "truncated" if isinstance(error, EOFError) else reason
    return Failure(name, reason, f"{name}: {error}", file)


def _sidecar_loader(fs: Any, path: str) -> Load:
    return lambda: whole(fs, path)


def _member_loader(handle: IO[bytes], member: Member) -> Load:
    def load() -> bytes:
        if member.size > MAX_IMAGE_BYTES:
            raise _Unusable("too_large", f"{member.name} is {member.size} bytes, the limit is {MAX_IMAGE_BYTES}")
        try:
            return tar_shards.read(handle, member)
        except BROKEN_STREAM as error:
            raise _Unusable("unreadable", f"{member.name}: {error}") from None

    return load
