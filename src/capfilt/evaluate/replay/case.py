"""One reference case as it lies on disk: its settings, its inputs, and what must come out under either loss rule."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from capfilt.blocks.med import MedConfig, Role, SpecialIds
from capfilt.blocks.vit import VitConfig
from capfilt.errors import DataError
from capfilt.files import read_json
from capfilt.models.blip import BlipConfig
from capfilt.objectives.language import SmoothingRule
from capfilt.weights.rename import Layout, to_foreign, to_own
from capfilt.weights.store import load_tensors

Outputs = dict[str, Tensor]
Model = TypeVar("Model", bound=nn.Module)

VOCABULARIES = ("vocab.txt", "bert-base-uncased-vocab.txt")
RULES: tuple[SmoothingRule, ...] = ("modern", "torch110")
LATER = "io_torch112.safetensors"  # what differs where ignored labels are left out of the smoothing (pytorch#73205)


@dataclass(frozen=True)
class Expected:
    """What must come out under one loss rule.

    outputs:        name → tensor, all `out.*`.
    tolerances:     name → largest absolute difference; 0 means equal.
    grad_norms:     run ("" where there is one) → foreign name → L2 norm; None where no gradient may flow.
    momentum_after: run → foreign name → [sum, L2 norm].
    """

    outputs: dict[str, Tensor]
    tolerances: dict[str, float]
    grad_norms: dict[str, dict[str, float | None]]
    momentum_after: dict[str, dict[str, list[float]]]


@dataclass(frozen=True)
class Case:
    """A case folder. Everything is read when it is first asked for, so a broken file fails where it is needed.

    vocab: the BERT vocabulary that texts are tokenised with; None is one of VOCABULARIES at or above the folder.
    """

    folder: Path
    vocab: Path | None = None

    @cached_property
    def about(self) -> dict[str, Any]:
        """case.json."""
        return read_json(self.folder / "case.json")

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Inputs and outputs, half precision widened."""
        return widened(load_tensors(self.folder / "io.safetensors"))

    @property
    def rules(self) -> tuple[SmoothingRule, ...]:
        """The loss rules that outputs are given for: both, or the pinned runtime's alone."""
        return RULES if (self.folder / LATER).exists() or "tolerances_atol_torch112" in self.about else RULES[1:]

    def expected(self, rule: SmoothingRule) -> Expected:
        """What must come out. The file and tables of the later runtime lie over the pinned ones for the modern rule."""
        names = ("tolerances_atol", "grad_norms", "momentum_after")
        tolerances, norms, momentum = (dict(self.about.get(name, {})) for name in names)
        outputs = {k: v for k, v in self.tensors.items() if k.startswith("out.")}
        if rule == "modern":
            outputs |= widened(load_tensors(self.folder / LATER))
            tolerances |= self.about["tolerances_atol_torch112"]
            norms |= self.about.get("grad_norms_torch112", {})
            momentum |= self.about.get("momentum_after_torch112", {})
        if norms and not isinstance(next(iter(norms.values())), dict):
            norms = {"": norms}
        return Expected(outputs, tolerances, norms, momentum)

    def given(self, name: str) -> Tensor:
        """An input, `in.` left out."""
        if f"in.{name}" not in self.tensors:
            raise DataError(f"in.{name} is missing in io.safetensors")
        return self.tensors[f"in.{name}"]

    def weights(self, part: str = "") -> dict[str, Tensor]:
        """The original state dict with tied names written out; a sibling's weights come first, own ones on top.

        part: which of several siblings, where `weights_from` names several.
        """
        source = self.about.get("weights_from")
        if isinstance(source, dict):
            source = source[part]
        found = Case(self.folder.parent / source).weights() if source else {}
        own = self.folder / "weights.safetensors"
        if own.exists() or not source:
            found |= widened(load_tensors(own))
        return found | {alias: found[name] for alias, name in self.about.get("aliases", {}).items()}

    def vocabulary(self) -> Path | None:
        """The vocabulary that was given, else the nearest of the usual names."""
        above = (self.folder.resolve(), *self.folder.resolve().parents)
        near = (folder / name for folder in above for name in VOCABULARIES)
        return self.vocab or next((path for path in near if path.is_file()), None)

    @property
    def special(self) -> SpecialIds:
        """The ids of the marks."""
        ids = self.about["config"]["special_ids"]
        return SpecialIds(ids["pad"], ids["cls"], ids["sep"], ids["dec_bos"], ids["enc"])

    def vit(self, px: int | None = None) -> VitConfig:
        """The sizes of the vision tower; `px` overrides the image size."""
        c = self.about["config"]
        return VitConfig(
            px=px or c["image_size"],
            patch=c["patch_size"],
            width=c["vision_width"],
            depth=c["vision_depth"],
            heads=c["vision_heads"],
            mlp=round(c["vision_width"] * c["vision_mlp_ratio"]),
            eps=c["vision_layer_norm_eps"],
        )

    def text(self) -> MedConfig:
        """The sizes of the text transformers."""
        c = self.about["config"]
        return MedConfig(
            vocab=c["vocab_size"],
            width=c["hidden_size"],
            depth=c["num_hidden_layers"],
            heads=c["num_attention_heads"],
            mlp=c["intermediate_size"],
            positions=c["max_position_embeddings"],
            eps=c["text_layer_norm_eps"],
            dropout=0.0,
        )

    def config(self, *roles: Role, queue: int = 0) -> BlipConfig:
        """A Blip of the case's sizes with these roles."""
        embed = self.about["config"]["embed_dim"]
        return BlipConfig(self.vit(), self.text(), self.special, embed=embed, roles=roles, queue=queue)

    def fill(self, model: Model, layout: Layout, part: str = "") -> Model:
        """Loads the case's weights into `model`, strictly.

        Weights borrowed from a sibling may be of a larger model; only names that the layout has are taken from it.
        """
        found = self.weights(part)
        if self.about.get("weights_from"):
            names = to_foreign(model.state_dict(), layout)
            found = {name: tensor for name, tensor in found.items() if name in names}
        model.load_state_dict(to_own(found, layout, model.state_dict(), self.folder.name))
        return model


def widened(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Half precision as single: what is stored is exact in either."""
    return {name: x.float() if x.dtype == torch.float16 else x for name, x in tensors.items()}
