"""Image-text pairs through one door: `open_source(path).read()`, whatever the path holds.

| path | what is read |
|---|---|
| folder with `captions.jsonl` | its rows; images beside it or in `images/` |
| folder with `metadata.{jsonl,csv,parquet}`, at any depth | Hugging Face ImageFolder |
| tar shards: a folder, a file, `a-{000..099}.tar`, `a-*.tar` | WebDataset |
| folder of images | each with its sidecars: `x.txt` or `x.caption` (one caption a line), `x.json` |
| `.jsonl` `.json` `.csv` `.tsv` `.parquet` (also `.gz`) | a row each: image path, bytes or {bytes, path}, and text |

Remote paths work through fsspec where its driver is installed. Image URLs inside rows are never fetched, shard members
never extracted, nothing ever unpickled. Order is the file's own or the alphabet's, never the file system's.

Every row becomes a Pair or a Failure. Reasons: `no_text` `no_image` `missing_file` `outside_folder` `not_a_file` `url`
`empty` `too_large` `unreadable` `truncated` `duplicate_key` `bad_row`. Pixels are decoded later (`inputs.images`).
"""

import os
import posixpath
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import fsspec

from capfilt.data.readers import TEXT_SIDECARS, Failure, Origin, read_folder, read_shards, read_tables, truth_beside
from capfilt.data.rows import TABLE_SUFFIXES, plain_name
from capfilt.data.tar_shards import TAR_SUFFIXES, expand, split_name
from capfilt.errors import DataError
from capfilt.inputs.images import SUFFIXES
from capfilt.pair import Pair

__all__ = ["Failure", "Source", "open_source"]

Kind = Literal["table", "folder", "shards"]
READERS = {"table": read_tables, "folder": read_folder, "shards": read_shards}
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
CHANGES = ("size", "mtime", "ETag", "etag", "LastModified", "last_modified", "updated")  # what file systems tell


