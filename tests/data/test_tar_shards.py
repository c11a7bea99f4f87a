import gzip
import io
import os
import pickle
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capfilt.data import tar_shards
from capfilt.data.sources import Failure, open_source
from capfilt.data.tar_shards import expand, split_name
from capfilt.errors import DataError
from capfilt.pair import Pair

from .conftest import jpg, read, reasons, texts


def shard(path, members, **options):
    """A tar of (name, bytes), or (TarInfo, None)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, options.pop("mode", "w"), **options) as tar:
        for name, data in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data or b"")
            tar.addfile(info, io.BytesIO(data) if data is not None else None)
    return path


def test_webdataset_shards(tmp_path):
    one = [
        ("x.jpg", jpg(1)),
        ("x.txt", b"one\nline"),
        ("x.json", b'{"url": "u"}'),
        ("y.jpg", jpg()),
        ("y.json", b'{"caption": "two"}'),
    ]
    shard(tmp_path / "d/00000.tar", one)
    shard(tmp_path / "d/00001.tar.gz", [("x.png", jpg()), ("x.caption", b"three")], mode="w:gz")
    want = {"00000/x": ("one line",), "00000/y": ("two",), "00001/x": ("three",)}
    pairs, failures = read(tmp_path / "d")
    assert texts(pairs) == want and not failures and pairs[0].meta == {"url": "u"}
    assert pairs[0].image == jpg(1)
    assert texts(read(f"{tmp_path}/d/*.tar*")[0]) == want
    shard(tmp_path / "d/00001.tar", [("z.jpg", jpg()), ("z.txt", b"four")])
    pairs, failures = read(f"{tmp_path}/d/{{00000..00002}}.tar")
    assert list(texts(pairs)) == ["00000/x", "00000/y", "00001/z"] and reasons(failures) == {
        "00002.tar": "missing_file"
    }


def test_interleaved_members_are_grouped(tmp_path):
    members = [("a.jpg", jpg()), ("b.jpg", jpg()), ("a.txt", b"one"), ("b.txt", b"two")]
    pairs, failures = read(shard(tmp_path / "s.tar", members))
    assert texts(pairs) == {"s/a": ("one",), "s/b": ("two",)} and not failures


def test_dotted_names(tmp_path):
    members = [("img.v1.0.JPG", jpg()), ("img.v1.0.txt", b"one"), ("dir.d/x.jpeg", jpg()), ("dir.d/x.txt", b"two")]
    assert texts(read(shard(tmp_path / "s.tar", members))[0]) == {"s/img.v1.0": ("one",), "s/dir.d/x": ("two",)}
    assert split_name("a/.jpg") == ("a/.jpg", "")


def test_duplicate_members_cost_one_row_only(tmp_path):
    members = [
        ("a.jpg", jpg(1)),
        ("a.txt", b"one"),
        ("a.jpg", jpg(2)),
        ("b.jpg", jpg()),
        ("b.png", jpg()),
        ("b.txt", b"two"),
    ]
    pairs, failures = read(shard(tmp_path / "s.tar", members))
    assert texts(pairs) == {"s/a": ("one",), "s/b": ("two",)} and pairs[0].image == jpg(1)
    assert reasons(failures) == {"s/a": "duplicate_key", "s/b": "duplicate_key"}


def test_tar_traversal_links_and_devices_are_never_followed(tmp_path):
    link, device = tarfile.TarInfo("l.jpg"), tarfile.TarInfo("d.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    device.type = tarfile.CHRTYPE
    members = [
        ("../../evil.jpg", jpg()),
        ("/abs.jpg", jpg()),
        (link, None),
        (device, None),
        ("ok.jpg", jpg()),
        ("ok.txt", b"x"),
    ]
    before = sorted(tmp_path.rglob("*"))
    path = shard(tmp_path / "s.tar", members)
    pairs, failures = read(path)
    assert texts(pairs) == {"s/ok": ("x",)}
    assert sorted(f.reason for f in failures) == ["not_a_file", "not_a_file", "outside_folder", "outside_folder"]
    assert sorted(tmp_path.rglob("*")) == sorted([*before, path])


def test_no_pickle_is_opened_and_no_pipe_runs(tmp_path):
    class Canary:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    path = shard(
        tmp_path / "s.tar", [("a.pyd", pickle.dumps(Canary())), ("a.jpg", jpg()), ("a.txt", b"one"), ("a.pkl", b"")]
    )
    assert texts(read(path)[0]) == {"s/a": ("one",)}
    with pytest.raises(DataError, match="never run"):
        open_source(f"pipe:mkdir {tmp_path}/ran")
    assert not (tmp_path / "ran").exists()


def test_a_shard_cut_at_every_block_gives_its_whole_samples(tmp_path):
    members = [
        (f"{name}.{kind}", jpg() if kind == "jpg" else name.encode()) for name in "abc" for kind in ("jpg", "txt")
    ]
    data = shard(tmp_path / "whole.tar", members).read_bytes()
    with tarfile.open(tmp_path / "whole.tar") as tar:
        ends = [m.offset_data + m.size for m in tar.getmembers() if m.name.endswith("txt")]
    end_mark = -(-ends[-1] // 512) * 512 + 512
    for cut in [*range(512, len(data), 512), *range(700, end_mark, 333)]:
        (tmp_path / "cut.tar").write_bytes(data[:cut])
        whole = sum(end <= cut for end in ends)
        source = open_source(tmp_path / "cut.tar").read()
        items = []
        try:
            items.extend(source)
        except DataError:
            assert whole == 0, cut
            continue
        assert sum(isinstance(i, Pair) for i in items) == whole, cut
        failures = [i for i in items if isinstance(i, Failure)]
        assert [f.reason for f in failures] == ["truncated"] * (cut < end_mark), (cut, failures)


def test_without_captions_the_half_sample_at_a_cut_is_not_taken_for_a_whole_one(tmp_path):
    members = [("a.jpg", jpg()), ("b.jpg", jpg()), ("b.txt", b"text of b")]
    data = shard(tmp_path / "s.tar", members).read_bytes()
    with tarfile.open(tmp_path / "s.tar") as tar:
        end = tar.getmembers()[1].offset_data + 1024
    pairs, failures = read(tmp_path / "s.tar", captions="optional")
    assert texts(pairs) == {"s/a": (), "s/b": ("text of b",)} and not failures
    (tmp_path / "s.tar").write_bytes(data[:end])
    pairs, failures = read(tmp_path / "s.tar", captions="optional")
    assert texts(pairs) == {"s/a": ()} and reasons(failures) == {"s": "truncated"}
    assert "1 samples are incomplete (b)" in failures[0].message


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_packed_shards(tmp_path, suffix):
    members = [
        ("a.txt", b"one"),
        ("a.json", b'{"n": 1}'),
        ("a.jpg", jpg(1)),
        ("b.jpg", jpg(2)),
        ("b.txt", b"y" * 70_000),
    ]
    pairs, failures = read(shard(tmp_path / f"s.tar.{suffix}", members, mode=f"w:{suffix}"))
    assert [(p.key, p.image, len(p.texts[0])) for p in pairs] == [("s/a", jpg(1), 3), ("s/b", jpg(2), 8192)]
    assert pairs[0].meta == {"n": 1} and not failures


def test_a_text_that_cannot_be_had_costs_its_row(tmp_path, monkeypatch):
    members = [("a.jpg", jpg()), ("a.txt", b"one"), ("b.jpg", jpg()), ("b.txt", b"two")]
    path, plain = shard(tmp_path / "s.tar", members), tar_shards.read

    def read_badly(handle, member):
        if member.name == "a.txt":
            raise OSError("the line broke")
        return plain(handle, member)

    monkeypatch.setattr(tar_shards, "read", read_badly)
    pairs, failures = read(path)
    assert texts(pairs) == {"s/b": ("two",)} and reasons(failures) == {"s/a": "unreadable"}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=6), st.integers(0, 10_240))
def test_a_damaged_shard_never_raises_anything_but_data_errors(tmp_path_factory, places, cut):
    folder = tmp_path_factory.mktemp("shard")
    members = [(f"{name}.{kind}", jpg() if kind == "jpg" else b"x") for name in "ab" for kind in ("jpg", "txt")]
    data = bytearray(shard(folder / "s.tar", members).read_bytes())
    for place, value in places:
        data[place % len(data)] = value
    (folder / "s.tar").write_bytes(data[:cut] if cut % 2 else data)
    try:
        pairs, _ = read(folder / "s.tar")
        assert all(pair.image and pair.texts for pair in pairs)
    except DataError as error:
        assert "\n" not in str(error)


def test_what_is_no_shard(tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/a.tar").write_text("<html>not found</html>" * 50)
    (tmp_path / "bad/b.tar").write_bytes(b"")
    shard(tmp_path / "bad/c.tar", [("x.jpg", jpg()), ("x.txt", b"one")])
    (tmp_path / "bad/d.tar.gz").write_bytes(
        gzip.compress(shard(tmp_path / "z.tar", [("q.jpg", jpg())]).read_bytes())[:-60]
    )
    pairs, failures = read(tmp_path / "bad")
    assert texts(pairs) == {"c/x": ("one",)}
    assert {f.key: f.reason for f in failures}["a"] == "unreadable"
    assert {"a", "b", "d"} == {f.key for f in failures}


def test_braces():
    assert expand("s-{08..11}.tar") == ["s-08.tar", "s-09.tar", "s-10.tar", "s-11.tar"]
    assert expand("{a,b}/{1..2}.tar") == ["a/1.tar", "a/2.tar", "b/1.tar", "b/2.tar"]
    assert expand("plain.tar") == ["plain.tar"]
    with pytest.raises(DataError, match="more than"):
        expand("{0..99999999}.tar")
    with pytest.raises(DataError, match="more than"):
        expand("{0..9999}/{0..9999}.tar")
