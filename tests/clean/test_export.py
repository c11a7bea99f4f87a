"""A run as tables, shards and folders: what is written of which row, byte for byte, and again after a stop."""

import csv
import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from capfilt.clean.columns import DECISIONS, ROWS
from capfilt.clean.export import FOLDERS, Choice, export_folder, export_table, shards, tables
from capfilt.clean.export.folders import _names
from capfilt.clean.export.places import MANIFEST, Place
from capfilt.clean.ledger import Ledger
from capfilt.data.refs import Ref
from capfilt.data.run_source import Mix
from capfilt.data.sources import open_source
from capfilt.errors import BusyError, CapfiltError, ConfigError, DataError, NothingToRead
from capfilt.files import lease

CONTRACT = {"id", "source", "web_text", "synthetic_text", "text", "decision", "reason"}
CONTRACT |= {"itm_web", "itm_synthetic", "itc_web", "itc_synthetic"}
COUNT = 23


def picture(number: int, form: str) -> bytes:
    noise = np.random.default_rng(number).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    out, place = io.BytesIO(), Image.Exif()
    place.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 29.0)})
    Image.fromarray(noise).save(out, form, exif=place)
    return out.getvalue()


def row(number: int, folder: Path) -> tuple[dict, dict]:
    """One row and its decision: by its number kept with both texts, replaced, dropped or failed."""
    form, key = ("JPEG", "PNG", "WEBP")[number % 3], f"{number % 2}/photo {number}.{('jpg', 'png', 'webp')[number % 3]}"
    data = picture(number, form)
    path = folder / f"stored-{number}"
    path.write_bytes(data)
    name = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
    decision = ("keep", "keep", "replace", "drop", "failed")[number % 5]
    web, synthetic = f"web {number} \u2028 =x", f"=synthetic {number}"
    texts = {"keep": [web, synthetic], "replace": [synthetic]}.get(decision, [])
    known = {"id": name, "key": key, "source": f"part-{number % 2}"}
    of_row = known | {
        "texts": [web],
        "licence": "cc0",
        "meta": '{"n": 1, "x": NaN}',
        "ref": Ref("file", str(path)).json(),
    }
    of_row |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "format": form, "width": 30}
    made = known | {"decision": decision, "reason": "why", "texts": texts, "text": texts[0] if texts else None}
    if decision != "failed":
        made |= {"web_text": web, "synthetic_text": synthetic, "itm_web": 0.213, "itc_web": -0.1}
        made |= {"itm_synthetic": float("nan")}
    return of_row, made


@pytest.fixture
def run(tmp_path) -> Path:
    """23 rows in shards of 5."""
    (tmp_path / "stored").mkdir()
    both = [row(number, tmp_path / "stored") for number in range(COUNT)]
    out = tmp_path / "run"
    ledger = Ledger(out)
    for shard, start in enumerate(range(0, COUNT, 5)):
        ledger.commit("rows", shard, pa.Table.from_pylist([one for one, _ in both[start : start + 5]], schema=ROWS))
    parquet.write_table(pa.Table.from_pylist([made for _, made in both], DECISIONS), out / "decisions.parquet")
    return out


@pytest.fixture
def rows(tmp_path, run) -> list[tuple[dict, dict]]:
    return [row(number, tmp_path / "stored") for number in range(COUNT)]


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


# ---- tables -----------------------------------------------------------------------------------------------------


def test_jsonl_has_every_row_by_id(run, rows, tmp_path):
    out = tmp_path / "out.jsonl"
    assert export_table(run, str(out), "jsonl", Choice()) == COUNT
    text = out.read_text(encoding="utf-8")
    told = [json.loads(line) for line in text.splitlines()]  # the text's own U+2028 parts no line
    assert [row["id"] for row in told] == sorted(made["id"] for _, made in rows)
    assert all(set(row) >= CONTRACT for row in told) and "NaN" not in text
    by_id = {made["id"]: made for _, made in rows}
    for row in told:
        made = by_id[row["id"]]
        assert {name: row[name] for name in CONTRACT} == {name: _plain(made.get(name)) for name in CONTRACT}
        assert (row["licence"], row["meta"], row["texts"]) == ("cc0", {"n": 1, "x": None}, made["texts"])
    assert Counter(row["decision"] for row in told) == {"keep": 10, "replace": 5, "drop": 4, "failed": 4}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def _plain(value):
    return None if isinstance(value, float) and value != value else value


