"""The original's names at their real sizes: what it writes is recognised and read, what is written it can read."""

import dataclasses
import json

import pytest
import torch

from capfilt.models.blip import PRESETS, Blip
from capfilt.models.blip_nlvr import BlipNlvrConfig
from capfilt.models.blip_vqa import BlipVqaConfig
from capfilt.weights.convert import official
from capfilt.weights.rename import own_shapes, to_own
from capfilt.weights.sizes import parts_from_shapes
from capfilt.weights.store import hollow, official_state

CLASSES = {
    "BLIP_Decoder": "caption",
    "BLIP_ITM": "match",
    "BLIP_Retrieval": "match",
    "BLIP_VQA": "vqa",
    "BLIP_NLVR": "nlvr",
    "BLIP_Pretrain": "pretrain",
}
NAMES = [f"{name}/{size}" for name in CLASSES for size in ("base", "large") if (name, size) != ("BLIP_NLVR", "large")]


@pytest.fixture(scope="module")
def layouts(shared) -> dict:
    return json.loads((shared / "golden/blip/00_layouts/layouts.json").read_text())


def tensors(entry: dict) -> dict[str, torch.Tensor]:
    """The entry's state without memory; a shape may end in its type."""
    made = {}
    for name, shape in entry["keys"].items():
        whole = bool(shape) and shape[-1] == "int64"
        made[name] = torch.empty(shape[:-1] if whole else shape, dtype=torch.long if whole else None, device="meta")
    return made


def config_of(kind: str, size: str, px: int):
    vit = dataclasses.replace(PRESETS[size].vit, px=px, drop_path=0.0)
    if kind in ("vqa", "nlvr"):
        return (BlipVqaConfig if kind == "vqa" else BlipNlvrConfig)(vit)
    roles = {"pretrain": ("read", "look", "speak"), "match": ("read", "look"), "caption": ("speak",)}[kind]
    prompt = "a picture of " if kind == "caption" else ""
    return dataclasses.replace(PRESETS[size], vit=vit, roles=roles, queue=0, prompt=prompt)


@pytest.mark.parametrize("name", NAMES)
def test_real_sizes_are_recognised_and_fill_our_model(name, layouts):
    entry, size, kind = layouts[name], name.partition("/")[2], CLASSES[name.partition("/")[0]]
    given, config = tensors(entry), config_of(kind, size, entry["image_size"])
    assert official.kind_of(given) == kind
    table = official.IN_USE[kind]
    parts = parts_from_shapes(own_shapes(given, table), (), name)
    assert parts.config(kind, config.special) == config
    own = hollow(config).state_dict()
    found = to_own(given, table, own, name)
    assert {key: x.shape for key, x in found.items()} == {key: x.shape for key, x in own.items()}


@pytest.mark.parametrize("name", NAMES)
def test_what_we_write_has_the_names_and_shapes_of_the_original(name, layouts):
    entry, size, kind = layouts[name], name.partition("/")[2], CLASSES[name.partition("/")[0]]
    config = config_of(kind, size, entry["image_size"])
    if name.startswith(("BLIP_Retrieval", "BLIP_Pretrain")):
        config = dataclasses.replace(config, queue=57600)
    written = {key: tuple(x.shape) for key, x in official_state(hollow(config)).items()}
    extra = {"temp"} if name.startswith("BLIP_ITM") else set()  # which that class ignores, and we want back
    assert set(written) - extra == set(entry["keys"])
    assert all(written[key] == tuple(x.shape) for key, x in tensors(entry).items())


def test_what_is_no_blip_is_no_kind():
    model = Blip(dataclasses.replace(PRESETS["tiny"], roles=("speak",), queue=0))
    state = official_state(model)
    assert official.kind_of(state) == "caption"
    assert official.kind_of({name: x for name, x in state.items() if "self.query" not in name}) is None
    assert official.kind_of({"text_encoder.encoder.layer.0.attention.self.query.weight"}) is None  # no heads
    assert official.kind_of(()) is None
