"""The names and shapes of the original's checkpoints at real size, against our tables."""

import dataclasses

import torch
from torch import nn

from capfilt.blocks.med import Role
from capfilt.errors import DataError
from capfilt.evaluate.replay.case import Case
from capfilt.evaluate.replay.compare import Compared, equal
from capfilt.files import read_json
from capfilt.models import blip, blip_nlvr, blip_vqa
from capfilt.weights.convert import official
from capfilt.weights.rename import Layout, to_foreign, to_own

# The feature extractor compares nothing and judges nothing: it has no heads.
EXTRACTOR = Layout(
    "official feature extractor",
    {**official.TOWER, **official.READER},
    {"match_head.weight": 0.0, "match_head.bias": 0.0},
)
BLIPS: dict[str, tuple[Layout, tuple[Role, ...], bool]] = {  # class of the original → our layout, roles, twins
    "BLIP_Base": (EXTRACTOR, ("look",), False),
    "BLIP_Pretrain": (official.PRETRAIN, ("read", "look", "speak"), True),
    "BLIP_Decoder": (official.CAPTIONER, ("speak",), False),
    "BLIP_Retrieval": (official.RETRIEVAL, ("read", "look"), True),
    "BLIP_ITM": (official.ITM, ("read", "look"), False),
}


def layouts(case: Case) -> Compared:
    """A gap for every layout at real size, read and written; one that we have no table for is infinite."""
    gaps = []
    for name, entry in read_json(case.folder / "layouts.json").items():
        fault = _fault(name, entry)
        gaps.append(equal(f"{name}: {fault}" if fault else name, None, fault))
    if not gaps:
        raise DataError(f"{case.folder.name}: layouts.json describes no layout")
    return Compared(gaps, ["names, shapes and trained parameters of layouts, read and written"])


def _built(kind: str, size: str, px: int) -> tuple[nn.Module, Layout] | None:
    """Our model of a class and size with its table."""
    if kind in BLIPS and size in blip.PRESETS:
        layout, roles, twins = BLIPS[kind]
        preset = blip.PRESETS[size]
        vit = dataclasses.replace(preset.vit, px=px)
        queue = preset.queue if twins else 0
        return blip.Blip(dataclasses.replace(preset, vit=vit, roles=roles, queue=queue)), layout
    if kind == "BLIP_VQA" and size in blip_vqa.PRESETS:
        answerer = blip_vqa.PRESETS[size]
        vit = dataclasses.replace(answerer.vit, px=px)
        return blip_vqa.BlipVqa(dataclasses.replace(answerer, vit=vit)), official.VQA
    if kind == "BLIP_NLVR" and size in blip_nlvr.PRESETS:
        reasoner = blip_nlvr.PRESETS[size]
        vit = dataclasses.replace(reasoner.vit, px=px)
        return blip_nlvr.BlipNlvr(dataclasses.replace(reasoner, vit=vit)), official.NLVR
    return None


def _fault(name: str, entry: dict) -> str | None:
    """What is wrong with our table for a layout; None where it fits."""
    kind, _, size = name.partition("/")
    with torch.device("meta"):  # names and shapes only
        built = _built(kind, size, entry["image_size"])
        if built is None:
            return "no model of that class and size"
        foreign = {}
        for key, shape in entry["keys"].items():
            whole = bool(shape) and shape[-1] == "int64"
            foreign[key] = torch.empty(shape[:-1] if whole else shape, dtype=torch.int64 if whole else torch.float32)
    model, layout = built
    to_own(foreign, layout, model.state_dict(), name)
    back = {k: tuple(v.shape) for k, v in to_foreign(model.state_dict(), layout).items()}
    want = {k: tuple(v.shape) for k, v in foreign.items() if not k.endswith("position_ids")}
    wrong = [k for k in {*back, *want} if back.get(k) != want.get(k)]
    if wrong:
        return f"written in this layout {sorted(wrong)} differ"
    trained = sum(p.numel() for n, p in model.named_parameters() if p.requires_grad and n not in layout.fresh)
    if trained != entry["unique_trainable_parameters"]:
        return f"{trained} trained parameters, the original has {entry['unique_trainable_parameters']}"
    return None
