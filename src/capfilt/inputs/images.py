"""Encoded bytes → one upright RGB picture → pixels. Whatever a web image can be, it ends as RGB or as one ImageError.

| reason | the bytes |
|---|---|
| `empty` | hold nothing |
| `not_an_image` | are a web page, a text, or a format outside `FORMATS` |
| `truncated` | stop early |
| `too_large` | claim more pixels than allowed; refused from the header, before any pixel is unpacked |
| `unreadable` | are whole but broken inside |

Shapes: B images, H height, W width.
"""

import contextlib
import io
import struct
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from capfilt.errors import ImageError

if TYPE_CHECKING:
    import torch

FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "BMP",
    "TIFF",
    "AVIF",
)  # Pillow opens 43; the rest are not for strangers' files
SUFFIXES = ("jpg", "jpeg", "jpe", "png", "webp", "gif", "bmp", "tif", "tiff", "avif")
MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's, per channel of an image in [0, 1]
STD = (0.26862954, 0.26130258, 0.27577711)
ODD_ASPECT = 4.0  # a long side more than so many times the short one is squashed beyond recognition
TOO_SMALL_PX = 32
BAND_PX = 2**20  # that are turned into RGB at once where the way takes several copies

_UPRIGHT = {  # EXIF orientation → the turn that undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MAGIC = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"GIF8": "GIF", b"BM": "BMP", b"RIFF": "WEBP"}
_MAGIC |= {b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "TIFF", b"MM\0+": "TIFF"}
_FILTERS = threading.Lock()  # the filters of `warnings` belong to the whole process


@dataclass(frozen=True)
class ImageInfo:
    """What a header says, no pixel unpacked.

    width, height: as stored, before the EXIF turn.
    notes: `animated`, `pages` (only the first frame is used), `odd_aspect`, `too_small`; policy is the caller's.
    """

    format: str
    mode: str
    width: int
    height: int
    frames: int
    notes: tuple[str, ...]


def inspect(data: bytes, max_mpx: float = 64.0) -> ImageInfo:
    """Reads the header. Raises ImageError as `decode` does, except for what only shows in the pixels."""
    image = _open(data, max_mpx)
    with _quiet():
        try:
            frames = int(getattr(image, "n_frames", 1))  # single-frame plugins have no such attribute
        except Exception:  # a cut animation: its first frame may still be whole
            frames = 1
    width, height = image.size
    notes = []
    if frames > 1 and image.format in ("GIF", "PNG", "WEBP", "AVIF"):
        notes.append("animated")
    elif frames > 1 and image.format == "TIFF":
        notes.append("pages")
    if max(width, height) > ODD_ASPECT * min(width, height):
        notes.append("odd_aspect")
    if min(width, height) < TOO_SMALL_PX:
        notes.append("too_small")
    return ImageInfo(image.format or "", image.mode, width, height, frames, tuple(notes))


def decode(data: bytes, max_mpx: float = 64.0, as_stored: bool = False, least_px: int | None = None) -> Image.Image:
    """The first frame, upright, in RGB.

    EXIF orientation is always applied and a broken EXIF never fails the image. Transparency lies on white, 16-bit
    grey is scaled, CMYK goes through its own colour profile where it has one. RGB profiles are not applied: the
    original never did, and released weights expect that.

    Args:
        max_mpx: most million pixels that the header may claim (Pillow's own limit of 89 stands above it).
        as_stored: as the original opens images: no EXIF turn, transparency dropped, Pillow's own conversion to RGB.
        least_px: a JPEG is decoded at 1/2, 1/4 or 1/8 of its size, the smallest with both sides at least so long.

    Raises:
        ImageError: with one of the reasons in the table above.
    """
    image = _open(data, max_mpx)
    if least_px is not None:
        image.draft(None, (least_px, least_px))  # does nothing where the format has no such thing
    try:
        with _quiet() if image.format == "TIFF" else contextlib.nullcontext():  # its tags are read once more
            image.load()
    except MemoryError:
        raise ImageError("too_large", f"image of {image.width}×{image.height} px does not fit into memory") from None
    except Exception as error:  # codecs raise whatever they like on hostile bytes
        raise _broken(data, str(error)) from None
    return upright(image, as_stored)


def upright(image: Image.Image, as_stored: bool = False) -> Image.Image:
    """A picture that is open already, as `decode` gives it: turned as its EXIF says, in RGB."""
    with _quiet():
        try:
            turn = _UPRIGHT.get(image.getexif().get(0x0112, 1))
        except Exception:  # EXIF is a note about the picture, not the picture
            turn = None
    try:
        if as_stored:
            return image.convert("RGB")
        return _rgb(image if turn is None else image.transpose(turn))
    except MemoryError:
        raise ImageError("too_large", f"image of {image.width}×{image.height} px does not fit into memory") from None
    except Exception as error:
        raise ImageError(
            "unreadable", f"{image.format} in mode {image.mode} does not convert to RGB: {error}"
        ) from None


def to_pixels(image: Image.Image | np.ndarray, px: int) -> np.ndarray:
    """The original's test transform: bicubic to exactly px × px, aspect ratio not kept. (px, px, 3) uint8.

    image: a picture, or its (H, W, 3) uint8 pixels.
    """
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    # Width first, as the original's library did: Pillow 13 begins with the height where that shrinks more.
    narrow = picture.convert("RGB").resize((px, picture.height), Image.Resampling.BICUBIC)
    return np.array(narrow.resize((px, px), Image.Resampling.BICUBIC))


def normalize(pixels: np.ndarray, device: "torch.device | None" = None) -> "torch.Tensor":
    """(B, H, W, 3) uint8 → (B, 3, H, W) float32, scaled to [0, 1], then CLIP's mean and spread; on the CPU if None."""
    import torch

    levels = torch.from_numpy(np.array(pixels)).to(device)  # a copy: torch wants memory it may write
    mean, std = (torch.tensor(numbers, device=device).view(3, 1, 1) for numbers in (MEAN, STD))
    return levels.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std).contiguous()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Bomb warnings as errors, chatter about broken tags off."""
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _open(data: bytes, max_mpx: float) -> Image.Image:
    if not data:
        raise ImageError("empty", "image of 0 bytes")
    try:
        with _quiet():
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        if _format(data):
            raise _broken(data, "its header cannot be read") from None
        raise ImageError(
            "not_an_image", f"{len(data)} bytes starting {data[:16]!r} are no {'/'.join(FORMATS)}"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise ImageError("too_large", f"image refused from its header: {error}") from None
    except Exception as error:
        raise _broken(data, str(error)) from None
    width, height = image.size
    if width * height > max_mpx * 1e6:
        raise ImageError(
            "too_large", f"image of {width}×{height} px is {width * height / 1e6:.1f} Mpx, the limit is {max_mpx:g}"
        )
    return image


def _broken(data: bytes, message: str) -> ImageError:
    cut = _is_cut(data) or "truncated" in message
    what = "stops early" if cut else "is broken"
    return ImageError("truncated" if cut else "unreadable", f"{_format(data)} of {len(data)} bytes {what}: {message}")


def _format(data: bytes) -> str:
    if data[4:12] in (b"ftypavif", b"ftypavis", b"ftypmif1"):
        return "AVIF"
    return next((name for magic, name in _MAGIC.items() if data.startswith(magic)), "")


def _is_cut(data: bytes) -> bool:
    """Whether the bytes lack the end that their format promises. TIFF promises none, so a TIFF is called cut."""
    match _format(data):
        case "JPEG":
            return b"\xff\xd9" not in data[-1024:]  # some cameras append a few bytes
        case "PNG":
            return b"IEND" not in data[-1024:]
        case "GIF":
            return b"\x3b" not in data[-16:]
        case "WEBP":
            return len(data) < 12 or struct.unpack("<I", data[4:8])[0] + 8 > len(data)
        case "BMP":
            return len(data) < 26 or struct.unpack("<I", data[2:6])[0] > len(data)
        case "AVIF":
            return _boxes_end(data) > len(data)
    return True


def _boxes_end(data: bytes) -> int:
    """Where the last top-level box of an ISO file says it ends."""
    at = 0
    while at + 8 <= len(data):
        size = struct.unpack(">I", data[at : at + 4])[0]
        if size < 8:  # 0: to the end of the file; 1: a 64-bit size, of which images have no need
            return len(data)
        at += size
    return at if at == len(data) else max(at, len(data) + 1)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return _grey(image).convert("RGB")
    if image.has_transparency_data:
        shown = Image.new("RGB", image.size)
        for box, band in _bands(image):
            seen = band.convert("RGBA")
            shown.paste(Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB"), box)
        return shown
    if image.mode == "CMYK":
        return _cmyk(image)
    return image.convert("RGB")


def _bands(image: Image.Image) -> Iterator[tuple[tuple[int, int, int, int], Image.Image]]:
    """Its rows, some at once, and the box where they lie: several copies of the whole would be a gigabyte."""
    rows = max(1, BAND_PX // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        yield box, image.crop(box)


def _grey(image: Image.Image) -> Image.Image:
    """Deep grey → 8 bits. 16-bit integers and floats in [0, 1] have a known range; others are stretched to theirs."""
    kind, low, high = "", np.inf, -np.inf
    for _, band in _bands(image):
        values = np.asarray(band)
        wide = np.nan_to_num(values.astype(np.float64))
        kind, low, high = values.dtype.kind, min(low, float(wide.min())), max(high, float(wide.max()))
    if kind in "iu" and low >= 0 and high <= 65535:
        low, high = 0.0, 65535.0
    elif kind == "f" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    grey = Image.new("L", image.size)
    for box, band in _bands(image):
        scaled = (np.nan_to_num(np.asarray(band).astype(np.float64)) - low) * (255.0 / max(high - low, 1e-12))
        grey.paste(Image.fromarray(np.rint(scaled).astype(np.uint8)), box)
    return grey


def _cmyk(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile:
        from PIL import ImageCms

        # A profile that is broken, or made for other channels, is no reason to lose the picture.
        with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError):
            own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            seen = ImageCms.profileToProfile(image, own, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if seen is not None:
                return seen
    return image.convert("RGB")
