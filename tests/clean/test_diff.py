"""Two runs side by side."""

import json

import pytest

from capfilt.clean.diff import diff, table
from capfilt.clean.policies import Policy
from capfilt.clean.views import decide_run
from capfilt.errors import DataError

from .run_tables import row_id, rows, run, scores


def made(out, policy=None, **judged):
    out.mkdir()
    run(out, (rows(**{key: ["w"] for key in judged}), scores(**judged)))
    decide_run(out, policy or Policy())
    return out


def test_what_changed(tmp_path):
    one = made(tmp_path / "1", a=([0.9], {"s": 0.1}), b=([0.8], {"s": 0.1}), c=([0.1], {"s": 0.1}), x=([0.5], {}))
    two = made(
        tmp_path / "2",
        y=([0.5], {}), z=([0.5], {}), c=([0.1], {"other": 0.3}), b=([0.2], {"s": 0.7}), a=([0.9], {"s": 0.1}),
    )  # fmt: skip
    found = diff(one, two)
    assert (found["rows"], found["only_before"], found["only_after"], found["changed"]) == (3, 1, 2, 1)
    assert found["decisions"]["keep"] == {"keep": 1, "replace": 1, "drop": 0, "failed": 0}
    assert found["decisions"]["drop"] == {"keep": 0, "replace": 0, "drop": 1, "failed": 0}
    assert found["texts"] == {"text": 1, "web_text": 0, "synthetic_text": 1}
    assert found["scores"]["itm_web"] == {"rows": 3, "shift": pytest.approx(0.2)}
    assert found["scores"]["itm_synthetic"] == {"rows": 3, "shift": pytest.approx(0.8 / 3)}
    change = {"before": {"decision": "keep", "text": "w"}, "after": {"decision": "replace", "text": "s"}}
    assert found["examples"] == [{"id": row_id("b"), "key": "b", **change}]
    assert json.loads(json.dumps(found)) == found
    told = table(found)
    assert "3 rows in both, 1 only before, 2 only after" in told and "'b': keep 'w' → replace 's'" in told
    assert "itm_web 0.2000" in told


def test_nothing_changed_and_nothing_in_common(tmp_path):
    one = made(tmp_path / "1", a=([0.9], {"s": 0.1}))
    same = diff(one, one)
    assert same["changed"] == 0 and same["examples"] == [] and same["scores"]["itc_web"]["shift"] == 0.0
    apart = diff(one, made(tmp_path / "2", b=([0.9], {})))
    assert (apart["rows"], apart["only_before"], apart["only_after"]) == (0, 1, 1)
    assert apart["scores"]["itm_web"] == {"rows": 0, "shift": None} and "mean shift" not in table(apart)


def test_another_policy_on_the_same_scores(tmp_path):
    judged = {str(i): ([i / 20], {"s": 0.9}) for i in range(20)}
    found = diff(made(tmp_path / "1", **judged), made(tmp_path / "2", Policy("keep-web"), **judged))
    assert found["changed"] == 10 == found["decisions"]["replace"]["drop"]
    assert found["scores"]["itm_web"]["shift"] == 0.0
    ids = [example["id"] for example in found["examples"]]
    assert ids == sorted(ids) and len(ids) == 10


def test_nothing_decided(tmp_path):
    with pytest.raises(DataError, match="decide first"):
        diff(tmp_path, tmp_path)
