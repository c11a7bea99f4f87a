"""Small tables of a run, and a whole run's folder, as the tests of decisions need them."""

import hashlib

import pyarrow as pa
from pyarrow import parquet

from capfilt.clean.columns import FLAGS, ROWS, SCORES
from capfilt.clean.ledger import Ledger

NAN = float("nan")


def row_id(key):
    return hashlib.blake2b(str(key).encode(), digest_size=16).hexdigest()


def rows(**by_key):
    """key → texts, or a dict of columns."""
    columns = {key: value if isinstance(value, dict) else {"texts": value} for key, value in by_key.items()}
    return pa.Table.from_pylist(
        [{"id": row_id(key), "key": key, "source": "s", "texts": [], **more} for key, more in columns.items()], ROWS
    )


def scores(**by_key):
    """key → (scores of the web texts, {candidate: score}); ITC is half of ITM."""
    return pa.Table.from_pylist(
        [
            {
                "id": row_id(key),
                "itm_web": web,
                "itc_web": [score / 2 for score in web],
                "synthetic": list(written),
                "logp": [-1.0] * len(written),
                "itm_synthetic": list(written.values()),
                "itc_synthetic": [score / 2 for score in written.values()],
            }
            for key, (web, written) in by_key.items()
        ],
        SCORES,
    )


def flags(table, **rules):
    """FLAGS of that table's rows; key → rule."""
    broken = {row_id(key): rule for key, rule in rules.items()}
    return pa.Table.from_pylist(
        [
            {"id": row, "rule": broken.get(row), "told": f"{broken[row]} by hand" if row in broken else None}
            for row in table["id"].to_pylist()
        ],
        FLAGS,
    )


def run(out, *parts, broken=None):
    """Commits shards of (rows, scores or None), and flags of all rows; → out."""
    ledger = Ledger(out)
    for shard, (table, judged) in enumerate(parts):
        ledger.commit("rows", shard, table)
        if judged is not None:
            ledger.commit("scores", shard, judged)
    if broken is not None:
        parquet.write_table(broken, out / "flags.parquet")
    return out
