"""Writes the committed cases in `tests/golden/cases`: a very small Blip, recorded by our own code.

They are regression numbers: they say that nothing moved, not that it was right (the original's own cases say that, see
`test_cases.py`). After an intended change of the numerics, record them anew and say why in the commit:

    python tests/golden/record.py
"""

import shutil
from pathlib import Path

import torch
from torch import Tensor, nn

from capfilt.blocks.med import Role
from capfilt.evaluate.replay import forward, tasks, training
from capfilt.evaluate.replay.case import LATER, Case
from capfilt.files import write_json
from capfilt.models.blip import Blip
from capfilt.models.blip_nlvr import BlipNlvr, BlipNlvrConfig
from capfilt.models.blip_vqa import BlipVqa, BlipVqaConfig
from capfilt.weights.convert import official
from capfilt.weights.rename import Layout, to_foreign
from capfilt.weights.store import save_tensors

HERE = Path(__file__).resolve().parent / "cases"
CONFIG = {
    "vocab_size": 40,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 30,
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
NOTHING = torch.zeros(4, 1, dtype=torch.long)  # in the place of ids that are only recorded
SOME = (".temp", "cls_token", "layer.1.crossattention.self.value.bias", "layer.0.attention.self.query.bias")


def random_weights(model: nn.Module, layout: Layout, folder: Path, seed: int) -> dict[str, str]:
    """Weights large enough that a missing mask, bias or position shows; exact in half precision. Returns aliases."""
    dice = torch.Generator().manual_seed(seed)
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


def blip(folder: Path, *roles: Role, queue: bool = False) -> Blip:
    """The case's Blip."""
    return Blip(Case(folder).config(*roles, queue=CONFIG["queue_size"] if queue else 0))


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
    about["aliases"] = random_weights(blip(folder, "read", "look", "speak", queue=True), official.PRETRAIN, folder, 1)
    finish(folder, given, about, training.pretrain, ("torch110", "modern"))


def retrieval() -> None:
    """One run in which two rows show one image and one image is in the queue."""
    names = ("in.image", "in.input_ids", "in.attention_mask")
    given = dict(zip(names, inputs(3, 5, 8, 2), strict=True)) | {"in.idx": torch.tensor([5, 6, 5, 7, 9])}
    given |= {"out.a04.neg_image_for_text": torch.tensor([1, 0, 3, 1, 2])}
    given |= {"out.a04.neg_text_for_image": torch.tensor([3, 4, 1, 0, 0])}
    folder, about = start("retrieval_train", given, {"runs": {"a04": {"alpha": 0.4, "ptr": 3}}})
    about["aliases"] = random_weights(blip(folder, "read", "look", queue=True), official.RETRIEVAL, folder, 2)
    finish(folder, given, about, training.retrieval, ("torch110",))


def captioner() -> None:
    """The language loss behind a prompt of three ids, and texts written behind it."""
    pixels, ids, mask = inputs(4, 4, 9, CONFIG["special_ids"]["dec_bos"])
    targets = ids.masked_fill(mask == 0, -100)
    targets[:, :3] = -100
    given = {"in.image": pixels, "in.lm_input_ids": ids, "in.lm_attention_mask": mask, "in.lm_targets": targets}
    given |= {
        "in.logit_cols": torch.tensor([0, 3, 8, 30]),
        "in.prompt_ids": ids[:, :3],
        "out.logits_top5": torch.zeros(4, 9, 5),
    }
    written = ("beam3_coco.ids", "beam3_coco.nbest_ids", "beam3_nocaps.ids", "beam3_nocaps.nbest_ids", "greedy_rep.ids")
    given |= {f"out.gen.{name}": NOTHING.clone() for name in written}
    folder, about = start("captioner", given, {})
    about["aliases"] = random_weights(blip(folder, "speak"), official.CAPTIONER, folder, 3)
    finish(folder, given, about, forward.captioner, ("torch110", "modern"))


def vqa() -> None:
    """Three questions of other lengths, five answers to them, six candidates of which some share their first word."""
    special = CONFIG["special_ids"]
    pixels, ids, mask = inputs(5, 3, 7, special["enc"])
    _, answers, shown = inputs(6, 5, 6, special["dec_bos"])
    _, candidates, listed = inputs(7, 6, 6, special["dec_bos"])
    candidates[3:5, 1] = candidates[2, 1]
    given = {"in.image": pixels, "in.question_ids": ids, "in.question_mask": mask}
    given |= {"in.answer_ids": answers, "in.answer_mask": shown, "in.answers_per_question": torch.tensor([2, 1, 2])}
    given |= {"in.answer_weights": torch.tensor([0.6, 0.4, 1.0, 0.5, 0.2]), "in.logit_cols": torch.tensor([0, 3, 9])}
    given |= {"in.candidate_ids": candidates, "in.candidate_mask": listed}
    given |= {"out.rank_topk_ids": torch.zeros(3, 4, dtype=torch.long), "out.gen.ids": NOTHING.clone()}
    given |= {"out.gen_single.ids": NOTHING.clone()}
    folder, about = start("vqa", given, {})
    model = BlipVqa(BlipVqaConfig(Case(folder).vit(), Case(folder).text(), Case(folder).special))
    about |= {"aliases": random_weights(model, official.VQA, folder, 4), "k_test": 4}
    finish(folder, given, about, tasks.vqa, ("torch110", "modern"))


def nlvr2() -> None:
    """Four statements; eight layers, so that both ways to join two images occur."""
    pixels, ids, mask = inputs(8, 4, 7, CONFIG["special_ids"]["enc"])
    given = {"in.image0": pixels, "in.image1": pixels.flip(0), "in.input_ids": ids, "in.attention_mask": mask}
    given["in.targets"] = torch.tensor([0, 1, 1, 0])
    folder, about = start("nlvr2", given, {})
    about["config"] = CONFIG | {"num_hidden_layers": 8}
    write_json(folder / "case.json", about)
    model = BlipNlvr(BlipNlvrConfig(Case(folder).vit(), Case(folder).text(), Case(folder).special))
    about["aliases"] = random_weights(model, official.NLVR, folder, 5)
    finish(folder, given, about, tasks.nlvr2, ("torch110",))


if __name__ == "__main__":
    shutil.rmtree(HERE, ignore_errors=True)
    torch.set_num_threads(1)
    pretrain()
    retrieval()
    captioner()
    vqa()
    nlvr2()
