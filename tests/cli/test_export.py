"""`capfilt export` knows a run from a model, hands it down and prints what came back."""

import dataclasses
from pathlib import Path

import pytest

from capfilt.clean import export as package
from capfilt.clean.export import FORMATS, Choice
from capfilt.data.run_source import Mix
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import PRESETS, Blip
from capfilt.models.blip_vqa import PRESETS as VQA_PRESETS
from capfilt.models.blip_vqa import BlipVqa
from capfilt.predict import export
from capfilt.weights import store

RAN = {"rows": 3, "failed": 0, "parts": []}


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    """A folder that is taken for a run; what is asked of it is kept in `asked`."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "decisions.parquet").write_bytes(b"")
    asked.clear()
    monkeypatch.setattr(package, "export_table", lambda *words: asked.append(words) or 7)
    monkeypatch.setattr(package, "export_folder", lambda *words: asked.append(words) or told)
    told.clear()
    told.update(RAN)
    return tmp_path / "run"


asked: list[tuple] = []
told: dict = {}


def test_a_run_in_every_format(capfilt, run, tmp_path):
    out = str(tmp_path / "out")
    for form in FORMATS:
        code, said, _ = capfilt("export", str(run), "--format", form, "-o", out)
        assert (code, said) == (0, f"{out}  {7 if form in ('jsonl', 'csv') else 3} rows\n")
        assert asked[-1][:4] == (run, out, form, Choice())
    capfilt("export", str(run), out, "--format", "parquet", "--decision", "keep, replace", "--mix", "web=.3,syn=.7")
    assert asked[-1][3:] == (Choice(("keep", "replace"), Mix(0.3)), False)
    capfilt("export", str(run), out, "--format", "parquet", "--strip-gps")
    assert asked[-1][4] is True


def test_rows_without_image_are_told(capfilt, run, tmp_path):
    gone = {"id": "0", "key": "k", "reason": "missing_file", "error": "k: no such file"}
    told.update(failed=2, parts=[{"failed": []}, {"failed": [gone, gone]}])
    code, said, err = capfilt("export", str(run), "--format", "parquet", "-o", "out")
    assert (code, said) == (3, "out  3 rows\n")
    assert err == "capfilt: 2 rows have no image any more. out/export.json names them; the first: k: no such file\n"


def test_what_does_not_go_together(capfilt, run, tmp_path):
    model = str(tmp_path / "model")
    for words, said in (
        ((str(run), "--format", "jsonl"), "say once where to"),
        ((str(run), "a", "-o", "b", "--format", "jsonl"), "say once where to"),
        ((str(run), "a"), "give --format imagefolder|webdataset|parquet|jsonl|csv|sidecar"),
        ((str(run), "a", "--format", "onnx"), "is a cleaning run"),
        ((str(run), "a", "--format", "jsonl", "--strip-gps"), "jsonl holds no images"),
        ((str(run), "a", "--format", "jsonl", "--mix", "web"), "no name=number"),
        ((str(run), "a", "--format", "jsonl", "--decision", "kept"), "decision kept"),
        ((model, "a", "--format", "jsonl"), "for cleaning runs"),
        ((model, "a", "--mix", "web=.3"), "--mix belong to cleaning runs"),
    ):
        code, out, err = capfilt("export", *words)
        assert (code, out) == (2, "") and said in err and err.count("\n") == 1
    assert not asked


def test_what_is_written_is_told(capfilt, tmp_path: Path, monkeypatch):
    tokenizer = TextTokenizer.train(["a red cube"], 64)
    config = dataclasses.replace(PRESETS["tiny"].with_words(tokenizer), queue=0)
    store.save(Blip(config).init_weights(), tokenizer, tmp_path / "model")
    told = {"parts": {"matcher": {"file": "matcher.onnx", "difference": 3e-7}}}
    monkeypatch.setattr(export, "export_onnx", lambda model, tokenizer, folder: told)
    out = tmp_path / "onnx"
    code, said, _ = capfilt("export", str(tmp_path / "model"), str(out), "--format", "onnx")
    assert (code, said) == (0, f"{out / 'matcher.onnx'}  differs from torch by 3.0e-07\n")
    assert capfilt("export", str(tmp_path / "model"), "-o", str(out))[:2] == (code, said)
    assert capfilt("export", str(tmp_path / "model"), str(out), "--format", "other")[0] == 2


def test_a_model_that_cannot_be_exported(capfilt, tmp_path: Path):
    tokenizer = TextTokenizer.train(["a red cube"], 64)
    config = VQA_PRESETS["tiny"]
    text = dataclasses.replace(config.text, vocab=len(tokenizer))
    store.save(BlipVqa(dataclasses.replace(config, text=text)).init_weights(), tokenizer, tmp_path)
    code, _, err = capfilt("export", str(tmp_path), str(tmp_path / "onnx"))
    assert code == 2 and "can ask" in err
