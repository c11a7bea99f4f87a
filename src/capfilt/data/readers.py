"""From files to pairs: how a row of a table, a folder's image with its sidecars, and a shard's sample become a Pair.

Nothing here gives up on a whole source: what cannot be used comes out as a Failure with a reason.
"""

import contextlib
import json
import posixpath
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from capfilt.data import tar_shards
from capfilt.data.rows import KEY_COLUMNS, TEXT_COLUMNS, Row, captions_of, fixed_columns, pick, pick_image, table_rows
from capfilt.data.tar_shards import BROKEN_STREAM, TAR_SUFFIXES, Member, escapes, split_name
from capfilt.errors import DataError
from capfilt.inputs.images import SUFFIXES
from capfilt.inputs.texts import plain_text
from capfilt.pair import Pair

MAX_IMAGE_BYTES = 256 * 2**20
LONGEST_NAME = 1024
TEXT_SIDECARS = ("txt", "caption", "text")

Load = Callable[[], bytes]


@dataclass(frozen=True)
class Failure:
    """A row that cannot be used: its key (or its place), a reason code (listed in `sources`), and one clear line."""

    key: str
    reason: str
    message: str
    source: str = ""


@dataclass(frozen=True)
class Origin:
    """Where to read and how.

    root:      rows may name files inside it and nowhere else.
    is_folder: the whole folder `root` was given, not one file in it.
    image, text: columns, where the usual names do not fit.
    """

    fs: Any = field(repr=False, compare=False)
    root: str
    is_folder: bool
    files: tuple[str, ...] = field(repr=False)
    image: str | None = None
    text: str | None = None


class _Unusable(Exception):
    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


def read_tables(origin: Origin) -> Iterator[Pair | Failure]:
    """A row of each table is a pair. A table with fixed columns that lacks the image or the text raises DataError."""
    said: dict[str, set[int]] = defaultdict(set)  # key of an image → its texts so far, hashed
    for file in origin.files:
        try:
            truth = _truth(origin, file)
            with _opened(origin.fs, file) as handle:
                for number, row in table_rows(handle, file):
                    place = f"{posixpath.basename(file)}:{number}"
                    if isinstance(row, str):
                        yield Failure(place, "bad_row", f"{place}: {row}", file)
                        continue
                    if number == 1 and fixed_columns(file):
                        _check_columns(origin, file, row)
                    try:
                        yield _table_pair(origin, file, place, row, truth, said)
                    except _Unusable as error:
                        yield Failure(_row_key(origin, file, place, row)[0], error.reason, f"{place}: {error}", file)
        except BROKEN_STREAM as error:
            yield _broken(file, posixpath.basename(file), error)


def read_folder(origin: Origin) -> Iterator[Pair | Failure]:
    """Each image with the sidecars of its name; a text without an image is a Failure."""
    sidecars: dict[str, dict[str, str]] = defaultdict(dict)
    images = []
    for file in origin.files:
        stem, suffix = split_name(file)
        if suffix in SUFFIXES:
            images.append(file)
        else:
            sidecars[stem][suffix] = file
    stems = {split_name(file)[0] for file in images}
    for file in origin.files:
        stem, suffix = split_name(file)
        key = posixpath.relpath(file, origin.root)
        if suffix in SUFFIXES:
            beside = {s: _loader(origin.fs, name) for s, name in sidecars.get(stem, {}).items()}
            try:
                yield _sample(origin, key, file, _loader(origin.fs, file), beside, one_a_line=True)
            except _Unusable as error:
                yield Failure(key, error.reason, f"{key}: {error}", file)
        elif stem not in stems:
            yield Failure(key, "no_image", f"{key}: no image of that name beside it", file)


