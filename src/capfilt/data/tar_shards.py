"""The index of a WebDataset tar shard: which members belong together and where their bytes lie. Nothing is extracted.

Members are grouped by key even where they are interleaved, a cut shard gives the samples that are whole, and what is
neither file nor safe name is named. No member is ever unpickled.
"""

import lzma
import posixpath
import re
import tarfile
import zlib
from dataclasses import dataclass, field, replace
from itertools import product
from typing import IO

from capfilt.errors import DataError
from capfilt.inputs.images import SUFFIXES

KEPT_BYTES = 2**16
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
BROKEN_STREAM = (
    *(tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, ValueError),
    *(OverflowError, MemoryError, RecursionError),  # of hostile headers
)
MOST_SHARDS = 1_000_000
_BRACE = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


@dataclass(frozen=True, slots=True)
class Member:
    """One file inside a shard: its name and where its bytes lie (offset and size in bytes of the unpacked tar).

    data: the bytes, where they were kept.
    """

    name: str
    offset: int
    size: int
    data: bytes | None = None


@dataclass
class TarIndex:
    """What a shard holds.

    samples: key → suffix → member, in the shard's order.
    faults:  (key, reason, message) of members that cannot be used.
    members: how many headers were read.
    cut:     why the shard ends early; empty where it is whole.
    """

    samples: dict[str, dict[str, Member]] = field(default_factory=dict)
    faults: list[tuple[str, str, str]] = field(default_factory=list)
    members: int = 0
    cut: str = ""


def expand(pattern: str) -> list[str]:
    """`a-{00..03}.tar`, `{x,y}.tar` → every name, in order. Raises DataError above a million names."""
    parts = _BRACE.split(pattern)
    choices = [_choices(part) if i % 2 else [part] for i, part in enumerate(parts)]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > MOST_SHARDS:
        raise DataError(f"{pattern}: names {count} shards, more than {MOST_SHARDS}; check the braces")
    return ["".join(names) for names in product(*choices)]


def index(handle: IO[bytes], keep: tuple[str, ...] = ()) -> TarIndex:
    """Walks the headers of one seekable, unpacked tar stream. Never raises on what the stream holds.

    keep: suffixes of members up to 64 KiB whose bytes are kept, for a stream in which going back means unpacking anew.
    """
    found, last, at = TarIndex(), None, -1
    try:
        with tarfile.open(fileobj=handle, mode="r:", encoding="utf-8", errors="replace") as tar:
            for info in tar:
                if info.offset <= at:  # a header that points back would never end
                    found.cut = f"the header at byte {info.offset} points backwards"
                    break
                at, last = info.offset, info
                found.members += 1
                _place(found, info, handle, keep)
            else:
                handle.seek(tar.offset)
                block = handle.read(512)
                if len(block) < 512 or any(block):
                    found.cut = f"there is no end mark at byte {tar.offset}"
    except BROKEN_STREAM as error:
        found.cut = str(error) or type(error).__name__
    if found.cut:
        _salvage(found, handle, last)
    return found


def read(handle: IO[bytes], member: Member) -> bytes:
    """One member's bytes. Raises EOFError where the shard ends before them."""
    if member.data is not None:
        return member.data
    handle.seek(member.offset)
    data = handle.read(member.size)
    if len(data) < member.size:
        raise EOFError(f"{member.name}: {len(data)} of {member.size} bytes are there")
    return data


def split_name(name: str) -> tuple[str, str]:
    """`dir/img.v1.0.JPG` → (`dir/img.v1.0`, `jpg`): the last suffix counts, so dots in names do no harm."""
    folder, base = posixpath.split(name)
    stem, dot, suffix = base.rpartition(".")
    return (posixpath.join(folder, stem), suffix.lower()) if dot and stem else (name, "")


def escapes(name: str) -> bool:
    """Whether a relative name, followed, would leave its folder."""
    flat = posixpath.normpath(name.replace("\\", "/"))
    return flat.startswith(("/", "../")) or flat == ".." or re.match(r"[A-Za-z]:", flat) is not None


def _choices(inside: str) -> list[str]:
    span = _RANGE.fullmatch(inside)
    if not span:
        return inside.split(",")
    first, last = int(span[1]), int(span[2])
    if abs(last - first) >= MOST_SHARDS:
        raise DataError(
            f"{{{inside}}}: names {abs(last - first) + 1} shards, more than {MOST_SHARDS}; check the braces"
        )
    step = 1 if last >= first else -1
    return [str(i).zfill(len(span[1])) for i in range(first, last + step, step)]


def _place(found: TarIndex, info: tarfile.TarInfo, handle: IO[bytes], keep: tuple[str, ...]) -> None:
    name = info.name
    if info.isdir():
        return
    if not info.isreg() or info.issparse():
        found.faults.append((name, "not_a_file", f"{name} is a link, device or sparse file; only plain files are read"))
        return
    if escapes(name):
        found.faults.append((name, "outside_folder", f"the member name {name!r} points outside its shard"))
        return
    key, suffix = split_name(posixpath.normpath(name))
    sample = found.samples.setdefault(key, {})
    other = next((s for s in sample if s in SUFFIXES), None) if suffix in SUFFIXES else None
    if suffix in sample or other:
        taken = sample[suffix if suffix in sample else str(other)].name
        found.faults.append(
            (key, "duplicate_key", f"{name}: the sample {key} has {taken} already; the first one counts")
        )
        return
    sample[suffix] = member = Member(name, info.offset_data, info.size)
    if suffix in keep and info.size <= KEPT_BYTES:
        sample[suffix] = replace(member, data=read(handle, member))


def _salvage(found: TarIndex, handle: IO[bytes], last: tarfile.TarInfo | None) -> None:
    """Takes out the last sample where its bytes are not all there."""
    if last is None or not last.isreg():
        return
    key, suffix = split_name(posixpath.normpath(last.name))
    member = found.samples.get(key, {}).get(suffix)
    if member is None or member.size == 0:
        return
    try:
        read(handle, Member(member.name, member.offset + member.size - 1, 1))
    except BROKEN_STREAM:
        del found.samples[key]
        found.cut += f"; the sample {key} is incomplete"
