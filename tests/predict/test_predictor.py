"""The predictor's answers against the model asked one row at a time; errors; what must not change an answer."""

import dataclasses

import numpy as np
import pytest
import torch

from capfilt.abilities import Captioner, Embedder, Matcher
from capfilt.blocks.med import Med
from capfilt.errors import ConfigError
from capfilt.inputs.images import normalize
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import PRESETS, Blip
from capfilt.predict import feeding
from capfilt.predict import predictor as predictor_
from capfilt.predict.decode import BEAM, NUCLEUS, Decoding
from capfilt.predict.faithful import Faithful
from capfilt.predict.predictor import Predictor

from .conftest import TEXTS, a_model, pictures, ragged

GREEDY = Decoding(method="greedy", max_length=12, min_length=3)


@pytest.fixture(scope="module")
def predictor(tokenizer: TextTokenizer) -> Predictor:
    return Predictor(a_model(tokenizer), tokenizer, batch=4)


@torch.inference_mode()
def one_by_one(
    predictor: Predictor, pixels: np.ndarray, texts: list[list[str]]
) -> list[list[tuple[float, float, float]]]:
    """(probability, cosine, logit) with one image and one text at a time, straight through the model."""
    model, tokenizer = predictor.model.eval(), predictor.tokenizer
    out = []
    for picture, mine in zip(pixels, texts, strict=True):
        image = model.vit(normalize(picture[None]))
        row = []
        for text in mine:
            ids, mask = map(torch.from_numpy, tokenizer.pad(tokenizer.encode([text], predictor.max_length)))
            logits = model.match_logits(ids, mask, model.text.project(image))
            cosine = (model.image_vec(image) * model.text_vec(ids, mask)).sum()
            row.append((logits.softmax(-1)[0, 1].item(), cosine.item(), logits[0, 1].item()))
        out.append(row)
    return out


def test_it_has_the_three_abilities(predictor: Predictor):
    assert isinstance(predictor, Embedder) and isinstance(predictor, Matcher) and isinstance(predictor, Captioner)


@pytest.mark.parametrize("counts", [(1, 1, 1, 1, 1), (2, 0, 5, 1, 3, 0, 2), (9,), (0, 0), ()])
def test_matches_are_those_of_each_pair_alone(predictor: Predictor, counts: tuple[int, ...]):
    pixels, texts = pictures(len(counts)), ragged(counts)
    found = predictor.match(pixels, texts)
    assert [len(row) for row in found] == list(counts)
    for mine, want in zip(found, one_by_one(predictor, pixels, texts), strict=True):
        for (probability, cosine), (p, c, _) in zip(mine, want, strict=True):
            assert probability == pytest.approx(p, abs=1e-4) and cosine == pytest.approx(c, abs=1e-4)
            assert 0 <= probability <= 1 and -1.0001 <= cosine <= 1.0001


def test_reranking_gives_the_raw_logit_of_each_pair_in_the_order_asked(predictor: Predictor):
    pixels = pictures(5)
    features = predictor.encode_images(pixels)
    image_idx, text_idx = np.array([4, 0, 0, 2, 4, 0, 2]), np.array([1, 8, 3, 6, 1, 0, 7])
    found = predictor.itm_logits(features, image_idx, text_idx, TEXTS)
    want = one_by_one(predictor, pixels[image_idx], [[TEXTS[i]] for i in text_idx])
    np.testing.assert_allclose(found, [row[0][2] for row in want], atol=1e-4)
    assert features.shape == (5, 17, 32) and found.dtype == np.float32
    assert np.ptp(found) > 0.1  # the pairs do differ


@pytest.mark.parametrize("match_cls", [False, True])
def test_texts_look_at_all_frames_of_a_clip_marked_or_not(tokenizer: TextTokenizer, match_cls: bool):
    model, texts = a_model(tokenizer), ragged((3, 0, 1, 2))
    predictor = Predictor(model, tokenizer, batch=4, faithful=Faithful(match_cls=match_cls))
    clips = pictures(8).reshape(4, 2, 32, 32, 3)
    found = [[probability for probability, _ in row] for row in predictor.match(clips, texts)]
    with torch.inference_mode():
        for clip, mine, got in zip(clips, texts, found, strict=True):
            seen = model.text.project(model.vit(normalize(clip)).flatten(0, 1)[None])
            want = []
            for text in mine:
                ids, mask = map(torch.from_numpy, tokenizer.pad(tokenizer.encode([text], 35)))
                want.append(model.match_logits(ids, mask, seen, marked=not match_cls).softmax(-1)[0, 1].item())
            assert got == pytest.approx(want, abs=1e-5)


