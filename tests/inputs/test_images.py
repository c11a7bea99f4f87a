import contextlib
import io
import json
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin
from safetensors.numpy import load_file

from capfilt.errors import ImageError
from capfilt.inputs import images
from capfilt.inputs.images import MEAN, STD, decode, inspect, normalize, to_pixels


def picture(width=24, height=16):
    """Four corners of four colours: no two turns look alike."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (250, 10, 10)
    pixels[: height // 2, width // 2 :] = (10, 250, 10)
    pixels[height // 2 :, : width // 2] = (10, 10, 250)
    pixels[height // 2 :, width // 2 :] = (240, 240, 10)
    return Image.fromarray(pixels)


def packed(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def reason(data, **options):
    with pytest.raises(ImageError) as caught:
        decode(data, **options)
    assert str(caught.value) and "\n" not in str(caught.value)
    return caught.value.reason


def corners(image):
    w, h = image.size
    return [image.getpixel(p) for p in ((3, 3), (w - 4, 3), (3, h - 4), (w - 4, h - 4))]


def png_header(width, height):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    ihdr = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + ihdr + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


WHOLE = {
    "JPEG": packed(picture(), "JPEG", quality=95),
    "progressive": packed(picture(), "JPEG", progressive=True),
    "PNG": packed(picture(), "PNG"),
    "WEBP": packed(picture(), "WEBP", lossless=True),
    "GIF": packed(picture(), "GIF"),
    "BMP": packed(picture(), "BMP"),
    "TIFF": packed(picture(), "TIFF"),
    "AVIF": packed(picture(), "AVIF", quality=95),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_every_format_becomes_rgb(kind):
    image = decode(WHOLE[kind])
    assert image.mode == "RGB" and image.size == (24, 16)
    np.testing.assert_allclose(corners(image), corners(picture()), atol=30)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(kind, orientation):
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = picture().transpose(undo[orientation]) if orientation > 1 else picture()
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = decode(packed(stored, kind, exif=exif))
    assert upright.size == (24, 16)
    np.testing.assert_allclose(corners(upright), corners(picture()), atol=40)


def test_broken_exif_never_fails_an_image():
    for exif in (b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert decode(packed(picture(), "JPEG", exif=exif)).size == (24, 16)


def test_sixteen_bit_grey_keeps_its_brightness():
    ramp = np.array([[0, 20_000, 65_535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        grey = np.asarray(decode(packed(Image.fromarray(ramp), kind)))[0, :, 0]
        assert grey.tolist() == [0, 78, 255], kind


def test_float_and_wide_integer_grey():
    floats = Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32))
    assert np.asarray(decode(packed(floats, "TIFF")))[0, :, 1].tolist() == [0, 128, 255]
    wide = Image.fromarray(np.array([[-100_000, 0, 100_000]], np.int32))
    assert np.asarray(decode(packed(wide, "TIFF")))[0, :, 1].tolist() == [0, 128, 255]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "I;16", "I", "F"])
def test_what_is_turned_into_rgb_band_by_band_shows_no_seam(mode, monkeypatch):
    levels = np.arange(40 * 24 * 4).reshape(40, 24, 4) % 251
    if mode in ("I;16", "I", "F"):
        image = Image.fromarray((levels[..., 0] * 200).astype({"I;16": "uint16", "I": "int32", "F": "float32"}[mode]))
    else:
        image = Image.fromarray(levels.astype(np.uint8)).convert("RGBA").convert(mode)
    data = packed(image, "TIFF" if mode in ("I", "F") else "PNG")
    whole = np.asarray(decode(data))
    assert whole.std() > 10
    for band_px in (1, 24 * 7):
        monkeypatch.setattr(images, "BAND_PX", band_px)
        np.testing.assert_array_equal(np.asarray(decode(data)), whole)


def test_a_damaged_tiff_fails_without_chatter():
    data = packed(picture(), "TIFF", compression="tiff_lzw")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for place in range(len(data)):
            damaged = bytearray(data)
            damaged[place] ^= 0xFF
            with contextlib.suppress(ImageError):
                decode(bytes(damaged))
    assert not said


def test_what_memory_does_not_hold_is_too_large(monkeypatch):
    def full(image):
        raise MemoryError

    monkeypatch.setattr(images, "_rgb", full)
    assert reason(packed(picture(), "PNG")) == "too_large"


def test_transparency_lies_on_white():
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    half.putpixel((1, 1), (0, 0, 255, 255))
    half.putpixel((2, 2), (0, 0, 0, 128))
    for kind in ("PNG", "WEBP"):
        seen = decode(packed(half, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})))
        assert seen.getpixel((0, 0)) == (255, 255, 255)
        assert seen.getpixel((1, 1)) == (0, 0, 255)
        assert seen.getpixel((2, 2)) == (127, 127, 127)


def test_palette_and_colour_key_transparency_lie_on_white():
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.putpixel((1, 1), 1)
    for transparency in (0, bytes([0, 255])):
        seen = decode(packed(palette, "PNG", transparency=transparency))
        assert seen.getpixel((0, 0)) == (255, 255, 255) and seen.getpixel((1, 1)) == (0, 255, 0)
    keyed = decode(packed(Image.new("RGB", (2, 2), (1, 2, 3)), "PNG", transparency=(1, 2, 3)))
    assert keyed.getpixel((0, 0)) == (255, 255, 255)
    grey = decode(packed(Image.new("LA", (2, 2), (0, 0)), "PNG"))
    assert grey.getpixel((0, 0)) == (255, 255, 255)


def test_cmyk_with_and_without_a_profile():
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert np.abs(np.subtract(decode(packed(red, "JPEG")).getpixel((4, 4)), (255, 0, 0))).max() < 8
    wrong = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()  # a profile for other channels
    for profile in (wrong, b"not a profile"):
        assert decode(packed(red, "JPEG", icc_profile=profile)).getpixel((4, 4))[0] > 240


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (40, 40), c) for c in ("red", "green", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        data = packed(frames[0], kind, save_all=True, append_images=frames[1:])
        assert np.abs(np.subtract(decode(data).getpixel((1, 1)), (255, 0, 0))).max() < 8
        info = inspect(data)
        assert info.frames == 3 and info.notes == ("animated",)


def test_notes_on_shape():
    assert inspect(packed(Image.new("L", (200, 40)), "PNG")).notes == ("odd_aspect",)
    assert inspect(packed(Image.new("L", (1, 1)), "PNG")).notes == ("too_small",)
    plain = inspect(packed(Image.new("L", (100, 60)), "PNG"))
    assert plain.notes == () and (plain.width, plain.height, plain.frames, plain.format) == (100, 60, 1, "PNG")


def test_what_is_no_image():
    assert reason(b"") == "empty"
    assert reason(b"<!DOCTYPE html><html>404</html>") == "not_an_image"
    assert reason("только текст".encode()) == "not_an_image"
    assert reason(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n") == "not_an_image"
    for kind in ("PPM", "TGA", "ICO", "PCX", "JPEG2000"):
        assert reason(packed(picture(), kind)) == "not_an_image", kind


def test_bombs_are_refused_from_the_header():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reason(png_header(50_000, 50_000)) == "too_large"
        assert reason(png_header(10_000, 10_000)) == "too_large"  # where Pillow alone would only warn
        assert reason(png_header(8_001, 8_000)) == "too_large"
        assert reason(png_header(8_001, 8_000), max_mpx=80) != "too_large"
    assert reason(WHOLE["PNG"], max_mpx=0.0001) == "too_large"


def test_a_text_bomb_inside_a_png_is_an_error_not_a_crash():
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 70_000_000, zip=True)
    assert reason(packed(picture(), "PNG", pnginfo=info)) in ("unreadable", "truncated")


@pytest.mark.parametrize("kind", WHOLE)
def test_cut_anywhere_is_truncated_or_the_whole_picture(kind):
    data = WHOLE[kind]
    whole = np.asarray(decode(data))
    step = max(1, len(data) // 60)
    for end in range(1, len(data), step):
        try:
            seen = np.asarray(decode(data[:end]))
        except ImageError as error:
            assert error.reason == ("truncated" if end >= 12 else error.reason), (end, str(error))
            assert error.reason in ("truncated", "not_an_image")
        else:
            np.testing.assert_array_equal(seen, whole, err_msg=f"{kind} cut at {end} gave half a picture")


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(sorted(WHOLE)),
    places=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=8),
)
def test_flipped_bytes_give_an_image_or_an_image_error(kind, places):
    data = bytearray(WHOLE[kind])
    for place, value in places:
        data[place % len(data)] = value
    try:
        image = decode(bytes(data), max_mpx=1)
    except ImageError as error:
        assert error.reason in ("truncated", "not_an_image", "too_large", "unreadable")
    else:
        assert image.mode == "RGB" and image.width * image.height <= 1e6


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_end_in_an_image_error(data):
    with pytest.raises(ImageError):
        decode(data)


def test_the_warning_filters_are_left_as_they_were():
    before = list(warnings.filters)
    decode(WHOLE["JPEG"])
    assert warnings.filters == before


def test_to_pixels_takes_pictures_and_arrays():
    image = picture()
    pixels = to_pixels(image, 32)
    assert pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8 and pixels.flags.writeable
    np.testing.assert_array_equal(pixels, to_pixels(np.asarray(image), 32))


def test_normalize_by_hand():
    pixels = np.array([[[[0, 127, 255]]]], np.uint8)
    out = normalize(pixels)
    assert tuple(out.shape) == (1, 3, 1, 1)
    want = [(v / 255 - m) / s for v, m, s in zip((0, 127, 255), MEAN, STD, strict=True)]
    np.testing.assert_allclose(out.flatten().numpy(), want, atol=1e-6)


# Parity with the original (golden case 08_preprocess)


@pytest.fixture
def case(shared):
    return shared / "golden/blip/08_preprocess"


@pytest.mark.parametrize("px", [64, 96])
@pytest.mark.parametrize("number", range(4))
def test_the_test_transform_equals_the_original(case, number, px):
    name = f"out.test{px}.image{number}"
    want = load_file(case / "io.safetensors")
    pixels = to_pixels(Image.open(case / f"image{number}.png").convert("RGB"), px)
    np.testing.assert_array_equal(pixels, want[f"{name}_uint8"])
    if name in want:
        np.testing.assert_allclose(normalize(pixels[None])[0].numpy(), want[name], atol=1e-6)


def test_the_golden_images_are_what_the_case_says(case):
    for entry in json.loads((case / "case.json").read_text())["images"]:
        info = inspect((case / entry["file"]).read_bytes())
        assert [info.width, info.height] == entry["size_wh"] and info.mode == entry["mode"]
