"""Pictures whose PDQ hashes are close (Facebook 2019: 256 bits, DCT of 64 x 64 luminance)."""

import faiss
import numpy as np

EXACT_ROWS = 150_000  # beyond, every row against every row takes more minutes than an index that is exact by the pigeonhole rule
N_TABLES, N_FLIPS = 16, 1


def close_pairs(hashes: np.ndarray, max_distance: int) -> tuple[np.ndarray, np.ndarray]:
    """[p, 2] rows (a < b, in order) of hashes within max_distance, and [p] int32 number of bits in which they differ.

    hashes [n, 32] uint8, 256 bits a row. Exact at any size: beyond EXACT_ROWS by 16 tables of 16 bits, of which one differs by at
    most one bit in any pair within 31 (pigeonhole: tables x (flips + 1) - 1). Raises ValueError for a larger max_distance there.
    """
    if hashes.ndim != 2 or hashes.shape[1] != 32 or hashes.dtype != np.uint8:
        raise ValueError(f"hashes {hashes.shape} {hashes.dtype} are not [n, 32] uint8; pass 256 bits a row")
    if len(hashes) < 2:
        return np.zeros((0, 2), np.int64), np.zeros(0, np.int32)
    index = _index(len(hashes), max_distance)
    index.add(np.ascontiguousarray(hashes))
    starts, distance, found = index.range_search(np.ascontiguousarray(hashes), max_distance + 1)  # the radius itself is left out
    rows = np.repeat(np.arange(len(hashes)), np.diff(starts.astype(np.int64)))
    is_first = rows < found
    order = np.lexsort((found[is_first], rows[is_first]))
    return np.stack([rows[is_first], found[is_first]], axis=1)[order], distance[is_first][order].astype(np.int32)


def _index(n: int, max_distance: int) -> "faiss.IndexBinary":
    if n <= EXACT_ROWS:
        return faiss.IndexBinaryFlat(256)
    if max_distance > N_TABLES * (N_FLIPS + 1) - 1:
        raise ValueError(f"beyond {EXACT_ROWS} rows hashes are searched to a distance of {N_TABLES * (N_FLIPS + 1) - 1} at most, not {max_distance}")
    index = faiss.IndexBinaryMultiHash(256, N_TABLES, 256 // N_TABLES)
    index.nflip = N_FLIPS
    return index
