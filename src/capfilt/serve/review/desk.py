"""What the page asks for and says, as plain dicts: rows, a word about a row, undo, find and replace. No HTTP here."""

import math
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from capfilt.clean import reviews
from capfilt.clean.ledger import Ledger
from capfilt.clean.reviews import Review
from capfilt.clean.telling import words
from capfilt.clean.thumbnails import Thumbnails
from capfilt.errors import ConfigError, DataError
from capfilt.report.clean.record import DECISIONS
from capfilt.serve.review.rows import LONGEST_SEARCH, Asked, Rows

PAGE = 100  # rows an answer at most
LONGEST_TEXT = 4000  # characters of a person's text
SOURCES, EXAMPLES = 300, 20
SMALL, LARGE = 320, 1280  # px of the longer side


class Desk:
    """One run under review. Safe for several threads; used within `with`.

    folder: for what is kept beside the run while it is looked at.
    """

    def __init__(self, out: Path, folder: Path) -> None:
        self.out, self.rows = out, Rows(out, folder)
        self.made_at = self._changed()
        self.images = Thumbnails(Ledger(out))
        self.said: dict[str, Review] = {}
        self.done: list[list[str]] = []  # ids of each thing said here, for undo
        self.one = threading.Lock()
        self._read()

    def __enter__(self) -> "Desk":
        self.images.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.images.__exit__(None, None, None)

    def about(self) -> dict[str, Any]:
        """What there is to look at: name, counts, sources, kinds of reasons, bars."""
        numbers = dict(self.rows.counts("decision"))
        return {
            "name": self.out.resolve().name,
            "rows": len(self.rows),
            "decisions": {name: numbers.get(name, 0) for name in DECISIONS},
            "sources": self.rows.counts("source")[:SOURCES],
            "kinds": [(kind, _kind(kind), n) for kind, n in self.rows.counts("kind")],
            "policy": self.rows.made["policy"],
            "bars": asdict(self.rows.bars),
            **self._state(),
        }

    def page(self, asked: Asked, offset: int, many: int, version: int | None = None) -> dict[str, Any]:
        """`many` rows from the `offset`-th on."""
        if offset < 0 or not 0 < many <= PAGE:
            raise ConfigError(f"offset={offset}, many={many}: from 0 on, and 1 to {PAGE} rows")
        version = self.rows.version if version is None else version
        places = self.rows.find(asked, version)
        shown = [self._shown(place) for place in places[offset : offset + many].tolist()]
        return {"total": len(places), "offset": offset, "version": version, "rows": shown, **self._state()}

    def review(self, row: str, verdict: str, which: str | None, text: str | None) -> dict[str, Any]:
        """One word about one row, on disk when this returns. Raises DataError for an unknown row, ConfigError."""
        place = self.rows.place(row)
        if place is None:
            raise DataError(f"no row {row[:40]!r} here")
        if verdict not in ("accept", "reject", "edit"):
            raise ConfigError(f"verdict={verdict!r} is not one of accept, reject, edit")
        found = self.rows.row(place)
        if found["decision"] == "failed" and not found["reason"].startswith("not_scored"):
            raise ConfigError("this row could not be read: without an image there is no pair to accept")
        if verdict == "accept":
            text = found.get(f"{which}_text")
        elif verdict == "edit":
            text = _person_text(text)
        self._say([Review(row, verdict, which, text)])  # type: ignore[arg-type]  # Review checks both
        return {"row": self._shown(place), **self._state()}

    def undo(self) -> dict[str, Any]:
        """Takes back the last thing said here, a replacement in many rows as a whole."""
        with self.one:
            if not self.done:
                return {"undone": 0, "rows": [], **self._state()}
            rows = self.done.pop()
            reviews.append(self.out, *(Review(row, "undo") for row in rows))
            self._read()
        places = [place for place in map(self.rows.place, rows[:PAGE]) if place is not None]
        return {"undone": len(rows), "rows": [self._shown(place) for place in places], **self._state()}

    def replace(self, asked: Asked, find: str, put: str, which: str, case: bool, apply: bool) -> dict[str, Any]:
        """Puts `put` for each `find` in one text of all rows that are asked for; unless `apply`, only shows how.

        which: `web`, `synthetic`, or `text`, what stands for the row now. What is changed stands as the person's text.
        """
        if not find or max(len(find), len(put)) > LONGEST_SEARCH:
            raise ConfigError(f"find and replace take 1 to {LONGEST_SEARCH} characters")
        if which not in ("web", "synthetic", "text"):
            raise ConfigError(f"which={which!r} is not one of web, synthetic, text")
        pattern = re.compile(re.escape(find), 0 if case else re.IGNORECASE)
        column, places = "text" if which == "text" else f"{which}_text", self.rows.find(asked)
        hit = self.rows.contains([column], find, case) | self.rows.reviewed  # a reviewed row may have a text of its own
        made = [
            (row, before, pattern.sub(lambda _: put, before))
            for row, before in self._texts(places[hit[places]], which)
            if pattern.search(before)
        ]
        changed = [(row, before, after) for row, before, after in made if after.strip() and after != before]
        if apply and changed:
            side = None if which == "text" else which
            self._say([Review(row, "edit", side, after) for row, _, after in changed])  # type: ignore[arg-type]
        return {
            "changed": len(changed),
            "empty": sum(not after.strip() for _, _, after in made),
            "examples": [{"id": row, "before": old, "after": new} for row, old, new in changed[:EXAMPLES]],
            "applied": apply,
            **self._state(),
        }

    def image(self, row: str, large: bool) -> bytes:
        """A JPEG made anew. Raises DataError for an unknown row, ImageError where its image cannot be shown."""
        place = self.rows.place(row)
        if place is None:
            raise DataError(f"no row {row[:40]!r} here")
        return self.images.jpeg(place, row, LARGE if large else SMALL)

    def _texts(self, places: np.ndarray, which: str) -> Iterator[tuple[str, str]]:
        """(id, text) of rows that have that text and did not fail."""
        column = "text" if which == "text" else f"{which}_text"
        for start in range(0, len(places), 10_000):
            some = self.rows.table.select(["id", "decision", column]).take(places[start : start + 10_000])
            for row, decision, text in zip(*(some[name].to_pylist() for name in some.column_names), strict=True):
                said = self.said.get(row)
                if which == "text" and said is not None:
                    text = said.text if said.verdict != "reject" else None
                if text is not None and decision != "failed":
                    yield row, text

    def _say(self, said: list[Review]) -> None:
        with self.one:
            reviews.append(self.out, *said)
            self.said |= {review.id: review for review in said}
            self.done.append([review.id for review in said])
            self.rows.mark_reviewed(review.id for review in said)

    def _read(self) -> None:
        self.said = reviews.last_words(self.out)
        self.rows.mark_reviewed(self.said, alone=True)

    def _shown(self, place: int) -> dict[str, Any]:
        row = self.rows.row(place)
        said = self.said.get(row["id"])
        row["kind"] = _kind(row["kind"])
        row["said"] = None if said is None else {"verdict": said.verdict, "which": said.which, "text": said.text}
        return {name: None if value != value else value for name, value in row.items()}  # NaN is no JSON

    def _state(self) -> dict[str, Any]:
        return {"reviewed": len(self.said), "undo": len(self.done), "stale": self._changed() != self.made_at}

    def _changed(self) -> int:
        """When decisions were made, so that it is noticed when they are made anew."""
        try:
            return (self.out / "decisions.parquet").stat().st_mtime_ns
        except OSError:
            return 0


