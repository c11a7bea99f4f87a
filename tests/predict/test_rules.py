"""Words as ids, and how far a text has come with those it must hold, against a search through all texts."""

import dataclasses
import itertools
import math
from collections.abc import Iterator

import pytest
import torch

from capfilt.errors import ConfigError
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.predict.decode import BEAM, NUCLEUS, Constraints, constraints
from capfilt.predict.rules import Allowed, Progress

WORDS, END = 5, 1
CPU = torch.device("cpu")
REQUIRED = [
    ((3,),),
    ((3,), (0,), (2,)),
    ((2, 2, 3),),
    ((2, 3), (3, 0)),
    ((2, 3), (2, 0)),
    ((3,), (2, 3)),  # one lies in the other
    ((2, 2), (2, 2)),
    ((0, 2, 0, 3), (2, 0)),
]


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.train(["a red cube", "a small blue ball on a green box", "two cones, a box"], 96)


def holds(text: tuple[int, ...], words: tuple[int, ...]) -> bool:
    return any(text[i : i + len(words)] == words for i in range(len(text)))


def bodies(most: int) -> Iterator[tuple[int, ...]]:
    """All texts of at most so many ids, no end among them, shortest first."""
    for length in range(most + 1):
        yield from itertools.product([w for w in range(WORDS) if w != END], repeat=length)


def state_of(progress: Progress, text: tuple[int, ...]) -> torch.Tensor:
    state = torch.zeros(1, 1, dtype=torch.long)
    for word in text:
        state = progress.after(state, torch.tensor([[word]]))
    return state


@pytest.mark.parametrize("required", REQUIRED)
def test_needs_are_the_fewest_ids_to_all_words(required):
    progress = Progress(required, CPU)

    def fewest(text: tuple[int, ...]) -> int:
        return next(len(more) for more in bodies(6) if all(holds((*text, *more), words) for words in required))

    assert progress.most == fewest(())
    for text in bodies(3):
        assert progress.needs[state_of(progress, text)].item() == fewest(text), text


@pytest.mark.parametrize("required", REQUIRED)
def test_needs_after_are_those_of_the_states_that_words_lead_to(required):
    progress = Progress(required, CPU)
    texts = [text for text in bodies(4) if len(text) == 4][::3]
    states = torch.cat([state_of(progress, text) for text in texts], dim=1)
    found = progress.needs_after(states, WORDS, END)[0].tolist()
    for text, needs in zip(texts, found, strict=True):
        for word in (0, 2, 3, 4):
            assert needs[word] == progress.needs[state_of(progress, (*text, word))].item()
        assert needs[END] == (0 if all(holds(text, words) for words in required) else progress.most + 1)


def test_words_become_ids_and_phrases_stay_together(tokenizer: TextTokenizer):
    decoding = dataclasses.replace(BEAM, banned=("cube", "Red BALL"), required=("green box",))
    rows = tokenizer.encode(["red", "ball", "cube", "green", "box"])
    red, ball, cube, green, box = (row[1:-1].tolist() for row in rows)
    assert constraints(decoding, tokenizer) == Constraints((tuple(cube), (*red, *ball)), ((*green, *box),))
    assert constraints(NUCLEUS, tokenizer) == Constraints()


@pytest.mark.parametrize("word", ["a 猫", "[SEP]", "\u200b"])
def test_a_word_that_cannot_be_spelled_is_an_error(tokenizer: TextTokenizer, word: str):
    for name in ("banned", "required"):
        with pytest.raises(ConfigError, match="cannot spell"):
            constraints(dataclasses.replace(BEAM, **{name: ("cube", word)}), tokenizer)


def test_a_required_word_that_holds_a_banned_one_is_an_error(tokenizer: TextTokenizer):
    with pytest.raises(ConfigError, match="required 'a red box' holds the banned 'red box'"):
        constraints(dataclasses.replace(BEAM, banned=("blue", "red box"), required=("cone", "a red box")), tokenizer)
    assert constraints(dataclasses.replace(BEAM, banned=("a red box",), required=("red box",)), tokenizer)


def test_what_is_allowed_comes_in_the_originals_order():
    """The penalty moves scores before words are barred; the start counts for both, but not for banned phrases."""
    decoding = dataclasses.replace(NUCLEUS, repetition_penalty=2.0, no_repeat=2, min_length=6)
    allowed = Allowed(decoding, ((0, 3), (4, 2)), 2, END, CPU)
    scores = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]])
    found = allowed(scores, torch.tensor([[4, 0, 4]]))[0].tolist()  # 4 0 is the start
    assert found == [-math.inf, -math.inf, -math.inf, 4.0, 2.5]  # 4 0 again; too early; 4 2 banned; -; seen
    found = allowed(scores, torch.tensor([[4, 0]]))[0].tolist()
    assert found == [0.5, -math.inf, 3.0, 4.0, 2.5]  # 0 3 is not banned where the start said the 0
    assert allowed(scores, torch.tensor([[4, 0, 4, 4, 3, 2]]))[0].tolist() == [0.5, 2.0, 1.5, 2.0, 2.5]
    assert scores.tolist() == [[1.0, 2.0, 3.0, 4.0, 5.0]]  # the model's own stay as they are


def test_where_nothing_is_left_to_say_the_text_may_end():
    decoding = dataclasses.replace(NUCLEUS, min_length=9, repetition_penalty=2.0)
    allowed = Allowed(decoding, ((0,), (2,), (3, 3), (4,)), 1, END, CPU)
    scores = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]] * 2)
    found = allowed(scores, torch.tensor([[4, 3], [3, 4]]))
    assert found.tolist() == [[-math.inf, 2.0, -math.inf, -math.inf, -math.inf], [-math.inf] * 3 + [2.0, -math.inf]]
