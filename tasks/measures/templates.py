"""Template copies: a region that stays the same over the generations of a prompt while the rest varies."""

from typing import Any

import numpy as np
from scipy.ndimage import binary_opening

from tasks.measures import cliques, distances
from tasks.measures.distances import tile_slices

MIN_VARIATION = 0.1  # RMS deviation outside the mask: below it the generations are one picture, which is judged as a copy
SAME_LAYOUT_L2 = 0.05  # inside the mask: prints of one layout


def tile_std(pictures: np.ndarray, tiles: int = 4) -> np.ndarray:
    """[tiles * tiles, n] float32 standard deviation of each tile around its channels' means, of pictures [n, h, w, 3].

    Tiles in row-major order, as pairwise_tiles has them. Raises ValueError when a side has fewer pixels than tiles.
    """
    cuts = tile_slices(pictures.shape[1], pictures.shape[2], tiles)
    variance = [pictures[:, rows, columns].var(axis=(1, 2), dtype=np.float64).mean(axis=-1) for rows, columns in cuts]
    return np.asarray(np.sqrt(np.stack(variance)), np.float32)


def template_edges(
    tiles: np.ndarray, tile_std: np.ndarray, edge_l2: float, min_tiles: int = 8, min_std: float = 0.04
) -> np.ndarray:
    """[n, n] bool: the pairs of generations of which at least min_tiles tiles are flat in neither and within edge_l2.

    tiles [t, n, n] from pairwise_tiles; tile_std [t, n]; a tile is flat when its deviation is below min_std (flat tiles agree by
    chance). Symmetric, diagonal False. Design, clique rule; after the template copies of Webster 2023. Raises ValueError when
    the two do not belong together.
    """
    if tiles.shape != (len(tile_std), tile_std.shape[1], tile_std.shape[1]):
        raise ValueError(f"tiles {tiles.shape} and tile_std {tile_std.shape} are not of one grid; make both with the same tiles")
    edges = np.zeros(tiles.shape[1:], np.int64)
    for distance, is_busy in zip(tiles, tile_std >= min_std, strict=True):
        edges += (distance <= edge_l2) & is_busy[:, None] & is_busy[None, :]
    is_edge = np.asarray(edges >= min_tiles)
    np.fill_diagonal(is_edge, False)
    return is_edge


def same_layout(pictures: np.ndarray, pairs: np.ndarray, edge_l2: float, min_tiles: int = 8, min_std: float = 0.04) -> np.ndarray:
    """[p] bool: template_edges of the pairs alone, which would be too many for all pictures against all.

    pictures [n, h, w, 3] uint8; pairs [p, 2] rows of it. Raises ValueError when a side has fewer pixels than 4 tiles.
    """
    n_agreeing = np.zeros(len(pairs), np.int64)
    for rows, columns in tile_slices(pictures.shape[1], pictures.shape[2], 4):
        tile = pictures[:, rows, columns].astype(np.float32) / 255
        is_busy = np.sqrt(tile.var(axis=(1, 2), dtype=np.float64).mean(axis=-1)) >= min_std
        for start in range(0, len(pairs), 4096):
            a, b = pairs[start:start + 4096].T
            l2 = np.sqrt(np.square(tile[a] - tile[b]).mean(axis=(1, 2, 3), dtype=np.float64))
            n_agreeing[start:start + 4096] += (l2 <= edge_l2) & is_busy[a] & is_busy[b]
    return n_agreeing >= min_tiles


