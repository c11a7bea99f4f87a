"""A cleaning run as a source of pairs: what was kept of it, with the images where they always were.

    RUN/decisions.parquet    what became of each row, in the order of
    RUN/rows/NNNNN.parquet   what was read and where its image lies: the shards that RUN/manifest*.jsonl account for
    RUN/run.json             whether images may be fetched from the net

Nothing is copied: change the policy with `capfilt decide`, and the same folder is another training set.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from capfilt.config import from_dict
from capfilt.data.fetch import Fetching
from capfilt.data.readers import Failure, Origin, Read
from capfilt.data.refs import Images, Ref
from capfilt.errors import ConfigError, DataError, ImageError
from capfilt.pair import Pair
from capfilt.runtime import derive

VIEW, RUN = "decisions.parquet", "run.json"
KEPT = ("keep", "replace")
READ = ("id", "texts", "licence", "meta", "ref", "sha256", "bytes", "format", "width", "height")  # columns of rows


@dataclass(frozen=True)
class Mix:
    """Which text a row is given where a web text and a synthetic one are kept; where one is, it is that one.

    A row draws by a number of its own, `derive(seed, "mix", id)`: neither order nor neighbours matter.
    web: probability of the web text, in [0, 1].
    """

    web: float
    seed: int = 0

    @classmethod
    def of(cls, text: str) -> "Mix":
        """From `web=.3,syn=.7`, `web=.3` or `web=.3,syn=.7,seed=1`. Raises ConfigError for anything else."""
        given: dict[str, float] = {}
        for item in text.split(","):
            name, _, value = item.partition("=")
            try:
                given[{"synthetic": "syn"}.get(name.strip(), name.strip())] = float(value)
            except ValueError:
                raise ConfigError(f"mix {text!r}: {item!r} is no name=number; write web=.3,syn=.7") from None
        if not given or set(given) - {"web", "syn", "seed"} or set(given) == {"seed"}:
            raise ConfigError(f"mix {text!r}: it has shares of web and syn, and a seed; write web=.3,syn=.7")
        web = given.get("web", round(1 - given.get("syn", 0), 9))
        if not (0 <= web <= 1 and abs(web + given.get("syn", 1 - web) - 1) < 1e-6):
            raise ConfigError(f"mix {text!r}: shares of web and syn lie in [0, 1] and add up to 1")
        return cls(web, int(given.get("seed", 0)))

    def choose(self, row: Mapping[str, Any]) -> str | None:
        """The text for a row of `joined`; None where none is kept."""
        own, texts = set(row["own"] or ()), row["texts"] or []
        web, synthetic = [t for t in texts if t in own], [t for t in texts if t not in own]
        if web and synthetic:
            from_web = derive(self.seed, "mix", row["id"]) < self.web * 2**63
            texts = web if from_web else synthetic
        best = (row["text"], row["web_text"], row["synthetic_text"])
        return next((text for text in (*best, *texts) if text in texts), None)


def is_run(fs: Any, folder: str) -> bool:
    """Whether a cleaning run lies there, and its rows are decided."""
    return fs.isfile(f"{folder}/{VIEW}")


def joined(fs: Any, folder: str) -> Iterator[pa.Table]:
    """A table a shard: all columns of the decisions beside `READ` of the rows, whose `texts` are here called `own`.

    Raises DataError where the decisions are of other rows than there are.
    """
    try:
        with fs.open(f"{folder}/{VIEW}", "rb") as handle:
            decided = _Decided(parquet.ParquetFile(handle))
            for name in _shards(fs, folder):
                with fs.open(name, "rb") as shard:
                    rows = parquet.read_table(shard, columns=list(READ), use_threads=False)
                view = decided.take(len(rows))
                if not view["id"].equals(rows["id"]):
                    raise DataError(_stale(folder))
                for column in READ[1:]:
                    view = view.append_column("own" if column == "texts" else column, rows[column])
                yield view
            if len(decided.take(1)):
                raise DataError(_stale(folder))
    except FileNotFoundError as error:
        raise DataError(f"{folder}: no whole cleaning run; {error.filename or error} is missing") from None
    except pa.ArrowInvalid as error:
        raise DataError(f"{folder}: a table of this run is damaged ({error}); capfilt clean makes it again") from None


def images_of(fs: Any, folder: str) -> Images:
    """What loads the run's images; from the net too, where the run was allowed to."""
    about = json.loads(fs.cat_file(f"{folder}/{RUN}")) if fs.isfile(f"{folder}/{RUN}") else {}
    fetching = about.get("config", {}).get("fetching")
    return Images(from_dict(Fetching, fetching) if fetching else None)


def load(images: Images, row: Mapping[str, Any]) -> bytes:
    """The image of a row of `joined`. Raises ImageError, also as `changed` where it is not the one that was judged."""
    if row["ref"] is None:
        raise ImageError("no_image", f"{row['key']}: the run has no image of it")
    data = images.load(row["ref"])
    if row["sha256"] is not None and hashlib.sha256(data).hexdigest() != row["sha256"]:
        raise ImageError("changed", f"{row['key']}: is not the image that was judged; clean it again")
    return data


def read_run(origin: Origin, mix: Mix | None = None, lazy: bool = False) -> Iterator[Read]:
    """Each row that was kept or replaced, with every text that is kept for it, or with `mix` with one.

    Rows that were dropped or failed are not told of.
    lazy: images stay where they are, as refs. Else they are loaded, and one that cannot be, or is not the one that was
          judged, is a Failure.
    """
    with images_of(origin.fs, origin.root) as images:
        for table in joined(origin.fs, origin.root):
            for row in table.filter(pc.is_in(table["decision"], pa.array(KEPT))).to_pylist():
                key, source = row["key"], row["source"]
                texts = tuple(filter(None, [mix.choose(row)] if mix else row["texts"]))
                try:
                    image = Ref.of_json(row["ref"]) if lazy else load(images, row)
                    yield key, Pair(key, image, texts, source, meta(row, texts))
                except ImageError as error:
                    yield key, Failure(key, error.reason, str(error), source, texts)


def meta(row: Mapping[str, Any], texts: tuple[str, ...]) -> dict[str, Any]:
    """A row's other columns, its licence among them; what is known of its web text only where that is what it has."""
    found = json.loads(row["meta"]) if row["meta"] else {}
    if list(texts) != row["own"]:
        found.pop("truth", None)
    return found | ({"licence": row["licence"]} if row["licence"] else {})


class _Decided:
    """The decisions, so many rows at a time."""

    def __init__(self, file: parquet.ParquetFile) -> None:
        self._batches = file.iter_batches(use_threads=False)
        self._rest = file.schema_arrow.empty_table()

    def take(self, count: int) -> pa.Table:
        """The next rows, fewer at the end."""
        parts, have = [self._rest], len(self._rest)
        while have < count and (batch := next(self._batches, None)) is not None:
            parts.append(pa.Table.from_batches([batch]))
            have += len(batch)
        whole = pa.concat_tables(parts)
        self._rest = whole.slice(count)
        return whole.slice(0, count)


def _shards(fs: Any, folder: str) -> list[str]:
    numbers = set()
    for name in fs.glob(f"{folder}/manifest*.jsonl"):
        *lines, _cut_off = fs.cat_file(name).decode("utf-8").split("\n")
        entries = map(json.loads, lines)
        numbers |= {entry["shard"] for entry in entries if entry["stage"] == "rows"}
    return [f"{folder}/rows/{number:05d}.parquet" for number in sorted(numbers)]


def _stale(folder: str) -> str:
    return f"{folder}: its decisions are of other rows than it holds; run capfilt decide {folder} first"
