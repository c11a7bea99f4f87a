"""Training shards: WebDataset tars and parquet files. A shard's bytes hang on its rows and images alone."""

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from capfilt.clean.export.rows import COLUMNS, SCORES, STRINGS, line, record

Sample = tuple[dict[str, Any], bytes]  # a row of `rows.chosen` and its encoded image
MOST_ROWS, MOST_BYTES = 10_000, 2**30  # of a shard; the bytes are those of its images
GROUP_BYTES = 2**26  # of images in a row group of parquet
SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif"}  # of the others, the format's own name

_TYPES = {name: pa.string() for name in (*STRINGS, "meta")} | {name: pa.float64() for name in SCORES}
_TYPES |= {"width": pa.int32(), "height": pa.int32()}
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_FLAT = [name for name in COLUMNS if name in _TYPES]
_FEATURES = {name: {"dtype": {"double": "float64"}.get(str(_TYPES[name]), str(_TYPES[name]))} for name in _FLAT}
_TOLD = {name: {**feature, "_type": "Value"} for name, feature in _FEATURES.items()}
_HUGGING_FACE = json.dumps({"info": {"features": {"image": {"_type": "Image"}, **_TOLD}}})  # else a struct is a dict
_SCHEMA = pa.schema([("image", _IMAGE), *((name, _TYPES[name]) for name in _FLAT)], {"huggingface": _HUGGING_FACE})


def planned(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The rows of each shard. Sizes are those of the account, so that no image need be read to know."""
    shard: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        if shard and (len(shard) == MOST_ROWS or size + (row["bytes"] or 0) > MOST_BYTES):
            yield shard
            shard, size = [], 0
        shard.append(row)
        size += row["bytes"] or 0
    if shard:
        yield shard


def image_name(row: dict[str, Any]) -> str:
    """A name that no stranger has chosen: the row's id, and the suffix of what the image is."""
    form = row["format"] or "image"
    return f"{row['id']}.{SUFFIXES.get(form, form.lower())}"


def write_tar(path: Path, samples: Iterable[Sample]) -> None:
    """`id.jpg`, `id.txt` and `id.json` a sample; headers without time or owner."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for row, image in samples:
            members = ((image_name(row), image), (f"{row['id']}.txt", row["text"].encode()))
            for name, data in (*members, (f"{row['id']}.json", line(record(row)).encode())):
                header = tarfile.TarInfo(name)
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))


def write_parquet(path: Path, samples: Iterable[Sample]) -> None:
    """A row a sample; `image` is {bytes, path}, as Hugging Face datasets have it."""
    group: list[dict[str, Any]] = []
    size = 0
    with parquet.ParquetWriter(path, _SCHEMA, compression="zstd") as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(group, schema=_SCHEMA))
            group.clear()

        for row, image in samples:
            told = record(row)
            told["meta"] = line(told["meta"])
            group.append({"image": {"bytes": image, "path": image_name(row)}, **told})
            size += len(image)
            if size >= GROUP_BYTES:
                flush()
                size = 0
        flush()
