"""What people said about rows, line by line in `OUT/reviews.jsonl`. Nothing is taken out again, not even by an undo.

{"id": "9f…", "verdict": "accept", "which": "web", "text": "a red boat", "at": "2026-01-31T12:00:00+00:00"}
{"id": "9f…", "verdict": "undo", "which": null, "text": null, "at": "…"}
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
from pyarrow import compute

from capfilt.errors import ConfigError, DataError
from capfilt.files import append_line

NAME = "reviews.jsonl"
KIND = "person"  # of the reason of a row that a person decided
Verdict = Literal["accept", "reject", "edit", "undo"]
Which = Literal["web", "synthetic"]


@dataclass(frozen=True)
class Review:
    """One word about one row.

    id:      the row's.
    verdict: `accept`: `text` stands for the row; `reject`: the row is dropped; `edit`: `text` is the person's own;
             `undo`: the last word about this row that still counts is taken back.
    which:   whose text is meant. A rejection of `None` means every text of the row.
    text:    as the person saw or wrote it; scores and captions may be made anew afterwards.
    at:      when, ISO 8601; now if empty.
    """

    id: str
    verdict: Verdict
    which: Which | None = None
    text: str | None = None
    at: str = ""

    def __post_init__(self) -> None:
        if self.verdict not in get_args(Verdict):
            raise ConfigError(f"review of {self.id}: {self.verdict!r} is not one of {', '.join(get_args(Verdict))}")
        if self.which is not None and self.which not in get_args(Which):
            raise ConfigError(f"review of {self.id}: which={self.which!r} is neither web nor synthetic")
        if self.verdict in ("accept", "edit") and not (self.text or "").strip():
            raise ConfigError(f"review of {self.id}: to {self.verdict} takes a text")
        if self.verdict == "accept" and self.which is None:
            raise ConfigError(f"review of {self.id}: accept which text, web or synthetic?")
        if not self.at:
            object.__setattr__(self, "at", datetime.now(UTC).isoformat(timespec="seconds"))


def append(out: Path | str, *reviews: Review) -> None:
    """Writes them behind what was said before; when this returns, they survive any death. One process at a time.

    Raises StorageError where the disk refuses.
    """
    if reviews:
        append_line(Path(out) / NAME, "\n".join(json.dumps(asdict(review), ensure_ascii=False) for review in reviews))


def last_words(out: Path | str) -> dict[str, Review]:
    """Row id → what counts of all that was said about it; {} where nobody said anything.

    Raises DataError for a line that is not a review. A line cut off at the end does not count.
    """
    path = Path(out) / NAME
    if not path.is_file():
        return {}
    said: dict[str, list[Review]] = {}
    *lines, _half = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            review = Review(**json.loads(line))
        except (ValueError, TypeError, ConfigError) as error:
            raise DataError(f"{path}: line {number} is not a review ({error}); mend or remove it") from None
        before = said.setdefault(review.id, [])
        if review.verdict != "undo":
            before.append(review)
        elif before:
            before.pop()
    return {row: reviews[-1] for row, reviews in said.items() if reviews}


def heed(decided: pa.Table, words: Mapping[str, Review]) -> pa.Table:
    """The same decisions where nobody said anything, else the person's.

    decided: `policies.DECIDED`. A row whose image failed stays failed: a text alone is no pair.
    """
    said = compute.is_in(decided["id"], pa.array(words, pa.string()))
    usable = compute.or_(compute.not_equal(decided["decision"], "failed"), compute.equal(decided["kind"], "not_scored"))
    at = np.flatnonzero(compute.and_(said, usable).to_numpy(zero_copy_only=False))
    if not len(at):
        return decided
    rows = [row | _verdict(words[row["id"]]) for row in decided.take(pa.array(at)).to_pylist()]
    order = np.arange(len(decided))
    order[at] = len(decided) + np.arange(len(at))
    return pa.concat_tables([decided, pa.Table.from_pylist(rows, schema=decided.schema)]).take(pa.array(order))


def _verdict(review: Review) -> dict[str, Any]:
    if review.verdict == "reject":
        told: dict[str, Any] = {"decision": "drop", "reason": "a person rejected it", "text": None, "texts": []}
    else:
        mine = review.verdict == "accept" and review.which == "web"
        reason = f"a person accepted the {review.which} text" if review.verdict == "accept" else "a person wrote it"
        decision = "keep" if mine else "replace"
        told = {"decision": decision, "reason": reason, "text": review.text, "texts": [review.text]}
    return told | {"kind": KIND}
