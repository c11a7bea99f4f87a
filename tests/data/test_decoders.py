"""Pictures read ahead: alike from every form and by every way, in order, bounded; a bad one costs its row."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from capfilt.data import decoders as room
from capfilt.data.decoders import Decoded, Decoders, Reading, read
from capfilt.errors import ConfigError, ImageError
from capfilt.inputs.images import ImageInfo, decode, to_pixels

PX = 16
SOURCE = Path(__file__).resolve().parents[2] / "src"
DYING = f"""
import os, sys, time
sys.path.insert(0, {str(SOURCE)!r})
from capfilt.data import decoders
real = decoders.decode
def decode(data, **how):
    if data == b"abort":
        os.abort()
    if data == b"leave":
        os._exit(3)
    if data[:4] == b"hang":
        time.sleep(60)
    return real(data, **how)
decoders.decode = decode
decoders.main()
"""
COMMAND = (sys.executable, "-c", DYING)
CUT_SHORT = f"""
import sys
sys.path.insert(0, {str(SOURCE)!r})
from capfilt.data import decoders as decoders_room
from capfilt.data.decoders import Decoders, Reading
with Decoders(16, Reading(workers=2, limit_s=2), command=(sys.executable, "-c", {DYING!r})) as decoders:
    alone = decoders_room.SMALL + 1
    found = decoders.decode(image.ljust(alone) for image in [b"<html>"] * 2 + [b"hang"] * 2)
    next(found), next(found)
    print(*(worker._process.pid for worker in decoders._workers), flush=True)
    next(found)
"""


def encoded(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, kind, **options)
    return data.getvalue()


def noise(seed: int, height: int = 24, width: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def gone(pid: int, within_s: float = 5.0) -> bool:
    """Whether the process ends in time; a zombie that nobody waited for counts as ended."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("workers", [0, 2])
def test_every_form_of_a_picture_gives_its_pixels_in_order(workers, tmp_path):
    files = [tmp_path / f"{i}.png" for i in range(12)]
    for i, file in enumerate(files):
        file.write_bytes(encoded(noise(i)))
    given = [
        [str(files[i]), files[i], files[i].read_bytes(), noise(i), Image.fromarray(noise(i))][i % 5] for i in range(12)
    ]
    with Decoders(PX, Reading(workers)) as decoders:
        found = list(decoders.decode(given))
    for i, one in enumerate(found):
        assert isinstance(one, Decoded)
        np.testing.assert_array_equal(one.pixels, to_pixels(noise(i), PX))
    assert found[0].info == ImageInfo("PNG", "RGB", 40, 24, 1, ("too_small",))
    assert found[0].notes == ("too_small",) and found[3].info is None and found[3].notes == ()


@pytest.mark.parametrize("workers", [0, 1])
def test_the_header_comes_with_the_pixels(workers):
    clip = io.BytesIO()
    first, *others = (Image.fromarray(noise(i, 40, 200)) for i in range(3))
    first.save(clip, "GIF", save_all=True, append_images=others)
    turned = Image.Exif()
    turned[0x0112] = 6
    photo = encoded(noise(0, 48, 64), "JPEG", exif=turned)
    with Decoders(PX, Reading(workers)) as decoders:
        found = list(decoders.decode([clip.getvalue(), photo]))
    assert found[0].info == ImageInfo("GIF", "P", 200, 40, 3, ("animated", "odd_aspect"))
    assert found[1].info == ImageInfo("JPEG", "RGB", 64, 48, 1, ())  # as stored


def test_a_clip_is_read_frame_by_frame():
    clip = np.stack([noise(0), noise(1)])
    found = read(clip, PX).pixels
    np.testing.assert_array_equal(found, [to_pixels(frame, PX) for frame in clip])


