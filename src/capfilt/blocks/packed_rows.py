"""Texts one behind another instead of padded to one length: what is done token by token is done for real ones alone.

Only attention knows which tokens belong together: within a text, and within all that looks at one image.

Shapes: P tokens of R texts about B images, image by image; L tokens of the longest text; D any width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Run:
    """Neighbouring images that meet equally many rows: how many images, which, and which rows they meet."""

    count: int
    images: slice
    rows: slice


def runs(counts: Sequence[int]) -> tuple[Run, ...]:
    """The runs of images that meet so many rows each, one image's behind another's; who meets none is in no run."""
    found, image, row = [], 0, 0
    for size, group in groupby(counts):
        count = len(list(group))
        if size:
            found.append(Run(count, slice(image, image + count), slice(row, row + count * size)))
        image, row = image + count, row + count * size
    return tuple(found)


@dataclass(frozen=True)
class PackedRows:
    """R texts about B images; `pack` makes it.

    ids, places:   each token and its position in its text.
    first:         where each text begins.
    tokens, texts: runs of images by the tokens, and by the texts, that look at them.
    table:         the token at each place of the padded texts, and at padding any of the same text; None where all
                   are of one length.
    mask:          1 at tokens of the table, 0 at padding.
    back:          where in the flattened table each token stands.
    """

    ids: Int[Tensor, "p"]
    places: Int[Tensor, "p"]
    first: Int[Tensor, "r"]
    tokens: tuple[Run, ...]
    texts: tuple[Run, ...]
    table: Int[Tensor, "r l"] | None
    mask: Int[Tensor, "r l"]
    back: Int[Tensor, "p"]

    def apart(self, x: Float[Tensor, "p d"]) -> Float[Tensor, "r l d"]:
        """Each text as a row of its own."""
        if self.table is None:
            return x.unflatten(0, self.mask.shape)
        return x.index_select(0, self.table.flatten()).unflatten(0, self.mask.shape)

    def together(self, x: Float[Tensor, "r l d"]) -> Float[Tensor, "p d"]:
        """The way back."""
        x = x.flatten(0, 1)
        return x if self.table is None else x.index_select(0, self.back)


def pack(
    rows: Sequence[np.ndarray], counts: Sequence[int], device: torch.device, mark: int | None = None
) -> PackedRows:
    """Id rows, image by image, of which image b has counts[b]. There is at least one, and none is empty.

    mark: takes the place of each row's first id.
    """
    lengths = np.array([len(row) for row in rows])
    ends = np.cumsum(lengths)
    ids = np.concatenate(rows)
    first, column = ends - lengths, np.arange(lengths.max())
    shown = column < lengths[:, None]
    table = first[:, None] + np.minimum(column, lengths[:, None] - 1)
    if mark is not None:
        ids[first] = mark
    edges = np.cumsum([0, *counts])
    sizes = np.diff(np.concatenate(([0], ends))[edges]).tolist()

    def tensor(x: np.ndarray) -> Tensor:
        return torch.from_numpy(x.astype(np.int64)).to(device)

    return PackedRows(
        ids=tensor(ids),
        places=tensor(np.nonzero(shown)[1]),
        first=tensor(first),
        tokens=runs(sizes),
        texts=runs(list(counts)),
        table=None if shown.all() else tensor(table),
        mask=tensor(shown),
        back=tensor(np.flatnonzero(shown)),
    )
