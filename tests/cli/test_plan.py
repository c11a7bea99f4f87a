"""`capfilt plan`: a line a figure, one JSON object, and settings that reach the plan."""

import json
import sys
from types import ModuleType
from typing import Any

import pytest

from capfilt.recipes.plan import Plan

MADE = Plan("photos", 2_000_000, "estimated", 100, 90, 0.97, {"truncated": 2, "url": 1}, 0.07,
            {"names": 50000.0, "look": 110.0, "judge": 0.9}, 600.0, 4, 150.0, 3100, 812.0, 2.0, 1200.0)  # fmt: skip


@pytest.fixture
def asked(monkeypatch) -> list[Any]:
    """What reaches the recipe."""
    calls: list[Any] = []
    module = ModuleType("capfilt.recipes.plan")
    module.plan = lambda *given: calls.append(given) or MADE  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "capfilt.recipes.plan", module)
    return calls


def test_a_line_a_figure(capfilt, asked, tmp_path):
    words = ("--captioner", "a/b", "--filter", "c/d", "--sample", "50", "--devices", "4", "--price", "2", "--seed", "7")
    code, out, err = capfilt("plan", str(tmp_path), *words)
    assert (code, err) == (0, "")
    told = {line[:12].strip(): line[13:] for line in out.splitlines()}
    assert told["rows"] == "2,000,000, estimated from some of the files"
    assert told["readable"] == "97% of 100 sampled; not: truncated 2, url 1"
    assert (
        told["judge"] == "0.9 rows/s"
        and told["names"] == "50,000 rows/s"
        and told["time"] == "600.0 hours on this machine, 150.0 hours on 4 like it"
    )
    assert told["memory"] == "3,100 MiB" and told["disk"] == "812 MiB" and told["cost"] == "1,200.00 at 2 an hour"
    (config, *how) = asked[0]
    assert (config.source, config.models.captioner, config.models.filter) == (str(tmp_path), "a/b", "c/d")
    assert config.models.seed == 7 and how == [50, 4, 2.0]


def test_one_object(capfilt, asked):
    code, out, _ = capfilt("plan", "photos", "--captioner", "a/b", "--filter", "c/d", "--json")
    assert code == 0 and json.loads(out)["reasons"] == {"truncated": 2, "url": 1} and asked[0][1:] == (100, 1, None)


def test_what_is_not_there(capfilt, tmp_path):
    code, _, err = capfilt("plan", str(tmp_path / "gone"), "--captioner", "a/b", "--filter", "c/d")
    assert code == 4 and err.count("\n") == 1 and "gone" in err
