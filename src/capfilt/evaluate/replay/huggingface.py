"""Folders that transformers wrote, at the eps of their config and at the original's, answering as either code does.

Three things that transformers 5 does otherwise stand in the cases under its own name: the eps of the vision tower,
beams sorted by another length, and answers that see the padding of their questions.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from capfilt.blocks.attention import mask_bias
from capfilt.evaluate.replay.case import Case, Model, Outputs, widened
from capfilt.evaluate.replay.spoken import GREEDY, ranks_of, rows_of, speech_of, texts_of
from capfilt.files import read_json
from capfilt.models.blip import CAPTIONING, Blip
from capfilt.models.blip_vqa import BlipVqa
from capfilt.objectives.language import SmoothingRule, next_labels, next_token
from capfilt.pair import Batch
from capfilt.predict.answerer import ANSWERS
from capfilt.predict.decode import BEAM, Decoding
from capfilt.predict.predictor import BlipSpeech
from capfilt.weights.convert.huggingface import IN_USE, parts_from_config
from capfilt.weights.rename import to_own
from capfilt.weights.store import load_tensors

MEANT = ("vit.heads", "text.heads", "vit.eps")  # the case's config is right in what published ones get wrong


@torch.no_grad()
def caption(case: Case, rule: SmoothingRule) -> Outputs:
    """The captioner: logits, losses, and texts with and without the prompt."""
    found: Outputs = {}
    ids, mask, start = case.given("lm_input_ids"), case.given("lm_attention_mask"), case.given("prompt_ids")
    columns, pixels, numbers = case.given("logit_cols"), case.given("image"), torch.arange(len(ids))
    for name, model in _variants(case, "caption", Blip):
        image = model.vit(pixels)
        seen = model.text.project(image)
        logits = model.text.word_logits(model.text.speak(ids, mask, seen))
        begun = model.text.word_logits(model.text.speak(start, torch.ones_like(start), seen))
        objective = dataclasses.replace(CAPTIONING, prompt=start.shape[1], smoothing_rule=rule)
        loss = model.losses(Batch(pixels, ids, mask, numbers, numbers), objective, 0.0, torch.zeros(2, len(ids)))["lm"]
        plain = next_token(logits[:, :-1].flatten(0, 1), next_labels(ids, mask).flatten(), smoothing=0.0)
        found |= {
            f"{name}.image_embeds": image,
            f"{name}.logits_cols": logits[..., columns],
            f"{name}.prompt_logits_cols": begun[..., columns],
            f"{name}.lm_loss": loss,
            f"{name}.loss_pad_masked": plain,
        }
        for run, first, decoding in (
            ("greedy_prompt_ids", start, dataclasses.replace(GREEDY, min_length=0)),
            ("greedy_prompt_min5_ids", start, GREEDY),
            ("greedy_noprompt_ids", start[:, :1], dataclasses.replace(GREEDY, min_length=0)),
            ("beam3_prompt_ids", start, _as(name, BEAM)),
        ):
            found |= _written(case, f"{name}.{run}", speech_of(model, pixels), first, decoding)
    return found


@torch.no_grad()
def itm(case: Case, rule: SmoothingRule) -> Outputs:
    """The matcher with [CLS], which transformers leaves in place, and with [ENC]."""
    found: Outputs = {}
    ids, mask = case.given("input_ids"), case.given("attention_mask")
    for name, model in _variants(case, "match", Blip):
        image = model.vit(case.given("image"))
        seen = model.text.project(image)
        found |= {
            f"{name}.image_embeds": image,
            f"{name}.itm_cls": model.match_logits(ids, mask, seen, marked=False),
            f"{name}.itm_enc": model.match_logits(ids, mask, seen),
            f"{name}.sim": model.image_vec(image) @ model.text_vec(ids, mask).T,
        }
    return found


@torch.no_grad()
def vqa(case: Case, rule: SmoothingRule) -> Outputs:
    """Questions with [CLS] and with [ENC]: their states, the logits of given answers, and answers written."""
    found: Outputs = {}
    mask, columns = case.given("question_mask"), case.given("logit_cols")
    answers, shown = case.given("answer_ids"), case.given("answer_mask")
    start = torch.full((len(mask), 1), case.special.dec)
    for name, model in _variants(case, "vqa", BlipVqa):
        image = model.vit(case.given("image"))
        seen = model.text.project(image)
        found[f"{name}.image_embeds"] = image
        for mark in ("cls", "enc"):
            states = model.question(case.given(f"question_ids_{mark}"), mask, seen, marked=False)
            heard = model.answer.project(states)
            hidden = None if name.startswith("out.hf") else mask_bias(mask, False, states.dtype)
            logits = model.answer_logits(answers, shown, heard, hidden)
            found |= {
                f"{name}.question_states_{mark}": states,
                f"{name}.answer_logits_cols_{mark}": logits[..., columns],
                f"{name}.answer_logits_lse_{mark}": logits.logsumexp(dim=-1),
            }
            greedy = dataclasses.replace(GREEDY, max_length=ANSWERS.max_length, min_length=0)
            for run, decoding in (("greedy", greedy), ("beam3", _as(name, ANSWERS))):
                speech = BlipSpeech(model.answer, heard)  # either code shows the padding of the questions here
                found |= _written(case, f"{name}.{run}_ids_{mark}", speech, start, decoding)
    return found


def _variants(case: Case, kind: str, built: Callable[[Any], Model]) -> Iterator[tuple[str, Model]]:
    """(`out.hf.eps5` and its like, the model of the folder with that eps)."""
    folder = case.folder / "hf_model"
    parts = parts_from_config(read_json(folder / "config.json"), MEANT, folder)
    tensors = widened(load_tensors(folder / "model.safetensors"))
    names = {m[1]: m[2] for name in case.tensors if (m := re.match(r"(out\.(?:hf\.eps(\d+)|official))\.", name))}
    for name, eps in sorted(names.items()):
        right = 10.0 ** -int(eps) if eps else case.about["config"]["vision_layer_norm_eps"]
        vit = dataclasses.replace(parts.vit, eps=right)
        model = built(dataclasses.replace(parts, vit=vit).config(kind, case.special))
        model.load_state_dict(to_own(tensors, IN_USE[kind], model.state_dict(), folder))
        yield name, model.eval()


def _as(name: str, decoding: Decoding) -> Decoding:
    """The same search with the length rule of the code that the outputs are of."""
    return dataclasses.replace(decoding, length_rule="hf") if name.startswith("out.hf") else decoding


def _written(case: Case, name: str, speech: BlipSpeech, start: Tensor, decoding: Decoding) -> Outputs:
    """The ids, and the scores of beams, of a text that the case has under this name."""
    if name not in case.tensors:
        return {}
    best = [said[0] for said in texts_of(speech, start, decoding, case.special)]
    # Behind the end of a beam transformers 5 repeats the end: its pad id, 0, counts as none.
    pad = case.special.sep if decoding.length_rule == "hf" else case.special.pad
    found = {name: rows_of(start, best, pad, case.tensors[name])}
    return found | ({name.replace("_ids", "_scores"): ranks_of(best)} if decoding.method == "beam" else {})
