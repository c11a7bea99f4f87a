"""A run's tables as its page tells them: counts that agree with the decisions, the right rows to look at."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from capfilt.clean import tally
from capfilt.clean.columns import FLAGS, ROWS, SCORES
from capfilt.clean.ledger import Ledger
from capfilt.clean.policies import Policy
from capfilt.clean.reviews import Review, append
from capfilt.clean.tally import First, bars_of, decided, marks
from capfilt.clean.telling import gather
from capfilt.clean.thumbnails import Thumbnails
from capfilt.clean.views import decide_run
from capfilt.data.refs import Ref
from capfilt.errors import DataError, ImageError
from capfilt.report.clean import write_clean_report

SHARD = 20
BY_RULE = {3: "too_small", 7: "duplicate", 11: "text_short"}  # every 16th row
FAILED = 5


def name_of(row: int) -> str:
    return np.random.default_rng([6, row]).bytes(16).hex()


def make_run(
    out: Path, rows: int = 100, texts: tuple[str, ...] = ("a red boat",), policy: Policy | None = None
) -> Path:
    """A run as `clean` leaves it: every 16 rows one fails, two are put out by rules and one has its text put out.

    Row 7 of each 16 has the image of row 6. Images lie beside the run, a JPEG with EXIF each.
    """
    out.mkdir(parents=True)
    draw, ledger, flags = np.random.default_rng(rows), Ledger(out), []
    photos = out.parent / f"{out.name}-photos"
    photos.mkdir()
    for shard, start in enumerate(range(0, rows, SHARD)):
        made, judged = [], []
        for row in range(start, min(rows, start + SHARD)):
            text, kind = texts[row % len(texts)], row % 16
            failed, rule = kind == FAILED, BY_RULE.get(kind)
            path = photos / f"{row}.jpg"
            exif = Image.Exif()
            exif[0x010E] = "secret place"
            Image.new("RGB", (90, 60), tuple(draw.integers(0, 255, 3).tolist())).save(path, exif=exif)
            made.append(
                {
                    "id": name_of(row), "key": f"{text} {row}", "source": f"shop {row % 3}", "texts": [f"{text} {row}"],
                    "text_flags": [], "meta": "{}", "ref": ref_of(path), "notes": [],
                    "failed": "truncated" if failed else None, "error": "stops early" if failed else None,
                }
            )  # fmt: skip
            flags.append(
                {
                    "id": name_of(row), "rule": rule, "told": f"says {rule}" if rule else None,
                    "group": name_of(row - kind + 6) if kind in (6, 7) else None,
                }
            )  # fmt: skip
            seen = not failed and (rule is None or rule.startswith("text_"))
            one = lambda low, high, seen=seen: [float(np.round(draw.uniform(low, high), 4))] if seen else []  # noqa: E731
            judged.append(
                {
                    "id": name_of(row), "synthetic": [f"written {row} {text}"] if seen else [], "logp": one(-1, 0),
                    "itm_web": one(0, 1), "itm_synthetic": one(0, 1),
                    "itc_web": one(-1, 1), "itc_synthetic": one(-1, 1),
                }
            )  # fmt: skip
        ledger.commit("rows", shard, pa.Table.from_pylist(made, schema=ROWS))
        ledger.commit("scores", shard, pa.Table.from_pylist(judged, schema=SCORES))
    parquet.write_table(pa.Table.from_pylist(flags, schema=FLAGS), out / "flags.parquet")
    (out / "run.json").write_text(json.dumps({"capfilt": "0", "config": {"source": "photos", "models": {"n": 1}}}))
    decide_run(out, policy or Policy())
    return out


def ref_of(path: Path) -> str:
    return Ref("file", str(path)).json()


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("telling") / "run1")


@pytest.fixture(scope="module")
def told(run):
    return gather(run)


def test_counts_are_those_of_the_decisions(run, told):
    counted = decided(run)["counts"]
    assert told.counts["in"] == counted["in"] == 100
    assert [told.counts[d] for d in ("keep", "replace", "drop", "failed")] == [
        counted[d] for d in ("kept", "replaced", "dropped", "failed")
    ]
    told.check()
    assert sum(sum(c.values()) for c in told.sources.values()) == sum(n for _, _, n in told.reasons) == 100


def test_the_funnel_narrows(told):
    rows = [n for _, n, _ in told.funnel]
    assert rows == sorted(rows, reverse=True) and rows[0] == 100 and rows[1] == 100 - 6
    assert rows[2] == rows[1] - 14 + 1 and rows[-1] == told.counts["keep"] + told.counts["replace"]


@pytest.mark.parametrize("name", ["blip", "best", "both", "keep-web"])
@pytest.mark.parametrize("score", ["itm", "itc"])
def test_every_other_bar_gives_what_deciding_would(tmp_path, name, score):
    run = make_run(tmp_path / "run", 60, policy=Policy(name, score=score))
    append(run, Review(name_of(0), "reject"), Review(name_of(1), "accept", "web", "a red boat 1"))
    decide_run(run, Policy(name, score=score))
    bars = gather(run).bars
    for threshold in (0.0, 0.07, 0.29, 0.58, 0.99, 1.0):
        counts = decide_run(run, Policy(name, threshold=threshold, score=score))
        at = round((threshold - bars.low) / bars.step)
        found = bars.counts(at, at)
        expected = {n: counts[w] for n, w in zip(found, ("kept", "replaced", "dropped", "failed"), strict=True)}
        assert found == expected, threshold


def test_galleries_hold_rows_of_their_kind_drawn_by_id(run, told):
    names = [g.name for g in told.galleries]
    assert {"keep-filter", "replace-filter", "drop-filter", "drop-too_small", "drop-duplicate", "worst"} <= {*names}
    for gallery in told.galleries:
        assert all(row.decision == gallery.decision for row in gallery.rows) and len(gallery.rows) <= 8
    table = parquet.read_table(run / "decisions.parquet").to_pylist()
    flags = {f["id"]: f["rule"] for f in parquet.read_table(run / "flags.parquet").to_pylist()}
    small = sorted(row["id"] for row in table if flags[row["id"]] == "too_small")[:8]
    assert [row.id for row in told.galleries[names.index("drop-too_small")].rows] == small
    worst = sorted((row["score_web"], row["id"]) for row in table if row["decision"] == "keep")[:8]
    assert [row.id for row in told.galleries[names.index("worst")].rows] == [row for _, row in worst]


def test_duplicates_stand_behind_the_one_that_stays(told):
    assert told.duplicate_groups == 6 and all(group.total == 2 for group in told.duplicates)
    for group in told.duplicates:
        first, second = (int(row.key.rpartition(" ")[2]) for row in group.rows)
        assert first % 16 == 6 and second == first + 1


def test_failures_are_told_with_their_reason_and_no_image(told):
    [(reason, count, rows)] = told.failures
    assert reason.startswith("truncated: ") and count == 6 and len(rows) == 5
    assert all(row.image is None for row in rows)


def test_blocks_of_any_size_tell_the_same(run, told, monkeypatch):
    monkeypatch.setattr(tally, "BLOCK", 7)
    assert gather(run) == told


def test_thumbnails_are_made_anew(run, told):
    shown = [row for gallery in told.galleries for row in gallery.rows]
    assert all(row.image for row in shown) and b"secret" not in b"".join(row.image for row in shown)
    with Thumbnails(Ledger(run)) as images:
        assert images.jpeg(0, name_of(0), 30)[:3] == b"\xff\xd8\xff"
        for place, row in ((0, name_of(1)), (FAILED, name_of(FAILED)), (100, name_of(100))):
            with pytest.raises(ImageError):
                images.jpeg(place, row, 30)


def test_an_image_that_went_away_is_said_to(tmp_path):
    run = make_run(tmp_path / "run", 20)
    for path in (tmp_path / "run-photos").iterdir():
        path.unlink()
    rows = [row for gallery in gather(run).galleries for row in gallery.rows]
    assert rows and all(row.image is None and "missing_file" in row.missing for row in rows)


def test_rows_that_came_since_are_noted(tmp_path):
    run = make_run(tmp_path / "run", 20)
    late = make_run(tmp_path / "late", 40)
    Ledger(run).commit("rows", 1, Ledger(late).table("rows", 1))
    assert "40 rows by now" in gather(run).notes[0]


def test_what_people_said_gives_a_curve_or_says_why_not(tmp_path):
    run = make_run(tmp_path / "run", 100)
    table = [row for row in parquet.read_table(run / "decisions.parquet").to_pylist() if row["score_web"] is not None]
    for row in table[:40]:
        right = row["score_web"] > 0.4
        append(run, Review(row["id"], "accept" if right else "reject", "web", row["web_text"]))
        if row is table[2]:
            assert "review more rows" in gather(run).notes[0]
    told = gather(run)
    assert told.curve.judged == 40 and told.curve.average == pytest.approx(1.0) and 0.4 < told.curve.best < 0.6
    assert not told.notes


def test_without_decisions_it_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match="capfilt decide"):
        gather(tmp_path)


def test_the_page_is_written_with_nothing_in_it_that_runs(tmp_path):
    run = make_run(tmp_path / "run", 60, texts=("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>'))
    page = write_clean_report(run / "report", gather(run)).read_text(encoding="utf-8")
    assert "<script>alert" not in page and "<img src=x" not in page and "&lt;script&gt;alert(1)" in page


def test_first_keeps_the_smallest_whatever_the_order():
    draw = np.random.default_rng(0)
    values, names = draw.integers(0, 5, 500).astype(float), draw.integers(0, 2**63, 500).astype(np.uint64)
    first = First(9)
    for part in np.array_split(draw.permutation(500), 7):
        first.add(values[part], names[part], part)
    assert first.places.tolist() == np.lexsort((names, values))[:9].tolist() and first.total == 500


def test_marks_are_the_ids_first_half():
    ids = [name_of(i) for i in range(50)]
    column = pa.chunked_array([pa.array(ids[:20]), pa.array(ids).slice(20)])
    assert marks(column).tolist() == [int(row[:16], 16) for row in ids]


def test_bars_by_group_are_no_one_bar():
    assert bars_of({"thresholds": {"": {"web": 0.5, "synthetic": 0.6}}}) == (0.5, 0.6)
    assert bars_of({"thresholds": {"a": {"web": 0.5, "synthetic": 0.5}, "b": {"web": 0.4, "synthetic": 0.4}}}) == (
        None,
        None,
    )