def read_shards(origin: Origin) -> Iterator[Pair | Failure]:
    """Each sample of each shard, keyed `shard/name`. A cut shard gives its whole samples, then one Failure."""
    for file in origin.files:
        try:
            with _opened(origin.fs, file) as handle:
                yield from _read_shard(origin, file, handle)
        except BROKEN_STREAM as error:
            yield _broken(file, posixpath.relpath(file, origin.root), error)


def _read_shard(origin: Origin, file: str, handle: IO[bytes]) -> Iterator[Pair | Failure]:
    relative = posixpath.relpath(file, origin.root)
    shard = next((relative[: -len(s)] for s in TAR_SUFFIXES if relative.lower().endswith(s)), relative)
    index = tar_shards.index(handle)
    halves = []
    for name, members in index.samples.items():
        key = f"{shard}/{name}"
        load = {suffix: _member_loader(handle, member) for suffix, member in members.items()}
        image = next((load[suffix] for suffix in load if suffix in SUFFIXES), None)
        try:
            yield _sample(origin, key, file, image, load, one_a_line=False)
        except _Unusable as error:
            if index.cut and error.reason in ("no_text", "no_image"):
                halves.append(name)  # its other half lies behind the cut
            else:
                yield Failure(key, error.reason, f"{key}: {error}", file)
    for name, reason, message in index.faults:
        yield Failure(f"{shard}/{name}", reason, f"{relative}: {message}", file)
    if index.cut:
        reason = "truncated" if index.members else "unreadable"
        lost = f"; {len(halves)} samples are incomplete ({', '.join(halves[:3])})" if halves else ""
        yield Failure(shard, reason, f"{relative}: {index.cut}{lost}", file)


def _table_pair(
    origin: Origin, file: str, place: str, row: Row, truth: dict[Any, Row], said: dict[str, set[int]]
) -> Pair:
    text_column = pick(row, origin.text, TEXT_COLUMNS)
    captions = captions_of(row[text_column]) if text_column else []
    texts, flags = _plain(captions)
    if not texts:
        raise _Unusable("no_text", f"no caption (columns: {', '.join(map(str, row))})")
    image_column = pick_image(row, origin.image)
    image, name = _row_image(origin, file, row, image_column)
    key, key_column = _row_key(origin, file, place, row)
    if not key_column:  # one caption a row is common: then an image comes again, and each row has a key of its own
        mark = hash(texts)
        if mark in said[key]:
            raise _Unusable("duplicate_key", f"{key} came before with the same text")
        said[key].add(mark)
        key += f"@{len(said[key])}" if len(said[key]) > 1 else ""
    meta = {column: v for column, v in row.items() if column not in (image_column, text_column, key_column)}
    known = truth.get((name, texts))
    meta |= {"truth": known} if known else {}
    meta |= {"text_flags": flags} if flags else {}
    return Pair(key, image, texts, file, meta)


def _row_key(origin: Origin, file: str, place: str, row: Row) -> tuple[str, str | None]:
    """The row's key and the column it stands in: an explicit key, else the image's name, else the row's place."""
    column = pick(row, None, KEY_COLUMNS)
    if column and row[column] not in (None, ""):
        return str(row[column]), column
    name = _name_in(row, pick_image(row, origin.image))
    if not name or len(name) > LONGEST_NAME:
        return place, None
    inner = posixpath.relpath(posixpath.dirname(file), origin.root) if origin.is_folder else ""
    return posixpath.normpath("/" + posixpath.join(inner, name)).lstrip("/"), None  # no `..` ever leaves in a key


def _name_in(row: Row, column: str | None) -> str:
    value = row[column] if column else None
    name = value.get("path") if isinstance(value, dict) else value
    return name if isinstance(name, str) else ""


def _row_image(origin: Origin, file: str, row: Row, column: str | None) -> tuple[bytes, str]:
    """The image's bytes, from the cell or from the file that it names, and that name."""
    value = row[column] if column else None
    name = _name_in(row, column)
    data = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(data, bytes):
        return _sized(data), name
    if not name:
        raise _Unusable("no_image", f"no image (columns: {', '.join(map(str, row))})")
    if "://" in name:
        raise _Unusable("url", f"{name} is on the net; images are never fetched, download them first")
    return _sized(_load(origin.fs, _find(origin, file, name))), name


