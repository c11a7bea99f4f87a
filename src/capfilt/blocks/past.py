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
    """A `Past` of B images, empty at first. It holds no more than there is: least work where launching costs little."""

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


class FixedPast:
    """A `Past` whose tensors stay where they are, so that a step can be recorded and played again (`predict.recorded`).

    A step's new keys stand in the same columns of all images; columns go round. For texts that search together it
    takes a span of the start's positions and T for each that follows. As slots (T = 1), texts begin and end when they
    like; span is then the most positions of one.
    """

    def __init__(self, images: int, span: int, device: torch.device):
        self.images, self.span, self.new = images, span, 0
        self.said = torch.zeros(images, dtype=torch.long, device=device)
        self.column = torch.zeros(1, dtype=torch.long, device=device)  # where the next key goes
        self.columns = self.column
        self.sees: Bool[Tensor, "b t s"] = torch.zeros(images, 1, span, dtype=torch.bool, device=device)
        self.bias: Float[Tensor, "b 1 q s"] | None = None
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    @property
    def length(self) -> Int[Tensor, "r"]:
        """As `Past`, of each text."""
        return self.said.repeat(self.sees.shape[1])

    def open(self, rows: int, length: int) -> None:
        """As `Past`."""
        device, self.new = self.sees.device, rows // self.images * length
        self.columns = (self.column + torch.arange(self.new, device=device)) % self.span
        among = torch.zeros(self.new, self.span, dtype=torch.bool, device=device)
        among.scatter_(1, self.columns[:, None], True)
        if length > 1:
            among = among.cumsum(dim=0).bool()
        allowed = self.sees.expand(-1, self.new, -1) | among
        self.bias = torch.zeros(allowed.shape, device=device).masked_fill_(~allowed, -math.inf)[:, None]
        self._see(allowed[:, -1:] if length > 1 else allowed)

    def add(self, layer: int, keys: Heads, values: Heads) -> KeysValues:
        """As `Past`; they are written in place."""
        if layer == len(self.keys):
            b, h, _, d = keys.shape
            self.keys.append(keys.new_zeros(b, h, self.span, d))  # what is never seen must still be a number
            self.values.append(torch.zeros_like(self.keys[-1]))
        self.keys[layer].index_copy_(2, self.columns, keys)
        self.values[layer].index_copy_(2, self.columns, values)
        return self.keys[layer], self.values[layer]

    def close(self) -> None:
        """As `Past`."""
        self.column.add_(self.new).remainder_(self.span)
        self.said.add_(self.new // self.sees.shape[1]).clamp_(max=self.span - 1)  # the last: no one begins a slot anew

    def follow(self, rows: Int[Tensor, "r"]) -> None:
        """As `GrowingPast`."""
        parents = (rows.view(-1, self.images) // self.images).T[:, :, None]
        self._see(self.sees.gather(1, parents.expand(-1, -1, self.span)))

    def begin(self, slots: Int[Tensor, "n"]) -> None:
        """These slots start with nothing said."""
        self.said[slots] = 0
        self.sees[slots] = False

    def keep(self, images: Int[Tensor, "b"]) -> None:
        """Only these images go on; they move."""
        self.images, self.said, self.sees = len(images), self.said[images], self.sees[images]
        self.keys = [keys[images] for keys in self.keys]
        self.values = [values[images] for values in self.values]

    def _see(self, sees: Tensor) -> None:
        if sees.shape == self.sees.shape:
            self.sees.copy_(sees)
        else:  # the start's one text an image becomes several
            self.sees = sees.contiguous()
