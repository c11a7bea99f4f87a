"""How fast pictures are read, and what decoding JPEGs at a fraction of their size changes.

    python -m capfilt.recipes.input_speed           # half a minute on two cores; drawn pictures of 1536 x 1024
    python -m capfilt.recipes.input_speed FOLDER    # the JPEGs in a folder

The first table is one picture after another in this process; the second goes through `data.decoders`, as
`capfilt.load` reads files, from the moment the first picture is there.
"""

import io
import itertools
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from capfilt.data.decoders import Decoders, Reading
from capfilt.data.world import World, WorldConfig
from capfilt.errors import DataError, ImageError
from capfilt.inputs.images import decode, to_pixels

SIZE = (1536, 1024)
SIDES_PX = (224, 384)
TILE_PX = 128
PROCESSES = (0, 1, 2)
AT_LEAST = 128  # pictures through the decoders, some of them again where there are fewer


def input_speed(folder: Path | None = None, images: int = 8, rounds: int = 3) -> dict[str, Any]:
    """Measures on `images` JPEGs and prints both tables; {"scaled": rows, "throughput": rows}.

    Raises DataError: a folder without JPEGs.
    """
    jpegs = _drawn(images) if folder is None else _found(folder, images)
    print("   px   exact ms  scaled ms   mean and largest difference in levels of 255")
    scaled = [_compared(jpegs, px, rounds) for px in SIDES_PX]
    for row in scaled:
        print("{px:5} {exact_ms:10.1f} {scaled_ms:10.1f}   {mean:.2f}, {largest}".format(**row))
    print("processes  scaled  images/s")
    throughput = [_through(jpegs, count, way) for way in (False, True) for count in PROCESSES]
    for row in throughput:
        print("{processes:9}  {scaled!s:6}  {per_s:8.1f}".format(**row))
    return {"scaled": scaled, "throughput": throughput}


def _compared(jpegs: Sequence[bytes], px: int, rounds: int) -> dict[str, Any]:
    """Both ways take turns; medians of a picture's time."""
    spent: dict[int | None, list[float]] = {None: [], px: []}
    seen: dict[int | None, list[np.ndarray]] = {}
    for _, least in itertools.product(range(rounds), spent):
        began = time.perf_counter()
        seen[least] = [to_pixels(decode(data, least_px=least), px) for data in jpegs]
        spent[least].append((time.perf_counter() - began) / len(jpegs))
    off = np.abs(np.stack(seen[px]).astype(np.int16) - np.stack(seen[None]))
    exact, scaled = (1000 * statistics.median(spent[least]) for least in (None, px))
    return {"px": px, "exact_ms": exact, "scaled_ms": scaled, "mean": float(off.mean()), "largest": int(off.max())}


def _through(jpegs: Sequence[bytes], processes: int, scaled: bool) -> dict[str, Any]:
    """Pictures a second, from the first on: starting the processes is not counted."""
    given = itertools.islice(itertools.cycle(jpegs), max(len(jpegs), AT_LEAST))
    with Decoders(SIDES_PX[-1], Reading(processes, scaled)) as decoders:
        found = decoders.decode(list(given))
        next(found)
        began = time.perf_counter()
        rest = sum(not isinstance(one, ImageError) for one in found)
        return {"processes": processes, "scaled": scaled, "per_s": rest / (time.perf_counter() - began)}


def _drawn(count: int) -> list[bytes]:
    """Each full of small scenes side by side: more edges than a photograph has, so what is lost shows."""
    across, down = SIZE[0] // TILE_PX, SIZE[1] // TILE_PX
    scenes = World(WorldConfig(level="demo", px=TILE_PX, seed=0)).pictures("test", across * down * count)
    found = []
    for i in range(count):
        tiles = np.asarray(scenes[i * across * down : (i + 1) * across * down])
        rows = tiles.reshape(down, across, TILE_PX, TILE_PX, 3).swapaxes(1, 2)
        data = io.BytesIO()
        Image.fromarray(rows.reshape(*SIZE[::-1], 3)).save(data, "JPEG", quality=90)
        found.append(data.getvalue())
    return found


def _found(folder: Path, count: int) -> list[bytes]:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not files:
        raise DataError(f"{folder}: no JPEG in this folder; give one with some, or none to have scenes drawn")
    return [path.read_bytes() for path in files[:count]]


if __name__ == "__main__":
    input_speed(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