def asked_of(values: Mapping[str, Any]) -> Asked:
    """Strings of a query, or a JSON object, as `Asked`. Raises ConfigError for what cannot be."""
    try:
        low, high = (None if values.get(name) in (None, "") else float(values[name]) for name in ("low", "high"))
    except (TypeError, ValueError):
        raise ConfigError("low and high are numbers") from None
    told = {name: values.get(name) or None for name in ("decision", "kind", "text")}
    source = values.get("source")
    reviewed = {"yes": True, "no": False}.get(str(values.get("reviewed", "")))
    if any(value is not None and not isinstance(value, str) for value in (*told.values(), source)):
        raise ConfigError("decision, source, kind and text are strings")
    if any(math.isnan(bound) for bound in (low, high) if bound is not None):
        raise ConfigError("low and high are numbers")
    return Asked(
        **told,
        source=source,
        which=values.get("which") or "web",
        low=low,
        high=high,
        reviewed=reviewed,
        order=values.get("order") or "given",
    )


def _kind(kind: str) -> str:
    return "the filter's scores" if kind == "filter" else words("failed", kind)


def _person_text(text: str | None) -> str:
    text = " ".join((text or "").split())
    if not text or len(text) > LONGEST_TEXT:
        raise ConfigError(f"a text of {len(text)} characters; 1 to {LONGEST_TEXT}")
    return text
