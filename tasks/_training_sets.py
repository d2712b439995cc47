"""Training and held-out sets in the formats people have them: their pieces, the rows of a piece, and a picture by its place."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from threading import Lock
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from tasks import _clip_embeddings, _files, _image_folders, _parquet_files, _pictures, _shards, _tables, _webdatasets
from tasks._settings import UserError

FORMATS = ("image_folder", "webdataset", "parquet", "clip_embeddings")
FOLDER_RUN = 512  # pictures of a folder that are one piece, about
SPLITS = {"member": "members", "held_out": "held_out"}  # split of a row: its source in params.yaml
OPEN = 4  # files of a source that stay open
Place: TypeAlias = tuple[Any, ...]  # of a piece: what `rows` needs, plain values


@dataclass(frozen=True)
class Source:
    """The members or the held-out images as `inputs` found them."""

    split: str
    form: str
    root: str
    digests: dict[str, str | None]  # of each file, by its path relative to root

    @property
    def has_pictures(self) -> bool:
        """Whether there are pictures, or descriptors alone."""
        return self.form != "clip_embeddings"

    def pieces(self) -> list[tuple[list[Any], Place]]:
        """What each piece of the source depends on, and its place, in order. A piece that is not in a file that changed stays the same."""
        return list(PIECES[self.form](self))


def is_wanted(form: str, name: str) -> bool:
    """Whether a file below the root is read, by its name."""
    path = PurePosixPath(name)
    wanted = {"parquet": path.suffix.lower() == ".parquet", "webdataset": path.suffix in (".tar", ".parquet") or is_compressed(name),
              "clip_embeddings": (name.startswith(_clip_embeddings.ARRAY) and path.suffix == ".npy")
              or (name.startswith(_clip_embeddings.TABLE) and path.suffix == ".parquet")}
    return wanted.get(form, True)


def is_compressed(name: str) -> bool:
    """Whether it is a tar that is not read, for it is compressed, by its name: a row that says so."""
    return name.lower().endswith((".tgz", ".tar.gz", ".tar.zst", ".tar.bz2", ".tar.xz"))


def sources() -> dict[str, Source]:
    """The sources that the audit has, by split."""
    found = {}
    for split, side in SPLITS.items():
        listed = _tables.read("inputs", side=side, columns=["format", "root", "path", "sha256"])
        if listed.num_rows:
            digests = dict(zip(listed.column("path").to_pylist(), listed.column("sha256").to_pylist(), strict=True))
            found[split] = Source(split, listed.column("format")[0].as_py(), listed.column("root")[0].as_py(), digests)
    return found


def rows(form: str, root: str, place: Place) -> Iterator[dict[str, Any]]:
    """The rows of a piece: key, name, caption, url, shard, position, `data` (the file's bytes), `reason` (why there are none), `notes`.

    Of a source without pictures data and reason are both None, and width_px, height_px and sha256 are as the metadata have them.
    """
    if form == "image_folder":
        return _image_folders.rows(root, *place)
    if form == "parquet":
        return _parquet_files.rows(root, *place)
    if form == "clip_embeddings":
        return _clip_embeddings.rows(root, *place)
    shard, tar, table, key = place
    return _webdatasets.rows(root, shard, tar, _samples(root, tar, table, key))


def _samples(root: str, tar: str | None, table: str | None, key: str) -> pa.Table:
    return _shards.shard("training_sets", key, lambda: _webdatasets.samples(root, tar, table))


def _folder_pieces(source: Source) -> Iterator[tuple[list[Any], Place]]:
    listed = _image_folders.listed(source.root, source.digests)
    for run in _shards.runs([told["key"] for _, told in listed], FOLDER_RUN):
        yield [listed[i][0] for i in run], ([listed[i][1] for i in run],)


def _parquet_pieces(source: Source) -> Iterator[tuple[list[Any], Place]]:
    for shard, digest in sorted(source.digests.items()):
        for place in _parquet_files.groups(source.root, shard):
            yield [shard, digest, *place], (shard, *place)


def _tar_pieces(source: Source) -> Iterator[tuple[list[Any], Place]]:
    for stem in sorted({name.rsplit(".", 1)[0] for name in source.digests if not is_compressed(name)}):
        yield _tar_piece(source, stem)
    for name in sorted(filter(is_compressed, source.digests)):
        yield [name, source.digests[name]], (name, name, None, _shards.fingerprint(name, source.digests[name]))


def _tar_piece(source: Source, stem: str) -> tuple[list[Any], Place]:
    tar, table = (name if (name := f"{stem}{suffix}") in source.digests else None for suffix in (".tar", ".parquet"))
    depends = [stem, tar and source.digests[tar], table and source.digests[table]]
    return depends, (tar or table, tar, table, _shards.fingerprint(*depends))


def _partitions(source: Source) -> Iterator[tuple[list[Any], Place]]:
    for array, table, _, _ in _clip_embeddings.partitions(source.root, list(source.digests)):
        yield [array, source.digests[array], source.digests[table]], (array, table)


PIECES: dict[str, Callable[[Source], Iterator[tuple[list[Any], Place]]]] = {
    "image_folder": _folder_pieces, "parquet": _parquet_pieces, "webdataset": _tar_pieces, "clip_embeddings": _partitions,
}


def given(found: dict[str, Source]) -> str | None:
    """The provenance of descriptors that the sources bring themselves; None where they have pictures.

    Raises UserError where one has pictures and the other has not, or their descriptors are not of one length.
    """
    if len({source.has_pictures for source in found.values()}) > 1:
        raise UserError("training_set: members and held_out must both have pictures, or both be clip_embeddings; their descriptors are of different models")
    if all(source.has_pictures for source in found.values()):
        return None
    lengths = {n for s in found.values() for *_, n in _clip_embeddings.partitions(s.root, list(s.digests))}
    if len(lengths) > 1:
        raise UserError(f"training_set: descriptors of {' and '.join(map(str, sorted(lengths)))} numbers; give members and held_out of one model")
    digests = [sorted((name, digest) for name, digest in s.digests.items() if name.endswith(".npy")) for s in found.values()]
    return f"given: {_shards.fingerprint(digests)}, {next(iter(lengths), 0)} numbers"


def reader() -> "Reader":
    """A reader that this process shares as long as `inputs` says the same."""
    return _reader(tuple((str(path.resolve()), path.stat().st_mtime_ns) for path in (_tables.path("inputs", side=side) for side in SPLITS.values())))


@lru_cache(maxsize=1)
def _reader(_inputs: tuple[tuple[str, int], ...]) -> "Reader":
    return Reader()


class Reader:
    """Canonical pictures of the training and held-out images by place; the files read last stay open. For threads too."""

    def __init__(self) -> None:
        self.sources, self.lock = sources(), Lock()
        self.blocks = lru_cache(maxsize=OPEN)(_parquet_files.Blocks)
        self.tars = lru_cache(maxsize=OPEN)(self._tar)

    def data(self, row: dict[str, Any]) -> bytes:
        """The encoded picture of a row of `images` (split, shard, position). Raises UserError where its source has none."""
        source, shard = self.sources[row["split"]], row["shard"]
        if source.form == "image_folder":
            return _image_folders.picture(source.root, shard)
        if source.form == "parquet":
            with self.lock:
                blocks = self.blocks(source.root, shard)
            return blocks.picture(row["position"])
        if source.form == "webdataset":
            with self.lock:
                file, offsets, sizes = self.tars(row["split"], shard)
                return _webdatasets.part(file, int(offsets[row["position"]]), int(sizes[row["position"]]))
        raise UserError(f"{source.root} holds descriptors without pictures; what asks for pixels cannot be done with clip_embeddings")

    def pixels(self, row: dict[str, Any]) -> np.ndarray:
        """[h, w, 3] uint8 of a row of `images` (split, shard, position)."""
        return _pictures.canonical(self.data(row))

    def small(self, rows: list[dict[str, Any]], side: int) -> Iterator[tuple[int, np.ndarray]]:
        """Number and [side, side, 3] uint8 of each of the rows of `images`, shard by shard, decoded by threads."""
        order = sorted(range(len(rows)), key=lambda i: (rows[i]["split"], rows[i]["shard"], rows[i]["position"]))
        return zip(order, _shards.in_order(lambda i: _pictures.resized(self.pixels(rows[i]), side), order), strict=True)

    def _tar(self, split: str, shard: str) -> tuple[Any, np.ndarray, np.ndarray]:
        """A tar, and where in it the picture of each position lies; its index is kept from `images`."""
        source = self.sources[split]
        found = _samples(source.root, *_tar_piece(source, shard.rsplit(".", 1)[0])[1][1:])
        offsets, sizes = (found.column(f"picture_{what}").fill_null(-1).to_numpy() for what in ("offset", "size"))
        return _files.opened(source.root, shard), offsets, sizes
