"""`capfilt doctor`: a line a finding, the speed where it is asked for, one JSON object."""

import json

import pytest

from capfilt import runtime
from capfilt.recipes import doctor as recipe


@pytest.fixture(autouse=True)
def small_limit(monkeypatch):
    monkeypatch.setattr(runtime, "CPU_SIDE", 64)
    runtime.matmul_speed.cache_clear()
    yield
    runtime.matmul_speed.cache_clear()


def test_a_line_a_finding(capfilt, monkeypatch):
    monkeypatch.setattr(recipe, "speed", lambda *_: pytest.fail("not asked for"))
    code, out, err = capfilt("doctor")
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert [line[1] for line in lines] == [finding.name for finding in recipe.findings()]
    assert {line[0] for line in lines} <= {"ok", "missing", "note"}


def test_speed_is_told_and_as_json(capfilt):
    code, out, err = capfilt("doctor", "--speed", "--size", "tiny")
    assert (code, err) == (0, "")
    told = dict(line.split("  ", 1) for line in out.partition("\n\n")[2].splitlines())
    assert told["model"].strip() == "tiny, random weights, 32 px"
    assert told["precision"].strip().startswith("fp32: ")
    assert "% of the limit" in told["encode, 8 images"] and "images/s" in told["caption, beam 3"]
    code, out, err = capfilt("doctor", "--speed", "--size", "tiny", "--px", "16", "--json")
    found = json.loads(out)
    assert set(found) == {"findings", "speed"} and found["speed"]["px"] == 16


def test_what_does_not_exist(capfilt, tmp_path):
    assert capfilt("doctor", "--speed", "--size", "huge")[0] == 2
    code, _, err = capfilt("doctor", "--model", str(tmp_path / "gone"))
    assert code == 4 and err.count("\n") == 1
