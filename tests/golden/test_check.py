"""The committed cases pass; a wrong number, a wrong file and each well-known mistake does not."""

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from capfilt.blocks import med
from capfilt.errors import DataError
from capfilt.evaluate import golden
from capfilt.evaluate.golden import check
from capfilt.evaluate.replay import spoken, tasks, training
from capfilt.evaluate.replay.compare import difference
from capfilt.models import blip
from capfilt.objectives.contrastive import enqueue
from capfilt.predict import answerer
from capfilt.predict.decode import BEAM, NOCAPS

CASES = Path(__file__).resolve().parent / "cases"


def verdict(name: str = "pretrain", folder: Path = CASES):
    (line,) = check(folder / name)
    return line


@pytest.fixture
def copied(tmp_path):
    """A copy of the committed cases that may be broken."""
    return Path(shutil.copytree(CASES, tmp_path / "cases"))


def test_nothing_moved():
    lines = list(check(CASES))
    assert [(line.name, line.status) for line in lines] == [
        ("captioner", "pass"),
        ("nlvr2", "pass"),
        ("pretrain", "pass"),
        ("retrieval_train", "pass"),
        ("vqa", "pass"),
    ]
    assert all(line.worst is not None and line.worst < 1 for line in lines)


# ---- mistakes that the numbers must show ----------------------------------------------------------------------------


def late_twins(patch):
    right = blip.Blip.compare

    def compare(self, batch, image, objective):
        before = right(self, batch, image, dataclasses.replace(objective, momentum=1.0))
        right(self, batch, image, objective)  # the twins move only now
        return before

    patch.setattr(blip.Blip, "compare", compare)


def no_sampling_floor(patch):
    right = blip.negative_odds
    patch.setattr(blip, "negative_odds", lambda sim, same, floor: right(sim, same, 0.0))


def padding_seen(patch):
    right = med.mask_bias
    patch.setattr(med, "mask_bias", lambda mask, causal, dtype: right(torch.ones_like(mask), causal, dtype))


def speaker_not_tied(patch):
    right = blip.Blip.lm

    def lm(self, batch, kv, objective, ranks):
        tied = [p for name, p in self.text.named_parameters() if "causal" not in name and "head" not in name]
        for p in tied:
            p.requires_grad_(False)
        loss = right(self, batch, kv, objective, ranks)
        for p in tied:
            p.requires_grad_(True)
        return loss

    patch.setattr(blip.Blip, "lm", lm)


def alpha_a_little_off(patch):
    right = blip.soft_targets
    patch.setattr(blip, "soft_targets", lambda sim, positives, alpha: right(sim, positives, alpha * 0.975))


def no_smoothing(patch):
    right = blip.next_token
    patch.setattr(blip, "next_token", lambda logits, labels, _, rule, count: right(logits, labels, 0.0, rule, count))


def other_smoothing_rule(patch):
    replay = partial(training.pretrain, rule="torch110")
    patch.setitem(golden.REPLAYS, "pretrain", lambda case: {rule: replay(case) for rule in case.rules})


def temperature_unbounded(patch):
    patch.setattr(blip, "TEMPERATURE", (0.0, 10.0))


def queue_does_not_wrap(patch):
    def stuck(queue, new, pointer):
        enqueue(queue, new[: len(queue) - int(pointer)], pointer)

    patch.setattr(blip, "enqueue", stuck)


def remembered_too_early(patch):
    right = blip.Blip.itc

    def itc(self, c, batch, objective, alpha, ranks):
        self.remember(c, batch, ranks)
        return right(self, c, batch, objective, alpha, ranks)

    patch.setattr(blip.Blip, "itc", itc)


