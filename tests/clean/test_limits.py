"""Rows go by what scorers said, and only where a policy asks."""

import json

import pyarrow as pa
import pytest

from capfilt.clean.limits import beyond, limit_of
from capfilt.clean.policies import Policy
from capfilt.errors import ConfigError

from .run_tables import rows, scores
from .test_policies import decided

SAID = pa.array([json.dumps({"watermark": 0.9, "beauty": 2.5}), json.dumps({"watermark": 0.8, "beauty": 7.0}), None])


def test_the_first_limit_that_is_passed_is_told():
    kinds, told = beyond(("watermark>0.8", "beauty<3"), SAID)
    assert kinds.to_pylist() == ["watermark", None, None] and told.to_pylist() == ["0.9 > 0.8", None, None]
    assert beyond(("beauty < 3",), SAID)[1].to_pylist() == ["2.5 < 3", None, None]
    assert beyond((), SAID)[0].null_count == 3


@pytest.mark.parametrize("text", ["watermark", "watermark>", "watermark>=0.8", ">1", "a b>1", "watermark>high"])
def test_what_is_no_limit_is_refused(text):
    with pytest.raises(ConfigError, match="scorer>number"):
        limit_of(text)
    with pytest.raises(ConfigError, match="scorer>number"):
        Policy(drop=(text,))


def test_a_scorer_that_the_run_did_not_have():
    with pytest.raises(ConfigError, match="scorers of this run are watermark, beauty"):
        beyond(("safety>0.5",), SAID)


def test_a_policy_drops_by_them():
    table, judged = rows(a=["w"], b=["w"]), scores(a=([0.9], {"s": 0.9}), b=([0.9], {"s": 0.9}))
    said = pa.array([json.dumps({"watermark": 0.9}), json.dumps({"watermark": 0.1})])
    judged = judged.set_column(judged.schema.get_field_index("extra"), "extra", said)
    found = decided(Policy(drop=("watermark>0.8",)), table, judged)
    assert (found["a"]["decision"], found["a"]["reason"], found["a"]["texts"]) == ("drop", "watermark: 0.9 > 0.8", [])
    assert found["b"]["decision"] == "keep"
    assert decided(Policy(), table, judged)["a"]["decision"] == "keep"
