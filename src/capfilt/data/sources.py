"""Image-text pairs through one door: `open_source(path).read()`, whatever the path holds.

| path | what is read |
|---|---|
| folder of `capfilt clean` | the rows that it kept, with the texts it decided on (`run_source`) |
| folder with `captions.jsonl` | its rows; images beside it or in `images/` |
| folder with `metadata.{jsonl,csv,parquet}`, at any depth | Hugging Face ImageFolder |
| tar shards: a folder, a file, `a-{000..099}.tar`, `a-*.tar` | WebDataset |
| folder of images | each with its sidecars: `x.txt` or `x.caption` (one caption a line), `x.json` |
| `.jsonl` `.json` `.csv` `.tsv` `.parquet` (also `.gz`) | a row each: image path, bytes or {bytes, path}, and text |
| `.txt` | an image's URL a line, and after a tab its text |

Remote paths work through fsspec where its driver is installed; `hf:owner/name`, with or without `@revision` and
`/folder`, is a data set of the Hugging Face hub. Image URLs inside rows are never fetched here, shard members never
extracted, nothing ever unpickled. Order is the file's own or the alphabet's, never the file system's.

Every row becomes a Pair or a Failure. Reasons: `no_text` `no_image` `missing_file` `outside_folder` `not_a_file` `url`
`empty` `too_large` `unreadable` `truncated` `duplicate_key` `bad_row`. Pixels are decoded later (`inputs.images`).
"""

import functools
import hashlib
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import fsspec
from fsspec.implementations.local import LocalFileSystem

from capfilt.data.readers import TEXT_SIDECARS, Failure, Origin, read_folder, read_shards, read_tables, truth_beside
from capfilt.data.refs import Images, Ref
from capfilt.data.rows import LIST_SUFFIX, TABLE_SUFFIXES, Seen, plain_name
from capfilt.data.run_source import VIEW, Mix, is_run, read_run
from capfilt.data.tar_shards import TAR_SUFFIXES, expand, split_name
from capfilt.errors import ConfigError, DataError, ImageError
from capfilt.inputs.images import SUFFIXES
from capfilt.pair import Pair

__all__ = ["Failure", "Source", "open_source"]

Kind = Literal["table", "folder", "shards", "run"]
READERS = {"table": read_tables, "folder": read_folder, "shards": read_shards}
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
CHANGES = ("size", "mtime", "ETag", "etag", "LastModified", "last_modified", "updated")  # what file systems tell


