"""What predictors are asked, picture by picture, and what their answers come to."""

import numpy as np
import pytest
import torch

from capfilt.abilities import Answer
from capfilt.blocks.med import SpecialIds
from capfilt.data.annotations import Asked, Dialog, Round, Stated
from capfilt.data.pictures import Album
from capfilt.errors import DataError
from capfilt.evaluate.tasks import measure_answers, measure_dialogs, measure_statements
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models import blip_nlvr, blip_visdial, blip_vqa
from capfilt.predict.answerer import Answerer
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
    said = {(2, "first?"): "yes", (2, "second?"): "wrong", (0, "first?"): "two"}
    answerer = Answerer(tiny(blip_vqa, blip_vqa.BlipVqa, tokenizer), tokenizer)

    def ask(pixels, questions, candidates, k):
        assert pixels.shape[1:] == (32, 32, 3) and (candidates, k) == (["yes"], 5)
        return [
            [Answer(said[int(p[0, 0, 0]), q], 1.0, 0.0) for q in qs] for p, qs in zip(pixels, questions, strict=True)
        ]

    monkeypatch.setattr(answerer, "ask", ask)
    found = measure_answers(answerer, asked, album, ["yes"], 5)
    assert found == {"overall": pytest.approx(2 / 3), "yes/no": 0.5, "number": 1.0, "rows": 3}


def test_statements(tokenizer, album, monkeypatch):
    stated = [
        Stated("a", "b", "one", True, "0", "g"),
        Stated("b", "a", "one", False, "1", "g"),
        Stated("d", None, "two", True, "2", "h"),
        Stated("c", "e", "lost", True, "3", "h"),
        Stated("c", "d", "secret", None, "4", "i"),
    ]
    reasoner = Reasoner(tiny(blip_nlvr, blip_nlvr.BlipNlvr, tokenizer), tokenizer)

    def judge(first, second, statements):
        pairs = [(int(a[0, 0, 0]), int(b[0, 0, 0])) for a, b in zip(first, second, strict=True)]
        told = {(2, 0, "one"): 0.9, (0, 2, "one"): 0.6, (1, 1, "two"): 0.51}
        return np.array([told[(*pair, text)] for pair, text in zip(pairs, statements, strict=True)], np.float32)

    monkeypatch.setattr(reasoner, "judge", judge)
    found = measure_statements(reasoner, stated, album)
    assert found == {"accuracy": pytest.approx(2 / 3), "consistency": 0.5, "rows": 3}


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
    found = measure_dialogs(dialogist, dialogs, album)
    first, second = asked
    assert first[:2] == (2, "one") and second[:2] == (1, "two")
    assert first[2][:3] == [["q0", o] for o in options] and first[2][3:] == [["q0", "no", "q1", o] for o in options]
    assert second[2] == [["q1", "yes"], ["q1", "no"]]
    ranks = np.array([2, 3, 1])
    assert found["mrr"] == pytest.approx((1 / ranks).mean()) and found["mean_rank"] == pytest.approx(2.0)
    gain, best = 0.5 + 1.0 / np.log2(3), 1.0 + 0.5 / np.log2(3)
    assert found["ndcg"] == pytest.approx(gain / best)
    assert found["rows"] == 3
    with pytest.raises(DataError, match="no round whose answer"):
        measure_dialogs(dialogist, dialogs[1:2], album)
