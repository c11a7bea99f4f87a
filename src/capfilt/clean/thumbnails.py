"""Small JPEGs of a run's rows: decoded and encoded anew, so that nothing of the file but its look comes along."""

import bisect
import functools
import io
import itertools
import threading

from PIL import Image

from capfilt.clean.ledger import Ledger
from capfilt.config import from_dict
from capfilt.data.fetch import Fetching
from capfilt.data.refs import Images
from capfilt.errors import ImageError
from capfilt.files import read_json
from capfilt.inputs.images import decode

QUALITY = 82


class Thumbnails:
    """The images of a run, found by the place and the id of their row. Used within `with`; safe for several threads."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.shards = ledger, ledger.shards("rows")
        self.starts = [0, *itertools.accumulate(ledger.entries["rows", shard].rows for shard in self.shards)]
        self.images, self.one = Images(_fetching(ledger)), threading.Lock()
        self._shard = functools.lru_cache(16)(self._read)

    def __enter__(self) -> "Thumbnails":
        self.images.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.images.__exit__(None, None, None)

    def jpeg(self, place: int, row: str, px: int) -> bytes:
        """Upright, on white, no side longer than `px`.

        Raises ImageError where the image is not there, cannot be decoded, or failed in the run: what has once broken a
        decoder is not tried here, where it would take everything along.
        """
        with self.one:  # one large picture in memory at a time
            picture = decode(self.images.load(self._ref(place, row)), least_px=px)
            picture.thumbnail((px, px), Image.Resampling.BICUBIC)
            bare, to = Image.new("RGB", picture.size), io.BytesIO()  # no EXIF, no profile, no comment
            bare.paste(picture)
            bare.save(to, "JPEG", quality=QUALITY, optimize=True)
        return to.getvalue()

    def _ref(self, place: int, row: str) -> str:
        at = bisect.bisect_right(self.starts, place) - 1
        found = self._shard(at) if 0 <= at < len(self.shards) else []
        if not found or found[place - self.starts[at]][0] != row:
            raise ImageError("changed", "the run has gone on since: decide again")
        _, ref, failed = found[place - self.starts[at]]
        if failed or ref is None:
            raise ImageError(failed or "no_image", f"not shown: {failed or 'the row has no image'}")
        return ref

    def _read(self, at: int) -> list[tuple[str, str | None, str | None]]:
        table = self.ledger.table("rows", self.shards[at], ["id", "ref", "failed"])
        return list(zip(*(table[name].to_pylist() for name in ("id", "ref", "failed")), strict=True))


def _fetching(ledger: Ledger) -> Fetching | None:
    """As the run may fetch images."""
    path = ledger.out / "run.json"
    asked = read_json(path)["config"].get("fetching") if path.is_file() else None
    return None if asked is None else from_dict(Fetching, asked)
