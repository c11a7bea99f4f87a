"""Writing in few slots says what writing all at once says, in fewer rows."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from capfilt.blocks.med import Med, MedConfig
from capfilt.predict.decode import BEAM, LOOKS, Decoding, Said, decode
from capfilt.predict.predictor import BlipSpeech
from capfilt.predict.stream import BlipRelay, stream, streams

WORDS, PAD, END, IMAGES = 40, 0, 1, 11
DECODINGS = {
    "greedy": Decoding("greedy", max_length=24, min_length=4, repetition_penalty=1.3),
    "nucleus": Decoding(max_length=24, min_length=6, top_k=9, temperature=1.4),
    "to the last id": Decoding(max_length=9, min_length=9),
    "at once": Decoding(max_length=4, min_length=0, top_k=0, top_p=1.0),
}


def a_text() -> Med:
    """Two layers with weights so large that mixed-up rows show, and an end that comes early or late."""
    text = Med(MedConfig(WORDS, 16, 2, 2, 32, 40, dropout=0.0), 12, frozenset({"speak"})).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in text.parameters():
            p.normal_(0, 0.3, generator=generator)
        assert text.head is not None
        text.head.bias[END] += 3
    return text


class Counted(BlipRelay):
    """Counts the rows it hears."""

    rows = 0

    def hear(self, ids: Tensor) -> Tensor:
        self.rows += len(ids)
        return super().hear(ids)


def both(name: str, prompt: int, slots: int, queries: int = 1, group: int = 2) -> tuple[list[Said], list[Said], int]:
    """What `decode` writes, what `stream` writes, and the rows that the latter took."""
    text, decoding = a_text(), DECODINGS[name]
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(IMAGES, 9, 12, generator=generator)
    start, room = torch.arange(4, 4 + prompt), decoding.room(prompt)
    uniforms = torch.rand(IMAGES, room, dtype=torch.float64, generator=generator)
    drawn = None if decoding.method == "greedy" else uniforms
    with torch.inference_mode():
        speech = BlipSpeech(text, text.seen(image, queries))
        plain = decode(speech, start.repeat(IMAGES, 1), decoding, END, PAD, drawn)
        relay = Counted(text, iter(image.split(group)), slots, prompt + room - 1, queries, WORDS)
        return [one for (one,) in plain], stream(relay, start, IMAGES, slots, decoding, END, drawn), relay.rows


def agree(plain: list[Said], streamed: list[Said]) -> None:
    assert [a.ids for a in plain] == [b.ids for b in streamed]
    for a, b in zip(plain, streamed, strict=True):
        assert a.logps == pytest.approx(b.logps, abs=1e-5) and a.rank == pytest.approx(b.rank, abs=1e-5)


@pytest.mark.parametrize("slots", [1, 4, IMAGES])
@pytest.mark.parametrize("prompt", [1, 3])
@pytest.mark.parametrize("name", DECODINGS)
def test_slots_say_what_all_at_once_say(name: str, prompt: int, slots: int):
    agree(*both(name, prompt, slots)[:2])


@pytest.mark.parametrize(("queries", "group"), [(1, 1), (10**6, 5), (10**6, IMAGES)])
def test_whatever_is_seen_and_comes_at_once(queries: int, group: int):
    plain, streamed, _ = both("nucleus", 3, 4, queries, group)
    agree(plain, streamed)
    assert len({len(text.ids) for text in plain}) > 3  # lengths differ, or nothing is tested


@pytest.mark.parametrize("every", [3, 7])
@pytest.mark.parametrize("name", DECODINGS)
def test_looking_seldom_changes_no_answer(name: str, every: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(LOOKS, "cpu", every)
    agree(*both(name, 2, 4)[:2])


class Waits(TorchDispatchMode):
    """Counts what makes the host wait for a device."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.__name__.split(".")[0] in ("_local_scalar_dense", "nonzero")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["greedy", "nucleus"])
def test_between_looks_nothing_waits_for_the_device(name: str, monkeypatch: pytest.MonkeyPatch):
    counts = []
    for every in (30, 60):  # all texts have ended by then
        monkeypatch.setitem(LOOKS, "cpu", every)
        with Waits() as waits:
            *_, rows = both(name, 1, IMAGES)
        assert rows == every * IMAGES
        counts.append(waits.count)
    assert counts[0] == counts[1]


def test_a_slot_is_filled_at_once():
    """One slot hears every text's positions and nothing else: its start, and its words but the last."""
    plain, _, rows = both("nucleus", 3, 1)
    assert rows == sum(3 + len(text.ids) - 1 for text in plain)


def test_slots_that_nobody_needs_go():
    plain, _, rows = both("nucleus", 1, 4)
    assert rows < 1.4 * sum(len(text.ids) for text in plain)


def test_what_looks_back_over_its_words_does_not_stream():
    assert streams(Decoding()) and streams(DECODINGS["greedy"])
    assert not any(map(streams, (BEAM, Decoding(no_repeat=3), Decoding(banned=("cat",)))))
