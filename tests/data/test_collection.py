"""A collection on the disk: pictures decoded apart, rows that fail counted, read once and then only mapped."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from capfilt.data.collection import from_source, from_world
from capfilt.data.decoders import Reading
from capfilt.data.world import World, WorldConfig
from capfilt.errors import ConfigError, DataError
from capfilt.files import read_json

PX = 16


def png(colour: tuple[int, int, int], size: tuple[int, int] = (PX, PX), **options) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", size, colour).save(data, "PNG", **options)
    return data.getvalue()


def write(folder: Path, files: dict[str, bytes], rows: list[dict]) -> str:
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "captions.jsonl").write_text(lines, encoding="utf-8")
    return str(folder)


@pytest.fixture
def source(tmp_path) -> str:
    files = {"red.png": png((255, 0, 0)), "blue.png": png((0, 0, 255)), "page.png": b"<html>"}
    rows = [
        {"file": "red.png", "captions": ["a red thing", "  ", "red\nall over"]},
        {"file": "page.png", "captions": ["a page"]},
        {"file": "blue.png", "captions": ["a blue thing"]},
        {"file": "silent.png", "captions": []},
    ]
    return write(tmp_path / "source", files, rows)


def test_pictures_texts_and_failures(tmp_path, source):
    found = from_source(source, tmp_path / "out", PX, reading=Reading(2))
    assert found.keys == ("red.png", "blue.png")
    assert found.texts == (("a red thing", "red all over"), ("a blue thing",)) == found.references
    assert found.pictures.shape == (2, PX, PX, 3) and found.pictures.dtype == np.uint8
    assert found.pictures[0, 0, 0].tolist() == [255, 0, 0] and found.pictures[1, 5, 5].tolist() == [0, 0, 255]
    assert {row.key: row.reason.partition(":")[0] for row in found.failed} == {
        "page.png": "not_an_image",
        "silent.png": "no_text",
    }
    assert {row.text_web for row in found.failed} == {"a page", None}
    assert found.kinds is None and found.judge is None


def test_a_row_a_text_as_web_pairs_are_judged(tmp_path, source):
    found = from_source(source, tmp_path / "out", PX, one_text=True, reading=Reading(1))
    assert found.keys == ("red.png", "red.png#1", "blue.png")
    assert found.texts == (("a red thing",), ("red all over",), ("a blue thing",))
    assert np.array_equal(found.pictures[0], found.pictures[1])
    assert found.table().image.tolist() == [0, 0, 2]  # one picture is nobody's hard negative
    assert found.table([["said"], [], ["seen", "said"]]).image.tolist() == [0, 2, 2]
    assert found.only(np.array([2, 1])).table().image.tolist() == [0, 1]


@pytest.fixture
def one_a_row(tmp_path) -> str:
    """A table with a caption a row, three rows of each of two images; one image has two names."""
    folder = tmp_path / "table"
    folder.mkdir()
    for name, colour in (("red.png", (255, 0, 0)), ("blue.png", (0, 0, 255)), ("azure.png", (0, 0, 255))):
        (folder / name).write_bytes(png(colour))
    rows = ["red.png,one", "blue.png,two", "red.png,three", "red.png,four", "azure.png,two", "blue.png,five"]
    (folder / "pairs.csv").write_text("\n".join(["image,caption", *rows]))
    return str(folder / "pairs.csv")


def test_rows_of_one_image_are_one_image_with_their_texts(tmp_path, one_a_row, monkeypatch):
    monkeypatch.setattr("capfilt.data.collection.BATCH", 2)
    found = from_source(one_a_row, tmp_path / "out", PX, reading=Reading(1))
    assert found.keys == ("red.png", "blue.png") and found.pictures.shape == (2, PX, PX, 3)
    assert found.texts == (("one", "three", "four"), ("two", "five"))
    web = from_source(one_a_row, tmp_path / "web", PX, one_text=True, reading=Reading(1))
    assert web.keys == ("red.png", "blue.png", "red.png@2", "red.png@3", "azure.png", "blue.png@2")
    assert web.table().image.tolist() == [0, 1, 0, 0, 1, 1]


def test_texts_of_known_truth_stay_rows_of_their_own(tmp_path):
    rows = [{"file": "red.png", "text": text} for text in ("red", "blue")]
    path = write(tmp_path / "known", {"red.png": png((255, 0, 0))}, rows)
    truth = [json.dumps({**row, "kind": row["text"], "match": row["text"] == "red"}) + "\n" for row in rows]
    (tmp_path / "known/captions.truth.jsonl").write_text("".join(truth), encoding="utf-8")
    found = from_source(path, tmp_path / "out", PX, reading=Reading(1))
    assert found.texts == (("red",), ("blue",)) and found.match == (True, False)


def test_what_is_odd_but_used_is_counted(tmp_path):
    grey = [Image.new("L", (40, 200), shade) for shade in (0, 255)]
    data = io.BytesIO()
    grey[0].save(data, "GIF", save_all=True, append_images=grey[1:])
    rows = [{"file": "a.gif", "captions": ["long " * 2000]}, {"file": "a.gif", "captions": ["a\u202eb"]}]
    found = from_source(
        write(tmp_path / "odd", {"a.gif": data.getvalue()}, rows), tmp_path / "out", PX, reading=Reading(1)
    )
    assert found.notes == {"text_truncated": 1, "animated": 1, "odd_aspect": 1, "bidi_stripped": 1}


def test_read_once_and_again_when_asked_for_something_else(tmp_path, source):
    out = tmp_path / "out"
    from_source(source, out, PX, reading=Reading(1))
    mark = (out / "pictures.npy").stat().st_mtime_ns
    from_source(source, out, PX, reading=Reading(1))
    assert (out / "pictures.npy").stat().st_mtime_ns == mark
    assert from_source(source, out, 8, reading=Reading(1), anew=True).pictures.shape == (2, 8, 8, 3)
    assert sorted(path.name for path in out.iterdir()) == ["pictures.npy", "rows.json"]


def test_a_source_that_changed_is_read_anew_or_refused(tmp_path, source):
    out = tmp_path / "out"
    before = from_source(source, out, PX, reading=Reading(1))
    with open(Path(source) / "captions.jsonl", "a", encoding="utf-8") as table:
        table.write(json.dumps({"file": "blue.png", "captions": ["more of it"]}) + "\n")
    with pytest.raises(ConfigError, match=r"changed since this run read it\. Use another --out, or put it back"):
        from_source(source, out, PX, reading=Reading(1))
    with pytest.raises(ConfigError, match="changed since"):
        from_source(source, out, PX, reading=Reading(1), text="captions")
    assert read_json(out / "rows.json")["texts"] == [list(texts) for texts in before.texts]
    assert from_source(source, out, PX, reading=Reading(1), anew=True).texts[1] == ("a blue thing", "more of it")
    with pytest.raises(ConfigError, match="changed since"):
        from_source(source, out, PX, reading=Reading(1, scaled=True))


def test_what_was_read_outlives_its_source(tmp_path, source):
    found = from_source(source, tmp_path / "out", PX, reading=Reading(1))
    shutil.rmtree(source)
    assert from_source(source, tmp_path / "out", PX).texts == found.texts
    for how in ({"path": source, "anew": True}, {"path": f"{source}2"}):
        with pytest.raises(DataError, match="no such file or folder"):
            from_source(out=tmp_path / "out", px=PX, **how)


def test_many_rows_keep_their_order(tmp_path):
    files = {f"{i:03d}.png": png((i % 256, i // 256, 0), (2, 2)) for i in range(300)}
    path = write(tmp_path / "many", files, [{"file": name, "captions": [name]} for name in files])
    found = from_source(path, tmp_path / "out", 2, reading=Reading(2))
    assert found.keys == tuple(files)
    assert found.pictures[:, 0, 0, 0].tolist() == [i % 256 for i in range(300)]


def test_names_that_are_no_text(tmp_path):
    rows = [
        {"file": "red.png", "captions": ["red"], "key": "half a \ud83d sign"},
        {"file": "other.png", "captions": ["none"], "key": "\u2028"},
    ]
    path = write(tmp_path / "odd", {"red.png": png((255, 0, 0))}, rows)
    found = from_source(path, tmp_path / "out", PX, reading=Reading(1))
    assert found.keys == ("half a \\ud83d sign",)
    assert [row.key for row in found.failed] == ["\u2028"]


def test_known_truth_comes_along(tmp_path):
    rows = [{"file": "red.png", "captions": ["red"]}]
    path = write(tmp_path / "known", {"red.png": png((255, 0, 0))}, rows)
    truth = json.dumps({**rows[0], "kind": "swap", "match": False}) + "\n"
    (tmp_path / "known/captions.truth.jsonl").write_text(truth, encoding="utf-8")
    found = from_source(path, tmp_path / "out", PX, reading=Reading(1))
    assert found.kinds == ("swap",) and found.match == (False,)


def test_nothing_usable_is_an_error_with_the_reasons(tmp_path):
    path = write(tmp_path / "bad", {"a.png": b"<html>"}, [{"file": "a.png", "captions": ["a"]}])
    with pytest.raises(DataError, match=r"none of 1 rows can be used \(not_an_image\)"):
        from_source(path, tmp_path / "out", PX, reading=Reading(1))
    assert not (tmp_path / "out/rows.json").exists()


@pytest.mark.parametrize(("split", "texts"), [("web", 1), ("human", 1), ("test", 1)])
def test_the_drawn_world(split, texts):
    found = from_world(World(WorldConfig(level="demo", px=32, seed=0)), split, 6)
    assert len(found) == 6 and all(len(t) == texts for t in found.texts)
    assert (found.kinds is not None) == (split == "web")
    assert found.judge is not None and found.judge(2, found.references[2][0]).truth == 1.0
    some = found.only(np.array([5, 4]))
    assert some.keys == (found.keys[5], found.keys[4]) and some.judge is not None
    assert some.judge(1, some.references[1][0]) == found.judge(4, found.references[4][0])
    assert np.array_equal(np.asarray(some.pictures), found.pictures[[5, 4]])
    assert np.array_equal(some.only(np.array([1])).pictures[0], found.pictures[4])


def test_failures_stay_with_the_whole(tmp_path, source):
    found = from_source(source, tmp_path / "out", PX, reading=Reading(1))
    assert len(found.failed) == 2 and found.only(np.arange(1)).failed == ()
    assert len(found.table()) == 3
    assert read_json(tmp_path / "out/rows.json")["keys"] == ["red.png", "blue.png"]
