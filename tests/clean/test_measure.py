"""Measuring: what is read stands in its columns, what cannot be read has its reason, and looks survive re-encoding."""

import hashlib
import io
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from capfilt.clean.columns import INTAKE, ROWS
from capfilt.clean.measure import SIDE, looks, measure, spread
from capfilt.data.decoders import Decoders, Reading, read
from capfilt.errors import ImageError
from capfilt.inputs.images import to_pixels

SOURCE = Path(__file__).resolve().parents[2] / "src"
DYING = f"""
import os, sys
sys.path.insert(0, {str(SOURCE)!r})
from capfilt.data import decoders
real = decoders.decode
def decode(data, **how):
    if data == b"abort":
        os.abort()
    return real(data, **how)
decoders.decode = decode
decoders.main()
"""


class Shelf:
    """Images by name, and how often each was taken."""

    def __init__(self, **images: bytes) -> None:
        self.images, self.taken = images, []

    def load(self, ref: str) -> bytes:
        self.taken.append(ref)
        if ref not in self.images:
            raise ImageError("missing_file", f"{ref}: no such file")
        return self.images[ref]


def scene(seed: int, height: int = 240, width: int = 320) -> Image.Image:
    """A picture with large and small things on it, another for each seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    grain = rng.normal(0, 8, (height, width, 1))
    return Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def intake(*refs: str | None, **failed: str) -> pa.Table:
    """Rows with these refs; those named in `failed` have failed before."""
    rows = [
        {"id": f"{i:032x}", "key": str(ref), "texts": ["a"], "ref": ref, "failed": failed.get(str(ref))}
        for i, ref in enumerate(refs)
    ]
    return pa.Table.from_pylist(rows, schema=INTAKE)


def bits(a: int, b: int) -> int:
    return (a ^ b).bit_count()


def seen(data: bytes, scaled: bool = True) -> int:
    return looks(read(data, SIDE, scaled=scaled).pixels)


@pytest.mark.parametrize("workers", [0, 1])
def test_every_column_says_what_it_should(workers):
    photo, page = encoded(scene(0), "JPEG", quality=90), b"<html>"
    shelf = Shelf(photo=photo, page=page)
    rows = intake("photo", "gone", "page", None, "bad", bad="bad_row")
    with Decoders(SIDE, Reading(workers, scaled=True)) as decoders:
        found = measure(rows, shelf, decoders)
    assert found.schema.equals(ROWS)
    assert found.select(["id", "key", "texts"]).equals(rows.select(["id", "key", "texts"]))
    assert found["failed"].to_pylist() == [None, "missing_file", "not_an_image", "no_image", "bad_row"]
    assert found["error"].to_pylist()[1:3] == [
        "gone: no such file",
        "6 bytes starting b'<html>' are no JPEG/PNG/WEBP/GIF/BMP/TIFF/AVIF",
    ]
    first = found.to_pylist()[0]
    assert first["error"] is None
    assert (first["format"], first["width"], first["height"], first["frames"]) == ("JPEG", 320, 240, 1)
    assert first["notes"] == [] and first["bytes"] == len(photo)
    assert first["sha256"] == hashlib.sha256(photo).hexdigest() and first["looks"] == seen(photo)
    assert found["sha256"].to_pylist()[2] == hashlib.sha256(page).hexdigest()  # read, though no image
    assert found["looks"].null_count == 4 and found["width"].null_count == 4
    assert shelf.taken == ["photo", "gone", "page"]  # what has failed is not loaded


def test_the_same_bytes_are_decoded_once(monkeypatch):
    a, b = encoded(scene(1)), encoded(scene(2))
    asked = []

    class Counting(Decoders):
        def decode(self, images):
            return super().decode(asked.append(image) or image for image in images)

    shelf = Shelf(a=a, again=a, b=b, page=b"<html>", page2=b"<html>")
    with Counting(SIDE, Reading(0)) as decoders:
        found = measure(intake("a", "page", "again", "b", "page2"), shelf, decoders)
    assert len(asked) == 3
    rows = found.drop_columns(["id", "key", "ref"]).to_pylist()
    assert rows[0] == rows[2] != rows[3] and rows[1] == rows[4]
    assert found["failed"].to_pylist() == [None, "not_an_image", None, None, "not_an_image"]


def test_one_poisonous_image_among_many_costs_only_itself():
    names = [f"n{i}" for i in range(30)]
    shelf = Shelf(**{name: encoded(scene(i, 40, 50)) for i, name in enumerate(names)} | {"n17": b"abort"})
    command = (sys.executable, "-c", DYING)
    with Decoders(SIDE, Reading(2, scaled=True), command=command) as decoders:
        found = measure(intake(*names), shelf, decoders)
    failed = found["failed"].to_pylist()
    assert failed.pop(17) == "decoder_crash" and failed == [None] * 29


def test_an_empty_shard_is_one_too():
    with Decoders(SIDE, Reading(0)) as decoders:
        found = measure(INTAKE.empty_table(), Shelf(), decoders)
    assert found.schema.equals(ROWS) and len(found) == 0


def test_looks_survive_recompressing_and_resizing_and_tell_pictures_apart():
    hashes = []
    for seed in range(40):
        image = scene(seed)
        hashes.append(own := seen(encoded(image)))
        for other in (
            encoded(image, "JPEG", quality=60),
            encoded(image.resize((160, 120), Image.Resampling.LANCZOS), "JPEG", quality=85),
            encoded(image.resize((731, 548), Image.Resampling.BILINEAR), "WEBP", quality=70),
            encoded(image.convert("L")),
        ):
            assert bits(own, seen(other)) <= 4, seed
    apart = [bits(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(apart) > 10 and 28 < np.mean(apart) < 36


def test_a_hash_is_the_same_on_every_machine():
    y, x = np.mgrid[:SIDE, :SIDE]
    picture = np.stack([x * 4, y * 4, (x * y) % 256], -1).astype(np.uint8)
    assert f"{looks(picture):016x}" == "870e0f1e7cf8f0a0"
    assert looks(np.full((SIDE, SIDE, 3), 200, np.uint8)) == 0


def test_it_is_the_low_end_of_the_cosine_transform():
    waves = np.cos(np.pi / SIDE * np.outer(np.arange(SIDE), np.arange(SIDE) + 0.5))
    for seed in range(10):
        pixels = to_pixels(scene(seed), SIDE)
        grey = pixels @ np.array([0.299, 0.587, 0.114])
        low = (waves @ grey @ waves.T)[1:9, 1:9].ravel()
        plain = sum(1 << place for place in np.flatnonzero(low > np.median(low)).tolist())
        assert bits(looks(pixels), plain) <= 2  # the middle two may change places


def test_spread_is_of_the_colour_that_changes_most():
    flat = np.full((SIDE, SIDE, 3), 77, np.uint8)
    assert spread(flat) == 0
    flat[: SIDE // 2] = 255
    flat[SIDE // 2 :] = 0
    assert spread(flat) == pytest.approx(127.5)
    pixels = to_pixels(scene(3), SIDE)
    assert spread(pixels) == pytest.approx(pixels.reshape(-1, 3).std(0).max(), rel=1e-9)
    flat[:], flat[20:40, 20:40] = (255, 165, 0), (174, 205, 0)  # orange on lime of the same grey
    assert spread(flat) > 20
