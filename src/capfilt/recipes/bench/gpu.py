"""Rows of a GPU, in bf16 at 384 and 224 px; skipped where there is none.

The peer's tensors lie on the GPU before the clock starts; ours come from the host as uint8 each time.
"""

from collections.abc import Callable
from functools import partial

import torch

from capfilt.recipes.bench.peers import Shelf, dtype, their_matches, transformers_name
from capfilt.recipes.bench.rows import UNLIKE, asking, caption, encode, noise, texts_of_words
from capfilt.recipes.bench.steps import step
from capfilt.recipes.bench.work import CannotRun, Row, Work, same_numbers

SIZES = {384: "base", 224: "base-224"}  # of `recipes.parity`
IMAGES, PAIRS = 64, 32


def accelerator() -> torch.device:
    """Raises CannotRun where there is none."""
    if not torch.cuda.is_available():
        raise CannotRun("needs a GPU")
    return torch.device("cuda")


def there(shelf: Shelf, build: Callable[[Shelf], Work], px: int) -> Work:
    """That row with models of that image size on the GPU, from a shelf of its own."""
    size = shelf.size if shelf.size == "tiny" else SIZES[px]
    return build(Shelf(shelf.folder / f"gpu-{px}", size, accelerator()))


def match(shelf: Shelf, images: int) -> Work:
    """How well a text fits each image, whose tokens lie there."""
    ours, theirs = shelf.ours("match", "bf16"), shelf.theirs("match", "bf16")
    words, image = texts_of_words(images), ours.see(noise(ours, images))
    ids, seen = asking(ours, words).to(shelf.device), image.to(dtype("bf16"))
    return Work(
        lambda: torch.tensor([pair[0][0] for pair in ours.match(image, [[text] for text in words])]),
        {transformers_name(): lambda: their_matches(theirs, ids, seen).softmax(dim=-1)[:, 1]},
        same_numbers(UNLIKE["bf16"]),
        {"pairs": images},
    )


WORKS: dict[str, tuple[float | None, Callable[[Shelf], Work]]] = {
    "encode": (1.5, partial(encode, precision="bf16", images=IMAGES)),
    "greedy": (3.0, partial(caption, precision="bf16", images=IMAGES, how="greedy")),
    "beam3": (3.0, partial(caption, precision="bf16", images=IMAGES, how="beam3")),
    "nucleus": (3.0, partial(caption, precision="bf16", images=IMAGES, how="nucleus")),
    "match": (None, partial(match, images=IMAGES)),
}
GPU: dict[str, Row] = {
    **{
        f"gpu-{name}-{px}": Row(goal, partial(there, build=build, px=px), 0.5 if name == "encode" else None)
        for px in SIZES
        for name, (goal, build) in WORKS.items()
    },
    **{
        f"gpu-step-{px}": Row(
            1.5, partial(there, build=partial(step, preset="base", size=PAIRS, precision="bf16", px=px), px=px)
        )
        for px in SIZES
    },
}
