"""Any BLIP checkpoint, from wherever, as one of our models: recognised by what it holds, never by its name.

A folder is ours or Hugging Face's by its config.json; a `.pth` is the original's or LAVIS's, and its kind is read off
its keys. The weights are mapped and handed over, so that loading costs little more memory than the file has bytes.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from capfilt.blocks.med import SpecialIds
from capfilt.config import with_sets
from capfilt.errors import CapfiltError, ConfigError, DataError, WeightsError
from capfilt.files import read_json
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import BlipConfig
from capfilt.weights import hub
from capfilt.weights.convert import huggingface, official
from capfilt.weights.pages import forget
from capfilt.weights.read import PICKLED, few, from_file, from_folder, pickled, state_of
from capfilt.weights.rename import Layout, To, own_shapes, to_own
from capfilt.weights.sizes import Config, Parts, checked, kind_of_config, parts_from_shapes
from capfilt.weights.store import OFFICIAL_FILE, Model, config_of, hollow

FILES = (*PICKLED, ".safetensors")
LOCAL = (*FILES, ".txt", ".json")  # endings that no hub id has
VOCABULARIES = ("tokenizer.json", "vocab.txt")
OURS = Layout("capfilt", {"twins.**": None, "vit.positions": To("vit.positions", grid=True), "**": To("**")})
DEEP = 3  # how far below a folder its models are looked for, to name them


@dataclass(frozen=True)
class Origin:
    """Where a model comes from.

    where:  the file or folder, behind its hub id where it has one.
    layout: capfilt, huggingface or official (LAVIS too).
    kind:   pretrain, match, caption, vqa, nlvr, visdial; `blip` for roles of our own.
    notes:  what was left out of the checkpoint, taken for granted or changed.
    """

    where: str
    layout: str
    kind: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Opened:
    """A model in eval mode on the CPU, with its vocabulary."""

    model: Model
    tokenizer: TextTokenizer
    origin: Origin


@dataclass(frozen=True)
class _Found:
    """A checkpoint before it is a model. Either `config` is known, or `parts` that become one."""

    path: Path
    tensors: dict[str, Tensor]
    layout: str
    kind: str
    table: Layout
    config: Config | None = None
    parts: Parts | None = None
    ids: Mapping[str, int] = dataclasses.field(default_factory=dict)  # special ids that its config claims
    words: str | None = None  # a vocabulary that the file itself holds


def open_checkpoint(
    name: str | Path,
    *,
    revision: str | None = None,
    offline: bool = False,
    vocab: str | Path | None = None,
    px: int | None = None,
    sets: Sequence[str] = (),
) -> Opened:
    """Reads a checkpoint and its vocabulary. Momentum twins and queues are left out.

    Args:
        name: a hub id (owner/name), or a folder or file; what exists or looks like a path never asks the network.
        revision: branch, tag or commit of a hub id.
        offline: hub ids from the local cache only.
        vocab: the vocabulary (file, folder or hub id); else what lies beside the weights, else bert-base-uncased's.
        px: image size to work at; positions are resized as the original does. The checkpoint's own if None.
        sets: `name=value` changes of the model's config; what is given is not asked for or mended.

    Warns where a config is known to be wrong and is mended; see `weights.convert.huggingface`.

    Raises:
        WeightsError: no such checkpoint, not a whole one, one of another model, or no vocabulary that fits.
        ConfigError: a setting that does not exist, or a revision of something local.
    """
    sets = [*sets, *([f"vit.px={px}"] if px is not None else [])]
    given = {item.partition("=")[0].strip() for item in sets}
    local = _local(name)
    if local is not None and revision is not None:
        raise ConfigError(f"revision {revision!r}: only models on the hub have revisions, and {name} is a local path")
    path = local if local is not None else hub.model(str(name), revision, offline)
    where = str(name) if local is not None else f"{name} ({path.name[:12]})"
    found = _in_folder(path, given, where) if path.is_dir() else _in_file(path, given, where)
    tokenizer, special = _vocabulary(vocab, found, offline, where)
    config = found.config or _made(found, special)
    config = with_sets(config, sets)
    checked(config, where)
    if config.text.vocab != len(tokenizer):
        raise WeightsError(
            f"{where}: its word table has {config.text.vocab} rows, the vocabulary {len(tokenizer)} entries with [DEC] "
            "and [ENC]; give the vocabulary it was trained with (vocab=FILE, FOLDER or hub id; --vocab)"
        )
    model = hollow(config)
    tensors = to_own(found.tensors, found.table, model.state_dict(), where, resize="vit.px" in given)
    model.load_state_dict(tensors, assign=True)
    taken = {x.data_ptr() for x in tensors.values()}
    forget(x for x in found.tensors.values() if x.data_ptr() not in taken)
    return Opened(model.eval(), tokenizer, Origin(where, found.layout, found.kind, _notes(found, config)))


def _local(name: str | Path) -> Path | None:
    """The path that a name is, or None for a hub id. Raises WeightsError for neither."""
    text, path = str(name), Path(name).expanduser()
    if path.exists():
        return path
    if isinstance(name, Path) or text.startswith((".", "/", "~")) or path.suffix in LOCAL:
        raise WeightsError(f"{name}: no such file or folder")
    if not hub.looks_like_id(text):
        raise WeightsError(f"{name}: neither a file or folder here nor a hub id (owner/name)")
    return None


def _in_folder(folder: Path, given: set[str], where: str, weights: Path | None = None) -> _Found:
    """What a folder's config.json describes; `weights` is the one file in it that was asked for."""
    about = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if not isinstance(about, dict):
        raise WeightsError(f"{where}: config.json holds no settings")
    if isinstance(about.get("model"), str):
        config = config_of(about, f"{where}/config.json")
        path, tensors = (weights, from_file(weights)) if weights else from_folder(folder)
        return _Found(path, tensors, "capfilt", kind_of_config(config), OURS, config=_for_use(config))
    classes = [str(name) for name in about.get("architectures") or []]
    if about.get("model_type") == "blip" or any(name.startswith("Blip") for name in classes):
        if "BlipModel" in classes:
            raise WeightsError(
                f"{where}: BlipModel is a class without published weights (its projections and pooler exist nowhere "
                "else); load the checkpoint that it was made from"
            )
        path, tensors = (weights, from_file(weights)) if weights else from_folder(folder)
        return _of_hugging_face(path, tensors, about, given, where)
    if about.get("model_type") or classes:
        said = " ".join([*classes, f"({about.get('model_type')})"])
        raise WeightsError(f"{where}: config.json describes {said}, not a BLIP")
    if (folder / OFFICIAL_FILE).is_file():
        return _in_file(folder / OFFICIAL_FILE, given, where)
    below = [path.parent for deep in range(1, DEEP + 1) for path in folder.glob("*/" * deep + "model.safetensors")]
    hint = f"; there are models below: {', '.join(map(str, sorted(below)))}" if below else ""
    raise WeightsError(f"{where}: no model here (no config.json of one){hint}")


