"""Writes the committed cases in `tests/golden/cases`: a very small Blip, recorded by our own code.

They are regression numbers: they say that nothing moved, not that it was right (the original's own cases say that, see
`test_cases.py`). After an intended change of the numerics, record them anew and say why in the commit:

    python tests/golden/record.py
"""

import shutil
from pathlib import Path

import torch
from torch import Tensor

from capfilt.files import write_json
from capfilt.models.blip import Blip
from capfilt.weights.convert import official
from capfilt.weights.rename import Layout, to_foreign
from capfilt.weights.replay import forward, training
from capfilt.weights.replay.case import LATER, Case
from capfilt.weights.store import save_tensors

HERE = Path(__file__).resolve().parent / "cases"
CONFIG = {
    "vocab_size": 40,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 10,
    "text_layer_norm_eps": 1e-12,
    "vision_width": 12,
    "vision_depth": 2,
    "vision_heads": 3,
    "vision_mlp_ratio": 2,
    "patch_size": 8,
    "image_size": 16,
    "vision_layer_norm_eps": 1e-6,
    "embed_dim": 6,
    "special_ids": {"pad": 0, "cls": 2, "sep": 3, "dec_bos": 38, "enc": 39},
    "queue_size": 10,
    "momentum": 0.9,
}
STEP = "torch AdamW(lr 1e-3, weight_decay 0.05)"
BULK = ("grad.", "after.", "param_after.")  # of these only SOME are stored whole
TABLED = ("", "a04")  # runs whose norms are stored
SOME = (".temp", "cls_token", "layer.1.crossattention.self.value.bias", "layer.0.attention.self.query.bias")


def random_weights(layout: Layout, roles: tuple, queue: int, folder: Path, seed: int) -> dict[str, str]:
    """Weights large enough that a missing mask, bias or position shows; exact in half precision. Returns aliases."""
    dice = torch.Generator().manual_seed(seed)
    model = Blip(Case(folder).config(*roles, queue=queue))
    state = {}
    for name, x in model.state_dict().items():
        drawn = torch.randn(x.shape, generator=dice)
        if name.endswith("_queue") and x.is_floating_point():
            state[name] = torch.nn.functional.normalize(drawn, dim=1).half()
        elif x.is_floating_point():
            state[name] = (0.25 * drawn + (1.0 if "norm" in name and name.endswith("weight") else 0.0)).half()
        else:
            state[name] = x.clone()
    if "temperature" in state:
        state["temperature"] = torch.tensor(0.08).half()
    whole, aliases, first = {}, {}, {}
    for name, x in sorted(to_foreign(state, layout).items(), key=lambda item: "decoder" in item[0]):
        same = first.setdefault((x.data_ptr(), x.shape), name)
        if same == name:
            whole[name] = x
        else:
            aliases[name] = same
    save_tensors(folder / "weights.safetensors", whole)
    return aliases


def inputs(seed: int, rows: int, length: int, first: int) -> tuple[Tensor, Tensor, Tensor]:
    """(pixels, ids, mask) with texts of different lengths."""
    dice = torch.Generator().manual_seed(seed)
    px = CONFIG["image_size"]
    pixels = torch.randn(rows, 3, px, px, generator=dice).half()
    ids = torch.randint(4, 38, (rows, length), generator=dice)
    mask = (torch.arange(length) < torch.arange(length, length - rows, -1)[:, None]).long()
    ids[:, 0] = first
    ids[torch.arange(rows), mask.sum(1) - 1] = CONFIG["special_ids"]["sep"]
    return pixels, ids * mask, mask


def tables(found: dict[str, Tensor], first_steps: bool) -> dict[str, dict]:
    """The gradient norms and the sums and norms of the twins, of the runs named in TABLED."""
    told: dict[str, dict] = {"grad_norms": {}, "momentum_after": {}}
    for name, x in found.items():
        run, rest = split(name)
        if run not in TABLED:
            continue
        total, norm = (round(float(v), 7) for v in (x.double().sum(), x.double().norm()))
        kind, _, foreign = rest.partition(".")
        if kind == "grad":
            told["grad_norms"].setdefault(run, {})[foreign] = None if foreign.partition(".")[0].endswith("_m") else norm
        if kind == "after" and first_steps:
            told["momentum_after"].setdefault(run, {})[foreign] = [total, norm]
    return {name: values for name, values in told.items() if values}


def split(name: str) -> tuple[str, str]:
    """(run, rest) of an output's name; a case of one run does not name it."""
    run, _, rest = name.removeprefix("out.").partition(".")
    return ("", f"grad.{rest}") if run == "grad" else (run, rest)


