"""Models and vocabularies from the Hugging Face hub: the files needed, resumed, pinned, or from the cache alone."""

import re
from collections.abc import Sequence
from pathlib import Path

from capfilt.errors import StorageError, WeightsError
from capfilt.files import storage_errors

VOCABULARY = "bert-base-uncased"  # every published BLIP was trained with it
DESCRIBED = ("config.json", "tokenizer.json", "vocab.txt")
WEIGHTS = ("model*.safetensors", "model.safetensors.index.json")
PICKLED_WEIGHTS = ("pytorch_model*.bin", "pytorch_model.bin.index.json")  # only where there is nothing better


def looks_like_id(name: str) -> bool:
    """Whether a name can be a model on the hub: `owner/name`."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None


def model(repo: str, revision: str | None = None, offline: bool = False) -> Path:
    """The folder of a model: config, vocabulary and weights, downloaded where the cache lacks them.

    revision: a branch, tag or commit; a full commit that is in the cache needs no network.
    offline:  never ask the network; HF_HUB_OFFLINE=1 says the same.

    Raises WeightsError: no such model or revision, no network, or not in the cache.
    """
    folder = _fetch(repo, revision, offline, DESCRIBED + WEIGHTS)
    if not any(folder.glob("*.safetensors")):
        folder = _fetch(repo, revision, offline, DESCRIBED + PICKLED_WEIGHTS)
    return folder


def vocabulary(repo: str = VOCABULARY, offline: bool = False) -> Path:
    """The folder of a model's vocabulary alone. Errors as in `model`."""
    return _fetch(repo, None, offline, DESCRIBED[1:])


def cached(repo: str) -> bool:
    """Whether the cache has this model's weights; never asks the network."""
    from huggingface_hub import try_to_load_from_cache

    names = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
    return any(isinstance(try_to_load_from_cache(repo, name), str) for name in names)


def _fetch(repo: str, revision: str | None, offline: bool, patterns: Sequence[str]) -> Path:
    from huggingface_hub import constants, errors, snapshot_download

    try:
        with storage_errors(Path(constants.HF_HUB_CACHE)):
            found = snapshot_download(repo, revision=revision, allow_patterns=[*patterns], local_files_only=offline)
        return Path(found)
    except errors.GatedRepoError:
        why = "its owner asks you to accept terms first; do so on its page, then `hf auth login`"
    except errors.RepositoryNotFoundError:
        why = "there is no such model on the hub, or it is private; check the spelling, or `hf auth login`"
    except errors.RevisionNotFoundError:
        why = f"it has no revision {revision!r}"
    except errors.HFValidationError as error:
        why = f"not a name that the hub knows ({error})"
    except errors.LocalEntryNotFoundError:
        if offline or constants.HF_HUB_OFFLINE:
            why = "not (or not wholly) in the local cache, and offline; load it once with a network"
        else:
            why = "not in the local cache, and the hub cannot be reached; check the network, or give a local folder"
    except StorageError:
        raise
    except Exception as error:  # whatever a network can do
        why = f"the download failed ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
    raise WeightsError(f"{repo}: no such folder here; as a hub id: {why}")
