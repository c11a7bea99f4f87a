"""Every way to leave: one line on stderr, the documented code, no traceback unless asked or a bug."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from capfilt import __version__, errors
from capfilt.recipes import doctor
from capfilt.runtime import Terminated

KINDS = [errors.CheckFailed, errors.ConfigError, errors.DataError, errors.WeightsError, errors.StorageError]


def one_line(err: str) -> str:
    assert err.startswith("capfilt: ") and err.count("\n") == 1 and "Traceback" not in err, err
    return err.strip()


def test_version_and_help(capfilt):
    assert capfilt("--version") == (0, f"capfilt {__version__}\n", "")
    code, out, _ = capfilt()
    assert code == 0 and "bootstrap" in out and "golden" in out


@pytest.mark.parametrize("kind", [*KINDS, errors.BusyError], ids=lambda kind: kind.__name__)
def test_a_mistake_is_one_line_and_its_code(capfilt, below, kind):
    below.error = kind("pairs.jsonl: 0 rows.\nGive it some.")
    code, out, err = capfilt("bootstrap")
    assert code == kind.exit_code and out == ""
    assert one_line(err) == "capfilt: pairs.jsonl: 0 rows. Give it some."


@pytest.mark.parametrize("words", [["bootstrap", "--sed", "1"], ["nosuch"], ["golden"], ["bootstrap", "--seed", "x"]])
def test_a_wrong_flag_is_one_line_and_2(capfilt, below, words):
    code, _, err = capfilt(*words)
    assert code == 2 and "--help" in one_line(err)
    assert not below.asked


def test_ctrl_c_and_sigterm(capfilt, below):
    below.error = KeyboardInterrupt()
    code, _, err = capfilt("bootstrap")
    assert (code, one_line(err)) == (130, "capfilt: interrupted; run the same command again to go on")
    below.error = Terminated()
    code, _, err = capfilt("bootstrap")
    assert (code, one_line(err)) == (143, "capfilt: terminated; run the same command again to go on")


def test_what_begins_anew_is_not_told_to_go_on(capfilt, monkeypatch):
    def stopped() -> list:
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "findings", stopped)
    code, _, err = capfilt("doctor")
    assert (code, one_line(err)) == (130, "capfilt: interrupted")


def test_a_real_sigterm_arrives(capfilt, below, monkeypatch):
    monkeypatch.setattr(below, "note", lambda *what: os.kill(os.getpid(), signal.SIGTERM))
    code, _, err = capfilt("bootstrap")
    assert code == 143 and "terminated" in one_line(err)


def test_a_full_disk_and_no_memory(capfilt, below):
    below.error = OSError(errno.ENOSPC, "No space left on device", "runs/x")
    code, _, err = capfilt("bootstrap")
    assert code == 5 and "runs/x: No space left" in one_line(err)
    below.error = MemoryError()
    code, _, err = capfilt("bootstrap")
    assert code == 1 and "out of memory" in one_line(err)
    below.error = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
    code, _, err = capfilt("bootstrap")
    assert code == 1 and "out of memory" in one_line(err)


def test_a_bug_keeps_its_traceback(capfilt, below):
    below.error = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        capfilt("bootstrap")


def test_debug_shows_the_traceback_of_a_mistake(capfilt, below, monkeypatch):
    below.error = errors.DataError("0 rows")
    capfilt("--version")  # the fixture clears the variable once
    monkeypatch.setenv("CAPFILT_DEBUG", "1")
    with pytest.raises(errors.DataError):
        capfilt("bootstrap")


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["models", "--json"], ["caption", "x.png"]], ids=" ".join)
def test_when_nobody_reads_on_it_leaves_without_a_word(words, root):
    """Buffered or not: what is left to write when Python ends must not be complained about either."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    reading, writing = os.pipe()
    os.close(reading)
    mistake = words[0] == "caption"  # told on stderr, which is closed as well
    try:
        done = subprocess.run(
            [sys.executable, "-m", "capfilt", *words],
            env={**environment, "PYTHONPATH": str(root / "src"), "CAPFILT_MODEL": ""},
            stdout=writing,
            stderr=writing if mistake else subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr or b"") == (141, b"")