MISTAKES = (
    late_twins,
    no_sampling_floor,
    padding_seen,
    speaker_not_tied,
    alpha_a_little_off,
    no_smoothing,
    other_smoothing_rule,
    temperature_unbounded,
    queue_does_not_wrap,
    remembered_too_early,
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_mistake_in_pretraining_shows(monkeypatch, mistake):
    mistake(monkeypatch)
    line = verdict()
    assert line.status == "fail" and line.worst is not None and line.worst > 5, line
    assert "beyond tolerance" in line.detail


# ---- mistakes in what is written, answered and judged ----------------------------------------------------------------


def other_length_rule(patch):
    patch.setitem(spoken.RUNS, "beam3_coco", dataclasses.replace(BEAM, length_rule="hf"))
    return "captioner", "out.gen.beam3_coco"


def penalty_left_out(patch):
    patch.setitem(spoken.RUNS, "greedy_rep", spoken.GREEDY)
    return "captioner", "out.gen.greedy_rep"


def prompt_not_counted(patch):
    patch.setitem(spoken.RUNS, "beam3_nocaps", dataclasses.replace(NOCAPS, count_prompt=False))
    return "captioner", "out.gen.beam3_nocaps"


def padding_heard(patch):
    right = answerer.Heard
    patch.setattr(tasks, "Heard", lambda kv, hidden: right(kv, torch.zeros_like(hidden)))
    return "vqa", "out.first_logits_cols"


def padding_hidden_where_the_original_shows_it(patch):
    right = tasks.texts_of

    def texts_of(speech, *rest):
        width = speech.seen[0][0].shape[2]
        speech.hidden = torch.zeros(len(speech.seen[0][0]), 1, 1, width)
        speech.hidden[1:, ..., -1] = -torch.inf
        return right(speech, *rest)

    patch.setattr(tasks, "texts_of", texts_of)
    return "vqa", "out.gen.scores"


def one_smoothing_rule_for_all(patch):
    right = tasks.rank
    patch.setattr(tasks, "rank", lambda *given: right(*given[:-1], "modern"))
    return "vqa", "out.rank_all_scores (torch110)"


def answers_weigh_the_same(patch):
    right = tasks.Questions
    patch.setattr(tasks, "Questions", lambda *given: right(*given[:5], torch.ones_like(given[5]), given[6]))
    return "vqa", "out.train_loss"


TASK_MISTAKES = (
    other_length_rule,
    penalty_left_out,
    prompt_not_counted,
    padding_heard,
    padding_hidden_where_the_original_shows_it,
    one_smoothing_rule_for_all,
    answers_weigh_the_same,
)


@pytest.mark.parametrize("mistake", TASK_MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_mistake_in_a_task_shows(monkeypatch, mistake):
    case, where = mistake(monkeypatch)
    line = verdict(case)
    assert line.status == "fail" and line.worst is not None and line.worst > 5, line
    assert where in line.detail


def test_images_exchanged_show(copied):
    path = copied / "nlvr2" / "io.safetensors"
    tensors = load_file(path)
    tensors["in.image0"], tensors["in.image1"] = tensors["in.image1"], tensors["in.image0"]
    save_file(tensors, path)
    line = verdict("nlvr2", copied)
    assert line.status == "fail" and "out.logits" in line.detail


def test_only_the_diagonal_as_positive_shows_in_retrieval(monkeypatch):
    monkeypatch.setattr(training, "RETRIEVAL", dataclasses.replace(blip.RETRIEVAL, positives="pair"))
    line = verdict("retrieval_train")
    assert line.status == "fail" and line.worst is not None and line.worst > 5


@pytest.mark.parametrize("name", ["image_for_text", "text_for_image"])
def test_a_partner_that_is_the_right_one_cannot_have_been_drawn(copied, name):
    path = copied / "retrieval_train" / "io.safetensors"
    tensors = load_file(path)
    tensors[f"out.a04.neg_{name}"] = torch.tensor([2, 0, 3, 1, 0])  # rows 0 and 2 show one image
    save_file(tensors, path)
    line = verdict("retrieval_train", copied)
    assert line.status == "fail" and f"out.a04.neg_{name}" in line.detail


# ---- broken cases: one line with the reason, and the others go on ---------------------------------------------------


def rewrite(path: Path, change) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def test_a_wrong_number_fails(copied):
    path = copied / "captioner" / "io.safetensors"
    tensors = load_file(path)
    tensors["out.logits_lse"][1, 2] += 1e-3
    save_file(tensors, path)
    line = verdict("captioner", copied)
    assert line.status == "fail" and line.worst is not None and line.worst > 1
    assert line.detail.startswith("out.logits_lse")


def test_a_tolerance_that_nothing_meets_fails(copied):
    rewrite(
        copied / "captioner/case.json", lambda case: case["tolerances_atol"].update({"out.logits_lse": float("nan")})
    )
    assert verdict("captioner", copied).status == "fail"


def test_a_wrong_norm_in_a_table_fails(copied):
    def change(case):
        norms = case["grad_norms"][""]
        norms["visual_encoder.cls_token"] += 0.01

    rewrite(copied / "captioner" / "case.json", change)
    line = verdict("captioner", copied)
    assert line.status == "fail" and "grad_norms visual_encoder.cls_token (torch110)" in line.detail


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda case: (case / "weights.safetensors").unlink(), "weights.safetensors: no such file"),
        (lambda case: (case / "io.safetensors").unlink(), "io.safetensors: no such file"),
        (lambda case: (case / "case.json").unlink(), "case.json: no such file"),
        (lambda case: (case / "case.json").write_text("{"), "not JSON"),
        (lambda case: (case / "io.safetensors").write_bytes(b"cut"), "not a whole safetensors file"),
    ],
)
def test_a_broken_case_is_a_line_and_the_others_go_on(copied, damage, reason):
    for name in ("nlvr2", "pretrain", "vqa"):
        shutil.rmtree(copied / name)
    damage(copied / "captioner")
    broken, *others = check(copied)
    assert broken.name == "captioner" and broken.status == "fail" and broken.worst is None
    assert reason in broken.detail and "\n" not in broken.detail
    assert [line.status for line in others] == ["pass"]


def test_an_output_that_nobody_computes_fails(copied):
    path = copied / "captioner" / "io.safetensors"
    save_file(load_file(path) | {"out.unheard_of": torch.zeros(2)}, path)
    line = verdict("captioner", copied)
    assert line.status == "fail" and "nothing computed for out.unheard_of" in line.detail


def test_weights_that_do_not_fit_name_the_keys(copied):
    path = copied / "captioner" / "weights.safetensors"
    tensors = load_file(path)
    tensors["visual_encoder.surprise"] = tensors.pop("visual_encoder.norm.bias")
    save_file(tensors, path)
    detail = verdict("captioner", copied).detail
    assert "unknown visual_encoder.surprise" in detail and "missing vit.norm.bias" in detail


def test_no_folder_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        list(check(tmp_path / "nowhere"))
    assert list(check(tmp_path)) == []


def test_differences_count_in_tolerances():
    x = torch.tensor([1.0, 2.0])
    assert difference(x, x + 0.5, 0.25) == pytest.approx(2.0)
    assert difference(x, x, 0) == 0.0
    infinite = float("inf")
    assert difference(x, x + 1e-7, 0) == infinite
    assert difference(x, x[:1], 1.0) == infinite
    assert difference(x, x * float("nan"), 1.0) == infinite
    assert difference(torch.tensor([3]), torch.tensor([4]), 100.0) == infinite
    assert difference(torch.tensor([3.0]), torch.tensor(3.0), 1e-6) == 0.0
