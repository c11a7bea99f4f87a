"""Our own files, and that others can read what is written for them."""

import dataclasses
import json

import pytest
import torch

from capfilt.errors import ConfigError, WeightsError
from capfilt.models.blip import PRESETS, Blip
from capfilt.weights import store
from capfilt.weights.store import config_of, described, hollow, load, official_state, save, save_as

ONE_EACH = [("caption", "BlipForConditionalGeneration"), ("match", "BlipForImageTextRetrieval")]
ONE_EACH += [("vqa", "BlipForQuestionAnswering")]


@pytest.mark.parametrize("kind", ["pretrain", "vqa", "nlvr", "visdial"])
def test_every_model_is_saved_and_loaded_with_its_twins(kind, build, words, tmp_path):
    model = build(kind, queue=8) if kind == "pretrain" else build(kind)
    save(model, words, tmp_path)
    back, tokenizer = load(tmp_path)
    assert type(back) is type(model) and back.config == model.config and len(tokenizer) == len(words)
    state = back.state_dict()
    assert list(state) == list(model.state_dict())
    assert all(torch.equal(x, model.state_dict()[name]) for name, x in state.items())
    assert config_of(json.loads((tmp_path / "config.json").read_text()), "x") == model.config


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(WeightsError, match=r"no model here \(config.json is missing\)"):
        load(tmp_path)


def test_weights_of_another_model_are_listed(build, words, tmp_path):
    save(build("caption"), words, tmp_path)
    about = json.loads((tmp_path / "config.json").read_text())
    about["config"]["roles"] = ["read"]
    (tmp_path / "config.json").write_text(json.dumps(about))
    with pytest.raises(WeightsError, match=r"another model: missing .*bidirectional.*; unknown text.*causal"):
        load(tmp_path)


def test_a_hollow_model_has_names_and_shapes_alone():
    config = PRESETS["tiny"]
    real, model = Blip(config).state_dict(), hollow(config).state_dict()
    assert {name: x.shape for name, x in model.items()} == {name: x.shape for name, x in real.items()}
    assert all(x.is_meta for x in model.values())


def test_a_hollow_model_does_not_wait_for_first_values(monkeypatch):
    """Drawing on the meta device imports torch's compiler, which takes longer than reading a checkpoint."""
    drawn = []
    monkeypatch.setattr(torch.Tensor, "normal_", lambda *_: drawn.append("normal"))
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda *_: drawn.append("uniform"))
    hollow(dataclasses.replace(PRESETS["tiny"], queue=0))
    assert not drawn


def test_a_pickled_file_is_no_larger_than_its_tensors(build, words, tmp_path):
    """Parts of fused tensors, tied names and mapped files would each bring what they are a view of."""
    model = build("pretrain")
    save(model, words, tmp_path / "ours")
    mapped, _ = load(tmp_path / "ours")
    save_as(mapped, words, tmp_path, "official")
    whole = sum(x.nbytes for x in model.state_dict().values())
    size = (tmp_path / store.OFFICIAL_FILE).stat().st_size
    assert whole < size < whole + 400_000  # some hundred names, and position ids


def test_a_file_name_may_be_chosen(build, words, tmp_path):
    save_as(build("caption"), words, tmp_path / "mine.pth", "official")
    held = torch.load(tmp_path / "mine.pth", weights_only=True)
    assert set(held) == {"model", "capfilt"} and "text_decoder.cls.predictions.decoder.weight" in held["model"]


def test_what_a_layout_cannot_say(build, words, tmp_path):
    with pytest.raises(ConfigError, match="layout 'onnx': choose from capfilt, huggingface, official"):
        save_as(build("caption"), words, tmp_path, "onnx")
    for kind in ("pretrain", "nlvr", "visdial"):
        with pytest.raises(WeightsError, match=f"Hugging Face has no class for a {kind} model"):
            save_as(build(kind), words, tmp_path, "huggingface")
    with pytest.raises(WeightsError, match="the original has no visdial model"):
        save_as(build("visdial"), words, tmp_path, "official")
    for layout in ("huggingface", "official"):
        with pytest.raises(WeightsError, match="no stem 'histogram', only 'linear'"):
            save_as(build("caption", stem="histogram"), words, tmp_path, layout)
    with pytest.raises(WeightsError, match="keys of the vision width 48, this model has the text's 32"):
        save_as(build("vqa", width=48), words, tmp_path, "huggingface")
    assert not list(tmp_path.iterdir())


def test_official_state_has_every_key_of_the_original(build):
    state = official_state(build("match", queue=8))
    ids = state["text_encoder_m.embeddings.position_ids"]
    assert ids.shape == (1, 48) and ids.dtype == torch.long and ids[0, -1] == 47
    assert {"temp", "image_queue", "text_queue", "idx_queue", "ptr_queue"} <= set(state)


@pytest.mark.parametrize(("kind", "name"), ONE_EACH)
def test_transformers_loads_it_and_gives_the_same_numbers(kind, name, build, words, tmp_path):
    transformers = pytest.importorskip("transformers")
    model = build(kind)
    save_as(model, words, tmp_path, "huggingface")
    theirs, report = getattr(transformers, name).from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    theirs.eval()
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    rows = [words.encode(["a red dog runs over"])[0], words.encode(["two cats sleep under"])[0]]
    ids, mask = (torch.from_numpy(x[:, :6]) for x in words.pad(rows))
    with torch.no_grad():
        image = model.vit(pixels)
        close(theirs.vision_model(pixels).last_hidden_state, image)
        if kind == "caption":
            told = theirs.text_decoder(ids, attention_mask=mask, encoder_hidden_states=image).logits
            close(told, model.text.word_logits(model.text.speak(ids, mask, model.text.project(image))))
        elif kind == "match":
            seen = model.text.look(ids, mask, model.text.project(image))[:, 0]
            close(theirs(ids, pixels, attention_mask=mask).itm_score, model.match_head(seen))
            cosine = theirs(ids, pixels, attention_mask=mask, use_itm_head=False).itm_score
            close(cosine, model.image_vec(image) @ model.text_vec(ids, mask).T)
        else:
            states = model.text.look(ids, mask, model.text.project(image))
            close(theirs.text_encoder(ids, attention_mask=mask, encoder_hidden_states=image)[0], states)
            told = theirs.text_decoder(ids, attention_mask=mask, encoder_hidden_states=states).logits
            close(told, model.answer.word_logits(model.answer.speak(ids, mask, model.answer.project(states))))


def close(theirs, ours) -> None:
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)


def test_transformers_cuts_the_same_words_and_pixels(build, words, tmp_path):
    transformers = pytest.importorskip("transformers")
    save_as(build("caption"), words, tmp_path, "huggingface")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in ("A red dog runs", "unheard of!"):
        assert tokenizer(text)["input_ids"] == words.encode([text])[0].tolist()
    assert tokenizer.decode([words.dec_id, *words.encode(["two cats"])[0]], skip_special_tokens=True) == "two cats"
    about = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert about["size"] == {"height": 32, "width": 32} and about["resample"] == 3
    assert described(build("vqa"))["model"] == "blip-vqa"