@dataclass(frozen=True)
class Source:
    """What a path turned out to hold; only names have been read so far. Make one with `open_source`."""

    path: str
    kind: Kind
    origin: Origin
    mix: Mix | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that will be read for its rows, in order."""
        return self.origin.files

    def state(self) -> dict[str, dict[str, str]]:
        """Name → size and time of change of every file that is read for its rows or their truth; none is opened.
        Of a run: what its decisions are.

        Images that the rows of a table name are not among them.
        """
        if self.kind == "run":  # `capfilt decide` makes it anew, often to the same bytes
            return {name: {"sha256": hashlib.sha256(self.origin.fs.cat_file(name)).hexdigest()} for name in self.files}
        beside = [truth_beside(file) for file in self.files if self.kind == "table"]
        return {name: _told(self.origin.fs, name) for name in (*self.files, *filter(None, beside))}

    def read(self, lazy: bool = False) -> Iterator[Pair | Failure]:
        """Every row, in a stable order. Keys of pairs are unique, whether their images can be loaded or not.

        lazy: images stay where they are: `Pair.image` is a `refs.Ref`, for `refs.Images` to load, there or to fail.
              Else it is the bytes, read as the row is reached; rows whose image cannot be loaded are Failures.

        Raises:
            DataError: a table without an image or text column, or, at the end, if no row was usable (lazily: no row).
        """
        seen, usable = Seen(), 0
        reasons: Counter[str] = Counter()
        first = ""
        run = functools.partial(read_run, mix=self.mix, lazy=lazy)
        with Images() as images:
            for place, item in (run if self.kind == "run" else READERS[self.kind])(self.origin):
                if isinstance(item, Pair) and not seen.add(item.key):
                    message = f"{item.key}: this key came before"
                    item = Failure(item.key, "duplicate_key", message, item.source, item.texts)
                if isinstance(item, Pair) and isinstance(item.image, Ref) and not lazy:
                    item = _loaded(item, images, place)
                if isinstance(item, Pair):
                    usable += 1
                else:
                    reasons[item.reason] += 1
                    first = first or " ".join(item.message.split())
                yield item
        if not usable and not (lazy and reasons):
            why = f"{reasons.total()} rows failed ({_counts(reasons)}); the first: {first}" if reasons else "no rows"
            raise DataError(f"{self.path}: no usable pair. {why}")


def open_source(
    path: str | os.PathLike[str],
    *,
    image: str | None = None,
    text: str | None = None,
    captions: Literal["needed", "optional"] = "needed",
    urls: bool = False,
    mix: str | None = None,
) -> Source:
    """Finds out what a path holds (table in the module's docstring).

    Args:
        image, text: columns to use where the usual names do not fit.
        captions: `optional`: images without any text are pairs too.
        urls: addresses of images are refs for a lazy reader, to be fetched by an `Images` that may.
        mix: of a run: `web=.3,syn=.7`, which one text each row gets (`run_source.Mix`); all that are kept without.

    Raises:
        ConfigError: a mix of what is no run.
        DataError: nothing there, nothing known in it, or several tables to choose from.
    """
    url, needed = os.fspath(path), captions == "needed"
    if url.startswith("pipe:"):
        raise DataError(f"{url}: commands in data paths are never run; give a file or a folder")
    try:
        fs, root = fsspec.core.url_to_fs(_on_the_hub(url) if url.startswith("hf:") else url)
        root = root.rstrip("/") or root
        is_folder = fs.isdir(root)
        kind, files = _look_into(fs, root, needed) if is_folder else _look_at(fs, root)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{url}: no such file or folder") from None
    except Exception as error:  # every driver of remote paths has errors of its own
        raise DataError(f"{url}: cannot be opened ({error})") from error
    if not is_folder:
        root = posixpath.commonpath([posixpath.dirname(file) for file in files])
        root = _reach(root) if kind == "table" else root
    if mix is not None and kind != "run":
        raise ConfigError(f"{url}: a mix is drawn from the folder of capfilt clean, and this is none")
    origin = Origin(fs, root, is_folder, tuple(files), image, text, needed, urls)
    return Source(url, kind, origin, Mix.of(mix) if mix is not None else None)


def _loaded(pair: Pair, images: Images, place: str) -> Pair | Failure:
    try:
        return replace(pair, image=images.load(pair.image))
    except ImageError as error:
        return Failure(pair.key, error.reason, f"{place}: {error}", pair.source, pair.texts)


def _on_the_hub(url: str) -> str:
    """`hf:owner/name@revision/folder` → the address that huggingface_hub's file system reads."""
    name = url.removeprefix("hf:").removeprefix("//").removeprefix("datasets/")
    if not re.match(r"[\w.-]+/[\w.-]+(?=[@/]|$)", name):
        raise DataError(f"{url}: a data set of the hub is hf:owner/name, with @revision and /folder where needed")
    return f"hf://datasets/{name}"


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
    if all(plain_name(name).lower().endswith((*TABLE_SUFFIXES, LIST_SUFFIX)) for name in names):
        return "table", names
    if all(split_name(name)[1] in SUFFIXES for name in names):
        beside = {f"{split_name(name)[0]}.{suffix}" for name in names for suffix in (*TEXT_SIDECARS, "json")}
        return "folder", sorted({*names, *filter(fs.isfile, beside)})
    known = " ".join((*TABLE_SUFFIXES, LIST_SUFFIX, *TAR_SUFFIXES))
    raise DataError(f"{path}: not an image, and not one of {known}")


def _look_into(fs: Any, root: str, needed: bool) -> tuple[Kind, list[str]]:
    """A folder: the first rule that fits."""
    if is_run(fs, root):
        return "run", [f"{root}/{VIEW}"]
    names = sorted(name for name in _names(fs, root) if not _hidden(name[len(root) :]))
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
    if stems and not needed:
        return "folder", [n for n in names if split[n][1] in SUFFIXES]
    what = f"{len(stems)} images but no captions" if stems else "no pairs" if names else "an empty folder"
    raise DataError(
        f"{root}: {what}. Looked for captions.jsonl, metadata.jsonl/csv/parquet, tar shards, images with .txt beside "
        "them, parquet files, one jsonl/csv/tsv table."
    )


def _names(fs: Any, root: str) -> Iterable[str]:
    """Every file in a folder. On disk without asking each what it is, which takes a kilobyte of memory a file."""
    if not isinstance(fs, LocalFileSystem):
        return fs.find(root)
    return (os.path.join(folder, name) for folder, _, files in os.walk(root) for name in files)


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
