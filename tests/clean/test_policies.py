"""Policies by hand on small tables, and what holds for any: nobody is lost, a higher bar keeps no more."""

import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capfilt.clean.columns import DECISIONS
from capfilt.clean.decide import joint_score
from capfilt.clean.policies import DECIDED, READ, READ_FIRST, Policy, bars, decide, web_scores
from capfilt.errors import CheckFailed, ConfigError

from .run_tables import NAN, flags, row_id, rows, scores

NAMES = ("blip", "replace-low", "best", "both", "keep-web")


def decided(policy, table, judged, broken=None):
    """key → the row's decision."""
    limits = bars(policy, [web_scores(policy, table, judged, broken)])
    found = decide(policy, limits, table, judged, broken)
    assert found.schema.equals(DECIDED) and found["id"].equals(table["id"])
    return {row["key"]: row for row in found.to_pylist()}


FOUR = rows(both=["w"], web=["w"], synthetic=["w"], none=["w"])
JUDGED = scores(
    both=([0.6], {"s": 0.9}), web=([0.5], {"s": 0.4}), synthetic=([0.4], {"s": 0.5}), none=([0.1], {"s": 0.2})
)


@pytest.mark.parametrize(
    ("policy", "both", "web", "synthetic"),
    [
        (Policy("blip"), ("keep", ["w", "s"]), ("keep", ["w"]), ("replace", ["s"])),  # at the bar is above it
        (Policy("best"), ("replace", ["s"]), ("keep", ["w"]), ("replace", ["s"])),
        (Policy("both"), ("keep", ["w", "s"]), ("keep", ["w", "s"]), ("keep", ["w", "s"])),
        (Policy("keep-web"), ("keep", ["w"]), ("keep", ["w"]), ("drop", [])),
        (Policy("replace-low", top=0.5), ("keep", ["w"]), ("keep", ["w"]), ("replace", ["s"])),
        (Policy("blip", margin=0.45), ("keep", ["w"]), ("keep", ["w"]), ("drop", [])),
    ],
)
def test_the_table_of_policies(policy, both, web, synthetic):
    found = decided(policy, FOUR, JUDGED)
    told = {key: (row["decision"], row["texts"]) for key, row in found.items()}
    assert told == {"both": both, "web": web, "synthetic": synthetic, "none": ("drop", [])}
    assert all(row["text"] == next(iter(row["texts"]), None) for row in found.values())


def test_replace_low_holds_synthetic_texts_to_its_own_bar():
    judged = scores(both=([0.9], {"s": 0.9}), web=([0.2], {"s": 0.6}), synthetic=([0.2], {"s": 0.4}), none=([0.1], {}))
    found = decided(Policy("replace-low", top=0.25), FOUR, judged)
    assert [row["decision"] for row in found.values()] == ["keep", "replace", "drop", "drop"]
    assert "web text 0.200 (< 0.900); the filter gave the synthetic text 0.600 (≥ 0.500)" in found["web"]["reason"]
    assert Policy("replace-low").top == 0.3


def test_of_several_texts_the_best_stands_and_all_that_pass_stay():
    table = rows(a=["low", "high", "mid"], b=["only"])
    judged = scores(a=([0.2, 0.9, 0.7], {"x": 0.6, "y": 0.8}), b=([0.5], {"z": 0.1}))
    found = decided(Policy(), table, judged)
    assert found["a"]["texts"] == ["high", "mid", "y"] and found["a"]["web_text"] == "high"
    assert found["a"]["synthetic_text"] == "y" and found["a"]["itm_synthetic"] == pytest.approx(0.8)
    assert found["a"]["itc_web"] == pytest.approx(0.45)
    assert decided(Policy("best"), table, judged)["a"]["texts"] == ["high"]
    assert found["b"]["texts"] == ["only"]


def test_a_row_without_web_text_is_replaced_or_dropped():
    table, judged = rows(a=[], b=[]), scores(a=([], {"s": 0.9}), b=([], {"s": 0.1}))
    for name in NAMES:
        found = decided(Policy(name), table, judged)
        assert found["a"]["decision"] == ("drop" if name == "keep-web" else "replace")
        assert found["b"]["decision"] == "drop" and found["b"]["reason"].startswith("there is no web text")


def test_empty_and_unscored_texts_pass_no_bar():
    table = rows(a=[" "], b=["w"], c=["bad", "fine"])
    judged = scores(a=([1.0], {"": 1.0}), b=([NAN], {"s": NAN}), c=([NAN, 0.6], {}))
    found = decided(Policy(threshold=-1.0), table, judged)
    assert [found[key]["decision"] for key in "abc"] == ["drop", "drop", "keep"]
    assert found["a"]["reason"] == "the web text is empty; the synthetic text is empty"
    assert found["b"]["reason"].startswith("the filter gave the web text no score")
    assert found["b"]["itm_web"] is None and found["b"]["score_web"] is None
    assert found["c"]["texts"] == ["fine"] and found["c"]["reason"].endswith("there is no synthetic text")


