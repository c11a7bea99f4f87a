"""A model on disk: `model.safetensors`, `config.json` (all that is not a weight), `tokenizer.json`. Never pickle.

`save_as` also writes the layouts of others: Hugging Face's folder, and the original's `.pth`.
"""

from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from capfilt import __version__
from capfilt.config import from_dict, to_dict
from capfilt.errors import ConfigError, WeightsError
from capfilt.files import atomic, read_json, write_json, write_text
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import Blip, BlipConfig
from capfilt.models.blip_nlvr import BlipNlvr, BlipNlvrConfig
from capfilt.models.blip_visdial import BlipVisdial, BlipVisdialConfig
from capfilt.models.blip_vqa import BlipVqa, BlipVqaConfig
from capfilt.weights.convert import huggingface, official
from capfilt.weights.rename import to_foreign
from capfilt.weights.sizes import Config, kind_of_config

Model = Blip | BlipVqa | BlipNlvr | BlipVisdial
FileLayout = Literal["capfilt", "huggingface", "official"]

MODELS: dict[str, tuple[type[Model], type[Config]]] = {
    "blip": (Blip, BlipConfig),
    "blip-vqa": (BlipVqa, BlipVqaConfig),
    "blip-nlvr": (BlipNlvr, BlipNlvrConfig),
    "blip-visdial": (BlipVisdial, BlipVisdialConfig),
}
OFFICIAL_FILE = "model.pth"  # where only a folder is named


def save(model: Model, tokenizer: TextTokenizer, folder: Path) -> None:
    """Writes the model to `folder`; `config.json` comes last, so a folder that has one is whole."""
    save_tensors(folder / "model.safetensors", model.state_dict())
    tokenizer.save(folder)
    write_json(folder / "config.json", described(model))


def load(folder: Path) -> tuple[Model, TextTokenizer]:
    """Reads what `save` wrote. Foreign keys, missing keys and other shapes are a WeightsError that lists them."""
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise WeightsError(
            f"{folder}: no model here (config.json is missing). Give a folder that a finished stage wrote."
        )
    config = config_of(read_json(folder / "config.json"), f"{folder}/config.json")
    model = hollow(config)
    load_strictly(model, load_tensors(folder / "model.safetensors"), folder, assign=True)
    return model.eval(), TextTokenizer.load(folder)


def save_as(model: Model, tokenizer: TextTokenizer, out: Path | str, layout: str = "capfilt") -> None:
    """Writes the model so that others can read it.

    capfilt:     a folder, as `save`.
    huggingface: a folder that the BLIP classes of `transformers` load, processor and vocabulary included.
    official:    `out` itself where it ends in .pth, else `out`/model.pth. The original reads its `model`; what a state
                 dict cannot say, the vocabulary too, lies under `capfilt`, for us.

    Raises WeightsError for a model that the layout has no words for, before anything is written.
    """
    if layout not in get_args(FileLayout):
        raise ConfigError(f"layout {layout!r}: choose from {', '.join(get_args(FileLayout))}")
    out = Path(out)
    if layout != "official" and out.suffix == ".pth":
        raise ConfigError(f"{out}: the layout {layout} is a folder; a .pth file goes with the layout official")
    _check_place(out, layout)
    if layout == "huggingface":
        _save_huggingface(model, tokenizer, out)
    elif layout == "official":
        about = {**described(model), "tokenizer": tokenizer.to_json()}
        held = {"model": _unshared(official_state(model)), "capfilt": about}
        atomic(out if out.suffix == ".pth" else out / OFFICIAL_FILE, lambda temporary: torch.save(held, temporary))
    else:
        save(model, tokenizer, out)


def _check_place(out: Path, layout: str) -> None:
    """Raises ConfigError where the folder is something else's: a run, or another program's."""
    about = out / "config.json"
    if layout != "official" and about.is_file():
        held = read_json(about)
        known = isinstance(held, dict) and (isinstance(held.get("model"), str) or held.get("model_type") == "blip")
        if not known:
            raise ConfigError(f"{out}: holds a config.json that is no model's; choose another folder")


def official_state(model: Model) -> dict[str, Tensor]:
    """The model's tensors under the original's names: tied ones under each, and the buffers of position ids.

    Momentum twins and queues go along. Raises WeightsError where the original has no such model.
    """
    config = model.config
    kind = kind_of_config(config)
    if kind not in official.IN_USE:
        raise WeightsError(f"the original has no {kind} model; it has {', '.join(official.IN_USE)}")
    if config.vit.stem != "linear":
        raise WeightsError(f"the original has no stem {config.vit.stem!r}, only 'linear'")
    queued = {"pretrain": official.PRETRAIN, "match": official.RETRIEVAL}
    layout = queued[kind] if isinstance(model, Blip) and model.twins is not None else official.IN_USE[kind]
    state = to_foreign(model.state_dict(), layout)
    ids = {
        name.replace("position_embeddings.weight", "position_ids"): torch.arange(len(table))[None]
        for name, table in state.items()
        if name.endswith("embeddings.position_embeddings.weight")
    }
    return state | ids


