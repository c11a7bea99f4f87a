"""The layout of Hugging Face's BLIP classes: the original's text names, other vision names, and a config.json.

Two values of a config.json cannot be seen in the weights and are often wrong: the heads of the
text transformer (8 by default, the weights have 12) and the eps of the vision tower (1e-5, but trained with 1e-6).
"""

import math
import warnings
from collections.abc import Collection, Mapping
from typing import Any

from capfilt import __version__
from capfilt.blocks.med import MedConfig
from capfilt.blocks.vit import VitConfig
from capfilt.config import from_dict
from capfilt.errors import WeightsError
from capfilt.inputs.images import MEAN, STD
from capfilt.weights.convert.official import HEADS, READER, SPEAKER, START, speaker
from capfilt.weights.rename import Layout, Rules, To, under
from capfilt.weights.sizes import PUBLISHED_HEADS, Config, Parts, kind_of_config

VIT: Rules = {
    "embeddings.class_embedding": To("cls"),
    "embeddings.position_embedding": To("positions", grid=True),
    "embeddings.patch_embedding.*": To("stem.proj.*"),
    "encoder.layers.*.layer_norm1.*": To("blocks.*.norm1.*"),
    "encoder.layers.*.self_attn.qkv.*": To("blocks.*.attention.qkv.*"),
    "encoder.layers.*.self_attn.projection.*": To("blocks.*.attention.out.*"),
    "encoder.layers.*.layer_norm2.*": To("blocks.*.norm2.*"),
    "encoder.layers.*.mlp.fc1.*": To("blocks.*.fc1.*"),
    "encoder.layers.*.mlp.fc2.*": To("blocks.*.fc2.*"),
    "post_layernorm.*": To("norm.*"),
}

TOWER = under("vision_model.", "vit.", VIT)
IN_USE: dict[str, Layout] = {
    "caption": Layout("BlipForConditionalGeneration", {**TOWER, **SPEAKER}),
    "match": Layout("BlipForImageTextRetrieval", {**TOWER, **READER, **HEADS}, START),
    "vqa": Layout("BlipForQuestionAnswering", {**TOWER, **READER, **speaker("answer.")}),
}

ORIGINAL_EPS, WRONG_EPS = 1e-6, 1e-5
# What the classes take where a config.json says nothing. No heads: those of the text are never right by default.
VISION = {
    "image_size": 384,
    "patch_size": 16,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "layer_norm_eps": WRONG_EPS,
    "hidden_act": "gelu",
}
TEXT = {
    "vocab_size": 30524,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.0,
    "hidden_act": "gelu",
}


def parts_from_config(described: Mapping[str, Any], given: Collection[str], where: object) -> Parts:
    """Sizes and eps as a config.json has them, but for the two values that are known to be wrong.

    given: settings that the user gives anyway, as `vit.eps`; those are neither mended nor asked for.

    Warns where eps is mended. Raises WeightsError where the heads cannot be right and where the activation is not GELU.
    """
    vision, text = VISION | (described.get("vision_config") or {}), TEXT | (described.get("text_config") or {})
    for name, tower in (("vision_config", vision), ("text_config", text)):
        if tower["hidden_act"] != "gelu":
            raise WeightsError(f"{where}: {name}.hidden_act is {tower['hidden_act']!r}; BLIP has 'gelu'")
    ours = described.get("capfilt")  # written by `config_json`, where every value is meant
    heads = text.get("num_attention_heads")
    notes = []
    if heads is None and text["hidden_size"] in PUBLISHED_HEADS:
        heads = PUBLISHED_HEADS[text["hidden_size"]]
        notes.append(f"text_config.num_attention_heads is missing: {heads} taken, as in every BLIP of this width")
    eps = vision["layer_norm_eps"]
    if eps == WRONG_EPS and not ours and "vit.eps" not in given:
        eps = ORIGINAL_EPS
        notes.append(
            f"config.json has a vision layer_norm_eps of {WRONG_EPS}; {eps} is used, as in training; "
            f"--set vit.eps={WRONG_EPS} (sets=['vit.eps={WRONG_EPS}']) gives the other back"
        )
        warnings.warn(f"{where}: {notes[-1]}", stacklevel=2)
    vit = {
        "px": vision["image_size"],
        "patch": vision["patch_size"],
        "width": vision["hidden_size"],
        "depth": vision["num_hidden_layers"],
        "heads": _right_heads("vit", vision["num_attention_heads"], vision["hidden_size"], given, where),
        "mlp": vision["intermediate_size"],
        "eps": eps,
    }
    med = {
        "vocab": text["vocab_size"],
        "width": text["hidden_size"],
        "depth": text["num_hidden_layers"],
        "heads": _right_heads("text", heads, text["hidden_size"], given, where),
        "mlp": text["intermediate_size"],
        "positions": text["max_position_embeddings"],
        "eps": text["layer_norm_eps"],
        "dropout": text["hidden_dropout_prob"],
    }
    return Parts(
        from_dict(VitConfig, vit, f"{where}: vit."),
        from_dict(MedConfig, med, f"{where}: text."),
        embed=described.get("image_text_hidden_size", 256),
        notes=tuple(notes),
        **({"prompt": ours["prompt"]} if ours else {}),
    )