@pytest.mark.parametrize("workers", [0, 1])
def test_what_cannot_be_read_has_its_reason(workers, tmp_path):
    given = [tmp_path / "gone.png", tmp_path, "a\0b.png", b"", b"<html>", np.zeros((4, 4), np.uint8), 7, noise(0)]
    with Decoders(PX, Reading(workers)) as decoders:
        found = list(decoders.decode(given))
    reasons = [one.reason if isinstance(one, ImageError) else "" for one in found]
    assert reasons == [
        "missing_file",
        "unreadable",
        "unreadable",
        "empty",
        "not_an_image",
        "not_an_image",
        "not_an_image",
        "",
    ]


def test_a_decoder_that_dies_or_hangs_costs_its_row_alone():
    good = [encoded(noise(i)) for i in range(6)]
    images = [good[0], b"abort", good[1], b"hang", good[2], b"leave", b"<html>", *good[3:]]
    with Decoders(PX, Reading(2, limit_s=0.5), command=COMMAND) as decoders:
        found = list(decoders.decode(images))
    assert [one.reason for one in found if isinstance(one, ImageError)] == [
        "decoder_crash",
        "decode_timeout",
        "decoder_crash",
        "not_an_image",
    ]
    assert "SIGABRT" in str(found[1]) and "after 0.5 s at these 4 bytes" in str(found[3])
    assert "exit code 3" in str(found[5])
    for i, at in enumerate((0, 2, 4, 7, 8, 9)):
        np.testing.assert_array_equal(found[at].pixels, to_pixels(noise(i), PX))


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux")
def test_a_picture_that_takes_all_memory_costs_its_row_alone():
    page = io.BytesIO()
    Image.new("RGB", (5000, 5000)).save(page, "PNG", compress_level=1)  # 100 MB unpacked
    images = [encoded(noise(0)), page.getvalue(), encoded(noise(1))]
    with Decoders(PX, Reading(1, limit_mib=64), command=COMMAND) as decoders:
        pid = decoders._workers[0]._process.pid
        found = list(decoders.decode(images))
        assert [worker._process.pid for worker in decoders._workers] == [pid]  # it was told so and lives
    assert isinstance(found[1], ImageError) and found[1].reason == "too_large"
    assert isinstance(found[0], Decoded) and isinstance(found[2], Decoded)
    with Decoders(PX, Reading(1)) as decoders:
        assert isinstance(next(decoders.decode(images[1:2])), Decoded)


def test_memory_that_ends_after_the_codec_is_too_large_too(monkeypatch):
    def full(*_):
        raise MemoryError

    monkeypatch.setattr(room, "to_pixels", full)
    with pytest.raises(ImageError) as told:
        read(encoded(noise(0)), PX)
    assert told.value.reason == "too_large"


@pytest.mark.parametrize("workers", [0, 1])
def test_reading_ahead_is_bounded_by_bytes(workers, monkeypatch):
    monkeypatch.setattr(room, "BESIDES", 0)
    taken = 0

    def images():
        nonlocal taken
        for i in range(40):
            taken += 1
            yield encoded(noise(i, 8, 8)).ljust(2**18, b"\0")  # PNG ignores what is behind its end

    with Decoders(PX, Reading(workers, ahead_mib=1)) as decoders:
        for done, found in enumerate(decoders.decode(images()), 1):
            np.testing.assert_array_equal(found.pixels, to_pixels(noise(done - 1, 8, 8), PX))
            assert taken <= done + 4
            assert taken > done or done >= 39  # and it is ahead
    assert done == 40


@pytest.mark.parametrize("workers", [0, 2])
def test_small_images_go_together_and_come_back_in_order(workers, monkeypatch):
    small = [encoded(noise(i, 8, 8)) for i in range(50)]
    large = encoded(noise(50)).ljust(room.SMALL + 1, b"\0")
    images = [*small[:20], large, *small[20:], noise(51), large]
    asked = []
    monkeypatch.setattr(
        Decoders, "_some", lambda self, some, real=Decoders._some: asked.append(len(some)) or real(self, some)
    )
    with Decoders(PX, Reading(workers)) as decoders:
        found = list(decoders.decode(images))
    for one, image in zip(found, images, strict=True):
        np.testing.assert_array_equal(one.pixels, read(image, PX).pixels)
    assert sorted(asked) == (sorted([16, 4, 1, 16, 14, 1, 1]) if workers else [1] * 53)


