import contextlib
import io
import random
import tarfile

import fsspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from capfilt.data import readers, refs
from capfilt.data.refs import Images, Ref
from capfilt.data.sources import open_source
from capfilt.errors import ImageError
from capfilt.pair import Pair

from .conftest import jpg


def pack(path, members, mode="w"):
    with fsspec.open(str(path), "wb") as handle, tarfile.open(fileobj=handle, mode=mode) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def lazily(path, **options):
    """Key → ref."""
    items = list(open_source(path, captions="optional", **options).read(lazy=True))
    assert all(isinstance(item, Pair) for item in items), items
    return {item.key: item.image for item in items}


def loaded(found):
    with Images() as images:
        return {key: images.load(ref.json()) for key, ref in found.items()}


def fails(ref):
    with Images() as images, pytest.raises(ImageError) as caught:
        images.load(ref)
    return caught.value.reason


class Watched:
    """A file that notes how far it is sought and how much is read."""

    def __init__(self, handle):
        self.handle, self.sought, self.bytes = handle, [], 0

    def __getattr__(self, name):
        return getattr(self.handle, name)

    def seek(self, offset, whence=0):
        if whence == 0:
            self.sought.append(offset)
        return self.handle.seek(offset, whence)

    def read(self, size=-1):
        data = self.handle.read(size)
        self.bytes += len(data)
        return data


@pytest.fixture
def watched(monkeypatch):
    """Every file that is opened, by readers and by `Images`."""
    files, plain = [], refs.opened

    @contextlib.contextmanager
    def opened(fs, path):
        with plain(fs, path) as handle:
            files.append(Watched(handle))
            yield files[-1]

    monkeypatch.setattr(refs, "opened", opened)
    monkeypatch.setattr(readers, "opened", opened)
    return files


places = st.text(st.characters(codec=None), min_size=1)


@given(st.sampled_from(["file", "part", "cell", "url"]), places, st.integers(0), st.integers(0), places)
def test_json_and_back(kind, path, offset, row, name):
    ref = Ref(kind, path, offset, 3, row, name, (name,))
    assert Ref.of_json(ref.json()) == ref and ref.json().isascii() and "\n" not in ref.json()


def test_json_says_no_more_than_needed():
    assert Ref("file", "/a.jpg").json() == '{"kind": "file", "path": "/a.jpg"}'


@pytest.mark.parametrize("root", ["disk", "memory"])
def test_every_kind_is_found_again_without_its_source(root, tmp_path):
    top = str(tmp_path) if root == "disk" else f"memory://{tmp_path.name}"
    with fsspec.open(f"{top}/photos/sub/a.jpg", "wb", auto_mkdir=True) as file:
        file.write(jpg(1))
    pack(f"{top}/plain.tar", [("a.jpg", jpg(2)), ("b.txt", b"b"), ("b.jpg", jpg(3))])
    pack(f"{top}/packed.tar.gz", [("a.jpg", jpg(4)), ("b.txt", b"b"), ("b.jpg", jpg(5))], mode="w:gz")
    table = {"image": [{"bytes": jpg(6), "path": "x.jpg"}, {"bytes": jpg(7), "path": None}], "png": [jpg(8), jpg(9)]}
    with fsspec.open(f"{top}/rows.parquet", "wb") as file:
        parquet.write_table(pa.table(table), file)
    with fsspec.open(f"{top}/photos.jsonl", "wb") as file:
        file.write(b'{"file": "photos/sub/a.jpg"}\n')
    assert loaded(lazily(f"{top}/photos")) == {"sub/a.jpg": jpg(1)}
    assert loaded(lazily(f"{top}/photos/sub/a.jpg")) == {"a.jpg": jpg(1)}
    assert loaded(lazily(f"{top}/plain.tar")) == {"plain/a": jpg(2), "plain/b": jpg(3)}
    assert loaded(lazily(f"{top}/packed.tar.gz")) == {"packed/a": jpg(4), "packed/b": jpg(5)}
    assert loaded(lazily(f"{top}/rows.parquet")) == {"x.jpg": jpg(6), "rows.parquet:2": jpg(7)}
    assert loaded(lazily(f"{top}/rows.parquet", image="png")) == {"rows.parquet:1": jpg(8), "rows.parquet:2": jpg(9)}
    assert list(loaded(lazily(f"{top}/photos.jsonl")).values()) == [jpg(1)]


def test_a_relative_path_is_found_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a::b.jpg").write_bytes(jpg())
    monkeypatch.chdir(tmp_path)
    found = lazily("photos")
    monkeypatch.chdir("/")
    assert loaded(found) == {"a::b.jpg": jpg()}