def test_embeddings_are_unit_vectors_in_the_order_given(predictor: Predictor):
    vectors, images = predictor.embed_texts(TEXTS), predictor.embed_images(pictures(6))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, atol=1e-5)
    alone = np.concatenate([predictor.embed_texts([text]) for text in TEXTS])
    np.testing.assert_allclose(vectors, alone, atol=1e-5)
    np.testing.assert_allclose(images[4:5], predictor.embed_images(pictures(6)[4:5]), atol=1e-5)
    assert vectors.shape == (9, 16)


def test_of_nothing_there_is_nothing(predictor: Predictor):
    assert predictor.embed_texts([]).shape == predictor.embed_images(pictures(0)).shape == (0, 16)
    assert predictor.encode_images(pictures(0)).shape == (0, 17, 32)
    assert predictor.see(pictures(0).reshape(0, 3, 32, 32, 3)).shape == (0, 3, 17, 32)


@pytest.mark.parametrize("decoding", [NUCLEUS, BEAM, GREEDY], ids=lambda d: d.method)
def test_a_caption_hangs_on_its_image_and_seed_alone(tokenizer: TextTokenizer, decoding: Decoding):
    model, pixels, seeds = a_model(tokenizer), pictures(7), list(range(100, 107))
    together = Predictor(model, tokenizer, batch=64).caption(pixels, seeds, decoding)
    order = [3, 0, 6, 2, 5, 1, 4]
    shuffled = Predictor(model, tokenizer, batch=3).caption(pixels[order], [seeds[i] for i in order], decoding)
    assert [together[i].tokens for i in order] == [c.tokens for c in shuffled]
    assert [together[i].score for i in order] == pytest.approx([c.score for c in shuffled], abs=1e-4)


@pytest.mark.parametrize("decoding", [NUCLEUS, GREEDY], ids=lambda d: d.method)
def test_images_that_come_and_go_change_no_caption(
    tokenizer: TextTokenizer, decoding: Decoding, monkeypatch: pytest.MonkeyPatch
):
    model, pixels, seeds = a_model(tokenizer), pictures(13), range(13)
    together = Predictor(model, tokenizer).captions(pixels, seeds, decoding)
    seen = Predictor(model, tokenizer).see(pixels)
    monkeypatch.setattr(predictor_, "decode", None)  # which is not asked
    for images in (pixels, seen):
        apart = Predictor(model, tokenizer, batch=5).captions(images, seeds, decoding)
        assert [c.tokens for (c,) in apart] == [c.tokens for (c,) in together]
        assert [c.score for (c,) in apart] == pytest.approx([c.score for (c,) in together], abs=1e-5)


@pytest.mark.parametrize(("decoding", "n"), [(NUCLEUS, 5), (dataclasses.replace(BEAM, beams=4, groups=2), 4)])
def test_a_prompt_is_heard_once_an_image(
    tokenizer: TextTokenizer, decoding: Decoding, n: int, monkeypatch: pytest.MonkeyPatch
):
    heard: list[tuple[int, ...]] = []
    speak_on = Med.speak_on
    monkeypatch.setattr(
        Med, "speak_on", lambda self, ids, *rest: heard.append(tuple(ids.shape)) or speak_on(self, ids, *rest)
    )
    predictor = Predictor(a_model(tokenizer), tokenizer, prompt="a red ")
    assert [len(texts) for texts in predictor.captions(pictures(3), range(3), decoding, n)] == [n] * 3
    assert heard[0] == (3, 3) and heard[1] == (3 * n, 1)  # [DEC] a red, once; then a word of every text
    assert all(length == 1 for _, length in heard[1:])


def test_other_seeds_draw_other_captions_of_one_image(predictor: Predictor):
    pixels = np.repeat(pictures(1), 8, axis=0)
    assert len({c.tokens for c in predictor.caption(pixels, range(8))}) > 2
    assert len({c.tokens for c in predictor.caption(pixels, [5] * 8)}) == 1
    assert len({c.tokens for c in predictor.caption(pixels, range(8), GREEDY)}) == 1


