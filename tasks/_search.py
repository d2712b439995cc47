"""Copies searched piece by piece: thumbnails, neighbours by descriptor, aligned pixels. What is finished is found again.

Rows come in the order of the source, so that a new shard touches the pieces at its own place only. Arrays that all pieces share are
scratch files, memory-mapped by whoever makes a piece, here or on a worker.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks import _indexes, _shards, _training_sets
from tasks.measures import alignment, indexes, neighbours, proposals, templates

STAGE = "duplicates"
VERSION = 3  # raise it when a change of code changes what a piece holds
RUN, BLOCK = 512, 8192  # rows of a piece of thumbnails, rows of a side of a tile
PIECE, PAIRS = 8192, 1024  # pairs of a piece, pairs aligned by one thread
QUERIES, PROBED = 65_536, 40_000  # rows of a block of queries; rows, at most, that an exact search is asked for to choose the lists
COMPARED = pa.schema([("pair", pa.binary(32)), ("l2", pa.float32()), ("tile_difference", pa.float32()), ("has_same_layout", pa.bool_())])  # of a piece


@contextmanager
def scratch(*names: str) -> Iterator[list[Path]]:
    """Paths of scratch files of this process, gone in the end; a killed process's are swept by the next."""
    paths = [_shards.WORK / STAGE / f"{name}.{os.getpid()}.tmp" for name in names]
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    try:
        yield paths
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


def digest(vector: np.ndarray) -> str:
    """What tells a picture apart of which there is the descriptor alone."""
    return hashlib.sha256(vector.astype(np.float16).tobytes()).hexdigest()


