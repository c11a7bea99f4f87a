"""Decoding over a made-up language, against every text there is; leaving the batch, several texts an image."""

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from capfilt.blocks.med import Med, MedConfig
from capfilt.config import from_dict, to_dict
from capfilt.errors import ConfigError
from capfilt.predict.decode import BEAM, LOOKS, NUCLEUS, Constraints, Decoding, Said, Speech, decode
from capfilt.predict.predictor import BlipSpeech

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


def holds(text: tuple[int, ...], words: tuple[int, ...]) -> bool:
    return any(text[i : i + len(words)] == words for i in range(len(text)))


Texts = tuple[float, tuple[int, ...]]


class Naive:
    """The same rules in plain Python, one image and one text at a time."""

    def __init__(self, decoding: Decoding, words: Constraints, image: int, images: int, seed: int):
        self.decoding, self.words, self.image, self.babble = decoding, words, image, Babble(images, seed)
        self.room, self.least = decoding.room(2), decoding.least(2)

    def next(self, said: tuple[int, ...], malus: Counter | None = None) -> dict[int, float]:
        """What may be said behind `said`, and its score: a log-probability for beams, else a logit."""
        full, decoding = (START, START, *said), self.decoding
        logits = self.babble.logits(self.image, full)
        scores = (logits.log_softmax(-1) if decoding.method == "beam" else logits).tolist()
        for word, times in (malus or {}).items():
            scores[word] -= decoding.diversity * times
        for word in set(full):
            scores[word] *= (1 / decoding.repetition_penalty) if scores[word] > 0 else decoding.repetition_penalty
        size = decoding.no_repeat
        barred = {w for w in range(WORDS) if size and holds(full, (*full, w)[len(full) + 1 - size :])}
        barred |= {b[-1] for b in self.words.banned if (*said, b[-1])[-len(b) :] == b}
        barred |= {END} if len(said) < self.least else set()
        left = {w: scores[w] for w in range(WORDS) if w not in barred}
        return left or {END: scores[END]}

    def rank(self, score: float, text: tuple[int, ...]) -> float:
        official = 2 + len(text) - (text[-1] == END)
        return score / (official if self.decoding.length_rule == "official" else len(text))

    def every(self, score: float = 0.0, said: tuple[int, ...] = ()) -> Iterator[Texts]:
        """(rank, text) of all texts that keep the rules."""
        for word, more in self.next(said).items():
            text = (*said, word)
            if word != END and len(text) < self.room:
                yield from self.every(score + more, text)
            elif all(holds(text, words) for words in self.words.required):
                yield self.rank(score + more, text), text

    def groups(self) -> list[Texts]:
        """Diverse beam search, group by group within each step."""
        size = self.decoding.beams // self.decoding.groups
        live: list[list[Texts]] = [[(0.0, ())] for _ in range(self.decoding.groups)]
        found: list[list[Texts]] = [[] for _ in live]
        done = [False] * len(live)
        for step in range(self.room):
            malus: Counter = Counter()
            for g in range(len(live)):
                if done[g]:
                    continue
                grown = [(s + more, (*t, w)) for s, t in live[g] for w, more in self.next(t, malus).items()]
                grown = sorted(grown, reverse=True)[: 2 * size]
                ends = [text for text in grown[:size] if text[1][-1] == END]
                found[g] = sorted([*found[g], *((self.rank(*t), t[1]) for t in ends)], reverse=True)[:size]
                live[g] = [text for text in grown if text[1][-1] != END][:size]
                reach = grown[0][0] / (2 + step)
                if self.decoding.length_rule == "hf":
                    reach = live[g][0][0] / (step + 1)
                done[g] = len(found[g]) == size and found[g][-1][0] >= reach
                if not done[g]:
                    malus.update(text[-1] for _, text in live[g])
        for g in range(len(live)):
            if not done[g]:
                found[g] = sorted([*found[g], *((self.rank(*t), t[1]) for t in live[g])], reverse=True)[:size]
        texts = [t for place in itertools.zip_longest(*found) for t in sorted(filter(None, place), reverse=True)]
        return [text for i, text in enumerate(texts) if text[1] not in [other for _, other in texts[:i]]]


