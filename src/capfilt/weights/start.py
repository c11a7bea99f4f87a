"""Where fine-tuning starts: a task's model filled from a pre-trained Blip, by one literal table a task.

A table says of each tensor of the task's model where it comes from, or that nothing in a Blip is like it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from capfilt.blocks.vit import resize_positions
from capfilt.errors import WeightsError
from capfilt.models.blip import Blip
from capfilt.models.blip_nlvr import BlipNlvr
from capfilt.models.blip_visdial import BlipVisdial
from capfilt.models.blip_vqa import BlipVqa
from capfilt.weights.rename import fitting

Table = Mapping[str, str | None]  # pattern of the own tensor → of the Blip's; None: keeps its first values

BLIP: Table = {
    "twins.vit.**": "vit.**",
    "twins.text.**": "text.**",
    "twins.image_proj.*": "image_proj.*",
    "twins.text_proj.*": "text_proj.*",
    "twins.*": None,  # queues and their pointer
    "**": "**",
}
VQA: Table = {"vit.**": "vit.**", "text.**": "text.**", "answer.**": "text.**"}
NLVR: Table = {
    "text.layers.*.cross0.**": "text.layers.*.cross.**",
    "text.layers.*.cross1.**": "text.layers.*.cross.**",
    "text.layers.*.merge.*": None,
    "dense.*": None,
    "verdict.*": None,
    "vit.**": "vit.**",
    "text.**": "text.**",
}
VISDIAL: Table = {"vit.**": "vit.**", "caption.**": "text.**", "dialog.**": "text.**", "match_head.*": "match_head.*"}
TABLES: dict[type, Table] = {Blip: BLIP, BlipVqa: VQA, BlipNlvr: NLVR, BlipVisdial: VISDIAL}

# The answer decoder looks at text states. Where those are not as wide as the images that the Blip looked at, its keys
# and values cannot be taken over; the original leaves them random too.
OF_ANOTHER_WIDTH = re.compile(r"answer\.layers\.\d+\.cross\.kv\.weight")


@dataclass(frozen=True)
class Started:
    """What became of each tensor: how many were filled, the names of those that keep their first values, and notes."""

    filled: int
    fresh: tuple[str, ...]
    notes: tuple[str, ...]


@torch.no_grad()
def start_from(model: Blip | BlipVqa | BlipNlvr | BlipVisdial, source: Blip) -> Started:
    """Fills `model` in place from a pre-trained Blip; positions are resized where the image size differs.

    Raises WeightsError naming every tensor that the Blip should have given and has not, or has in another shape;
    nothing is filled then.
    """
    have, table = source.state_dict(), TABLES[type(model)]
    taken: list[tuple[Tensor, Tensor]] = []
    fresh, notes, wrong = [], [], []
    for name, own in model.state_dict().items():
        at = fitting(name, table)
        given = have.get(at) if at is not None else None
        if given is not None and name.endswith("vit.positions") and given.shape != own.shape:
            if "twins" not in name:
                notes.append(f"positions resized from {given.shape[1] - 1} to {own.shape[1] - 1} patches")
            given = resize_positions(given.float(), own.shape[1])
        if at is None:
            fresh.append(name)
        elif given is None:
            wrong.append(f"{name} wants {at}, which is missing")
        elif given.shape == own.shape:
            taken.append((own, given))
        elif OF_ANOTHER_WIDTH.fullmatch(name):
            fresh.append(name)
        else:
            wrong.append(f"{name} is {tuple(own.shape)}, {at} is {tuple(given.shape)}")
    if wrong:
        roles = ", ".join(source.config.roles)
        raise WeightsError(f"no start for {type(model).__name__} from a Blip that can {roles}: {'; '.join(wrong)}")
    for own, given in taken:
        own.copy_(given)
    if any(name.startswith("answer.") for name in fresh):
        widths = f"{source.config.vit.width} to {source.config.text.width}"
        notes.append(f"the answer decoder's cross-attention keys and values stay random: from width {widths}")
    return Started(len(taken), tuple(fresh), tuple(notes))
