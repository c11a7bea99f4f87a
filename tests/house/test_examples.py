"""The README's Python runs as it stands, with tiny models in place of the published ones it names."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import capfilt
from capfilt.blocks.med import SpecialIds
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models import blip, blip_vqa
from capfilt.predict.use import Model
from capfilt.weights.catalog import ROLES, entry

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def tiny(name: str, **_: Any) -> Model:
    """A model that can do what the published one of that name can."""
    known = entry(name)
    assert known is not None, f"{name} is in no catalog"
    tokenizer = TextTokenizer.train(["a cat on a sofa", "what is it sitting on", "a dog asleep yes no picture of"], 60)
    t = tokenizer
    special = SpecialIds(t.pad_id, t.cls_id, t.sep_id, t.dec_id, t.enc_id)
    config: Any = (blip_vqa if known.kind == "vqa" else blip).PRESETS["tiny"]
    config = dataclasses.replace(config, special=special, text=dataclasses.replace(config.text, vocab=len(t)))
    torch.manual_seed(0)
    if known.kind == "vqa":
        return Model(blip_vqa.BlipVqa(config).init_weights().eval(), tokenizer)
    built = blip.Blip(dataclasses.replace(config, roles=ROLES[known.kind], queue=0)).init_weights()
    return Model(built.eval(), tokenizer)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_readmes_python_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(capfilt, "load", tiny, raising=False)
    for name in set(re.findall(r'"(\w+\.jpg)"', block)):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(name)
    exec(compile(block, "README.md", "exec"), {})
    assert BLOCKS and (tmp_path / "mine" / "config.json").is_file()
