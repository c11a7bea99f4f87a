import csv
import gzip
import io
import json
import tarfile
from collections import Counter
from importlib import import_module

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from capfilt.data.rows import Seen
from capfilt.data.sources import open_source
from capfilt.errors import DataError
from capfilt.inputs.images import decode

from .conftest import jpg, read, reasons, texts


def put(folder, **files):
    """Writes files; `__` in a name is a folder, the last `_` its dot."""
    for name, data in files.items():
        stem, _, suffix = name.replace("__", "/").rpartition("_")
        path = folder / f"{stem}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())


def lines(*rows):
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


# Layouts


def test_captions_jsonl_finds_images_beside_it_and_in_images(tmp_path):
    rows = [{"file": "a.jpg", "captions": ["one", "two"], "split": "val"}, {"file": "b.jpg", "text": "three"}]
    put(tmp_path, captions_jsonl=lines(*rows), a_jpg=jpg(1), images__b_jpg=jpg(2))
    pairs, failures = read(tmp_path)
    assert texts(pairs) == {"a.jpg": ("one", "two"), "b.jpg": ("three",)} and not failures
    assert pairs[0].image == jpg(1) and pairs[1].image == jpg(2)
    assert pairs[0].meta == {"split": "val"} and pairs[0].source.endswith("captions.jsonl")


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_hugging_face_image_folder(tmp_path, kind):
    rows = [{"file_name": "a.jpg", "text": "one", "licence": "cc0"}]
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        put(tmp_path / split, a_jpg=jpg())
        path = tmp_path / split / f"metadata.{kind}"
        if kind == "jsonl":
            path.write_text(lines(*rows))
        elif kind == "csv":
            path.write_text("file_name,text,licence\na.jpg,one,cc0\n")
        else:
            parquet.write_table(pa.Table.from_pylist(rows), path)
    pairs, failures = read(tmp_path)
    assert texts(pairs) == {"test/a.jpg": ("one",), "train/a.jpg": ("one",)} and not failures
    assert pairs[0].meta == {"licence": "cc0"}


def test_images_with_sidecars(tmp_path):
    put(tmp_path, a_jpg=jpg(), a_txt="first\n\nsecond\n", sub__b_png=jpg(), sub__b_caption="third")
    put(tmp_path, c_jpg=jpg(), c_json='{"caption": "fourth", "url": "u"}', d_jpg=jpg(), e_txt="alone", notes_md="x")
    put(tmp_path, f_jpg=jpg(), f_json="{broken", f_txt="fifth", h_jpg=jpg(), h_txt=" \n")
    put(tmp_path, __MACOSX__g_jpg=jpg(), g_txt="sixth")
    (tmp_path / ".hidden.jpg").write_bytes(jpg())
    pairs, failures = read(tmp_path)
    assert texts(pairs) == {
        "a.jpg": ("first", "second"),
        "c.jpg": ("fourth",),
        "f.jpg": ("fifth",),
        "sub/b.png": ("third",),
    }
    assert pairs[1].meta == {"url": "u"} and "json_error" in pairs[2].meta
    assert reasons(failures) == {"d.jpg": "no_text", "e.txt": "no_image", "g.txt": "no_image", "h.jpg": "no_text"}


def test_images_without_captions(tmp_path):
    put(tmp_path, a_jpg=jpg(), b_png=jpg())
    with pytest.raises(DataError, match="2 images but no captions"):
        open_source(tmp_path)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "json", "jsonl.gz", "csv.gz", "parquet"])
def test_tables_of_paths(tmp_path, suffix):
    rows = [
        {"Image": "a.jpg", "Caption": 'with "quotes", and comma', "id": "7"},
        {"Image": "b.jpg", "Caption": "two", "id": "8"},
    ]
    put(tmp_path, a_jpg=jpg(), b_jpg=jpg())
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), delimiter="\t" if suffix == "tsv" else ",")
    writer.writeheader()
    writer.writerows(rows)
    data = (
        buffer.getvalue()
        if suffix.startswith(("csv", "tsv"))
        else json.dumps(rows)
        if suffix == "json"
        else lines(*rows)
    )
    path = tmp_path / f"pairs.{suffix}"
    if suffix == "parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_bytes(gzip.compress(data.encode()) if suffix.endswith("gz") else data.encode())
    pairs, failures = read(path)
    assert texts(pairs) == {"a.jpg": ('with "quotes", and comma',), "b.jpg": ("two",)} and not failures
    assert pairs[0].meta == {"id": "7"}


