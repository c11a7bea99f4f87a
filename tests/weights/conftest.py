"""Small models of every kind with large random weights, and the words that they know."""

import dataclasses

import pytest
import torch

from capfilt.blocks.med import SpecialIds
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models import blip, blip_nlvr, blip_visdial, blip_vqa
from capfilt.weights.store import Model

TEXT = ("a red dog runs over green grass", "two cats sleep under a table", "is the small blue ball left of the box")


@pytest.fixture(scope="session")
def words() -> TextTokenizer:
    """A vocabulary of 64 entries at most, [DEC] and [ENC] last."""
    return TextTokenizer.train(TEXT, 64)


@pytest.fixture
def build(words):
    """kind → a tiny model of it whose every number is drawn; `queue` brings momentum twins."""

    def make(kind: str, queue: int = 0, **vit) -> Model:
        ids = SpecialIds(words.pad_id, words.cls_id, words.sep_id, words.dec_id, words.enc_id)
        roles = {"pretrain": ("read", "look", "speak"), "match": ("read", "look"), "caption": ("speak",)}
        room = {"vqa": blip_vqa, "nlvr": blip_nlvr, "visdial": blip_visdial}.get(kind, blip)
        config = room.PRESETS["tiny"]
        changes = {
            "special": ids,
            "text": dataclasses.replace(config.text, vocab=len(words), positions=48),
            "vit": dataclasses.replace(config.vit, **vit),
        }
        if kind in roles:
            prompt = "a picture of " if kind == "caption" else ""
            changes |= {"roles": roles[kind], "queue": queue, "prompt": prompt}
        classes = {"vqa": "BlipVqa", "nlvr": "BlipNlvr", "visdial": "BlipVisdial"}
        model = getattr(room, classes.get(kind, "Blip"))(dataclasses.replace(config, **changes))
        generator = torch.Generator().manual_seed(len(kind))
        with torch.no_grad():
            for x in model.state_dict().values():
                if x.is_floating_point():
                    x.normal_(std=0.3, generator=generator)
            if "temperature" in model.state_dict():
                model.temperature.fill_(0.31)
        return model.eval()

    return make
