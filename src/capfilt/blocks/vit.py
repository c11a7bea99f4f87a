"""Vision transformer (arXiv 2010.11929), pre-norm, as BLIP uses it: the whole token sequence comes out, [CLS] first.

Shapes: B images, H = W = px, N = (px / patch)² + 1 tokens, D width.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from capfilt.blocks.attention import SelfAttention
from capfilt.blocks.linear import Linear
from capfilt.errors import ConfigError

COLOURS, DIRECTIONS = 4**3, 9  # bins of the histogram stem


@dataclass(frozen=True)
class VitConfig:
    """Sizes of one vision tower.

    stem: `linear` is ViT's single patch projection; `conv` reaches the same grid by 3x3 convolutions of stride 2
        (arXiv 2106.14881), which learns shapes sooner when training is short; `histogram` counts colours and edges,
        for photographs too few to learn filters from.
    checkpoint_blocks: how many of the last blocks keep no activations in training and compute them again going back.
    """

    px: int = 224
    patch: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp: int = 3072
    eps: float = 1e-6
    drop_path: float = 0.0
    stem: Literal["linear", "conv", "histogram"] = "linear"
    checkpoint_blocks: int = 0

    @property
    def tokens(self) -> int:
        """Number of tokens of one image, [CLS] included."""
        return (self.px // self.patch) ** 2 + 1


class PatchStem(nn.Module):
    """One linear map of each patch; the weight keeps the shape of the convolution it is."""

    def __init__(self, patch: int, width: int):
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(3, width, patch, patch)
        self.ready: nn.Module | None = None  # the same map, where the tower is ready for use

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n d"]:
        """(B, 3, H, W) → (B, N, D)."""
        b, c, h, w = pixels.shape
        p = self.patch
        patches = pixels.view(b, c, h // p, p, w // p, p).permute(0, 2, 4, 1, 3, 5).reshape(b, -1, c * p * p)
        if self.ready is not None:
            return self.ready(patches)
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class ConvStem(nn.Module):
    """3x3 convolutions of stride 2 down to the patch grid, then a 1x1 to the width."""

    def __init__(self, patch: int, width: int):
        super().__init__()
        strides = _factors(patch)
        sizes = [3, *(max(16, width >> (len(strides) - 1 - i)) for i in range(len(strides)))]
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride, 1) for a, b, stride in zip(sizes, sizes[1:], strides, strict=False)
        )
        self.proj = nn.Linear(sizes[-1], width)

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n d"]:
        """(B, 3, H, W) → (B, N, D)."""
        x = pixels.contiguous(memory_format=torch.channels_last)
        for conv in self.convs:
            x = F.relu(conv(x))
        return self.proj(x.flatten(2).transpose(1, 2))

    def init_weights(self) -> None:
        """He et al.'s normal: a picture reaches the tower as loud as its positions (torch's default fades by ReLUs)."""
        for module in (*self.convs, self.proj):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if module is self.proj else "relu")
            nn.init.zeros_(module.bias)


class HistogramStem(nn.Module):
    """What each patch holds, counted, then a linear map; nothing before that map is learned.

    Of a patch: 64 colours; of each quarter of it: the mean colour, and 9 directions of edges weighted by their strength
    (histograms of oriented gradients: Dalal and Triggs, CVPR 2005). Counts enter by their square roots.
    """

    def __init__(self, patch: int, width: int):
        super().__init__()
        if patch % 2:
            raise ConfigError(f"stem='histogram' quarters its patches: patch={patch} must be even")
        self.patch = patch
        self.proj = nn.Linear(COLOURS + 4 * (3 + DIRECTIONS), width)

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n d"]:
        """(B, 3, H, W) → (B, N, D)."""
        with torch.no_grad(), torch.autocast(pixels.device.type, enabled=False):
            counted = self.counted(pixels.float())
        return self.proj(counted)

    def counted(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n f"]:
        """(B, 3, H, W) normalised → (B, N, F) counts, stretched to a spread of about 1 in photographs."""
        rgb = (pixels / 4 + 0.5).clamp(0, 1)  # normalised pixels span about ±2
        levels = (rgb * 4).long().clamp(max=3)
        colour = levels[:, 0] * 16 + levels[:, 1] * 4 + levels[:, 2]
        grey = F.pad(rgb.mean(1), (1, 1, 1, 1), mode="replicate")
        dx, dy = (grey[:, 1:-1, 2:] - grey[:, 1:-1, :-2]), (grey[:, 2:, 1:-1] - grey[:, :-2, 1:-1])
        direction = ((torch.atan2(dy, dx) / math.pi + 1) * (DIRECTIONS / 2)).long().clamp(max=DIRECTIONS - 1)
        colours = _histogram(colour, torch.ones_like(grey[:, 1:-1, 1:-1]), self.patch, COLOURS).flatten(1, 2)
        edges = _histogram(direction, torch.hypot(dx, dy), self.patch // 2, DIRECTIONS)
        means = F.avg_pool2d(rgb, self.patch // 2).permute(0, 2, 3, 1)
        quarters = torch.cat((4 * means - 2, 16 * edges.sqrt() - 1.6), dim=-1)
        b, h, w, f = quarters.shape
        quarters = quarters.view(b, h // 2, 2, w // 2, 2, f).transpose(2, 3).reshape(b, h * w // 4, 4 * f)
        return torch.cat((8 * colours.sqrt(), quarters), dim=-1)


def _histogram(
    bins: Int[Tensor, "b h w"], weights: Float[Tensor, "b h w"], cell: int, count: int
) -> Float[Tensor, "b y x c"]:
    """Mean weight that falls into each of `count` bins, in square cells."""
    b, h, w = bins.shape
    bins, weights = (
        x.view(b, h // cell, cell, w // cell, cell).transpose(2, 3).reshape(-1, cell * cell) for x in (bins, weights)
    )
    found = weights.new_zeros(len(bins), count).scatter_add_(1, bins, weights)
    return (found / cell**2).view(b, h // cell, w // cell, count)


def _factors(patch: int) -> list[int]:
    """Strides of 2 and 3 that multiply to the patch size."""
    strides = []
    for stride in (2, 3):
        while patch % stride == 0:
            strides.append(stride)
            patch //= stride
    if patch > 1:
        raise ConfigError("stem='conv' reaches patches of 2s and 3s only (8, 12, 16, ...); use stem='linear'")
    return strides


STEMS = {"linear": PatchStem, "conv": ConvStem, "histogram": HistogramStem}


class VitBlock(nn.Module):
    """x += attention(norm x); x += mlp(norm x)."""

    def __init__(self, config: VitConfig, drop_path: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, config.eps)
        self.attention = SelfAttention(config.width, config.heads)
        self.norm2 = nn.LayerNorm(config.width, config.eps)
        self.fc1 = Linear(config.width, config.mlp)
        self.fc2 = Linear(config.mlp, config.width)
        self.drop_path = drop_path

    def forward(self, x: Float[Tensor, "b n d"], first_only: bool = False) -> Float[Tensor, "b m d"]:
        """(B, N, D) → (B, N, D), or (B, 1, D): [CLS] alone."""
        seen = self.attention(self.norm1(x), first_only=first_only)
        x = (x[:, :1] if first_only else x) + self._drop(seen)
        return x + self._drop(self.fc2(self.fc1(self.norm2(x), gelu=True)))

    def _drop(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0:
            return x
        keep = 1 - self.drop_path
        return x * torch.empty(len(x), 1, 1, dtype=x.dtype, device=x.device).bernoulli_(keep).div_(keep)


class Vit(nn.Module):
    """The tower. Input size is fixed by the position table; another size needs `resize_positions` first."""

    def __init__(self, config: VitConfig):
        super().__init__()
        self.config = config
        self.stem = STEMS[config.stem](config.patch, config.width)
        self.cls = nn.Parameter(torch.zeros(1, 1, config.width))
        self.positions = nn.Parameter(torch.zeros(1, config.tokens, config.width))
        rates = [config.drop_path * i / max(1, config.depth - 1) for i in range(config.depth)]
        self.blocks = nn.ModuleList(VitBlock(config, rate) for rate in rates)
        self.norm = nn.LayerNorm(config.width, config.eps)

    def forward(self, pixels: Float[Tensor, "b 3 h w"], cls_only: bool = False) -> Float[Tensor, "b m d"]:
        """Normalised pixels → tokens (B, N, D); or (B, 1, D) for [CLS] alone, where the last block skips the rest."""
        x = torch.cat((self.cls.expand(pixels.shape[0], -1, -1), self.stem(pixels)), dim=1) + self.positions
        last = len(self.blocks) - 1
        for i, block in enumerate(self.blocks):
            if self.training and torch.is_grad_enabled() and i > last - self.config.checkpoint_blocks:
                x = checkpoint(block, x, cls_only and i == last, use_reentrant=False)
            else:
                x = block(x, cls_only and i == last)
        return self.norm(x)

    def init_weights(self) -> None:
        """Truncated normal for linear weights, [CLS] and positions; zero biases; norms 1, 0; a linear stem as torch's.

        The spread is .02 at ViT-B's width and grows as width shrinks, so that small towers start as loud as large ones.
        """
        std = init_std(self.config.width)
        nn.init.trunc_normal_(self.cls, std=std)
        nn.init.trunc_normal_(self.positions, std=std)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=std)
                nn.init.zeros_(module.bias)
        if isinstance(self.stem, ConvStem):
            self.stem.init_weights()


def init_std(width: int) -> float:
    """.02 from width 768 on; below, in inverse proportion to the square root of the width."""
    return 0.02 * max(1.0, 768 / width) ** 0.5


def resize_positions(table: Float[Tensor, "1 n d"], tokens: int) -> Float[Tensor, "1 m d"]:
    """A position table for another grid: [CLS] row kept, the square grid resized bicubically (no antialias)."""
    if table.shape[1] == tokens:
        return table
    old, new = round((table.shape[1] - 1) ** 0.5), round((tokens - 1) ** 0.5)
    grid = table[:, 1:].unflatten(1, (old, old)).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    return torch.cat((table[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2)), dim=1)