def _of_hugging_face(
    path: Path, tensors: dict[str, Tensor], about: dict[str, Any], given: set[str], where: str
) -> _Found:
    kind = official.kind_of(tensors)
    if kind not in huggingface.IN_USE or "vision_model.embeddings.class_embedding" not in tensors:
        raise WeightsError(f"{where}: no BLIP that is known here by these keys: {few(tensors)}")
    table = huggingface.IN_USE[kind]
    if table.fresh:
        table = dataclasses.replace(table, fresh={"temperature": huggingface.temperature(about)})
    parts = huggingface.parts_from_config(about, given, where)
    return _Found(path, tensors, "huggingface", kind, table, parts=parts, ids=huggingface.special_ids(about))


def _in_file(path: Path, given: set[str], where: str) -> _Found:
    if path.suffix not in FILES:
        raise WeightsError(f"{where}: not a checkpoint by its ending; {', '.join(FILES)} or a folder is needed")
    if (path.parent / "config.json").is_file() and path.suffix in (".safetensors", ".bin"):
        return _in_folder(path.parent, given, where, path)
    held = pickled(path) if path.suffix in PICKLED else from_file(path)
    tensors = state_of(held, where)
    kind = official.kind_of(tensors)
    if kind is None or "visual_encoder.cls_token" not in tensors:
        raise WeightsError(f"{where}: no BLIP that is known here by these keys: {few(tensors)}")
    table = official.IN_USE[kind]
    about = held.get("capfilt")  # what `save_as` puts beside the state
    if isinstance(about, Mapping):
        config = _for_use(config_of(dict(about), where))
        return _Found(path, tensors, "official", kind, table, config=config, words=about.get("tokenizer"))
    parts = parts_from_shapes(own_shapes(tensors, table), given, where)
    return _Found(path, tensors, "official", kind, table, parts=parts)


def _for_use(config: Config) -> Config:
    return dataclasses.replace(config, queue=0) if isinstance(config, BlipConfig) else config


def _made(found: _Found, special: SpecialIds) -> Config:
    assert found.parts is not None
    return found.parts.config(found.kind, special)


def _vocabulary(vocab: str | Path | None, found: _Found, offline: bool, where: str) -> tuple[TextTokenizer, SpecialIds]:
    """The words of a checkpoint, and the ids of the marks in them, which must be those that its config claims."""
    folder = found.path.parent
    if vocab is not None:
        at = _local(vocab) if "/" in str(vocab) or Path(vocab).exists() or Path(vocab).suffix else None
        path = at if at is not None else hub.vocabulary(str(vocab), offline)
    elif found.words is not None or any((folder / name).is_file() for name in VOCABULARIES):
        path = folder
    else:
        try:
            path = hub.vocabulary(offline=offline)
        except CapfiltError as error:
            raise WeightsError(
                f"{where}: no vocabulary lies beside the weights, and the usual one could not be had ({error}); "
                "give one with vocab= (--vocab): a vocab.txt, a tokenizer.json, a folder with either, or a hub id"
            ) from None
    try:
        inside = found.words if vocab is None else None
        t = TextTokenizer.from_vocab(path) if inside is None else TextTokenizer.from_json(inside, where)
    except DataError as error:
        raise WeightsError(f"{where}: no usable vocabulary: {error}") from None
    special = SpecialIds(**t.marks)
    wrong = [f"{name} is {i}" for name, i in found.ids.items() if getattr(special, name) != i]
    if wrong:
        raise WeightsError(f"{where}: by its config {', '.join(wrong)}, but the vocabulary {path} has {special}")
    return t, special


def _notes(found: _Found, config: Config) -> tuple[str, ...]:
    """What is not as the checkpoint has it."""
    notes = list(found.parts.notes) if found.parts is not None else []
    twins = [name for name in found.tensors if name.startswith("twins.") or name.partition(".")[0].endswith("_m")]
    if twins:
        notes.append("momentum twins left out, and queues where there are any")
    positions = own_shapes(found.tensors, found.table)["vit.positions"][1]
    if positions != config.vit.tokens:
        notes.append(f"positions resized from {positions - 1} to {config.vit.tokens - 1} patches")
    return tuple(notes)
