"""Training steps with recorded draws: pre-training, retrieval fine-tuning, and both on several processes."""

import dataclasses
import re
import tempfile
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.nn.functional import one_hot

from capfilt.errors import DataError
from capfilt.evaluate.replay.case import Case, Outputs
from capfilt.evaluate.replay.forward import gradients
from capfilt.models.blip import RETRIEVAL, Blip, Compared, Objective
from capfilt.objectives.language import SmoothingRule
from capfilt.pair import Batch
from capfilt.ranks import Ranks
from capfilt.weights.convert import official
from capfilt.weights.rename import Layout, to_foreign
from capfilt.weights.store import load_tensors, save_tensors

LOSSES = {"itc": "loss_ita", "itm": "loss_itm", "lm": "loss_lm"}
DRAWN = ("neg_image_for_text", "neg_text_for_image")
POINTERS = ("queue_ptr", "ptr_queue")
STUCK_S = 120  # a rank that fell over must not leave the other waiting for ever


class Witness(Blip):
    """A Blip whose `losses` can be replayed: it draws the recorded negatives and keeps what it compared."""

    negatives: tuple[Tensor, Tensor]  # image for each text, text for each image
    compared: Compared
    odds: list[Tensor]

    def compare(self, batch: Batch, image: Tensor, objective: Objective) -> Compared:
        """As in Blip, kept."""
        self.compared = super().compare(batch, image, objective)
        return self.compared

    def negative_odds(self, c: Compared, batch: Batch, objective: Objective, ranks: Ranks) -> list[Tensor]:
        """Kept as they are; returned as certainty of the recorded draw."""
        self.odds = super().negative_odds(c, batch, objective, ranks)
        return [one_hot(n, o.shape[1]).float() for n, o in zip(self.negatives, self.odds, strict=True)]


def pretrain(case: Case, rule: SmoothingRule) -> Outputs:
    """Every run from the stored weights, then two steps in a row with the optimiser."""
    objective = Objective(momentum=case.about["config"]["momentum"], smoothing_rule=rule, across="queue")
    found: Outputs = {}
    for run, settings in case.about["called"]["runs"].items():
        model = _model(case, official.PRETRAIN, settings)
        found |= _step(case, model, objective, official.PRETRAIN, run, settings["alpha"])
    return found | _two_steps(case, objective)


def _two_steps(case: Case, objective: Objective) -> Outputs:
    called = case.about["called"]
    alphas = called.get("two_step alphas", [])
    said = next((text for name, text in called.items() if name.startswith("out.two_step")), "")
    model = _model(case, official.PRETRAIN, {})
    found: Outputs = {}
    trained = [p for p in model.parameters() if p.requires_grad]
    decay = _said("weight_decay", said, 0.05)
    optimiser = torch.optim.AdamW(trained, _said("lr", said, 1e-3), weight_decay=decay)
    for s, alpha in enumerate(alphas):
        optimiser.zero_grad()
        run = f"two_step{s}"
        found |= _step(case, model, objective, official.PRETRAIN, run, alpha, str(s + 1))
        optimiser.step()
        state = to_foreign(model.state_dict(), official.PRETRAIN)
        found |= {f"out.{run}.param_after.{name}": x.clone() for name, x in state.items()}
    return found


def retrieval(case: Case, rule: SmoothingRule) -> Outputs:
    """Every run from the stored weights; the negatives of all ranks and of one are the same with one process."""
    objective = dataclasses.replace(RETRIEVAL, momentum=case.about["config"]["momentum"])
    found: Outputs = {}
    for run, settings in case.about["called"]["runs"].items():
        model = _model(case, official.RETRIEVAL, settings)
        found |= _step(case, model, objective, official.RETRIEVAL, run, settings["alpha"])
    return found


def _said(name: str, text: str, default: float) -> float:
    """The number after a setting's name in the case's own description."""
    match = re.search(rf"\b{name}\s*=?\s*([0-9.]+(?:e-?\d+)?)", text)
    return float(match[1]) if match else default


def _model(case: Case, layout: Layout, settings: dict, part: str = "") -> Witness:
    queue = case.about["config"]["queue_size"]
    roles = ("read", "look", "speak") if layout is official.PRETRAIN else ("read", "look")
    model = Witness(case.config(*roles, queue=queue))
    case.fill(model, layout, part)
    assert model.twins is not None
    with torch.no_grad():
        if "temp" in settings:
            model.temperature.fill_(settings["temp"])
        if "ptr" in settings:
            model.twins.get_buffer("pointer").fill_(settings["ptr"])
    return model.train()


def _batch(case: Case, before: str = "", after: str = "") -> Batch:
    """Inputs `in.<before>image<after>` and so on; where no image numbers are given, each pair is its own."""
    pixels, ids, mask = (case.given(f"{before}{name}{after}") for name in ("image", "input_ids", "attention_mask"))
    numbers = torch.arange(len(ids))
    return Batch(pixels, ids, mask, case.tensors.get(f"in.{before}idx", numbers), numbers)


