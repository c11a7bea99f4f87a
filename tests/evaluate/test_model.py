"""One model on one collection: which numbers come out for which abilities, and that they mean what they say."""

import dataclasses

import numpy as np
import pytest
import torch

from capfilt.data.collection import Collection, from_world
from capfilt.data.world import World, WorldConfig
from capfilt.errors import DataError
from capfilt.evaluate.model import Evaluation, at_px, evaluate
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import PRESETS, Blip
from capfilt.predict.decode import Decoding
from capfilt.predict.predictor import Predictor

GREEDY = Decoding(method="greedy", max_length=8, min_length=1)
SHARES = ("tr1", "tr5", "tr10", "ir1", "ir5", "ir10", "itc_tr1", "itc_ir1", "truth", "coverage")


@pytest.fixture(scope="module")
def scenes() -> Collection:
    return from_world(World(WorldConfig(level="demo", px=32, seed=0)), "test", 6)


def predictor(test: Collection, roles=("read", "look", "speak")) -> Predictor:
    tokenizer = TextTokenizer.train([t for ts in test.references for t in ts], 96)
    config = dataclasses.replace(PRESETS["tiny"].with_words(tokenizer), roles=tuple(roles), queue=0)
    torch.manual_seed(0)
    model = Blip(config).init_weights()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(8)  # so that scores differ
    return Predictor(model, tokenizer)


def test_everything_a_whole_model_can_show(scenes):
    found = evaluate(predictor(scenes), scenes, GREEDY, k=4)
    assert all(0 <= found.summary[name] <= 1 for name in SHARES)
    assert len(found.captions) == 6
    for name in ("tr1", "ir1", "itc_tr1", "cider", "truth"):
        values = found.per_query[name]
        assert len(values) == 6
        if name != "cider":
            assert np.mean(values) == pytest.approx(found.summary[name])
    assert found.summary["tr1"] <= found.summary["tr5"] <= found.summary["tr10"] == 1.0  # of six, all are among ten


def test_only_what_the_roles_allow(scenes):
    reads = evaluate(predictor(scenes, ("read",)), scenes)
    assert "itc_tr1" in reads.summary and "tr1" not in reads.summary and "cider" not in reads.summary
    speaks = evaluate(predictor(scenes, ("speak",)), scenes, GREEDY)
    assert "cider" in speaks.summary and "truth" in speaks.summary and "itc_tr1" not in speaks.summary


def test_truth_is_unknown_without_a_judge(scenes):
    found = evaluate(predictor(scenes), dataclasses.replace(scenes, judge=None), GREEDY, k=2)
    assert not {"truth", "coverage"} & found.summary.keys()


def test_reranking_all_or_few_stays_within_the_collection(scenes):
    model = predictor(scenes)
    many = evaluate(model, scenes, GREEDY, k=1000)
    exact = evaluate(model, scenes, GREEDY, k=6)
    assert many.summary == exact.summary
    two = evaluate(model, scenes.only(np.arange(2)), GREEDY, k=64)
    assert two.summary["tr5"] == 1.0


def test_several_captions_an_image(scenes):
    model = predictor(scenes)
    wide = dataclasses.replace(scenes, texts=scenes.references)
    found = evaluate(model, wide, GREEDY, k=3)
    assert len(found.per_query["tr1"]) == 6
    assert len(found.per_query["ir1"]) == sum(map(len, wide.texts))
    assert found.text_image == [i for i, texts in enumerate(wide.texts) for _ in texts]  # what intervals group by
    assert Evaluation({}, {}, []).text_image == []  # files of older runs lack it


def test_one_image_is_too_few(scenes):
    with pytest.raises(DataError, match="1 test image: comparing needs at least 2"):
        evaluate(predictor(scenes), scenes.only(np.arange(1)))


def test_pictures_of_another_size_are_squashed(scenes):
    assert at_px(scenes.pictures, 32) is scenes.pictures
    assert at_px(scenes.pictures, 16).shape == (6, 16, 16, 3)
