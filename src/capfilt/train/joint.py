"""One step over several micro-batches that learns what one batch of all their rows would (GradCache, arXiv 2101.06983).

The towers run twice: first without graph, for everybody's features; at the end part by part, with the gradients that
these features have gathered. In between, contrast sees all rows at once; matching and language see one part's texts at
a time, against images and wrong partners of all parts. Only one part's activations are held, and all parts' tokens.

Shapes: K parts of B rows each, N image tokens, D width, E compared width.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from capfilt.errors import ConfigError
from capfilt.models.blip import Blip, Compared, Objective, Wrong
from capfilt.objectives.contrastive import TEMPERATURE
from capfilt.objectives.language import IGNORED, next_labels
from capfilt.pair import Batch
from capfilt.ranks import Ranks
from capfilt.runtime import derive


class JointStep:
    """The losses of all parts as of one batch, and their gradients.

    Joint over the parts (and over ranks as `objective.across` says): contrast, the twins' one move, the queues, the
    draw of wrong partners, and the numbers of rows and words that means are taken over. Candidates stand in rank order,
    then in the order of parts: with several ranks others are drawn than one process would draw, by the same odds.

    objective: with contrast or matching among its losses; language alone needs none of this.
    seeds:     one a part, of its dropout: the towers drop the same both times.

    Raises ConfigError for the smoothing rule `torch110`, whose mean hangs on the padding of one batch.
    """

    def __init__(
        self,
        model: Blip,
        parts: Sequence[Batch],
        objective: Objective,
        ranks: Ranks,
        autocast: AbstractContextManager,
        seeds: Sequence[int],
    ):
        if "lm" in objective.losses and objective.smoothing_rule != "modern":
            raise ConfigError(
                f"accumulate_exact with smoothing_rule={objective.smoothing_rule!r}: its mean hangs on how a batch is "
                "padded, so several are not one; set accumulate_exact=false, or smoothing_rule=modern"
            )
        self.model, self.parts, self.objective, self.ranks = model, parts, objective, ranks
        self.autocast, self.seeds = autocast, seeds  # entered anew for each pass: weights cast without graph have none
        self.batch = _joined(parts)
        starts = accumulate((len(part) for part in parts), initial=0)
        self.rows = [slice(a, b) for a, b in pairwise(starts)]

    def backward(self, alpha: float, uniform: Float[Tensor, "2 r"]) -> dict[str, Tensor]:
        """Adds to the gradients what one batch of all K·B rows would; returns its losses, without graph.

        alpha, uniform: as `Blip.losses` takes them, `uniform` for all rows.
        """
        model, objective, ranks = self.model, self.objective, self.ranks
        with torch.no_grad():
            model.temperature.clamp_(*TEMPERATURE)
        image, text_vec, twin_vecs = self._encoded()
        found: dict[str, Tensor] = {}
        with self.autocast:
            image_vec = model.image_vec(image)
            compared = Compared(image_vec, text_vec, *(twin_vecs or (image_vec.detach(), text_vec.detach())))
            if "itc" in objective.losses:
                found["itc"] = model.itc(compared, self.batch, objective, alpha, ranks)
            wrong = None
            if "itm" in objective.losses:
                wrong = model.wrong_partners(compared, self.batch, objective, uniform, ranks)
        if found:
            found["itc"].backward()
        model.remember(compared, self.batch, ranks)
        if {"itm", "lm"} & set(objective.losses):
            found |= self._looked(image, wrong)
        for i, rows in enumerate(self.rows):
            again = self._towers(i)
            grads = [x.grad[rows] for x in (image, text_vec) if x.grad is not None]
            torch.autograd.backward(again[: len(grads)], grads)
        return {name: loss.detach() for name, loss in found.items()}

    @torch.no_grad()
    def _encoded(self) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]:
        """Image tokens and text vectors of all parts, as leaves that gather gradients; the twins' vectors, if any."""
        twins = self.model.twins is not None
        if twins:
            self.model.move_twins(self.objective.momentum)
        image, text_vec, both = [], [], []
        for i, part in enumerate(self.parts):
            seen, said = self._towers(i)
            image.append(seen)
            text_vec.append(said)
            if twins:
                with self.autocast:
                    both.append(self.model.twin_vecs(part))
        image_m, text_m = zip(*both, strict=True) if both else ((), ())
        vecs = (torch.cat(image_m), torch.cat(text_m)) if both else None
        return torch.cat(image).requires_grad_(), torch.cat(text_vec).requires_grad_(), vecs

    def _towers(self, i: int) -> tuple[Tensor, Tensor]:
        """Image tokens and text vectors of one part."""
        torch.manual_seed(self.seeds[i])
        part = self.parts[i]
        with self.autocast:
            return self.model.vit(part.pixels), self.model.text_vec(part.ids, part.mask)

    def _looked(self, image: Tensor, wrong: Wrong | None) -> dict[str, Tensor]:
        """Matching and language, one part at a time; their gradients go to the weights and to `image`."""
        model, objective, ranks, batch = self.model, self.objective, self.ranks, self.batch
        texts, everyone, seen = (batch.ids, batch.mask), image, image
        if wrong is not None and ranks.world > 1 and objective.across != "queue":
            texts, everyone = (ranks.gather(batch.ids), ranks.gather(batch.mask)), ranks.gather(image, grad=True)
            seen = everyone.detach().requires_grad_()
        words = (next_labels(batch.ids, batch.mask, objective.prompt) != IGNORED).sum()
        if objective.across == "all":
            words = ranks.sum(words) / ranks.world
        found: dict[str, Tensor] = {}
        for part, rows, seed in zip(self.parts, self.rows, self.seeds, strict=True):
            torch.manual_seed(derive(seed, "look"))
            losses = {}
            with self.autocast:
                kv = model.text.project(image[rows])
                if wrong is not None:
                    own = Wrong(*(x[rows] for x in vars(wrong).values()))
                    count = len(batch) + wrong.image_found.sum() + wrong.text_found.sum()
                    losses["itm"] = model.itm(part, kv, model.text.project(seen[own.image]), texts, own, count)
                if "lm" in objective.losses:
                    losses["lm"] = model.lm(part, kv, objective, ranks, words)
            torch.stack([*losses.values()]).sum().backward()
            found = {name: found.get(name, 0) + loss.detach() for name, loss in losses.items()}
        if seen is not image:
            everyone.backward(seen.grad)
        return found


def _joined(parts: Sequence[Batch]) -> Batch:
    """All rows as one batch, texts padded to the longest; without pixels, which only the parts' towers look at."""
    length = max(part.ids.shape[1] for part in parts)
    ids, mask = (
        torch.cat([F.pad(x, (0, length - x.shape[1])) for x in texts])
        for texts in ([part.ids for part in parts], [part.mask for part in parts])
    )
    image_id, text_id = torch.cat([part.image_id for part in parts]), torch.cat([part.text_id for part in parts])
    given = [torch.zeros_like(p.mask[:, :1]) if p.extra_mask is None else p.extra_mask[:, :1] for p in parts]
    return Batch(parts[0].pixels[:0], ids, mask, image_id, text_id, extra_mask=torch.cat(given))
