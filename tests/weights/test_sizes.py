"""Sizes from the shapes of tensors, and what cannot be seen in them."""

import pytest

from capfilt.errors import WeightsError
from capfilt.models.blip_visdial import BlipVisdialConfig
from capfilt.weights.sizes import checked, kind_of_config, parts_from_shapes


def shapes(build, kind: str) -> dict[str, tuple[int, ...]]:
    return {name: tuple(x.shape) for name, x in build(kind).state_dict().items()}


def test_sizes_are_those_of_the_model(build):
    config = build("pretrain").config
    parts = parts_from_shapes(shapes(build, "pretrain"), ("vit.heads", "text.heads"), "x")
    assert (parts.vit.px, parts.vit.patch, parts.vit.width, parts.vit.depth) == (32, 8, 32, 2)
    assert (parts.text.vocab, parts.text.positions, parts.text.mlp) == (config.text.vocab, 48, 64)
    assert parts.embed == 16
    assert parts_from_shapes(shapes(build, "nlvr"), ("vit.heads", "text.heads"), "x").merge_from == 1


@pytest.mark.parametrize(("given", "missing"), [((), "vit"), (("vit.heads",), "text")])
def test_unpublished_widths_need_their_heads(given, missing, build):
    with pytest.raises(WeightsError, match=rf"x: {missing} is 32 wide.*pass --set {missing}.heads=N"):
        parts_from_shapes(shapes(build, "pretrain"), given, "x")


def test_a_size_without_its_tensor_is_named(build):
    given = shapes(build, "pretrain")
    del given["text.positions.weight"]
    with pytest.raises(WeightsError, match=r"x: no tensor for text\.positions\.weight, so its sizes cannot be known"):
        parts_from_shapes(given, ("vit.heads", "text.heads"), "x")


def test_kinds(build):
    for kind in ("pretrain", "match", "caption", "vqa", "nlvr", "visdial"):
        assert kind_of_config(build(kind).config) == kind
    config = build("visdial").config
    assert isinstance(config, BlipVisdialConfig)
    checked(config, "x")