def test_csv_is_the_same_without_formulas(run, rows, tmp_path):
    export_table(run, str(tmp_path / "out.csv"), "csv", Choice())
    export_table(run, str(tmp_path / "out.jsonl"), "jsonl", Choice())
    with open(tmp_path / "out.csv", encoding="utf-8", newline="") as handle:
        found = list(csv.DictReader(handle))
    told = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    assert [row["id"] for row in found] == [row["id"] for row in told] and set(found[0]) == set(told[0])
    for cells, row in zip(found, told, strict=True):
        assert cells["web_text"] == (row["web_text"] or "")
        assert cells["synthetic_text"] == (f"'{row['synthetic_text']}" if row["synthetic_text"] else "")
        assert cells["itc_web"] == ("" if row["itc_web"] is None else "-0.1")
    for mark in "=+-@\t\r":
        assert tables._cell(f"{mark}1") == f"'{mark}1"
    assert tables._cell(-1.5) == -1.5 and tables._cell("a=b") == "a=b"


def test_some_decisions_and_the_same_bytes_again(run, tmp_path):
    out = tmp_path / "out.jsonl"
    assert export_table(run, str(out), "jsonl", Choice(("drop", "failed"))) == 8
    before = out.read_bytes()
    export_table(run, str(out), "jsonl", Choice(("drop", "failed")))
    assert out.read_bytes() == before
    with pytest.raises(ConfigError, match="decision kept: there are keep"):
        Choice(("kept",))


def test_no_other_file_is_written_over(run, tmp_path):
    for name, text in (("a.jsonl", '{"mine": 1}\n'), ("a.csv", "mine\n")):
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError, match="not exported"):
            export_table(run, str(tmp_path / name), name[2:], Choice())
        assert (tmp_path / name).read_text() == text


def test_a_table_is_a_file(run, tmp_path):
    with pytest.raises(ConfigError, match="is a folder"):
        export_table(run, str(tmp_path), "jsonl", Choice())


def test_no_link_and_no_device_is_replaced(run, tmp_path):
    link, pipe = tmp_path / "link.jsonl", tmp_path / "pipe.jsonl"
    link.symlink_to(tmp_path / "elsewhere.jsonl")
    os.mkfifo(pipe)
    for place in (link, pipe):
        with pytest.raises(ConfigError, match="link or device"):
            export_table(run, str(place), "jsonl", Choice())
    assert link.is_symlink() and pipe.is_fifo() and not (tmp_path / "elsewhere.jsonl").exists()


def test_what_is_no_run(tmp_path, run):
    with pytest.raises(NothingToRead, match="capfilt decide"):
        export_table(tmp_path, str(tmp_path / "a.jsonl"), "jsonl", Choice())
    Ledger(run).commit("rows", 9, pa.Table.from_pylist([{"id": "f" * 32}], schema=ROWS))
    with pytest.raises(DataError, match="its decisions are of other rows"):
        export_table(run, str(tmp_path / "a.jsonl"), "jsonl", Choice())
    assert not (tmp_path / "a.jsonl").exists()


# ---- folders ----------------------------------------------------------------------------------------------------


def kept(rows) -> list[tuple[dict, dict]]:
    return [(of_row, made) for of_row, made in rows if made["text"]]


