"""BLIP (arXiv 2201.12086): one text transformer that reads, looks and speaks beside a vision transformer.

Shapes: B pairs, N image tokens, L text tokens, D width, E compared width, C candidates, K queue length, V words.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from capfilt.blocks.attention import KeysValues, Seen
from capfilt.blocks.med import Med, MedConfig, Role, SpecialIds, with_first
from capfilt.blocks.vit import Vit, VitConfig
from capfilt.errors import ConfigError
from capfilt.objectives.contrastive import TEMPERATURE, contrastive, enqueue, positives_on_diagonal, soft_targets
from capfilt.objectives.language import IGNORED, SmoothingRule, next_labels, next_token
from capfilt.objectives.matching import draw, matching, negative_odds
from capfilt.pair import Batch
from capfilt.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from capfilt.inputs.tokenizer import TextTokenizer


@dataclass(frozen=True)
class BlipConfig:
    """What is built. `roles` says what the text transformer can do; `queue` > 0 brings the momentum twins.

    The captioner is a Blip that only speaks, the filter one that reads and looks, the pre-trained model does all three.
    `prompt` is what its captions start with ("a picture of " where BLIP was tuned on COCO): given, not written.
    """

    vit: VitConfig = field(default_factory=VitConfig)
    text: MedConfig = field(default_factory=MedConfig)
    special: SpecialIds = field(default_factory=SpecialIds)
    embed: int = 256
    roles: tuple[Role, ...] = ("read", "look", "speak")
    queue: int = 57600
    prompt: str = ""

    def with_words(self, tokenizer: "TextTokenizer") -> "BlipConfig":
        """The same sizes with a tokenizer's vocabulary and ids."""
        text = dataclasses.replace(self.text, vocab=len(tokenizer))
        return dataclasses.replace(self, special=SpecialIds(**tokenizer.marks), text=text)


@dataclass(frozen=True)
class Objective:
    """How a Blip is trained. The defaults are pre-training; RETRIEVAL and CAPTIONING below are the paper's fine-tuning.

    positives: `pair`: only a row's own partner is right; `image`: every text of the same image.
    floor:     added to the odds of each hard negative.
    negatives: which image features the text's hard negative images are drawn by: the twins' or the student's.
    across:    what several processes share: `queue` (features enter everyone's queue), `negatives` (also drawn from
               all), `all` (also compared with all: the same losses as one process with the joint batch).
    prompt:    leading ids that the language loss does not count.
    """

    losses: tuple[Literal["itc", "itm", "lm"], ...] = ("itc", "itm", "lm")
    momentum: float = 0.995
    alpha: float = 0.4
    positives: Literal["pair", "image"] = "pair"
    floor: float = 1e-4
    negatives: Literal["twins", "student"] = "twins"
    across: Literal["queue", "negatives", "all"] = "all"
    smoothing: float = 0.1
    smoothing_rule: SmoothingRule = "modern"
    prompt: int = 0


RETRIEVAL = Objective(losses=("itc", "itm"), positives="image", floor=0.0, negatives="student", across="negatives")
CAPTIONING = Objective(losses=("lm",))

_TINY_IDS = SpecialIds(pad=0, cls=2, sep=3, dec=5, enc=6)
PRESETS: dict[str, BlipConfig] = {
    "tiny": BlipConfig(
        VitConfig(px=32, patch=8, width=32, depth=2, heads=2, mlp=64),
        MedConfig(vocab=64, width=32, depth=2, heads=2, mlp=64, positions=40, dropout=0.0),
        _TINY_IDS,
        embed=16,
        queue=32,
    ),
    "demo": BlipConfig(
        VitConfig(px=48, patch=12, width=96, depth=3, heads=4, mlp=384, stem="conv"),
        MedConfig(vocab=512, width=96, depth=2, heads=4, mlp=384, positions=40, dropout=0.0),
        _TINY_IDS,
        embed=64,
        queue=256,
    ),
    "base": BlipConfig(),
    "large": BlipConfig(VitConfig(width=1024, depth=24, heads=16, mlp=4096, drop_path=0.1)),
}


@dataclass(frozen=True)
class Compared:
    """A batch in the compared space; `_m` from the momentum twins, without gradient. Each (B, E), unit length."""

    image_vec: Tensor
    text_vec: Tensor
    image_vec_m: Tensor
    text_vec_m: Tensor


@dataclass(frozen=True)
class Wrong:
    """ITM's wrong partners of B rows: numbers of candidates (B,), and whether there was one to be had (B,)."""

    image: Tensor
    text: Tensor
    image_found: Tensor
    text_found: Tensor


