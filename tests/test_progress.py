"""Progress: JSON lines that parse and are few, a bar on a terminal, silence when asked."""

import io
import json
import time

import pytest

from capfilt import progress
from capfilt.errors import ConfigError
from capfilt.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    """time.monotonic that a test can move."""

    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.delenv("CAPFILT_PROGRESS", raising=False)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_first_last_and_one_every_two_seconds(clock):
    out = io.StringIO()
    with Progress("pre-training", total=15, stream=out) as bar:
        for step in range(1, 11):
            clock.now += 0.5
            bar.update(step, loss=1 / step)
    told = lines(out)
    assert [line["step"] for line in told] == [0, 4, 8, 10]
    assert told[2] == {
        "stage": "pre-training",
        "step": 8,
        "total": 15,
        "seconds": 4.0,
        "per_s": 2.0,
        "eta_s": 3.5,
        "loss": 0.125,
    }
    assert told[-1]["loss"] == 0.1


def test_resumed_steps_do_not_flatter_the_rate(clock):
    out = io.StringIO()
    with Progress("captions", total=100, start=90, stream=out) as bar:
        clock.now += 5
        bar.update(95)
    assert lines(out)[-1]["per_s"] == 1.0
    assert lines(out)[-1]["eta_s"] == 5.0


def test_unknown_length_and_numbers_that_are_none():
    out = io.StringIO()
    with Progress("reading", stream=out) as bar:
        bar.update(3, loss=float("nan"))
    assert lines(out)[-1]["total"] is None
    assert lines(out)[-1]["loss"] is None  # NaN would be no JSON
    assert lines(out)[-1]["eta_s"] is None


def test_the_last_step_is_told_when_a_stage_fails(clock):
    out = io.StringIO()
    with pytest.raises(RuntimeError), Progress("scoring", total=10, stream=out) as bar:
        bar.update(7)
        raise RuntimeError
    assert lines(out)[-1]["step"] == 7


def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    with Progress("pre-training", total=4, stream=out) as bar:
        bar.update(3, loss=0.5)
        bar.update(4, loss=0.25)
    assert "pre-training" in out.getvalue()
    assert "100%" in out.getvalue()
    assert "loss 0.25" in out.getvalue()
    assert "{" not in out.getvalue()


def test_none_is_silent_even_on_a_terminal(monkeypatch):
    monkeypatch.setenv("CAPFILT_PROGRESS", "none")
    out = Terminal()
    with Progress("pre-training", total=4, stream=out) as bar:
        bar.update(4)
    assert out.getvalue() == ""


def test_a_wrong_mode_names_the_right_ones(monkeypatch):
    monkeypatch.setenv("CAPFILT_PROGRESS", "loud")
    with pytest.raises(ConfigError, match="'loud' is not one of bar, json, none"):
        Progress("x")


def test_a_throttled_update_costs_microseconds():
    with Progress("pre-training", total=20000, stream=io.StringIO()) as bar:
        begun = time.perf_counter()
        for step in range(20000):
            bar.update(step, loss=0.5, itc=0.25)
        cost_us = (time.perf_counter() - begun) / 20000 * 1e6
    assert cost_us < 50  # about 1 us on an idle machine; checked with beartype and on shared cores here
