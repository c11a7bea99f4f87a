"""Pictures unpacked in processes of their own: a codec that crashes on hostile bytes costs its row, not the run.

A worker reads bytes and answers with pixels or the reason why not, over its pipes. When its parent dies, by whatever
death, the pipe closes and the worker leaves; it holds nothing of the parent's, least of all the lock on its folder.

    asked:    length (8 bytes), the image's bytes
    answered: `+` or `-`, length (8 bytes); the notes and the pixels, or the reason and the message, a zero byte between
"""

import contextlib
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import IO, NamedTuple

import capfilt
from capfilt.errors import ImageError
from capfilt.inputs.images import decode, inspect, to_pixels

COMMAND = (sys.executable, "-m", __name__)
LENGTH = struct.Struct(">Q")
HEAD = struct.Struct(">cQ")


class Decoded(NamedTuple):
    """(px, px, 3) uint8 as bytes, and what was odd about the image (`inputs.images.ImageInfo.notes`)."""

    pixels: bytes
    notes: tuple[str, ...]


class Decoders:
    """`count` workers that make px x px pictures. Use it as a context manager.

    command: what starts a worker; `px` is added to it.
    """

    def __init__(self, count: int, px: int, command: tuple[str, ...] = COMMAND):
        self._count, self._command = count, (*command, str(px))
        self._closed = False

    def __enter__(self) -> "Decoders":
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        self._workers = [_Worker(self._command) for _ in range(self._count)]
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        for worker in self._workers:  # first, so that no thread waits for an answer
            worker.stop()
        self._threads.shutdown(cancel_futures=True)

    def decode(self, images: Iterable[bytes]) -> Iterator[Decoded | ImageError]:
        """Encoded images → their pixels, or why not, in the order given."""
        return self._threads.map(self._one, images)

    def _one(self, image: bytes) -> Decoded | ImageError:
        worker = self._idle.get()
        try:
            return worker.ask(image)
        except (EOFError, BrokenPipeError):
            code = worker.stop()
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            if not self._closed:
                self._workers.append(worker := _Worker(self._command))
            return ImageError("decoder_crash", f"the decoder died of these {len(image)} bytes ({how})")
        finally:
            self._idle.put(worker)


class _Worker:
    def __init__(self, command: tuple[str, ...]):
        home = str(Path(capfilt.__file__).parents[1])  # the worker runs this very package, installed or not
        paths = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths},
            process_group=0,  # Ctrl-C is the parent's to answer
        )

    def ask(self, image: bytes) -> Decoded | ImageError:
        """One image there, its pixels back. A worker that died is an EOFError or BrokenPipeError."""
        into, back = self._process.stdin, self._process.stdout
        assert into is not None and back is not None
        into.write(LENGTH.pack(len(image)) + image)
        into.flush()
        sign, length = HEAD.unpack(_exactly(back, HEAD.size))
        code, _, rest = _exactly(back, length).partition(b"\0")
        if sign == b"+":
            return Decoded(rest, tuple(code.decode().split()))
        return ImageError(code.decode(), rest.decode())

    def stop(self) -> int:
        """Ends the worker if it still runs; returns its exit code."""
        self._process.kill()
        code = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # what was not sent yet has nobody to read it
                assert pipe is not None
                pipe.close()
        return code


def _exactly(stream: IO[bytes], length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return data


def serve(asked: IO[bytes], answers: IO[bytes], px: int) -> None:
    """A worker's life: answers until nobody asks any more."""
    while head := asked.read(LENGTH.size):
        data = _exactly(asked, *LENGTH.unpack(head))
        try:
            pixels = to_pixels(decode(data), px).tobytes()
            sign, answer = b"+", " ".join(inspect(data).notes).encode() + b"\0" + pixels
        except ImageError as error:
            sign, answer = b"-", f"{error.reason}\0{error}".encode("utf-8", "backslashreplace")
        answers.write(HEAD.pack(sign, len(answer)) + answer)
        answers.flush()


if __name__ == "__main__":
    with contextlib.suppress(EOFError, BrokenPipeError):  # the parent died amid a sentence
        serve(sys.stdin.buffer, sys.stdout.buffer, int(sys.argv[1]))
    os._exit(0)  # not by way of flushing a pipe that nobody reads