RULED = {  # how, and the words: 0, 2, 3 are words, 4 starts every text
    "plain": ({"min_length": 0}, Constraints()),
    "no end early": ({"min_length": 5}, Constraints()),
    "penalty": ({"min_length": 4, "repetition_penalty": 1.6}, Constraints()),
    "no word twice": ({"no_repeat": 1}, Constraints()),
    "no pair twice": ({"no_repeat": 2}, Constraints()),
    "a word banned": ({}, Constraints(banned=((2,),))),
    "phrases banned": ({}, Constraints(banned=((2, 3), (3, 3), (0, 4, 0), (4,)))),
    "all banned": ({"min_length": 5}, Constraints(banned=((0,), (2, 2), (2, 3), (3,), (4,)))),
    "a word required": ({}, Constraints(required=((3,),))),
    "words required": ({}, Constraints(required=((3,), (0,)))),
    "a phrase required": ({"min_length": 3}, Constraints(required=((2, 2, 3),))),
    "phrases that share": ({}, Constraints(required=((2, 3), (3, 0)))),
    "phrases that begin alike": ({"max_length": 6}, Constraints(required=((2, 3), (2, 0)))),
    "all together": ({"no_repeat": 2, "repetition_penalty": 1.3}, Constraints(((0, 3), (4,)), ((3,), (2, 0)))),
}


@pytest.mark.parametrize("rule", ["official", "hf"])
@pytest.mark.parametrize("name", RULED)
def test_a_beam_wider_than_the_language_is_exhaustive_search(name: str, rule: str):
    how, words = RULED[name]
    settings = {"method": "beam", "beams": 400, "max_length": 6, "min_length": 4, "repetition_penalty": 1.0}
    decoding = from_dict(Decoding, {**settings, "length_rule": rule, **how})
    found = decode(Babble(2, seed=5), start(2), decoding, END, PAD, words=words)
    for image, texts in enumerate(found):
        every = sorted(Naive(decoding, words, image, 2, seed=5).every(), reverse=True)
        assert 0 < len(texts) == len(every)
        assert [t.ids for t in texts[:20]] == [ids for _, ids in every[:20]]
        assert {t.ids for t in texts} == {ids for _, ids in every}
        assert [t.rank for t in texts] == pytest.approx([rank for rank, _ in every], abs=1e-5)


@pytest.mark.parametrize("rule", ["official", "hf"])
@pytest.mark.parametrize(("beams", "groups"), [(1, 1), (3, 1), (2, 2), (4, 4), (6, 3)])
def test_groups_are_searches_that_avoid_what_the_earlier_ones_say(beams: int, groups: int, rule: str):
    how = {"beams": beams, "groups": groups, "diversity": 0.7, "length_rule": rule, "repetition_penalty": 1.2}
    decoding = dataclasses.replace(BEAM, max_length=9, min_length=3, no_repeat=3, **how)
    sizes = set()
    for seed in range(6):
        found = run(decoding, images=5, seed=seed)
        for image, texts in enumerate(found):
            want = Naive(decoding, Constraints(), image, 5, seed).groups()
            assert [t.ids for t in texts] == [ids for _, ids in want]
            assert [t.rank for t in texts] == pytest.approx([rank for rank, _ in want], abs=1e-5)
            sizes.add(len(texts))
    assert max(sizes) == beams and (groups == 1 or min(sizes) < beams)  # a text found by two groups comes once


def test_one_group_is_plain_beam_search_and_many_are_diverse():
    plain = run(dataclasses.replace(BEAM, beams=4), images=12)
    assert run(dataclasses.replace(BEAM, beams=4, groups=1, diversity=9.0), images=12) == plain
    spread = run(dataclasses.replace(BEAM, beams=4, groups=4, diversity=9.0), images=12)
    for texts in spread:
        assert len({text.ids[0] for text in texts}) == len(texts) == 4  # four words may begin a text: each begins one
    assert any(len({text.ids[0] for text in texts}) < 4 for texts in plain)


