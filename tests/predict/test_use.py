"""What `capfilt.load` gives: anything that is an image, one result an item, errors beside the answers of the others."""

import dataclasses
import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import capfilt
from capfilt.abilities import Answer, Caption, Match, Verdict
from capfilt.blocks.med import SpecialIds
from capfilt.data.decoders import Reading
from capfilt.errors import CapfiltError, ConfigError
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models import blip, blip_nlvr, blip_visdial, blip_vqa
from capfilt.predict.choose import choose
from capfilt.predict.decode import BEAM, Decoding
from capfilt.predict.faithful import Faithful
from capfilt.predict.use import CHUNK, Model
from capfilt.weights import store

WORDS = ["a red cube", "what is left of the small ball", "two green cones on a box", "yes no", "how many"]


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.train(WORDS, 80)


def at_work(kind: type[nn.Module], config, tokenizer: TextTokenizer, **changes) -> Model:
    """A tiny model with large weights."""
    t = tokenizer
    special = SpecialIds(t.pad_id, t.cls_id, t.sep_id, t.dec_id, t.enc_id)
    text = dataclasses.replace(config.text, vocab=len(t))
    model = kind(dataclasses.replace(config, special=special, text=text, **changes))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.normal_(1.0 if name.endswith("norm.weight") else 0.0, 0.3, generator=generator)
    return Model(model.eval(), tokenizer)


@pytest.fixture(scope="module")
def blip_model(tokenizer: TextTokenizer) -> Model:
    return at_work(blip.Blip, blip.PRESETS["tiny"], tokenizer, queue=0)


