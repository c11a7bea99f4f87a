"""The original's own generate(), id for id: beams, n-best lists, greedy, and what nucleus may draw from."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from capfilt.models.blip import Blip
from capfilt.predict.decode import BEAM, NOCAPS, NUCLEUS, Decoding, Said, decode
from capfilt.predict.predictor import BlipSpeech
from capfilt.predict.sampling import nucleus, penalised, without
from capfilt.weights.convert.official import CAPTIONER
from capfilt.weights.replay.case import Case

PAD, END = 0, 102
CASES: dict[str, Decoding] = {
    "beam3_coco": BEAM,
    "beam3_nocaps": NOCAPS,
    "beam3_default": dataclasses.replace(BEAM, max_length=30, min_length=10),
    "beam5": dataclasses.replace(BEAM, beams=5),
    "greedy": Decoding(method="greedy", repetition_penalty=1.0),
    "greedy_rep": Decoding(method="greedy", repetition_penalty=1.1),
}


@pytest.fixture(scope="module")
def case(shared: Path) -> Case:
    return Case(shared / "golden" / "blip" / "03_captioner")


@pytest.fixture(scope="module")
def blip(case: Case) -> Blip:
    return case.fill(Blip(case.config("speak")).eval(), CAPTIONER)


@torch.inference_mode()
def spoken(blip: Blip, case: Case, decoding: Decoding, uniforms: Tensor | None = None) -> list[list[Said]]:
    speech = BlipSpeech(blip.text, blip.text.project(blip.vit(case.given("image"))))
    return decode(speech, case.given("prompt_ids"), decoding, END, PAD, uniforms)


def as_rows(start: Tensor, said: list[Said], width: int, pad: int = PAD) -> list[list[int]]:
    """The whole sequence, start included, padded to `width`."""
    rows = [[*head, *text.ids] for head, text in zip(start.tolist(), said, strict=True)]
    return [row + [pad] * (width - len(row)) for row in rows]


@pytest.mark.parametrize("name", CASES)
def test_captions_are_the_originals(blip: Blip, case: Case, name: str):
    decoding, start = CASES[name], case.given("prompt_ids")
    found = spoken(blip, case, decoding)
    ids = case.tensors[f"out.gen.{name}.ids"]
    assert as_rows(start, [texts[0] for texts in found], ids.shape[1]) == ids.tolist()
    if decoding.method != "beam":
        return
    tolerances = case.about["tolerances_atol"]
    best = torch.tensor([texts[0].rank for texts in found])
    torch.testing.assert_close(
        best, case.tensors[f"out.gen.{name}.scores"], rtol=0, atol=tolerances[f"out.gen.{name}.scores"]
    )
    ids = case.tensors[f"out.gen.{name}.nbest_ids"]
    flat = [text for texts in found for text in texts]
    assert as_rows(start.repeat_interleave(decoding.beams, 0), flat, ids.shape[1]) == ids.tolist()
    ranks = torch.tensor([text.rank for text in flat])
    key = f"out.gen.{name}.nbest_scores"
    torch.testing.assert_close(ranks, case.tensors[key], rtol=0, atol=tolerances[key])


def test_beams_of_the_other_library_are_its_own(blip: Blip, shared: Path):
    """The same network decoded by transformers 5, which divides by the ids written, the end included."""
    case = Case(shared / "golden" / "blip" / "09_hf_caption")
    found = spoken(blip, case, dataclasses.replace(BEAM, length_rule="hf"))
    ids = case.tensors["out.hf.eps6.beam3_prompt_ids"]
    assert as_rows(case.given("prompt_ids"), [texts[0] for texts in found], ids.shape[1], pad=END) == ids.tolist()
    ranks = torch.tensor([texts[0].rank for texts in found])
    torch.testing.assert_close(ranks, case.tensors["out.hf.eps6.beam3_prompt_scores"], rtol=0, atol=1e-4)


def written(row: list[int], start: int) -> int:
    """How many ids of a stored row were really drawn."""
    said = row[start:]
    return said.index(END) + 1 if END in said else len(said)


def test_nucleus_draws_from_what_the_original_kept(blip: Blip, case: Case):
    ids, start = case.tensors["out.sample.ids"], case.given("prompt_ids").shape[1]
    kept, probabilities = case.tensors["out.sample.kept_ids"], case.tensors["out.sample.kept_probs"]
    with torch.inference_mode():
        seen = blip.text.project(blip.vit(case.given("image")))
        logits = blip.text.word_logits(blip.text.speak(ids, torch.ones_like(ids), seen))
    compared = 0
    for row, line in enumerate(ids.tolist()):
        for step in range(written(line, start)):
            here = start + step
            scores = penalised(logits[row : row + 1, here - 1], ids[row : row + 1, :here], NUCLEUS.repetition_penalty)
            scores = without(scores, END) if step < NUCLEUS.least(start) else scores
            mine, shares = nucleus(scores, NUCLEUS.top_k, NUCLEUS.top_p)
            inside = shares[0] > 0
            found = dict(zip(mine[0][inside].tolist(), shares[0][inside].tolist(), strict=True))
            count = int(case.tensors["out.sample.n_kept"][row, step])
            want = dict(zip(kept[row, step, :count].tolist(), probabilities[row, step, :count].tolist(), strict=True))
            assert set(found) == set(want), (row, step)
            assert found == pytest.approx(want, abs=case.about["tolerances_atol"]["out.sample.kept_probs"])
            compared += 1
    assert compared > 30


def test_numbers_that_fall_on_the_originals_draws_give_its_captions(blip: Blip, case: Case):
    ids, start = case.tensors["out.sample.ids"], case.given("prompt_ids").shape[1]
    kept, probabilities = case.tensors["out.sample.kept_ids"], case.tensors["out.sample.kept_probs"]
    uniforms = torch.zeros(len(ids), NUCLEUS.room(start), dtype=torch.float64)
    for row, line in enumerate(ids.tolist()):
        for step in range(written(line, start)):
            shares, order = probabilities[row, step].double().sort(descending=True)
            place = kept[row, step][order].tolist().index(line[start + step])
            uniforms[row, step] = shares[:place].sum() + shares[place] / 2  # the middle of the drawn word's share
    found = [texts[0] for texts in spoken(blip, case, NUCLEUS, uniforms)]
    want = [tuple(line[start : start + written(line, start)]) for line in ids.tolist()]
    assert [text.ids for text in found] == want