def test_the_reason_says_what_the_filter_thought():
    judged = scores(both=([0.213], {"s": 0.49996}), web=([0.3], {}), synthetic=([0.7], {}), none=([1.0], {"s": 0.0}))
    found = decided(Policy(), FOUR, judged)
    assert found["both"]["reason"] == (
        "the filter gave the web text 0.213 (< 0.500); the filter gave the synthetic text 0.499 (< 0.500)"
    )
    assert "1.000 (≥ 0.500)" in found["none"]["reason"] and "synthetic text 0.000" in found["none"]["reason"]
    assert decided(Policy("both"), FOUR, JUDGED)["web"]["reason"].endswith("; the other stays beside it")
    assert decided(Policy("best"), FOUR, JUDGED)["both"]["reason"].endswith("; the better one stays")
    assert "synthetic" not in decided(Policy("keep-web"), FOUR, JUDGED)["both"]["reason"]
    below = scores(**{key: ([-0.1], {}) for key in ("both", "web", "synthetic", "none")})
    assert "-0.050 (≥ -0.100)" in decided(Policy(score="itc", threshold=-0.1), FOUR, below)["both"]["reason"]


def test_failures_rules_and_what_is_not_scored():
    table = rows(
        a={"texts": ["w"], "failed": "truncated", "error": "PNG of 7 bytes"},
        b=["w"],
        c=["w"],
        d=["w"],
        e=["w"],
        f=["w"],
    )
    judged = scores(b=([0.9], {"s": 0.9}), c=([0.9], {"s": 0.9}), d=([], {}), f=([0.9], {"s": 0.9}))
    late = judged.to_pylist()
    late[2] |= {"failed": "timeout", "error": "60 s"}
    broken = flags(table, a="blank", b="blank", c="text_short")
    found = decided(Policy(), table, pa.Table.from_pylist(late, judged.schema), broken)
    told = {key: (row["decision"], row["reason"], row["kind"]) for key, row in found.items()}
    assert told["a"] == ("failed", "truncated: PNG of 7 bytes", "truncated")
    assert told["b"] == ("drop", "blank: blank by hand", "blank")
    assert told["c"][0] == "replace" and found["c"]["texts"] == ["s"]
    assert told["c"][1].startswith(
        "the web text is out (text_short: text_short by hand); the filter gave the synthetic"
    )
    assert told["d"] == ("failed", "timeout: 60 s", "timeout")
    assert told["e"][0] == "failed" and told["e"][1].startswith("not_scored: ") and found["e"]["web_text"] == "w"
    assert told["f"][0] == "keep"


def test_a_text_that_is_out_does_not_move_the_bar():
    table, policy = rows(a=["w"], b=["w"], c=["w"], d=["w"]), Policy(top=0.5)
    judged = scores(a=([0.9], {}), b=([0.8], {}), c=([0.4], {}), d=([0.3], {}))
    assert bars(policy, [web_scores(policy, table, judged)])[""] == pytest.approx(0.8)
    broken = flags(table, a="text_short", b="duplicate")
    assert bars(policy, [web_scores(policy, table, judged, broken)])[""] == pytest.approx(0.4)


def test_no_rows_at_all():
    for name in NAMES:
        assert decided(Policy(name), rows(), scores()) == {}
    assert decided(Policy(top=0.3, by="source"), rows(), scores()) == {}


def test_groups_by_columns_and_by_meta():
    table = rows(
        a={"texts": ["w"], "licence": "cc0", "meta": '{"shop": 1}'},
        b={"texts": ["w"], "licence": "cc0", "meta": '{"shop": 2}'},
        c={"texts": ["w"], "licence": None, "meta": '{"shop": 2}'},
    )
    judged = scores(a=([0.2], {}), b=([0.9], {}), c=([0.1], {}))
    for by, kept in (("source", "b"), ("licence", "bc"), ("shop", "ab")):
        found = decided(Policy(top=0.3, by=by), table, judged)
        assert "".join(key for key, row in found.items() if row["decision"] == "keep") == kept
    with pytest.raises(ConfigError, match="no row has a value"):
        decided(Policy(top=0.3, by="nothing"), table, judged)


def test_the_joint_score_is_that_of_single_rows():
    policy = Policy(score="joint", weight=20.0)
    itm, itc = np.array([0.0, 0.3, 1.0], np.float32), np.array([0.4, 0.55, -1.0], np.float32)
    alone = [joint_score(float(a), float(b), 20.0) for a, b in zip(itm, itc, strict=True)]
    assert policy.scored(itm, itc) == pytest.approx(alone, abs=1e-6)
    assert np.isnan(policy.scored(itm[:1], np.array([np.nan], np.float32)))


def test_bars_are_met_in_the_scores_own_precision():
    found = decided(Policy(threshold=0.7), rows(a=["w"]), scores(a=([0.7], {})))
    assert found["a"]["decision"] == "keep"  # the nearest float32 lies below .7


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "worst"},
        {"score": "clip"},
        {"top": 0.0},
        {"top": 1.1},
        {"by": "source"},
        {"weight": 1.0},
        {"score": "joint"},
        {"threshold": NAN},
    ],
)
def test_policies_that_cannot_be(settings):
    with pytest.raises(ConfigError, match="policy"):
        Policy(**settings)


