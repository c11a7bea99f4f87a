"""What comes before the model: cleaned and tokenised text, rules of data sets, schedules, and pixels."""

import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from capfilt.errors import DataError
from capfilt.evaluate.replay.case import Case, Outputs
from capfilt.evaluate.replay.compare import Compared, Gap, difference, equal
from capfilt.evaluate.replay.datasets import rules
from capfilt.files import read_json
from capfilt.inputs.augment import crop, distort
from capfilt.inputs.images import normalize, to_pixels
from capfilt.inputs.texts import clean_caption, clean_question
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.objectives.contrastive import alpha_at
from capfilt.train.schedule import Schedule
from capfilt.weights.sizes import PROMPT
from capfilt.weights.store import load_tensors

OTHER_PILLOW = "io_pillow13.safetensors"  # what Pillow 13 resizes in another order
WHOLE = 10**6  # ids that no text has
CLEAN = {"caption": clean_caption, "question": clean_question}
FLOAT = 1e-9  # of a rate's size


def preprocess(case: Case) -> Compared:
    """Every table and image of the case; what needs a vocabulary only where there is one."""
    gaps: list[Gap] = []
    notes: list[str] = []
    missing: tuple[str, ...] = ()
    for name, gaps_of in PARTS.items():
        if (case.folder / name).exists() or name in case.about.get("files", {}):
            gaps += gaps_of(read_json(case.folder / name))
    if (case.folder / "text.json").exists():
        vocabulary = case.vocabulary()
        if vocabulary is None:
            notes.append("tokenisation not compared: no vocabulary (--vocab FILE)")
        else:
            gaps += _tokens(read_json(case.folder / "text.json"), TextTokenizer.from_vocab(vocabulary))
    if (case.folder / "io.safetensors").exists():
        pictures = _pictures(case)
        gaps, notes, missing = gaps + pictures.gaps, notes + pictures.notes, pictures.missing
    return Compared(gaps, notes, missing)


# ---- text -----------------------------------------------------------------------------------------------------------


def _cleaning(tables: dict) -> Iterator[Gap]:
    for i, row in enumerate(tables["cleaning"]):
        for name, want in row.items():
            match = re.fullmatch(r"pre_(caption|question)_(\d+)", name)
            if match or name != "in":
                got = CLEAN[match[1]](row["in"], int(match[2])) if match else None
                yield equal(f"text.json cleaning {i} {name}", want, got)


def _tokens(tables: dict, bert: TextTokenizer) -> Iterator[Gap]:
    ids = {"pad": bert.pad_id, "cls": bert.cls_id, "sep": bert.sep_id, "bos_dec": bert.dec_id, "enc": bert.enc_id}
    ids["len"] = len(bert)
    for name, want in tables["special_ids"].items():
        yield equal(f"text.json special_ids {name}", want, ids.get(name))
    yield equal("text.json prompt_ids", tables["prompt_ids"], bert.encode([PROMPT])[0].tolist())
    batch = tables["batch_longest"]
    padded = bert.pad(bert.encode(batch["texts"], WHOLE))
    for name, rows in zip(("input_ids", "attention_mask"), padded, strict=True):
        yield equal(f"text.json batch_longest {name}", batch[name], rows.tolist())
    for i, (given, row) in enumerate(zip(tables["cleaning"], tables["tokenisation"], strict=True)):
        for name, want in row.items():
            yield equal(f"text.json tokenisation {i} {name}", want, _tokenised(bert, given["in"], name))


def _tokenised(bert: TextTokenizer, text: str, name: str) -> object:
    """One entry of the tokenisation table by its name; None for a name that is not known."""
    match = re.fullmatch(
        r"(raw_ids|raw_decoded_skip_special|clean_ids_pad|clean_mask_pad|caption_prompt_ids)(\d*)", name
    )
    if match is None:
        return None
    kind, length = match[1], int(match[2] or WHOLE)
    if kind.startswith("raw"):
        ids = bert.encode([text], length)[0]
        return ids.tolist() if kind == "raw_ids" else bert.decode(ids)
    start = PROMPT if kind == "caption_prompt_ids" else ""
    ids = bert.encode([start + clean_caption(text)], length)[0]
    if kind == "caption_prompt_ids":
        return ids.tolist()
    row = ids if kind == "clean_ids_pad" else np.ones_like(ids)
    return [*row.tolist(), *[bert.pad_id if kind == "clean_ids_pad" else 0] * (length - len(ids))]


# ---- rates ----------------------------------------------------------------------------------------------------------


def _cosine(epoch: int, epochs: int, rate: float, floor: float) -> float:
    return Schedule("epoch_cosine", rate, floor).at(epoch, epochs, 1)