def test_parquet_with_bytes_and_structs(tmp_path):
    rows = [
        {"image": {"bytes": jpg(1), "path": "x.jpg"}, "captions": ["a", "b"]},
        {"image": {"bytes": jpg(2), "path": None}, "captions": ["c"]},
        {"image": {"bytes": None, "path": None}, "captions": ["d"]},
        {"image": {"bytes": b"", "path": "y.jpg"}, "captions": ["e"]},
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "train-0.parquet")
    pairs, failures = read(tmp_path)
    assert texts(pairs) == {"x.jpg": ("a", "b"), "train-0.parquet:2": ("c",)}
    assert decode(pairs[0].image).size == (8, 8)
    assert reasons(failures) == {"train-0.parquet:3": "no_image", "y.jpg": "empty"}
    parquet.write_table(pa.table({"jpg": [jpg(3)], "txt": ["plain bytes"]}), tmp_path / "plain.parquet")
    assert texts(read(tmp_path / "plain.parquet")[0]) == {"plain.parquet:1": ("plain bytes",)}


def test_columns_by_name(tmp_path):
    put(tmp_path, a_jpg=jpg(), t_jsonl=lines({"pic": "a.jpg", "words": "good", "caption": "bad"}))
    assert texts(read(tmp_path / "t.jsonl", image="pic", text="words")[0]) == {"a.jpg": ("good",)}


def test_a_noisy_folder_beside_its_images_with_truth(tmp_path):
    web = [{"file": "a.jpg", "text": "true"}, {"file": "b.jpg", "text": "swapped"}]
    truth = [web[0] | {"kind": "clean", "match": True}, web[1] | {"kind": "swap", "match": False}]
    put(tmp_path / "set", images__a_jpg=jpg(), images__b_jpg=jpg(), noisy__web_jsonl=lines(*web))
    put(tmp_path / "set", noisy__human_jsonl=lines({"file": "../images/a.jpg", "captions": ["named"]}))
    (tmp_path / "set/noisy/web.truth.jsonl").write_text(lines(*reversed(truth)))
    pairs, failures = read(tmp_path / "set/noisy/web.jsonl")
    assert [p.meta["truth"] for p in pairs] == [{"kind": "clean", "match": True}, {"kind": "swap", "match": False}]
    assert not failures
    assert texts(read(tmp_path / "set/noisy/human.jsonl")[0]) == {"images/a.jpg": ("named",)}
    with pytest.raises(DataError, match=r"holds 2 tables \(human.jsonl, web.jsonl\); name the one"):
        open_source(tmp_path / "set/noisy")


def test_real_noisy_data(shared, tmp_path):
    archive = shared / "data/flickr8k.tar"
    if not archive.is_file():
        pytest.skip(f"no flickr8k.tar in {archive.parent}")
    with tarfile.open(archive) as tar:
        data = {name: tar.extractfile(f"flickr8k/noisy/{name}").read() for name in ("web.jsonl", "web.truth.jsonl")}
        head = data["web.jsonl"].splitlines(keepends=True)[:20]
        names = [json.loads(line)["file"] for line in head]
        photos = {name: tar.extractfile(f"flickr8k/images/{name}").read() for name in names}
    for folder in ("images", "noisy"):
        (tmp_path / folder).mkdir()
    for name, photo in photos.items():
        (tmp_path / "images" / name).write_bytes(photo)
    (tmp_path / "noisy/web.jsonl").write_bytes(b"".join(head))
    (tmp_path / "noisy/web.truth.jsonl").write_bytes(data["web.truth.jsonl"])
    pairs, failures = read(tmp_path / "noisy/web.jsonl")
    assert len(pairs) == 20 and not failures
    assert {p.meta["truth"]["kind"] for p in pairs} > {"clean"} and {p.meta["truth"]["match"] for p in pairs} == {
        True,
        False,
    }
    assert all(decode(p.image).size == (160, 160) for p in pairs)


