"""`capfilt export` hands the model down and prints what came back."""

import dataclasses
from pathlib import Path

from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import PRESETS, Blip
from capfilt.models.blip_vqa import PRESETS as VQA_PRESETS
from capfilt.models.blip_vqa import BlipVqa
from capfilt.predict import export
from capfilt.weights import store


def test_what_is_written_is_told(capfilt, tmp_path: Path, monkeypatch):
    tokenizer = TextTokenizer.train(["a red cube"], 64)
    config = dataclasses.replace(PRESETS["tiny"].with_words(tokenizer), queue=0)
    store.save(Blip(config).init_weights(), tokenizer, tmp_path / "model")
    told = {"parts": {"matcher": {"file": "matcher.onnx", "difference": 3e-7}}}
    monkeypatch.setattr(export, "export_onnx", lambda model, tokenizer, folder: told)
    out = tmp_path / "onnx"
    code, said, _ = capfilt("export", str(tmp_path / "model"), str(out), "--format", "onnx")
    assert (code, said) == (0, f"{out / 'matcher.onnx'}  differs from torch by 3.0e-07\n")
    assert capfilt("export", str(tmp_path / "model"), str(out), "--format", "other")[0] == 2


def test_a_model_that_cannot_be_exported(capfilt, tmp_path: Path):
    tokenizer = TextTokenizer.train(["a red cube"], 64)
    config = VQA_PRESETS["tiny"]
    text = dataclasses.replace(config.text, vocab=len(tokenizer))
    store.save(BlipVqa(dataclasses.replace(config, text=text)).init_weights(), tokenizer, tmp_path)
    code, _, err = capfilt("export", str(tmp_path), str(tmp_path / "onnx"))
    assert code == 2 and "can ask" in err
