"""`images.to_pixels` on the device: pictures of any size go there as they are and are resized where there is room.

Shapes: F frames of a clip (none for a picture), H height, W width, S side.
"""

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional as F


@torch.inference_mode()
def squash(frames: UInt8[Tensor, "*f h w 3"], px: int) -> UInt8[Tensor, "*f s s 3"]:
    """Bicubic to exactly px x px, where the frames are: width first, then height, rounded to whole levels after each.

    Pillow computes in fixed point, this in float32: of the numbers fewer than one in a thousand differ, by one level.
    """
    *some, height, width, _ = frames.shape
    planes = frames.reshape(-1, height, width, 3).permute(0, 3, 1, 2).float()
    for size in ((height, px), (px, px)):
        planes = F.interpolate(planes, size, mode="bicubic", antialias=True).add_(0.5).floor_().clamp_(0, 255)
    return planes.to(torch.uint8).permute(0, 2, 3, 1).reshape(*some, px, px, 3)
