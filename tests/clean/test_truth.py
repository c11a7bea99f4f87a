"""Numbers about texts of known truth against counts by hand, and against the row-wise way of `evaluate.cleaning`."""

import json

import numpy as np
import pyarrow as pa
import pytest

from capfilt.clean import tally
from capfilt.clean.columns import NUMBERS
from capfilt.clean.ledger import Ledger
from capfilt.clean.policies import Policy
from capfilt.clean.reviews import Review, append
from capfilt.clean.truth import auc, truth_of
from capfilt.clean.views import decide_run
from capfilt.errors import DataError
from capfilt.evaluate.cleaning import roc_auc

from .run_tables import flags, row_id, rows, run, scores


def meta(kind, match):
    return json.dumps({"split": "a", "truth": {"kind": kind, "match": match}})


def row(text, kind, match, **more):
    return {"texts": [text], "meta": meta(kind, match), **more}


@pytest.fixture
def out(tmp_path):
    """Two shards: of five true texts three are kept, of three wrong ones one; two rows of unknown truth."""
    first = rows(
        a=row("a dog", "clean", True),
        b=row("a cat", "clean", True),
        c=row("img_1.jpg", "junk_name", False),
        d={"texts": ["a cow"], "meta": "{}"},
        e=row("a hen", "swap", False),
    )
    second = rows(
        f=row("a pig", "wrapped", True),
        g=row("a fox", "clean", True),
        h=row("a bee", "swap", False, failed="truncated", error="stops early"),
        i=row("a fly", "clean", True),
        j={"texts": ["a bug"], "meta": json.dumps({"truth": "of another meaning"})},
    )
    judged = (
        scores(a=([0.9], {}), b=([0.4], {}), c=([0.1], {}), d=([0.9], {}), e=([0.6], {})),
        scores(f=([0.8], {}), g=([0.7], {}), h=([], {}), i=([], {}), j=([0.9], {})),
    )
    both = flags(first), flags(second, i="too_small")
    folder = run(tmp_path / "run", (first, judged[0]), (second, judged[1]), broken=pa.concat_tables(both))
    decide_run(folder, Policy())
    return folder


def test_counts_and_shares(out):
    truth = truth_of(out)
    assert [(k.kind, k.fits, k.texts, k.ruled, k.kept) for k in truth.kinds] == [
        ("clean", True, 4, 1, 2),
        ("wrapped", True, 1, 0, 1),
        ("swap", False, 2, 0, 1),
        ("junk_name", False, 1, 0, 0),
    ]
    assert truth.counts == (8, 4)
    assert (truth.before, truth.precision, truth.recall) == (5 / 8, 3 / 4, 3 / 5)


def test_heads_are_measured_on_what_was_judged(out):
    truth = truth_of(out)
    # Right texts .9 .4 .8 .7, wrong ones .1 .6: seven of eight pairs are in order, by the cosine, its half, too.
    assert truth.auc == {"ITM": 7 / 8, "ITC": 7 / 8, "both": 7 / 8} and truth.weight == 1.0
    for curve in truth.curves.values():
        assert curve[0] == (0, 0) and curve[-1] == (1, 1) and curve == sorted(curve)
        assert (0.0, 0.75) in curve and (0.5, 0.75) in curve and (0.5, 1.0) in curve


def test_the_weight_is_the_one_that_tells_best(tmp_path):
    first = rows(
        a=row("a dog", "clean", True),
        b=row("a cat", "clean", True),
        c=row("x", "junk", False),
        d=row("y", "junk", False),
    )
    judged = scores(a=([0.5], {}), b=([0.51], {}), c=([0.6], {}), d=([0.4], {}))
    at = judged.schema.get_field_index("itc_web")
    judged = judged.set_column(at, judged.schema.field(at), pa.array([[0.9], [0.9], [0.8], [0.1]], NUMBERS))
    folder = run(tmp_path / "run", (first, judged), broken=flags(first))
    decide_run(folder, Policy())
    truth = truth_of(folder)
    assert truth.auc == {"ITM": 0.5, "ITC": 1.0, "both": 1.0} and truth.weight == 5.0


def test_people_have_their_word(out):
    append(out, Review(row_id("e"), "reject"))
    decide_run(out, Policy())
    assert truth_of(out).precision == 1


def test_a_view_of_fewer_rows_is_measured_on_those(out):
    """A run goes on while its last decisions stand: rows are found by their ids."""
    more = rows(k=row("a yak", "clean", True))
    Ledger(out).commit("rows", 2, more)
    assert truth_of(out).counts == (8, 4)


def test_blocks_do_not_matter(out, monkeypatch):
    whole = truth_of(out)
    monkeypatch.setattr(tally, "BLOCK", 3)
    assert truth_of(out) == whole


def test_nothing_is_known(tmp_path):
    table = rows(a=["a dog"], b={"texts": ["a cat"], "meta": '{"truth": {"kind": "clean"}}'})
    folder = run(tmp_path / "run", (table, scores(a=([0.9], {}), b=([0.9], {}))), broken=flags(table))
    decide_run(folder, Policy())
    assert truth_of(folder) is None


def test_texts_all_alike_have_no_curve(tmp_path):
    table = rows(a=row("a dog", "clean", True))
    folder = run(tmp_path / "run", (table, scores(a=([0.2], {}))), broken=flags(table))
    decide_run(folder, Policy())
    truth = truth_of(folder)
    assert (truth.before, truth.precision, truth.recall) == (1, None, 0)
    assert (truth.auc, truth.weight, truth.curves) == ({}, None, {})


def test_nothing_was_decided(tmp_path):
    table = rows(a=row("a dog", "clean", True))
    with pytest.raises(DataError, match="nothing was decided"):
        truth_of(run(tmp_path / "run", (table, scores(a=([0.2], {})))))


@pytest.mark.parametrize("digits", [1, 6])
def test_auc_is_that_of_the_evaluation(digits):
    draw = np.random.default_rng(digits)
    values, right = draw.random(500).round(digits), draw.random(500) < 0.3
    assert auc(values, right) == pytest.approx(roc_auc(values, right), abs=1e-12)
    assert auc(values, np.ones(500, bool)) is None