@dataclass(frozen=True)
class Source:
    """What a path turned out to hold; only names have been read so far. Make one with `open_source`."""

    path: str
    kind: Kind
    origin: Origin

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that will be read for its rows, in order."""
        return self.origin.files

    def state(self) -> dict[str, dict[str, str]]:
        """Name → size and time of change of every file that is read for its rows or their truth; none is opened.

        Images that the rows of a table name are not among them.
        """
        beside = [truth_beside(file) for file in self.files if self.kind == "table"]
        return {name: _told(self.origin.fs, name) for name in (*self.files, *filter(None, beside))}

    def read(self) -> Iterator[Pair | Failure]:
        """Every row, in a stable order, its bytes read only as it is reached. Keys of pairs are unique.

        Raises:
            DataError: a table without an image or text column, or, at the end, if no row was usable.
        """
        seen: set[str] = set()
        reasons: Counter[str] = Counter()
        first = ""
        for item in READERS[self.kind](self.origin):
            if isinstance(item, Pair) and item.key in seen:
                item = Failure(item.key, "duplicate_key", f"{item.key}: this key came before", item.source)
            if isinstance(item, Pair):
                seen.add(item.key)
            else:
                reasons[item.reason] += 1
                first = first or item.message
            yield item
        if not seen:
            why = f"{reasons.total()} rows failed ({_counts(reasons)}); the first: {first}" if reasons else "no rows"
            raise DataError(f"{self.path}: no usable pair. {why}")


def open_source(path: str | os.PathLike[str], *, image: str | None = None, text: str | None = None) -> Source:
    """Finds out what a path holds (table in the module's docstring).

    Args:
        image, text: columns to use where the usual names do not fit.

    Raises:
        DataError: nothing there, nothing known in it, or several tables to choose from.
    """
    url = os.fspath(path)
    if url.startswith("pipe:"):
        raise DataError(f"{url}: commands in data paths are never run; give a file or a folder")
    try:
        fs, root = fsspec.core.url_to_fs(url)
        root = root.rstrip("/") or root
        is_folder = fs.isdir(root)
        kind, files = _look_into(fs, root) if is_folder else _look_at(fs, root)
    except FileNotFoundError:
        raise DataError(f"{url}: no such file or folder") from None
    except (OSError, ValueError, ImportError) as error:
        raise DataError(f"{url}: cannot be opened ({error})") from None
    if not is_folder:
        root = posixpath.commonpath([posixpath.dirname(file) for file in files])
        root = _reach(root) if kind == "table" else root
    return Source(url, kind, Origin(fs, root, is_folder, tuple(files), image, text))


def _look_at(fs: Any, path: str) -> tuple[Kind, list[str]]:
    """A file, or a pattern of files."""
    names = [path]
    if not fs.isfile(path):
        names = expand(path)
        if names == [path] or any("*" in name for name in names):  # names given by braces may miss a shard: that shows
            names = sorted({found for name in names for found in fs.glob(name)})
    if not names:
        raise FileNotFoundError(path)
    if all(name.lower().endswith(TAR_SUFFIXES) for name in names):
        return "shards", names
    if all(plain_name(name).lower().endswith(TABLE_SUFFIXES) for name in names):
        return "table", names
    if all(split_name(name)[1] in SUFFIXES for name in names):
        beside = {f"{split_name(name)[0]}.{suffix}" for name in names for suffix in (*TEXT_SIDECARS, "json")}
        return "folder", sorted({*names, *filter(fs.isfile, beside)})
    known = " ".join((*TABLE_SUFFIXES, *TAR_SUFFIXES))
    raise DataError(f"{path}: not an image, and not one of {known}")


def _look_into(fs: Any, root: str) -> tuple[Kind, list[str]]:
    """A folder: the first rule that fits."""
    names = sorted(name for name in fs.find(root) if not _hidden(name[len(root) :]))
    for name in ("captions.jsonl", "captions.jsonl.gz"):
        if f"{root}/{name}" in names:
            return "table", [f"{root}/{name}"]
    if meta := [n for n in names if posixpath.basename(n) in METADATA]:
        return "table", meta
    if shards := [n for n in names if n.lower().endswith(TAR_SUFFIXES)]:
        return "shards", shards
    split = {n: split_name(n) for n in names}
    stems = {stem for stem, suffix in split.values() if suffix in SUFFIXES}
    beside = {n for n, (stem, s) in split.items() if s in (*TEXT_SIDECARS, "json") and stem in stems}
    if beside:
        return "folder", [n for n in names if split[n][1] in (*SUFFIXES, *TEXT_SIDECARS) or n in beside]
    if parquet := [n for n in names if n.endswith(".parquet")]:
        return "table", parquet
    tables = [n for n in names if plain_name(n).endswith((".jsonl", ".csv", ".tsv")) and ".truth." not in n]
    if len(tables) == 1:
        return "table", tables
    if tables:
        listed = ", ".join(n[len(root) + 1 :] for n in tables[:5])
        raise DataError(f"{root}: holds {len(tables)} tables ({listed}); name the one to read")
    what = f"{len(stems)} images but no captions" if stems else "no pairs" if names else "an empty folder"
    raise DataError(
        f"{root}: {what}. Looked for captions.jsonl, metadata.jsonl/csv/parquet, tar shards, images with .txt beside "
        "them, parquet files, one jsonl/csv/tsv table."
    )


def _told(fs: Any, name: str) -> dict[str, str]:
    try:
        info = fs.info(name)
    except OSError:
        return {}
    return {key: str(info[key]) for key in CHANGES if key in info}


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _reach(folder: str) -> str:
    """A table given by name may use its sibling folders, so the parent bounds it, unless that is the whole disk."""
    parent = posixpath.dirname(folder)
    return folder if parent in ("", "/") else parent


def _counts(reasons: Counter[str]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
