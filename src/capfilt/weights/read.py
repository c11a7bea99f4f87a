"""Tensors from files of any origin, mapped instead of read: a page comes into memory when it is first touched.

Pickled files (`.pth`, `.bin`) are opened as plain tensors and numbers only; one that wants to run code is refused.
"""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from capfilt.errors import WeightsError
from capfilt.files import read_json
from capfilt.weights.store import load_tensors

PICKLED = (".pth", ".pt", ".bin")
IN_FOLDER = ("model.safetensors", "pytorch_model.bin")  # the better first; each may be in shards, with an index


def from_folder(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """(file or index, tensors) of a folder that Hugging Face or capfilt wrote.

    Raises WeightsError: no weights there, a shard missing, or any file that is not what it should be.
    """
    for name in IN_FOLDER:
        whole, index = folder / name, folder / f"{name}.index.json"
        if whole.is_file():
            return whole, from_file(whole)
        if index.is_file():
            return index, _from_shards(index)
    raise WeightsError(f"{folder}: no weights here; {' or '.join(IN_FOLDER)} is needed, whole or in shards")


def from_file(path: Path) -> dict[str, Tensor]:
    """The tensors of one `.safetensors`, `.pth`, `.pt` or `.bin`; what else lies in a pickled file is left out."""
    return load_tensors(path) if path.suffix == ".safetensors" else state_of(pickled(path), path)


def pickled(path: Path) -> Any:
    """What a file of `torch.save` holds.

    Raises WeightsError: no such file, damaged, not of torch, or with code in it.
    """
    start = _first_bytes(path)
    zipped = start.startswith(b"PK")
    if not zipped and not start.startswith(b"\x80"):
        raise WeightsError(f"{path}: not a checkpoint of torch (it begins with {start[:16]!r})")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        unknown = re.search(r"GLOBAL ([\w.]+)", str(error))
        if unknown is None:
            raise WeightsError(f"{path}: damaged, or a pickle that holds no tensors; none of it was run") from None
        raise WeightsError(
            f"{path}: holds code, not only tensors ({unknown[1]}), and is not run; ask for it as safetensors, "
            "or take its state dict out where you trust it"
        ) from None
    except Exception as error:  # wherever it is cut, another part of the reader stumbles
        raise WeightsError(f"{path}: damaged or cut off ({_first_line(error)}); download it again") from None


def state_of(held: Any, where: object) -> dict[str, Tensor]:
    """The state dict in what a file holds: under `model`, as the original saves it, or bare."""
    state = held.get("model", held) if isinstance(held, Mapping) else held
    if not isinstance(state, Mapping):
        raise WeightsError(f"{where}: holds a {type(held).__name__}; a state dict is needed, bare or under 'model'")
    others = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if others or not state:
        raise WeightsError(f"{where}: no state dict of tensors, bare or under 'model' (it has {few(state)})")
    return dict(state)


def few(names: Mapping[str, Any]) -> str:
    """The first names and how many more there are."""
    first = [str(name) for name in names][:6]
    return (", ".join(first) or "nothing") + (f" and {len(names) - len(first)} more" if len(names) > len(first) else "")


def _from_shards(index: Path) -> dict[str, Tensor]:
    about = read_json(index)
    files = about.get("weight_map") if isinstance(about, dict) else None
    if not isinstance(files, dict) or any(not isinstance(f, str) or Path(f).name != f for f in files.values()):
        raise WeightsError(f"{index}: no weight_map of files beside it")
    tensors: dict[str, Tensor] = {}
    for file in sorted(set(files.values())):
        tensors |= from_file(index.parent / file)
    missing = [name for name in files if name not in tensors]
    if missing:
        raise WeightsError(f"{index}: its shards lack {len(missing)} tensors: {'; '.join(missing)}")
    return tensors


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as handle:
            return handle.read(64)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
