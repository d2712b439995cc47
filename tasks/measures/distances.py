"""How far apart pictures are in pixels: RMS distances, whole, by tile, adapted, and against the nearest other picture."""

from collections.abc import Iterable
from typing import overload

import numpy as np

COLUMNS = 4096  # of a matrix product: few enough for its float64 copies to stay in the cache, enough for the product to be worth it


def l2(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square difference of two pictures, in [0, 1], 0 for equal ones, lower is closer (Carlini et al. 2023, 4.2).

    a, b [h, w, 3] float in [0, 1]. Raises ValueError when the shapes differ or a pixel lies outside [0, 1].
    """
    _require_pair(a, b)
    return _rms(a, b)


def tiled_l2(a: np.ndarray, b: np.ndarray, tiles: int = 4) -> float:
    """Largest l2 over a tiles x tiles grid, in [0, 1], never below l2 (Carlini et al. 2023, 4.2.1).

    a, b [h, w, 3] float in [0, 1]; sides that do not divide are cut as np.array_split does. Raises ValueError as l2 does and
    when a side has fewer pixels than tiles.
    """
    _require_pair(a, b)
    of_tiles = [_rms(a[rows, columns], b[rows, columns]) for rows, columns in tile_slices(a.shape[0], a.shape[1], tiles)]
    return max(_rms(a, b), *of_tiles)  # the first only where rounding puts equal tiles a last digit below the whole


def pairwise_l2(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[n, m] float32 l2 between the flat pictures a [n, d] and b [m, d], by matrix products.

    Exact to about 1e-7, down to l2 = 0: the products are taken in float64, COLUMNS columns at a time, so that little is
    copied. Raises ValueError when the widths differ.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"pairwise_l2 needs [n, d] and [m, d], not {a.shape} and {b.shape}; flatten the pictures first")
    if not a.size or not b.size:
        return np.zeros((len(a), len(b)), np.float32)
    parts = [slice(start, start + COLUMNS) for start in range(0, a.shape[1], COLUMNS)]
    return _summed_l2(((a[:, part], None if a is b else b[:, part]) for part in parts), a.shape[1])


def pairwise_tiles(pictures: np.ndarray, tiles: int = 4) -> np.ndarray:
    """[tiles * tiles, n, n] float32 l2 of each tile between all pictures [n, h, w, 3], by matrix products as in pairwise_l2.

    Tiles in row-major order. Raises ValueError when a side has fewer pixels than tiles.
    """
    cuts, n = tile_slices(pictures.shape[1], pictures.shape[2], tiles), len(pictures)
    out = np.empty((len(cuts), n, n), np.float32)
    for tile, (rows, columns) in enumerate(cuts if n else ()):
        of_tile = pictures[:, rows, columns]
        step = max(1, COLUMNS // of_tile[0, 0].size)
        bands = (of_tile[:, row:row + step].reshape(n, -1) for row in range(0, of_tile.shape[1], step))
        out[tile] = _summed_l2(((band, None) for band in bands), of_tile[0].size)
    return out


def pairwise_tiled_l2(pictures: np.ndarray, tiles: int = 4) -> np.ndarray:
    """[n, n] float32 tiled_l2 between all pictures [n, h, w, 3]: symmetric, diagonal 0."""
    return np.asarray(pairwise_tiles(pictures, tiles).max(axis=0))


def adaptive_l2(distance: float, neighbours: np.ndarray, n: int = 50, alpha: float = 0.5) -> float:
    """distance / (alpha x mean of the n smallest neighbours), in [0, inf]; below 1 is close (Carlini et al. 2023, 5.1).

    distance = l2 of a generation to a training image; neighbours [m] = l2 of the same generation (not of the training image:
    that is another normaliser) to one picture per training cluster. 0 for an exact copy; inf when only the mean is 0. Raises
    ValueError without neighbours.
    """
    if not len(neighbours):
        raise ValueError("adaptive_l2 has no neighbours to compare with; pass the l2 to at least one training cluster")
    if distance == 0:
        return 0.0
    mean = float(np.sort(neighbours)[:n].mean(dtype=np.float64))
    return distance / (alpha * mean) if mean > 0 else float("inf")


@overload
def margin(own: float, other: float) -> float: ...
@overload
def margin(own: np.ndarray, other: np.ndarray | float) -> np.ndarray: ...
def margin(own: float | np.ndarray, other: float | np.ndarray) -> float | np.ndarray:
    """own / other, elementwise, in [0, inf]: clearly below 1 means closer to its own image than to any other picture.

    own = l2 to the nearest member of the image's cluster; other = l2 to the nearest picture outside it. 0 / 0 is 1: the two
    cannot be told apart. Design, definitions.
    """
    x, y = np.asarray(own, np.float64), np.asarray(other, np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = np.where((x == 0) & (y == 0), 1.0, x / y)
    return float(ratio) if np.ndim(own) == np.ndim(other) == 0 else ratio


def is_degenerate(pictures: np.ndarray, min_std: float = 0.04) -> np.ndarray:
    """[n] bool: the pictures [n, h, w, 3] whose pixels deviate from their channel's mean by less than min_std (RMS).

    Blank, flat (in any colour) and blacked-out pictures; such a picture never forms a finding.
    """
    return np.asarray(pictures.var(axis=(1, 2), dtype=np.float64).mean(axis=-1) < min_std**2)


def eidetic_k(distances: np.ndarray, delta: float) -> int:
    """Number of training images within delta, the extracted one (distance 0) included: the k of (k, l, delta)-eidetic.

    distances [n] = l2 of the extracted training image to every training image. Small k = memorized from few copies (Carlini
    et al. 2023, definition 2).
    """
    return int((distances <= delta).sum())


def tile_slices(height: int, width: int, tiles: int) -> list[tuple[slice, slice]]:
    """tiles x tiles (rows, columns) slices that partition a picture, row-major, cut as np.array_split does.

    Raises ValueError when a side has fewer pixels than tiles: an empty tile has no distance.
    """
    if tiles < 1 or min(height, width) < tiles:
        raise ValueError(f"a picture of {height} x {width} px has no {tiles} x {tiles} tiles; use larger pictures or fewer tiles")
    return [(rows, columns) for rows in _cuts(height, tiles) for columns in _cuts(width, tiles)]


def _summed_l2(parts: Iterable[tuple[np.ndarray, np.ndarray | None]], width: int) -> np.ndarray:
    """[n, m] float32 l2 of rows of this width, given as parts of their columns; the second of a part is None where both sides are one."""
    products, norms_a, norms_b = np.zeros(()), np.zeros(()), np.zeros(())
    for a, b in parts:
        x = a.astype(np.float64)
        y = x if b is None else b.astype(np.float64)
        product = x @ y.T
        products = products + product
        norms_a = norms_a + (product.diagonal() if b is None else np.vecdot(x, x))
        norms_b = norms_a if b is None else norms_b + np.vecdot(y, y)
    squared = np.add.outer(norms_a, norms_b) - 2 * products
    # float64 leaves about 1e-15 of the norms where two rows are equal; without this the root would show 3e-8 for a copy
    squared[squared < 1e-13 * width] = 0
    return np.asarray(np.sqrt(squared / width), np.float32)


def _cuts(side: int, tiles: int) -> list[slice]:
    """tiles slices of a side; the first side % tiles of them are one pixel longer."""
    edges = [tile * (side // tiles) + min(tile, side % tiles) for tile in range(tiles + 1)]
    return [slice(start, stop) for start, stop in zip(edges, edges[1:], strict=False)]


def _rms(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square difference, accumulated in float64."""
    return float(np.sqrt(np.square(np.subtract(a, b, dtype=np.float64)).mean()))


def _require_pair(a: np.ndarray, b: np.ndarray) -> None:
    """Nothing; raises ValueError unless the pictures have one shape and pixels in [0, 1]."""
    if a.shape != b.shape:
        raise ValueError(f"pictures of shapes {a.shape} and {b.shape} have no distance; bring both to one size first")
    for name, picture in (("a", a), ("b", b)):
        low, high = float(picture.min()), float(picture.max())
        if not (low >= 0 and high <= 1):  # written so that NaN fails, too
            raise ValueError(f"picture {name} has pixels in [{low:g}, {high:g}], not in [0, 1]; divide 8-bit pixels by 255")
