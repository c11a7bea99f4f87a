"""A small case in the original's format, worked out by hand: it passes, and each number that is moved shows."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from capfilt.evaluate.golden import check
from capfilt.inputs.images import MEAN, STD

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "picture", "of", "dog", "two"]  # then [DEC], [ENC]
TEXT = {
    "cleaning": [
        {"in": "A DOG; (two)!", "pre_caption_30": "a dog two", "pre_caption_2": "a dog", "pre_question_8": "a dog two"}
    ],
    "tokenisation": [
        {
            "raw_ids": [2, 5, 8, 1, 1, 9, 1, 1, 3],
            "raw_decoded_skip_special": "a dog two",
            "clean_ids_pad7": [2, 5, 8, 9, 3, 0, 0],
            "clean_mask_pad7": [1, 1, 1, 1, 1, 0, 0],
            "caption_prompt_ids6": [2, 5, 6, 7, 5, 3],
        }
    ],
    "batch_longest": {
        "texts": ["dog", "two dog"],
        "input_ids": [[2, 8, 3, 0], [2, 9, 8, 3]],
        "attention_mask": [[1, 1, 1, 0], [1, 1, 1, 1]],
    },
    "special_ids": {"pad": 0, "cls": 2, "sep": 3, "bos_dec": 10, "enc": 11, "len": 12},
    "prompt_ids": [2, 5, 6, 7, 3],
}
ASKED = [
    {"dataset": "vqa", "image": "i.png", "question": "Two (dogs)? ", "answer": ["yes", "no", "yes", "yes"]},
    {"dataset": "vg", "image": "i.png", "question": "Where?", "answer": "here."},
]
DATASETS = {
    "vqa_train_items": [
        {"annotation": ASKED[0], "question": "two dogs?", "answers": ["yes", "no"], "weights": [0.75, 0.25]},
        {"annotation": ASKED[1], "question": "where?", "answers": ["here."], "weights": [0.2]},
    ],
    "vqa_collate": {"answers": ["yes", "no", "here."], "weights": [0.75, 0.25, 0.20000000298], "n": [2, 1]},
    "nlvr_items": [
        {"sentence": "Left one.", "uniform_draw": draw, "first_image": a, "second_image": b, "text": text, "label": b}
        for draw, a, b, text in ((0.4, 0, 1, "left one"), (0.5, 1, 0, "right one"))
    ],
    "caption_eval_image_ids": [{"file": "val/COCO_val_0042.jpg", "id": 42}],
    "retrieval_eval": {
        "annotation": [{"image": "0.jpg", "caption": ["A b.", "C"]}, {"image": "1.jpg", "caption": ["D"]}],
        "text": ["a b", "c", "d"],
        "image": ["0.jpg", "1.jpg"],
        "txt2img": {"0": 0, "1": 0, "2": 1},
        "img2txt": {"0": [0, 1], "1": [2]},
    },
    "coco_train": {
        "annotation": [{"image": f"{i}.jpg", "caption": "B.", "image_id": f"coco_{i}"} for i in (7, 3, 7)],
        "captions": ["a picture of b"] * 3,
        "idx": [0, 1, 0],
    },
}
SCHEDULES = {
    "cosine(epoch, max_epoch, init_lr, min_lr)": [[0, 4, 1.0, 0.0, 1.0], [2, 4, 1.0, 0.0, 0.5]],
    "warmup(step, max_step, init_lr, max_lr)": [[5, 10, 0.0, 1.0, 0.5], [30, 10, 0.0, 1.0, 1.0]],
    "step(epoch, init_lr, min_lr, decay_rate)": [[1, 1.0, 0.3, 0.5, 0.5], [2, 1.0, 0.3, 0.5, 0.3]],
    "alpha_pretrain(epoch, i, len)": [[1, 50, 100, 0.3], [2, 0, 100, 0.4]],
    "alpha_retrieval(epoch, i, len)": [[0, 50, 100, 0.2], [1, 0, 100, 0.4]],
}
CASE = {
    "case": "preprocess",
    "files": {"text.json": "", "datasets.json": "", "schedules.json": ""},
    "images": [{"file": "image0.png"}],
    "test_sizes": [4],
    "aug_ops": [
        {"name": "AutoContrast", "op": "AutoContrast", "args": []},
        {"name": "TranslateX_draw0.2", "op": "TranslateX", "args": [2.0, [128] * 3]},
    ],
    "train_transform": [
        {
            "image": 0,
            "size": 4,
            "crop_top_left_height_width": [0, 0, 3, 3],
            "flip": True,
            "ops": [["TranslateY", [2.0, [128] * 3]]],
            "output": "out.train.0",
        }
    ],
    "tolerances_atol": {"uint8 tensors": 0, "out.test*": 1e-6, "out.train.*": 1e-5},
}


def plain(value: int, rows: int = 4, columns: int = 4) -> torch.Tensor:
    return torch.full((rows, columns, 3), value, dtype=torch.uint8)


@pytest.fixture
def made(tmp_path) -> Path:
    """The case in a folder, its vocabulary one above."""
    folder = tmp_path / "preprocess"
    folder.mkdir()
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    tables = {"text": TEXT, "datasets": DATASETS, "schedules": SCHEDULES, "case": CASE}
    for name, table in tables.items():
        (folder / f"{name}.json").write_text(json.dumps(table))
    seen_through = np.full((5, 3, 4), (60, 60, 60, 0), np.uint8)
    Image.fromarray(seen_through, "RGBA").save(folder / "image0.png")
    given = plain(100, 2, 4)
    given[:, 0], given[..., 0] = 50, torch.tensor([0, 10, 10, 20])  # the first channel has a true black
    contrast = plain(255, 2, 4)
    contrast[..., 0] = torch.tensor([0, 127, 127, 255])
    moved = plain(128, 2, 4)
    moved[:, :2] = given[:, 2:]
    trained = plain(60)
    trained[2:] = 128
    normal = (torch.full((3, 4, 4), 60 / 255) - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    tensors = {
        "in.aug.A": given,
        "out.aug.A.AutoContrast": contrast,
        "out.aug.A.TranslateX_draw0.2": moved,
        "out.test4.image0_uint8": plain(60),
        "out.test4.image0": normal,
        "out.train.0_uint8": trained,
    }
    save_file(tensors, folder / "io.safetensors")
    return folder


def verdict(folder: Path, vocab: Path | None = None):
    (line,) = check(folder, vocab)
    return line


def test_it_passes(made):
    line = verdict(made)
    assert line.status == "pass" and line.worst is not None and line.worst < 1, line
    assert "no vocabulary" not in line.detail


def test_without_a_vocabulary_it_says_so_and_one_may_be_given(made, tmp_path_factory):
    elsewhere = shutil.move(made.parent / "vocab.txt", tmp_path_factory.mktemp("words"))
    line = verdict(made)
    assert line.status == "pass" and "tokenisation not compared: no vocabulary" in line.detail
    assert "no vocabulary" not in verdict(made, Path(elsewhere)).detail


def leaves(value, path=()):
    """The way to every number and word of a table."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*path, key))
    else:
        yield path


