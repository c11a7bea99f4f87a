"""Pictures read ahead of their use: few of them on threads, many in processes of their own, in the order they came.

Threads are as fast and start at once. A process takes the time of some pictures to start, leaves the interpreter to
the model, and stands for itself: a codec that crashes, hangs or takes all memory on hostile bytes costs its row, not
the run. Pixels come back through memory that both map, without a name that could be left behind; only words go through
the pipes, of small images several at once: else a switch between processes would take as long as decoding one. When
the parent dies, by whatever death, its end of the pipe closes and the worker leaves. It holds nothing
of the parent's, least of all the lock on its folder, and never loads torch.

    asked:    `path` or `data` (4 bytes), length (8 bytes), slot (1 byte), whether another one comes along (1 byte), the
              path or the image's bytes
    answered: `+` or `-`, length (8 bytes); the header as JSON, or the reason and the message, a zero byte between

Reasons that processes add to those of `inputs.images`:

| reason | the image |
|---|---|
| `decoder_crash` | ended the process that decoded it |
| `decode_timeout` | was not done within `limit_s` |
| `too_large` | took more memory than `limit_mib` |
"""

import contextlib
import json
import mmap
import os
import resource
import signal
import struct
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from PIL import Image

import capfilt
from capfilt.errors import ConfigError, ImageError
from capfilt.inputs.images import ImageInfo, decode, inspect, to_pixels, upright
from capfilt.runtime import usable_cores

Picture = str | Path | bytes | Image.Image | np.ndarray
COMMAND = (sys.executable, "-m", __name__)
ASKED, ANSWERED = struct.Struct(">4sQB?"), struct.Struct(">cQ")
MANY, WORTH_A_WORKER = 64, 16  # images: a worker starts in .15 s of a core, a photo takes 5 to 20 ms
BESIDES = 4096  # bytes that a waiting image takes beside its pixels
SMALL, TOGETHER = (
    2**11,
    16,
)  # encoded bytes of an image that shares a question, and how many do: fewer than a pipe holds
ROOM = 2**20  # bytes of pixels that an answer may take, if it is of several images
UNKNOWN = 3 * 2**22  # bytes that a picture is taken for whose size is not known before it is decoded: 4 Mpx


