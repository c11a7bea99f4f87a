"""Batches of questions, statements and dialogues: what is in them, by the step alone, shared out over ranks."""

import dataclasses
import pickle
from collections import Counter

import numpy as np
import pytest
import torch

from capfilt.data.annotations import Asked, Dialog, Round, Stated
from capfilt.data.pictures import Album
from capfilt.data.table import Feeding
from capfilt.data.task_batches import (
    DialogueBatches,
    DialogueTable,
    QuestionBatches,
    QuestionTable,
    StatementBatches,
    StatementTable,
)
from capfilt.errors import DataError
from capfilt.inputs.augment import AugmentConfig
from capfilt.inputs.images import normalize
from capfilt.inputs.tokenizer import TextTokenizer

WORDS = "the left right dog cat is on of a red blue what colour how many two yes no it there not box ?"
SHADES = normalize(np.stack([np.full((8, 8, 3), 20 * i, np.uint8) for i in range(7)]))[:, 0, 0, 0]


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.train([WORDS], 120)


def album(lost: tuple[str, ...] = ()) -> Album:
    pictures = np.stack([np.full((8, 8, 3), 20 * i, np.uint8) for i in range(7)])
    return Album(pictures, {str(i): i for i in range(7) if str(i) not in lost}, dict.fromkeys(lost, "empty: nothing"))


def questions() -> QuestionTable:
    said = [("red",), ("blue", "a red box", "no"), ("two", "yes"), ("not it",), ("no",)]
    asked = [
        Asked(str(i), f"What colour{' is it' * i}?", answers, tuple((k + 1) / 4 for k in range(len(answers))), (), i)
        for i, answers in enumerate(said)
    ]
    return QuestionTable.of(asked, album())


def statements() -> StatementTable:
    stated = [
        Stated(str(i), str(i + 1), f"The left dog is right of {'the cat ' * i}", i % 2 == 0, str(i), "")
        for i in range(5)
    ]
    return StatementTable.of(stated, album())


def dialogues() -> DialogueTable:
    dialogs = [
        Dialog(
            str(i),
            f"a {'red ' * i}box",
            (
                Round("is it red?", "yes", ("no", "yes", "two", "not"), 1),
                Round("how many?", "two" if i else None, ("yes", "two", "no", "two"), 1),
            ),
            i,
        )
        for i in range(3)
    ]
    return DialogueTable.of(dialogs, album())


def made(
    kind: str,
    tokenizer: TextTokenizer,
    size: int = 4,
    seed: int = 3,
    augmentation: AugmentConfig | None = None,
    **settings,
):
    feeding = Feeding(size, seed, 8, augmentation)
    if kind == "questions":
        return QuestionBatches(questions(), tokenizer, feeding, **settings)
    if kind == "statements":
        return StatementBatches(statements(), tokenizer, feeding, **settings)
    return DialogueBatches(dialogues(), tokenizer, feeding, **settings)


KINDS = ("questions", "statements", "dialogues")


