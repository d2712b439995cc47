"""How close two pictures are once a small crop, shift or change of brightness is undone."""

import numpy as np
import torch
from torch.nn import functional

N_REFINEMENTS = 2  # halvings of the grid around its best placement; a third gained under 0.002 of l2
SATURATED = 0.98  # clipped pixels say nothing about the gain


def placements(max_crop: float, n_steps: int = 4) -> torch.Tensor:
    """[p, 3] (zoom, x, y) of one picture inside another: crops of up to max_crop of the side, at three offsets an axis.

    Offsets in units of half the side, as grid_sample counts.
    """
    rows = [(1.0, 0.0, 0.0)]
    for crop in np.linspace(0, max_crop, n_steps + 1)[1:].tolist():
        rows += [(1.0 - crop, x, y) for x in (-crop, 0.0, crop) for y in (-crop, 0.0, crop)]
    return torch.tensor(rows)


def views(picture: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """[p, 3, h, w] of the picture [3, h, w], cropped as each placement says and enlarged again (bilinear)."""
    theta = torch.zeros(len(places), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = places[:, 0]
    theta[:, :, 2] = places[:, 1:]
    grid = functional.affine_grid(theta, [len(places), *picture.shape], align_corners=False)
    return functional.grid_sample(picture.expand(len(places), -1, -1, -1), grid, padding_mode="border", align_corners=False)


def aligned_l2(pictures: np.ndarray, pairs: np.ndarray, enough: float, max_crop: float = 0.0625, max_gain: float = 1.2) -> np.ndarray:
    """[p] l2 of each pair after the best small crop of either picture and the best gain within [1/max_gain, max_gain].

    pictures [n, h, w, 3] float32 in [0, 1]; pairs [p, 2] rows of it. In [0, 1], 0 for the same picture, symmetric in a pair, at
    most the plain l2. Crops are tried on a grid (up to max_crop of the side) that is refined around its best placement where the
    pair is within twice `enough`, the l2 below which the caller no longer cares; the gain is the least-squares one.
    """
    x = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))
    places = placements(max_crop)
    seen: dict[int, torch.Tensor] = {}
    out = np.empty(len(pairs), np.float32)
    for i, (a, b) in enumerate(pairs.tolist()):
        for row in (a, b):
            if row not in seen:
                seen[row] = views(x[row], places)
        best = [_closest(seen[a], x[b], max_gain), _closest(seen[b], x[a], max_gain)]
        l2 = nearest = min(value for value, _ in best)
        if enough < nearest <= 2 * enough:
            for (value, row), (source, target) in zip(best, ((x[a], x[b]), (x[b], x[a])), strict=True):
                if value == nearest:  # both where they tie, as black and white pictures do
                    l2 = min(l2, _refined(source, target, places[row], max_crop / 8, max_gain))
        out[i] = l2
    return out


def _refined(source: torch.Tensor, target: torch.Tensor, place: torch.Tensor, step: float, max_gain: float) -> float:
    """Smallest l2 on ever finer grids around a placement."""
    steps = torch.tensor([-1.0, 0.0, 1.0])
    offsets = torch.cartesian_prod(steps, steps, steps)
    for _ in range(N_REFINEMENTS):
        near = place + step * offsets
        l2, row = _closest(views(source, near), target, max_gain)
        place, step = near[row], step / 2
    return l2


def _closest(candidates: torch.Tensor, target: torch.Tensor, max_gain: float) -> tuple[float, int]:
    """Smallest l2 of gain x candidate [p, 3, h, w], clipped as pixels are, to the target [3, h, w]; and its row."""
    flat, goal = candidates.flatten(1), target.flatten()
    open_pixels = (flat < SATURATED) & (goal < SATURATED)
    weighted = flat * open_pixels
    gain = ((weighted @ goal) / (weighted * flat).sum(1).clamp_min(1e-6)).clamp(1 / max_gain, max_gain)
    fitted = torch.stack([flat, (flat * gain[:, None]).clamp(0, 1)])
    l2 = (fitted - goal).square().mean(-1).amin(0)
    row = int(l2.argmin())
    return float(l2[row].sqrt()), row
