"""Answers: the ranking against a plain sum of log-probabilities, company that may not matter, switches that must."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from capfilt.blocks.med import SpecialIds
from capfilt.errors import ConfigError, DataError
from capfilt.inputs.images import normalize
from capfilt.inputs.texts import clean_question
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip_vqa import PRESETS, BlipVqa
from capfilt.predict.answerer import Answerer
from capfilt.predict.decode import Decoding
from capfilt.predict.faithful import Faithful

QUESTIONS = ["what is red", "how many cubes are on the green box", "is it a ball", "what", "where is the small cone ?"]
CANDIDATES = ["a red cube", "red", "red ball", "two", "green box", "no"]


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.train([*QUESTIONS, *CANDIDATES], 80)


@pytest.fixture(scope="module")
def model(tokenizer: TextTokenizer) -> BlipVqa:
    t, tiny = tokenizer, PRESETS["tiny"]
    special = SpecialIds(t.pad_id, t.cls_id, t.sep_id, t.dec_id, t.enc_id)
    model = BlipVqa(dataclasses.replace(tiny, special=special, text=dataclasses.replace(tiny.text, vocab=len(t))))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.normal_(1.0 if name.endswith("norm.weight") else 0.0, 0.3, generator=generator)
    return model.eval()


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def ids_of(tokenizer: TextTokenizer, text: str) -> tuple[torch.Tensor, torch.Tensor]:
    ids, mask = tokenizer.pad(tokenizer.encode([text], 35))
    return torch.from_numpy(ids), torch.from_numpy(mask)


@torch.inference_mode()
def likelihoods(model: BlipVqa, tokenizer: TextTokenizer, picture: np.ndarray, question: str) -> dict[str, float]:
    """Each candidate's summed log-probability, word by word, with nothing batched."""
    seen = model.text.project(model.vit(normalize(picture[None])))
    heard = model.answer.project(model.question(*ids_of(tokenizer, clean_question(question)), seen))
    found = {}
    for text in CANDIDATES:
        ids, mask = ids_of(tokenizer, text)
        logps = model.answer_logits(ids, mask, heard, None).log_softmax(-1)[0]
        found[text] = sum(float(logps[i, word]) for i, word in enumerate(ids[0, 1:].tolist()))
    return found


def test_chosen_answers_are_ranked_by_their_likelihood(model, tokenizer):
    answers = Answerer(model, tokenizer).ask(pictures(2), [QUESTIONS[:2], QUESTIONS[2:3]], CANDIDATES)
    for picture, asked, given in zip(pictures(2), (QUESTIONS[:2], QUESTIONS[2:3]), answers, strict=True):
        for question, answer in zip(asked, given, strict=True):
            want = likelihoods(model, tokenizer, picture, question)
            order = sorted(want, key=want.__getitem__, reverse=True)
            assert [answer.text, *(text for text, _ in answer.others)] == order[:5]
            assert answer.score == pytest.approx(want[order[0]], abs=1e-3)
            shares = np.exp(np.array([want[t] for t in order]) - want[order[0]])
            assert answer.confidence == pytest.approx(float(shares[0] / shares.sum()), abs=1e-4)


def test_only_the_likeliest_first_words_are_judged_whole(model, tokenizer):
    (wide,), (narrow,) = (Answerer(model, tokenizer).ask(pictures(1), [["what"]], CANDIDATES, k)[0] for k in (6, 2))
    assert len(wide.others) == 4 and len(narrow.others) == 1
    first = {tuple(tokenizer.encode([text])[0][1:2]) for text in (narrow.text, narrow.others[0][0])}
    assert first  # both begin with words that the first step likes best
    assert narrow.score <= wide.score


