"""Indexes of descriptors on disk: written beside and renamed, built in shards of rows on any worker, merged where they exceed memory."""

import os
import shutil
from pathlib import Path
from typing import cast

import faiss
import numpy as np
from faiss.contrib.ondisk import merge_ondisk

from tasks.measures import indexes

SHARD_ROWS = 5_000_000
ON_DISK = "merged.ivfdata"  # beside its index: its absolute path in there is not believed


def save(index: faiss.IndexIVF, path: Path) -> None:
    """Write an index; visible only when complete. One that others have mapped is never written over: the old file lives on with them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    faiss.write_index(index, str(temporary))
    os.replace(temporary, path)


def load(path: Path, is_mapped: bool = False) -> faiss.IndexIVF:
    """The index of a file, or of a folder that `merge` wrote, whose lists stay on disk.

    is_mapped reads a file's codes from disk as they are needed, so that workers of one machine share them. Read only what `save` and
    `merge` wrote: faiss does not stand up to a hostile file. A merged index is never mapped with IO_FLAG_MMAP, which crashes.
    """
    if path.is_dir():
        return cast(faiss.IndexIVF, faiss.read_index(str(path / "merged.index"), faiss.IO_FLAG_ONDISK_SAME_DIR))
    return cast(faiss.IndexIVF, faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if is_mapped else 0))


def built(plan: indexes.Plan, vectors: np.ndarray, path: Path) -> faiss.IndexIVF:
    """The index of all vectors [n, d] (float16, may be memory-mapped) by this plan, in a file, or in a folder where it exceeds memory.

    Read where it is there, else made; shards that a killed process has finished are found again.
    """
    if path.exists():
        return load(path)
    if plan.kind == "ivf":
        index = indexes.trained_index(plan, vectors, 0)
        indexes.add_rows(index, vectors, 0, len(vectors))
        save(index, path)
        return index
    trained, step = path.with_suffix(".trained"), SHARD_ROWS
    if not trained.exists():
        save(indexes.trained_index(plan, vectors, 0), trained)
    shards = [path.with_suffix(f".shard{start // step}") for start in range(0, len(vectors), step)]
    for number, shard in enumerate(shards):
        if not shard.exists():
            save_shard(trained, vectors, number * step, min((number + 1) * step, len(vectors)), shard)
    merge(trained, shards, path)
    for file in (trained, *shards):
        file.unlink()
    return load(path)


def save_shard(trained: Path, vectors: np.ndarray, start: int, stop: int, path: Path) -> None:
    """Write the index of rows start to stop of vectors [n, d] (float16, may be memory-mapped), by the lists of the trained index's file.

    The rows keep their numbers. The same bytes wherever and whenever it runs: what a killed worker did not finish, another does again.
    """
    index = load(trained)
    indexes.add_rows(index, vectors, start, stop)
    save(index, path)


def merge(trained: Path, shards: list[Path], folder: Path) -> None:
    """Write one index of all shards to a folder, its lists in a file that is read where a search looks; visible only when complete.

    Needs the memory of the centroids, and the disk for all codes once more. Raises ValueError without shards.
    """
    if not shards:
        raise ValueError(f"{folder}: no shards to merge")
    for left in folder.parent.glob(f"{folder.name}.*.partial"):  # of a killed process
        shutil.rmtree(left)
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    temporary.mkdir(parents=True)
    index = load(trained)
    merge_ondisk(index, [str(shard) for shard in shards], str(temporary / ON_DISK))
    faiss.write_index(index, str(temporary / "merged.index"))
    del index  # it holds the lists' file open for writing
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(temporary, folder)
