"""What the vision tower, the matcher and the captioner compute without a step of the optimiser."""

import dataclasses

import torch
from torch import Tensor, nn

from capfilt.blocks.med import with_first
from capfilt.blocks.vit import Vit, resize_positions
from capfilt.errors import DataError
from capfilt.evaluate.replay.case import Case, Outputs
from capfilt.evaluate.replay.spoken import captions
from capfilt.models.blip import CAPTIONING, Blip
from capfilt.objectives.language import IGNORED, SmoothingRule
from capfilt.pair import Batch
from capfilt.predict.explain import laid_open
from capfilt.weights.convert import official
from capfilt.weights.rename import Layout, to_foreign, to_own, under

TOWER_ALONE = Layout("official vision tower", under("visual_encoder.", "", official.VIT))


@torch.no_grad()
def vit(case: Case, rule: SmoothingRule) -> Outputs:
    """Tokens, residual streams, and the tower at other image sizes."""
    stored = case.weights()
    tower = Vit(case.vit())
    tower.load_state_dict(to_own(stored, TOWER_ALONE, tower.state_dict(), case.folder.name))
    pixels = case.given("image")
    x = torch.cat((tower.cls.expand(len(pixels), -1, -1), tower.stem(pixels)), dim=1) + tower.positions
    found = {"out.tokens": tower(pixels)}
    for i, block in enumerate(tower.blocks):
        x = block(x)
        if i == 0:
            found["out.block0"] = x
    found["out.block_last"] = x
    for name, px in case.about["sizes"].items():
        if name == "native":
            continue
        other = Vit(case.vit(px))
        other.load_state_dict(to_own(stored, TOWER_ALONE, other.state_dict(), case.folder.name, resize=True))
        found[f"out.pos_embed_{name}"] = resize_positions(tower.positions, other.config.tokens)
        found[f"out.tokens_{name}"] = other(case.given(f"image_{name}"))
    return found


def retrieval_itm(case: Case, rule: SmoothingRule) -> Outputs:
    """Both towers, cosines, matching logits with [ENC] and [CLS], a cross-attention map, and the re-ranking."""
    model = case.fill(Blip(case.config("read", "look")), official.ITM).eval()
    ids, mask, pixels = case.given("input_ids"), case.given("attention_mask"), case.given("image")
    with torch.no_grad():
        image = model.vit(pixels)
        kv = model.text.project(image)
        image_vec, text_vec = model.image_vec(image), model.text_vec(ids, mask)
        enc = with_first(ids, model.config.special.enc)
        alone = case.given("fe_input_ids")
        ones = torch.ones_like(alone)
        first = [(k[:1], v[:1]) for k, v in kv]
        found = {
            "out.image_embeds": image,
            "out.text_states": model.text.read(ids, mask),
            "out.image_feat": image_vec,
            "out.text_feat": text_vec,
            "out.sim": image_vec @ text_vec.T,
            "out.itm_cls": model.match_logits(ids, mask, kv, marked=False),  # this class leaves [CLS] in place
            "out.multimodal_states_enc": model.text.look(enc, mask, kv),
            "out.itm_enc": model.match_logits(ids, mask, kv),
            "out.itm_enc_matrix": _match_matrix(model, ids, mask, image),
            "out.fe_image": model.vit(pixels[:1]),
            "out.fe_text": model.text.read(alone, ones),
            "out.fe_multimodal": model.text.look(with_first(alone, model.config.special.enc), ones, first),
        }
    return found | _attention_map(case, model, image) | _rerank(case, model)


def _match_matrix(model: Blip, ids: Tensor, mask: Tensor, image: Tensor) -> Tensor:
    """(images, texts, 2) logits of every pair."""
    kv, images = model.text.project(image), len(image)
    logits = model.match_logits(ids.repeat_interleave(images, 0), mask.repeat_interleave(images, 0), kv)
    return logits.view(len(ids), images, 2).transpose(0, 1)


