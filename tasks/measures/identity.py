"""Stable ids: 63-bit hashes that are the same in every run and on every machine."""

import hashlib

import numpy as np


def hash63(*parts: str) -> int:
    """Id of the parts: the first 63 bits of the SHA-256 of the parts joined by the unit separator, in [0, 2**63).

    The order of the parts counts. 63 bits, because Parquet and DuckDB integers are signed. Two lists of parts share an id only
    by chance (1 in 2**63 a pair) or when more than one part contains the separator; require_distinct tells.
    """
    return int.from_bytes(hashlib.sha256("\x1f".join(parts).encode()).digest()[:8], "big") >> 1


def require_distinct(ids: np.ndarray, what: str) -> None:
    """Nothing; raises ValueError naming the first rows [n] that share an id (`what` says what they are)."""
    values, first, counts = np.unique(ids, return_index=True, return_counts=True)
    if len(values) < len(ids):
        repeated = values[counts > 1]
        row = int(first[counts > 1].min())
        rows = np.flatnonzero(ids == ids[row])[:2].tolist()
        raise ValueError(f"{what} {ids[row]} stands in rows {rows} ({len(repeated)} ids repeat); remove the repeated rows")