GIVEN = {"in", "annotation", "sentence", "uniform_draw", "label", "file", "texts"}


@pytest.mark.parametrize("name", ["text", "datasets", "schedules"])
def test_every_number_and_word_counts(made, name):
    path = made / f"{name}.json"
    table = json.loads(path.read_text())
    for way in leaves(table):
        if GIVEN & set(way) or (name == "schedules" and way[-1] != len(table[way[0]][way[1]]) - 1):
            continue  # what is given, not what must come out
        wrong = json.loads(json.dumps(table))
        inner = wrong
        for key in way[:-1]:
            inner = inner[key]
        inner[way[-1]] = inner[way[-1]] + "x" if isinstance(inner[way[-1]], str) else inner[way[-1]] + 1
        path.write_text(json.dumps(wrong))
        line = verdict(made)
        assert line.status == "fail" and f"{name}.json" in line.detail, (way, line)


def test_every_image_counts(made):
    path = made / "io.safetensors"
    tensors = load_file(path)
    for name in tensors:
        wrong = {n: x.clone() for n, x in tensors.items()}
        wrong[name][1, 1] += 1
        save_file(wrong, path)
        line = verdict(made)
        assert line.status == "fail" and name.replace("in.aug", "out.aug") in line.detail, line


def test_the_other_pillow_is_taken_and_named(made):
    tensors = load_file(made / "io.safetensors")
    save_file({"out.test4.image0_uint8": tensors["out.test4.image0_uint8"]}, made / "io_pillow13.safetensors")
    assert "images resized as Pillow 8 to 12 does" in verdict(made).detail
    tensors["out.test4.image0_uint8"], tensors["out.test4.image0"] = plain(61), tensors["out.test4.image0"] + 1
    save_file(tensors, made / "io.safetensors")
    line = verdict(made)
    assert line.status == "pass" and "images resized as Pillow 13 does" in line.detail


@pytest.mark.parametrize("name", ["datasets", "schedules"])
def test_a_table_that_is_not_known_fails(made, name):
    path = made / f"{name}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"surprise": [[1, 2]]}))
    line = verdict(made)
    assert line.status == "fail" and "surprise" in line.detail