def _save_huggingface(model: Model, tokenizer: TextTokenizer, folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, processors

    config = model.config
    temperature = (
        float(model.temperature.detach()) if isinstance(model, Blip) and "read" in model.config.roles else 0.07
    )
    about = huggingface.config_json(config, temperature)
    state = {k: x for k, x in model.state_dict().items() if k != "temperature" and not k.startswith("twins.")}
    state = to_foreign(state, huggingface.IN_USE[kind_of_config(config)])
    save_tensors(folder / "model.safetensors", _untied(state), {"format": "pt"})
    tokenizer.save(folder)
    words = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ends = ("[SEP]", tokenizer.sep_id), ("[CLS]", tokenizer.cls_id)
    words.post_processor = processors.BertProcessing(*ends)
    words.decoder = decoders.WordPiece()
    write_text(folder / "tokenizer.json", words.to_str(pretty=True) + "\n")
    plain = words.get_vocab(with_added_tokens=False)
    write_text(folder / "vocab.txt", "".join(f"{word}\n" for word in sorted(plain, key=plain.__getitem__)))
    write_json(folder / "tokenizer_config.json", huggingface.TOKENIZER_JSON)
    write_json(folder / "preprocessor_config.json", huggingface.preprocessor_json(config.vit.px))
    write_json(folder / "config.json", about)


def _unshared(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor in memory of its own, tied names still sharing one: pickled, a view takes all that it views along."""
    copies: dict[tuple[int, torch.Size], Tensor] = {}
    for x in state.values():
        copies.setdefault((x.data_ptr(), x.shape), x.detach().clone().cpu())
    return {name: copies[x.data_ptr(), x.shape] for name, x in state.items()}


def _untied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tied names each with a copy, because safetensors shares nothing."""
    first = {(x.data_ptr(), x.shape): name for name, x in reversed(state.items())}
    return {name: x if first[x.data_ptr(), x.shape] == name else x.clone() for name, x in state.items()}


def described(model: Model) -> dict[str, Any]:
    """What `config.json` says of a model."""
    name = next(name for name, (_, config) in MODELS.items() if isinstance(model.config, config))
    return {"model": name, "capfilt": __version__, "config": to_dict(model.config)}


def config_of(about: dict[str, Any], where: object) -> Config:
    """The config that `described` wrote."""
    name, config = about.get("model"), about.get("config")
    if not isinstance(name, str) or name not in MODELS:
        raise WeightsError(f"{where}: model {name!r} is not known; known: {', '.join(map(repr, MODELS))}")
    if not isinstance(config, dict):
        raise WeightsError(f"{where}: no settings under 'config'")
    return from_dict(MODELS[name][1], config)


class _NoFirstValues(TorchFunctionMode):
    """Leaves new parameters as they are: drawing what a file will replace costs a second, most of it in imports."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def hollow(config: Config) -> Model:
    """A model of names and shapes, without memory; to be filled with `load_state_dict(..., assign=True)`."""
    build = next(model for model, kind in MODELS.values() if isinstance(config, kind))
    with torch.device("meta"), _NoFirstValues():
        return build(config)  # type: ignore[arg-type]  # the pairs of MODELS


def load_strictly(module: nn.Module, tensors: dict[str, Tensor], where: object, assign: bool = False) -> None:
    """Fills every tensor of `module` from `tensors`, and uses every one of them.

    assign: the module takes the tensors themselves instead of their values.
    """
    own = module.state_dict()
    wrong = [f"missing {k}" for k in own if k not in tensors]
    wrong += [f"unknown {k}" for k in tensors if k not in own]
    wrong += [
        f"{k} is {tuple(tensors[k].shape)}, the model has {tuple(own[k].shape)}"
        for k in own
        if k in tensors and tensors[k].shape != own[k].shape
    ]
    if wrong:
        raise WeightsError(f"{where}: these weights are of another model: {'; '.join(wrong)}")
    module.load_state_dict({k: v.to(own[k].dtype) for k, v in tensors.items()}, assign=assign)


def save_tensors(path: Path, tensors: dict[str, Tensor], about: dict[str, str] | None = None) -> None:
    """Atomically writes tensors and a few strings beside them."""
    whole = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    atomic(path, lambda temporary: save_file(whole, temporary, about or {}))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Reads tensors; a cut-off or foreign file is a WeightsError."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except SafetensorError as error:
        raise WeightsError(f"{path}: not a whole safetensors file ({error})") from None


def load_about(path: Path) -> dict[str, str]:
    """The strings that were saved beside the tensors."""
    with safe_open(path, "pt") as handle:
        return handle.metadata() or {}
