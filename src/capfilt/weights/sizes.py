"""What a model is built from where no config of ours lies beside its weights: its kind and the sizes of its towers."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from capfilt.blocks.med import MedConfig, SpecialIds
from capfilt.blocks.vit import VitConfig
from capfilt.errors import WeightsError
from capfilt.models.blip import BlipConfig
from capfilt.models.blip_nlvr import BlipNlvrConfig
from capfilt.models.blip_visdial import BlipVisdialConfig
from capfilt.models.blip_vqa import BlipVqaConfig
from capfilt.weights.catalog import ROLES

PROMPT = "a picture of "  # every published captioner was tuned behind it
PUBLISHED_HEADS = {768: 12, 1024: 16}  # width → heads of both towers: nothing in the weights tells

Config = BlipConfig | BlipVqaConfig | BlipNlvrConfig | BlipVisdialConfig


@dataclass(frozen=True)
class Parts:
    """Sizes from elsewhere. `notes` says what they leave open and how that was filled, for whoever asks."""

    vit: VitConfig
    text: MedConfig
    embed: int = 256
    merge_from: int = 6
    prompt: str = PROMPT
    notes: tuple[str, ...] = ()

    def config(self, kind: str, special: SpecialIds) -> Config:
        """The config of our model of that kind; for use, so without momentum twins."""
        if kind == "vqa":
            return BlipVqaConfig(self.vit, self.text, special)
        if kind == "nlvr":
            return BlipNlvrConfig(self.vit, self.text, special, self.merge_from)
        prompt = self.prompt if kind == "caption" else ""
        return BlipConfig(self.vit, self.text, special, self.embed, ROLES[kind], queue=0, prompt=prompt)


def kind_of_config(config: Config) -> str:
    """The kind of model that a config of ours builds. A Blip with roles that nobody else has is `blip`."""
    if isinstance(config, BlipConfig):
        return next((kind for kind, roles in ROLES.items() if set(roles) == set(config.roles)), "blip")
    return {BlipVqaConfig: "vqa", BlipNlvrConfig: "nlvr", BlipVisdialConfig: "visdial"}[type(config)]


def parts_from_shapes(shapes: Mapping[str, tuple[int, ...]], given: Collection[str], where: object) -> Parts:
    """Sizes read off the tensors, by their names in our model.

    given: settings that the user gives anyway, as `text.heads`; no word is lost about those.

    Raises WeightsError where a tensor is missing that a size is read from, or the heads of a tower cannot be known.
    """
    try:
        patch = shapes["vit.stem.proj.weight"][-1]
        vit = VitConfig(
            px=round((shapes["vit.positions"][1] - 1) ** 0.5) * patch,
            patch=patch,
            width=(width := shapes["vit.cls"][-1]),
            depth=_depth(shapes, "vit.blocks"),
            heads=_heads("vit", width, given, where),
            mlp=shapes["vit.blocks.0.fc1.weight"][0],
        )
        vocab, width = shapes["text.words.weight"]
        text = MedConfig(
            vocab=vocab,
            width=width,
            depth=_depth(shapes, "text.layers"),
            heads=_heads("text", width, given, where),
            mlp=shapes["text.layers.0.fc1.weight"][0],
            positions=shapes["text.positions.weight"][0],
        )
    except KeyError as error:
        raise WeightsError(f"{where}: no tensor for {error.args[0]}, so its sizes cannot be known") from None
    merging = [int(found[1]) for key in shapes if (found := re.match(r"text\.layers\.(\d+)\.merge\.", key))]
    embed = shapes.get("image_proj.weight", (256,))[0]
    return Parts(vit, text, embed, min(merging, default=text.depth))


POSITIVE = ("px", "patch", "width", "depth", "heads", "mlp", "vocab", "positions")


def checked(config: Any, where: object) -> None:
    """Raises WeightsError where heads do not divide a tower's width, or the patch the image."""
    for name in ("vit", "text"):
        tower = getattr(config, name)
        sizes = {field: value for field, value in vars(tower).items() if field in POSITIVE and value < 1}
        if sizes:
            raise WeightsError(f"{where}: {name} has {sizes}; sizes are at least 1")
        if tower.width % tower.heads:
            raise WeightsError(f"{where}: {name}.heads={tower.heads} does not divide the width {tower.width}")
    if config.vit.px % config.vit.patch:
        raise WeightsError(f"{where}: an image of {config.vit.px} px is no multiple of its patch, {config.vit.patch}")


def _heads(tower: str, width: int, given: Collection[str], where: object) -> int:
    if width not in PUBLISHED_HEADS and f"{tower}.heads" not in given:
        raise WeightsError(
            f"{where}: {tower} is {width} wide, which no published BLIP is, and weights do not tell their heads; "
            f"pass --set {tower}.heads=N (sets=['{tower}.heads=N'])"
        )
    return PUBLISHED_HEADS.get(width, 1)  # 1: what is given takes its place


def _depth(shapes: Mapping[str, tuple[int, ...]], blocks: str) -> int:
    return 1 + max(
        (int(found[1]) for key in shapes if (found := re.match(rf"{re.escape(blocks)}\.(\d+)\.", key))), default=-1
    )