@pytest.mark.parametrize("prompt", ["", "a red "])
@pytest.mark.parametrize("decoding", [NUCLEUS, BEAM, GREEDY], ids=lambda d: d.method)
def test_a_captions_score_is_its_likelihood_judged_in_one_pass(
    tokenizer: TextTokenizer, decoding: Decoding, prompt: str
):
    """Cached step-by-step writing and the teacher-forced pass agree; the prompt is given, not part of the caption."""
    model, pixels = a_model(tokenizer, ("speak",)), pictures(5)
    predictor = Predictor(model, tokenizer, prompt=prompt)
    start = len(predictor.start)
    assert start == len(tokenizer.encode([prompt])[0]) - 1
    for caption, picture in zip(predictor.caption(pixels, range(5), decoding), pixels, strict=True):
        assert len(caption.tokens) <= decoding.max_length - start
        row = torch.tensor([[*predictor.start, *caption.tokens]])
        with torch.inference_mode():
            seen = model.text.project(model.vit(normalize(picture[None])))
            logits = model.text.word_logits(model.text.speak(row, torch.ones_like(row), seen))[0, :-1]
        logps = logits.log_softmax(-1).gather(1, row[0, 1:, None])[start - 1 :]
        assert caption.score == pytest.approx(logps.mean().item(), abs=1e-4)
        assert caption.text == tokenizer.decode(caption.tokens)


def test_ids_behind_the_vocabulary_are_never_said(tokenizer: TextTokenizer):
    """A word table padded to a round size has rows that no word belongs to, here the likeliest ones of all."""
    exact = a_model(tokenizer)
    wide = Blip(
        dataclasses.replace(exact.config, text=dataclasses.replace(exact.config.text, vocab=len(tokenizer) + 9))
    )
    state = exact.state_dict()
    for name in ("text.words.weight", "text.head.bias"):
        state[name] = torch.cat((state[name], torch.full((9, *state[name].shape[1:]), 5.0)))
    wide.load_state_dict(state)
    a, b = (Predictor(model, tokenizer).caption(pictures(4), range(4)) for model in (exact, wide))
    assert [c.tokens for c in a] == [c.tokens for c in b]
    assert [c.score for c in a] == pytest.approx([c.score for c in b], abs=1e-4)


def test_a_model_in_training_goes_back_to_it(tokenizer: TextTokenizer):
    model = a_model(tokenizer).train()
    predictor = Predictor(model, tokenizer)
    predictor.match(pictures(1), [["a box"]])
    assert model.training
    model.eval()
    predictor.caption(pictures(1), [0])
    assert not model.training


def test_little_memory_means_smaller_batches_and_the_same_answers(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
):
    pixels, texts = pictures(5), ragged((2, 1, 3, 1, 1))
    before = predictor.match(pixels, texts)
    monkeypatch.setattr(feeding, "SEEN_MIB", 0)
    assert predictor.images_at_once(1) == 1
    for mine, want in zip(predictor.match(pixels, texts), before, strict=True):
        np.testing.assert_allclose(mine, want, atol=1e-5)


@pytest.mark.parametrize(
    ("roles", "call", "missing"),
    [
        (("speak",), lambda p: p.match(pictures(1), [["a box"]]), "read and look"),
        (("speak",), lambda p: p.embed_images(pictures(1)), "read"),
        (("speak",), lambda p: p.embed_texts(["a box"]), "read"),
        (("read", "look"), lambda p: p.caption(pictures(1), [0]), "speak"),
        (
            ("read",),
            lambda p: p.itm_logits(p.encode_images(pictures(1)), np.zeros(1, int), np.zeros(1, int), ["a"]),
            "look",
        ),
    ],
)
def test_a_missing_role_is_one_clear_line(tokenizer: TextTokenizer, roles, call, missing: str):
    with pytest.raises(ConfigError, match=f"can {missing};") as error:
        call(Predictor(a_model(tokenizer, roles), tokenizer))
    assert "\n" not in str(error.value)


def test_what_does_not_fit_together_is_refused(predictor: Predictor, tokenizer: TextTokenizer):
    with pytest.raises(ConfigError, match="2 images but 1 seeds"):
        predictor.caption(pictures(2), [0])
    with pytest.raises(ConfigError, match="write \\[text\\]"):
        predictor.match(pictures(1), ["a box"])
    with pytest.raises(ConfigError, match="got 1"):
        predictor.match(pictures(2), [["a box"]])
    with pytest.raises(ConfigError, match="sees uint8 of"):
        predictor.embed_images(np.zeros((1, 40, 32, 3), np.uint8))
    with pytest.raises(ConfigError, match="positions"):
        predictor.caption(pictures(1), [0], Decoding(max_length=60))
    with pytest.raises(ConfigError, match="batch=0"):
        Predictor(predictor.model, tokenizer, batch=0)
    with pytest.raises(ConfigError, match="not the model's"):
        Predictor(Blip(PRESETS["tiny"]), tokenizer)
