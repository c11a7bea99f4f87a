"""A recorded step says what a plain one says. Where there is no GPU a trace stands in for the recording: like a CUDA
graph it knows tensors by where they are, and numbers as they were."""

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from capfilt.predict import predictor, recorded
from capfilt.predict.decode import Decoding, decode
from capfilt.predict.predictor import BlipSpeech
from capfilt.predict.recorded import Recorded, Work

from .test_stream import DECODINGS, END, IMAGES, PAD, a_text, agree, both


@pytest.fixture
def traced(monkeypatch) -> list[int]:
    """Records on any device. The list gets the rows of each recording."""
    made: list[int] = []

    def record(work: Work, ids: Tensor) -> Work:
        waiting: list[Tensor] = []

        def kept(ids: Tensor) -> Tensor:
            waiting.append(work(ids))
            return waiting[0]

        trace = make_fx(kept)(ids)  # unlike a GPU's recording this runs it once: what the first play is to give
        made.append(len(ids))
        return lambda ids: waiting.pop() if waiting else trace(ids)

    monkeypatch.setattr(recorded, "record", record)
    for module in (recorded, predictor):
        monkeypatch.setattr(module, "records", lambda device: True)
    return made


@pytest.mark.parametrize("name", DECODINGS)
def test_slots_that_are_recorded_say_the_same(name, traced):
    agree(*both(name, 1, 4)[:2])
    if name != "at once":
        assert traced[0] == 4, "a step of four slots was recorded"
    assert traced == sorted(set(traced), reverse=True), "each number of slots once"


@pytest.mark.parametrize("prompt", [1, 3])
@pytest.mark.parametrize(
    ("decoding", "texts"),
    [
        (Decoding("greedy", max_length=24, min_length=12, repetition_penalty=1.3), 1),
        (Decoding(max_length=24, min_length=6, top_k=9, temperature=1.4), 2),
        (Decoding("beam", max_length=16, beams=3, repetition_penalty=1.0), 3),
        (Decoding("beam", max_length=16, beams=4, groups=2, no_repeat=2), 4),
    ],
    ids=["greedy", "two texts an image", "beams", "groups of beams"],
)
def test_texts_that_are_recorded_are_the_same(decoding, texts, prompt, traced):
    text, generator = a_text(), torch.Generator().manual_seed(1)
    start, room = torch.arange(4, 4 + prompt).repeat(IMAGES, 1), decoding.room(prompt)
    uniforms = torch.rand(texts * IMAGES, room, dtype=torch.float64, generator=generator)
    drawn = uniforms if decoding.method == "nucleus" else None
    with torch.inference_mode():
        seen = text.seen(torch.randn(IMAGES, 9, 12, generator=generator), texts * room)
        plain = decode(BlipSpeech(text, seen), start, decoding, END, PAD, drawn)
        assert not traced
        again = decode(BlipSpeech(text, seen, span=prompt + texts * room), start, decoding, END, PAD, drawn)
    assert traced[0] == texts * IMAGES and traced == sorted(set(traced), reverse=True)
    for one, other in zip(plain, again, strict=True):
        agree(one, other)


def test_where_nothing_can_be_recorded_work_goes_on(traced, monkeypatch):
    def fails(work, ids):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(recorded, "record", fails)
    step, ids = Recorded(), torch.ones(2, 1, dtype=torch.long)
    with pytest.warns(UserWarning, match="could not be recorded.*no such kernel"):
        told = [step(lambda ids, i=i: (ids + i).float(), ids)[0, 0].item() for i in range(5)]
    assert told == [1, 2, 3, 4, 5]


def test_on_a_cpu_nothing_is_recorded():
    step, ids = Recorded(), torch.ones(2, 1, dtype=torch.long)
    assert [step(lambda ids, i=i: (ids + i).float(), ids)[0, 0].item() for i in range(5)] == [1, 2, 3, 4, 5]