# Without captions, by address, from the hub


def test_captions_are_optional_where_that_is_said(tmp_path):
    put(tmp_path / "photos", a_jpg=jpg(1), sub__b_png=jpg(2))
    pairs, failures = read(tmp_path / "photos", captions="optional")
    assert texts(pairs) == {"a.jpg": (), "sub/b.png": ()} and not failures and pairs[0].image == jpg(1)
    assert texts(read(tmp_path / "photos/a.jpg", captions="optional")[0]) == {"a.jpg": ()}
    put(tmp_path / "photos", a_txt="words")
    assert texts(read(tmp_path / "photos", captions="optional")[0]) == {"a.jpg": ("words",), "sub/b.png": ()}
    rows = [{"file": "a.jpg"}, {"file": "a.jpg", "text": "words"}, {"file": "a.jpg"}, {"text": "alone"}]
    put(tmp_path / "photos", t_jsonl=lines(*rows), t_csv="file,split\na.jpg,val\n")
    pairs, failures = read(tmp_path / "photos/t.jsonl", captions="optional")
    assert texts(pairs) == {"a.jpg": (), "a.jpg@2": ("words",)}
    assert [(f.reason, f.texts) for f in failures] == [("duplicate_key", ()), ("no_image", ("alone",))]
    pairs, _ = read(tmp_path / "photos/t.csv", captions="optional")
    assert texts(pairs) == {"a.jpg": ()} and pairs[0].meta == {"split": "val"}
    with pytest.raises(DataError, match="no column 'words'"):
        read(tmp_path / "photos/t.csv", captions="optional", text="words")


def test_addresses_are_places_where_that_is_said(tmp_path):
    there = "https://a.org/x.jpg"
    put(tmp_path, t_jsonl=lines({"url": there, "text": "x"}, {"url": there, "text": "y", "file": "z.jpg"}), z_jpg=jpg())
    put(tmp_path, list_txt=f"{there}\twords\n\n{there}\n https://b.org/../y.jpg \nfile.jpg\n")
    items = list(open_source(tmp_path / "t.jsonl", urls=True).read(lazy=True))
    assert [(i.key, i.image.kind, i.image.path) for i in items] == [
        (there, "url", there),
        ("z.jpg", "file", f"{tmp_path}/z.jpg"),
    ]
    *items, broken = open_source(tmp_path / "list.txt", urls=True, captions="optional").read(lazy=True)
    assert texts(items) == {there: ("words",), f"{there}@2": (), "https://b.org/../y.jpg": ()}
    assert [i.image.path for i in items] == [there, there, "https://b.org/../y.jpg"]
    assert broken.reason == "bad_row" and broken.message == "list.txt:5: not a URL: 'file.jpg'"
    *items, _ = open_source(tmp_path / "list.txt").read(lazy=True)
    assert {i.reason for i in items} == {"url", "no_text"}
    with pytest.raises(DataError, match=r"url 1"):
        read(tmp_path / "list.txt")
    with pytest.raises(DataError, match=r"no usable pair. 4 rows failed \(url 3, bad_row 1\)"):
        read(tmp_path / "list.txt", urls=True, captions="optional")


def test_data_sets_of_the_hub(monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    class Hub(MemoryFileSystem):
        protocol, store, pseudo_dirs = "hf", {}, [""]

        @classmethod
        def _strip_protocol(cls, path):
            return super()._strip_protocol(path.removeprefix("hf:/"))

    monkeypatch.setitem(import_module("fsspec.registry")._registry, "hf", Hub)
    table = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist([{"image": {"bytes": jpg(1), "path": "a.jpg"}, "text": "one"}]), table)
    top = "/datasets/owner/name.v1"
    Hub().pipe({f"{top}/data/train-0.parquet": table.getvalue(), f"{top}/README.md": b"", f"{top}@r/s/b.jpg": jpg(2)})
    pairs, failures = read("hf:owner/name.v1")
    assert texts(pairs) == {"data/a.jpg": ("one",)} and not failures and pairs[0].image == jpg(1)
    pairs, _ = read("hf:owner/name.v1@r/s", captions="optional")
    assert texts(pairs) == {"b.jpg": ()} and pairs[0].image == jpg(2)
    for wrong in ("hf:name", "hf:owner/", "hf:owner/na me"):
        with pytest.raises(DataError, match="hf:owner/name, with"):
            open_source(wrong)


