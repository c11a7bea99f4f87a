"""The command line in processes of its own, cheaply: one process imports torch and forks each command from itself.

A forked command can be told to die before its n-th change of the disk, to meet a full one, or to draw no report.
"""

import io
import json
import os
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SOURCE = Path(__file__).resolve().parents[2] / "src"
SMALL = ("bootstrap", "--recipe", "smoke")

PARENT = """
import gc, itertools, json, os, resource, signal, sys
import rich.console, rich.table, torch, torch._dynamo
from capfilt import recipes
from capfilt.bootstrap import rounds
from capfilt.cli import app
from capfilt.report import page

torch.set_num_threads(1)
gc.freeze()  # what is loaded stays shared with the children


def change(job):
    "Counts what the command changes on the disk for good, and dies just before the n-th change."
    seen = itertools.count(1)
    def watched(real):
        def call(*args, **options):
            if str(args[-1]).endswith(".tmp"):
                return real(*args, **options)
            at = next(seen)
            if "counted" in job:
                with open(job["counted"], "a") as log:
                    print(args[-1], file=log)
            if at == job.get("die"):
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)
        return call
    os.replace, os.unlink = watched(os.replace), watched(os.unlink)


def command(job):
    os.chdir(job["cwd"])
    os.environ.update(job["env"])
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    for stream, number in (("out", 1), ("err", 2)):
        os.dup2(os.open(job[stream], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if job.get("largest"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["largest"], resource.RLIM_INFINITY))
    if job.get("plain"):
        rounds.write_report = lambda *_: None
    change(job)
    sys.argv = ["capfilt", *job["words"]]
    app.main()


for line in sys.stdin:
    job = json.loads(line)
    if "wait" in job:
        code = os.waitstatus_to_exitcode(os.waitpid(job["wait"], 0)[1])
        print(code, flush=True)
        continue
    pid = os.fork()
    if not pid:
        break
    print(pid, flush=True)
else:
    sys.exit(0)
command(job)
"""


@dataclass
class Command:
    """One command that was started; `code`, `out` and `err` once it is over."""

    pid: int
    folder: Path
    parent: "Commands"
    code: int | None = None

    def wait(self) -> "Command":
        if self.code is None:
            self.code = self.parent.ask({"wait": self.pid})
        return self

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text(encoding="utf-8")

    def line(self) -> str:
        """The one line on stderr."""
        assert self.err.startswith("capfilt: ") and self.err.count("\n") == 1 and "Traceback" not in self.err, self.err
        return self.err.strip()


class Commands:
    """`capfilt ...` as often as wanted, each in a process of its own."""

    def __init__(self, scratch: Path):
        self._scratch, self._count = scratch, 0
        home = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=home
        )

    def ask(self, job: dict[str, Any]) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(job), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def start(self, *words: object, **how: Any) -> Command:
        """Options: die (before the n-th change), largest (bytes a file may have), plain (no page), counted (a log)."""
        self._count += 1
        folder = self._scratch / str(self._count)
        folder.mkdir()
        job = {"words": [str(w) for w in words], "cwd": str(folder), "env": {"CAPFILT_PROGRESS": "none"}, **how}
        return Command(self.ask(job | {"out": str(folder / "out"), "err": str(folder / "err")}), folder, self)

    def run(self, *words: object, **how: Any) -> Command:
        return self.start(*words, **how).wait()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@pytest.fixture(scope="session")
def capfilt(tmp_path_factory):
    """Starts commands; see `Commands`."""
    commands = Commands(tmp_path_factory.mktemp("commands"))
    yield commands
    commands.close()


def picture(seed: int, side: int = 48, mode: str = "RGB") -> Image.Image:
    """A seeded picture with a coloured square on noise."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (side, side, 3), np.uint8)
    pixels[8 : side // 2, 8 : side // 2] = random.integers(0, 256, 3)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The picture as a file's bytes."""
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


TEXTS = [
    f"a {c} {s} on a {g}" for c in ("red", "blue", "pink") for s in ("ball", "box", "star") for g in ("hill", "mat")
]


