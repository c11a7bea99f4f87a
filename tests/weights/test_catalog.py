"""The published checkpoints, as a table that must agree with itself and with what we can build."""

import dataclasses

import pytest

from capfilt.models.blip import PRESETS
from capfilt.models.blip_nlvr import BlipNlvrConfig
from capfilt.models.blip_vqa import BlipVqaConfig
from capfilt.weights.catalog import ABILITIES, CATALOG, ROLES, TRAINED, entry
from capfilt.weights.convert import official
from capfilt.weights.hub import looks_like_id
from capfilt.weights.store import hollow


def test_names_are_unique_and_fit_their_publisher():
    assert len({e.name for e in CATALOG}) == len(CATALOG) == 8 + 13 + 5
    for e in CATALOG:
        assert looks_like_id(e.name) == (e.publisher == "hub")
        assert e.name.endswith(".pth") == (e.publisher != "hub")
        assert e.url.endswith(e.name) and e.abilities == ABILITIES[e.kind]
    assert set(official.IN_USE) == {e.kind for e in CATALOG} and set(ROLES) < set(ABILITIES)


@pytest.mark.parametrize(("kind", "tower"), TRAINED)
def test_parameters_are_what_our_model_of_that_size_has(kind, tower):
    px = {e.px for e in CATALOG if (e.kind, e.tower, e.publisher) == (kind, tower, "official")}
    assert len(px) == 1
    vit = dataclasses.replace(PRESETS[tower].vit, px=px.pop())
    if kind in ROLES:
        config = dataclasses.replace(PRESETS[tower], vit=vit, roles=ROLES[kind], queue=0)
    else:
        config = {"vqa": BlipVqaConfig, "nlvr": BlipNlvrConfig}[kind](vit)
    assert sum(p.numel() for p in hollow(config).parameters()) == TRAINED[kind, tower]


def test_file_sizes():
    found = entry("Salesforce/blip-image-captioning-base")
    assert found is not None and found.bytes == 4 * (223_971_644 + 30524 * 768)
    found = entry("model_base_vqa_capfilt_large.pth")
    assert found is not None and found.bytes / 2**30 == pytest.approx(1.34, abs=0.01)
    assert entry("nosuch") is None


def test_expected_ids_begin_and_end_as_texts_do():
    expected = [x for e in CATALOG for x in e.expected]
    assert {x.task for x in expected} == {"caption", "beams", "ask", "match"}
    for x in expected:
        assert not x.ids or (x.ids[0] == 30522 and x.ids[-1] == 102)
        assert (x.itm is not None) == (x.itc is not None) == (x.task == "match")
        assert x.asked or x.task == "caption"
