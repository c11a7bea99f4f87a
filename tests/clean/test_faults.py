"""Every call of the commit path made to fail in turn, and the process made to die there: nothing that was committed is
lost, nothing half remains, and the same work done again gives the same bytes."""

import builtins
import errno
import io
import itertools
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from capfilt.clean.columns import SCHEMAS
from capfilt.clean.ledger import Ledger
from capfilt.errors import StorageError
from capfilt.files import atomic, lease, write_text

SHARDS = [("rows", 0), ("scores", 0)]  # two: the manifest's first line and another, each in a new folder
NUMBERS = {"full": errno.ENOSPC, "broken": errno.EIO}
SOURCE = Path(__file__).resolve().parents[2] / "src"


def table(stage: str) -> pa.Table:
    return pa.Table.from_pylist([{"id": f"{i:032x}"} for i in range(40)], SCHEMAS[stage])


def work(out: Path, done: Callable[[tuple[str, int]], object] = lambda shard: None) -> None:
    """What a run does: holds the folder, commits what is missing."""
    with lease(out):
        ledger = Ledger(out)
        for line in ledger.verify():
            raise AssertionError(line)
        for stage, shard in SHARDS:
            if shard not in ledger.shards(stage):
                ledger.commit(stage, shard, table(stage))
                done((stage, shard))


def tree(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != ".lock"}


def check(out: Path, done: list[tuple[str, int]], undisturbed: dict[str, bytes], at: object) -> None:
    """What was committed is there; the rest can be done, and then all is as if nothing had happened."""
    found = Ledger(out)
    assert all(shard in found.shards(stage) for stage, shard in done), at
    assert found.verify() == [], at
    for stage, shard in SHARDS:
        if shard in found.shards(stage):
            assert found.table(stage, shard).equals(table(stage)), at
    work(out)
    assert tree(out) == undisturbed, at


class Disk:
    """Counts what is asked of the operating system; the call number `at` goes wrong, as `how` says.

    A write that goes wrong has written half. `full` and `broken` once, `stays ...` from then on (a full disk still
    deletes); `dies`: the process is gone, with all that it held in its buffers.
    """

    def __init__(self, at: int, how: str, patch: pytest.MonkeyPatch) -> None:
        self.at, self.how = at, how
        self.calls: list[str] = []
        self.hit: list[str] = []
        for name in ("open", "fsync", "mkdir", "replace", "chmod", "unlink", "ftruncate", "pwrite"):
            patch.setattr(os, name, self.before(name, getattr(os, name)))
        real = io.open
        for module in (builtins, io):
            patch.setattr(module, "open", lambda *args, **options: self.opened(real, *args, **options))
        patch.setattr(parquet, "write_table", self.tabled(parquet.write_table))

    def point(self, what: str, half: Callable[[], object] = lambda: None) -> None:
        number = len(self.calls)
        self.calls.append(what)
        stays = self.how.startswith("stays")
        if number != self.at and not (stays and number > self.at):
            return
        if stays and self.how.endswith("full") and what in ("unlink", "truncate", "ftruncate"):
            return
        half()
        self.hit.append(what)
        if self.how == "dies":
            os._exit(9)
        code = NUMBERS[self.how.split()[-1]]
        raise OSError(code, os.strerror(code))

    def before(self, name, real):
        def call(*args, **options):
            self.point(name)
            return real(*args, **options)

        return call

    def tabled(self, real):
        def call(content, path, **options):
            def half():
                real(content, path, **options)
                os.truncate(path, os.path.getsize(path) // 2)

            self.point("table", half)
            return real(content, path, **options)

        return call

    def opened(self, real, file, mode="r", buffering=-1, encoding=None, errors=None, newline=None):
        self.point(f"open {mode}")
        if "w" not in mode and "a" not in mode:
            return real(file, mode, buffering, encoding, errors, newline)
        raw = _Raw(file, mode.replace("b", ""))
        raw.disk = self
        if not buffering:
            return raw
        buffered = io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)


