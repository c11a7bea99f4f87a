"""What the report shows of single rows: their known truth, where there is one, and the pictures of the gallery."""

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from capfilt.files import atomic, write_json
from capfilt.pair import Row
from capfilt.runtime import rng

if TYPE_CHECKING:
    from capfilt.bootstrap.rounds import Cycle

PER_SECTION = 12
SIDE = 96


def keep_truth(cycle: "Cycle", rows: list[Row]) -> None:
    """Writes `truth.json` (kind and match of each web text, facts true and stated of both texts) and the gallery."""
    if (cycle.out / "gallery.json").is_file():
        return
    web, out = cycle.web, cycle.out
    index = {key: i for i, key in enumerate(web.keys)}
    known: dict[str, tuple[str, bool]] = {}
    if web.kinds is not None and web.match is not None:
        known = dict(zip(web.keys, zip(web.kinds, web.match, strict=True), strict=True))
    facts: dict[str, dict[str, tuple[int, int]]] = {"web": {}, "synthetic": {}}
    if web.judge is not None:
        for row in rows:
            for name, text in (("web", row.text_web), ("synthetic", row.text_synthetic)):
                if text:
                    judged = web.judge(index[row.key], text)
                    facts[name][row.key] = (judged.true, judged.stated)
    write_json(out / "truth.json", {"web": known, "web_facts": facts["web"], "synthetic_facts": facts["synthetic"]})
    _gallery(cycle, [*rows, *web.failed], index, known, facts)


def _gallery(cycle: "Cycle", rows: list[Row], index: dict[str, int], known, facts) -> None:
    order = rng(cycle.config.seed, "gallery").permutation(len(rows))
    cards: list[dict[str, Any]] = []
    pictures = []
    for section in ("kept", "replaced", "dropped", "failed"):
        chosen = [rows[i] for i in order if rows[i].decision == section][:PER_SECTION]
        for row in chosen:
            picture = cycle.web.pictures[index[row.key]] if row.key in index else np.zeros((1, 1, 3), np.uint8)
            pictures.append(_thumbnail(picture))
            cards.append(
                {
                    "section": section,
                    "web": row.text_web,
                    "synthetic": row.text_synthetic,
                    "score_web": row.score_web,
                    "score_synthetic": row.score_synthetic,
                    "keep_web": row.keep_web,
                    "keep_synthetic": row.keep_synthetic,
                    "reason": row.reason,
                    "kind": known.get(row.key, (None,))[0],
                    "truth_web": facts["web"].get(row.key),
                    "truth_synthetic": facts["synthetic"].get(row.key),
                }
            )

    array = io.BytesIO()  # a file on the disk would be written past Python, which then cannot say that the disk is full
    np.save(array, np.stack(pictures))
    atomic(cycle.out / "gallery.npy", lambda temporary: temporary.write_bytes(array.getvalue()))
    write_json(cycle.out / "gallery.json", cards)


def _thumbnail(picture: np.ndarray) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