def test_tables_that_do_not_fit():
    broken = flags(FOUR)
    with pytest.raises(CheckFailed, match="same order"):
        decide(Policy(), {}, FOUR, JUDGED, broken.slice(1))
    with pytest.raises(CheckFailed, match="2 scores of 1 texts"):
        decide(Policy(), {}, FOUR, scores(web=([0.1, 0.2], {})))


def test_columns_that_are_named_are_enough():
    policy = Policy(top=0.5)
    first = [table.select(READ_FIRST[name]) for name, table in (("rows", FOUR), ("scores", JUDGED))]
    read = [table.select(READ[name]) for name, table in (("rows", FOUR), ("scores", JUDGED))]
    limits = bars(policy, [web_scores(policy, *first)])
    assert decide(policy, limits, *read).select(DECISIONS.names).num_rows == 4


# ---- what holds for any -------------------------------------------------------------------------------------------

SCORE = st.floats(0, 1, width=32) | st.just(NAN)
POLICY = st.builds(
    Policy,
    name=st.sampled_from(NAMES),
    threshold=st.floats(0, 1),
    top=st.none() | st.floats(0.01, 1),
    score=st.sampled_from(["itm", "itc"]),
    margin=st.floats(0, 0.5),
)


@st.composite
def collections(draw):
    """Rows of any fate, their scores as far as there are any, and their flags."""
    table, judged, broken = {}, {}, {}
    for i in range(draw(st.integers(0, 12))):
        texts = draw(st.lists(st.sampled_from(["a", "b", " "]), max_size=3))
        failed = draw(st.sampled_from([None, None, None, "truncated"]))
        meta = json.dumps({"shop": draw(st.integers(0, 1))})
        table[str(i)] = {"texts": texts, "failed": failed, "meta": meta, "source": draw(st.sampled_from("st"))}
        if draw(st.integers(0, 5)):
            written = draw(st.dictionaries(st.sampled_from(["x", "y", ""]), SCORE, max_size=2))
            judged[str(i)] = ([draw(SCORE) for _ in texts], written)
        if (rule := draw(st.sampled_from([None, None, "blank", "text_short"]))) is not None:
            broken[str(i)] = rule
    made = rows(**table)
    return made, scores(**judged), flags(made, **broken)


@settings(max_examples=60, deadline=None)  # a busy machine is no fault
@given(collections(), POLICY)
def test_every_row_has_one_decision_and_a_reason(collection, policy):
    table, judged, broken = collection
    found = decided(policy, table, judged, broken).values()
    counts = Counter(row["decision"] for row in found)
    assert counts.total() == len(table) and set(counts) <= {"keep", "replace", "drop", "failed"}
    for row, given_row, rule in zip(found, table.to_pylist(), broken["rule"].to_pylist(), strict=True):
        assert row["reason"] and row["kind"]
        stays = row["decision"] in ("keep", "replace")
        assert bool(row["texts"]) == stays and row["text"] == (row["texts"][0] if stays else None)
        assert row["decision"] != "keep" or (row["text"] == row["web_text"] and row["text"] in given_row["texts"])
        assert row["decision"] != "replace" or row["texts"] == [row["synthetic_text"]]
        assert not (given_row["failed"] and row["decision"] != "failed")
        assert not (rule and row["decision"] == "keep") and all(text.strip() for text in row["texts"])


@settings(max_examples=60, deadline=None)  # a busy machine is no fault
@given(collections(), st.sampled_from(["blip", "best", "both", "keep-web"]), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_bar_keeps_no_more_web_texts(collection, name, one, other):
    kept = []
    for threshold in sorted((one, other)):
        found = decided(Policy(name, threshold=threshold), *collection)
        kept.append({key for key, row in found.items() if row["decision"] == "keep"})
    assert kept[1] <= kept[0]


@settings(max_examples=60, deadline=None)  # a busy machine is no fault
@given(st.lists(st.tuples(st.sampled_from("st"), st.integers(0, 10**6)), unique_by=lambda x: x[1]), st.floats(0.01, 1))
def test_a_share_of_each_group_stays(found, top):
    """Scores without ties, over several tables: as many pass as the share comes to, rounded up."""
    table = rows(**{str(i): {"texts": ["w"], "source": source} for i, (source, _) in enumerate(found)})
    judged = scores(**{str(i): ([score / 10**6], {}) for i, (_, score) in enumerate(found)})
    policy, parts = Policy("keep-web", top=top, by="source"), [slice(0, 3), slice(3, None)]
    limits = bars(policy, [web_scores(policy, table[part], judged) for part in parts])
    decisions = pa.concat_tables([decide(policy, limits, table[part], judged) for part in parts])
    for source in "st":
        of = [i for i, (name, _) in enumerate(found) if name == source]
        best = sorted(of, key=lambda i: -found[i][1])[: int(np.ceil(round(top * len(of), 9)))]
        kept = {row["id"] for row in decisions.to_pylist() if row["source"] == source and row["decision"] == "keep"}
        assert kept == {row_id(i) for i in best}