def test_webdataset_holds_what_was_stored(run, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "MOST_ROWS", 6)
    account = export_folder(run, str(tmp_path / "out"), "webdataset", Choice())
    assert (account["rows"], account["failed"], account["done"]) == (15, 0, True)
    names, suffixes = [], {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
    for path in sorted((tmp_path / "out").glob("*.tar")):
        with tarfile.open(path) as tar:
            for info in tar:
                assert (info.mtime, info.uid, info.uname, info.mode) == (0, 0, "", 0o644)
                names.append(info.name)
    assert names == [
        f"{of_row['id']}.{suffix}" for of_row, _ in kept(rows) for suffix in (suffixes[of_row["format"]], "txt", "json")
    ]
    read = list(open_source(tmp_path / "out").read())
    for pair, (of_row, made) in zip(read, kept(rows), strict=True):
        assert hashlib.sha256(pair.image).hexdigest() == of_row["sha256"]
        assert pair.texts[0].split() == made["text"].split()
        assert (pair.meta["source"], pair.meta["licence"], pair.meta["itm_web"]) == (made["source"], "cc0", 0.213)


def test_parquet_has_images_as_hugging_face_does(run, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "GROUP_BYTES", 3000)
    export_folder(run, str(tmp_path / "out"), "parquet", Choice())
    file = parquet.ParquetFile(tmp_path / "out" / "00000.parquet")
    assert file.num_row_groups > 1
    features = json.loads(file.schema_arrow.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"} and set(features) == set(file.schema_arrow.names)
    for found, (of_row, made) in zip(file.read().to_pylist(), kept(rows), strict=True):
        assert hashlib.sha256(found["image"]["bytes"]).hexdigest() == of_row["sha256"]
        assert found["image"]["path"].startswith(made["id"]) and found["text"] == made["text"]
    assert [pair.key for pair in open_source(tmp_path / "out").read()] == [made["key"] for _, made in kept(rows)]


def test_imagefolder_has_names_of_its_own(run, rows, tmp_path):
    export_folder(run, str(tmp_path / "out"), "imagefolder", Choice())
    table = [json.loads(line) for line in (tmp_path / "out" / "metadata.jsonl").read_text("utf-8").split("\n")[:-1]]
    for told, (of_row, made) in zip(table, kept(rows), strict=True):
        image = (tmp_path / "out" / told["file_name"]).read_bytes()
        assert hashlib.sha256(image).hexdigest() == of_row["sha256"] and told["text"] == made["text"]
        assert told["file_name"].split("/")[1].partition(".")[0] == made["id"]
    read = open_source(tmp_path / "out").read()
    assert [pair.key for pair in read] == [made["key"] for _, made in kept(rows)]


def test_sidecars_lie_as_the_keys_do(run, rows, tmp_path):
    export_folder(run, str(tmp_path / "out"), "sidecar", Choice())
    found = files(tmp_path / "out")
    del found[MANIFEST]
    assert found == {made["key"].rpartition(".")[0] + ".txt": made["text"].encode() + b"\n" for _, made in kept(rows)}


def test_keys_never_lead_out():
    for key, stem in (
        ("../../etc/passwd", "etc/passwd"),
        ("/a/./b.jpg", "a/b"),
        ("a\\..\\..\\b.png", "b"),
        ("shard/0001", "shard/0001"),
        ("a.v1.jpg", "a.v1"),
        (".ssh/key", "ID"),
        ("..", "ID"),
        ("x" * 300, "ID"),
    ):
        assert _names({"key": key, "id": "ID"})[0] == stem


def test_two_keys_of_one_stem(run, tmp_path):
    ledger = Ledger(run)
    table = parquet.read_table(run / "decisions.parquet").to_pylist()
    for one, key in zip(table, ("a.jpg", "a.png"), strict=False):
        one["key"] = key
    parquet.write_table(pa.Table.from_pylist(table, DECISIONS), ledger.out / "decisions.parquet")
    export_folder(run, str(tmp_path / "out"), "sidecar", Choice())
    assert {"a.txt", "a.png.txt"} <= set(files(tmp_path / "out"))


@pytest.mark.parametrize("form", FOLDERS)
def test_a_stopped_export_goes_on_to_the_same_bytes(run, tmp_path, form, monkeypatch):
    monkeypatch.setattr(shards, "MOST_ROWS", 4)
    export_folder(run, str(tmp_path / "whole"), form, Choice())
    put, file, calls = Place.put, Place.file, []

    def stop(self, name, *more):
        calls.append(name)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return (put if isinstance(more[0], bytes) else file)(self, name, *more)

    monkeypatch.setattr(Place, "put", stop)
    monkeypatch.setattr(Place, "file", stop)
    with pytest.raises(KeyboardInterrupt):
        export_folder(run, str(tmp_path / "out"), form, Choice())
    assert json.loads((tmp_path / "out" / MANIFEST).read_text())["done"] is False
    monkeypatch.undo()
    monkeypatch.setattr(shards, "MOST_ROWS", 4)
    export_folder(run, str(tmp_path / "out"), form, Choice())
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_whole_shards_are_not_made_again_and_broken_ones_are(run, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "MOST_ROWS", 4)
    out = tmp_path / "out"
    export_folder(run, str(out), "webdataset", Choice())
    want = files(out)
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    (out / "00001.tar").write_bytes(b"broken")
    (out / "00002.tar").unlink()
    export_folder(run, str(out), "webdataset", Choice())
    assert files(out) == want
    anew = {path.name for path in out.glob("*.tar") if path.stat().st_mtime_ns != times[path.name]}
    assert anew == {"00001.tar", "00002.tar"}


def test_other_folders_and_other_exports_are_refused(run, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"holds thesis\.txt and no export"):
        export_folder(run, str(tmp_path / "full"), "sidecar", Choice())
    out = str(tmp_path / "out")
    export_folder(run, out, "sidecar", Choice())
    with pytest.raises(ConfigError, match="another export"):
        export_folder(run, out, "parquet", Choice())
    with pytest.raises(ConfigError, match="another export"):
        export_folder(run, out, "sidecar", Choice(mix=Mix(0.5)))
    with lease(out), pytest.raises(BusyError):
        export_folder(run, out, "sidecar", Choice())
    with pytest.raises(ConfigError, match="drop: such rows have no text"):
        export_folder(run, str(tmp_path / "new"), "parquet", Choice(("drop",)))
    with pytest.raises(ConfigError, match="cannot be written to"):
        export_folder(run, "nowhere://x/y", "parquet", Choice())


@pytest.mark.parametrize("form", ["imagefolder", "webdataset", "parquet"])
def test_images_that_are_gone_or_changed_are_named_and_come_later(run, rows, tmp_path, form):
    gone, changed = (Path(tmp_path / "stored" / f"stored-{number}") for number in (0, 1))
    data = gone.read_bytes(), changed.read_bytes()
    gone.unlink()
    changed.write_bytes(data[0])
    account = export_folder(run, str(tmp_path / "out"), form, Choice())
    assert (account["rows"], account["failed"]) == (13, 2)
    told = [one for part in account["parts"] for one in part["failed"]]
    assert [(one["id"], one["reason"]) for one in told] == [
        (rows[0][0]["id"], "missing_file"),
        (rows[1][0]["id"], "changed"),
    ]
    gone.write_bytes(data[0])
    changed.write_bytes(data[1])
    account = export_folder(run, str(tmp_path / "out"), form, Choice())
    assert (account["rows"], account["failed"]) == (15, 0)
    export_folder(run, str(tmp_path / "whole"), form, Choice())
    assert files(tmp_path / "out") == files(tmp_path / "whole")


@pytest.mark.parametrize("form", FOLDERS)
def test_a_far_folder_holds_the_same(run, tmp_path, form):
    far = f"memory://export-{form}/deep"
    export_folder(run, str(tmp_path / "near"), form, Choice())
    account = export_folder(run, far, form, Choice())
    fs, root = fsspec.core.url_to_fs(far)
    found = {name[len(root) + 1 :]: fs.cat_file(name) for name in fs.find(root)}
    assert found == files(tmp_path / "near") and json.loads(found[MANIFEST]) == account
    assert export_folder(run, far, form, Choice()) == account  # goes on over what is there
    with pytest.raises(ConfigError, match="another export"):
        export_folder(run, far, form, Choice(), strip_gps=True)


def test_a_far_table(run, tmp_path):
    export_table(run, "memory://tables/out.jsonl", "jsonl", Choice())
    export_table(run, str(tmp_path / "out.jsonl"), "jsonl", Choice())
    assert fsspec.filesystem("memory").cat_file("/tables/out.jsonl") == (tmp_path / "out.jsonl").read_bytes()


def test_coordinates_go_where_that_is_asked_for(run, tmp_path):
    for strip in (False, True):
        out = tmp_path / str(strip)
        export_folder(run, str(out), "imagefolder", Choice(), strip_gps=strip)
        images = [Image.open(path) for path in out.rglob("*.jpg")]
        assert images and all(bool(image.getexif().get_ifd(0x8825)) is not strip for image in images)


def test_a_mix_is_drawn_by_the_row(run, rows, tmp_path):
    by_share = {}
    for web in (0.0, 0.5, 1.0):
        out = tmp_path / f"{web}.jsonl"
        export_table(run, str(out), "jsonl", Choice(("keep", "replace"), Mix(web)))
        told = [json.loads(line) for line in out.read_text("utf-8").split("\n")[:-1]]
        by_share[web] = {row["id"]: row["text"].startswith("web") for row in told if row["decision"] == "keep"}
        assert all(row["text"] == row["synthetic_text"] for row in told if row["decision"] == "replace")
    assert not any(by_share[0.0].values()) and all(by_share[1.0].values())
    assert 0 < sum(by_share[0.5].values()) < 10


def test_nothing_to_export(run, tmp_path):
    table = parquet.read_table(run / "decisions.parquet").to_pylist()
    table = [one | {"decision": "drop", "text": None, "texts": []} for one in table]
    parquet.write_table(pa.Table.from_pylist(table, DECISIONS), run / "decisions.parquet")
    with pytest.raises(CapfiltError, match="no row has a text"):
        export_folder(run, str(tmp_path / "out"), "parquet", Choice())


def test_shards_end_by_rows_and_by_bytes(monkeypatch):
    monkeypatch.setattr(shards, "MOST_ROWS", 3)
    monkeypatch.setattr(shards, "MOST_BYTES", 10)
    sizes = [4, 4, 4, 1, 1, 1, 30, None]
    found = [[row["bytes"] for row in shard] for shard in shards.planned({"bytes": size} for size in sizes)]
    assert found == [[4, 4], [4, 1, 1], [1], [30], [None]]
