"""What every model at work needs: pixels and texts as tensors, no gradients, and rows laid out around their images.

Shapes: B images of (H, W, 3), or clips of F such frames; R rows of L ids; T texts an image.
"""

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from capfilt.blocks.med import MedConfig, SpecialIds
from capfilt.blocks.vit import Vit, VitConfig
from capfilt.errors import ConfigError
from capfilt.inputs.images import normalize
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.predict.workers import each

ALONE = 128  # tokens; matrices of fewer rows multiply slower
SEEN_MIB = 2048  # most that the projected images of one batch may hold; a large tower at 384 px takes 40 MiB an image

Pixels = UInt8[np.ndarray, "b *f h w 3"]


def check_words(special: SpecialIds, text: MedConfig, tokenizer: TextTokenizer) -> None:
    """Raises ConfigError for a tokenizer that is not the model's."""
    have, want = tuple(tokenizer.marks.values()), tuple(vars(special).values())
    if have != want or len(tokenizer) > text.vocab:
        raise ConfigError(
            f"the tokenizer ({len(tokenizer)} words, [PAD] [CLS] [SEP] [DEC] [ENC] at {have}) is not the model's "
            f"({text.vocab} words, at {want}); use the one that was saved with the weights"
        )


def check_texts(texts: Sequence[Sequence[str]] | Sequence[str], images: int) -> None:
    """Raises ConfigError unless there is one list of texts an image."""
    if len(texts) != images:
        raise ConfigError(f"{images} images need as many lists of texts, one an image; got {len(texts)}")
    if any(isinstance(ts, str) for ts in texts):
        raise ConfigError("a list of texts is needed where one text was given: write [text]")


@contextlib.contextmanager
def still(model: nn.Module) -> Iterator[None]:
    """No gradients, no dropout; a model that was in training goes back to it."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


def as_tensor(pixels: Pixels, px: int, device: torch.device) -> Float[Tensor, "b *f 3 h w"]:
    """Images or clips, uint8, → normalised. Raises ConfigError for another size or type."""
    if pixels.ndim not in (4, 5) or pixels.shape[-3:] != (px, px, 3) or pixels.dtype != np.uint8:
        raise ConfigError(
            f"pixels are {pixels.dtype} of {pixels.shape[1:]}, this model sees uint8 of {(px, px, 3)}, or of clips "
            f"{('frames', px, px, 3)}; inputs.images.to_pixels makes them"
        )
    flat = normalize(pixels.reshape(-1, px, px, 3), device)
    return flat.view(*pixels.shape[:-3], 3, px, px)


def see(vit: nn.Module, pixels: Float[Tensor, "b *f 3 h w"], cls_only: bool = False) -> Float[Tensor, "b *f n d"]:
    """Image tokens, of clips a row of frames each. Large images go one by one on a CPU: what is at work stays in its
    cache, and the levels of bytes (`blocks.linear.Packed8`) are an image's own."""
    images = pixels.flatten(0, -4)
    if isinstance(vit, Vit) and images.device.type == "cpu" and vit.config.tokens >= ALONE:
        tokens = torch.cat(each(lambda image: vit(image[None], cls_only), list(images)))
    else:
        tokens = vit(images, cls_only)
    return tokens.unflatten(0, pixels.shape[:-3])


def joined(image: Float[Tensor, "b *f n d"]) -> Float[Tensor, "b m d"]:
    """What a text looks at: an image's tokens, or those of all frames of a clip as one sequence (BLIP, §5.7)."""
    return image.flatten(1, -2)


def padded(tokenizer: TextTokenizer, rows: Sequence[np.ndarray], device: torch.device) -> tuple[Tensor, Tensor]:
    """Id rows → ids and mask (R, L)."""
    ids, mask = tokenizer.pad(rows)
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


def parts(total: int, size: int) -> list[slice]:
    """Slices of at most `size` that cover `total`."""
    return [slice(i, i + size) for i in range(0, total, size)]


def to_numpy(x: Tensor) -> np.ndarray:
    """float32, on the CPU."""
    return x.float().cpu().numpy()


def images_at_once(vit: VitConfig, text: MedConfig, batch: int, texts: int, frames: int = 1) -> int:
    """How many images go together when each has so many texts: `batch` rows, within the memory set above."""
    floats = frames * vit.tokens * 2 * text.width * text.depth
    return max(1, min(batch // texts, SEEN_MIB * 2**20 // (4 * floats)))


def plan(
    lengths: Sequence[int], owner: np.ndarray, images: int, batch: int, most: int
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Cuts rows about images into pieces: (n images, blocks of T·n row numbers, image-minor, -1 for none).

    Images with alike numbers and lengths of texts come together, so that little is padded; images without texts do not
    come. lengths: ids of each row. owner: the image of each. batch: rows at once. most: images at once.
    """
    mine: list[list[int]] = [[] for _ in range(images)]
    for i in np.argsort(lengths, kind="stable").tolist():
        mine[owner[i]].append(i)
    asked = [i for i in range(images) if mine[i]]
    asked.sort(key=lambda i: (len(mine[i]), lengths[mine[i][-1]], lengths[mine[i][0]]))
    while asked:
        size = max(1, min(most, batch // len(mine[asked[0]])))
        chunk, asked = asked[:size], asked[size:]
        deepest = max(len(mine[i]) for i in chunk)
        slots = np.array([mine[i] + [-1] * (deepest - len(mine[i])) for i in chunk]).T
        high = max(1, batch // len(chunk))
        yield np.array(chunk), [slots[t : t + high].flatten() for t in range(0, deepest, high)]
