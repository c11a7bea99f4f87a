"""What the towers, the matcher and the speaker compute without a training step, and the layouts of the real sizes."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from capfilt.blocks.attention import mask_bias, merge_heads, split_heads
from capfilt.blocks.med import Role
from capfilt.blocks.vit import Vit, resize_positions
from capfilt.errors import DataError
from capfilt.files import read_json
from capfilt.models.blip import CAPTIONING, PRESETS, Blip
from capfilt.objectives.language import IGNORED, SmoothingRule
from capfilt.pair import Batch
from capfilt.weights.convert import official
from capfilt.weights.rename import Layout, to_foreign, to_own, under
from capfilt.weights.replay.case import Case

Outputs = dict[str, Tensor]
TOWER_ALONE = Layout("official vision tower", under("visual_encoder.", "", official.VIT))
BUILT: dict[str, tuple[Layout, tuple[Role, ...], bool]] = {  # class of the original → our layout, roles, twins
    "BLIP_Pretrain": (official.PRETRAIN, ("read", "look", "speak"), True),
    "BLIP_Decoder": (official.CAPTIONER, ("speak",), False),
    "BLIP_Retrieval": (official.RETRIEVAL, ("read", "look"), True),
    "BLIP_ITM": (official.ITM, ("read", "look"), False),
}


def layouts(case: Case) -> Iterator[tuple[str, str | None]]:
    """(layout, what is wrong with it or None) of every layout at real size that we have a table for."""
    for name, entry in read_json(case.folder / "layouts.json").items():
        kind, _, size = name.partition("/")
        if kind in BUILT and size in PRESETS:
            yield name, _layout_fault(kind, size, entry)


def _layout_fault(kind: str, size: str, entry: dict) -> str | None:
    layout, roles, twins = BUILT[kind]
    preset = PRESETS[size]
    vit = dataclasses.replace(preset.vit, px=entry["image_size"])
    config = dataclasses.replace(preset, vit=vit, roles=roles, queue=preset.queue if twins else 0)
    with torch.device("meta"):  # names and shapes only
        model = Blip(config)
        foreign = {}
        for key, shape in entry["keys"].items():
            whole = bool(shape) and shape[-1] == "int64"
            foreign[key] = torch.empty(shape[:-1] if whole else shape, dtype=torch.int64 if whole else torch.float32)
    to_own(foreign, layout, model.state_dict(), f"{kind}/{size}")
    back = {k: tuple(v.shape) for k, v in to_foreign(model.state_dict(), layout).items()}
    want = {k: tuple(v.shape) for k, v in foreign.items() if not k.endswith("position_ids")}
    wrong = [k for k in {*back, *want} if back.get(k) != want.get(k)]
    if wrong:
        return f"written in this layout {sorted(wrong)} differ"
    trained = sum(p.numel() for n, p in model.named_parameters() if p.requires_grad and n not in layout.fresh)
    if trained != entry["unique_trainable_parameters"]:
        return f"{trained} trained parameters, the original has {entry['unique_trainable_parameters']}"
    return None


@torch.no_grad()
def vit(case: Case, rule: SmoothingRule) -> Outputs:
    """Tokens, residual streams, and the tower at other image sizes."""
    stored = case.weights()
    tower = Vit(case.config("read").vit)
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
        other = Vit(case.config("read", px=px).vit)
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
        enc = _first(ids, model.config.special.enc)
        alone = case.given("fe_input_ids")
        ones = torch.ones_like(alone)
        first = [(k[:1], v[:1]) for k, v in kv]
        found = {
            "out.image_embeds": image,
            "out.text_states": model.text.read(ids, mask),
            "out.image_feat": image_vec,
            "out.text_feat": text_vec,
            "out.sim": image_vec @ text_vec.T,
            "out.itm_cls": model.match_head(model.text.look(ids, mask, kv)[:, 0]),  # this class leaves [CLS] in place
            "out.multimodal_states_enc": model.text.look(enc, mask, kv),
            "out.itm_enc": model.match_logits(ids, mask, kv),
            "out.itm_enc_matrix": _match_matrix(model, ids, mask, image),
            "out.fe_image": model.vit(pixels[:1]),
            "out.fe_text": model.text.read(alone, ones),
            "out.fe_multimodal": model.text.look(_first(alone, model.config.special.enc), ones, first),
        }
    return found | _attention_map(case, model, image) | _rerank(case, model)


def _first(ids: Tensor, special: int) -> Tensor:
    return torch.cat((torch.full_like(ids[:, :1], special), ids[:, 1:]), dim=1)


def _match_matrix(model: Blip, ids: Tensor, mask: Tensor, image: Tensor) -> Tensor:
    """(images, texts, 2) logits of every pair."""
    kv, images = model.text.project(image), len(image)
    logits = model.match_logits(ids.repeat_interleave(images, 0), mask.repeat_interleave(images, 0), kv)
    return logits.view(len(ids), images, 2).transpose(0, 1)


def _attention_map(case: Case, model: Blip, image: Tensor) -> Outputs:
    """Where one layer's words look, and how the match logit hangs on it; by the layer's own parts."""
    mask = case.given("attention_mask")
    x = model.text.embed(_first(case.given("input_ids"), model.config.special.enc))
    bias, kv = mask_bias(mask, False, x.dtype), model.text.project(image)
    probabilities = x.new_zeros(0)
    layers: Any = model.text.layers  # a ModuleList forgets what it holds
    for i, layer in enumerate(layers):
        x = layer.attended(x, bias, False)
        if i != case.about["xattn_layer"]:
            x = layer.rest(x, kv[i])
            continue
        cross = layer.cross
        (k, v), q = kv[i], split_heads(cross.q(x), cross.heads)
        probabilities = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(dim=-1)
        probabilities.retain_grad()
        x = layer.cross_norm(x + cross.out(merge_heads(probabilities @ v)))
        x = layer.rest(x, None)
    model.match_head(x[:, 0])[:, 1].sum().backward()
    assert probabilities.grad is not None
    return {"out.xattn_map": probabilities.detach(), "out.xattn_grad": probabilities.grad}


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
    """The language loss with its gradients, and the logits of spoken words."""
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
    return found | {
        "out.logits_cols": logits[..., columns],
        "out.logits_lse": logits.logsumexp(dim=-1),
        "out.logits_top5": best.values,
        "out.logits_top5_ids": best.indices,
        "out.logits_mean": logits.mean(dim=-1),
        "out.prompt_logits_cols": begun[..., columns],
    }


def gradients(model: Blip, layout: Layout, run: str = "") -> Outputs:
    """Every gradient as `out.[run.]grad.<foreign name>`; zeros where none flowed, as in the twins."""
    grads = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}
    prefix = f"out.{run}.grad." if run else "out.grad."
    return {prefix + name: grad for name, grad in to_foreign(grads, layout).items()}
