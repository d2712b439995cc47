"""How much of a training picture a generation holds, as the size of a thumbnail that would be as close."""

from math import log2

import numpy as np
import torch
from torch.nn import functional

from tasks.measures.distances import l2


def thumbnail(picture: np.ndarray, side: int) -> np.ndarray:
    """The picture [h, w, 3] float32 reduced to side x side (box) and enlarged again (bicubic), clipped to [0, 1].

    side = h = w gives the picture itself. Raises ValueError when side is below 1 or above a side of the picture.
    """
    height, width = picture.shape[:2]
    if not 1 <= side <= min(height, width):
        raise ValueError(f"a picture of {height} x {width} px has no thumbnail of {side} px; ask for 1 to {min(height, width)}")
    pixels = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1), np.float32))[None]
    small = functional.interpolate(pixels, (side, side), mode="area")
    large = functional.interpolate(small, (height, width), mode="bicubic", align_corners=False).clamp(0, 1)
    return np.asarray(large[0].permute(1, 2, 0).numpy())


def thumbnail_px(generated: np.ndarray, training: np.ndarray) -> int:
    """Side of the smallest thumbnail of the training picture at least as close (l2) to it as the generation is.

    generated, training [h, w, 3] float32 in [0, 1]; in [1, min(h, w)], larger is a better copy, and the full side when no
    thumbnail is as close. The sides are tried one by one, because closeness does not grow with every pixel of side. Raises
    ValueError as l2 does. Design, definitions.
    """
    distance, full = l2(generated, training), min(training.shape[:2])
    return next((side for side in range(1, full) if l2(thumbnail(training, side), training) <= distance), full)


def search_bits(n_generations: int, n_prompts: int, caption_bytes: int) -> float:
    """Bits that the search put in: log2(generations x prompts) to choose the picture, 8 for each byte of its caption.

    A copy that holds more than this did not come from the search. Raises ValueError when a count is below its least.
    """
    if n_generations < 1 or n_prompts < 1 or caption_bytes < 0:
        counts = f"{n_generations} generations, {n_prompts} prompts, {caption_bytes} bytes"
        raise ValueError(f"no search has {counts}; pass at least 1, 1 and 0")
    return log2(n_generations * n_prompts) + 8 * caption_bytes
