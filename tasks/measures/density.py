"""How close the nearest picture of another cluster is."""

import faiss
import numpy as np

from tasks.measures.distances import pairwise_l2

EXACT = 20_000  # pictures; beyond, other pictures are proposed by their thumbnails of 8 px
N_PROPOSED, INDEXED = 32, 150_000
BLOCK, FEW = 1024, 64  # pictures at a time: against centres, and against as many as are proposed to each


def nearest_other(pictures: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """[n] float32 l2 of each picture to the nearest centre of another cluster, nan where there is none.

    pictures [n, s, s, 3] uint8 (an array or memory-mapped), s a multiple of 8; centre [n] row of each one's centre. Exact for up to EXACT
    pictures; beyond, the nearest of those N_PROPOSED centres whose thumbnails are nearest: never below the exact value.
    """
    centres, out = np.unique(centre), np.full(len(pictures), np.nan, np.float32)
    if len(centres) < 2:
        return out
    if len(pictures) > EXACT:
        return _by_thumbnails(pictures, centre, centres)
    flat = pictures[centres].reshape(len(centres), -1)
    for start in range(0, len(pictures), BLOCK):
        block = (pictures[start:start + BLOCK] / np.float32(255)).reshape(-1, flat.shape[1])
        columns = range(0, len(centres), BLOCK)
        l2 = np.concatenate([pairwise_l2(block, flat[column:column + BLOCK] / np.float32(255)) for column in columns], axis=1)
        l2[centre[start:start + BLOCK, None] == centres[None, :]] = np.inf
        out[start:start + BLOCK] = l2.min(axis=1)
    return out


def _by_thumbnails(pictures: np.ndarray, centre: np.ndarray, centres: np.ndarray) -> np.ndarray:
    small, out = _thumbnails(pictures), np.empty(len(pictures), np.float32)
    n_lists = min(int(4 * len(centres) ** 0.5), len(centres))
    index = faiss.index_factory(small.shape[1], f"IVF{n_lists},Flat" if len(centres) > INDEXED else "Flat")
    if len(centres) > INDEXED:
        index.train(small[centres[:: max(1, len(centres) // (256 * n_lists))]])
        faiss.ParameterSpace().set_index_parameter(index, "nprobe", 16)
    index.add(small[centres])
    for start in range(0, len(pictures), FEW):
        rows = np.arange(start, min(start + FEW, len(pictures)))
        proposed = index.search(small[rows], N_PROPOSED + 1)[1]
        is_other = (proposed >= 0) & (centres[proposed] != centre[rows, None])
        at, column = np.nonzero(is_other)
        a, b = pictures[rows[at]], pictures[centres[proposed[at, column]]]
        l2 = np.sqrt(np.square((a.astype(np.float32) - b) / 255).mean(axis=(1, 2, 3)))
        out[rows] = np.nan
        np.fmin.at(out, rows[at], l2)
    return out


def _thumbnails(pictures: np.ndarray) -> np.ndarray:
    """[n, 192] float32: the means of 8 x 8 tiles, whose distance is never above that of the pictures."""
    step = pictures.shape[1] // 8
    made = np.empty((len(pictures), 192), np.float32)
    for start in range(0, len(pictures), BLOCK):
        block = pictures[start:start + BLOCK]
        made[start:start + BLOCK] = block.reshape(-1, 8, step, 8, step, 3).mean(axis=(2, 4)).reshape(len(block), -1) / 255
    return made