@dataclass(frozen=True)
class Images:
    """The good images in the order of their source, and what is searched among them: the first of each with the same pixels."""

    vectors: np.ndarray  # [n, d] float16 of unit length
    names: list[str]  # [n] digest of the pixels, or of the descriptor
    first: np.ndarray  # [m] rows that are searched
    pictures: Path | None  # array [m, s, s, 3] uint8 of these; None without pictures
    described: Path  # scratch for their descriptors
    scheduler: str | None  # of Dask
    descriptor: str  # provenance of the vectors

    def at(self, rows: np.ndarray) -> np.ndarray:
        """Places among the searched rows."""
        return np.searchsorted(self.first, rows)

    def similarity(self, pairs: np.ndarray) -> np.ndarray:
        """[p] float32 cosine of pairs [p, 2] of rows."""
        return neighbours.similarities(self.vectors, self.vectors, pairs)

    def shown(self) -> np.ndarray:
        """[m, s, s, 3] uint8, memory-mapped."""
        return np.load(self.pictures, mmap_mode="r") if self.pictures else np.zeros((len(self.first), 0, 0, 3), np.uint8)

    def proposed(self, rows: np.ndarray, floor: float, enough: float, k: int) -> tuple[np.ndarray, indexes.Probes | None]:
        """[p, 2] pairs (a < b) of these rows that are neighbours by descriptor, and what an index finds of them where one was needed.

        Few rows are compared exactly, tile by tile: as `proposals` says. More than that by inverted lists: those at or above `enough`.
        """
        np.save(self.described.open("wb"), self.vectors[rows])
        names = [self.names[row] for row in rows]
        plan = indexes.index_plan(max(len(rows), 1), self.vectors.shape[1], os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
        if plan.kind == "exact":
            return rows[self._by_tile(names, (floor, enough, k + 1))], None  # a row is among its own nearest
        pairs, probed = self._by_lists(names, plan, enough, k + 1)
        return rows[pairs], probed

    def _by_tile(self, names: list[str], limits: tuple[float, float, int]) -> np.ndarray:
        blocks = _shards.runs(names, BLOCK)
        ends = [(block.start, block.stop) for block in blocks]
        hashes = [_shards.fingerprint([names[i] for i in block]) for block in blocks]
        tiles = [(a, b) for a in range(len(blocks)) for b in range(len(blocks)) if a <= b or limits[0] < limits[1]]
        items = [(_shards.fingerprint("tile", VERSION, self.descriptor, limits, hashes[a], hashes[b]), (str(self.described), ends[a], ends[b], limits))
                 for a, b in tiles]
        found = [np.zeros((0, 3))]
        for (a, b), made in zip(tiles, _shards.pieces(STAGE, f"{__name__}:_tile", items, self.scheduler, "tiles of the search"), strict=True):
            columns = [made.column(name).to_numpy() for name in made.column_names]
            found.append(np.stack([columns[0] + blocks[a].start, columns[1] + blocks[b].start, columns[2]], axis=1))
        every = np.concatenate(found)
        return proposals.first(every[:, :2].astype(np.int64), every[:, 2], limits[1], limits[2] - 1)[0]

    def _by_lists(self, names: list[str], plan: indexes.Plan, floor: float, k: int) -> tuple[np.ndarray, indexes.Probes]:
        vectors, depends = np.load(self.described, mmap_mode="r"), ("lists", VERSION, self.descriptor, plan.key, plan.n_train, names)
        path = _shards.WORK / STAGE / f"{_shards.fingerprint(*depends)}.index"  # kept: a killed search goes on with it
        index = _indexes.built(plan, vectors, path)
        sample = np.random.default_rng(0).permutation(len(vectors))[:PROBED]
        probed = indexes.probes(index, vectors, sample, floor)
        print(f"{STAGE}: {plan.key} for {len(vectors):,} rows, {probed.n_probe} lists a query: {probed.n_found:,} of {probed.n_exact:,} pairs that an "
              f"exact search of {probed.n_sampled:,} rows finds", flush=True)
        starts = range(0, len(vectors), QUERIES)
        limits = (floor, k, probed.n_probe)
        items = [(_shards.fingerprint(path.stem, limits, start), (str(path), str(self.described), (start, start + QUERIES), limits)) for start in starts]
        found = [np.zeros((0, 2), np.int64)]
        for made in _shards.pieces(STAGE, f"{__name__}:_lists", items, self.scheduler, "blocks of the search"):
            found.append(np.stack([made.column(name).to_numpy() for name in ("a", "b")], axis=1))
        return indexes.unique_pairs(np.concatenate(found), len(vectors)), probed

    def compared(self, pairs: np.ndarray, template_l2: float) -> dict[str, np.ndarray]:
        """What `differences` says of pairs [p, 2] of searched rows; of a pair that was compared before, what was said then.

        Found again pair by pair: a new image displaces neighbours here and there, and a piece that hung on all its pairs would be made anew.
        """
        if self.pictures is None or not len(pairs):
            return {"l2": np.full(len(pairs), np.nan, np.float32), "tile_difference": np.full(len(pairs), np.nan, np.float32),
                    "has_same_layout": np.zeros(len(pairs), bool)}
        local, own, family = self.at(pairs), _pair_names(self.names, pairs), self._family(template_l2)
        known = _kept(family)
        is_missing = pc.is_null(pc.index_in(own, known["pair"])).to_numpy(zero_copy_only=False)
        n_missing = is_missing.sum()
        print(f"{STAGE}: {len(pairs):,} pairs to compare, {len(pairs) - n_missing:,} of them kept from before, {n_missing:,} to align", flush=True)
        order = np.lexsort((local[:, 0], local[:, 1]))
        order = order[is_missing[order]]
        groups = [order[start:start + PIECE] for start in range(0, len(order), PIECE)]
        items = [(f"{family}-{_shards.fingerprint(own.take(pa.array(group)).to_pylist())}",
                  (str(self.pictures), local[group], own.take(pa.array(group)), template_l2)) for group in groups]
        made = pa.concat_tables([known, *(_shards.pieces(STAGE, f"{__name__}:_compared", items, self.scheduler, "pieces of new pairs") if items else ())])
        found = made.take(pc.index_in(own, made["pair"]))
        return {name: found[name].to_numpy() for name in COMPARED.names[1:]}

    def _family(self, template_l2: float) -> str:
        """Of pieces of compared pairs: named by all that what is said of a pair hangs on, but for its two pictures."""
        return f"compared-{_shards.fingerprint(VERSION, template_l2, self.shown().shape[1:])}"


def thumbnails(rows: list[dict[str, Any]], side: int, scheduler: str | None, target: Path) -> Path:
    """Write the array [n, side, side, 3] uint8 of rows of `images` in the order of their source, run by run."""
    runs, items = _shards.runs([row["pixel_digest"] for row in rows], RUN, [(row["split"], row["shard"]) for row in rows]), []
    for run in runs:
        places = [{name: rows[i][name] for name in ("split", "shard", "position")} for i in run]
        items.append((_shards.fingerprint("thumbnails", VERSION, side, [rows[i]["pixel_digest"] for i in run]), (places, side)))
    held = np.lib.format.open_memmap(target, mode="w+", dtype=np.uint8, shape=(len(rows), side, side, 3))
    for run, made in zip(runs, _shards.pieces(STAGE, f"{__name__}:_thumbnails", items, scheduler, "pieces of thumbnails"), strict=True):
        held[run.start:run.stop] = np.frombuffer(b"".join(made.column("pixels").to_pylist()), np.uint8).reshape(-1, side, side, 3)
    held.flush()
    return target


def differences(pictures: np.ndarray, pairs: np.ndarray, template_l2: float) -> dict[str, np.ndarray]:
    """l2 and tile_difference [p] float32 after alignment, to four digits, and has_same_layout [p], of pairs [p, 2] of pictures [n, s, s, 3] uint8."""
    import torch

    torch.set_num_threads(1)  # pairs are spread over threads instead: faster, and the same bytes with any number of them
    rows, local = np.unique(pairs, return_inverse=True)
    held, local = pictures[rows], local.reshape(-1, 2)
    parts = list(_shards.in_order(lambda start: alignment.aligned(held, local[start:start + PAIRS]), range(0, len(local), PAIRS)))
    l2, difference = (np.concatenate([np.zeros(0, np.float32), *(part[which] for part in parts)]) for which in (0, 1))
    return {"l2": np.round(l2, 4), "tile_difference": np.round(difference, 4), "has_same_layout": templates.same_layout(held, local, template_l2)}


def _thumbnails(places: list[dict[str, Any]], side: int) -> pa.Table:
    small = _training_sets.reader().small(places, side)  # in the order of the source, as the places are
    return pa.table({"pixels": pa.array([pixels.tobytes() for _, pixels in small], pa.binary())})


def _tile(described: str, of_queries: tuple[int, int], of_references: tuple[int, int], limits: tuple[float, float, int]) -> pa.Table:
    vectors = np.load(described, mmap_mode="r")
    pairs, similarity = proposals.proposals(vectors[slice(*of_queries)], vectors[slice(*of_references)], *limits)
    return pa.table({"query": pairs[:, 0], "reference": pairs[:, 1], "similarity": similarity})


def _lists(index: str, described: str, of_queries: tuple[int, int], limits: tuple[float, int, int]) -> pa.Table:
    vectors = np.load(described, mmap_mode="r")
    rows = np.arange(of_queries[0], min(of_queries[1], len(vectors)))
    pairs, _ = indexes.candidate_pairs(_opened(index), vectors, rows, *limits)
    return pa.table({"a": pairs[:, 0], "b": pairs[:, 1]})


@lru_cache(maxsize=1)
def _opened(index: str) -> Any:
    return indexes.on_device(_indexes.load(Path(index)))


def _compared(pictures: str, pairs: np.ndarray, own: pa.Array, template_l2: float) -> pa.Table:
    return pa.table({"pair": own} | differences(np.load(pictures, mmap_mode="r"), pairs, template_l2))


def _pair_names(names: list[str], pairs: np.ndarray) -> pa.Array:
    """[p] 32 bytes that tell a pair [p, 2] of named rows from all others: half of either's digest."""
    rows, local = np.unique(pairs, return_inverse=True)
    halves = np.frombuffer(bytes.fromhex("".join(names[row][:32] for row in rows)), np.uint8).reshape(-1, 16)
    return pa.Array.from_buffers(pa.binary(32), len(pairs), [None, pa.py_buffer(halves[local.reshape(-1, 2)].tobytes())])


def _kept(family: str) -> pa.Table:
    """What earlier pieces of this family say of pairs."""
    paths = sorted((_shards.WORK / STAGE).glob(f"{family}-*.parquet"))
    return pa.concat_tables([COMPARED.empty_table(), *(pq.read_table(path) for path in paths)])