class _Raw(io.FileIO):
    disk: Disk

    def write(self, data):
        self.disk.point("write", lambda: super(_Raw, self).write(bytes(data)[: len(data) // 2]))
        return super().write(data)

    def truncate(self, size=None):
        self.disk.point("truncate")
        return super().truncate(size)


def disturbed(out: Path, at: int, how: str) -> tuple[list[tuple[str, int]], list[str], BaseException | None]:
    """The work with one fault → shards whose commit came back, the calls that went wrong, what was raised."""
    done: list[tuple[str, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(at, how, patch)
        try:
            work(out, done.append)
        except (OSError, StorageError) as error:
            return done, disk.hit, error
    return done, disk.hit, None


def killed(out: Path, at: int) -> tuple[list[tuple[str, int]], bool]:
    """The work in a process that dies at that call → shards whose commit came back, whether it died."""
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        with pytest.MonkeyPatch.context() as patch:
            Disk(at, "dies", patch)
            try:
                work(out, lambda shard: os.write(tell, bytes([SHARDS.index(shard)])))
            except BaseException:
                os._exit(1)
            os._exit(0)
    os.close(tell)
    with os.fdopen(told, "rb") as pipe:
        done = [SHARDS[number] for number in pipe.read()]
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return done, code == 9


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    work(out)
    return tree(out)


@pytest.mark.parametrize("how", ["full", "broken", "stays full", "stays broken"])
def test_every_call_that_fails_costs_nothing(how, tmp_path, undisturbed):
    seen = set()
    for at in itertools.count():
        out = tmp_path / str(at) / "run"
        done, hit, error = disturbed(out, at, how)
        if at and not hit:
            break
        seen.update(hit[:1])
        if error is not None:
            assert isinstance(error, StorageError) and error.exit_code == 5, (at, hit, error)
            assert not list(out.rglob(".*.tmp")) or how == "stays broken", (at, hit)  # it could not even delete
        check(out, done, undisturbed, (at, hit))
    assert error is None and len(done) == len(SHARDS)
    assert {"open ab+", "write", "fsync", "replace", "table", "mkdir", "chmod", "open"} <= seen and at > 35


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_death_at_every_call_costs_nothing(tmp_path, undisturbed):
    for at in itertools.count():
        out = tmp_path / str(at) / "run"
        done, died = killed(out, at)
        if not died:
            break
        check(out, done, undisturbed, at)
    assert len(done) == len(SHARDS) and at > 35


def test_the_order_in_which_things_reach_the_disk(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(-1, "full", patch)
        for shard in (0, 1):
            Ledger(tmp_path).commit("rows", shard, table("rows"))
    told = [call for call in disk.calls if call in ("mkdir", "table", "fsync", "replace", "write")]
    folder, shard, name, line = ["mkdir", "fsync"], ["table", "fsync"], ["replace", "fsync"], ["write", "fsync"]
    assert told == [*folder, *shard, *name, *line, "fsync", *shard, *name, *line]  # alone: the new manifest's name


def test_a_repeat_in_the_same_process_needs_no_new_ledger(tmp_path, undisturbed):
    for at in itertools.count():
        out = tmp_path / str(at)
        with lease(out):
            ledger = Ledger(out)
            ledger.commit("rows", 0, table("rows"))
            with pytest.MonkeyPatch.context() as patch:
                disk = Disk(at, "full", patch)
                try:
                    ledger.commit("scores", 0, table("scores"))
                except StorageError:
                    assert ledger.shards("scores") == []
            if ledger.shards("scores") == []:
                ledger.commit("scores", 0, table("scores"))
        assert tree(out) == undisturbed and Ledger(out).verify() == []
        if not disk.hit:
            break
    assert at > 12


def test_files_may_grow_to_any_length_and_no_further(tmp_path, undisturbed):
    longest = max(map(len, undisturbed.values()))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    refused = 0
    for most in range(8, longest + 200, 97):
        out, done = tmp_path / str(most), []
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
        try:
            work(out, done.append)
        except StorageError as error:
            assert "make room" in str(error)
            refused += 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert not list(out.rglob(".*.tmp"))
        check(out, done, undisturbed, most)
    assert refused > 10


def on_a_full_disk(disk: Path) -> None:
    """Works on a small disk with ever more room, until it is enough; each time the room is made and work goes on."""
    out = disk / "run"
    work(out)
    undisturbed, refused = tree(out), 0
    for room in range(0, 2**16, 2**12):
        shutil.rmtree(out)
        with open(disk / "filler", "wb", buffering=0) as filler:
            filler.write(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize - room))
        done: list[tuple[str, int]] = []
        try:
            work(out, done.append)
        except StorageError as error:
            assert error.exit_code == 5 and "No space left" in str(error)
            refused += 1
        os.unlink(disk / "filler")
        check(out, done, undisturbed, room)
    assert 2 < refused < 16, refused


def test_a_disk_that_is_really_full(tmp_path):
    script = f"""
import sys
sys.path[:0] = [{str(SOURCE)!r}, {str(Path(__file__).parent)!r}]
from pathlib import Path
from {Path(__file__).stem} import on_a_full_disk
on_a_full_disk(Path({str(tmp_path)!r}))
print("done")
"""
    mounted = f'mount -t tmpfs -o size=256k tmpfs "{tmp_path}" || exit 77; exec "$0" -c "$1"'
    try:
        ended = subprocess.run(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mounted, sys.executable, script],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if ended.returncode == 77 or "unshare" in ended.stderr:
        pytest.skip("no disk may be mounted here")
    assert ended.stdout == "done\n", ended.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_what_a_full_device_says(tmp_path):
    write_text(tmp_path / "a", "before")
    with pytest.raises(StorageError, match="No space left"):
        atomic(tmp_path / "a", lambda to: Path("/dev/full").write_text("after"))
    assert tree(tmp_path) == {"a": b"before"}