def config_json(config: Config, temperature: float) -> dict[str, Any]:
    """The config.json of our model for these classes, with what their weights or fields cannot say under `capfilt`.

    Raises WeightsError for what the classes cannot express.
    """
    kind, vit, text = kind_of_config(config), config.vit, config.text
    if kind not in IN_USE:
        raise WeightsError(f"Hugging Face has no class for a {kind} model; it has some for {', '.join(IN_USE)}")
    if vit.stem != "linear":
        raise WeightsError(f"Hugging Face's BLIP has no stem {vit.stem!r}, only 'linear'")
    if kind == "vqa" and vit.width != text.width:
        raise WeightsError(
            f"BlipForQuestionAnswering gives its answer decoder keys of the vision width {vit.width}, this model has "
            f"the text's {text.width}: it cannot be said in that class"
        )
    special = config.special
    return {
        "architectures": [IN_USE[kind].name],
        "model_type": "blip",
        "image_text_hidden_size": getattr(config, "embed", 256),
        "logit_scale_init_value": -math.log(temperature),
        "text_config": {
            "model_type": "blip_text_model",
            "vocab_size": text.vocab,
            "hidden_size": text.width,
            "encoder_hidden_size": vit.width,
            "num_hidden_layers": text.depth,
            "num_attention_heads": text.heads,
            "intermediate_size": text.mlp,
            "max_position_embeddings": text.positions,
            "hidden_act": "gelu",
            "layer_norm_eps": text.eps,
            "hidden_dropout_prob": text.dropout,
            "attention_probs_dropout_prob": text.dropout,
            "pad_token_id": special.pad,
            "sep_token_id": special.sep,
            "bos_token_id": special.dec,
            "is_decoder": True,
        },
        "vision_config": {
            "model_type": "blip_vision_model",
            "image_size": vit.px,
            "patch_size": vit.patch,
            "hidden_size": vit.width,
            "num_hidden_layers": vit.depth,
            "num_attention_heads": vit.heads,
            "intermediate_size": vit.mlp,
            "hidden_act": "gelu",
            "layer_norm_eps": vit.eps,
        },
        "capfilt": {"version": __version__, "prompt": getattr(config, "prompt", "")},
    }


def preprocessor_json(px: int) -> dict[str, Any]:
    """How `BlipImageProcessor` makes our pixels."""
    return {
        "image_processor_type": "BlipImageProcessor",
        "processor_class": "BlipProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": px, "width": px},
        "resample": 3,  # bicubic
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(MEAN),
        "image_std": list(STD),
    }


TOKENIZER_JSON = {"tokenizer_class": "BertTokenizer", "processor_class": "BlipProcessor", "do_lower_case": True}


def special_ids(described: Mapping[str, Any]) -> dict[str, int]:
    """Ids of our marks as far as a config.json names them."""
    text = described.get("text_config") or {}
    names = {"pad": "pad_token_id", "sep": "sep_token_id", "dec": "bos_token_id"}
    return {ours: text[name] for ours, name in names.items() if name in text}


def temperature(described: Mapping[str, Any]) -> float:
    """The temperature that the weights of these classes lack: their config has its logarithm."""
    return math.exp(-described.get("logit_scale_init_value", -math.log(START["temperature"])))


def _right_heads(tower: str, said: int | None, width: int, given: Collection[str], where: object) -> int:
    if f"{tower}.heads" in given:
        return said or 1  # what is given takes its place
    if said is None or said != PUBLISHED_HEADS.get(width, said):
        right = PUBLISHED_HEADS.get(width, "N")
        raise WeightsError(
            f"{where}: config.json gives {tower} {said or 'no'} heads at width {width}, which no published BLIP has "
            f"and the weights cannot tell; pass --set {tower}.heads={right} (sets=['{tower}.heads={right}'])"
        )
    return said