def _attention_map(case: Case, model: Blip, image: Tensor) -> Outputs:
    """Where one layer's words look, and how the match logit hangs on it."""
    ids, mask = with_first(case.given("input_ids"), model.config.special.enc), case.given("attention_mask")
    states, looked = laid_open(model.text, ids, mask, model.text.project(image), case.about["xattn_layer"])
    (grad,) = torch.autograd.grad(model.match_head(states[:, 0])[:, 1].sum(), looked)
    return {"out.xattn_map": looked.detach(), "out.xattn_grad": grad}


@torch.no_grad()
def _rerank(case: Case, model: Blip) -> Outputs:
    """The k nearest by cosine are scored by match logit + cosine, the others are -100."""
    ids, mask = case.given("rerank_input_ids"), case.given("rerank_attention_mask")
    image = model.vit(case.given("rerank_image"))
    sims = model.image_vec(image) @ model.text_vec(ids, mask).T
    score = _match_matrix(model, ids, mask, image)[..., 1] + sims
    nearest = case.about["rerank"]["k_test"]

    def reranked(sims: Tensor, score: Tensor) -> Tensor:
        chosen = sims.topk(min(nearest, sims.shape[1]), dim=1).indices
        return torch.full_like(score, -100.0).scatter(1, chosen, score.gather(1, chosen))

    return {
        "out.rerank_sims": sims,
        "out.rerank_score_i2t": reranked(sims, score),
        "out.rerank_score_t2i": reranked(sims.T, score.T),
    }


def captioner(case: Case, rule: SmoothingRule) -> Outputs:
    """The language loss with its gradients, the logits of spoken words, and texts of its own."""
    model = case.fill(Blip(case.config("speak")), official.CAPTIONER)
    ids, mask = case.given("lm_input_ids"), case.given("lm_attention_mask")
    # The fine-tuning classes of the original never train the row that padding looks up; seen under its loss rule only.
    model.text.words.padding_idx = model.config.special.pad
    numbers = torch.arange(len(ids))
    prompt = int((case.given("lm_targets") == IGNORED).long().cumprod(dim=1).sum(dim=1).min())
    objective = dataclasses.replace(CAPTIONING, prompt=prompt, smoothing_rule=rule)
    batch = Batch(case.given("image"), ids, mask, numbers, numbers)
    loss = model.losses(batch, objective, 0.0, torch.zeros(2, len(ids)))["lm"]
    loss.backward()
    columns = case.given("logit_cols")
    found = {"out.lm_loss": loss.detach(), **gradients(model, official.CAPTIONER)}
    words = model.text.words.weight.grad
    head = model.text.head
    if words is None or head is None:
        raise DataError("the captioner has no word gradients")
    found |= {"out.grad_word_rows": words[columns], "out.grad_word_row0": words[0]}
    found["out.grad_lm_bias_cols"] = found["out.grad.text_decoder.cls.predictions.bias"][columns]
    with torch.no_grad():
        kv = model.text.project(model.vit(case.given("image")))
        logits = model.text.word_logits(model.text.speak(ids, mask, kv))
        start = case.given("prompt_ids")
        begun = model.text.word_logits(model.text.speak(start, torch.ones_like(start), kv))
        best = logits.topk(case.tensors["out.logits_top5"].shape[-1])
    found |= captions(case, model.eval())
    return found | {
        "out.logits_cols": logits[..., columns],
        "out.logits_lse": logits.logsumexp(dim=-1),
        "out.logits_top5": best.values,
        "out.logits_top5_ids": best.indices,
        "out.logits_mean": logits.mean(dim=-1),
        "out.prompt_logits_cols": begun[..., columns],
    }


def gradients(model: nn.Module, layout: Layout, run: str = "") -> Outputs:
    """Every gradient as `out.[run.]grad.<foreign name>`; zeros where none flowed, as in the twins."""
    grads = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}
    prefix = f"out.{run}.grad." if run else "out.grad."
    return {prefix + name: grad for name, grad in to_foreign(grads, layout).items()}
