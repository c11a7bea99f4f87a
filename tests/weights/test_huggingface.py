"""What a config.json says, what it leaves out, and where it is not believed."""

import dataclasses
import warnings

import pytest

from capfilt.blocks.med import MedConfig
from capfilt.blocks.vit import VitConfig
from capfilt.errors import ConfigError, WeightsError
from capfilt.models.blip import PRESETS
from capfilt.weights.convert.huggingface import config_json, parts_from_config, special_ids, temperature

BASE = {"text_config": {"num_attention_heads": 12}, "vision_config": {"layer_norm_eps": 1e-6}}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}


def described(text: dict | None = None, vision: dict | None = None) -> dict:
    return {"text_config": BASE["text_config"] | (text or {}), "vision_config": BASE["vision_config"] | (vision or {})}


def test_what_is_left_out_is_what_the_classes_take():
    parts = parts_from_config(described(), (), "x")
    assert parts.vit == VitConfig(px=384) and parts.text == MedConfig(dropout=0.0)
    assert parts.embed == 256 and parts.notes == () and parts.prompt == "a picture of "


def test_a_large_tower():
    parts = parts_from_config(described(vision=LARGE), (), "x")
    assert parts.vit == VitConfig(px=384, width=1024, depth=24, heads=16, mlp=4096)


def test_missing_text_heads_are_those_of_every_blip_and_that_is_noted():
    about = described() | {"text_config": {}}
    parts = parts_from_config(about, (), "x")
    assert parts.text.heads == 12 and "12 taken" in parts.notes[0]
    about["text_config"] = {"hidden_size": 96}
    with pytest.raises(WeightsError, match=r"text no heads at width 96.*pass --set text.heads=N"):
        parts_from_config(about, (), "x")
    parts_from_config(about, ("text.heads",), "x")


@pytest.mark.parametrize(
    ("about", "said"),
    [
        (described({"num_attention_heads": 8}), r"gives text 8 heads at width 768.*sets=\['text.heads=12'\]"),
        (described(vision=LARGE | {"num_attention_heads": 8}), r"gives vit 8 heads at width 1024.*'vit.heads=16'"),
    ],
)
def test_wrong_heads_are_caught_and_may_be_insisted_on(about, said):
    with pytest.raises(WeightsError, match=said):
        parts_from_config(about, (), "x")
    parts_from_config(about, ("text.heads", "vit.heads"), "x")


@pytest.mark.parametrize("vision", [{"layer_norm_eps": 1e-5}, {}], ids=["said", "by default"])
def test_a_wrong_eps_is_mended_unless_it_is_meant(vision):
    about = BASE | {"vision_config": vision}
    with pytest.warns(UserWarning, match="x: config.json has a vision layer_norm_eps of 1e-05; 1e-06 is used"):
        parts = parts_from_config(about, (), "x")
    assert parts.vit.eps == 1e-6 and "1e-06 is used" in parts.notes[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parts_from_config(about, ("vit.eps",), "x").vit.eps == 1e-5
        ours = about | {"capfilt": {"prompt": ""}}
        assert parts_from_config(ours, (), "x").vit.eps == 1e-5


def test_another_activation_is_another_model():
    with pytest.raises(WeightsError, match=r"vision_config.hidden_act is 'quick_gelu'; BLIP has 'gelu'"):
        parts_from_config(described(vision={"hidden_act": "quick_gelu"}), (), "x")


def test_a_value_of_another_type_is_named():
    with pytest.raises(ConfigError, match=r"x: vit.px: expected int, got \[384, 384\]"):
        parts_from_config(described(vision={"image_size": [384, 384]}), (), "x")


def test_ids_and_temperature():
    assert special_ids({"text_config": {"pad_token_id": 0, "bos_token_id": 30522}}) == {"pad": 0, "dec": 30522}
    assert special_ids({}) == {}
    assert temperature({"logit_scale_init_value": 2.6592}) == pytest.approx(0.07, rel=1e-4)
    assert temperature({}) == pytest.approx(0.07)
    config = dataclasses.replace(PRESETS["base"], roles=("read", "look"), queue=0)
    assert temperature(config_json(config, 0.31)) == pytest.approx(0.31, rel=1e-12)