def fixed_region(clique_pictures: np.ndarray, edge_l2: float = 0.1) -> np.ndarray:
    """[h, w] bool: the pixels that deviate over the clique by at most edge_l2 / sqrt(2) (RMS over channels), without specks.

    clique_pictures [n, h, w, 3], joined where they are within edge_l2: n pictures all within edge_l2 of each other deviate from
    their mean by at most edge_l2 sqrt((n - 1) / (2 n)), so that what the clique rule calls one picture is fixed as a whole. Specks
    narrower than three pixels are taken out by a morphological opening (3 x 3 square). After the masks of Webster 2023. Raises
    ValueError for fewer than two pictures, over which nothing can vary.
    """
    if len(clique_pictures) < 2:
        raise ValueError(f"a fixed region over {len(clique_pictures)} picture is the whole picture; pass a clique of at least 2")
    variance = clique_pictures.var(axis=0, dtype=np.float64).mean(axis=-1)
    # padded by its own edge: an opening alone counts what lies outside the picture as varying and eats the picture's corners
    is_fixed = np.pad(variance <= edge_l2**2 / 2, 1, mode="edge")
    return np.asarray(binary_opening(is_fixed, np.ones((3, 3), bool))[1:-1, 1:-1])


def region_share(picture: np.ndarray, mask: np.ndarray) -> float:
    """Share of the picture's variance around its channel means that lies inside the mask, in [0, 1]; 0 for a flat picture.

    picture [h, w, 3]; mask [h, w] bool. A fixed background is large but has little of the variance; a template has much.
    """
    squared = np.square(picture - picture.mean(axis=(0, 1), dtype=np.float64)).sum(axis=-1)
    total = float(squared.sum())
    return float(squared[mask].sum()) / total if total > 0 else 0.0


def masked_l2(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> float:
    """Root mean square difference inside the mask, in [0, 1], lower is closer (Webster 2023, template distance).

    a, b [h, w, 3] in [0, 1]; mask [h, w] bool. Raises ValueError when the shapes differ or the mask is empty.
    """
    if a.shape != b.shape or a.shape[:2] != mask.shape:
        raise ValueError(f"pictures {a.shape}, {b.shape} and mask {mask.shape} differ in size; bring all to one size first")
    if not mask.any():
        raise ValueError("masked_l2 of an empty mask; ask region_share for a region that holds anything first")
    return float(np.sqrt(np.square(np.subtract(a[mask], b[mask], dtype=np.float64)).mean()))


def shared_template(
    pictures: np.ndarray, library: np.ndarray, is_member: np.ndarray, settings: dict[str, float]
) -> dict[str, Any] | None:
    """row of the library, share, l2, margin and mask [p, p] of the template that the generations share, or None.

    pictures [g, p, p, 3]; library [n, p, p, 3] with is_member [n]; settings: edge_l2, clique_size, template_share, max_l2,
    max_margin. A clique of generations of which at least half of the tiles agree while the rest varies; a region that is fixed over
    it and holds template_share of the variance; inside it within max_l2 of one training picture, and by max_margin closer than to
    pictures of other layouts (those beyond 0.05 of it inside the region). A layout that an unseen picture shares is no evidence of
    training. l2 and margin are taken inside the region. After Webster 2023.
    """
    edges = template_edges(distances.pairwise_tiles(pictures), tile_std(pictures), settings["edge_l2"])
    members, _ = cliques.largest_clique(edges)
    if len(members) < settings["clique_size"]:
        return None
    mask, mean = fixed_region(pictures[members], settings["edge_l2"]), pictures[members].mean(axis=0)
    # over the pictures, not of their mean: what varies averages out of that, and any region would hold most of the rest
    share = float(np.mean([region_share(picture, mask) for picture in pictures[members]]))
    if not mask.any() or mask.all() or share < settings["template_share"]:
        return None
    if np.sqrt(pictures[members][:, ~mask].var(axis=0).mean()) < MIN_VARIATION:
        return None
    inside = np.sqrt(np.square(library[:, mask] - mean[mask]).mean(axis=(1, 2)))
    nearest = int(inside.argmin())
    layout = np.sqrt(np.square(library[:, mask] - library[nearest][mask]).mean(axis=(1, 2))) <= SAME_LAYOUT_L2
    margin = distances.margin(float(inside[nearest]), float(inside[~layout].min(initial=np.inf)))
    if not is_member[layout].all() or inside[nearest] > settings["max_l2"] or margin > settings["max_margin"]:
        return None
    return {"row": nearest, "share": share, "l2": float(inside[nearest]), "margin": margin, "mask": mask}
