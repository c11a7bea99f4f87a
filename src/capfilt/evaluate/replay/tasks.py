"""Questions answered and statements judged, with the losses and gradients of fine-tuning on them."""

import torch
from torch import Tensor

from capfilt.blocks.attention import KeysValues, mask_bias
from capfilt.evaluate.replay.case import Case, Outputs
from capfilt.evaluate.replay.forward import gradients
from capfilt.evaluate.replay.spoken import ranks_of, rows_of, texts_of
from capfilt.models.blip_nlvr import BlipNlvr, BlipNlvrConfig, Reasoning
from capfilt.models.blip_vqa import Answering, BlipVqa, BlipVqaConfig
from capfilt.objectives.language import SmoothingRule, next_labels, text_losses
from capfilt.pair import Questions, Statements
from capfilt.predict.answerer import ANSWERS, SMOOTHING, Heard, rank
from capfilt.predict.predictor import BlipSpeech
from capfilt.weights.convert import official


def vqa(case: Case, rule: SmoothingRule) -> Outputs:
    """Training on weighted answers, candidates ranked, and answers written on the padded batch and one by one."""
    model = case.fill(BlipVqa(BlipVqaConfig(case.vit(), case.text(), case.special)), official.VQA)
    for text in (model.text, model.answer):  # as the original's: no gradient by looking padding up
        text.words.padding_idx = case.special.pad
    ids, mask = case.given("question_ids"), case.given("question_mask")
    owner = torch.arange(len(ids)).repeat_interleave(case.given("answers_per_question"))
    answers = (case.given("answer_ids"), case.given("answer_mask"), case.given("answer_weights"), owner)
    batch = Questions(case.given("image"), ids, mask, *answers)
    loss = model.losses(batch, Answering(smoothing_rule=rule))["vqa"]
    loss.backward()
    found = {"out.train_loss": loss.detach(), **gradients(model, official.VQA)}
    model.eval()
    with torch.no_grad():
        seen = model.text.project(model.vit(case.given("image")))
        states = model.question(ids, mask, seen)
        heard = Heard(model.answer.project(states), mask_bias(mask, False, states.dtype))
        own = heard.repeated(owner)
        said = model.answer_logits(batch.answer_ids, batch.answer_mask, own.kv, own.hidden)[:, :-1]
        labels = next_labels(batch.answer_ids, batch.answer_mask)
        found |= {"out.question_states": states, "out.train_loss_per_answer": text_losses(said, labels, rule=rule)}
        found |= _ranked(case, model, heard, rule)
        return found | _answered(case, model, heard, seen)


def _ranked(case: Case, model: BlipVqa, heard: Heard, rule: SmoothingRule) -> Outputs:
    """Every candidate's score, and the best of those whose first word is likeliest."""
    ids, mask = case.given("candidate_ids"), case.given("candidate_mask")
    start = torch.full((len(heard.kv[0][0]), 1), case.special.dec)
    first = model.answer_logits(start, torch.ones_like(start), heard.kv, heard.hidden)[:, 0]
    every = rank(model, heard, ids, mask, len(ids), SMOOTHING, rule)
    best = rank(model, heard, ids, mask, case.about["k_test"], SMOOTHING, rule)
    scores = torch.zeros_like(every.scores).scatter(1, every.ids, every.scores)
    kept = _in_order(best.ids, case.tensors["out.rank_topk_ids"])
    return {
        "out.first_logits_cols": first[:, case.given("logit_cols")],
        "out.first_logits_lse": first.logsumexp(dim=-1),
        "out.rank_first_token_probs": best.first,
        "out.rank_all_scores": scores,
        "out.rank_topk_ids": kept,
        "out.rank_topk_scores": scores.gather(1, kept),
        "out.rank_best": best.ids[:, 0],
    }


def _in_order(chosen: Tensor, recorded: Tensor) -> Tensor:
    """The recorded order where both hold the same: ours is by score, the original's by first word with ties in any."""
    same = (chosen.sort(dim=1).values == recorded.sort(dim=1).values).all(dim=1, keepdim=True)
    return torch.where(same, recorded, chosen)


def _answered(case: Case, model: BlipVqa, heard: Heard, seen: list[KeysValues]) -> Outputs:
    """Answers written about the padded batch, padding in sight as in the original, and about each question alone."""
    ids, mask = case.given("question_ids"), case.given("question_mask")
    start = torch.full((len(ids), 1), case.special.dec)
    together = texts_of(BlipSpeech(model.answer, heard.kv), start, ANSWERS, case.special)
    alone = []
    for i, length in enumerate(mask.sum(dim=1).tolist()):
        image = [(k[i : i + 1], v[i : i + 1]) for k, v in seen]
        states = model.question(ids[i : i + 1, :length], mask[i : i + 1, :length], image)
        alone += texts_of(BlipSpeech(model.answer, model.answer.project(states)), start[:1], ANSWERS, case.special)
    found: Outputs = {}
    for name, texts in (("out.gen", together), ("out.gen_single", alone)):
        best = [said[0] for said in texts]
        found[f"{name}.ids"] = rows_of(start, best, case.special.pad, case.tensors[f"{name}.ids"])
        found[f"{name}.scores"] = ranks_of(best)
    return found


def nlvr2(case: Case, rule: SmoothingRule) -> Outputs:
    """Statements about two images, either way round, with loss and gradients."""
    model = case.fill(BlipNlvr(BlipNlvrConfig(case.vit(), case.text(), case.special)), official.NLVR)
    model.text.words.padding_idx = case.special.pad
    ids, mask = case.given("input_ids"), case.given("attention_mask")
    first, second = case.given("image0"), case.given("image1")
    loss = model.losses(Statements(torch.stack((first, second)), ids, mask, case.given("targets")), Reasoning())["nlvr"]
    loss.backward()
    found = {"out.loss": loss.detach(), **gradients(model, official.NLVR)}
    with torch.no_grad():
        found["out.logits"] = model.logits(ids, mask, model.look(first, second))
        found["out.logits_swapped"] = model.logits(ids, mask, model.look(second, first))
    return found