def _find(origin: Origin, file: str, name: str) -> str:
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
    for path in inside:
        if origin.fs.isfile(path):
            return path
    for path in inside:
        if origin.fs.exists(path):
            raise _Unusable("not_a_file", f"{name} is no plain file")
    looked = ", ".join(posixpath.relpath(posixpath.dirname(path), base) for path in inside)
    raise _Unusable("missing_file", f"{name}: no such file (looked in {looked})")


def _sample(
    origin: Origin, key: str, file: str, image: Load | None, beside: Mapping[str, Load], one_a_line: bool
) -> Pair:
    """An image and what has the same name: text, and JSON whose other fields become meta."""
    if image is None:
        raise _Unusable("no_image", f"no image among {', '.join(beside) or 'its members'}")
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
    texts, flags = _plain(captions)
    if not texts:
        raise _Unusable(
            "no_text", f"no caption among {', '.join(s for s in beside if s not in SUFFIXES) or 'sidecars'}"
        )
    meta |= {"text_flags": flags} if flags else {}
    return Pair(key, _sized(image()), texts, file, meta)


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
    with _opened(origin.fs, beside) as handle:
        for _, row in table_rows(handle, beside):
            if not isinstance(row, str):
                image, text = pick_image(row, origin.image), pick(row, origin.text, TEXT_COLUMNS)
                texts = _plain(captions_of(row[text]))[0] if text else ()
                known[_name_in(row, image), texts] = {c: v for c, v in row.items() if c not in (image, text)}
    return known


def _check_columns(origin: Origin, file: str, row: Row) -> None:
    image, text = pick_image(row, origin.image), pick(row, origin.text, TEXT_COLUMNS)
    for what, wanted, column in (("image", origin.image, image), ("text", origin.text, text)):
        if column is None:
            missing = f"no column {wanted!r}" if wanted else f"no {what} column found"
            there = ", ".join(map(str, row))
            raise DataError(f"{file}: {missing} among {there}. Name it with `--set sources.{what}=COLUMN`.")


@contextlib.contextmanager
def _opened(fs: Any, file: str) -> Iterator[IO[bytes]]:
    packed = "gzip" if file.lower().endswith(".tgz") else "infer"
    with fs.open(file, "rb", compression=packed) as handle:
        yield handle


def _broken(file: str, name: str, error: BaseException) -> Failure:
    """One failure for a whole file that cannot be read on."""
    reason = "missing_file" if isinstance(error, FileNotFoundError) else "unreadable"
    reason = "truncated" if isinstance(error, EOFError) else reason
    return Failure(name, reason, f"{name}: {error}", file)


def _loader(fs: Any, path: str) -> Load:
    return lambda: _load(fs, path)


def _member_loader(handle: IO[bytes], member: Member) -> Load:
    def load() -> bytes:
        if member.size > MAX_IMAGE_BYTES:
            raise _Unusable("too_large", f"{member.name} is {member.size} bytes, the limit is {MAX_IMAGE_BYTES}")
        return tar_shards.read(handle, member)

    return load


def _load(fs: Any, path: str) -> bytes:
    try:
        if (size := fs.size(path) or 0) > MAX_IMAGE_BYTES:
            raise _Unusable("too_large", f"{path} is {size} bytes, the limit is {MAX_IMAGE_BYTES}")
        return fs.cat_file(path)
    except FileNotFoundError:
        raise _Unusable("missing_file", f"{path}: no such file") from None
    except OSError as error:
        raise _Unusable("unreadable", f"{path}: {error.strerror or error}") from None


def _sized(data: bytes) -> bytes:
    if not data:
        raise _Unusable("empty", "0 bytes")
    return data
