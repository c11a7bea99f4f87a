"""The histogram stem counts what is there, where it is."""

import pytest
import torch

from capfilt.blocks.vit import COLOURS, DIRECTIONS, HistogramStem, VitConfig
from capfilt.errors import ConfigError
from capfilt.models.blip import PRESETS, Blip

NO_EDGE = -1.6


def counted(pixels, patch=8):
    found = HistogramStem(patch, 16).counted(pixels)
    quarters = found[..., COLOURS:].unflatten(-1, (4, 3 + DIRECTIONS))
    return found[..., :COLOURS], quarters[..., :3], quarters[..., 3:]


def test_a_plain_picture_has_one_colour_and_no_edges():
    colours, means, edges = counted(torch.full((2, 3, 16, 24), 0.3))
    assert colours.shape == (2, 6, COLOURS)
    assert ((colours == 8).sum(-1) == 1).all() and ((colours == 0).sum(-1) == COLOURS - 1).all()
    assert torch.allclose(means, torch.tensor(0.3)), "normalised pixels come out as they went in"
    assert torch.allclose(edges, torch.tensor(NO_EDGE))


def test_what_is_in_one_patch_is_told_of_that_patch_alone():
    pixels = torch.zeros(1, 3, 16, 24)
    pixels[0, 0, 8:16, 8:16] = 1.5  # the second row's second patch turns red
    colours, _, _ = counted(pixels)
    assert [i for i in range(6) if not torch.equal(colours[0, i], colours[0, 0])] == [4]


@pytest.mark.parametrize("down", [False, True])
def test_an_edge_is_counted_in_its_direction_and_quarter(down):
    pixels = torch.zeros(1, 3, 8, 8)
    pixels[..., 2:] = 1.0  # darker to lighter, left to right, inside the left quarters
    colours, means, edges = counted(pixels.mT if down else pixels)
    strong = (edges[0, 0] > NO_EDGE + 1e-3).nonzero().tolist()
    up_left, up_right, low_left = 0, 1, 2
    assert {quarter for quarter, _ in strong} == ({up_left, up_right} if down else {up_left, low_left})
    assert len({direction for _, direction in strong}) == 1
    assert sorted(colours[0, 0].square().div(64).tolist())[-2:] == [0.25, 0.75], "shares of the two colours"
    assert means[0, 0, 3].tolist() == pytest.approx([1.0] * 3)


def test_a_tower_of_it_learns_and_sees_the_picture():
    config = PRESETS["tiny"]
    config = type(config)(VitConfig(px=32, patch=8, width=32, depth=1, heads=2, mlp=64, stem="histogram"), config.text)
    blip = Blip(config).init_weights()
    one, other = blip.vit(torch.zeros(1, 3, 32, 32)), blip.vit(torch.ones(1, 3, 32, 32))
    assert not torch.allclose(one, other)
    one.square().sum().backward()
    assert blip.vit.stem.proj.weight.grad.abs().sum() > 0


def test_a_patch_that_cannot_be_quartered_is_refused():
    with pytest.raises(ConfigError, match="must be even"):
        HistogramStem(9, 16)
