"""One line of life for a long stage: a bar where a person looks, JSON lines where a machine does.

CAPFILT_PROGRESS: `none` is silent, `bar` or `json` choose by hand; unset, stderr decides (a terminal gets the bar).
"""

import json
import math
import os
import sys
import time
from typing import IO, Any

from capfilt.errors import ConfigError

LOOK_S = 0.1  # a bar is redrawn at most this often
LINE_S = 2.0  # JSON lines come at most this often
MODES = ("bar", "json", "none")


class Progress:
    """One stage of known or unknown length, one at a time; use it as a context manager.

    Args:
        stage: what is being done, in a word or two.
        total: how many steps it takes, or None where nobody knows.
        start: steps done before (a resumed stage); they count for the percentage, not for the rate.
        stream: where to write; stderr unless told.

    Raises:
        ConfigError: CAPFILT_PROGRESS is none of bar, json, none.
    """

    def __init__(self, stage: str, total: int | None = None, *, start: int = 0, stream: IO[str] | None = None):
        self.stage = stage
        self.total = total
        self.step = start
        self._first = start
        self._stream = sys.stderr if stream is None else stream
        self._mode = _mode(self._stream)
        self._metrics: dict[str, float] = {}
        self._begun = self._shown = time.monotonic()
        self._wait = LOOK_S if self._mode == "bar" else LINE_S
        self._told: tuple[int, dict[str, float]] | None = None
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> "Progress":
        self._begun = self._shown = time.monotonic()
        if self._mode == "bar":
            self._bar = _rich_bar(self._stream)
            self._task = self._bar.add_task(self.stage, total=self.total, completed=self._first, rate="", metrics="")
            self._bar.start()
        elif self._mode == "json":
            self._show(self._begun)  # a sign of life before a first step that may take long
        return self

    def update(self, step: int, **metrics: float) -> None:
        """Says that `step` steps are done, counted from the stage's beginning, and the newest metrics.

        Costs a microsecond or so unless something is due. Numbers only: turn tensors into floats only when you
        would anyway, for that is where a device has to wait.
        """
        self.step = step
        self._metrics = metrics or self._metrics
        if self._mode == "none":
            return
        now = time.monotonic()
        if now - self._shown >= self._wait:
            self._show(now)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._mode != "none" and self._told != (self.step, self._metrics):
            self._show(time.monotonic())
        if self._bar is not None:
            self._bar.stop()

    def state(self, now: float) -> dict[str, Any]:
        """The stage as one flat record: step, total, seconds, steps per second, seconds left, metrics."""
        seconds = now - self._begun
        per_s = (self.step - self._first) / seconds if seconds > 0 else 0.0
        left = None if self.total is None or per_s == 0 else max(self.total - self.step, 0) / per_s
        return {
            "stage": self.stage,
            "step": self.step,
            "total": self.total,
            "seconds": round(seconds, 2),
            "per_s": _short(per_s),
            "eta_s": None if left is None else round(left, 1),
            **{name: _short(value) for name, value in self._metrics.items()},
        }

    def _show(self, now: float) -> None:
        self._shown, self._told = now, (self.step, self._metrics)
        state = self.state(now)
        if self._mode == "json":
            print(json.dumps(state, ensure_ascii=False), file=self._stream, flush=True)
        else:
            words = "  ".join(f"{name} {value:.4g}" for name, value in self._metrics.items())
            self._bar.update(self._task, completed=self.step, rate=f"{state['per_s']}/s", metrics=words)


def _mode(stream: IO[str]) -> str:
    asked = os.environ.get("CAPFILT_PROGRESS", "")
    if asked and asked not in MODES:
        raise ConfigError(f"CAPFILT_PROGRESS={asked!r} is not one of {', '.join(MODES)}")
    return asked or ("bar" if stream.isatty() else "json")


def _short(value: float) -> float | None:
    """Four digits; None (null in JSON) where the value is no finite number."""
    return float(f"{value:.4g}") if math.isfinite(value) else None


def _rich_bar(stream: IO[str]) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description:<14}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[metrics]}"),
        console=Console(file=stream),
        refresh_per_second=2,  # its own thread redraws only the clock; update() draws the rest
    )