def _warmup(step: int, steps: int, start: float, rate: float) -> float:
    return Schedule("epoch_decay", rate, warmup=steps, warmup_start=start).at(step, WHOLE, WHOLE)


def _decay(epoch: int, rate: float, floor: float, decay: float) -> float:
    return Schedule("epoch_decay", rate, floor, decay=decay).at(epoch, WHOLE, 1)


def _alpha(epochs: int, epoch: int, step: int, steps: int) -> float:
    return alpha_at(epoch * steps + step, epochs * steps)


RATES: dict[str, Callable[..., float]] = {
    "cosine": _cosine,
    "warmup": _warmup,
    "step": _decay,
    "alpha_pretrain": partial(_alpha, 2),
    "alpha_retrieval": partial(_alpha, 1),
}


def _schedules(tables: dict) -> Iterator[Gap]:
    for name, rows in tables.items():
        rate = RATES.get(name.partition("(")[0])
        for *given, want in rows:
            what = f"schedules.json {name} {given}"
            if rate is None:
                yield equal(f"{what}: not known", True, False)
            else:
                yield Gap(abs(rate(*given) - want) / (FLOAT * abs(want) + FLOAT**2), what)


PARTS = {"text.json": _cleaning, "datasets.json": rules, "schedules.json": _schedules}


# ---- pixels ---------------------------------------------------------------------------------------------------------


def _pictures(case: Case) -> Compared:
    """Test and training transforms and each distortion, every one as the original has it."""
    found = {**_tested(case), **_distorted(case), **_trained(case)}
    want = {name: x for name, x in case.tensors.items() if name.startswith("out.")}
    other = load_tensors(case.folder / OTHER_PILLOW) if (case.folder / OTHER_PILLOW).exists() else {}
    other |= {name.removesuffix("_uint8"): _normal(x.numpy()) for name, x in other.items()}
    gaps, turned = [], False
    for name in sorted(want.keys() & found.keys()):
        atol = _tolerance(case, name)
        size = difference(want[name], found[name], atol)
        if size > 1 and name in other:
            size = difference(other[name], found[name], atol)
            turned = True
        gaps.append(Gap(size, name))
    notes = [f"images resized as Pillow {'13' if turned else '8 to 12'} does"] if other else []
    return Compared(gaps, notes, tuple(sorted(want.keys() - found.keys())))


def _tested(case: Case) -> Outputs:
    """Pixels of the test transform, and what the model gets."""
    found: Outputs = {}
    for px in case.about["test_sizes"]:
        for entry in case.about["images"]:
            name = f"out.test{px}.{Path(entry['file']).stem}"
            found |= _both(name, to_pixels(_picture(case, entry), px))
    return found


def _distorted(case: Case) -> Outputs:
    """Every distortion of every array that is given for it."""
    given = {m[1]: x.numpy() for name, x in case.tensors.items() if (m := re.fullmatch(r"in\.aug\.(\w+)", name))}
    return {
        f"out.aug.{name}.{entry['name']}": torch.from_numpy(_distort(pixels, entry["op"], entry["args"]).copy())
        for entry in case.about["aug_ops"]
        for name, pixels in given.items()
    }


def _trained(case: Case) -> Outputs:
    """The training transform with its recorded decisions."""
    found: Outputs = {}
    for entry in case.about["train_transform"]:
        picture = _picture(case, case.about["images"][entry["image"]])
        pixels = crop(picture, tuple(entry["crop_top_left_height_width"]), entry["size"], entry["flip"])
        for op, args in entry["ops"]:
            pixels = _distort(pixels, op, args)
        found |= _both(entry["output"], pixels)
    return found


def _picture(case: Case, entry: dict) -> Image.Image:
    with Image.open(case.folder / entry["file"]) as picture:
        return picture.convert("RGB")  # as the original: what is see-through is not laid on white


def _distort(pixels: np.ndarray, op: str, args: list) -> np.ndarray:
    name = re.sub(r"(?=[XY]$)", "_", op).lower()
    return distort(pixels, name, float(args[0]) if args else 0.0, faithful=True)


def _both(name: str, pixels: np.ndarray) -> Outputs:
    return {f"{name}_uint8": torch.from_numpy(pixels.copy()), name: _normal(pixels)}


def _normal(pixels: np.ndarray) -> Tensor:
    return normalize(pixels[None])[0]


def _tolerance(case: Case, name: str) -> float:
    """The tolerances are given for patterns of names; whole numbers have none."""
    given = case.about["tolerances_atol"]
    if not case.tensors[name].is_floating_point():
        return 0.0
    for pattern, atol in given.items():
        if fnmatchcase(name, pattern):
            return atol
    raise DataError(f"{name} has no tolerance in case.json")
