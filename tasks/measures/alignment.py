"""How close two pictures are once a small crop, shift or change of brightness is undone."""

import numpy as np
import torch
from torch.nn import functional


def placements(max_crop: float = 0.06, n_steps: int = 3) -> torch.Tensor:
    """[p, 3] zooms and shifts of one picture inside another: crops of up to max_crop of the side, at three offsets an axis."""
    rows = [(1.0, 0.0, 0.0)]
    for crop in np.linspace(0, max_crop, n_steps + 1)[1:]:
        slack = float(crop)  # in units of half the side, as grid_sample counts
        rows += [(1.0 - slack, x, y) for x in (-slack, 0.0, slack) for y in (-slack, 0.0, slack)]
    return torch.tensor(rows)


def views(picture: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """[p, 3, h, w] of the picture [3, h, w], cropped as each placement says and enlarged again (bilinear)."""
    theta = torch.zeros(len(places), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = places[:, 0]
    theta[:, :, 2] = places[:, 1:]
    grid = functional.affine_grid(theta, [len(places), *picture.shape], align_corners=False)
    return functional.grid_sample(picture.expand(len(places), -1, -1, -1), grid, padding_mode="border", align_corners=False)


def aligned_l2(pictures: np.ndarray, pairs: np.ndarray, max_crop: float = 0.06, max_gain: float = 1.2) -> np.ndarray:
    """[p] l2 of each pair after the best small crop of either picture and the best gain within [1/max_gain, max_gain].

    pictures [n, h, w, 3] float32 in [0, 1]; pairs [p, 2] rows of it. In [0, 1], 0 for the same picture, symmetric in a pair,
    at most the plain l2. Crops are tried on a grid (up to max_crop of the side); the gain is the least-squares one.
    """
    x = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))
    places = placements(max_crop)
    seen: dict[int, torch.Tensor] = {}
    out = np.empty(len(pairs), np.float32)
    for i, (a, b) in enumerate(pairs.tolist()):
        for row in (a, b):
            if row not in seen:
                seen[row] = views(x[row], places)
        out[i] = min(_closest(seen[a], x[b], max_gain), _closest(seen[b], x[a], max_gain))
    return out


def _closest(candidates: torch.Tensor, target: torch.Tensor, max_gain: float) -> float:
    """Smallest l2 of gain x candidate to the target; a clipped gain is clipped in the pixels, too."""
    flat, goal = candidates.flatten(1), target.flatten()
    gain = ((flat @ goal) / (flat * flat).sum(1).clamp_min(1e-12)).clamp(1 / max_gain, max_gain)
    fitted = torch.stack([flat, (flat * gain[:, None]).clamp(0, 1)])
    return float((fitted - goal).square().mean(-1).min().sqrt())
