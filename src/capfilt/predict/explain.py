"""Where the model looks at each word: Grad-CAM over one layer's cross-attention (ALBEF, arXiv 2107.07651, §5.4).

A patch is warm for a word where the word looks at it and looking there raises the answer: attention times its
positive gradient, averaged over heads, [CLS] left out.

Shapes: R texts, H heads, L ids, N image tokens, D width, W words, g patches a side.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from capfilt.blocks.attention import KeysValues, mask_bias, merge_heads, split_heads
from capfilt.blocks.med import Med, MedLayer
from capfilt.errors import ConfigError, DataError
from capfilt.inputs.texts import clean_caption
from capfilt.models.blip import Blip
from capfilt.predict.feeding import as_tensor
from capfilt.predict.predictor import Predictor

Asked = Literal["look", "speak"]


@dataclass(frozen=True)
class Explanation:
    """The words of a text and the heat of each over the image.

    words: as the tokenizer splits them, pieces joined.
    maps:  (W, g, g), not negative, rows from the top. What they weigh against each other is kept: no map is stretched.
    score: look: the probability of a match, in [0, 1]. speak: mean log-probability of an id, the end included.
    cut:   how many words did not fit into the model's length and have no map.
    """

    words: tuple[str, ...]
    maps: Float[np.ndarray, "w g g"]
    score: float
    cut: int = 0


def explain(
    predictor: Predictor,
    pixels: UInt8[np.ndarray, "h w 3"],
    text: str,
    asked: Asked | None = None,
    layer: int | None = None,
) -> Explanation:
    """The heat of each word of `text` over one image.

    asked: `look`: what each word adds to the match logit. `speak`: what the captioner looks at as it writes each word,
           by the gradient of that word's logit. None: `look` where the model can, else `speak`.
    layer: counted from 0. None is depth // 2, which is 6 of 12: the default of the original authors' library
           (their demos take 6 to 8; late layers localise worse). Looking, the last layer is no choice, because only
           its [ENC] reaches the logit, so two layers give 0.

    The heat of a word of several pieces is their mean, so that long words are no warmer for it.

    Raises ConfigError for a role or layer that the model does not have, DataError for a text without a word.
    """
    model = predictor.model
    asked = asked or ("look" if "look" in model.config.roles else "speak")
    if asked not in model.config.roles:
        raise ConfigError(f"explain: {asked} is none of this model's roles ({', '.join(model.config.roles)})")
    layer = _layer(model, asked, layer)
    said = clean_caption(text)
    ids = predictor.tokenizer.encode([said], predictor.max_length)[0].astype(np.int64)[1:-1]
    if not len(ids):
        raise DataError(f"explain: {text!r} holds no word; give a text to look for")
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            tensor = as_tensor(pixels[None], model.config.vit.px, predictor.device)
            seen = model.text.project(model.vit(tensor))
        body = torch.from_numpy(ids).to(predictor.device)
        heat, score = (_looked if asked == "look" else _spoken)(predictor, body, seen, layer)
    finally:
        model.train(was_training)
    words, maps = _joined(predictor, ids.tolist(), heat)
    longer = predictor.tokenizer.encode([clean_caption(text, len(text))], len(text) + 2)[0][1:-1].tolist()
    every, _ = _joined(predictor, longer, heat.new_zeros(len(longer), 1, 1))
    return Explanation(words, maps.cpu().numpy(), score, len(every) - len(words))


def laid_open(
    text: Med,
    ids: Int[Tensor, "r l"],
    mask: Int[Tensor, "r l"],
    seen: list[KeysValues],
    layer: int,
    causal: bool = False,
) -> tuple[Float[Tensor, "r l d"], Float[Tensor, "r h l n"]]:
    """The states of texts that look at images (`causal`: speak), and one layer's cross-attention they hang on.

    The probabilities are a leaf of their own: `torch.autograd.grad` of anything made from the states reaches them and
    goes no further.
    """
    x = text.embed(ids)
    bias = mask_bias(mask, causal, x.dtype)
    probabilities = x.new_zeros(0)
    for i, part in enumerate(text.layers):
        with torch.set_grad_enabled(i >= layer):
            x = part.attended(x, bias, causal)
            if i == layer:
                x, probabilities = _watched(part, x, seen[i])
            else:
                x = part.rest(x, seen[i])
    return x, probabilities


def _watched(part: MedLayer, x: Tensor, seen: KeysValues) -> tuple[Tensor, Tensor]:
    cross = part.cross
    assert cross is not None and part.cross_norm is not None
    (k, v), q = seen, split_heads(cross.q(x), cross.heads)
    probabilities = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(dim=-1).detach().requires_grad_()
    return part.rest(part.cross_norm(x + cross.out(merge_heads(probabilities @ v))), None), probabilities


def _looked(
    predictor: Predictor, body: Int[Tensor, "l"], seen: list[KeysValues], layer: int
) -> tuple[Float[Tensor, "l g g"], float]:
    model = predictor.model
    special = model.config.special
    first = special.cls if predictor.faithful.match_cls else special.enc
    ids = torch.cat((body.new_tensor([first]), body, body.new_tensor([special.sep])))[None]
    states, probabilities = laid_open(model.text, ids, torch.ones_like(ids), seen, layer)
    logits = model.match_logits_of(states[:, 0])
    (gradient,) = torch.autograd.grad(logits[0, 1], probabilities)
    heat = _heat(probabilities, gradient)[0, 1:-1]
    return heat, logits.softmax(dim=-1)[0, 1].item()


def _spoken(
    predictor: Predictor, body: Int[Tensor, "l"], seen: list[KeysValues], layer: int
) -> tuple[Float[Tensor, "l g g"], float]:
    model = predictor.model
    start = body.new_tensor(predictor.start)
    body = body[: model.config.text.positions - len(start)]
    ids = torch.cat((start, body))[None]
    states, probabilities = laid_open(model.text, ids, torch.ones_like(ids), seen, layer, causal=True)
    said = slice(len(start) - 1, None)  # the positions that say the words of the body, then the end
    logits = model.text.word_logits(states[0, said])[:, : len(predictor.tokenizer)].float()
    target = torch.cat((body, body.new_tensor([model.config.special.sep])))
    chosen = logits.gather(1, target[:, None])[:, 0]
    score = (chosen - logits.logsumexp(dim=-1)).mean().item()
    heat = []
    for i in range(len(body)):  # each word's own logit, at its own position
        (gradient,) = torch.autograd.grad(chosen[i], probabilities, retain_graph=True)
        heat.append(_heat(probabilities, gradient)[0, len(start) - 1 + i])
    return torch.stack(heat), score


def _heat(probabilities: Float[Tensor, "r h l n"], gradient: Float[Tensor, "r h l n"]) -> Float[Tensor, "r l g g"]:
    heat = (gradient.clamp(min=0) * probabilities.detach()).mean(dim=1)[..., 1:]
    side = round(heat.shape[-1] ** 0.5)
    return heat.unflatten(-1, (side, side))


def _joined(predictor: Predictor, ids: list[int], heat: Tensor) -> tuple[tuple[str, ...], Tensor]:
    """Word pieces back to words, and the mean heat of each word's pieces."""
    words: list[str] = []
    places: list[list[int]] = []
    for i, piece in enumerate(predictor.tokenizer.decode([one]) for one in ids[: len(heat)]):
        if piece.startswith("##") and words:
            words[-1] += piece[2:]
            places[-1].append(i)
        else:
            words.append(piece or "[UNK]")
            places.append([i])
    return tuple(words), torch.stack([heat[at].mean(dim=0) for at in places])


def _layer(model: Blip, asked: Asked, layer: int | None) -> int:
    depth = model.config.text.depth
    last = depth - 1 if asked == "speak" else depth - 2
    if last < 0:
        raise ConfigError("explain: in a text transformer of one layer no word but [ENC] reaches the match logit")
    chosen = min(depth // 2, last) if layer is None else layer
    if not 0 <= chosen <= last:
        raise ConfigError(f"explain: layer={layer}, but this model can be asked at 0 to {last} ({depth} layers)")
    return chosen
