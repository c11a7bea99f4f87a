"""Which rows of a run are written, with which text, and what is told of each."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from fsspec.implementations.local import LocalFileSystem
from pyarrow import parquet

from capfilt.data.run_source import KEPT, VIEW, Mix, is_run, joined
from capfilt.errors import ConfigError, NothingToRead

DECISIONS = ("keep", "replace", "drop", "failed")
SCORES = ("itm_web", "itm_synthetic", "itc_web", "itc_synthetic", "score_web", "score_synthetic")
STRINGS = ("id", "key", "source", "decision", "reason", "text", "web_text", "synthetic_text", "licence", "sha256")
COLUMNS = (*STRINGS, "width", "height", *SCORES, "texts", "meta")


@dataclass(frozen=True)
class Choice:
    """Which rows, and which of their texts.

    decisions: rows of these alone; None for all in tables, for those with a text elsewhere.
    mix:       where a web and a synthetic text are kept, which one a row gets; None for the better one, as decided.
    """

    decisions: tuple[str, ...] | None = None
    mix: Mix | None = None

    def __post_init__(self) -> None:
        if unknown := set(self.decisions or ()) - set(DECISIONS):
            raise ConfigError(f"decision {', '.join(sorted(unknown))}: there are {', '.join(DECISIONS)}")

    def with_text(self) -> "Choice":
        """The same for formats that pair an image with a text. Raises ConfigError for decisions that leave none."""
        if without := set(self.decisions or ()) - set(KEPT):
            raise ConfigError(
                f"decision {', '.join(sorted(without))}: such rows have no text to train on; jsonl and csv write them"
            )
        return Choice(self.decisions or KEPT, self.mix)


def total(run: Path) -> int:
    """Rows of the run. Raises NothingToRead where it is none, or not decided."""
    if not is_run(LocalFileSystem(), str(run)):
        raise NothingToRead(f"{run}: no decided cleaning run here ({VIEW} is missing); run capfilt decide {run} first")
    return parquet.read_metadata(run / VIEW).num_rows


def chosen(run: Path, choice: Choice) -> Iterator[dict[str, Any]]:
    """The rows, in the run's order, as `data.run_source.joined` names their columns; `text` is the one chosen."""
    for table in joined(LocalFileSystem(), str(run)):
        if choice.decisions is not None:
            table = table.filter(pc.is_in(table["decision"], pa.array(choice.decisions)))
        for name in SCORES:
            table = table.set_column(table.schema.get_field_index(name), name, _shortest(table[name]))
        for row in table.to_pylist():
            yield row | {"text": choice.mix.choose(row)} if choice.mix else row


def record(row: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of a row, wherever it is written: plain JSON values, id first, null for what there is not."""
    meta = json.loads(row["meta"], parse_constant=lambda _: None) if row["meta"] else {}
    told = {"texts": row["texts"] or [], "meta": meta}
    return {name: told.get(name, row.get(name)) for name in COLUMNS}


def line(record: Mapping[str, Any]) -> str:
    """A record as JSON that every reader of lines takes for one: what else parts lines is written as \\u2028."""
    text = json.dumps(record, ensure_ascii=False, allow_nan=False)
    for mark in "\x85\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def _shortest(scores: pa.ChunkedArray) -> pa.ChunkedArray:
    """Float32 as the shortest decimals that mean the same; null for what is not finite."""
    finite = pc.if_else(pc.is_finite(scores), scores, None)
    return pc.cast(pc.cast(finite, pa.string()), pa.float64())
