"""What texts in the making have said, held so that nothing is moved when a search drops some and forks others.

The texts of an image lie side by side in one row of keys: a step writes T new ones behind those that are there, and who
continues whom is a table of which text sees which key. Re-ordering is re-ordering that table; the start is there once
for all texts of an image.

Shapes: B images, T texts an image, L new positions, S keys an image, H heads, d = width / H.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from capfilt.blocks.attention import Heads, KeysValues

ROOM = 64  # keys an image at first; doubled when they are full


class GrowingPast:
    """A `Past` of B images, empty at first."""

    def __init__(self, images: int, device: torch.device):
        self.images, self.length, self.used = images, 0, 0
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.sees: Bool[Tensor, "b t s"] = torch.ones(images, 1, 0, dtype=torch.bool, device=device)
        self.bias: Float[Tensor, "b 1 q s"] | None = None
        self.new = 0

    def open(self, rows: int, length: int) -> None:
        """As `Past`."""
        device = self.sees.device
        self.new = rows // self.images * length
        square = torch.ones(self.new, self.new, dtype=torch.bool, device=device)
        among = square.tril() if length > 1 else square.tril().triu()  # its own past, or each text itself alone
        before = self.sees.expand(-1, self.new, -1)
        allowed = torch.cat((before, among.expand(self.images, -1, -1)), dim=2)
        self.bias = None
        if self.new > 1:
            self.bias = torch.zeros(allowed.shape, device=device).masked_fill_(~allowed, -math.inf)[:, None]
        self.sees = allowed[:, -1:] if length > 1 else allowed
        self.length += length

    def close(self) -> None:
        """As `Past`."""
        self.used += self.new

    def add(self, layer: int, keys: Heads, values: Heads) -> KeysValues:
        """As `Past`; they are written in place."""
        end = self.used + self.new
        if layer == len(self.keys):
            b, h, _, d = keys.shape
            self.keys.append(keys.new_empty(b, h, max(ROOM, 2 * end), d))
            self.values.append(torch.empty_like(self.keys[-1]))
        if end > self.keys[layer].shape[2]:
            for held in (self.keys, self.values):
                old = held[layer]
                held[layer] = torch.cat((old, torch.empty_like(old)), dim=2)
        for held, new in ((self.keys, keys), (self.values, values)):
            held[layer][:, :, self.used : end] = new
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def follow(self, rows: Int[Tensor, "r"]) -> None:
        """Row r goes on from row rows[r] of the last step, which is of the same image."""
        parents = (rows.view(-1, self.images) // self.images).T[:, :, None]
        self.sees = self.sees.gather(1, parents.expand(-1, -1, self.sees.shape[2]))

    def keep(self, images: Int[Tensor, "b"]) -> None:
        """Only these images go on."""
        self.images, self.sees = len(images), self.sees[images]
        self.keys = [keys[images] for keys in self.keys]
        self.values = [values[images] for values in self.values]


class RingPast:
    """A `Past` of B slots, one text each, that begin and end when they like.

    A step's new keys stand in one column of all slots. Columns go round; `sees` knows which hold a slot's own text.
    span: most positions of a text.
    """

    def __init__(self, slots: int, span: int, device: torch.device):
        self.images, self.span, self.column = slots, span, -1
        self.length: Tensor = torch.zeros(slots, dtype=torch.long, device=device)
        self.sees: Bool[Tensor, "b s"] = torch.zeros(slots, span, dtype=torch.bool, device=device)
        self.bias: Float[Tensor, "b 1 1 s"] | None = None
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def open(self, rows: int, length: int) -> None:
        """As `Past`, for one text a slot and one position a step."""
        assert rows == self.images and length == 1
        self.column = (self.column + 1) % self.span
        self.sees[:, self.column] = True
        bias = torch.zeros(self.sees.shape, device=self.sees.device).masked_fill_(~self.sees, -math.inf)
        self.bias = bias[:, None, None]

    def add(self, layer: int, keys: Heads, values: Heads) -> KeysValues:
        """As `Past`; they are written in place."""
        if layer == len(self.keys):
            b, h, _, d = keys.shape
            self.keys.append(keys.new_zeros(b, h, self.span, d))  # what is never seen must still be a number
            self.values.append(torch.zeros_like(self.keys[-1]))
        self.keys[layer][:, :, self.column] = keys[:, :, 0]
        self.values[layer][:, :, self.column] = values[:, :, 0]
        return self.keys[layer], self.values[layer]

    def close(self) -> None:
        """As `Past`. A slot that nobody begins anew after `span` positions stays at the last."""
        self.length = (self.length + 1).clamp(max=self.span - 1)

    def begin(self, slots: Int[Tensor, "n"]) -> None:
        """These slots start with nothing said."""
        self.length[slots] = 0
        self.sees[slots] = False

    def keep(self, slots: Int[Tensor, "n"]) -> None:
        """Only these slots go on."""
        self.images, self.length, self.sees = len(slots), self.length[slots], self.sees[slots]
        self.keys = [keys[slots] for keys in self.keys]
        self.values = [values[slots] for values in self.values]