@dataclass(frozen=True)
class Reading:
    """How pictures are read.

    workers:   processes that decode; 0 for threads of this one, where a crash or a hang takes the run along. None:
               threads for fewer than 64 images; from there a process for each 16, at most one a core.
    scaled:    JPEGs are decoded at 1/2, 1/4 or 1/8 where that is still the size wanted: large ones several times
               faster, and a little off (docs/numbers.md, Reading pictures).
    ahead_mib: the most that may be read ahead of its use, encoded bytes included.
    limit_s:   seconds after which a process that is still at one picture is ended.
    limit_mib: memory that a process may take beyond what it starts with (on Linux; threads have no limit).
    resize:    `device`: threads decode, and the model's device resizes (`inputs.squash`; a level off here and there).
    """

    workers: int | None = None
    scaled: bool = False
    ahead_mib: int = 256
    limit_s: float = 60.0
    limit_mib: int = 1536
    resize: Literal["pillow", "device"] = "pillow"

    def __post_init__(self) -> None:
        if (self.workers or 0) < 0 or min(self.ahead_mib, self.limit_mib) < 1 or self.limit_s <= 0:
            raise ConfigError(f"{self}: workers from 0, ahead_mib and limit_mib from 1, limit_s above 0 are needed")
        if self.resize == "device" and self.workers:
            raise ConfigError(f"{self}: pictures of any size come from threads; leave workers out")

    def processes(self, images: int) -> int:
        """How many to start for so many images."""
        if self.workers is not None:
            return self.workers
        return 0 if images < MANY or self.resize == "device" else min(usable_cores(), images // WORTH_A_WORKER)


class Decoded(NamedTuple):
    """Pixels, uint8, and what the header of a file says.

    pixels: (px, px, 3), of a clip (F, px, px, 3); of any height and width where they were not to be resized.
    info:   None for what was never encoded: arrays and open pictures.
    """

    pixels: np.ndarray
    info: ImageInfo | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What was odd about the file (`inputs.images.ImageInfo.notes`)."""
        return self.info.notes if self.info else ()


def read(image: Picture, px: int, scaled: bool = False, as_stored: bool = False, as_large: bool = False) -> Decoded:
    """A picture in any form, or a clip (F, H, W, 3), squashed to px x px.

    as_stored: as `inputs.images.decode` has it.
    as_large:  not squashed, the size it was decoded at.

    Raises ImageError: no such file, or nothing that can be shown.
    """
    try:
        return _read(image, px, scaled, as_stored, as_large)
    except MemoryError:
        raise ImageError("too_large", "the picture does not fit into memory") from None


def _read(image: Picture, px: int, scaled: bool, as_stored: bool, as_large: bool) -> Decoded:
    if isinstance(image, np.ndarray):
        return Decoded(_checked(image) if as_large else _squashed(_checked(image), px))
    if isinstance(image, Image.Image):
        picture = upright(image, as_stored)
        return Decoded(np.array(picture) if as_large else to_pixels(picture, px))
    if not isinstance(image, str | Path | bytes):
        raise ImageError("not_an_image", f"a {type(image).__name__}; a path, bytes, picture or array is needed")
    data = image if isinstance(image, bytes) else _bytes_of(image)
    picture = decode(data, as_stored=as_stored, least_px=px if scaled else None)
    return Decoded(np.array(picture) if as_large else to_pixels(picture, px), inspect(data))


class Decoders:
    """Makes px x px pictures. Use it as a context manager: leaving it ends its processes, whatever they are at.

    Args:
        images: how many there will be, where that is known: decides between threads and processes.
        as_large: not to be resized: the caller does that, on its device.
        command: what starts a worker; its settings are added to it.
    """

    def __init__(
        self,
        px: int,
        reading: Reading | None = None,
        images: int = sys.maxsize,
        as_stored: bool = False,
        as_large: bool = False,
        command: tuple[str, ...] = COMMAND,
    ):
        self._px, self._reading = px, reading or Reading()
        if (self._reading.resize == "device") != as_large:
            raise ConfigError("resize='device': only pictures that go straight to a model are resized on its device")
        self._count = self._reading.processes(images)
        self._slots = slots(px) if self._count else 1
        how = {"scaled": self._reading.scaled, "as_stored": as_stored, "as_large": as_large}
        self._how = {name: True for name, on in how.items() if on}
        limits = (str(self._reading.limit_s), str(self._reading.limit_mib))
        self._command = (*command, str(px), *limits, *self._how)
        self._closed = False

    def __enter__(self) -> "Decoders":
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        self._workers = [_Worker(self._command, self._px) for _ in range(self._count)]
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(self._count or usable_cores(), "decoder")
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        for worker in self._workers:  # first, so that no thread waits for an answer
            worker.stop()
        self._threads.shutdown(cancel_futures=True)

    def decode(self, images: Iterable[Picture]) -> Iterator[Decoded | ImageError]:
        """Each image's pixels, or why not. Images are taken, and read ahead, as far as `ahead_mib` goes."""
        waiting: deque[tuple[Future[list[Decoded | ImageError]], int]] = deque()
        held, most = 0, self._reading.ahead_mib * 2**20
        for some in self._together(images):
            cost = sum(map(self._cost, some))
            while waiting and held + cost > most:
                first, freed = waiting.popleft()
                yield from first.result()
                held -= freed
            waiting.append((self._threads.submit(self._some, some), cost))
            held += cost
        while waiting:
            yield from waiting.popleft()[0].result()

    def _together(self, images: Iterable[Picture]) -> Iterator[list[Any]]:
        """The images in their order, each alone, but small ones with their neighbours."""
        some: list[Picture] = []
        for image in images:
            small = isinstance(image, bytes) and len(image) <= SMALL
            if some and not small:
                yield some
                some = []
            some.append(image)
            if not small or len(some) == self._slots:
                yield some
                some = []
        if some:
            yield some

    def _cost(self, image: Picture) -> int:
        encoded = len(image) if isinstance(image, bytes) else 0
        if "as_large" in self._how:
            return encoded + UNKNOWN
        frames = len(image) if isinstance(image, np.ndarray) and image.ndim == 4 else 1
        return encoded + frames * 3 * self._px**2 + BESIDES

    def _some(self, images: list[Any]) -> list[Decoded | ImageError]:
        if not self._count or not isinstance(images[0], str | Path | bytes):
            return [self._here(image) for image in images]
        worker = self._idle.get()
        try:
            return worker.ask(images)
        except (EOFError, BrokenPipeError):
            at = worker.at()
            died = self._death(images[at], worker.stop())
            if not self._closed:
                self._workers.append(worker := _Worker(self._command, self._px))
        finally:
            self._idle.put(worker)
        before, after = (self._some(others) if others else [] for others in (images[:at], images[at + 1 :]))
        return [*before, died, *after]

    def _here(self, image: Picture) -> Decoded | ImageError:
        try:
            return read(image, self._px, **self._how)
        except ImageError as error:
            return error

    def _death(self, image: str | Path | bytes, code: int) -> ImageError:
        what = f"these {len(image)} bytes" if isinstance(image, bytes) else "this file"
        if code == -signal.SIGALRM:
            limit = f"{self._reading.limit_s:g} s"
            return ImageError("decode_timeout", f"the decoder was ended, after {limit} at {what}")
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return ImageError("decoder_crash", f"the decoder died of {what} ({how})")


class _Worker:
    def __init__(self, command: tuple[str, ...], px: int):
        home = str(Path(capfilt.__file__).parents[1])  # the worker runs this very package, installed or not
        paths = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
        fd = _nameless_memory(slots(px) * 3 * px * px + 1)
        try:
            self._shown, self._at = _shared(fd, px)
            self._process = subprocess.Popen(
                (*command, str(fd)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": paths},
                process_group=0,  # Ctrl-C is the parent's to answer
                pass_fds=(fd,),
            )
        finally:
            os.close(fd)

    def ask(self, images: list[str | Path | bytes]) -> list[Decoded | ImageError]:
        """Images there, at most `slots`, their pixels back. A worker that died is an EOFError or BrokenPipeError."""
        into, back = self._process.stdin, self._process.stdout
        assert into is not None and back is not None
        self._at[0] = 0
        for slot, image in enumerate(images):
            kind, data = (b"data", image) if isinstance(image, bytes) else (b"path", os.fsencode(image))
            into.write(ASKED.pack(kind, len(data), slot, slot + 1 < len(images)) + data)
        into.flush()
        return [self._answer(back, slot) for slot in range(len(images))]

    def _answer(self, back: IO[bytes], slot: int) -> Decoded | ImageError:
        sign, length = ANSWERED.unpack(_exactly(back, ANSWERED.size))
        code, _, rest = _exactly(back, length).partition(b"\0")
        if sign == b"+":
            return Decoded(self._shown[slot].copy(), _info(code))
        return ImageError(code.decode(), rest.decode())

    def at(self) -> int:
        """Which of the images it was asked for it is at, or died of."""
        return int(self._at[0])

    def stop(self) -> int:
        """Ends the worker if it still runs; returns its exit code."""
        self._process.kill()
        code = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # what was not sent yet has nobody to read it
                assert pipe is not None
                pipe.close()
        return code


def slots(px: int) -> int:
    """How many pictures of px x px a worker is asked for at once."""
    return max(1, min(TOGETHER, ROOM // (3 * px * px)))


def serve(asked: IO[bytes], answers: IO[bytes], shown: np.ndarray, at: np.ndarray, limit_s: float, **how: Any) -> None:
    """A worker's life: answers until nobody asks any more. An alarm that nobody hears ends it at a picture's limit.

    shown: (slots, px, px, 3). at: (1), the slot it is at.
    """
    px = shown.shape[1]
    while head := asked.read(ASKED.size):
        kind, length, at[0], more = ASKED.unpack(head)
        data = _exactly(asked, length)
        signal.setitimer(signal.ITIMER_REAL, limit_s)
        try:
            found = read(data if kind == b"data" else os.fsdecode(data), px, **how)
            assert found.info is not None  # only files and bytes come here
            shown[at[0]] = found.pixels
            sign, answer = b"+", json.dumps(vars(found.info)).encode()
        except ImageError as error:
            sign, answer = b"-", f"{error.reason}\0{error}".encode("utf-8", "backslashreplace")
        signal.setitimer(signal.ITIMER_REAL, 0)
        answers.write(ANSWERED.pack(sign, len(answer)) + answer)
        if not more:
            answers.flush()


def main() -> None:
    """Runs a worker with the settings that `Decoders` adds to its command."""
    px, limit_s, limit_mib, *flags, fd = sys.argv[1:]
    shown, at = _shared(int(fd), int(px))
    _bound_memory(int(limit_mib) * 2**20)
    with contextlib.suppress(EOFError, BrokenPipeError):  # the parent died amid a sentence
        serve(sys.stdin.buffer, sys.stdout.buffer, shown, at, float(limit_s), **dict.fromkeys(flags, True))
    os._exit(0)  # not by way of flushing a pipe that nobody reads


def _bound_memory(more: int) -> None:
    """So many bytes beyond what is mapped now; where they end, allocating fails, which is an answer and no death."""
    if sys.platform == "linux":
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + more, mapped + more))


def _info(data: bytes) -> ImageInfo:
    values = json.loads(data)
    return ImageInfo(**values | {"notes": tuple(values["notes"])})


def _checked(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim not in (3, 4) or image.shape[-1] != 3 or not image.size:
        raise ImageError(
            "not_an_image",
            f"an array of {image.dtype} {image.shape}; uint8 of (H, W, 3), or of clips (F, H, W, 3), is needed",
        )
    return image


def _squashed(image: np.ndarray, px: int) -> np.ndarray:
    return to_pixels(image, px) if image.ndim == 3 else np.stack([to_pixels(frame, px) for frame in image])


def _bytes_of(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise ImageError("missing_file", "no such file") from None
    except (OSError, ValueError) as error:  # the latter for a name that no file can have
        raise ImageError("unreadable", getattr(error, "strerror", None) or str(error)) from None


def _shared(fd: int, px: int) -> tuple[np.ndarray, np.ndarray]:
    """What parent and worker both see: the pictures in their slots, and which of them the worker is at."""
    both = np.frombuffer(mmap.mmap(fd, 0), np.uint8)
    return both[:-1].reshape(slots(px), px, px, 3), both[-1:]


def _nameless_memory(size: int) -> int:
    """A file descriptor of memory that goes when the last process that has it open goes, however it goes."""
    if sys.platform == "linux":
        fd = os.memfd_create("capfilt")  # unlike /dev/shm it is as large as memory, in containers too
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd


def _exactly(stream: IO[bytes], length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return data


if __name__ == "__main__":
    main()
