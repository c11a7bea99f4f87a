"""`capfilt caption --ext .txt`: which pictures are captioned, what is written where, what is kept, what is told."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from capfilt.abilities import Caption
from capfilt.cli.sidecars import Form
from capfilt.errors import ConfigError


class Fake:
    """A captioner that says which call a picture was in; `bad.png` cannot be used, `stop.png` interrupts."""

    devices = ("cpu",)

    def __init__(self) -> None:
        self.seen: list[str] = []

    def caption(self, paths: list[Path], n: int | None = None, **how: Any) -> list[Any]:
        written = []
        for path in paths:
            if path.name == "stop.png":
                raise KeyboardInterrupt
            self.seen.append(path.name)
            error = "not_an_image: no picture" if path.name == "bad.png" else None
            captions = [Caption(f"about {path.stem}{' again' * i}", 0.0, error=error) for i in range(n or 1)]
            written.append(captions if n else captions[0])
        return written


@pytest.fixture
def model(monkeypatch) -> Fake:
    fake = Fake()
    monkeypatch.setattr("capfilt.predict.use.load", lambda name, **how: fake)
    return fake


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    (folder / "dogs").mkdir(parents=True)
    for name in ("a.b.png", "c.JPG", "dogs/d.png"):
        (folder / name).write_bytes(b"picture")
    return folder


@pytest.fixture
def caption(capfilt, photos):
    return lambda *words: capfilt("caption", str(photos), "--model", "m", "--ext", ".txt", *words)


def files(folder: Path) -> dict[str, str]:
    """Every file that is no picture."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix.lower() not in (".png", ".jpg"))
    return {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in found}


def test_a_file_beside_each_picture_and_below(caption, photos, model):
    assert caption() == (0, "3 written\n", "")
    assert files(photos) == {"a.b.txt": "about a.b\n", "c.txt": "about c\n", "dogs/d.txt": "about d\n"}


def test_with_out_the_tree_is_there(caption, photos, model, tmp_path):
    assert caption("--out", str(tmp_path / "texts"))[0] == 0
    assert set(files(tmp_path / "texts")) == {"a.b.txt", "c.txt", "dogs/d.txt"}
    assert files(photos) == {}


def test_words_around_the_caption(caption, photos, model):
    words = ("--prefix", "sks, ", "--suffix", ", {dir}/{name}", "--template", "photo: {caption}")
    assert caption(*words)[0] == 0
    assert (photos / "dogs" / "d.txt").read_text() == "sks, photo: about d, dogs/d\n"


def test_several_captions_are_lines(caption, photos, model):
    assert caption("--n", "2")[0] == 0
    assert (photos / "c.txt").read_text() == "about c\nabout c again\n"


def test_skip_never_looks_at_pictures_that_have_text(caption, photos, model):
    (photos / "c.txt").write_text("mine")
    (photos / "a.b.txt").write_text(" \n")  # counts as none
    assert caption() == (0, "2 written, 1 skipped\n", "")
    assert sorted(model.seen) == ["a.b.png", "d.png"]
    assert (photos / "c.txt").read_text() == "mine" and "c.txt.bak" not in files(photos)
    assert caption() == (0, "0 written, 3 skipped\n", "") and len(model.seen) == 2


@pytest.mark.parametrize(
    ("existing", "text"),
    [("overwrite", "about c\n"), ("append", "mine, about c\n"), ("prepend", "about c, mine\n")],
)
def test_what_was_there_is_kept_once(caption, photos, model, existing, text):
    (photos / "c.txt").write_text("mine\n")
    assert caption("--existing", existing) == (0, "3 written\n", "")
    assert files(photos)["c.txt"] == text and files(photos)["c.txt.bak"] == "mine\n"
    assert caption("--existing", existing) == (0, "0 written, 3 unchanged\n", "")
    assert files(photos)["c.txt"] == text and files(photos)["c.txt.bak"] == "mine\n"
    assert caption("--existing", "overwrite", "--prefix", "new ")[0] == 0
    assert files(photos)["c.txt"] == "new about c\n" and files(photos)["c.txt.bak"] == "mine\n"


def test_lines_are_added_as_lines():
    form = Form("txt", existing="append")
    assert form.joined("one\ntwo", "three") == "one\ntwo\nthree"
    assert form.joined("one\ntwo\nthree", "three") == "one\ntwo\nthree"
    assert Form("txt", existing="prepend").joined("one", "two\nthree") == "two\nthree\none"


def test_a_bad_picture_stands_in_the_table_until_it_is_mended(caption, photos, model):
    (photos / "bad.png").write_bytes(b"<html>")
    code, out, err = caption()
    assert (code, out) == (3, "3 written, 1 failed\n") and "1 of 4 pictures have no caption" in err
    rows = [json.loads(line) for line in files(photos)["captions-failed.jsonl"].splitlines()]
    bad = str(photos / "bad.png")
    assert rows == [{"image": bad, "reason": "not_an_image", "error": "not_an_image: no picture"}]
    (photos / "bad.png").unlink()
    assert caption()[0] == 0 and "captions-failed.jsonl" not in files(photos)


def test_two_pictures_of_one_name_do_not_share_a_file(caption, photos, model):
    (photos / "c.png").write_bytes(b"another")
    code, out, _ = caption()
    assert (code, out) == (3, "3 written, 1 failed\n")
    assert json.loads(files(photos)["captions-failed.jsonl"])["reason"] == "same_name"
    assert files(photos)["c.txt"] == "about c\n" and "c.png" not in model.seen


def test_an_interrupted_run_goes_on(caption, photos, model):
    (photos / "cc.png").write_bytes(b"picture")
    (photos / "dogs" / "stop.png").write_bytes(b"picture")
    assert caption()[0] == 130
    done = files(photos)
    assert done and not [name for name in done if "failed" in name or "tmp" in name]
    (photos / "dogs" / "stop.png").unlink()
    seen = list(model.seen)
    assert caption()[0] == 0
    assert set(files(photos)) == {"a.b.txt", "c.txt", "cc.txt", "dogs/d.txt"}
    assert not {f"{Path(name).stem}" for name in done} & {Path(name).stem for name in model.seen[len(seen) :]}


def test_names_that_are_no_text(tmp_path):
    form = Form(".txt", template="{name}: {caption}")
    assert form.text(tmp_path / "a\udcff\n.png", "b") == "a?: b"


def test_what_a_form_refuses():
    for words, said in (
        ({"ext": "../x"}, "no suffix for texts"),
        ({"ext": ""}, "no suffix"),
        ({"ext": "jpeg"}, "no suffix"),
        ({"ext": "txt", "prefix": "{0}"}, "no field {0}"),
    ):
        with pytest.raises(ConfigError, match=r"caption|--ext") as error:
            Form(**words)
        assert said in str(error.value)


def test_of_nothing_to_do_no_model_is_opened(caption, photos, monkeypatch):
    for name in ("a.b.txt", "c.txt", "dogs/d.txt"):
        (photos / name).write_text("x")
    monkeypatch.setattr("capfilt.predict.use.load", SimpleNamespace())
    assert caption() == (0, "0 written, 3 skipped\n", "")