def test_a_driver_with_errors_of_its_own_is_one_line(monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    class Broken(MemoryFileSystem):
        protocol = "broken"

        def isdir(self, path):
            raise RuntimeError("no route")

    monkeypatch.setitem(import_module("fsspec.registry")._registry, "broken", Broken)
    with pytest.raises(DataError, match=r"broken://x: cannot be opened \(no route\)"):
        open_source("broken://x")


# Hazards


def test_row_failures_each_say_why(tmp_path):
    (tmp_path / "secret.jpg").write_bytes(jpg())
    put(tmp_path / "up/set", a_jpg=jpg(), void_jpg=b"")
    (tmp_path / "up/set/folder.jpg").mkdir()
    rows = [
        {"file": "a.jpg", "text": "good"},
        {"file": "a.jpg", "text": "good"},
        {"file": "a.jpg", "text": "another caption of it"},
        {"file": "gone.jpg", "text": "x"},
        {"file": "../../secret.jpg", "text": "x"},
        {"file": str(tmp_path / "secret.jpg"), "text": "x"},
        {"file": "/etc/passwd", "text": "x"},
        {"file": "void.jpg", "text": "x"},
        {"file": "folder.jpg", "text": "x"},
        {"file": "http://10.0.0.1/x.jpg", "text": "x"},
        {"file": "a.jpg"},
        {"file": "a.jpg", "text": "  "},
        {"text": "x"},
        {"url": "https://example.org/x.jpg", "text": "x"},
        {"file": "n" * 5000, "text": "x"},
        {"file": "a\0.jpg", "text": "x"},
        "{not json",
        "[1, 2]",
    ]
    put(tmp_path / "up/set", t_jsonl=lines(*rows))
    pairs, failures = read(tmp_path / "up/set/t.jsonl")
    assert texts(pairs) == {"a.jpg": ("good",), "a.jpg@2": ("another caption of it",)}
    assert [f.reason for f in failures] == [
        *("duplicate_key", "missing_file", "outside_folder", "outside_folder", "outside_folder", "empty", "not_a_file"),
        *("url", "no_text", "no_text", "no_image", "url", "missing_file", "outside_folder", "bad_row", "bad_row"),
    ]
    assert all(".jsonl:" in f.message and "\n" not in f.message and len(f.message) < 500 for f in failures)
    assert not any(".." in p.key or p.key.startswith("/") for p in pairs)
    assert "looked in ., images" in next(f.message for f in failures if f.key == "gone.jpg")


def test_absolute_paths_inside_the_folder_are_fine(tmp_path):
    put(tmp_path / "s", a_jpg=jpg(), t_jsonl=lines({"file": str(tmp_path / "s/a.jpg"), "text": "x"}))
    pairs, _ = read(tmp_path / "s/t.jsonl")
    assert pairs[0].image == jpg() and not pairs[0].key.startswith("/")


def test_a_folder_given_whole_does_not_reach_its_neighbours(tmp_path):
    put(tmp_path, other__b_jpg=jpg(), set__a_jpg=jpg())
    put(tmp_path, set__captions_jsonl=lines({"file": "a.jpg", "text": "x"}, {"file": "../other/b.jpg", "text": "x"}))
    pairs, failures = read(tmp_path / "set")
    assert list(texts(pairs)) == ["a.jpg"] and failures[0].reason == "outside_folder"


def test_explicit_keys_must_be_unique(tmp_path):
    rows = [{"key": "k", "file": "a.jpg", "text": "x"}, {"key": "k", "file": "b.jpg", "text": "y"}]
    put(tmp_path, a_jpg=jpg(), b_jpg=jpg(), t_jsonl=lines(*rows))
    pairs, failures = read(tmp_path / "t.jsonl")
    assert texts(pairs) == {"k": ("x",)} and reasons(failures) == {"k": "duplicate_key"}


def test_keys_do_not_hang_on_images_that_are_there(tmp_path):
    rows = [{"key": "k", "file": "gone.jpg", "text": "x"}, {"key": "k", "file": "a.jpg", "text": "y"}]
    more = [{"file": "gone.jpg", "text": "x"}, {"file": "gone.jpg", "text": "y"}, {"file": "a.jpg", "text": "z"}]
    put(tmp_path, t_jsonl=lines(*rows, *more), a_jpg=jpg())
    pairs, failures = read(tmp_path / "t.jsonl")
    assert texts(pairs) == {"a.jpg": ("z",)}
    assert [(f.key, f.reason, f.texts) for f in failures] == [
        ("k", "missing_file", ("x",)),
        ("k", "duplicate_key", ("y",)),
        ("gone.jpg", "missing_file", ("x",)),
        ("gone.jpg@2", "missing_file", ("y",)),
    ]


def test_lazily_nothing_is_loaded(tmp_path):
    put(tmp_path, t_jsonl=lines({"file": "gone.jpg", "text": "x"}, {"file": "../../b.jpg", "text": "y"}))
    pair, failure = open_source(tmp_path / "t.jsonl").read(lazy=True)
    assert pair.key == "gone.jpg" and pair.image.path == f"{tmp_path}/gone.jpg"
    assert failure.reason == "outside_folder" and failure.texts == ("y",)
    put(tmp_path, t_jsonl="{", u_jsonl="")
    assert [i.reason for i in open_source(tmp_path / "t.jsonl").read(lazy=True)] == ["bad_row"]
    with pytest.raises(DataError, match="no rows"):
        list(open_source(tmp_path / "u.jsonl").read(lazy=True))


def test_seen_knows_what_came_before():
    seen, known = Seen(), set()
    for i in range(5000):
        what = (f"key {i * i % 3001}", ("text",) * (i % 2))
        assert seen.add(*what) == (what not in known)
        known.add(what)
    assert seen.add("\udcff") and not seen.add("\udcff")


def test_csv_rows_that_do_not_fit(tmp_path):
    put(tmp_path, a_jpg=jpg(), t_csv="file,text\na.jpg,one, two\na.jpg\na.jpg," + "x" * 200_000 + "\n\na.jpg,last\n")
    pairs, failures = read(tmp_path / "t.csv")
    assert texts(pairs) == {"a.jpg": ("last",)}
    assert [f.reason for f in failures] == ["bad_row", "no_text", "bad_row"]


def test_missing_columns_are_named(tmp_path):
    put(tmp_path, t_csv="file,words\na.jpg,x\n", u_csv="photo,text\na.jpg,x\n")
    advice = "no text column found among file, words. Name it with `--set sources.text=COLUMN`"
    with pytest.raises(DataError, match=advice):
        read(tmp_path / "t.csv")
    with pytest.raises(DataError, match="no image column found among photo, text"):
        read(tmp_path / "u.csv")
    with pytest.raises(DataError, match="no column 'foto' among photo, text"):
        read(tmp_path / "u.csv", image="foto")


def test_unsafe_text_is_cleaned_and_flagged(tmp_path):
    put(tmp_path, a_jpg=jpg(), a_txt=b"caf\xe9 \x00\xe2\x80\xaebad", b_jpg=jpg(), b_txt="y" * 20_000)
    pairs, _ = read(tmp_path)
    assert pairs[0].texts == ("caf\ufffd bad",) and set(pairs[0].meta["text_flags"]) >= {"not_utf8", "bidi_stripped"}
    assert len(pairs[1].texts[0]) == 8192 and pairs[1].meta["text_flags"] == ("text_truncated",)


def test_a_broken_table_is_one_failure_among_good_ones(tmp_path):
    put(tmp_path, a_jpg=jpg(), x_parquet=b"PAR1 no")
    parquet.write_table(pa.table({"file": ["a.jpg"], "text": ["one"]}), tmp_path / "y.parquet")
    pairs, failures = read(tmp_path / "*.parquet")
    assert texts(pairs) == {"a.jpg": ("one",)} and reasons(failures) == {"x.parquet": "unreadable"}
    packed = gzip.compress(lines(*({"file": "a.jpg", "text": f"{i}"} for i in range(4000))).encode())
    (tmp_path / "cut.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    pairs, failures = read(tmp_path / "cut.jsonl.gz")
    assert len(pairs) > 100 and [f.reason for f in failures][-1] in ("truncated", "bad_row")


def test_nothing_usable_is_one_clear_line(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        open_source(tmp_path / "gone")
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match=r"an empty folder\. Looked for captions\.jsonl"):
        open_source(tmp_path / "void")
    put(tmp_path, notes_md="hello", docs__x_md="hello")
    with pytest.raises(DataError, match="no pairs"):
        open_source(tmp_path / "docs")
    with pytest.raises(DataError, match=r"not an image, and not one of \.jsonl"):
        open_source(tmp_path / "notes.md")
    put(tmp_path, t_jsonl=lines({"file": "gone.jpg", "text": "x"}, "{"), e_jsonl="")
    with pytest.raises(
        DataError, match=r"no usable pair. 2 rows failed \(missing_file 1, bad_row 1\); the first: t.jsonl:1"
    ):
        read(tmp_path / "t.jsonl")
    with pytest.raises(DataError, match=r"no usable pair\. no rows"):
        read(tmp_path / "e.jsonl")
    with pytest.raises(DataError, match="cannot be opened"):
        open_source("nosuchprotocol://x/y.jsonl")


def test_the_state_of_a_source_is_that_of_its_files_and_their_truth(tmp_path):
    put(tmp_path, a_jpg=jpg(), t_jsonl=lines({"file": "a.jpg", "text": "x"}))
    states = [open_source(tmp_path / "t.jsonl").state()]
    assert open_source(tmp_path / "t.jsonl").state() == states[0]
    (tmp_path / "t.truth.jsonl").write_text(lines({"file": "a.jpg", "text": "x", "kind": "clean", "match": True}))
    states.append(open_source(tmp_path / "t.jsonl").state())
    put(tmp_path, t_jsonl=lines({"file": "a.jpg", "text": "another"}))
    states.append(open_source(tmp_path / "t.jsonl").state())
    assert states[0] != states[1] != states[2]


def test_bytes_are_read_only_as_their_row_is_reached(tmp_path):
    put(
        tmp_path,
        a_jpg=jpg(),
        b_jpg=jpg(),
        t_jsonl=lines({"file": "a.jpg", "text": "x"}, {"file": "b.jpg", "text": "y"}),
    )
    items = open_source(tmp_path / "t.jsonl").read()
    assert next(items).key == "a.jpg"
    (tmp_path / "b.jpg").unlink()
    assert next(items).reason == "missing_file"


def test_order_does_not_hang_on_the_file_system(tmp_path):
    for name in ("z", "b", "a", "m"):
        put(tmp_path, **{f"{name}_jpg": jpg(), f"{name}_txt": name})
    assert [p.key for p in read(tmp_path)[0]] == ["a.jpg", "b.jpg", "m.jpg", "z.jpg"]


def test_a_memory_file_system_works_like_a_disk():
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.pipe({"/set/captions.jsonl": lines({"file": "a.jpg", "text": "x"}).encode(), "/set/images/a.jpg": jpg()})
    assert texts(read("memory://set")[0]) == {"a.jpg": ("x",)}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=40), st.just(b'{"file": "a.jpg", "text": "x"}')), max_size=12))
def test_no_line_is_lost(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("lines")
    put(folder, a_jpg=jpg())
    content = [line.replace(b"\n", b"").replace(b"\r", b"") for line in content]
    (folder / "t.jsonl").write_bytes(b"\n".join([*content, b'{"file": "a.jpg", "text": "sure"}']) + b"\n")
    pairs, failures = read(folder / "t.jsonl")
    blank = sum(not line.decode("utf-8", "replace").removeprefix("\ufeff").strip() for line in content)
    assert len(pairs) + len(failures) == len(content) + 1 - blank
    assert max(Counter(p.key for p in pairs).values()) == 1
