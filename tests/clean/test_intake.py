import hashlib
import io
import json
import os

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from capfilt.clean.columns import INTAKE
from capfilt.clean.intake import tasks
from capfilt.data.refs import Images
from capfilt.data.sources import open_source
from capfilt.errors import DataError


def picture(path, shade):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(path)
    return path.read_bytes()


def table(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def read(path, shard_rows=1000, skip=(), **options):
    return list(tasks(open_source(path, captions="optional", **options), shard_rows, skip))


def rows(path, **options):
    return [row for _, shard in read(path, **options) for row in shard.to_pylist()]


def test_a_row_of_every_kind(tmp_path):
    data = picture(tmp_path / "a.jpg", 9)
    given = [
        {"file": "a.jpg", "text": "one\u202e", "License": "cc0", "source": "web", "n": 1},
        {"file": "a.jpg", "text": "two", "rights": {"by": "me"}, "opt_out": True},
        {"file": "../../b.jpg", "text": "three"},
        "{",
        {"file": "gone.jpg"},
    ]
    shard, whole = read(table(tmp_path / "t.jsonl", given))[0]
    found = whole.to_pylist()
    assert shard == 0 and whole.schema.equals(INTAKE)
    assert [row["key"] for row in found] == ["a.jpg", "a.jpg@2", "b.jpg", "t.jsonl:4", "gone.jpg"]
    assert [row["texts"] for row in found] == [["one"], ["two"], ["three"], [], []]
    assert [row["text_flags"] for row in found] == [["bidi_stripped"], [], [], [], []]
    assert [row["licence"] for row in found] == ["cc0", '{"by": "me"}', None, None, None]
    assert [json.loads(row["meta"]) for row in found] == [{"n": 1}, {"opt_out": True}, {}, {}, {}]
    assert [row["source"] for row in found] == ["web", *[f"{tmp_path.name}/t.jsonl"] * 4]
    assert [row["failed"] for row in found] == [None, None, "outside_folder", "bad_row", None]
    assert [row["ref"] is None for row in found] == [False, False, True, True, False]
    assert found[2]["error"].startswith("t.jsonl:3: ") and found[0]["error"] is None
    assert Images().load(found[1]["ref"]) == data
    assert found[0]["id"] == hashlib.blake2b(b"a.jpg", digest_size=16).hexdigest()


def test_ids_are_unique_and_stable(tmp_path):
    bad = {"key": "k", "text": "no image"}
    good = {"key": "k", "file": "a.jpg"}
    given = [bad, good, bad, good, {"key": "k#2", "file": "a.jpg"}, {"key": "k#9", "file": "a.jpg"}]
    first = rows(table(tmp_path / "t.jsonl", given))
    assert [row["key"] for row in first] == ["k", "k#2", "k#3", "k#4", "k#2#2", "k#9"]
    assert [row["failed"] for row in first] == ["no_image", None, "no_image", "duplicate_key", None, None]
    assert len({row["id"] for row in first}) == len(given)
    assert rows(table(tmp_path / "t.jsonl", given)) == first
    ids = [row["id"] for row in rows(table(tmp_path / "t.jsonl", [good] * 300))]
    assert len(set(ids)) == 300


def test_ids_do_not_hang_on_where_the_folder_lies(tmp_path):
    ids = []
    for place in ("x", "y/z"):
        picture(tmp_path / place / "sub/a.jpg", 1)
        ids.append([row["id"] for row in rows(tmp_path / place)])
    assert ids[0] == ids[1]


@pytest.mark.parametrize(("count", "size"), [(7, 3), (6, 3), (3, 3), (2, 3), (1, 1)])
def test_shards_of_equal_size_and_skipping(tmp_path, count, size):
    path = table(tmp_path / "t.jsonl", [{"file": f"{i}.jpg"} for i in range(count)])
    whole = read(path, size)
    assert [len(shard) for _, shard in whole] == [size] * (count // size) + [count % size] * (count % size > 0)
    assert [number for number, _ in whole] == list(range(len(whole)))
    for skip in ({0}, {len(whole) - 1}, set(range(len(whole)))):
        left = read(path, size, skip)
        assert [number for number, _ in left] == [n for n, _ in whole if n not in skip]
        assert all(shard.equals(whole[number][1]) for number, shard in left)


def test_no_image_is_touched(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        picture(tmp_path / name, 1)
    source = open_source(tmp_path, captions="optional")
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).unlink()
    assert [row["failed"] for _, shard in tasks(source, 10, ()) for row in shard.to_pylist()] == [None, None]


def test_the_source_is_the_shard_or_the_folder_or_what_the_row_says(tmp_path):
    for name in ("a.jpg", "sub/b.jpg"):
        picture(tmp_path / "photos" / name, 1)
    assert [row["source"] for row in rows(tmp_path / "photos")] == [".", "sub"]
    (tmp_path / "tables").mkdir()
    for i in range(2):
        one = {"jpg": [b"x", b"y"], "source": ["", "flickr"]}
        parquet.write_table(pa.table(one), tmp_path / f"tables/{i}.parquet")
    assert [row["source"] for row in rows(tmp_path / "tables")] == ["0.parquet", "flickr", "1.parquet", "flickr"]


def test_meta_survives_what_json_has_no_word_for(tmp_path):
    import datetime
    import decimal

    one = {
        "jpg": b"x",
        "thumb": b"raw",
        "score": float("nan"),
        "far": [float("inf"), 1.5],
        "at": datetime.datetime(2020, 1, 2, 3, 4, 5),
        "price": decimal.Decimal("1.50"),
        "took": datetime.timedelta(seconds=90),
        "exif": {"blob": b"raw", "iso": 100},
    }
    parquet.write_table(pa.Table.from_pylist([one]), tmp_path / "t.parquet")
    assert [json.loads(row["meta"]) for row in rows(tmp_path / "t.parquet")] == [
        {
            "score": None,
            "far": [None, 1.5],
            "at": "2020-01-02T03:04:05",
            "price": "1.50",
            "took": "0:01:30",
            "exif": {"iso": 100},
        }
    ]


def test_a_column_that_is_named_like_ours_is_passed_through(tmp_path):
    path = table(tmp_path / "t.jsonl", [{"file": "a.jpg", "text_flags": "theirs", "source": 7, "licence": None}])
    (row,) = rows(path)
    assert json.loads(row["meta"]) == {"text_flags": "theirs", "licence": None}
    assert (row["source"], row["licence"], row["text_flags"]) == ("7", None, [])


def test_names_that_are_no_text(tmp_path):
    picture(tmp_path / "a.jpg", 1)
    os.rename(tmp_path / "a.jpg", os.fsencode(tmp_path) + b"/\xff.jpg")
    (row,) = rows(tmp_path)
    assert row["key"] == "\\udcff.jpg" and Images().load(row["ref"])


def test_meta_nested_too_deeply(tmp_path):
    deep = '{"file": "a.jpg", "x": ' + "[" * 900 + "]" * 900 + "}"
    (row,) = rows(table(tmp_path / "t.jsonl", [deep]))
    assert row["failed"] == "bad_row" or json.loads(row["meta"]) == {"meta_error": "nested too deeply"}


def test_addresses(tmp_path):
    path = table(tmp_path / "list.txt", ["https://a.org/x.jpg\twords"])
    assert [(row["failed"], row["ref"]) for row in rows(path)] == [("url", None)]
    (row,) = rows(path, urls=True)
    assert json.loads(row["ref"]) == {"kind": "url", "path": "https://a.org/x.jpg"} and row["texts"] == ["words"]


def test_nothing_to_read(tmp_path):
    with pytest.raises(DataError, match="no rows"):
        read(table(tmp_path / "t.jsonl", []))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["file", "key", "text", "licence", "x"]),
            st.one_of(
                st.none(),
                st.booleans(),
                st.floats(),
                st.text(st.characters(codec=None), max_size=5),
                st.just("a"),
                st.lists(st.text(max_size=3), max_size=3),
                st.dictionaries(st.text(max_size=2), st.floats(), max_size=2),
            ),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_every_row_is_a_row_whatever_it_holds(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("rows") / "t.jsonl"
    found = rows(table(path, content))
    assert len(found) == len(content) == len({row["id"] for row in found}) == len({row["key"] for row in found})
    assert all((row["failed"] is None) == (row["error"] is None) == (row["ref"] is not None) for row in found)
    assert all(isinstance(json.loads(row["meta"]), dict) for row in found)
    parquet.write_table(pa.Table.from_pylist(found, schema=INTAKE), io.BytesIO())