def write_pairs(folder: Path, count: int, captions: int = 1) -> list[dict[str, Any]]:
    """A folder with `captions.jsonl` and `count` good images; returns its rows."""
    folder.mkdir(parents=True)
    rows = []
    for i in range(count):
        name = f"{i:03d}.png"
        (folder / name).write_bytes(encoded(picture(i)))
        rows.append({"file": name, "captions": [TEXTS[(i + k) % len(TEXTS)] for k in range(captions)]})
    write_rows(folder, rows)
    return rows


def write_rows(folder: Path, rows: Sequence[dict[str, Any] | str]) -> None:
    """Writes `captions.jsonl`; a text stands for a line that is no row."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "captions.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")


@pytest.fixture(scope="session")
def pairs(tmp_path_factory) -> Path:
    """A folder `web` and a folder `human` of good pairs."""
    folder = tmp_path_factory.mktemp("pairs")
    write_pairs(folder / "web", 24)
    write_pairs(folder / "human", 16, captions=2)
    return folder


def until(ready, seconds: float = 60.0) -> None:
    """Waits until `ready()` is true."""
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def results(folder: Path) -> dict[str, Any]:
    """A run's `results.json` without what may differ from run to run."""
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return {name: value for name, value in found.items() if name not in ("seconds", "peak_mib")}


def odd_images(folder: Path) -> list[str]:
    """Images that are unusual but good; returns their names."""
    turned = Image.Exif()
    turned[0x0112] = 6
    deep = Image.fromarray(np.linspace(0, 65535, 48 * 48).astype(np.uint16).reshape(48, 48))
    files = {
        "animated.gif": encoded(picture(1), "GIF", save_all=True, append_images=[picture(2)]),
        "16-bit.png": encoded(deep),
        "cmyk.jpg": encoded(picture(3, mode="CMYK"), "JPEG"),
        "transparent.png": encoded(picture(4, mode="RGBA")),
        "turned.jpg": encoded(picture(5), "JPEG", exif=turned),
        "palette.png": encoded(picture(6, mode="P")),
        "one-pixel.png": encoded(Image.new("RGB", (1, 1))),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return list(files)


def gigantic() -> bytes:
    """A PNG of a few bytes whose header claims 60,000 x 60,000 pixels."""
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + b"\0\0\x10\0IDAT"
    )


def bad_rows(folder: Path) -> list[tuple[dict[str, Any] | str, str]]:
    """Rows that cannot be used, each with the reason that it must get; their files are written."""
    whole = encoded(picture(7))
    broken = whole[:60] + bytes(b ^ 0x5A for b in whole[60:-30]) + whole[-30:]
    files = {
        "empty.png": (b"", "empty"),
        "page.jpg": (b"<html>not found</html>", "not_an_image"),
        "cut.png": (whole[: len(whole) // 2], "truncated"),
        "broken.png": (broken, "unreadable"),
        "gigantic.png": (gigantic(), "too_large"),
    }
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    (folder / "folder.png").mkdir()
    (folder / "silent.png").write_bytes(whole)
    text = {"captions": ["a text without a usable image"]}
    return [
        *(({"file": name, **text}, reason) for name, (_, reason) in files.items()),
        ({"file": "silent.png", "captions": [" "]}, "no_text"),
        ({"file": "silent.png"}, "no_text"),
        (text, "no_image"),
        ({"file": "nowhere.png", **text}, "missing_file"),
        ({"file": "two\u2028lines.png", **text}, "missing_file"),
        ({"file": "no\ud800text.png", **text}, "missing_file"),
        ({"file": "../../secret.png", **text}, "outside_folder"),
        ({"file": "http://example.org/a.png", **text}, "url"),
        ({"file": "folder.png", **text}, "not_a_file"),
        ({"file": "000.png", "captions": [TEXTS[0]]}, "duplicate_key"),
        ("{no json", "bad_row"),
    ]