def text(tokenizer, ids, mask) -> str:
    return tokenizer.decode(ids[mask.bool()].tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_once_an_epoch_and_another_order_the_next(tokenizer, kind):
    batches = made(kind, tokenizer, size=2)
    rows = batches.order.rows
    shown = [batches[step].pixels.reshape(-1, 2, 3 * 8 * 8)[0, :, 0] for step in range(rows)]
    halves = torch.cat(shown).tolist()
    if kind != "statements":  # those show the pair either way round
        assert sorted(halves[:rows]) == sorted(halves[rows:])
    assert halves[:rows] != halves[rows:]
    assert batches.steps_per_epoch == rows / 2


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_see_the_joint_batch(tokenizer, kind):
    batches = made(kind, tokenizer, augmentation=AugmentConfig(crop_min=0.3))
    for step in range(8):
        batches.rank, batches.world = 0, 1
        joint, parts = batches[step], []
        batches.world = 2
        for batches.rank in range(2):
            parts.append(batches[step])
        for name, whole in vars(joint).items():
            shares = [getattr(part, name) for part in parts]
            if name == "owner":
                shares[1] = shares[1] + 2  # counted within a rank's own rows
            assert torch.equal(whole, torch.cat(shares, dim=int(name == "pixels" and kind == "statements"))), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_hangs_on_its_step_alone(tokenizer, kind):
    batches, again = (made(kind, tokenizer, augmentation=AugmentConfig()) for _ in range(2))
    for step in (5, 0, 9):
        first, sent = again[step], pickle.loads(pickle.dumps(batches))[step]
        assert all(torch.equal(a, b) for a, b in zip(vars(first).values(), vars(sent).values(), strict=True))
    other = made(kind, tokenizer, seed=4)
    assert any(not torch.equal(other[step].pixels, made(kind, tokenizer)[step].pixels) for step in range(3))


@pytest.mark.parametrize("kind", KINDS)
def test_other_data_are_described_otherwise(tokenizer, kind):
    known = made(kind, tokenizer).describe()
    assert known == made(kind, tokenizer, seed=9).describe()
    table = {"questions": questions, "statements": statements, "dialogues": dialogues}[kind]()
    name = "first" if kind == "statements" else "image"
    assert dataclasses.replace(table, **{name: getattr(table, name) + 1}).describe() != known


def test_questions_bring_all_their_answers(tokenizer):
    batches, table = made("questions", tokenizer), questions()
    for step in range(5):
        batch = batches[step]
        for i in range(4):
            row = int((SHADES - batch.pixels[i, 0, 0, 0]).abs().argmin())
            assert text(tokenizer, batch.ids[i], batch.mask[i]) == table.questions[row].lower()
            own = (batch.owner == i).nonzero().flatten().tolist()
            said = [text(tokenizer, batch.answer_ids[k], batch.answer_mask[k]) for k in own]
            assert said == list(table.answers[row])
            assert batch.weight[own].tolist() == list(table.weights[row])


def test_statements_turn_with_their_pictures(tokenizer):
    batches = made("statements", tokenizer)
    turned = Counter()
    for step in range(60):
        batch = batches[step]
        for i in range(4):
            first, second = (int((SHADES - batch.pixels[side, i, 0, 0, 0]).abs().argmin()) for side in (0, 1))
            said = text(tokenizer, batch.ids[i], batch.mask[i])
            assert said.startswith("the left dog is right of" if first < second else "the right dog is left of")
            assert batch.label[i] == (min(first, second) % 2 == 0)
            assert said.count("cat") == min(first, second)
            turned[first > second] += 1
    assert turned[True] == pytest.approx(120, abs=30)
    still = made("statements", tokenizer, swap=False)
    assert all((still[step].pixels[0] < still[step].pixels[1]).all() for step in range(10))


def test_a_statement_about_one_picture_never_turns(tokenizer):
    table = statements()
    alone = dataclasses.replace(table, second=table.first)
    for step in range(6):
        straight, drawn = (
            StatementBatches(alone, tokenizer, Feeding(4, 0, 8), swap=swap)[step] for swap in (False, True)
        )
        assert torch.equal(straight.ids, drawn.ids)


def test_both_pictures_of_a_statement_have_views_of_their_own(tokenizer):
    table = statements()
    noise = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), np.uint8)
    twice = np.zeros(5, np.int64)
    same = StatementTable(noise, twice, twice, table.sentences, table.labels)
    first, second = StatementBatches(same, tokenizer, Feeding(4, 0, 8, AugmentConfig(crop_min=0.2)))[0].pixels
    assert (first != second).flatten(1).any(dim=1).all()


def test_dialogues_draw_wrong_options_anew(tokenizer):
    batches, table = made("dialogues", tokenizer, wrong=2), dialogues()
    assert len(table) == 6 and table.said[1] == ("is it red?", "yes", "how many?")
    drawn = Counter()
    for step in range(30):
        batch = batches[step]
        assert batch.label.tolist() == [1, 0, 0] * 4 and batch.owner.tolist() == [i for i in range(4) for _ in range(3)]
        for i in range(4):
            shade = int((SHADES - batch.pixels[i, 0, 0, 0]).abs().argmin())
            assert text(tokenizer, batch.caption_ids[i], batch.caption_mask[i]).count("red") == shade
            right, *wrong = (text(tokenizer, batch.ids[k], batch.mask[k]) for k in range(3 * i, 3 * i + 3))
            if "how many" in right:
                assert right.startswith("is it red? yes how many?") and right.endswith(" two")
                assert sorted(w.rpartition(" ")[2] for w in wrong) == ["no", "yes"]  # a second "two" is not wrong
            else:
                assert right == "is it red? yes"
                drawn.update(w.rpartition(" ")[2] for w in wrong)
    assert set(drawn) == {"no", "two", "not"}


def test_long_dialogues_lose_their_beginning(tokenizer):
    whole, cut = made("dialogues", tokenizer)[0], made("dialogues", tokenizer, max_length=10)[0]
    assert whole.ids.shape[1] > 10 and cut.ids.shape[1] <= 10
    assert any("how many? two" in text(tokenizer, *row) for row in zip(cut.ids, cut.mask, strict=True))


def test_rows_that_cannot_be_learned_from_are_counted():
    asked = [Asked(str(i), "what?", ("yes",) if i else (), (1.0,) if i else (), (), i) for i in range(4)]
    with pytest.warns(UserWarning, match="2 of 4 rows left out"):
        table = QuestionTable.of(asked, album(lost=("2",)))
    assert table.image.tolist() == [1, 3]
    stated = [Stated("1", None, "it is red", label, "", "") for label in (None, True)]
    with pytest.warns(UserWarning, match="1 of 2 rows"):
        alone = StatementTable.of(stated, album())
    assert (alone.first.tolist(), alone.second.tolist(), alone.labels.tolist()) == ([1], [1], [True])
    with pytest.raises(DataError, match="none of 1 rows can be learned from"):
        StatementTable.of(stated[:1], album())
    with pytest.raises(DataError, match="none of 2 rows"):
        DialogueTable.of([Dialog("9", "a box", (Round("is it?", "yes", ("yes",), 0),) * 2, 1)], album())
