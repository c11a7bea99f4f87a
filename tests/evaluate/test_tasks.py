"""What predictors are asked, picture by picture, and what their answers come to."""

import dataclasses

import numpy as np
import pytest
import torch

from capfilt.abilities import Answer
from capfilt.blocks.med import SpecialIds
from capfilt.data.annotations import Asked, Captioned, Dialog, Filmed, Round, Stated
from capfilt.data.pictures import Album
from capfilt.errors import DataError
from capfilt.evaluate import model as blocks
from capfilt.evaluate.captions import score_captions
from capfilt.evaluate.retrieval import candidates, rerank, retrieval
from capfilt.evaluate.tasks import (
    measure_answers,
    measure_captions,
    measure_dialogs,
    measure_retrieval,
    measure_statements,
    measure_videos,
)
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models import blip_nlvr, blip_visdial, blip_vqa
from capfilt.models.blip import PRESETS, Blip
from capfilt.predict.answerer import Answerer
from capfilt.predict.decode import Decoding
from capfilt.predict.predictor import Predictor
from capfilt.predict.reasoner import Dialogist, Reasoner


@pytest.fixture(scope="module")
def tokenizer():
    return TextTokenizer.train(["a dog is what yes no"], 64)


@pytest.fixture
def album() -> Album:
    """Four pictures that show their numbers; e cannot be read. Kept at twice the model's side."""
    pictures = np.stack([np.full((64, 64, 3), i, np.uint8) for i in range(4)])
    return Album(pictures, {"a": 2, "b": 0, "c": 3, "d": 1}, {"e": "empty: nothing"})


def tiny(module, build, tokenizer):
    t = tokenizer
    torch.manual_seed(0)
    config = module.PRESETS["tiny"]
    special = SpecialIds(t.pad_id, t.cls_id, t.sep_id, t.dec_id, t.enc_id)
    return build(type(config)(config.vit, config.text, special)).init_weights()


def test_answers(tokenizer, album, monkeypatch):
    asked = [
        Asked(image, question, (), (), raw, 7, answer_type=kind)  # all have one id, as rows of several files may
        for image, question, raw, kind in [
            ("a", "first?", ("yes",), "yes/no"),
            ("b", "first?", ("two",), "number"),
            ("a", "second?", ("no",), "yes/no"),
            ("e", "first?", ("yes",), "yes/no"),
            ("c", "open?", (), "other"),
        ]
    ]
    said = {(2, "first?"): "yes", (2, "second?"): "wrong", (0, "first?"): "two", (3, "open?"): "red"}
    answerer = Answerer(tiny(blip_vqa, blip_vqa.BlipVqa, tokenizer), tokenizer)

    def ask(pixels, questions, candidates, k):
        assert pixels.shape[1:] == (32, 32, 3) and (candidates, k) == (["yes"], 5)
        return [
            [Answer(said[int(p[0, 0, 0]), q], 1.0, 0.0) for q in qs] for p, qs in zip(pixels, questions, strict=True)
        ]

    monkeypatch.setattr(answerer, "ask", ask)
    found = measure_answers(answerer, asked, album, ["yes"], 5)
    assert found.numbers == {"overall": pytest.approx(2 / 3), "yes/no": 0.5, "number": 1.0, "rows": 3, "kept_back": 1}
    assert [row["answer"] for row in found.predictions] == ["yes", "two", "wrong", "red"]
    assert {row["question_id"] for row in found.predictions} == {7}
    secret = measure_answers(answerer, asked[4:], album, ["yes"], 5)
    assert (secret.numbers, len(secret.predictions)) == ({"rows": 0, "kept_back": 1}, 1)


