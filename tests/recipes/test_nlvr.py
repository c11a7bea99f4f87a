"""The NLVR recipe end to end, very small: stages are kept, rows are put together, and a second call only measures."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from capfilt.blocks.vit import VitConfig
from capfilt.data.nlvr.batches import draw_told
from capfilt.data.nlvr.labels import CLASSES, NONE
from capfilt.data.nlvr.world import paint
from capfilt.models.blip_nlvr import PRESETS, BlipNlvrConfig
from capfilt.recipes.nlvr import NlvrConfig, judge, main, naming_loss, read_rows, train
from capfilt.runtime import rng

TINY = BlipNlvrConfig(
    VitConfig(px=32, patch=8, width=32, depth=1, heads=2, mlp=64, stem="conv"), PRESETS["tiny"].text, merge_from=1
)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("nlvr")
    scenes, told = draw_told(rng("files"), 6, 2)
    with open(folder / "rows.jsonl", "w", encoding="utf-8") as handle:
        for i, (scene, rows) in enumerate(zip(scenes, told, strict=True)):
            images = []
            for k, order in enumerate(((0, 1, 2), (2, 0, 1))):
                images.append(f"rows-{i}-0-{k}.png")
                strip = paint(scene._replace(boxes=tuple(scene.boxes[b] for b in order)))
                Image.fromarray(strip).convert("RGBA").save(folder / images[-1])
            row = {"id": f"{i}-0", "sentence": rows[0][0], "label": rows[0][1], "images": images}
            handle.write(json.dumps(row) + "\n")
    return folder


def test_pictures_of_a_row_are_put_together_again(files):
    rows = read_rows(files / "rows.jsonl")
    assert len(rows.stated) == 6 and [len(strips) for strips in rows.strips] == [2] * 6
    assert rows.strips[0][0].shape == (100, 400, 3)
    assert rows.stated[3].id == "rows-3-0"
    assert {one.sentence for one in rows.of({rows.stated[2].sentence}).stated} == {rows.stated[2].sentence}


def test_three_stages_then_a_measurement(files, tmp_path):
    config = NlvrConfig(model=TINY, each=4, short=1, vocabulary=150, held_back=0.4, looks=2)
    config = replace(
        config,
        naming=replace(config.naming, steps=2, batch=4),
        drawn=replace(config.drawn, steps=2, batch=16),
        tuned=replace(config.tuned, steps=3, batch=16),
    )
    rows = read_rows(files / "rows.jsonl")
    scores = train(config, tmp_path, rows, rows)
    assert set(scores) == {"held_back", "val"} and 0 <= scores["val"]["consistency"] <= scores["val"]["accuracy"] <= 1
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.safetensors")}
    assert {p.parent.name for p in before} == {tmp_path.name, "drawn", "tuned"}
    assert train(config, tmp_path, rows, rows) == scores
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.safetensors")} == before


def test_a_judgement_sees_every_picture_of_a_row(files):
    rows = read_rows(files / "rows.jsonl")
    seen: list[np.ndarray] = []

    def said(first, second, sentences):
        seen.extend((first, second))
        return np.full(len(sentences), len(seen) / 10)

    recorder = SimpleNamespace(model=SimpleNamespace(config=SimpleNamespace(vit=VitConfig(px=40))), judge=said)
    assert judge(recorder, rows, 2) == pytest.approx([0.3] * 6)  # the mean of .2 and .4
    assert len(seen) == 4 and all(s.shape == (6, 40, 40, 3) for s in seen)
    assert not (seen[0] == seen[1]).all()


def test_naming_loss_by_hand():
    said = torch.zeros(1, 2, sum(CLASSES))
    wanted = torch.full((1, 2, len(CLASSES)), NONE)
    wanted[..., :] = 0
    assert naming_loss(said, wanted).item() == pytest.approx(sum(np.log(c) for c in CLASSES), rel=1e-5)
    sure = said.clone()
    sure[..., 0] = 50.0  # the first attribute's class 0
    assert naming_loss(sure, wanted).item() == pytest.approx(sum(np.log(c) for c in CLASSES[1:]), rel=1e-5)
    half = wanted.clone()
    half[0, 1] = NONE
    sure[0, 1] = -7.0  # where nothing applies, nothing counts
    assert naming_loss(sure, half).item() == pytest.approx(sum(np.log(c) for c in CLASSES[1:]), rel=1e-5)


def test_help_tells_the_command(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0 and "--data" in capsys.readouterr().out
