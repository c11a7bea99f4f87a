"""A stage for tests that processes of their own can import: it says things louder, and does what it is told by them."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from capfilt.errors import ImageError

SAYS = pa.schema([("id", pa.string()), ("says", pa.string())])


@dataclass(frozen=True)
class Louder:
    """`notes` is a folder where processes leave their numbers (`opened-PID`, `closed-PID`) and their deaths.

    What a shard's first row says is obeyed: `die` (each time), `die once`, `refuse`, `break`.
    """

    notes: str
    sleep_s: float = 0.0
    name: str = "louder"

    def open(self, device: str | None = None) -> "_Speaker":
        (Path(self.notes) / f"opened-{os.getpid()}").write_text(str(device), encoding="utf-8")
        return _Speaker(self)


class _Speaker:
    def __init__(self, stage: Louder):
        self.notes, self.sleep_s = Path(stage.notes), stage.sleep_s

    def work(self, table: pa.Table) -> pa.Table:
        time.sleep(self.sleep_s)
        says = table["says"].to_pylist()
        mark = self.notes / f"died-{table['id'][0]}"
        if says[0] == "die" or (says[0] == "die once" and not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if says[0] == "refuse":
            raise ImageError("refused", "it does not want to")
        if says[0] == "break":
            raise ValueError("a bug")
        words = [None if text is None else text.upper().split() for text in says]
        loud = pa.table({"id": table["id"], "words": pa.array(words, pa.list_(pa.string()))})
        return pa.concat_tables([loud.slice(0, 1), loud.slice(1)])  # in pieces, each with what it was cut from

    def close(self) -> None:
        (self.notes / f"closed-{os.getpid()}").touch()


def tasks(count: int, **orders: str) -> list[tuple[int, pa.Table]]:
    """So many shards of four rows; `shard_3="die"` is what the first row of shard 3 says."""
    found = []
    for shard in range(count):
        says = [orders.get(f"shard_{shard}", f"some words of {shard}"), None, "", "\u00fc \U0001f642 " * 50]
        rows = pa.table({"id": [f"{shard}-{row}" for row in range(4)], "says": says}, SAYS)
        found.append((shard, rows))
    return found


def noted(notes: Path, what: str) -> list[int]:
    """The processes that left that note."""
    return sorted(int(path.name.partition("-")[2]) for path in notes.glob(f"{what}-*"))