@pytest.mark.parametrize("beams", [1, 2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_every_text_holds_what_is_required_however_narrow_the_beam(beams: int, seed: int):
    for required in (((3,),), ((2, 0), (3,)), ((2, 3), (3, 0)), ((2, 3), (2, 0), (0, 0))):
        words = Constraints(required=required)
        for most in (7, 10):  # (2, 3), (2, 0), (0, 0) take 5 ids behind a start of 2: no id to spare
            decoding = dataclasses.replace(BEAM, beams=beams, max_length=most, min_length=0)
            found = decode(Babble(4, seed, ends=2.0), start(4), decoding, END, PAD, words=words)
            for texts in found:
                assert texts and all(holds(text.ids, ids) for text in texts for ids in required)


@pytest.mark.parametrize("name", [name for name in RULED if "required" not in name and not RULED[name][1].required])
def test_greedy_takes_the_likeliest_word_that_the_rules_leave(name: str):
    how, words = RULED[name]
    decoding = from_dict(Decoding, {"method": "greedy", "max_length": 12, "repetition_penalty": 1.0, **how})
    found = decode(Babble(8, seed=2), start(8), decoding, END, PAD, words=words)
    for image, texts in enumerate(found):
        naive, want = Naive(decoding, words, image, 8, seed=2), ()
        while END not in want and len(want) < naive.room:
            scores = naive.next(want)
            want = (*want, max(scores, key=scores.__getitem__))
        assert [text.ids for text in texts] == [want]


def shares(naive: Naive) -> dict[tuple[int, ...], float]:
    """The probability of every text under the filters of nucleus sampling."""
    out: dict[tuple[int, ...], float] = {}
    todo = [(1.0, ())]
    for share, said in todo:  # grows on the way
        scores = {w: math.exp(s / naive.decoding.temperature) for w, s in naive.next(said).items()}
        words = sorted(scores, key=scores.__getitem__, reverse=True)[: naive.decoding.top_k or None]
        total, kept = sum(scores[w] for w in words), []
        for word in words:
            if sum(scores[w] for w in kept) / total <= naive.decoding.top_p:
                kept.append(word)
        for word in kept:
            more = share * scores[word] / sum(scores[w] for w in kept)
            if word == END or len(said) + 1 == naive.room:
                out[(*said, word)] = more
            else:
                todo.append((more, (*said, word)))
    return out


@pytest.mark.parametrize("name", ["plain", "penalty", "no word twice", "phrases banned", "all banned"])
def test_nucleus_draws_texts_as_often_as_the_filters_say(name: str):
    how, words = RULED[name]
    settings = {"method": "nucleus", "max_length": 5, "top_k": 4, "top_p": 0.85, "temperature": 1.5, **how}
    decoding, times = from_dict(Decoding, {"min_length": 4, "repetition_penalty": 1.0, **settings}), 3000
    found = decode(Babble(2, seed=1), start(2), decoding, END, PAD, numbers(2 * times, 3), words)
    for image, texts in enumerate(found):
        want = shares(Naive(decoding, words, image, 2, seed=1))
        got = Counter(text.ids for text in texts)
        assert sum(want.values()) == pytest.approx(1) and set(got) <= set(want)
        for ids, share in want.items():  # five standard deviations
            assert abs(got[ids] / times - share) <= 5 * math.sqrt(share * (1 - share) / times) + 1e-9, ids


@pytest.mark.parametrize("seed", range(4))
def test_greedy_is_a_beam_of_one(seed: int):
    greedy = run(Decoding(method="greedy", repetition_penalty=1.0, max_length=12, min_length=3), seed=seed)
    beam = run(dataclasses.replace(BEAM, beams=1, max_length=12, min_length=3), seed=seed)
    assert [t[0].ids for t in greedy] == [t[0].ids for t in beam]
    assert [t[0].score for t in greedy] == pytest.approx([t[0].score for t in beam], abs=1e-5)


COMPANY = {
    "greedy": ({"method": "greedy"}, Constraints()),
    "greedy, ruled": ({"method": "greedy", "no_repeat": 2}, Constraints(banned=((2, 3), (0,)))),
    "nucleus": ({"method": "nucleus"}, Constraints()),
    "nucleus, ruled": ({"method": "nucleus", "no_repeat": 3}, Constraints(banned=((2, 2), (3, 0)))),
    "beam": ({}, Constraints()),
    "beam, hf": ({"length_rule": "hf"}, Constraints()),
    "beam, ruled": ({"no_repeat": 2}, Constraints(banned=((2, 3),))),
    "beam, required": ({"no_repeat": 3}, Constraints(banned=((2, 2),), required=((3,), (0, 2)))),
    "groups": ({"beams": 4, "groups": 2}, Constraints()),
    "groups, required": ({"beams": 4, "groups": 2, "length_rule": "hf"}, Constraints(required=((0, 3),))),
}


@pytest.mark.parametrize("name", COMPANY)
def test_company_changes_no_answer(name: str):
    """The same images alone, in pairs, shuffled and together, where some end early."""
    how, words = COMPANY[name]
    decoding = from_dict(
        Decoding, {"method": "beam", "max_length": 30, "min_length": 3, "repetition_penalty": 1.2, **how}
    )
    uniforms = numbers(3 * 8, 28).view(3, 8, 28)  # three texts an image

    def texts_of(images: list[int]) -> list[list[Said]]:
        babble = Babble(len(images), ends=0.5)
        babble.images = list(images)
        drawn = uniforms[:, images].flatten(0, 1) if decoding.method == "nucleus" else None
        return decode(babble, start(len(images)), decoding, END, PAD, drawn, words)

    together = texts_of(list(range(8)))
    assert all(together)
    for company in ([[i] for i in range(8)], [[0, 5], [7, 1], [2, 3], [6, 4]], [[3, 7, 0, 6, 1, 5, 2, 4]]):
        apart = {image: texts for images in company for image, texts in zip(images, texts_of(images), strict=True)}
        assert [apart[image] for image in range(8)] == together  # ids, log-probabilities and ranks, to the bit
    assert len({len(texts[0].ids) for texts in together}) > 1  # some end early


@pytest.mark.parametrize("method", ["greedy", "nucleus", "beam"])
def test_leaving_the_batch_saves_work(method: str):
    decoding = Decoding(method=method, max_length=22, min_length=3, repetition_penalty=1.2)
    uniforms = numbers(8, 20) if method == "nucleus" else None
    babble = Babble(8, ends=1.0)
    together = decode(babble, start(8), decoding, END, PAD, uniforms)
    assert len({len(texts[0].ids) for texts in together}) > 2  # ends are spread, so rows did leave
    steps = max(len(texts[0].ids) for texts in together)
    assert babble.rows < 8 * steps * (decoding.beams if method == "beam" else 1)


def written(name: str, speech: Speech, images: int) -> list[list[Said]]:
    how, words = COMPANY[name]
    decoding = from_dict(
        Decoding, {"method": "beam", "max_length": 30, "min_length": 3, "repetition_penalty": 1.2, **how}
    )
    uniforms = numbers(2 * images, 28) if decoding.method == "nucleus" else None
    return decode(speech, start(images), decoding, END, PAD, uniforms, words)


@pytest.mark.parametrize("every", [3, 100])
@pytest.mark.parametrize("name", COMPANY)
def test_looking_seldom_changes_no_answer(name: str, every: int, monkeypatch: pytest.MonkeyPatch):
    want = written(name, Babble(8, ends=0.5), 8)
    monkeypatch.setitem(LOOKS, "cpu", every)
    assert written(name, Babble(8, ends=0.5), 8) == want


class Waits(TorchDispatchMode):
    """Counts what makes the host wait for a device: numbers read out, and shapes that hang on what is in a tensor."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.__name__.split(".")[0] in ("_local_scalar_dense", "nonzero", "masked_select", "unique2")
        masks = func.__name__ == "index.Tensor" and any(i is not None and i.dtype == torch.bool for i in args[1])
        self.count += bool(masks)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", COMPANY)
def test_between_looks_nothing_waits_for_the_device(name: str, monkeypatch: pytest.MonkeyPatch):
    """Ten steps more must not read one number more: what is counted happens once, before and after."""
    monkeypatch.setitem(LOOKS, "cpu", 100)
    text = Med(MedConfig(WORDS, 8, 2, 2, 16, 40, dropout=0.0), 6, frozenset({"speak"})).eval()
    how, words = COMPANY[name]
    counts = []
    for most in (12, 22):
        settings = {"method": "beam", "max_length": most, "min_length": most, "repetition_penalty": 1.2, **how}
        decoding = from_dict(Decoding, settings)
        uniforms = numbers(4, 28) if decoding.method == "nucleus" else None
        with torch.inference_mode(), Waits() as waits:
            speech = BlipSpeech(text, text.project(torch.randn(4, 5, 6)))
            decode(speech, start(4), decoding, END, PAD, uniforms, words)
        counts.append(waits.count)
    assert counts[0] == counts[1]


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
        ({"no_repeat": -1}, "no_repeat=-1"),
        ({"banned": ["cat", " "]}, "banned=.'cat', ' '.*none of them empty"),
        ({"method": "beam", "required": ["a"] * 9}, "required=.*at most 8"),
        ({"required": ["cat"]}, "required=.'cat',.*method='beam'"),
        ({"groups": 0}, "groups=0"),
        ({"beams": 3, "groups": 2}, "groups=2.*beams=3"),
        ({"diversity": -0.5}, "diversity=-0.5"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_their_value(change: dict, word: str):
    with pytest.raises(ConfigError, match=word):
        from_dict(Decoding, change)


def test_no_room_behind_the_start_is_an_error():
    with pytest.raises(ConfigError, match="max_length=2"):
        run(Decoding(method="greedy", max_length=2, min_length=0))


def test_a_word_in_place_of_a_list_of_words_is_an_error():
    decoding = Decoding()
    object.__setattr__(decoding, "banned", "cat")  # where no test checks types, the constructor lets it pass
    with pytest.raises(ConfigError, match="banned=cat, but a list"):
        decoding.__post_init__()


def test_settings_with_words_survive_json():
    decoding = dataclasses.replace(BEAM, banned=("a dog",), required=("cat", "mat"), beams=4, groups=2, no_repeat=3)
    assert from_dict(Decoding, to_dict(decoding)) == decoding


def test_words_without_their_ids_are_an_error():
    for decoding in (Decoding(method="greedy", banned=("cat",)), dataclasses.replace(BEAM, required=("cat",))):
        with pytest.raises(ConfigError, match=r"words=constraints\(decoding, tokenizer\)"):
            run(decoding)


def test_required_words_need_a_search_and_room():
    words = Constraints(required=((2, 3), (0, 2)))  # 0 2 3
    for method in ("greedy", "nucleus"):
        with pytest.raises(ConfigError, match=f"method='{method}' cannot require"):
            decode(Babble(1), start(1), Decoding(method=method), END, PAD, numbers(1, 18), words)
    decoding = dataclasses.replace(BEAM, min_length=0, max_length=5)
    assert {t.ids for t in decode(Babble(1), start(1), decoding, END, PAD, words=words)[0]} == {(0, 2, 3)}
    with pytest.raises(ConfigError, match="take 3 ids, but max_length=4 leaves 2"):
        decode(Babble(1), start(1), dataclasses.replace(decoding, max_length=4), END, PAD, words=words)


def test_no_text_where_the_rules_leave_none():
    words = Constraints(required=((2, 3), (2, 0)))
    decoding = dataclasses.replace(BEAM, no_repeat=1)  # the second 2 may not come
    assert decode(Babble(3), start(3), decoding, END, PAD, words=words) == [[], [], []]


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
