"""Coordinates in images, overwritten where they stand: nothing is encoded anew, and nothing moves.

EXIF is a TIFF inside whatever format, so its GPS directory is found and blanked alike in JPEG, PNG, WEBP, AVIF and TIFF
itself, and so are the GPS properties of XMP. A PNG's checksums are put right; what it holds of either in packed form is
left out. Not looked at: BigTIFF, films behind a picture, and places that are visible or written as words.
"""

import re
import struct
import zlib

_TIFF = re.compile(rb"II\*\x00|MM\x00\*")
_ATTRIBUTE = re.compile(rb"exif:GPS\w+\s*=\s*(\"[^\"]*\"|'[^']*')")
_ELEMENT = re.compile(rb"<exif:(GPS\w+)[^>]*>(.*?)</exif:\1\s*>", re.DOTALL)
_PNG = b"\x89PNG\r\n\x1a\n"
_PACKED = (b"Raw profile type", b"XML:com.adobe.xmp")
GPS = 0x8825  # the tag that says where the GPS directory lies
SIZES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8)  # bytes a value of each TIFF type
MOST = 512  # entries in a directory; more is no directory
LARGEST = 2**16  # bytes of a value; what claims more would have the picture itself overwritten


def without_gps(data: bytes) -> bytes:
    """The same encoded image without coordinates; the same bytes where it has none.

    >>> without_gps(b"no picture")
    b'no picture'
    """
    out = bytearray(_unpacked(data) if data.startswith(_PNG) else data)
    for found in _TIFF.finditer(bytes(out)):
        _blank_tiff(out, found.start(), "<" if found[0][:1] == b"I" else ">")
    for pattern, group in ((_ATTRIBUTE, 1), (_ELEMENT, 2)):
        for found in pattern.finditer(bytes(out)) if b"exif:GPS" in out else ():
            start, end = found.span(group)
            quoted = group == 1
            out[start + quoted : end - quoted] = b" " * (end - start - 2 * quoted)
    return _png(_chunks(out)) if data.startswith(_PNG) and out != data else bytes(out)


def _blank_tiff(out: bytearray, start: int, order: str) -> None:
    """Empties the GPS directory of each image of the TIFF that starts there."""
    at, seen = _number(out, start + 4, order + "I"), set[int]()
    while at and at not in seen:
        seen.add(at)
        count = _number(out, start + at, order + "H")
        if not 0 < count <= MOST:
            return
        for entry in range(start + at + 2, start + at + 2 + 12 * count, 12):
            if _number(out, entry, order + "H") == GPS:
                _blank_directory(out, start, start + _number(out, entry + 8, order + "I"), order)
        at = _number(out, start + at + 2 + 12 * count, order + "I")


def _blank_directory(out: bytearray, start: int, at: int, order: str) -> None:
    count = _number(out, at, order + "H")
    if not 0 < count <= MOST:
        return
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        kind, values = _number(out, entry + 2, order + "H"), _number(out, entry + 4, order + "I")
        size = values * (SIZES[kind] if kind < len(SIZES) else 1)
        if 4 < size <= LARGEST:
            _zero(out, start + _number(out, entry + 8, order + "I"), size)
    _zero(out, at, 2 + 12 * count)


def _number(data: bytearray, at: int, form: str) -> int:
    """0 where the data end before it."""
    return struct.unpack_from(form, data, at)[0] if at + struct.calcsize(form) <= len(data) else 0


def _zero(out: bytearray, at: int, size: int) -> None:
    end = min(at + size, len(out))
    out[at:end] = bytes(max(0, end - at))


def _chunks(data: bytes | bytearray) -> list[tuple[bytes, bytes]]:
    """A PNG's chunks, checksums left out; ("", the rest) for what is none."""
    chunks, at = [], len(_PNG)
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if at + 12 + size > len(data):
            break
        chunks.append((bytes(data[at + 4 : at + 8]), bytes(data[at + 8 : at + 8 + size])))
        at += 12 + size
    return [*chunks, (b"", bytes(data[at:]))]


def _png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    parts = [
        len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big") if name else body
        for name, body in chunks
    ]
    return _PNG + b"".join(parts)


def _unpacked(data: bytes) -> bytes:
    """A PNG without the EXIF and XMP that stand in it as packed or as written-out text."""

    def packed(name: bytes, body: bytes) -> bool:
        if name not in (b"tEXt", b"zTXt", b"iTXt") or not body.startswith(_PACKED):
            return False
        return name != b"iTXt" or body.partition(b"\0")[2][:1] == b"\1"

    chunks = _chunks(data)
    kept = [(name, body) for name, body in chunks if not packed(name, body)]
    return data if len(kept) == len(chunks) else _png(kept)
