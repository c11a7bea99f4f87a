"""Texts written again with the original's settings: beams, greedy, n-best lists, and what nucleus may draw from."""

import dataclasses
import re

import torch
from torch import Tensor

from capfilt.blocks.med import SpecialIds
from capfilt.evaluate.replay.case import Case, Outputs
from capfilt.models.blip import Blip
from capfilt.predict.decode import BEAM, NOCAPS, NUCLEUS, Decoding, Said, Speech, decode
from capfilt.predict.predictor import BlipSpeech
from capfilt.predict.sampling import nucleus, penalised, without

GREEDY = Decoding(method="greedy", repetition_penalty=1.0)
RUNS: dict[str, Decoding] = {  # how each `out.gen.*` of a captioner was asked for
    "beam3_coco": BEAM,
    "beam3_nocaps": NOCAPS,
    "beam3_default": dataclasses.replace(BEAM, max_length=30, min_length=10),
    "beam5": dataclasses.replace(BEAM, beams=5),
    "greedy": GREEDY,
    "greedy_rep": dataclasses.replace(GREEDY, repetition_penalty=1.1),
}


def speech_of(model: Blip, pixels: Tensor) -> BlipSpeech:
    """The captioner before it has said a word about these images."""
    return BlipSpeech(model.text, model.text.project(model.vit(pixels)))


def texts_of(speech: Speech, start: Tensor, decoding: Decoding, special: SpecialIds) -> list[list[Said]]:
    """For each image its texts, best first."""
    return decode(speech, start, decoding, special.sep, special.pad)


def rows_of(start: Tensor, said: list[Said], pad: int, recorded: Tensor) -> Tensor:
    """Whole sequences, start included, padded to the longest or to the width of what was recorded: (T, P + S)."""
    rows = [[*head, *text.ids] for head, text in zip(start.tolist(), said, strict=True)]
    width = max(recorded.shape[1], *map(len, rows))
    return torch.tensor([row + [pad] * (width - len(row)) for row in rows])


def ranks_of(said: list[Said]) -> Tensor:
    """What beam search sorted by."""
    return torch.tensor([text.rank for text in said])


@torch.inference_mode()
def captions(case: Case, model: Blip) -> Outputs:
    """Every `out.gen.*` and `out.sample.*` that the case holds."""
    found: Outputs = {}
    start, special = case.given("prompt_ids"), model.config.special
    held = {m[1] for name in case.tensors if (m := re.fullmatch(r"out\.gen\.(\w+)\.ids", name))}
    for run in sorted(held & set(RUNS)):
        name = f"out.gen.{run}"
        texts = texts_of(speech_of(model, case.given("image")), start, RUNS[run], special)
        best, every = [said[0] for said in texts], [text for said in texts for text in said]
        found[f"{name}.ids"] = rows_of(start, best, special.pad, case.tensors[f"{name}.ids"])
        if RUNS[run].method == "beam":
            starts = start.repeat_interleave(torch.tensor([len(said) for said in texts]), 0)
            found[f"{name}.scores"] = ranks_of(best)
            found[f"{name}.nbest_ids"] = rows_of(starts, every, special.pad, case.tensors[f"{name}.nbest_ids"])
            found[f"{name}.nbest_scores"] = ranks_of(every)
    return found | (_sampled(case, model) if "out.sample.ids" in case.tensors else {})


def _sampled(case: Case, model: Blip) -> Outputs:
    """What nucleus may draw from behind every recorded word, and the texts that recorded draws give.

    Behind a text's end nothing is computed: what was recorded there is meaningless and stands as it is.
    """
    special, start, ids = model.config.special, case.given("prompt_ids"), case.tensors["out.sample.ids"]
    prompt = start.shape[1]
    kept, shares, count = (case.tensors[f"out.sample.{name}"].clone() for name in ("kept_ids", "kept_probs", "n_kept"))
    uniforms = torch.zeros(len(ids), NUCLEUS.room(prompt), dtype=torch.float64)
    seen = model.text.project(model.vit(case.given("image")))
    logits = model.text.word_logits(model.text.speak(ids, torch.ones_like(ids), seen))
    open_ = torch.ones(len(ids), dtype=torch.bool)
    for step in range(count.shape[1]):
        here = prompt + step
        scores = penalised(logits[:, here - 1], ids[:, :here], NUCLEUS.repetition_penalty)
        scores = without(scores, special.sep) if step < NUCLEUS.least(prompt) else scores
        words, odds = nucleus(scores, NUCLEUS.top_k, NUCLEUS.top_p)
        for row in open_.nonzero()[:, 0].tolist():
            mine = {word: share for word, share in zip(words[row].tolist(), odds[row].tolist(), strict=True) if share}
            recorded = kept[row, step].tolist()  # near-equal words may stand in another order
            kept[row, step] = torch.tensor([word if word in mine else -1 for word in recorded])
            shares[row, step] = torch.tensor([mine.get(word, 0.0) for word in recorded])
            count[row, step] = len(mine)
            uniforms[row, step] = _middle(mine, int(ids[row, here]))
        open_ &= ids[:, here] != special.sep
    said = decode(speech_of(model, case.given("image")), start, NUCLEUS, special.sep, special.pad, uniforms)
    return {
        "out.sample.ids": rows_of(start, [texts[0] for texts in said], special.pad, ids),
        "out.sample.kept_ids": kept,
        "out.sample.kept_probs": shares,
        "out.sample.n_kept": count,
    }


def _middle(shares: dict[int, float], word: int) -> float:
    """A number in [0, 1) on which the draw of `word` falls: the middle of its share."""
    before = 0.0
    for other, share in shares.items():
        if other == word:
            return before + share / 2
        before += share
    return 0.0
