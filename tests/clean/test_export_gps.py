"""Coordinates are gone, and nothing else: pixels, sizes and all other bytes stay."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from capfilt.clean.export.gps import without_gps

GPS = {1: "N", 2: (48.0, 51.0, 29.6), 3: "E", 4: (2.0, 17.0, 40.2), 29: "2026:01:31"}
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8))
XMP = b'<rdf:Description exif:GPSLatitude="48,51.49N" tiff:Make="Maker"/><exif:GPSAltitude>35/1</exif:GPSAltitude>'


def exif(gps: bool = True) -> bytes:
    made = Image.Exif()
    made[0x010F], made[0x0112] = "Maker", 6
    if gps:
        made.get_ifd(0x8825).update(GPS)
    return made.tobytes()


def encoded(form: str, **more) -> bytes:
    out = io.BytesIO()
    PICTURE.save(out, form, **more)
    return out.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_gps_directory_is_empty_and_the_rest_is_there(form):
    data = encoded(form, exif=exif())
    assert Image.open(io.BytesIO(data)).getexif().get_ifd(0x8825)
    clean = without_gps(data)
    image = Image.open(io.BytesIO(clean))
    assert not image.getexif().get_ifd(0x8825)
    assert image.getexif()[0x010F] == "Maker" and image.getexif()[0x0112] == 6
    assert np.array_equal(np.asarray(image), np.asarray(Image.open(io.BytesIO(data))))
    assert len(clean) == len(data)
    changed = [i for i in range(len(data)) if data[i] != clean[i]]
    assert changed[-1] - changed[0] < 300
    assert without_gps(clean) == clean


def test_both_byte_orders():
    data = encoded("JPEG", exif=exif())
    order = data[data.index(b"Exif\0\0") + 6 :][:2]
    other = Image.Exif()
    other.endian = ">" if order == b"II" else "<"
    other.get_ifd(0x8825).update(GPS)
    block = other.tobytes()
    assert block[6:8] != order
    clean = without_gps(encoded("JPEG", exif=block))
    assert not Image.open(io.BytesIO(clean)).getexif().get_ifd(0x8825)


def test_xmp_loses_only_its_coordinates():
    data = encoded("JPEG", xmp=XMP)
    clean = without_gps(data)
    assert len(clean) == len(data) and b"48,51" not in clean and b"35/1" not in clean
    assert b'tiff:Make="Maker"' in clean and b"</exif:GPSAltitude>" in clean


def test_packed_texts_of_a_png_are_left_out():
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", "exif 4 00", zip=True)
    info.add_itxt("XML:com.adobe.xmp", XMP.decode(), zip=True)
    info.add_text("Title", "a red cube")
    data = encoded("PNG", pnginfo=info)
    image = Image.open(io.BytesIO(without_gps(data)))
    assert image.text == {"Title": "a red cube"}
    assert np.array_equal(np.asarray(image), np.asarray(PICTURE))


def test_a_png_is_whole_afterwards():
    clean = without_gps(encoded("PNG", exif=exif()))
    at = clean.index(b"eXIf")
    size = int.from_bytes(clean[at - 4 : at], "big")
    assert zlib.crc32(clean[at : at + 4 + size]) == int.from_bytes(clean[at + 4 + size :][:4], "big")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_what_has_none_stays_byte_for_byte(form):
    plain = encoded(form, **({"exif": exif(gps=False)} if form in ("JPEG", "PNG", "WEBP", "TIFF") else {}))
    assert without_gps(plain) == plain


def test_hostile_bytes_raise_nothing():
    data, draw = encoded("JPEG", exif=exif()), np.random.default_rng(1)
    start = data.index(b"Exif")
    for _ in range(300):
        broken = bytearray(data)
        for at in draw.integers(start, start + 200, 8):
            broken[at] = int(draw.integers(256))
        assert len(without_gps(bytes(broken))) == len(data)
    for end in range(start, start + 150):
        without_gps(data[:end])
