"""The nouns that travel: Pair (a raw sample), Batch and its kin (tensors), Row (one output row and its status)."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
Decision = Literal["kept", "replaced", "dropped", "failed"]


@dataclass(frozen=True)
class Pair:
    """One raw sample as it was read: nothing decoded, nothing judged.

    key:    unique within its source.
    image:  encoded bytes, a `data.refs.Ref` where they are not loaded yet, or None where the image is missing.
    texts:  the captions that came with it; empty where there were none.
    source: where it was read from, for messages.
    meta:   every other column, passed through untouched.
    """

    key: str
    image: Any
    texts: tuple[str, ...] = ()
    source: str = ""
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """B pairs as tensors.

    pixels:   (B, 3, H, W) float, normalised.
    ids:      (B, L) int64, starting with [CLS], ending with [SEP], then padding.
    mask:     (B, L) int64, 1 where there is a token.
    image_id: (B,) int64, equal where two rows show the same image.
    text_id:  (B,) int64, equal where two rows say the same words.
    extra_ids, extra_mask: (B, M) optional texts known not to belong to row b's image (the filter's unmatched texts).
    """

    pixels: "torch.Tensor"
    ids: "torch.Tensor"
    mask: "torch.Tensor"
    image_id: "torch.Tensor"
    text_id: "torch.Tensor"
    extra_ids: "torch.Tensor | None" = None
    extra_mask: "torch.Tensor | None" = None

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: "torch.device") -> "Batch":
        """The same batch on another device."""
        return _on(self, device)


@dataclass(frozen=True)
class Questions:
    """Q questions, each about its own image, and A answers to them.

    pixels:                 (Q, 3, H, W) float, normalised.
    ids, mask:              (Q, L) int64, as in Batch.
    answer_ids, answer_mask: (A, M) int64, as in Batch.
    weight:                 (A,) float, what each answer counts.
    owner:                  (A,) int64, the question each answer belongs to.
    """

    pixels: "torch.Tensor"
    ids: "torch.Tensor"
    mask: "torch.Tensor"
    answer_ids: "torch.Tensor"
    answer_mask: "torch.Tensor"
    weight: "torch.Tensor"
    owner: "torch.Tensor"

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: "torch.device") -> "Questions":
        """The same batch on another device."""
        return _on(self, device)


@dataclass(frozen=True)
class Statements:
    """B statements about two images each.

    pixels:    (2, B, 3, H, W) float, normalised: the first images, the second ones.
    ids, mask: (B, L) int64, as in Batch.
    label:     (B,) int64, 1 where the statement is true.
    """

    pixels: "torch.Tensor"
    ids: "torch.Tensor"
    mask: "torch.Tensor"
    label: "torch.Tensor"

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: "torch.device") -> "Statements":
        """The same batch on another device."""
        return _on(self, device)


@dataclass(frozen=True)
class Dialogues:
    """R candidate dialogues about B images and their captions.

    pixels:                   (B, 3, H, W) float, normalised.
    caption_ids, caption_mask: (B, C) int64, as in Batch.
    ids, mask:                (R, L) int64: history, question and candidate answer as one text.
    owner:                    (R,) int64, the image each is about.
    label:                    (R,) int64, 1 where the candidate is the right answer.
    """

    pixels: "torch.Tensor"
    caption_ids: "torch.Tensor"
    caption_mask: "torch.Tensor"
    ids: "torch.Tensor"
    mask: "torch.Tensor"
    owner: "torch.Tensor"
    label: "torch.Tensor"

    def __len__(self) -> int:
        return len(self.caption_ids)

    def to(self, device: "torch.device") -> "Dialogues":
        """The same batch on another device."""
        return _on(self, device)


def _on(batch: T, device: "torch.device") -> T:
    moved = {k: v.to(device, non_blocking=True) for k, v in vars(batch).items() if v is not None}
    return replace(batch, **moved)  # type: ignore[type-var]


@dataclass(frozen=True)
class Row:
    """What became of one web image: both texts, their scores, the decision and its reason.

    itm:   probability of a match in [0, 1]; itc: cosine in [-1, 1]; score: what the rule made of both.
    """

    key: str
    decision: Decision
    reason: str
    text_web: str | None = None
    text_synthetic: str | None = None
    score_web: float | None = None
    score_synthetic: float | None = None
    itm_web: float | None = None
    itm_synthetic: float | None = None
    itc_web: float | None = None
    itc_synthetic: float | None = None
    keep_web: bool = False
    keep_synthetic: bool = False
    kind: str | None = None