class Twins(nn.Module):
    """The momentum copies of what ITC compares, and the queues of their features. Never trained by gradient."""

    image_queue: Tensor
    text_queue: Tensor
    id_queue: Tensor
    pointer: Tensor

    def __init__(self, config: BlipConfig):
        super().__init__()
        self.vit = Vit(config.vit)
        self.text = Med(config.text, config.vit.width, frozenset(("read", "look")))
        self.image_proj = nn.Linear(config.vit.width, config.embed)
        self.text_proj = nn.Linear(config.text.width, config.embed)
        self.register_buffer("image_queue", F.normalize(torch.randn(config.queue, config.embed), dim=1))
        self.register_buffer("text_queue", F.normalize(torch.randn(config.queue, config.embed), dim=1))
        self.register_buffer("id_queue", torch.full((config.queue,), -100))
        self.register_buffer("pointer", torch.zeros(1, dtype=torch.long))
        self.requires_grad_(False)


class Blip(nn.Module):
    """The mixture of encoder-decoder with its vision tower and heads."""

    def __init__(self, config: BlipConfig):
        super().__init__()
        roles = frozenset(config.roles)
        if not roles or roles - {"read", "look", "speak"}:
            raise ConfigError(f"roles {config.roles}: choose from read, look, speak")
        if config.queue and "read" not in roles:
            raise ConfigError(
                f"queue={config.queue} compares texts, which needs the role read; roles are {config.roles}"
            )
        self.config = config
        self.vit = Vit(config.vit)
        self.text = Med(config.text, config.vit.width, roles)
        if "read" in roles:
            self.image_proj = nn.Linear(config.vit.width, config.embed)
            self.text_proj = nn.Linear(config.text.width, config.embed)
            self.temperature = nn.Parameter(torch.tensor(0.07))
        if "look" in roles:
            self.match_head = nn.Linear(config.text.width, 2)
        self.twins = Twins(config) if config.queue else None

    def init_weights(self) -> "Blip":
        """Fresh weights: ViT truncated normal .02, BERT normal .02, projections as torch's; twins start as copies."""
        self.vit.init_weights()
        self.text.init_weights()
        if self.twins is not None:
            self.move_twins(0.0)
        return self

    # ---- abilities, tensors in, tensors out ---------------------------------------------------------------------

    def image_vec(self, image: Float[Tensor, "b *f n d"]) -> Float[Tensor, "b e"]:
        """Image tokens → unit vectors; of clips of F frames the mean over their frames."""
        with exact(image):
            vec = self.image_proj(image[..., 0, :].float())
            return F.normalize(vec if vec.ndim == 2 else vec.mean(dim=1), dim=-1)

    def text_vec(self, ids: Int[Tensor, "b l"], mask: Int[Tensor, "b l"]) -> Float[Tensor, "b e"]:
        """Texts that start with [CLS] → unit vectors."""
        return self.text_vec_of(self.text.read(ids, mask, first_only=True)[:, 0])

    def text_vec_of(self, first: Float[Tensor, "b d"]) -> Float[Tensor, "b e"]:
        """First states of texts that were read → unit vectors."""
        with exact(first):
            return F.normalize(self.text_proj(first.float()), dim=-1)

    def match_logits(
        self,
        ids: Int[Tensor, "r l"],
        mask: Int[Tensor, "r l"],
        own: Sequence[Seen],
        far: Sequence[Seen] | None = None,
        marked: bool = True,
    ) -> Float[Tensor, "r 2"]:
        """Texts against projected images → logits of (no match, match). Row to image: see `CrossAttention.forward`.

        marked: [ENC] takes the place of [CLS], as in training.
        """
        ids = with_first(ids, self.config.special.enc) if marked else ids
        return self.match_logits_of(self.text.look(ids, mask, own, far, first_only=True)[:, 0])

    def match_logits_of(self, first: Float[Tensor, "r d"]) -> Float[Tensor, "r 2"]:
        """First states of texts that looked at images → logits of (no match, match)."""
        with exact(first):
            return self.match_head(first.float())

    # ---- training -----------------------------------------------------------------------------------------------

    def losses(
        self,
        batch: Batch,
        objective: Objective,
        alpha: float,
        uniform: Float[Tensor, "2 b"],
        ranks: Ranks = ALONE,
    ) -> dict[str, Tensor]:
        """The losses named by `objective`, each a scalar to be summed. Moves the twins and fills the queues on the way.

        alpha:   the twins' weight in the ITC targets at this step.
        uniform: one number in [0, 1) a row and direction (image for text, text for image); decides the hard negatives.
        """
        image = self.vit(batch.pixels)
        kv = self.text.project(image) if {"itm", "lm"} & set(objective.losses) else []
        found: dict[str, Tensor] = {}
        if "itc" in objective.losses or "itm" in objective.losses:
            with torch.no_grad():
                self.temperature.clamp_(*TEMPERATURE)
            compared = self.compare(batch, image, objective)
            if "itc" in objective.losses:
                found["itc"] = self.itc(compared, batch, objective, alpha, ranks)
            if "itm" in objective.losses:
                wrong = self.wrong_partners(compared, batch, objective, uniform, ranks)
                texts = batch.ids, batch.mask
                if ranks.world > 1 and objective.across != "queue":
                    texts = ranks.gather(batch.ids), ranks.gather(batch.mask)
                    far = self.text.project(ranks.gather(image, grad=True)[wrong.image])
                else:
                    far = [(k[wrong.image], v[wrong.image]) for k, v in kv]
                found["itm"] = self.itm(batch, kv, far, texts, wrong)
            self.remember(compared, batch, ranks)
        if "lm" in objective.losses:
            found["lm"] = self.lm(batch, kv, objective, ranks)
        return found

    def compare(self, batch: Batch, image: Float[Tensor, "b n d"], objective: Objective) -> Compared:
        """Both towers' vectors and, after the twins took their step, the twins' vectors of the same batch."""
        image_vec, text_vec = self.image_vec(image), self.text_vec(batch.ids, batch.mask)
        if self.twins is None:
            return Compared(image_vec, text_vec, image_vec.detach(), text_vec.detach())
        self.move_twins(objective.momentum)
        return Compared(image_vec, text_vec, *self.twin_vecs(batch))

    @torch.no_grad()
    def move_twins(self, momentum: float) -> None:
        """One step of the twins after the weights they follow; with momentum 0 onto them."""
        assert self.twins is not None
        own, twins = dict(self.named_parameters()), dict(self.twins.named_parameters())
        torch._foreach_lerp_([*twins.values()], [own[name].detach() for name in twins], 1 - momentum)

    @torch.no_grad()
    def twin_vecs(self, batch: Batch) -> tuple[Float[Tensor, "b e"], Float[Tensor, "b e"]]:
        """The twins' vectors of a batch's images and texts."""
        assert self.twins is not None
        image = self.twins.vit(batch.pixels, cls_only=True)[:, 0]
        text = self.twins.text.read(batch.ids, batch.mask, first_only=True)[:, 0]
        with exact(image):
            found = self.twins.image_proj(image.float()), self.twins.text_proj(text.float())
            return F.normalize(found[0], dim=-1), F.normalize(found[1], dim=-1)

    def itc(self, c: Compared, batch: Batch, objective: Objective, alpha: float, ranks: Ranks) -> Tensor:
        """Contrast with this batch's twins (all ranks' if they share) and the queue."""
        everyone = objective.across == "all"
        images, texts, ids = c.image_vec_m, c.text_vec_m, batch.image_id
        if everyone:
            images, texts, ids = ranks.gather(images), ranks.gather(texts), ranks.gather(ids)
        if self.twins is not None:
            images = torch.cat((images, self.twins.image_queue))
            texts = torch.cat((texts, self.twins.text_queue))
            ids = torch.cat((ids, self.twins.id_queue))
        if objective.positives == "image":
            right = batch.image_id[:, None] == ids
        else:
            offset = ranks.rank * len(batch) if everyone else 0
            right = positives_on_diagonal(len(batch), len(ids), offset, ids.device)
        t = self.temperature
        with exact(images):
            with torch.no_grad():
                targets_i2t = soft_targets(c.image_vec_m @ texts.T / t, right, alpha)
                targets_t2i = soft_targets(c.text_vec_m @ images.T / t, right, alpha)
            return contrastive(c.image_vec @ texts.T / t, c.text_vec @ images.T / t, targets_i2t, targets_t2i)

    def negative_odds(self, c: Compared, batch: Batch, objective: Objective, ranks: Ranks) -> list[Tensor]:
        """[image for text, text for image]: the odds (B, C) of each candidate as the wrong partner."""
        with torch.no_grad(), exact(c.image_vec):
            student = objective.negatives == "student"
            images, texts = (c.image_vec, c.text_vec) if student else (c.image_vec_m, c.text_vec_m)
            image_id, text_id = batch.image_id, batch.text_id
            if objective.across != "queue":
                images, texts = ranks.gather(images), ranks.gather(texts)
                image_id, text_id = ranks.gather(image_id), ranks.gather(text_id)
            same = (batch.image_id[:, None] == image_id) | (batch.text_id[:, None] == text_id)
            sims = (c.text_vec @ images.T / self.temperature, c.image_vec @ texts.T / self.temperature)
            return [negative_odds(sim, same, objective.floor) for sim in sims]

    def wrong_partners(
        self, c: Compared, batch: Batch, objective: Objective, uniform: Float[Tensor, "2 b"], ranks: Ranks
    ) -> Wrong:
        """Who stands in ITM's wrong pairs; a row with an unmatched text of its own needs no other."""
        odds = self.negative_odds(c, batch, objective, ranks)
        (image, image_found), (text, text_found) = (draw(o, u) for o, u in zip(odds, uniform, strict=True))
        if batch.extra_mask is not None:
            text_found = text_found | batch.extra_mask[:, 0].bool()
        return Wrong(image, text, image_found, text_found)

    def itm(
        self,
        batch: Batch,
        kv: list[KeysValues],
        far: list[KeysValues],
        texts: tuple[Tensor, Tensor],
        wrong: Wrong,
        count: Tensor | None = None,
    ) -> Tensor:
        """One pass over 3B rows: true pairs, texts with a wrong image, images with a wrong text.

        far:   the projected wrong image of each row.
        texts: ids and mask of the candidates that `wrong.text` numbers.
        count: divide by this number of rows instead of the valid ones here.
        """
        rows = (batch.ids, batch.mask, texts[0][wrong.text], texts[1][wrong.text])
        given = () if batch.extra_ids is None or batch.extra_mask is None else (batch.extra_ids, batch.extra_mask)
        length = max(x.shape[1] for x in (*rows, *given))
        ids, mask, other_ids, other_mask, *extra = (F.pad(x, (0, length - x.shape[1])) for x in (*rows, *given))
        if extra:
            here = extra[1][:, :1].bool()
            other_ids, other_mask = torch.where(here, extra[0], other_ids), torch.where(here, extra[1], other_mask)
        logits = self.match_logits(torch.cat((ids, ids, other_ids)), torch.cat((mask, mask, other_mask)), kv, far)
        ones = torch.ones_like(wrong.image_found)
        valid = torch.cat((ones, wrong.image_found, wrong.text_found))
        loss = matching(logits, torch.cat((ones, ~ones, ~ones)).long(), valid)
        return loss if count is None else loss * (valid.sum() / count)

    def lm(
        self, batch: Batch, kv: list[KeysValues], objective: Objective, ranks: Ranks, count: Tensor | None = None
    ) -> Tensor:
        """Say the text about its own image. `count`: divide by this number of words instead of those here."""
        labels = next_labels(batch.ids, batch.mask, objective.prompt)
        states = self.text.speak(with_first(batch.ids, self.config.special.dec)[:, :-1], batch.mask[:, :-1], kv)
        if states.device.type == "cpu" and objective.smoothing_rule == "modern":
            counted = labels != IGNORED  # word logits only where they count
            states, labels = states[counted], labels[counted]
        if count is None and ranks.world > 1 and objective.across == "all":
            count = ranks.sum((labels != IGNORED).sum()) / ranks.world
        with exact(states):
            logits = self.text.word_logits(states.float()).flatten(0, -2)
        return next_token(logits, labels.flatten(), objective.smoothing, objective.smoothing_rule, count)

    def remember(self, c: Compared, batch: Batch, ranks: Ranks) -> None:
        """Puts the twins' vectors of all ranks into the queues; after the losses, so that no row meets itself there."""
        if self.twins is None:
            return
        start = self.twins.pointer
        rows = ((self.twins.image_queue, c.image_vec_m), (self.twins.text_queue, c.text_vec_m))
        for queue, new in (*rows, (self.twins.id_queue, batch.image_id)):
            pointer = start.clone()
            enqueue(queue, ranks.gather(new), pointer)
        start.copy_(pointer)


def exact(x: Tensor) -> torch.autocast:
    """Full precision for heads, similarities and losses, whatever the towers run in."""
    return torch.autocast(x.device.type, enabled=False)


def respecialised(model: Blip, **changes) -> Blip:
    """A copy of `model` with another config (roles, queue): weights both have are taken over, nothing else is invented.

    Fresh queues are the only state that may be new; anything else missing in `model` raises ConfigError.
    """
    config = dataclasses.replace(model.config, **changes)
    new = Blip(config)
    have, want = model.state_dict(), new.state_dict()
    missing = [k for k in want if k not in have and not k.startswith("twins.")]
    if missing:
        raise ConfigError(
            f"a model with roles {model.config.roles} cannot become {config.roles}: no {missing[0]} in it"
        )
    new.load_state_dict({k: have.get(k, v) for k, v in want.items()})
    if config.queue and model.twins is None:
        new.move_twins(0.0)
    return new


def parameter_count(config: BlipConfig) -> int:
    """Unique trainable parameters, counted without memory."""
    with torch.device("meta"):
        model = Blip(config)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
