"""Writing texts word by word over anything that can say what comes next; no model is named here.

Shapes: B images, T texts an image, R = T·B rows, P ids of the start, S ids written.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from capfilt.errors import ConfigError
from capfilt.predict.beam import Search
from capfilt.predict.rules import Allowed, Constraints, Progress, constraints
from capfilt.predict.sampling import nucleus, pick
from capfilt.predict.speech import BEAM, NOCAPS, NUCLEUS, Decoding, Said, Speech, said

__all__ = ["BEAM", "NOCAPS", "NUCLEUS", "Constraints", "Decoding", "Said", "Speech", "constraints", "decode"]

LOOKS = {"cpu": 1}  # steps from one look at which texts have ended to the next
AFAR = 4  # the same on other devices, which have to be waited for


@torch.inference_mode()
def decode(
    speech: Speech,
    start: Int[Tensor, "b p"],
    decoding: Decoding,
    end: int,
    pad: int,
    uniforms: Float[Tensor, "r s"] | None = None,
    words: Constraints | None = None,
) -> list[list[Said]]:
    """Writes on from `start`; for each of B images its texts: as drawn, or best first (beam: up to `beams` of them).

    end, pad: the id that ends a text, and one that is fed to rows that have ended.
    uniforms: numbers in [0, 1), one a row and id, for nucleus; R = T·B rows give T texts an image.
    words:    `constraints(decoding, tokenizer)`, where the decoding bans or requires words.

    Of several groups the best of each come first, then the second of each, and a text that two groups found comes once.
    An image gets no text only where the search met none that keeps every rule: required words can be out of reach
    behind `no_repeat` and banned ones.

    Raises ConfigError where the start, or the required words, leave no room, nucleus lacks its numbers, or words their
    ids.
    """
    prompt, room = start.shape[1], decoding.room(start.shape[1])
    if words is None:
        if decoding.banned or decoding.required:
            raise ConfigError(
                "decode: banned and required words come as ids; give words=constraints(decoding, tokenizer)"
            )
        words = Constraints()
    allowed = Allowed(decoding, words.banned, prompt, end, start.device)
    if decoding.method == "beam":
        progress = Progress(words.required, start.device) if words.required else None
        if progress and progress.most > room:
            raise ConfigError(
                f"decoding: the required words take {progress.most} ids, but max_length={decoding.max_length} leaves "
                f"{room} behind the start; raise it"
            )
        return Search(speech, start, decoding, allowed, progress, end, pad, looks(start.device)).run()
    if words.required:
        raise ConfigError(f"decoding: method='{decoding.method}' cannot require words; use method='beam'")
    if decoding.method == "greedy":
        return _write(speech, start, decoding, allowed, end, pad, None)
    if uniforms is None or len(uniforms) == 0 or len(uniforms) % len(start) or uniforms.shape[1] < room:
        got = None if uniforms is None else tuple(uniforms.shape)
        raise ConfigError(f"nucleus: needs uniforms (times {len(start)} images, at least {room} ids), got {got}")
    return _write(speech, start, decoding, allowed, end, pad, uniforms)


def live(decoding: Decoding, words: Constraints, n: int = 1) -> int:
    """Texts of an image that are in the making at once. n: how many are drawn, where they are drawn."""
    return decoding.beams * (1 + sum(map(len, words.required))) if decoding.method == "beam" else n


def looks(device: torch.device) -> int:
    """Steps from one look at which texts have ended to the next."""
    return LOOKS.get(device.type, AFAR)


def chosen(
    logits: Float[Tensor, "r v"],
    scores: Float[Tensor, "r v"],
    decoding: Decoding,
    uniforms: Float[Tensor, "r"] | None,
) -> tuple[Int[Tensor, "r"], Float[Tensor, "r"]]:
    """The next words by their scores, greedy or nucleus, and their log-probabilities by the model's own logits."""
    if decoding.method == "greedy" or uniforms is None:
        word = scores.argmax(dim=-1)
    else:
        word = pick(*nucleus(scores, decoding.top_k, decoding.top_p, decoding.temperature), uniforms)
    return word, logits.gather(1, word[:, None])[:, 0] - logits.logsumexp(dim=-1)


def _write(
    speech: Speech, start: Tensor, decoding: Decoding, allowed: Allowed, end: int, pad: int, uniforms: Tensor | None
) -> list[list[Said]]:
    """Greedy or nucleus. Rows that have ended say `pad`; once half of the images have ended, those leave the batch."""
    images, prompt = start.shape
    room, every = decoding.room(prompt), looks(start.device)
    texts = 1 if uniforms is None else len(uniforms) // images
    going = torch.arange(images, device=start.device)
    rows = torch.arange(texts * images, device=start.device)
    ids = torch.cat((start.repeat(texts, 1), start.new_full((len(rows), room), pad)), dim=1)
    logps = torch.zeros(len(rows), room, device=start.device)
    open_ = torch.ones(len(rows), dtype=torch.bool, device=start.device)
    logits = speech.hear(start)
    if texts > 1:
        speech.follow(going.repeat(texts))
        logits = logits.repeat(texts, 1)
    for step in range(room):
        here = prompt + step
        scores = allowed(logits, ids[rows, :here])
        word, logp = chosen(logits, scores, decoding, None if uniforms is None else uniforms[rows, step])
        ids[rows, here] = torch.where(open_[rows], word, pad)
        logps[rows, step] = torch.where(open_[rows], logp, 0.0)
        open_[rows] &= word != end
        if step + 1 == room:
            break
        if (step + 1) % every == 0:
            alive = open_.view(texts, images).any(dim=0)[going]
            left = int(alive.sum())
            if not left:
                break
            if 2 * left <= len(going):
                speech.keep(alive.nonzero()[:, 0])
                going = going[alive]
                rows = (torch.arange(texts, device=going.device)[:, None] * images + going).flatten()
        logits = speech.hear(ids[rows, here, None])
    flat = [said(*pair, end) for pair in zip(ids[:, prompt:].tolist(), logps.tolist(), strict=True)]
    return [flat[image::images] for image in range(images)]
