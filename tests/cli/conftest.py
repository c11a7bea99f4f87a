"""Stand-ins for the rooms below, so that a verb's own work is tested: what it hands down and what it prints."""

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from capfilt.cli import app


@dataclass(frozen=True)
class Settings:
    """A configuration as small as can be."""

    pairs: str | None = None
    human: str | None = None
    test: str | None = None
    seed: int = 0
    steps: int = 10


class Below:
    """Records what the verbs ask of the rooms below; `error` is raised by every one of them."""

    def __init__(self):
        self.asked: list[tuple[Any, ...]] = []
        self.error: BaseException | None = None
        self.lines: list[Any] = []
        self.scores: dict[str, Any] = {"retrieval": {"r1": 0.5, "r5": 0.75}, "images": 1000}
        self.results: dict[str, Any] = {"task": "blip-task", "rows": 9, "steps": 5}

    def note(self, *what: Any) -> None:
        self.asked.append(what)
        if self.error is not None:
            raise self.error

    def bootstrap(self, config: Any, out: Path, variants: tuple[str, ...], ranks: Any) -> str:
        self.note("bootstrap", config, out, variants)
        return "result"

    def evaluate_run(self, run: Path, pairs: str | None, extras: list[str]) -> dict[str, Any]:
        self.note("evaluate_run", run, pairs, extras)
        return self.scores

    def rewrite_report(self, run: Path) -> Path:
        self.note("rewrite_report", run)
        return run / "report.html"

    def run(self, name: str, out: Path, sets: list[str], *sources: str | None) -> None:
        self.note("run", name, out, sets, *sources)

    def tune(self, name: str, out: Path, sets: list[str], *sources: Any) -> dict[str, Any]:
        self.note("tune", name, out, sets, *sources)
        return self.results

    def bench(self, names: list[str], every: bool, rounds: int | None, out: Path) -> None:
        self.note("bench", names, every, rounds, out)

    def study(self, seeds: int, out: Path) -> None:
        self.note("study", seeds, out)

    def check(self, folder: Path, vocab: Path | None = None):
        self.note("check", folder, vocab)
        yield from self.lines


@pytest.fixture
def below(monkeypatch) -> Below:
    """The rooms below, replaced."""
    fake = Below()

    def demo(**chosen: Any) -> Settings:
        """Scenes that are drawn.

        More about it.
        """
        return Settings(**chosen)

    def task(blip: Any) -> None:
        """One task.

        More about it.
        """

    recipes = {"RECIPES": {"demo": demo}, "run": fake.run, "TASKS": {"blip-task": task}, "tune": fake.tune}
    recipes["bench"], recipes["study"] = SimpleNamespace(bench=fake.bench), SimpleNamespace(study=fake.study)
    rounds = SimpleNamespace(bootstrap=fake.bootstrap, rewrite_report=fake.rewrite_report)
    measure = SimpleNamespace(evaluate_run=fake.evaluate_run)
    rooms: dict[str, dict[str, Any]] = {
        "capfilt.recipes": recipes,
        "capfilt.bootstrap": {"rounds": rounds, "measure": measure},
        "capfilt.bootstrap.rounds": vars(rounds),
        "capfilt.bootstrap.measure": vars(measure),
        "capfilt.report.page": {"terminal_table": lambda report: f"[table of {report}]"},
        "capfilt.evaluate.golden": {"check": fake.check},
    }
    for name, content in rooms.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, leaf = name.rpartition(".")
        if parent in sys.modules:
            monkeypatch.setattr(sys.modules[parent], leaf, module, raising=False)
    return fake


@pytest.fixture
def capfilt(monkeypatch, capsys):
    """Runs the command line in this process: (exit code, stdout, stderr)."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["capfilt", *words])
        with pytest.raises(SystemExit) as left:
            app.main()
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    for name in ("CAPFILT_DEBUG", "CAPFILT_VOCAB"):
        monkeypatch.delenv(name, raising=False)
    return call
