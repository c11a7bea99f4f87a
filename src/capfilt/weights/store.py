"""A model on disk: `model.safetensors`, `config.json` (all that is not a weight), `tokenizer.json`. Never pickle."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from capfilt import __version__
from capfilt.config import from_dict, to_dict
from capfilt.errors import WeightsError
from capfilt.files import atomic, read_json, write_json
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import Blip, BlipConfig


def save(model: Blip, tokenizer: TextTokenizer, folder: Path) -> None:
    """Writes the model to `folder`; `config.json` comes last, so a folder that has one is whole."""
    save_tensors(folder / "model.safetensors", model.state_dict())
    tokenizer.save(folder)
    write_json(folder / "config.json", {"model": "blip", "capfilt": __version__, "config": to_dict(model.config)})


def load(folder: Path) -> tuple[Blip, TextTokenizer]:
    """Reads what `save` wrote. Foreign keys, missing keys and other shapes are a WeightsError that lists them."""
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise WeightsError(
            f"{folder}: no model here (config.json is missing). Give a folder that a finished stage wrote."
        )
    described = read_json(folder / "config.json")
    if described.get("model") != "blip":
        raise WeightsError(f"{folder}/config.json: model {described.get('model')!r} is not known; known: 'blip'")
    model = Blip(from_dict(BlipConfig, described["config"]))
    load_strictly(model, load_tensors(folder / "model.safetensors"), folder)
    return model.eval(), TextTokenizer.load(folder)


def load_strictly(module: nn.Module, tensors: dict[str, Tensor], where: object) -> None:
    """Fills every tensor of `module` from `tensors`, and uses every one of them."""
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
    module.load_state_dict(tensors)


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
