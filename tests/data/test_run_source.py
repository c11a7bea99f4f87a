"""A run's folder as a source: texts as decided, images from where they always were, nothing of other rows."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fsspec.implementations.local import LocalFileSystem
from pyarrow import parquet

from capfilt.data.fetch import Fetching
from capfilt.data.readers import Failure, Origin
from capfilt.data.refs import Ref
from capfilt.data.run_source import Mix, images_of, is_run, joined, read_run
from capfilt.errors import ConfigError, DataError
from capfilt.pair import Pair

SHA = "sha256"
ROW = {"licence": None, "meta": '{"truth": {"kind": "right", "match": true}, "n": 1}', "format": "PNG", "bytes": 3}
ROW |= {"width": 1, "height": 1, SHA: None}
LISTS = pa.list_(pa.string())
ROWS = pa.schema(
    [(n, pa.string()) for n in ("id", "licence", "meta", "ref", SHA, "format")]
    + [(n, pa.int64()) for n in ("bytes", "width", "height")]
    + [("texts", LISTS)]
)
VIEW = pa.schema(
    [(n, pa.string()) for n in ("id", "key", "source", "decision", "text", "web_text", "synthetic_text")]
    + [("texts", LISTS)]
)


def rows(folder: Path) -> tuple[list[dict], list[dict]]:
    """Kept with both texts, replaced, dropped, kept with the web text alone, kept but gone."""
    read, view = [], []
    for number, (decision, texts) in enumerate(
        [("keep", ["web 0", "syn 0"]), ("replace", ["syn 1"]), ("drop", []), ("keep", ["web 3"]), ("keep", ["web 4"])]
    ):
        path = folder / f"{number}.png"
        if number != 4:
            path.write_bytes(b"png%d" % number)
        name = f"{number:032x}"
        read.append(ROW | {"id": name, "texts": [f"web {number}"], "ref": Ref("file", str(path)).json()})
        told = {"id": name, "key": f"k{number}", "source": "s", "decision": decision, "texts": texts}
        view.append(
            told | {"text": (texts or [None])[0], "web_text": f"web {number}", "synthetic_text": f"syn {number}"}
        )
    return read, view


def write(run: Path, read: list[dict], view: list[dict], size: int = 2) -> None:
    (run / "rows").mkdir(parents=True)
    lines = []
    for shard, start in enumerate(range(0, len(read), size)):
        table = pa.Table.from_pylist(read[start : start + size], schema=ROWS)
        parquet.write_table(table, run / "rows" / f"{shard:05d}.parquet")
        lines.append(json.dumps({"stage": "rows", "shard": shard}))
    lines.append(json.dumps({"stage": "scores", "shard": 7}))
    (run / "manifest.jsonl").write_text("\n".join(lines) + '\n{"stage": "rows", "sha')  # a line that a kill cut off
    parquet.write_table(pa.Table.from_pylist(view, schema=VIEW), run / "decisions.parquet")


@pytest.fixture
def run(tmp_path) -> Path:
    write(tmp_path / "run", *rows(tmp_path))
    return tmp_path / "run"


def origin(run: Path) -> Origin:
    return Origin(LocalFileSystem(), str(run), True, (f"{run}/decisions.parquet",))


def items(run: Path, *how: Any) -> list[Pair | Failure]:
    return [item for _, item in read_run(origin(run), *how)]


def test_lazily_images_stay_where_they_are(run, tmp_path):
    pairs = items(run, None, True)
    assert [pair.image for pair in pairs] == [Ref("file", f"{tmp_path}/{number}.png") for number in (0, 1, 3, 4)]


def test_kept_rows_with_what_is_kept_of_them(run):
    *pairs, gone = items(run)
    assert all(isinstance(pair, Pair) for pair in pairs)
    assert [(pair.key, pair.image, pair.texts, pair.source) for pair in pairs] == [
        ("k0", b"png0", ("web 0", "syn 0"), "s"),
        ("k1", b"png1", ("syn 1",), "s"),
        ("k3", b"png3", ("web 3",), "s"),
    ]
    assert isinstance(gone, Failure) and (gone.key, gone.reason) == ("k4", "missing_file")


def test_truth_is_of_the_web_text_alone(run):
    both, synthetic, web, _ = items(run)
    assert both.meta == synthetic.meta == {"n": 1}
    assert web.meta == {"n": 1, "truth": {"kind": "right", "match": True}}


def test_a_mix_gives_one_text(run):
    for web, wanted in ((1.0, "web 0"), (0.0, "syn 0")):
        texts = [pair.texts for pair in items(run, Mix(web)) if isinstance(pair, Pair)]
        assert texts == [(wanted,), ("syn 1",), ("web 3",)]


def test_the_draw_is_the_rows_own_and_has_its_share():
    row = {"own": ["w", "v"], "texts": ["s", "w", "v"], "text": "s", "web_text": "w", "synthetic_text": "s"}
    drawn = [Mix(0.3).choose(row | {"id": f"{i:032x}"}) for i in range(2000)]
    assert drawn == [Mix(0.3).choose(row | {"id": f"{i:032x}"}) for i in range(2000)]
    assert abs(Counter(drawn)["w"] - 600) < 80 and set(drawn) == {"w", "s"}
    assert drawn != [Mix(0.3, seed=1).choose(row | {"id": f"{i:032x}"}) for i in range(2000)]
    person = {"own": ["w"], "texts": ["mine"], "text": "mine", "web_text": "w", "synthetic_text": "s", "id": "0"}
    assert Mix(1.0).choose(person) == "mine"
    assert Mix(1.0).choose(person | {"texts": [], "text": None}) is None


def test_how_a_mix_is_written():
    assert Mix.of("web=.3,syn=.7") == Mix.of("syn=.7, web=.3") == Mix.of("web=.3") == Mix.of("synthetic=.7") == Mix(0.3)
    assert Mix.of("web=0.5,syn=0.5,seed=3") == Mix(0.5, 3)
    for wrong, said in (
        ("web=.3,syn=.3", "add up to 1"),
        ("web=1.5", "lie in"),
        ("web=nan", "lie in"),
        ("web", "no name=number"),
        ("raw=.3", "shares of web and syn"),
        ("seed=1", "shares of web and syn"),
        ("", "no name=number"),
    ):
        with pytest.raises(ConfigError, match=said):
            Mix.of(wrong)


def test_decisions_of_other_rows_are_refused(tmp_path):
    read, view = rows(tmp_path)
    for number, other in enumerate((view[:-1], [*view, view[-1]], [view[1], view[0], *view[2:]])):
        write(tmp_path / f"run{number}", read, other)
        with pytest.raises(DataError, match="its decisions are of other rows"):
            list(joined(LocalFileSystem(), str(tmp_path / f"run{number}")))


def test_what_is_missing_or_damaged(run, tmp_path):
    assert is_run(LocalFileSystem(), str(run)) and not is_run(LocalFileSystem(), str(tmp_path))
    (run / "rows" / "00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="damaged"):
        list(joined(LocalFileSystem(), str(run)))
    (run / "rows" / "00001.parquet").unlink()
    with pytest.raises(DataError, match=r"00001\.parquet is missing"):
        list(joined(LocalFileSystem(), str(run)))


def test_the_net_is_as_near_as_it_was_to_the_run(run):
    fs = LocalFileSystem()
    assert images_of(fs, str(run))._fetching is None
    for fetching in (None, {"allow_hosts": ["a.org"], "limit_s": 2.0}):
        (run / "run.json").write_text(json.dumps({"config": {"fetching": fetching}}))
        found = images_of(fs, str(run))._fetching
        assert found == (Fetching(("a.org",), limit_s=2.0) if fetching else None)


def test_an_image_that_is_another_one_fails(run):
    table = parquet.read_table(run / "rows" / "00000.parquet").to_pylist()
    table[0][SHA] = "0" * 64
    parquet.write_table(pa.Table.from_pylist(table, schema=ROWS), run / "rows" / "00000.parquet")
    first = items(run)[0]
    assert isinstance(first, Failure) and first.reason == "changed"