def test_what_cannot_be_loaded_says_why(tmp_path, monkeypatch):
    (tmp_path / "void.jpg").write_bytes(b"")
    (tmp_path / "big.jpg").write_bytes(b"x" * 2000)
    (tmp_path / "a.tar").write_bytes(b"x" * 100)
    (tmp_path / "bad.tar.gz").write_bytes(b"x" * 100)
    (tmp_path / "bad.parquet").write_bytes(b"x" * 100)
    parquet.write_table(pa.table({"jpg": [b"a", None]}), tmp_path / "a.parquet")
    monkeypatch.setattr(refs, "MAX_IMAGE_BYTES", 1000)
    at = str(tmp_path)
    assert fails(Ref("file", f"{at}/gone.jpg")) == "missing_file"
    assert fails(Ref("file", f"{at}/void.jpg/x.jpg")) == "missing_file"
    assert fails(Ref("file", at)) == "not_a_file"
    assert fails(Ref("file", f"{at}/void.jpg")) == "empty"
    assert fails(Ref("file", f"{at}/big.jpg")) == "too_large"
    assert fails(Ref("file", f"{at}/\0.jpg")) == "unreadable"
    assert fails(Ref("part", f"{at}/big.jpg", 0, 1500)) == "too_large"
    assert fails(Ref("part", f"{at}/a.tar", 50, 51)) == "truncated"
    assert fails(Ref("part", f"{at}/gone.tar", 50, 51)) == "missing_file"
    assert fails(Ref("part", f"{at}/bad.tar.gz", 0, 10)) == "unreadable"
    assert fails(Ref("cell", f"{at}/bad.parquet", row=0, column="jpg")) == "unreadable"
    assert fails(Ref("cell", f"{at}/a.parquet", row=0, column="png")) == "unreadable"
    assert fails(Ref("cell", f"{at}/a.parquet", row=1, column="jpg")) == "no_image"
    assert fails(Ref("cell", f"{at}/a.parquet", row=2, column="jpg")) == "truncated"
    assert fails(Ref("url", "https://example.org/a.jpg")) == "url"
    assert fails(Ref("file", "memory://nowhere/a.jpg")) == "missing_file"


def test_the_first_place_that_holds_a_file_counts(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_bytes(b"b")
    (tmp_path / "c").write_bytes(b"c")
    gone, folder, b, c = (str(tmp_path / name) for name in ("gone", "a", "b", "c"))
    with Images() as images:
        assert images.load(Ref("file", gone, instead=(folder, b, c))) == b"b"
    assert fails(Ref("file", gone, instead=(folder,))) == "not_a_file"
    with pytest.raises(ImageError, match=r"/gone: no such file \(looked in \., x\)"):
        Images().load(Ref("file", gone, instead=(f"{tmp_path}/x/gone",)))


def test_a_packed_shard_is_walked_forward_once_to_read_it_and_once_to_load_it(tmp_path, watched):
    members = [(f"{i:03d}.{s}", jpg(i) if s == "jpg" else b"{}") for i in range(40) for s in ("jpg", "txt", "json")]
    pack(tmp_path / "s.tar.gz", members, mode="w:gz")
    found = lazily(tmp_path / "s.tar.gz")
    assert len(found) == 40 and list(loaded(found).values()) == [jpg(i) for i in range(40)]
    assert len(watched) == 2
    for file in watched:
        assert file.sought == sorted(file.sought)


@pytest.mark.parametrize("struct", [True, False])
def test_images_in_parquet_are_not_read_before_they_are_loaded(tmp_path, watched, struct):
    blob = random.Random(0).randbytes
    cells = [blob(20_000) for _ in range(100)]
    images = [{"bytes": cell, "path": f"{i}.jpg"} for i, cell in enumerate(cells)] if struct else cells
    table = pa.table({"image": images, "text": ["words"] * 100})
    parquet.write_table(table, tmp_path / "t.parquet", row_group_size=30)
    found = lazily(tmp_path / "t.parquet")
    assert len(found) == 100 and ("0.jpg" in found) == struct
    assert watched[0].bytes < 100_000
    assert list(loaded(found).values()) == cells
    assert len(watched) == 2 and watched[1].bytes < 2_100_000
    backwards = dict(reversed(found.items()))
    assert list(loaded(backwards).values()) == cells[::-1]


def test_cells_that_may_be_empty_are_looked_at(tmp_path):
    (tmp_path / "b.jpg").write_bytes(jpg(2))
    rows = [{"image": {"bytes": jpg(1), "path": "a.jpg"}}, {"image": {"bytes": None, "path": "b.jpg"}}]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    found = lazily(tmp_path / "t.parquet")
    assert loaded(found) == {"a.jpg": jpg(1), "b.jpg": jpg(2)}
    assert [ref.kind for ref in found.values()] == ["cell", "file"]


def test_few_files_stay_open(tmp_path, watched):
    for i in range(6):
        pack(tmp_path / f"{i}.tar", [("a.jpg", jpg(i))])
    found = [Ref("part", str(tmp_path / f"{i}.tar"), 512, len(jpg(i))) for i in range(6)]
    with Images() as images:
        for _ in range(3):
            assert [images.load(ref) for ref in found[:4]] == [jpg(i) for i in range(4)]
        assert len(watched) == 4
        assert [images.load(ref) for ref in found] == [jpg(i) for i in range(6)]
        assert [file.closed for file in watched] == [True, True, False, False, False, False]
    assert all(file.closed for file in watched)
