"""A row that lost more than 15% of its committed ratio is named; the committed files agree with each other."""

import pytest

from capfilt.files import read_json
from capfilt.recipes.bench.baseline import fallen, kind, taken_over

MACHINE = {"isa": ["avx2", "avx512f", "avx512_bf16", "avx512_vnni"], "threads": 2}
KIND = "avx512_bf16+avx512_vnni, 2 threads"


def results(**ratios: float) -> dict:
    return {"machine": MACHINE, "rows": {name: {"ratio": ratio, "goal": 1.0} for name, ratio in ratios.items()}}


def test_kinds():
    assert kind(MACHINE) == KIND
    assert kind({"isa": ["avx512_bf16", "amx_bf16", "amx_int8"], "threads": 4}) == (
        "avx512_bf16+amx_bf16+amx_int8, 4 threads"
    )
    assert kind({"isa": [], "threads": 1}) == "plain, 1 threads"


def test_a_fallen_row_is_named():
    baseline = {KIND: {"a": 2.0, "b": 2.0, "gone": 9.0}, "plain, 2 threads": {"c": 9.0}}
    (line,) = fallen(results(a=1.69, b=1.71, c=1.0), baseline)
    assert line.startswith("a: 1.69x its peer, 16% below the 2.00x")


def test_of_an_unknown_kind_nothing_is_known():
    assert fallen(results(a=0.1), {}) == []


def test_what_was_measured_becomes_the_baseline():
    before = {KIND: {"a": 2.0, "old": 3.0}, "plain, 2 threads": {"a": 1.0}}
    measured = results(a=2.5)
    measured["rows"]["extra"] = {"ratio": 9.0, "goal": None}
    assert taken_over(measured, before) == {KIND: {"a": 2.5, "old": 3.0}, "plain, 2 threads": {"a": 1.0}}


def test_the_committed_results_have_not_fallen(root):
    files = [root / "bench" / name for name in ("results.json", "baseline.json")]
    if not all(file.exists() for file in files):
        pytest.skip("nothing measured yet")
    assert fallen(*map(read_json, files)) == []