def test_large_pictures_do_not_share_an_answer():
    assert [room.slots(px) for px in (16, 64, 224, 384, 1024)] == [16, 16, 6, 2, 1]


def test_the_next_ones_are_read_while_the_caller_works():
    with Decoders(PX, Reading(1)) as decoders:
        found = decoders.decode([encoded(noise(i)) for i in range(4)])
        next(found)
        until = time.monotonic() + 10
        while decoders._threads._work_queue.qsize() and time.monotonic() < until:
            time.sleep(0.01)
        assert not decoders._threads._work_queue.qsize()
        assert len(list(found)) == 3


def test_jpegs_at_a_fraction_of_their_size():
    y, x = np.mgrid[0:512, 0:768] / 512
    waves = [127 + 120 * np.sin(9 * x + 5 * y), 127 + 120 * np.cos(7 * y), 255 * x / 1.5]
    data = encoded(np.stack(waves, -1).astype(np.uint8), "JPEG", quality=95)
    exact = to_pixels(decode(data), 128)
    for workers in (0, 1):
        with Decoders(128, Reading(workers, scaled=True)) as decoders:
            fast = next(decoders.decode([data])).pixels
        off = np.abs(fast.astype(int) - exact)
        assert 0 < off.mean() < 0.5 and off.max() <= 4


def test_pictures_for_the_device_stay_as_large_as_they_are():
    given = [noise(0), Image.fromarray(noise(0)), encoded(noise(0)), np.stack([noise(0)] * 2)]
    with Decoders(PX, Reading(resize="device"), as_large=True) as decoders:
        found = [one.pixels for one in decoders.decode(given)]
    for pixels in (*found[:3], *found[3]):
        np.testing.assert_array_equal(pixels, noise(0))
    with pytest.raises(ConfigError, match="straight to a model"):
        Decoders(PX, Reading(resize="device"))


def test_processes_are_started_where_there_is_enough_to_do(monkeypatch):
    monkeypatch.setattr(room, "usable_cores", lambda: 4)
    assert [Reading().processes(n) for n in (1, 63, 64, 10**6)] == [0, 0, 4, 4]
    monkeypatch.setattr(room, "usable_cores", lambda: 32)
    assert Reading().processes(200) == 12 and Reading(workers=3).processes(1) == 3


@pytest.mark.parametrize(
    "wrong", [{"workers": -1}, {"ahead_mib": 0}, {"limit_mib": 0}, {"limit_s": 0.0}, {"workers": 1, "resize": "device"}]
)
def test_settings_that_cannot_be(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Reading(**wrong)


def test_workers_load_no_torch_and_leave_when_nobody_asks_any_more():
    with Decoders(PX, Reading(2)) as decoders:
        assert all(isinstance(x, Decoded) for x in decoders.decode([encoded(noise(0))] * 3))
        pids = [worker._process.pid for worker in decoders._workers]
        assert all(os.getpgid(pid) != os.getpgid(0) for pid in pids)  # Ctrl-C in a terminal is not theirs to answer
        maps = Path(f"/proc/{pids[0]}/maps")
        if maps.exists():
            loaded = maps.read_text()
            assert "_imaging" in loaded and "torch" not in loaded
            assert "memfd:capfilt (deleted)" in loaded  # it has no name to be left behind under
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_is_left_behind(how):
    started = subprocess.Popen([sys.executable, "-c", CUT_SHORT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert started.stdout is not None
    pids = [int(word) for word in started.stdout.readline().split()]
    assert len(pids) == 2
    started.send_signal(how)
    started.wait(timeout=10)
    started.stdout.close()
    assert all(gone(pid) for pid in pids)  # one amid a picture leaves at its limit, if the parent could not end it