def finish(folder: Path, given: dict[str, Tensor], about: dict, replay, rules: tuple) -> None:
    """Runs the replay under each rule and stores what came out, with tight tolerances."""
    write_json(folder / "case.json", about)
    for rule in rules:
        suffix = "" if rule == "torch110" else "_torch112"
        found = replay(Case(folder), rule)
        kept = {} if suffix else dict(given)
        for name, x in found.items():
            rest = split(name)[1]
            if not rest.startswith(BULK) or rest.endswith(SOME):
                kept[name] = x.clone()
        out = {n: x for n, x in kept.items() if n.startswith("out.")}
        about["tolerances_atol" + suffix] = {
            n: 5e-6 * max(1.0, float(x.abs().max())) if x.is_floating_point() else 0 for n, x in out.items()
        }
        # The loss rule does not reach the twins before the second step.
        about |= {name + suffix: values for name, values in tables(found, first_steps=not suffix).items()}
        save_tensors(folder / (LATER if suffix else "io.safetensors"), kept)
    write_json(folder / "case.json", about)


def start(name: str, given: dict[str, Tensor], called: dict) -> tuple[Path, dict]:
    folder = HERE / name
    about = {"case": name, "config": CONFIG, "called": called, "recorded_by": "tests/golden/record.py"}
    write_json(folder / "case.json", about)
    save_tensors(folder / "io.safetensors", given)
    return folder, about


def pretrain() -> None:
    """Two runs (the second wraps the queue) and two optimiser steps."""
    given = {}
    for step in (1, 2):
        names = (f"in.{n}{step}" for n in ("image", "input_ids", "attention_mask"))
        given |= dict(zip(names, inputs(step, 4, 8, 2), strict=True))
    given["in.word_rows"] = torch.tensor([0, 2, 3, 7])
    for run in ("a04", "wrap", "two_step0", "two_step1"):
        given |= {f"out.{run}.neg_image_for_text": torch.tensor([1, 0, 3, 1])}
        given |= {f"out.{run}.neg_text_for_image": torch.tensor([2, 3, 0, 0])}
    runs = {"a04": {"alpha": 0.4}, "wrap": {"alpha": 0.3, "temp": 0.9, "ptr": 8}}
    called = {"runs": runs, "two_step alphas": [0.1, 0.2], "out.two_step<s>.*": STEP}
    folder, about = start("pretrain", given, called)
    about["aliases"] = random_weights(official.PRETRAIN, ("read", "look", "speak"), CONFIG["queue_size"], folder, 1)
    finish(folder, given, about, training.pretrain, ("torch110", "modern"))


def retrieval() -> None:
    """One run in which two rows show one image and one image is in the queue."""
    names = ("in.image", "in.input_ids", "in.attention_mask")
    given = dict(zip(names, inputs(3, 5, 8, 2), strict=True)) | {"in.idx": torch.tensor([5, 6, 5, 7, 9])}
    given |= {"out.a04.neg_image_for_text": torch.tensor([1, 0, 3, 1, 2])}
    given |= {"out.a04.neg_text_for_image": torch.tensor([3, 4, 1, 0, 0])}
    folder, about = start("retrieval_train", given, {"runs": {"a04": {"alpha": 0.4, "ptr": 3}}})
    about["aliases"] = random_weights(official.RETRIEVAL, ("read", "look"), CONFIG["queue_size"], folder, 2)
    finish(folder, given, about, training.retrieval, ("torch110",))


def captioner() -> None:
    """The language loss behind a prompt of three ids."""
    pixels, ids, mask = inputs(4, 4, 9, CONFIG["special_ids"]["dec_bos"])
    targets = ids.masked_fill(mask == 0, -100)
    targets[:, :3] = -100
    given = {"in.image": pixels, "in.lm_input_ids": ids, "in.lm_attention_mask": mask, "in.lm_targets": targets}
    given |= {
        "in.logit_cols": torch.tensor([0, 3, 8, 30]),
        "in.prompt_ids": ids[:, :3],
        "out.logits_top5": torch.zeros(4, 9, 5),
    }
    folder, about = start("captioner", given, {})
    about["aliases"] = random_weights(official.CAPTIONER, ("speak",), 0, folder, 3)
    finish(folder, given, about, forward.captioner, ("torch110", "modern"))


if __name__ == "__main__":
    shutil.rmtree(HERE, ignore_errors=True)
    torch.set_num_threads(1)
    pretrain()
    retrieval()
    captioner()