def picture(seed: int = 0, size: tuple[int, int] = (40, 56)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def said(captions: list[Caption]) -> list[tuple[int, ...]]:
    return [caption.tokens for caption in captions]


def test_an_image_may_come_in_any_form(blip_model: Model, tmp_path: Path):
    path = tmp_path / "x.png"
    path.write_bytes(png(picture()))
    forms = [picture(), Image.fromarray(picture()), png(picture()), path, str(path)]
    found = blip_model.caption(forms)
    assert all(isinstance(caption, Caption) for caption in found)
    assert said([*found, blip_model.caption(path)]) == said(found[:1] * 6)
    assert found[0].error is None and len(found[0].logps) == len(found[0].tokens)
    assert found[0].score == pytest.approx(sum(found[0].logps) / len(found[0].tokens))


def test_one_broken_image_among_a_hundred_costs_one_answer(blip_model: Model):
    images = [picture(i) for i in range(CHUNK + 36)]
    whole = blip_model.match(images, ["a red cube"] * len(images))
    broken = [*images]
    broken[70] = b""
    found = blip_model.match(broken, ["a red cube"] * len(images))
    assert found[70].error == "empty: image of 0 bytes" and math.isnan(found[70].probability)
    for i, (mine, want) in enumerate(zip(found, whole, strict=True)):
        if i != 70:
            assert mine.error is None and mine.probability == pytest.approx(want.probability, abs=1e-5)


def test_every_kind_of_failure_names_its_image(blip_model: Model, tmp_path: Path):
    cut = tmp_path / "cut.png"
    cut.write_bytes(png(picture())[:200])
    gone, page = tmp_path / "gone.png", b"<html>not found</html>"
    errors = [caption.error for caption in blip_model.caption([cut, gone, page, tmp_path])]
    assert [error.partition(":")[0] for error in errors] == ["truncated", "missing_file", "not_an_image", "unreadable"]
    assert "cut.png" in errors[0] and "gone.png: no such file" in errors[1]


def test_a_picture_that_is_open_is_read_as_its_file(blip_model: Model):
    clear = Image.fromarray(np.dstack([picture(), np.zeros((40, 56), np.uint8)]))
    turned = Image.fromarray(picture())
    turned.getexif()[0x0112] = 6
    for image, kind in ((clear, "PNG"), (turned, "JPEG")):
        out = io.BytesIO()
        image.save(out, kind, exif=image.getexif(), **({"quality": 100} if kind == "JPEG" else {}))
        opened = Image.open(io.BytesIO(out.getvalue()))
        for model in (blip_model, Model(blip_model.model, blip_model.tokenizer, Faithful.of("images_as_stored"))):
            np.testing.assert_array_equal(*model._look([opened, out.getvalue()]))
        right, stored = (next(m._look([opened])) for m in (blip_model, model))
        assert not np.array_equal(right, stored)


def test_the_device_may_resize(blip_model: Model, tmp_path: Path):
    (tmp_path / "x.png").write_bytes(png(picture(3)))
    images = [picture(0, (70, 50)), tmp_path / "x.png", b"<html>"]
    model = Model(blip_model.model, blip_model.tokenizer, reading=Reading(resize="device"))
    for one, other in zip(blip_model._look(images), model._look(images), strict=True):
        if isinstance(one, str):
            assert one == other
        else:
            assert one.shape == other.shape and np.abs(one.astype(int) - other).max() <= 1


@pytest.mark.parametrize(
    "image",
    [np.zeros((40, 50, 3), np.float32), np.zeros((3, 40, 50), np.uint8), picture()[:0], "a\0b.png"],
)
def test_what_is_no_image_costs_one_answer(blip_model: Model, image):
    found = blip_model.caption([picture(), image], beams=1)
    assert found[0].error is None
    assert found[1].error.partition(":")[0] in ("not_an_image", "unreadable")


def test_captions_are_seeded_by_the_image_and_the_seed(blip_model: Model):
    images = [picture(i) for i in range(3)]
    several = blip_model.caption(images, top_p=0.9, n=4, seed=7)
    assert [len(of) for of in several] == [4, 4, 4]
    assert len({c.tokens for of in several for c in of}) > 6
    turned = blip_model.caption(images[::-1], top_p=0.9, n=4, seed=7)
    assert [said(of) for of in turned[::-1]] == [said(of) for of in several]
    assert said(blip_model.caption(images[1], top_p=0.9, n=2, seed=7)) == said(several[1][:2])
    assert said(blip_model.caption(images, top_p=0.9, seed=8)) != said([of[0] for of in several])


def test_beams_come_best_first(blip_model: Model):
    best = blip_model.caption([picture()], beams=4, n=3)[0]
    assert len(best) == 3 and best[0] == blip_model.caption([picture()], beams=4)[0]
    assert len({caption.tokens for caption in best}) == 3


def test_a_prompt_is_given_and_not_written(tokenizer: TextTokenizer):
    model = at_work(blip.Blip, blip.PRESETS["tiny"], tokenizer, queue=0, prompt="a red cube")
    own, plain = model.caption([picture()], beams=1)[0], model.caption([picture()], beams=1, prompt="")[0]
    assert own != plain and own == model.caption([picture()], beams=1, prompt="a red cube")[0]
    assert len(plain.tokens) <= 19 and len(own.tokens) <= 16  # both lengths count what was given


def test_match_compares_pairs_or_all(blip_model: Model):
    images, texts = [picture(0), picture(1)], ["a red cube", "yes"]
    one = blip_model.match(images[0], texts[0])
    assert isinstance(one, Match) and 0 < one.probability < 1 and -1 <= one.cosine <= 1
    pairs, every = blip_model.match(images, texts), blip_model.match(images, texts, every=True)
    assert [m.probability for m in pairs] == pytest.approx([every[i][i].probability for i in range(2)], abs=1e-5)
    assert blip_model.match(images[0], texts)[0].cosine == pytest.approx(every[0][0].cosine, abs=1e-5)
    own = blip_model.match(images, [["yes"], ["no", "yes", "a red cube"]])
    assert [len(of) for of in own] == [1, 3]
    with pytest.raises(ConfigError, match="2 images and 1 texts are no pairs"):
        blip_model.match(images, ["yes"])
    with pytest.raises(ConfigError, match="write every=True"):
        blip_model.match(images, "yes")
    cosines = blip_model.embed_images(images) @ blip_model.embed_texts(texts).T
    np.testing.assert_allclose(cosines, [[m.cosine for m in of] for of in every], atol=1e-5)


def test_a_match_keeps_cls_on_demand(blip_model: Model):
    faithful = Model(blip_model.model, blip_model.tokenizer, Faithful.of("match_cls"))
    right, original = (m.match(picture(), "a red cube").probability for m in (blip_model, faithful))
    assert abs(right - original) > 1e-4


def test_embeddings_mark_what_has_none(blip_model: Model):
    with pytest.warns(UserWarning, match="1 images have no vector; the first: empty"):
        found = blip_model.embed_images([picture(), b"", picture(1)])
    assert np.isnan(found[1]).all()
    np.testing.assert_allclose(np.linalg.norm(found[[0, 2]], axis=1), 1, atol=1e-5)


def test_questions_are_answered_or_chosen(tokenizer: TextTokenizer):
    model = at_work(blip_vqa.BlipVqa, blip_vqa.PRESETS["tiny"], tokenizer)
    assert isinstance(model.ask(picture(), "how many"), Answer)
    chosen = model.ask([picture(), b"", picture(1)], ["how many", ["what is left"] * 2, ["yes", "no"]], ["yes", "two"])
    assert chosen[0].text in ("yes", "two")
    assert [answer.error for answer in chosen[1]] == ["empty: image of 0 bytes"] * 2
    assert [answer.error for answer in chosen[2]] == [None, None]
    with pytest.warns(UserWarning, match=r"1 of 1 texts are longer than the model reads \(35 ids\)"):
        model.ask(picture(), "cube " * 7000)
    with pytest.raises(ConfigError, match="a list with at least one answer"):
        model.ask(picture(), "how many", candidates=[])
    for wrong, why in (("yes", "a list with"), ([""], "holds no word"), (["two " * 90], "positions")):
        with pytest.raises(CapfiltError, match=why):
            model.ask(picture(), "how many", candidates=wrong)
    for settings, why in (({"k": 0}, "at least one candidate"), ({"top_p": 0.5}, "searched, not drawn")):
        with pytest.raises(ConfigError, match=why):
            model.ask(picture(), "how many", ["yes"] if "k" in settings else None, **settings)
    with pytest.raises(ConfigError, match="max_length=100 passes the model's 40 positions"):
        model.ask(picture(), "how many", max_length=100)
    with pytest.raises(ConfigError, match="2 images and 1 questions"):
        model.ask([picture(), picture()], ["how many"])
    with pytest.raises(ConfigError, match="cannot caption; it can ask"):
        model.caption(picture())


def test_statements_are_judged_and_replies_chosen(tokenizer: TextTokenizer):
    clip = np.stack([picture(0), picture(1)])
    judge = at_work(blip_nlvr.BlipNlvr, blip_nlvr.PRESETS["tiny"], tokenizer)
    first, second = [picture(0), picture(1), b"GIF89a"], [picture(2), picture(3), picture(4)]
    verdicts = judge.judge(first, second, WORDS[:3])
    assert all(isinstance(v, Verdict) for v in verdicts) and math.isnan(verdicts[2].probability)
    assert judge.judge(first[1], second[1], WORDS[1]).probability == pytest.approx(verdicts[1].probability, abs=1e-5)
    talk = at_work(blip_visdial.BlipVisdial, blip_visdial.PRESETS["tiny"], tokenizer)
    answer = talk.reply(picture(), "a red cube", [("how many", "two")], "what is left", ["yes", "no", "two"])
    assert {answer.text, *(text for text, _ in answer.others)} == {"yes", "no", "two"}
    assert answer.confidence + sum(share for _, share in answer.others) == pytest.approx(1)
    assert talk.reply(b"", "a", [], "what", ["yes"]).error == "empty: image of 0 bytes"
    with pytest.warns(UserWarning, match="oldest parts of the talk do not fit"):
        talk.reply(picture(), "a", [("how many", "two")] * 30, "what is left", ["yes", "no"])
    for call in (lambda: talk.reply(picture(), "a", [], "what", "yes"), lambda: judge.judge([clip], [clip], ["a"])):
        with pytest.raises(ConfigError, match=r"a list with at least one|looks at images; clips are for"):
            call()


def test_a_model_that_was_saved_answers_the_same(blip_model: Model, tmp_path: Path):
    blip_model.save(tmp_path / "own")
    again = capfilt.load(tmp_path / "own")
    assert said(again.caption([picture()])) == said(blip_model.caption([picture()]))
    assert again.abilities == ("caption", "match", "embed") and "own" in repr(again)
    with pytest.raises(ConfigError, match="match_clss"):
        capfilt.load(tmp_path / "own", faithful=["match_clss"])
    assert store.load(tmp_path / "own")[0].config == blip_model.model.config


def test_settings_choose_a_method():
    assert choose({}) == BEAM
    assert choose({"beams": 5}) == dataclasses.replace(BEAM, beams=5)
    assert choose({"beams": 1}).method == "greedy"
    drawn = choose({"top_p": 0.8, "max_length": 9})
    assert drawn == Decoding(method="nucleus", top_p=0.8, max_length=9)
    assert choose({}, n=5).beams == 5
    assert choose({"banned": ("red",)}).banned == ("red",)
    with pytest.raises(ConfigError, match="top_p belong to nucleus sampling"):
        choose({"top_p": 0.9, "method": "beam"})
    with pytest.raises(ConfigError, match="beams belong to beam search"):
        choose({"beams": 3, "top_p": 0.9})
    with pytest.raises(ConfigError, match="Did you mean 'max_length'"):
        choose({"max_lenght": 3})