def _step(
    case: Case, model: Witness, objective: Objective, layout: Layout, run: str, alpha: float, suffix: str = ""
) -> Outputs:
    """One forward and backward pass as `out.<run>.*`."""
    suffix = suffix or ("1" if "in.image1" in case.tensors else "")
    found = _pass(case, model, objective, _batch(case, after=suffix), f"out.{run}.", alpha, Ranks())
    return found | _after(case, model, layout, run)


def _pass(
    case: Case, model: Witness, objective: Objective, batch: Batch, prefix: str, alpha: float, ranks: Ranks
) -> Outputs:
    """The losses, the draws and what was compared, as `<prefix>*`; gradients are left on the parameters."""
    drawn = [case.tensors[prefix + name] for name in DRAWN]
    model.negatives = (drawn[0], drawn[1])
    losses = model.losses(batch, objective, alpha, torch.full((2, len(batch)), 0.5), ranks)
    torch.stack(list(losses.values())).sum().backward()
    found = {f"{prefix}{LOSSES[name]}": loss.detach() for name, loss in losses.items()}
    for name, negative, recorded, odds in zip(("t2i", "i2t"), DRAWN, drawn, model.odds, strict=True):
        found[f"{prefix}weights_{name}"] = odds
        possible = odds.gather(1, recorded[:, None])[:, 0] > 0
        found[f"{prefix}{negative}"] = torch.where(possible, recorded, -1)
    vectors = {name.replace("_vec", "_feat"): x.detach() for name, x in vars(model.compared).items()}
    return found | {prefix + name: x for name, x in vectors.items()}


def _after(case: Case, model: Witness, layout: Layout, run: str) -> Outputs:
    """Gradients, twins, queues, pointer and temperature after a step."""
    state = to_foreign(model.state_dict(), layout)
    found = gradients(model, layout, run)
    words = model.text.words.weight.grad
    if words is not None:
        found[f"out.{run}.grad_word_row0"] = words[0]
        if "in.word_rows" in case.tensors:
            found[f"out.{run}.grad_word_rows"] = words[case.tensors["in.word_rows"]]
    for name, x in state.items():
        if name.partition(".")[0].endswith("_m"):
            found[f"out.{run}.after.{name}"] = x
        elif name in POINTERS:
            found[f"out.{run}.ptr"] = x
        elif name.endswith("_queue") or name == "temp":
            found[f"out.{run}.{name}"] = x
    return {name: x.clone() for name, x in found.items()}


def two_processes(case: Case) -> dict[SmoothingRule, Outputs]:
    """Pre-training and retrieval with the batch split over real processes; each sends its results back as files."""
    world = 1 + max((int(r) for name in case.tensors for r in re.findall(r"^out\.\w+\.rank(\d+)\.", name)), default=0)
    with tempfile.TemporaryDirectory() as where:
        try:
            mp.spawn(_rank, (world, str(case.folder), where), nprocs=world)
        except mp.ProcessRaisedException as error:
            raise DataError(str(error).strip().splitlines()[-1]) from None
        return {rule: _joined(Path(where), rule, world) for rule in case.rules}


def _joined(where: Path, rule: SmoothingRule, world: int) -> Outputs:
    """All ranks' results; what they share must be the same to the last bit."""
    found: Outputs = {}
    for rank in range(world):
        part = load_tensors(where / f"{rule}.{rank}.safetensors")
        apart = [name for name, x in part.items() if name in found and not torch.equal(x, found[name])]
        if apart:
            raise DataError(f"rank {rank} and those before it disagree about {', '.join(apart[:3])}")
        found |= part
    return found


def _rank(rank: int, world: int, folder: str, where: str) -> None:
    torch.set_num_threads(1)
    store = f"file://{where}/group"
    dist.init_process_group("gloo", store, timedelta(seconds=STUCK_S), rank=rank, world_size=world)
    try:
        case, ranks = Case(Path(folder)), Ranks(rank, world)
        for rule in case.rules:
            found = _share(case, ranks, official.PRETRAIN, rule) | _share(case, ranks, official.RETRIEVAL, rule)
            save_tensors(Path(where) / f"{rule}.{rank}.safetensors", found)
    finally:
        dist.destroy_process_group()


def _share(case: Case, ranks: Ranks, layout: Layout, rule: SmoothingRule) -> Outputs:
    """This rank's rows of one training step."""
    run, suffix = ("pre", "1") if layout is official.PRETRAIN else ("ret", "")
    objective = Objective(across="queue", smoothing_rule=rule) if run == "pre" else RETRIEVAL
    objective = dataclasses.replace(objective, momentum=case.about["config"]["momentum"])
    said = re.search(r"alpha ([0-9.]*\d)", case.about["called"][f"out.{run}.*"])
    alpha = float(said[1]) if said else objective.alpha
    model, batch = _model(case, layout, {}, run), _batch(case, f"{run}.", suffix)
    rows = len(batch) // ranks.world
    own = Batch(**{k: v[ranks.rank * rows :][:rows] for k, v in vars(batch).items() if v is not None})
    found = _pass(case, model, objective, own, f"out.{run}.rank{ranks.rank}.", alpha, ranks)
    ranks.average_gradients(list(model.parameters()))
    return found | _after(case, model, layout, run)