@pytest.mark.parametrize("candidates", [None, CANDIDATES])
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_company_does_not_matter(model, tokenizer, candidates: Sequence[str] | None, batch: int):
    asked = [QUESTIONS[:3], [], QUESTIONS[3:4], QUESTIONS]
    together = Answerer(model, tokenizer, batch=batch).ask(pictures(4), asked, candidates)
    assert [len(of) for of in together] == [3, 0, 1, 5]
    for picture, questions, given in zip(pictures(4), asked, together, strict=True):
        for question, answer in zip(questions, given, strict=True):
            alone = Answerer(model, tokenizer).ask(picture[None], [[question]], candidates)[0][0]
            assert alone.text == answer.text
            assert alone.score == pytest.approx(answer.score, abs=1e-3)


def test_a_clip_is_looked_at_frame_by_frame(model, tokenizer):
    still, other = pictures(2)
    answerer = Answerer(model, tokenizer)
    alone = answerer.ask(still[None], [["what is red"]], CANDIDATES)[0][0]
    twice = answerer.ask(np.stack([still, still])[None], [["what is red"]], CANDIDATES)[0][0]
    moved = answerer.ask(np.stack([still, other])[None], [["what is red"]], CANDIDATES)[0][0]
    assert twice.score == pytest.approx(alone.score, abs=1e-3)  # a frame seen twice shows nothing new
    assert moved.score != pytest.approx(alone.score, abs=1e-3)


@pytest.mark.parametrize("switch", ["question_cls", "rank_smoothing"])
def test_switches_change_how_candidates_are_ranked(model, tokenizer, switch: str):
    right, faithful = (
        Answerer(model, tokenizer, faithful=f).ask(pictures(1), [QUESTIONS], CANDIDATES)[0]
        for f in (Faithful(), Faithful.of([switch]))
    )
    assert max(abs(a.score - b.score) for a, b in zip(right, faithful, strict=True)) > 1e-2


def test_the_pinned_smoothing_counts_the_padding_of_the_longest_candidate(model, tokenizer):
    def scores(names: list[str], candidates: list[str]) -> float:
        answerer = Answerer(model, tokenizer, faithful=Faithful.of(names))
        return answerer.ask(pictures(1), [["what"]], candidates)[0][0].score

    modern, pinned = ["rank_smoothing"], ["rank_smoothing", "rank_torch110"]
    lone, beside = ["red"], ["red", "a red cube a red cube a red cube"]
    assert scores(modern, lone) == pytest.approx(scores(modern, beside), abs=1e-3)
    assert scores(pinned, lone) != pytest.approx(scores(pinned, beside), abs=1e-1)


def test_the_padding_of_questions_is_heard_on_demand(model, tokenizer):
    def scores(faithful: Faithful, *questions: str) -> float:
        return Answerer(model, tokenizer, faithful=faithful).ask(pictures(1), [list(questions)])[0][0].score

    leaky = Faithful.of("question_padding")
    assert scores(leaky, "what") == pytest.approx(scores(Faithful(), "what"), abs=1e-4)
    assert scores(leaky, "what", QUESTIONS[1]) != pytest.approx(scores(Faithful(), "what", QUESTIONS[1]), abs=1e-3)


def test_generated_answers_keep_to_their_decoding(model, tokenizer):
    decoding = Decoding(method="beam", beams=2, max_length=4, min_length=1, repetition_penalty=1.0)
    answer = Answerer(model, tokenizer).ask(pictures(1), [["what"]], None, 128, decoding)[0][0]
    assert len(answer.text.split()) <= 3 and len(answer.others) == 1  # [DEC] is one of the four
    assert 0 < answer.confidence < 1 and answer.confidence == pytest.approx(np.exp(answer.score))


def test_what_cannot_be_asked_is_one_clear_line(model, tokenizer):
    answerer = Answerer(model, tokenizer)
    with pytest.raises(ConfigError, match="a list with at least one answer"):
        answerer.ask(pictures(1), [["what"]], [])
    with pytest.raises(DataError, match="holds no word"):
        answerer.ask(pictures(1), [["what"]], ["red", " "])
    with pytest.raises(ConfigError, match="2 images need as many lists"):
        answerer.ask(pictures(2), [["what"]])
    with pytest.raises(ConfigError, match=r"'question_clss' is no switch\. Did you mean 'question_cls'"):
        Faithful.of(["question_clss"])