def test_statements(tokenizer, album, monkeypatch):
    stated = [
        Stated("a", "b", "one", True, "0", "g"),
        Stated("b", "a", "one", False, "1", "g"),
        Stated("d", None, "two", True, "2", "h"),
        Stated("c", "e", "lost", True, "3", "h"),
        Stated("c", "d", "secret", None, "4", "i"),
    ]
    reasoner = Reasoner(tiny(blip_nlvr, blip_nlvr.BlipNlvr, tokenizer), tokenizer)

    def judge(first, second, statements, seeds):
        assert len({*seeds}) == 4
        pairs = [(int(a[0, 0, 0]), int(b[0, 0, 0])) for a, b in zip(first, second, strict=True)]
        told = {(2, 0, "one"): 0.9, (0, 2, "one"): 0.6, (1, 1, "two"): 0.51, (3, 1, "secret"): 0.1}
        return np.array([told[(*pair, text)] for pair, text in zip(pairs, statements, strict=True)], np.float32)

    monkeypatch.setattr(reasoner, "judge", judge)
    found = measure_statements(reasoner, stated, album)
    assert found.numbers == {"accuracy": pytest.approx(2 / 3), "consistency": 0.5, "rows": 3, "kept_back": 1}
    assert [tuple(row.values()) for row in found.predictions] == [("0", True), ("1", True), ("2", True), ("4", False)]
    with pytest.raises(DataError, match="none of 1 rows has all of its images"):
        measure_statements(reasoner, stated[3:4], album)


def test_dialogues(tokenizer, album, monkeypatch):
    options = ("yes", "no", "two")
    dialogs = [
        Dialog("a", "one", (Round("q0", "no", options, 1), Round("q1", "two", options, 2)), 1),
        Dialog("e", "lost", (Round("q0", "no", options, 1),), 2),
        Dialog("d", "two", (Round("q0", None, (), None), Round("q1", "yes", ("yes", "no"), 0, (0.5, 1.0))), 3),
    ]
    asked = []
    dialogist = Dialogist(tiny(blip_visdial, blip_visdial.BlipVisdial, tokenizer), tokenizer)

    def rank(pixels, captions, dialogues):
        asked.extend(zip((int(p[0, 0, 0]) for p in pixels), captions, dialogues, strict=True))
        return [np.array([3.0, 2, 1, 3, 2, 1]), np.array([2.0, 1.0])]

    monkeypatch.setattr(dialogist, "rank", rank)
    measured = measure_dialogs(dialogist, dialogs, album)
    found = measured.numbers
    first, second = asked
    assert first[:2] == (2, "one") and second[:2] == (1, "two")
    assert first[2][:3] == [["q0", o] for o in options] and first[2][3:] == [["q0", "no", "q1", o] for o in options]
    assert second[2] == [["q1", "yes"], ["q1", "no"]]
    ranks = np.array([2, 3, 1])
    assert found["mrr"] == pytest.approx((1 / ranks).mean()) and found["mean_rank"] == pytest.approx(2.0)
    gain, best = 0.5 + 1.0 / np.log2(3), 1.0 + 0.5 / np.log2(3)
    assert found["ndcg"] == pytest.approx(gain / best)
    assert found["rows"] == 3
    ranks = [(row["image_id"], row["round_id"], row["ranks"]) for row in measured.predictions]
    assert ranks == [(1, 1, [1, 2, 3]), (1, 2, [1, 2, 3]), (3, 2, [1, 2])]
    with pytest.raises(DataError, match="none of 1 rows has all of its images"):
        measure_dialogs(dialogist, dialogs[1:2], album)
    with pytest.raises(DataError, match="none of 1 dialogs has options"):
        measure_dialogs(dialogist, [Dialog("a", "one", (Round("q", "no", (), None),), 1)], album)


@pytest.fixture(scope="module")
def predictor(tokenizer):
    torch.manual_seed(0)
    blip = Blip(dataclasses.replace(PRESETS["tiny"].with_words(tokenizer), queue=0))
    for parameter in blip.parameters():
        torch.nn.init.normal_(parameter, std=0.25)
    return Predictor(blip, tokenizer)


WORDS = ("a dog", "yes", "no", "what is", "a", "dog no", "is a dog", "what")


def noise(*shape):
    return np.random.default_rng(3).integers(0, 256, (*shape, 32, 32, 3), np.uint8)


