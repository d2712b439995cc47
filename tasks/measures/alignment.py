"""How far apart two pictures are once a small crop, shift, rotation or change of brightness is undone.

Both are aligned by Levenberg-Marquardt steps from coarse to fine (Lucas and Kanade 1981; Baker and Matthews 2004, forwards-additive,
with gain and bias), and compared where both show something. Batched over pairs; float32.
"""

import numpy as np
import torch
from torch.nn import functional

LIMITS = (0.14, 0.10, 0.14, 0.14, 0.30, 0.12)  # log zoom, radians, shift x and y (in half sides), log gain, bias: what a copy may differ by
LEVELS = ((4, 6, 0.20), (2, 4, 0.15), (1, 3, 1.0))  # the side is divided by; steps; pairs with a larger tile difference are given up
N_TILES = 8  # an axis
N_DETAILS = 16  # an axis: quarters of these tiles
LIGHTNESS = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601, as in JPEG)
BATCH = 256  # pairs: what a level needs then fits the cache
DAMPING, SHRINK, GROW = 0.01, 0.3, 10.0


def aligned(pictures: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[p] l2 and [p] tile difference of each pair after the best alignment of either picture with the other; both symmetric, in [0, 1].

    pictures [n, s, s, 3] uint8, s a multiple of 32; pairs [p, 2] rows of it. The tile difference is the largest over 8 x 8 tiles of
    the mean difference in a tile (root mean square over the colours): noise and blur of a copy average out within a tile, another
    content somewhere does not. Half the mean difference in lightness of a quarter of a tile counts where it is larger: a detail such as a
    mouth turned upside down averages out within a tile, and noise is twice as large in a quarter. Lightness alone, for re-encoding moves colours
    by as much; and not along the border, where a turned copy shows what was behind it. Pairs that are far apart already on a coarse level
    are given up: theirs are the plain values. Raises ValueError where the pictures are not square with a side that is a multiple of 32.
    """
    if pictures.ndim != 4 or pictures.shape[1] != pictures.shape[2] or pictures.shape[1] % 32 or pictures.shape[3] != 3:
        raise ValueError(f"pictures {pictures.shape} are not [n, s, s, 3] with s a multiple of 32; bring them to 32 or 64 px")
    l2, difference = np.empty(len(pairs), np.float32), np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), BATCH):
        batch = pairs[start:start + BATCH]
        first, second = (torch.from_numpy(pictures[batch[:, side]]).permute(0, 3, 1, 2).contiguous() / 255 for side in (0, 1))
        plain = _distances(first - second, torch.ones_like(first[:, :1]))
        (forth, forth_tiles), (back, back_tiles) = _directed(first, second, plain), _directed(second, first, plain)
        is_forth = forth_tiles <= back_tiles
        l2[start:start + BATCH] = torch.where(is_forth, forth, back).numpy()
        difference[start:start + BATCH] = torch.where(is_forth, forth_tiles, back_tiles).numpy()
    return l2, difference


def _directed(source: torch.Tensor, target: torch.Tensor, plain: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """[p] l2 and [p] tile difference of each target [p, 3, s, s] to the source moved onto it; the plain ones where it is given up."""
    l2, difference = (distance.clone() for distance in plain)
    moves, alive = torch.zeros(len(source), len(LIMITS)), torch.arange(len(source))
    for divisor, n_steps, bound in LEVELS:
        small_source, small_target = _reduced(source[alive], divisor), _reduced(target[alive], divisor)
        moves[alive] = _improved(small_source, small_target, moves[alive], n_steps)
        residual, seen = _residual(small_source, small_target, moves[alive])
        if divisor == 1:
            l2[alive], difference[alive] = _distances(residual, seen)
        alive = alive[_tile_difference(residual, seen) <= bound]
        if not len(alive):
            break
    return l2, difference


def _reduced(pictures: torch.Tensor, divisor: int) -> torch.Tensor:
    """Pictures [p, 3, s, s] at a fraction of their side. Each layout as what follows takes half the time in: planes to average, pixels to sample."""
    reduced = functional.avg_pool2d(pictures, divisor) if divisor > 1 else pictures
    return reduced.contiguous(memory_format=torch.channels_last)


def _improved(source: torch.Tensor, target: torch.Tensor, moves: torch.Tensor, n_steps: int) -> torch.Tensor:
    """[p, 6] moves after n_steps damped Gauss-Newton steps of the l2, starting where it is smaller: at the given moves or at none."""
    with_gradients = torch.cat([source, *_gradients(source)], dim=1)
    goal = target.flatten(2)
    cost, unmoved = _cost(source, goal, moves), _cost(source, goal, 0 * moves)
    moves, cost = torch.where((cost < unmoved)[:, None], moves, 0 * moves), torch.minimum(cost, unmoved)
    damping = torch.full((len(moves),), DAMPING)
    limits = torch.tensor(LIMITS)
    for _ in range(n_steps):
        step = _step(with_gradients, goal, moves, damping)
        tried = torch.maximum(torch.minimum(moves - step, limits), -limits)
        tried_cost = _cost(source, goal, tried)
        is_better = tried_cost < cost
        moves, cost = torch.where(is_better[:, None], tried, moves), torch.where(is_better, tried_cost, cost)
        damping = torch.where(is_better, damping * SHRINK, damping * GROW)
    return moves


def _step(with_gradients: torch.Tensor, goal: torch.Tensor, moves: torch.Tensor, damping: torch.Tensor) -> torch.Tensor:
    """[p, 6] the damped Gauss-Newton step that is to be taken off the moves."""
    moved, is_seen, (along_x, along_y) = _moved(with_gradients, moves)
    colours, by_x, by_y = moved[:, :3], moved[:, 3:6], moved[:, 6:]
    gain = moves[:, 4].exp()[:, None, None]
    shown = gain * colours + moves[:, 5, None, None]
    is_open = ((shown <= 1) & (shown >= 0)) * is_seen[:, None]  # clipped pixels say nothing about the way to go
    residual = ((shown.clamp(0, 1) - goal) * is_seen[:, None]).flatten(1)
    by_move = [-gain * (along_x * by_x + along_y * by_y), gain * (along_x * by_y - along_y * by_x), gain * by_x, gain * by_y, gain * colours,
               torch.ones_like(colours)]
    jacobian = (torch.stack(by_move, dim=1) * is_open[:, None]).flatten(2)
    hessian = jacobian @ jacobian.transpose(1, 2)
    slope = (jacobian @ residual[:, :, None])[..., 0]
    damped = hessian + torch.diag_embed(torch.diagonal(hessian, dim1=1, dim2=2) * damping[:, None] + 1e-4)
    return torch.linalg.solve(damped, slope)


def _moved(channels: torch.Tensor, moves: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """[p, c, s s] channels zoomed, turned and shifted; [p, s s] where they are seen, 0 or 1; and where from, less the shift, [p, 1, s s] twice."""
    side = channels.shape[-1]
    centres = (torch.arange(side) + 0.5) / side * 2 - 1
    y, x = (grid.reshape(1, -1) for grid in torch.meshgrid(centres, centres, indexing="ij"))
    scale = (-moves[:, 0]).exp()
    cosine, sine = (scale * moves[:, 1].cos())[:, None], (scale * moves[:, 1].sin())[:, None]
    along_x, along_y = cosine * x - sine * y, sine * x + cosine * y
    u, v = along_x + moves[:, 2:3], along_y + moves[:, 3:4]
    grid = torch.stack([u, v], dim=-1).reshape(len(moves), side, side, 2)
    sampled = functional.grid_sample(channels, grid, padding_mode="border", align_corners=False)
    return sampled.flatten(2), ((u.abs() <= 1) & (v.abs() <= 1)).float(), (along_x[:, None], along_y[:, None])


def _shown(source: torch.Tensor, moves: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[p, 3, s s] source as the moves show it, clipped as pixels are, and [p, s s] where it is seen."""
    moved, is_seen, _ = _moved(source, moves)
    return (moves[:, 4].exp()[:, None, None] * moved + moves[:, 5, None, None]).clamp(0, 1), is_seen


def _cost(source: torch.Tensor, goal: torch.Tensor, moves: torch.Tensor) -> torch.Tensor:
    """[p] mean square difference to the goal [p, 3, s s] where the source is seen."""
    shown, is_seen = _shown(source, moves)
    return ((shown - goal).square() * is_seen[:, None]).sum(dim=(1, 2)) / (3 * is_seen.sum(dim=1))


def _distances(residual: torch.Tensor, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[p] l2 and [p] tile difference, details among it, of a residual [p, 3, s, s] where it is seen [p, 1, s, s]."""
    l2 = (residual.square().sum(dim=(1, 2, 3)) / (3 * seen.sum(dim=(1, 2, 3)))).sqrt()
    return l2, torch.maximum(_tile_difference(residual, seen), _detail(residual, seen))


def _tile_difference(residual: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """[p] largest mean difference of a tile; one that is seen by less than half does not count."""
    return _tile_means(residual, seen, N_TILES).square().mean(dim=1).flatten(1).amax(dim=1).sqrt()


def _detail(residual: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """[p] half the largest mean difference in lightness of a quarter of a tile, less those along the border."""
    lightness = (residual * torch.tensor(LIGHTNESS)[:, None, None]).sum(dim=1, keepdim=True)
    return _tile_means(lightness, seen, N_DETAILS)[:, 0, 1:-1, 1:-1].abs().flatten(1).amax(dim=1) / 2


def _residual(source: torch.Tensor, target: torch.Tensor, moves: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[p, 3, s, s] what source as the moves show it has above the target, 0 where it is not seen, and [p, 1, s, s] where it is seen."""
    side = target.shape[-1]
    shown, is_seen = _shown(source, moves)
    return ((shown - target.flatten(2)) * is_seen[:, None]).reshape(-1, 3, side, side), is_seen.reshape(-1, 1, side, side)


def _tile_means(residual: torch.Tensor, seen: torch.Tensor, n_tiles: int) -> torch.Tensor:
    """[p, c, n_tiles, n_tiles] means of residual [p, c, s, s] over what is seen of each tile; 0 where that is less than half."""
    share = functional.avg_pool2d(seen, seen.shape[-1] // n_tiles)
    return functional.avg_pool2d(residual, seen.shape[-1] // n_tiles) / share.clamp_min(0.5) * (share >= 0.5)


def _gradients(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[p, 3, s, s] change to the right and [p, 3, s, s] change downwards, per half side."""
    down, right = torch.gradient(pictures, dim=(2, 3))
    half = pictures.shape[-1] / 2
    return right * half, down * half
