"""Decoding over a made-up language: exhaustive search, leaving the batch, several texts an image."""

import dataclasses
import itertools
import math

import pytest
import torch
from torch import Tensor

from capfilt.config import from_dict, to_dict
from capfilt.errors import ConfigError
from capfilt.predict.decode import BEAM, NUCLEUS, Decoding, Said, decode

WORDS, PAD, END, START = 5, 0, 1, 4


class Babble:
    """Logits that hang on the image and on every word said: a fixed random table, looked up by a hash of the prefix."""

    def __init__(self, images: int, seed: int = 0, ends: float = 0.0):
        self.table = torch.randn(997, WORDS, generator=torch.Generator().manual_seed(seed)) * 2
        self.table[:, END] += ends
        self.images = list(range(images))
        self.said: list[tuple[int, ...]] = [()] * images
        self.rows = 0

    def hear(self, ids: Tensor) -> Tensor:
        assert len(ids) == len(self.said)
        self.rows += len(ids)
        self.said = [(*old, *new) for old, new in zip(self.said, ids.tolist(), strict=True)]
        return torch.stack([self.logits(self.images[i % len(self.images)], said) for i, said in enumerate(self.said)])

    def logits(self, image: int, said: tuple[int, ...]) -> Tensor:
        place = 17 * image + 1
        for word in said:
            place = (place * 31 + word + 7) % 997
        return self.table[place]

    def follow(self, rows: Tensor) -> None:
        assert all(new % len(self.images) == old % len(self.images) for new, old in enumerate(rows.tolist()))
        self.said = [self.said[i] for i in rows.tolist()]

    def keep(self, images: Tensor) -> None:
        before, kept = len(self.images), images.tolist()
        self.said = [self.said[t * before + i] for t in range(len(self.said) // before) for i in kept]
        self.images = [self.images[i] for i in kept]

    def logp(self, image: int, start: tuple[int, ...], ids: tuple[int, ...]) -> list[float]:
        return [self.logits(image, (*start, *ids[:i])).log_softmax(-1)[word].item() for i, word in enumerate(ids)]


def start(images: int) -> Tensor:
    return torch.full((images, 2), START)


def run(decoding: Decoding, images: int = 6, uniforms: Tensor | None = None, **how) -> list[list[Said]]:
    return decode(Babble(images, **how), start(images), decoding, END, PAD, uniforms)


def numbers(rows: int, steps: int, seed: int = 3) -> Tensor:
    return torch.rand(rows, steps, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("rule", ["official", "hf"])
def test_a_beam_wider_than_the_language_is_exhaustive_search(rule: str):
    decoding = from_dict(
        Decoding, {**to_dict(BEAM), "beams": 400, "max_length": 6, "min_length": 4, "length_rule": rule}
    )
    found = run(decoding, images=2, seed=5)
    for image, texts in enumerate(found):
        babble, every = Babble(2, seed=5), []
        others = [w for w in range(WORDS) if w != END]
        for length in range(5):
            for body in itertools.product(others, repeat=length):
                ids = body if length == 4 else (*body, END)  # four may be written; the end fits behind two or three
                if length in (2, 3, 4):
                    count = len(body) + 2 if rule == "official" else len(ids)
                    every.append((sum(babble.logp(image, (START, START), ids)) / count, ids))
        every.sort(reverse=True)
        assert len(texts) == len(every) == 16 + 64 + 256
        assert [t.ids for t in texts[:20]] == [ids for _, ids in every[:20]]
        assert [t.rank for t in texts] == pytest.approx([rank for rank, _ in every], abs=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_greedy_is_a_beam_of_one(seed: int):
    greedy = run(Decoding(method="greedy", repetition_penalty=1.0, max_length=12, min_length=3), seed=seed)
    beam = run(dataclasses.replace(BEAM, beams=1, max_length=12, min_length=3), seed=seed)
    assert [t[0].ids for t in greedy] == [t[0].ids for t in beam]
    assert [t[0].score for t in greedy] == pytest.approx([t[0].score for t in beam], abs=1e-5)


@pytest.mark.parametrize("method", ["greedy", "nucleus", "beam"])
def test_leaving_the_batch_changes_no_answer_and_saves_work(method: str):
    decoding = Decoding(method=method, max_length=22, min_length=3, repetition_penalty=1.2)
    uniforms = numbers(8, 20) if method == "nucleus" else None
    babble = Babble(8, ends=1.0)
    together = decode(babble, start(8), decoding, END, PAD, uniforms)
    alone = []
    for image in range(8):
        one = Babble(1, ends=1.0)
        one.images = [image]
        mine = None if uniforms is None else uniforms[image : image + 1]
        alone += decode(one, start(1), decoding, END, PAD, mine)
    assert [[t.ids for t in texts] for texts in together] == [[t.ids for t in texts] for texts in alone]
    assert len({len(texts[0].ids) for texts in together}) > 2  # ends are spread, so rows did leave
    steps = max(len(texts[0].ids) for texts in together)
    assert babble.rows < 8 * steps * (decoding.beams if method == "beam" else 1)


@pytest.mark.parametrize("method", ["greedy", "nucleus", "beam"])
def test_logps_are_the_models_own_whatever_penalties_and_filters_do(method: str):
    decoding = Decoding(method=method, max_length=9, min_length=4, repetition_penalty=1.7, top_p=0.7)
    found = run(decoding, images=4, uniforms=numbers(4, 7))
    for image, texts in enumerate(found):
        for text in texts:
            own = Babble(4).logp(image, (START, START), text.ids)
            assert list(text.logps) == pytest.approx(own, abs=1e-5)
            assert text.score == pytest.approx(sum(own) / len(own), abs=1e-5)
    assert any(t.rank != pytest.approx(t.score) for texts in found for t in texts) == (method == "beam")


def test_several_texts_an_image_are_what_each_would_be_alone():
    uniforms = numbers(9, 10)
    together = run(dataclasses.replace(NUCLEUS, max_length=12), images=3, uniforms=uniforms)
    assert [len(texts) for texts in together] == [3, 3, 3]
    for t in range(3):
        alone = run(dataclasses.replace(NUCLEUS, max_length=12), images=3, uniforms=uniforms[3 * t : 3 * t + 3])
        assert [texts[t].ids for texts in together] == [texts[0].ids for texts in alone]


@pytest.mark.parametrize("method", ["greedy", "nucleus", "beam"])
@pytest.mark.parametrize(("count_prompt", "least", "most"), [(True, 4, 6), (False, 6, 8)])
def test_lengths_count_the_start_or_not(method: str, count_prompt: bool, least: int, most: int):
    decoding = Decoding(method, max_length=8, min_length=6, count_prompt=count_prompt)
    found = run(decoding, images=16, uniforms=numbers(16, 8), ends=2.0)
    lengths = [len(text.ids) for texts in found for text in texts]
    # least ids are written before the end may come
    assert min(lengths) == least + 1 and max(lengths) == most
    assert all((text.ids[-1] == END) or len(text.ids) == most for texts in found for text in texts)


def test_the_end_is_written_once_and_last():
    found = run(dataclasses.replace(BEAM, min_length=0, max_length=10), images=10, ends=1.0)
    assert all(END not in text.ids[:-1] for texts in found for text in texts)
    assert all(texts == sorted(texts, key=lambda t: -t.rank) for texts in found)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"top_k": -1}, "top_k=-1"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty=0.0"),
        ({"beams": 0}, "beams=0"),
        ({"min_length": 30}, "min_length=30"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_their_value(change: dict, word: str):
    with pytest.raises(ConfigError, match=word):
        from_dict(Decoding, change)


def test_no_room_behind_the_start_is_an_error():
    with pytest.raises(ConfigError, match="max_length=2"):
        run(Decoding(method="greedy", max_length=2, min_length=0))


def test_nucleus_without_its_numbers_is_an_error():
    for uniforms in (None, numbers(5, 18), numbers(6, 17)):
        with pytest.raises(ConfigError, match="uniforms"):
            run(NUCLEUS, images=6, uniforms=uniforms)


def test_an_image_with_nowhere_to_go_stops():
    """All words but the end impossible: one text, and no row is made up to fill the beam."""

    class Mute(Babble):
        def logits(self, image: int, said: tuple[int, ...]) -> Tensor:
            return torch.full((WORDS,), -math.inf).index_fill(0, torch.tensor([END]), 0.0)

    found = decode(Mute(2), start(2), dataclasses.replace(BEAM, min_length=0), END, PAD)
    assert [[t.ids for t in texts] for texts in found] == [[(END,)], [(END,)]]