def test_captions_by_domain(predictor):
    album = Album(noise(5), {name: i for i, name in enumerate("abcde")}, {"f": "empty: nothing"})
    domains = ["in-domain", "in-domain", "out-domain", "out-domain", "in-domain", "in-domain"]
    rows = [
        Captioned(name, (WORDS[i],), i, domain) for i, (name, domain) in enumerate(zip("abcdef", domains, strict=True))
    ]
    rows[4] = dataclasses.replace(rows[4], captions=())
    greedy = Decoding(method="greedy", max_length=8, min_length=1)
    found = measure_captions(predictor, rows, album, greedy)
    assert [row["image_id"] for row in found.predictions] == [0, 1, 2, 3, 4]
    said = [row["caption"] for row in found.predictions]
    whole = score_captions(said[:4], [row.captions for row in rows[:4]])
    parts = found.numbers["in-domain"], found.numbers["out-domain"]
    assert found.numbers["cider"] == whole.cider == pytest.approx(sum(part["cider"] for part in parts) / 2)
    assert parts[0]["bleu1"] == score_captions(said[:2], [row.captions for row in rows[:2]]).bleu1
    assert (found.numbers["rows"], parts[1]["rows"], found.numbers["kept_back"]) == (4, 2, 1)
    bare = measure_captions(predictor, rows[4:], album, greedy)
    assert bare.numbers == {"rows": 0, "kept_back": 1} and len(bare.predictions) == 1


def test_retrieval_block_by_block_is_retrieval_at_once(predictor, monkeypatch):
    album = Album(noise(7), {name: i for i, name in enumerate("abcdefg")}, {})
    said = [(WORDS[i], " ".join(WORDS[i : i + 2]))[: 1 + i % 2] for i in range(7)]  # no two alike: those would tie
    rows = [Captioned(name, said[i], i) for i, name in enumerate("abcdefg")]
    texts, owner = [t for row in rows for t in row.captions], [i for i, row in enumerate(rows) for _ in row.captions]
    sim = predictor.embed_images(album.pictures) @ predictor.embed_texts(texts).T
    image, text = np.nonzero(np.logical_or(*candidates(sim, 3)))
    logits = np.zeros_like(sim)
    logits[image, text] = predictor.itm_logits(predictor.encode_images(album.pictures), image, text, texts)
    ours, theirs = rerank(sim, 3, lambda i, t: logits[i, t])
    wanted = retrieval(ours, np.array(owner), theirs)
    encoded = []
    encode = Predictor.encode_images
    monkeypatch.setattr(Predictor, "encode_images", lambda self, x: encoded.append(len(x)) or encode(self, x))
    monkeypatch.setattr(blocks, "AT_ONCE", 3)
    found = measure_retrieval(predictor, rows, album, 3)
    assert encoded == [3, 3, 1]  # never the tokens of all
    assert {name: found.numbers[name] for name in wanted.summary()} == wanted.summary()
    assert 0 < wanted.mean < 1 and found.numbers["itc_ir1"] == retrieval(sim, np.array(owner)).ir1
    assert [row["rank"] for row in found.predictions] == [*wanted.tr_ranks, *wanted.ir_ranks]
    assert found.predictions[8]["caption"] == texts[1] and found.predictions[8]["image_id"] == owner[1]
    with pytest.raises(DataError, match="1 images with captions: comparing needs at least 2"):
        measure_retrieval(predictor, rows[:1], album)


def test_clips_are_found_by_text(predictor, monkeypatch):
    album = Album(noise(6, 2), {name: i for i, name in enumerate("abcdef")}, {"g": "empty: nothing"})
    rows = [Filmed(name, WORDS[i : i + 1], name) for i, name in enumerate("abcdefg")]
    texts = [row.captions[0] for row in rows[:6]]
    sim = predictor.embed_images(album.pictures) @ predictor.embed_texts(texts).T
    pairs = [index.ravel() for index in np.indices(sim.shape)]
    logits = predictor.itm_logits(predictor.encode_images(album.pictures), *pairs, texts).reshape(sim.shape)
    ranks = []
    for text in range(6):
        best = np.argsort(-sim[:, text])[:4]
        score = np.full(6, -100.0)
        score[best] = (logits + sim)[best, text]
        wrong = np.delete(np.arange(6), text)
        ranks.append(1 + int((score[wrong] >= score[text]).sum()))
    monkeypatch.setattr(blocks, "AT_ONCE", 8)  # two clips of two frames
    found = measure_videos(predictor, rows, album, 4)
    assert [row["rank"] for row in found.predictions] == ranks and len({*ranks}) > 1
    assert found.numbers["median_rank"] == np.median(ranks) and found.numbers["r1"] == np.mean(np.array(ranks) == 1)
    assert (found.numbers["rows"], found.numbers["clips"]) == (6, 6) and "itc_r1" in found.numbers
    assert "r1" not in measure_videos(predictor, rows, album, 0).numbers
