"""The short form of the fuzz, and that it would see what it is there to see."""

import json
import time

import pytest

from capfilt.data.decoders import Decoded, read
from capfilt.errors import ImageError
from capfilt.recipes import fuzz, mutants
from capfilt.recipes.fuzz import Found, fuzz_giants, fuzz_images, fuzz_tars


def test_an_item_hangs_on_seed_and_number_alone():
    for make in (mutants.image, mutants.tar):
        once = [make(3, number) for number in range(1, 40)]
        assert [make(3, number) for number in reversed(range(1, 40))] == once[::-1]
        assert [make(4, number) for number in range(1, 40)] != once
        assert len(set(once)) > 30
    assert mutants.tar(3, 100) in mutants.tars()


def test_every_kind_is_drawn_and_can_be_read():
    names = [name for name, _ in mutants.drawn(*mutants.SIDES)]
    assert {name.split()[0] for name in names} >= {"JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"}
    drawn = list(mutants.drawn(9, 7))
    assert all(read(data, 8).pixels.shape == (8, 8, 3) for _, data in drawn)


def test_images():
    found = fuzz_images(range(400), workers=1)
    assert found.violations == [] and found.items == 400 == found.outcomes.total()
    assert found.outcomes.keys() <= {"pixels", *fuzz.IMAGE_REASONS} and len(found.outcomes) > 4
    assert 0 < found.slowest_s < fuzz.LIMIT_S and 0 < found.peak_bytes < fuzz.LIMIT_BYTES


def test_large_images(monkeypatch):
    few = [drawn for drawn in mutants.drawn(300, 300) if drawn[0] in ("PNG RGBA exif compress_level=1", "JPEG L exif")]
    monkeypatch.setattr(mutants, "drawn", lambda width, height: [*few, ("cut", few[0][1][:99])])
    found = fuzz_giants(300)
    assert found.items == 3 and found.outcomes == {"pixels": 2, "truncated": 1}
    (line,) = found.violations
    assert line.startswith("cut of 300 px")


def test_tars():
    found = fuzz_tars(range(400), workers=1)
    assert found.violations == [] and found.items == 400
    assert {"a pair", "an image", "truncated", "not_a_file", "outside_folder", "duplicate_key"} <= found.outcomes.keys()


def test_time_ends_a_run():
    assert fuzz_tars(range(3000), seconds=0.1, workers=1).items < 2000


class Ends:
    def __init__(self, end, after_s=0.0):
        self.end, self.after_s = end, after_s

    def decode(self, images):
        time.sleep(self.after_s)
        return [self.end for _ in images]


@pytest.mark.parametrize("reason", ["decoder_crash", "something new"])
def test_an_image_that_does_harm_is_named(reason):
    found = Found()
    fuzz._decode(Ends(ImageError("truncated", "stops early")), b"", "seed 0, image 1", found)
    fuzz._decode(Ends(ImageError(reason, "why")), b"", "seed 0, image 2", found)
    fuzz._decode(Ends(Decoded(None)), b"", "seed 0, image 3", found)
    assert found.violations == [f"seed 0, image 2: {reason}, 'why'"]
    assert found.outcomes == {"truncated": 1, reason: 1, "pixels": 1}


def test_what_is_slow_is_tried_alone_by_its_processor_time(monkeypatch):
    whole, found = mutants.images()[0], Found()
    monkeypatch.setattr(fuzz, "LIMIT_S", 1.0)
    fuzz._decode(Ends(ImageError("decode_timeout", "late"), after_s=0.15), whole, "seed 0, image 1", found)
    assert found.violations == [] and found.outcomes == {"pixels": 1} and found.slowest_s > 0
    monkeypatch.setattr(fuzz, "LIMIT_S", 0.01)
    fuzz._decode(Ends(Decoded(None), after_s=0.15), whole, "seed 0, image 2", found)
    assert [line.split(" took")[0] for line in found.violations][-1] == "seed 0, image 2:"


def test_memory_above_the_limit_is_named_once():
    found = Found()
    for name, peak in (("a", 10), ("b", int(fuzz.LIMIT_BYTES) + 1), ("c", int(fuzz.LIMIT_BYTES) + 1)):
        found.add(Found(peak_bytes=peak), name)
    assert found.violations == ["b: a worker came to hold 1500 MB"]


def hangs(path, **how):
    time.sleep(10)


def breaks(path, **how):
    raise RecursionError("too deep")


@pytest.mark.parametrize(("opened", "said"), [(hangs, "was not done after 0.2 s"), (breaks, "RecursionError")])
def test_a_tar_that_does_harm_is_named(monkeypatch, opened, said):
    monkeypatch.setattr(fuzz, "open_source", opened)
    monkeypatch.setattr(fuzz, "PATIENCE", 0.04)
    found = fuzz_tars(range(7, 9), seed=5, workers=1)
    assert [line.split(":")[0] for line in found.violations] == ["seed 5, tar 7"] * 2 + [
        "seed 5, tar 8"
    ] * 2  # twice read
    assert all(said in line for line in found.violations) and found.items == 2


def test_a_reader_that_dies_is_a_violation(monkeypatch):
    monkeypatch.setattr(fuzz, "open_source", lambda path: fuzz.os._exit(3))
    (line,) = fuzz_tars(range(3), workers=1).violations
    assert "a tar of range(0, 3)" in line


def test_the_command_tells_all_as_json(capsys, monkeypatch):
    with pytest.raises(SystemExit) as left:
        fuzz.main(["--images", "70", "--tars", "20", "--first", "1"])
    told = json.loads(capsys.readouterr().out)
    assert left.value.code == 0 and told["violations"] == [] and told["giants"]["items"] == 0
    assert told["images"]["items"] == 70 and told["tars"]["items"] == 20
    monkeypatch.setattr(fuzz, "fuzz_images", lambda *asked: Found(violations=["seed 0, image 1: decoder_crash"]))
    with pytest.raises(SystemExit) as left:
        fuzz.main(["--images", "1", "--tars", "0", "--first", "1"])
    assert left.value.code == 1 and "decoder_crash" in capsys.readouterr().out
