"""Files from hell for `recipes.fuzz`: small images of every kind and small tars, drawn here, then damaged.

What item `number` of a `seed` is hangs on the two alone, so one that does harm can be made again.

    flip, set, cut, take out, repeat, insert, splice     anywhere, or in the header
    PNG chunks and tar headers get valid checksums again in most cases, so that what is behind the check is reached too
"""

import io
import random
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Literal

import numpy as np
from PIL import Image, features

from capfilt.runtime import derive

SIDES = (27, 22)  # px: small, so that many are decoded a second
BLOCK = 512  # bytes of a tar's headers and steps
ODD = (0, 1, 2, 7, 8, 255, 256, 512, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")
EXIF = [
    b"Exif\0\0",
    b"Exif\0\0II*\0\xff\xff\xff\xff",
    b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\x03\xff\xff\xff\xff\0\0\0\x08" * 9,  # longer than it is, loops
    b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0abcd\0\0\0\0",  # an orientation in words
    b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0",  # a part that holds itself
]


def image(seed: int, number: int) -> bytes:
    """A damaged image; every hundredth is whole."""
    chance = random.Random(derive(seed, "image", number))
    data = bytearray(chance.choice(images()))
    if number % 100:
        _damage(data, images(), chance)
    if data.startswith(b"\x89PNG") and chance.random() < 0.7:
        _mend_png(data)
    return bytes(data)


def tar(seed: int, number: int) -> bytes:
    """A damaged tar; every hundredth is whole."""
    chance = random.Random(derive(seed, "tar", number))
    data = bytearray(chance.choice(tars()))
    if number % 100:
        for _ in range(chance.randint(0, 4)):
            _edit_header(data, chance)
        if chance.random() < 0.6:
            _damage(data, tars(), chance)
    return bytes(data)


@cache
def images() -> list[bytes]:
    """One of every format and mode that is read, and some that are not."""
    return [data for _, data in drawn(*SIDES)] + [
        b"<html>404</html>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"8BPS\0\1",
        b"GIF89a",
    ]


def drawn(width: int, height: int) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of a picture of that size in every format and mode."""
    picture = _picture(width, height)
    turned = Image.Exif()
    turned[0x0112] = 6
    for kind, mode, options in _kinds(turned):
        if kind != "AVIF" or features.check("avif"):
            said = (f"{name}={value}" if isinstance(value, str | int) else name for name, value in options.items())
            yield " ".join((kind, mode, *said)), _encoded(_in_mode(picture, mode), kind, options)
    for depth, colour in ((16, 2), (16, 6), (8, 6), (16, 0)):
        yield f"PNG interlaced {depth} bit, colour {colour}", _interlaced(width, height, depth, colour)
    if width <= SIDES[0]:  # the strange need not be large
        frames = {"save_all": True, "append_images": [_picture(width, height, i) for i in (1, 2)]}
        for kind in ("GIF", "PNG", "WEBP", "TIFF", *(["AVIF"] if features.check("avif") else [])):
            yield f"{kind} frames", _encoded(picture, kind, frames)
        for exif in EXIF:
            for kind in ("JPEG", "PNG", "WEBP"):
                yield f"{kind} exif", _encoded(picture, kind, {"exif": exif})


def _kinds(turned: Image.Exif) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for mode in ("RGB", "L", "CMYK"):
        yield "JPEG", mode, {"exif": turned}
        yield "JPEG", mode, {"progressive": True, "quality": 50}
    yield "JPEG", "RGB", {"subsampling": 0}
    yield "JPEG", "RGB", {"restart_marker_rows": 1, "comment": b"drawn", "icc_profile": b"no profile"}
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        yield "PNG", mode, {"exif": turned, "compress_level": 1}
    yield "PNG", "P", {"transparency": 3, "compress_level": 1}
    yield "PNG", "RGB", {"transparency": (1, 2, 3), "compress_level": 1}
    for mode in ("RGB", "RGBA"):
        yield "WEBP", mode, {"method": 0, "exif": turned}
        yield "WEBP", mode, {"lossless": True, "method": 0, "quality": 0}
        yield "AVIF", mode, {"speed": 10, "exif": turned}
    yield "GIF", "P", {"comment": b"drawn"}
    yield "GIF", "P", {"transparency": 3}
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        yield "BMP", mode, {}
    for mode, packed in (
        ("RGBA", "raw"),
        ("RGB", "tiff_lzw"),
        ("RGBA", "tiff_adobe_deflate"),
        ("P", "packbits"),
        ("RGB", "jpeg"),
        ("1", "group4"),
        ("1", "group3"),
        ("I;16", "tiff_lzw"),
        ("I", "tiff_lzw"),
        ("F", "tiff_lzw"),
        ("CMYK", "tiff_lzw"),
        ("LAB", "tiff_lzw"),
        ("LA", "tiff_deflate"),
    ):
        yield "TIFF", mode, {"compression": packed, "exif": turned}
    yield "TIFF", "RGB", {"big_tiff": True}


def _picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Noise, repeated: neither trivial to a codec nor large."""
    noise = np.random.default_rng(seed).integers(0, 256, (64, 64, 4), np.uint8)
    tiles = -(-height // 64), -(-width // 64), 1
    return Image.fromarray(np.tile(noise, tiles)[:height, :width])


def _in_mode(picture: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    if mode == "LAB":
        return Image.merge("LAB", picture.split()[:3])
    return picture.convert("RGB").convert(mode) if mode in ("CMYK", "P") else picture.convert(mode)


def _encoded(picture: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    data = io.BytesIO()
    if kind == "JPEG" and picture.mode == "RGBA":
        picture = picture.convert("RGB")
    picture.save(data, kind, **options)
    return data.getvalue()


def _interlaced(width: int, height: int, depth: int, colour: int) -> bytes:
    """A PNG in seven passes, which Pillow reads and does not write: flat, so that it is small."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    packed = zlib.compressobj(1)
    lines = []
    for x, y, right, down in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        across, rows = -(-(width - x) // right), -(-(height - y) // down)
        if across > 0:
            line = b"\0" + b"\x5a" * (across * channels * depth // 8)
            lines += [packed.compress(line) for _ in range(rows)]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 1)
    chunks = ((b"IHDR", header), (b"IDAT", b"".join(lines) + packed.flush()), (b"IEND", b""))
    data = bytearray(b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(d)) + k + d + b"\0" * 4 for k, d in chunks))
    _mend_png(data)
    return bytes(data)


# ---- damage -----------------------------------------------------------------------------------------------------


def _damage(data: bytearray, others: list[bytes], chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 1, 2, 3, 5))):
        if data:
            near = len(data) if chance.random() < 0.6 else min(len(data), 64)  # the rest goes for the header
            chance.choice(DAMAGE)(data, chance.randrange(near), others, chance)


def _flip(data: bytearray, at: int, others: list[bytes], chance: random.Random) -> None:
    data[at] ^= 1 << chance.randrange(8) if chance.random() < 0.5 else chance.randrange(1, 256)


def _set(data: bytearray, at: int, others: list[bytes], chance: random.Random) -> None:
    """A number, as lengths and sizes are written."""
    size, order = chance.choice((1, 2, 4, 8)), chance.choice(ORDERS)
    data[at : at + size] = (chance.choice(ODD) % 256**size).to_bytes(size, order)


def _cut(data: bytearray, at: int, others: list[bytes], chance: random.Random) -> None:
    del data[at:]


def _take_out(data: bytearray, at: int, others: list[bytes], chance: random.Random) -> None:
    del data[at : at + chance.randrange(1, 200)]


def _repeat(data: bytearray, at: int, others: list[bytes], chance: random.Random) -> None:
    piece = data[at : at + chance.choice((1, 4, 12, 40, 300))]
    data[at:at] = piece * chance.choice((1, 2, 10, 100))


def _insert(data: bytearray, at: int, others: list[bytes], chance: random.Random) -> None:
    data[at:at] = chance.randbytes(chance.choice((1, 3, 16, 200)))


def _splice(data: bytearray, at: int, others: list[bytes], chance: random.Random) -> None:
    other = chance.choice(others)
    data[at:] = other[chance.randrange(len(other)) :]


DAMAGE: tuple[Callable[[bytearray, int, list[bytes], random.Random], None], ...] = (
    _flip,
    _flip,
    _set,
    _set,
    _cut,
    _take_out,
    _repeat,
    _insert,
    _splice,
)


def _mend_png(data: bytearray) -> None:
    """Every chunk's checksum made right, as far as the lengths lead."""
    at = 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4])
        if end + 4 > len(data):
            return
        data[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4)
        at = end + 4


# ---- tars -------------------------------------------------------------------------------------------------------

FIELDS = {  # of a header: name → place and length
    "name": (0, 100),
    "mode": (100, 8),
    "uid": (108, 8),
    "size": (124, 12),
    "mtime": (136, 12),
    "type": (156, 1),
    "link": (157, 100),
    "magic": (257, 8),
    "prefix": (345, 155),
    "sparse": (386, 100),
}
SAID = (
    b"",
    b"77777777777\0",
    b"-1\0",
    b"abc\0",
    b" 0 ",
    b"\x80" + b"\0" * 7 + b"\1\0\0\0",  # numbers beyond eight octal digits, of either sign
    b"\x80" + b"\xff" * 11,
    b"\xff" * 12,
    b"../../x.jpg\0",
    b"/x.jpg\0",
    b"a.jpg\0",
    b"a.b.c.txt\0",
    b"C:\\x.jpg\0",
    b"\xff\xfe\xfd.jpg\0",
    b"a\nb.jpg\0",
    b"x" * 155,
    b"00000001000\0",
    b"00000000000\0",
    *(letter.encode() for letter in "01234567LKSxgXDMNV\0Z"),
)


Member = tuple[tarfile.TarInfo, bytes]


@cache
def tars() -> list[bytes]:
    """Tars of every layout, and what bears the name and is none."""
    made = [_tar(layout, members, mode) for layout, members, mode in _layouts()]
    return [*made, b"\0" * 10240, b"<html>" * 200, b"\0"]


def _layouts() -> Iterator[tuple[int, list[Member], str]]:
    pictures = images()

    def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> Member:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, link, len(data)
        return info, data

    def claiming(said: dict[str, str], data: bytes) -> Member:
        info, data = member("b.png", data)
        info.pax_headers = said
        return info, data

    def sample(name: str, number: int) -> list[Member]:
        return [member(f"{name}.png", pictures[number]), member(f"{name}.txt", f"text {number}".encode())]

    plain = [m for i in range(4) for m in sample(f"s{i}", i)]
    long = sample("d/" * 90 + "deep", 1) + sample("n" * 180, 2) + sample("ünïcode 漢字", 3)
    strange = [
        member("l.jpg", kind=tarfile.SYMTYPE, link="/etc/hostname"),
        member("h.jpg", kind=tarfile.LNKTYPE, link="s0.png"),
        member("d.jpg", kind=tarfile.CHRTYPE),
        member("f.jpg", kind=tarfile.FIFOTYPE),
        member("dir", kind=tarfile.DIRTYPE),
        member("g.jpg", b"\0" * 700, tarfile.GNUTYPE_SPARSE),
        *sample("s9", 4),
        *sample("s9", 5),
        member("../x.png", pictures[0]),
    ]
    claims: list[dict[str, str]] = [
        {"size": "5"},
        {"size": "99999999999999999999"},
        {"size": "-1"},
        {"path": "../../y.png"},
        {"mtime": "nan"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s.png", "GNU.sparse.realsize": "70000"},
        {"GNU.sparse.map": "0,1,2,x", "GNU.sparse.size": "9"},
        {"hdrcharset": "BINARY", "path": "z.png"},
    ]
    for layout in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        yield layout, plain, "w"
        yield layout, plain[::2] + plain[1::2], "w"
        yield layout, plain[:2] + strange, "w"
    for layout in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        yield layout, long, "w"
    for i, claim in enumerate(claims):
        yield tarfile.PAX_FORMAT, [*sample("a", 0), claiming(claim, pictures[i]), *sample("c", 1)], "w"
    for mode in ("w:gz", "w:bz2", "w:xz"):
        yield tarfile.PAX_FORMAT, plain, mode


def _tar(layout: int, members: list[Member], mode: str) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode, format=layout) as out:  # type: ignore[call-overload]
        for info, data in members:
            out.addfile(info, io.BytesIO(data))
    return made.getvalue()


def _edit_header(data: bytearray, chance: random.Random) -> None:
    """A field of one of the headers, or a header with what it heads repeated; in most cases with a right checksum."""
    headers = [at for at in range(0, len(data) - BLOCK + 1, BLOCK) if data[at + 257 : at + 262] == b"ustar"]
    if not headers:
        return
    at = chance.choice(headers)
    if chance.random() < 0.1:
        piece = data[at : at + BLOCK * chance.choice((1, 2, 3))]
        data[at:at] = piece * chance.choice((1, 3, 30, 1000))
        return
    place, length = FIELDS[chance.choice(list(FIELDS))]
    said = chance.choice(SAID)[:length]
    data[at + place : at + place + len(said)] = said
    if chance.random() < 0.8:
        data[at + 148 : at + 156] = b" " * 8
        data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + BLOCK])
