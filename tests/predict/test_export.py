"""The ONNX files do what the model does: matches, vectors, and a caption written id by id outside torch."""

import dataclasses
import json
import sys
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch

from capfilt.errors import CheckFailed, ConfigError
from capfilt.inputs.images import MEAN, STD, normalize
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import PRESETS, Blip
from capfilt.predict import export as module
from capfilt.predict.decode import Decoding
from capfilt.predict.export import export_onnx
from capfilt.predict.predictor import Predictor
from capfilt.predict.sampling import penalised

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

TEXTS = ["a red cube", "a small blue ball on a green box", "two cones beside a cube"]
EVERY = {"image_encoder", "text_encoder", "matcher", "projector", "speaker"}


def a_predictor(roles=("read", "look", "speak"), stem: str = "linear") -> Predictor:
    tokenizer = TextTokenizer.train(TEXTS, 64)
    config = PRESETS["tiny"].with_words(tokenizer)
    vit = dataclasses.replace(config.vit, stem=stem)
    model = Blip(dataclasses.replace(config, vit=vit, roles=tuple(roles), queue=0))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim:
                p.normal_(0, 0.25, generator=generator)
    return Predictor(model.eval(), tokenizer)


@pytest.fixture(scope="module", autouse=True)
def unchecked():
    """While torch traces, a length is a tensor and no int."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return a_predictor()


@pytest.fixture(scope="module")
def folder(predictor: Predictor, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("onnx")
    export_onnx(predictor.model, predictor.tokenizer, folder)
    return folder


def run(folder: Path, part: str, *given: np.ndarray) -> list[np.ndarray]:
    about = json.loads((folder / "onnx.json").read_text())["parts"][part]
    session = onnxruntime.InferenceSession(folder / about["file"], providers=["CPUExecutionProvider"])
    return session.run(list(about["gives"]), dict(zip(about["takes"], given, strict=True)))


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def test_what_is_written(folder: Path, predictor: Predictor):
    about = json.loads((folder / "onnx.json").read_text())
    assert set(about["parts"]) == EVERY
    assert about["special"]["dec"] == predictor.tokenizer.dec_id
    assert (about["px"], tuple(about["mean"]), tuple(about["std"])) == (32, MEAN, STD)
    assert all(0 <= part["difference"] < 1e-5 for part in about["parts"].values())
    for part in about["parts"].values():
        session = onnxruntime.InferenceSession(folder / part["file"], providers=["CPUExecutionProvider"])
        assert [x.name for x in session.get_inputs()] == list(part["takes"])
        for x in session.get_inputs():
            assert tuple(map(str, x.shape)) == tuple(part["takes"][x.name])
    assert len(TextTokenizer.load(folder)) == len(predictor.tokenizer)


def test_matching_outside_torch(folder: Path, predictor: Predictor):
    pixels = pictures(3)
    image, image_vec = run(folder, "image_encoder", normalize(pixels).numpy())
    ids, mask = predictor.tokenizer.pad(predictor.tokenizer.encode(TEXTS))
    (text_vec,) = run(folder, "text_encoder", ids, mask)
    (logits,) = run(folder, "matcher", ids, mask, image)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    probability, cosine = odds[:, 1] / odds.sum(axis=1), (image_vec * text_vec).sum(axis=1)
    want = np.array([pair[0] for pair in predictor.match(pixels, [[t] for t in TEXTS])])
    np.testing.assert_allclose(np.stack((probability, cosine), axis=1), want, atol=1e-4)


@pytest.mark.parametrize("prompt", ["", "two cones "])
def test_greedy_captions_outside_torch(folder: Path, predictor: Predictor, prompt: str):
    pixels = pictures(4)
    (image, _) = run(folder, "image_encoder", normalize(pixels).numpy())
    keys, values = run(folder, "projector", image)
    layers, rows, heads, _, size = keys.shape
    past = [np.zeros((layers, rows, heads, 0, size), np.float32)] * 2
    spoken = Predictor(predictor.model, predictor.tokenizer, prompt=prompt)
    assert len(spoken.start) == 1 + 2 * bool(prompt)
    for start in spoken.start:
        logits, *past = run(folder, "speaker", np.full((rows, 1), start), keys, values, *past)
    ids = np.tile(spoken.start, (rows, 1))
    for _ in range(12):
        seen = torch.from_numpy(logits[:, : len(predictor.tokenizer)]), torch.from_numpy(ids)
        word = penalised(*seen, 3.0).argmax(dim=1, keepdim=True).numpy()  # random weights like to say one word only
        ids = np.concatenate((ids, word), axis=1)
        logits, *past = run(folder, "speaker", word, keys, values, *past)
    greedy = Decoding(method="greedy", max_length=12, min_length=0, count_prompt=False, repetition_penalty=3.0)
    wanted = [caption.tokens for caption in spoken.caption(pixels, [0] * 4, greedy)]
    assert len(set(wanted)) > 1 and max(len(set(tokens)) for tokens in wanted) > 3
    for row, want in zip(ids[:, len(spoken.start) :].tolist(), wanted, strict=True):
        assert tuple(row[: len(want)]) == want
        assert len(want) == 12 or want[-1] == predictor.tokenizer.sep_id


def test_other_stems(tmp_path: Path):
    conv, histogram = (a_predictor(("look",), stem) for stem in ("conv", "histogram"))
    assert set(export_onnx(conv.model, conv.tokenizer, tmp_path)["parts"]) == {"image_encoder", "matcher"}
    with pytest.raises(ConfigError, match="histogram"):
        export_onnx(histogram.model, histogram.tokenizer, tmp_path)


def test_a_captioner_brings_what_it_can(tmp_path: Path):
    predictor = a_predictor(("speak",))
    about = export_onnx(predictor.model, predictor.tokenizer, tmp_path)
    assert set(about["parts"]) == {"image_encoder", "projector", "speaker"}
    assert list(about["parts"]["image_encoder"]["gives"]) == ["image"]


def test_a_file_that_differs_is_an_error(predictor: Predictor, tmp_path: Path, monkeypatch):
    forward = module.Matcher.forward

    def fixed(self, ids, mask, image):  # what tracing would have frozen
        return forward(self, ids, mask, image) + float(image.mean())

    monkeypatch.setattr(module.Matcher, "forward", fixed)
    with pytest.raises(CheckFailed, match=r"matcher\.onnx: differs from torch"):
        export_onnx(predictor.model, predictor.tokenizer, tmp_path)
    assert not (tmp_path / "onnx.json").exists()


def test_without_the_packages(predictor: Predictor, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"capfilt\[onnx\]"):
        export_onnx(predictor.model, predictor.tokenizer, tmp_path)
