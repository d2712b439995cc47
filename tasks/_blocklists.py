"""An exported blocklist: the folder that hosts take away. Written here, and read as what a stranger may have sent.

    blocklist.json                   what the list is of, how pictures are described, the files with their digests
    img_emb/img_emb_0.npy            [n, d] float16 descriptors of unit length: clip-retrieval's layout, with
    metadata/metadata_0.parquet      a row for each: entry, thresholds, PDQ, digest of the pixels
    descriptors.faiss                the same descriptors as an exact inner-product index
    pdq.txt                          the hashes alone, 64 hexadecimal digits a line
    pictures.parquet                 only where asked for: the training pictures themselves

The filter reads the first three. The index and the hash list are for other tools: faiss' own reader trusts what it reads.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks import _pictures, _tables, _training_sets
from tasks._schemas import column, schema
from tasks._settings import UserError

FORMAT = 2  # 1 had no colour layouts
ARRAY, TABLE, INDEX, HASHES, HEAD = "img_emb/img_emb_0.npy", "metadata/metadata_0.parquet", "descriptors.faiss", "pdq.txt", "blocklist.json"
PICTURES = "pictures.parquet"
READ = (ARRAY, TABLE)  # with their digests
MAX_ENTRIES, MAX_WIDTH = 1 << 22, 1 << 13  # 4 million entries are a lot of findings; beyond, it is no blocklist
MAX_HEAD = 1 << 20  # bytes
LAYOUT_BYTES = 48
ENTRIES = schema(
    ["entry_id"],
    [
        column("entry_id", pa.int64(), "63-bit hash of release, kind and what was described"),
        column("image_path", pa.string(), "Name of the entry, in the place where clip-retrieval has a path: no picture is there"),
        column("cluster_id", pa.int64(), "Cluster of the training image that it stops"),
        column("kind", pa.string(), "training_image, generation (a copy that the release made) or reencoded (such a copy as a JPEG)"),
        column("threshold", pa.float32(), "Likeness from which it blocks a picture: similarity less what colours and hash differ"),
        column("pdq", pa.string(), "PDQ hash, 64 hexadecimal digits"),
        column("pdq_quality", pa.int32(), "PDQ quality, 0 to 100"),
        column("layout", pa.string(), "Colour layout: mean red, green, blue of 4 x 4 tiles, row by row, 96 hexadecimal digits"),
        column("pixel_digest", pa.string(), "sha256 of its canonical pixels"),
    ],
)
TOLD = {"format": int, "release": str, "model_digest": str, "descriptor": str, "size_px": int, "pdq_quality": int, "files": dict}


@dataclass(frozen=True)
class Blocklist:
    """The entries, row-aligned, and what a picture must be brought to before it is compared with them."""

    head: dict[str, Any]  # blocklist.json
    entries: pa.Table  # rows of ENTRIES, in order of entry_id
    vectors: np.ndarray  # [n, d] float32 of unit length

    def __len__(self) -> int:
        return len(self.vectors)

    def column(self, name: str) -> np.ndarray:
        """[n] a column of the entries."""
        return np.asarray(self.entries[name].to_numpy(zero_copy_only=False))

    def hashes(self) -> np.ndarray:
        """[n, 32] uint8 PDQ hashes."""
        return self._digits("pdq", 32)

    def layouts(self) -> np.ndarray:
        """[n, 48] uint8 colour layouts."""
        return self._digits("layout", LAYOUT_BYTES)

    def _digits(self, name: str, n_bytes: int) -> np.ndarray:
        held = b"".join(bytes.fromhex(text) for text in self.entries[name].to_pylist())
        return np.frombuffer(held, np.uint8).reshape(len(self), n_bytes)


def write(folder: Path, entries: pa.Table, vectors: np.ndarray, head: dict[str, Any], pictures: pa.Table | None = None) -> None:
    """Write an exported blocklist: entries (ENTRIES), row-aligned with vectors [n, d] float16 of unit length; pictures only where asked for."""
    _tables.put_array(vectors, folder / ARRAY)
    _tables.put(entries, folder / TABLE)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors.astype(np.float32))
    _tables.put_bytes(faiss.serialize_index(index).tobytes(), folder / INDEX)
    usable = entries["pdq"].filter(pc.greater_equal(entries["pdq_quality"], head["pdq_quality"])).to_pylist()
    _tables.put_text("".join(f"{text}\n" for text in dict.fromkeys(usable)), folder / HASHES)
    (folder / PICTURES).unlink(missing_ok=True)
    if pictures is not None:
        _tables.put(pictures, folder / PICTURES)
    names = [ARRAY, TABLE, INDEX, HASHES, *([PICTURES] if pictures is not None else [])]
    files = {name: _tables.file_digest(folder / name) for name in names}
    told = {"format": FORMAT, **head, "n_entries": len(vectors), "files": files}
    _tables.put_text(json.dumps(told, indent=2, sort_keys=True) + "\n", folder / HEAD)


def training_pictures(image_ids: list[int]) -> pa.Table:
    """image_id and png of these training pictures, for an export that is asked to hold them."""
    reader, images = _training_sets.Reader(), _tables.read("images")
    rows = images.filter(pc.is_in(images["image_id"], pa.array(image_ids, pa.int64()))).to_pylist()
    shown = [_pictures.png(reader.pixels(row)) for row in rows]
    return pa.table({"image_id": pa.array([row["image_id"] for row in rows], pa.int64()), "png": pa.array(shown, pa.binary())})


def read(folder: Path) -> Blocklist:
    """An exported blocklist, checked. No pickle is ever loaded, no index read, and no file outside the folder opened.

    Raises UserError naming the file that is missing, too large, or not what blocklist.json says it is.
    """
    head = _head(folder)
    for name in READ:
        _require_own(folder, name)
        if _tables.file_digest(folder / name) != head["files"].get(name):
            raise UserError(f"{folder / name} is not the file that {HEAD} names: its digest differs; export the blocklist again")
    vectors = _vectors(folder / ARRAY)
    return Blocklist(head, _entries(folder / TABLE, len(vectors)), vectors)


def _head(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise UserError(f"blocklist {folder} is no folder; give one that the stage `blocklist` has written, such as data/blocklist/<release>/export")
    _require_own(folder, HEAD)
    if (folder / HEAD).stat().st_size > MAX_HEAD:
        raise UserError(f"{folder / HEAD} is larger than {MAX_HEAD} bytes; it is not of a blocklist")
    try:
        head = json.loads((folder / HEAD).read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise UserError(f"{folder / HEAD} is not JSON; export the blocklist again") from None
    told = TOLD if not isinstance(head, dict) or head.get("format") == FORMAT else {"format": int}  # another format has other things to tell
    wrong = next((k for k, kind in told.items() if not isinstance(head, dict) or not isinstance(head.get(k), kind) or isinstance(head.get(k), bool)), None)
    if wrong:
        raise UserError(f"{folder / HEAD} has no {wrong} of the kind expected; export the blocklist again")
    if head["format"] < FORMAT:
        raise UserError(f"{folder / HEAD} is of format {head['format']}, without colour layouts; have the list made again: this version reads format {FORMAT}")
    if head["format"] != FORMAT or not 4 <= head["size_px"] <= 1 << 12:
        raise UserError(f"{folder / HEAD}: format {head['format']} at {head['size_px']} px is not known here; this version reads format {FORMAT}")
    return dict(head)


def _require_own(folder: Path, name: str) -> None:
    file = folder / name
    if not file.is_file() or not file.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{file} is missing, or a link out of the folder; export the blocklist again")


def _vectors(file: Path) -> np.ndarray:
    try:
        mapped = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError, MemoryError):
        raise UserError(f"{file} is not a plain array of numbers; export the blocklist again") from None
    if mapped.ndim != 2 or mapped.dtype != np.float16 or mapped.shape[0] > MAX_ENTRIES or not 0 < mapped.shape[1] <= MAX_WIDTH:
        raise UserError(f"{file} holds {mapped.shape} {mapped.dtype}, no [n, d] float16 descriptors")
    vectors = np.array(mapped, np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or (abs(norms - 1) > 0.01).any():
        raise UserError(f"{file} holds descriptors that are not of unit length; export the blocklist again")
    return np.asarray(vectors / norms)


def _entries(file: Path, n: int) -> pa.Table:
    try:
        if pq.read_metadata(file).num_rows != n:
            raise UserError(f"{file} has not a row for each of the {n} descriptors; export the blocklist again")
        made = pq.read_table(file, columns=ENTRIES.names).cast(ENTRIES)
    except (pa.ArrowException, OSError, KeyError, ValueError):
        raise UserError(f"{file} is not the table of a blocklist; export the blocklist again") from None
    if not all(_is_hex(text, 64) for text in made["pdq"].to_pylist()) or not all(_is_hex(text, 2 * LAYOUT_BYTES) for text in made["layout"].to_pylist()):
        raise UserError(f"{file} has hashes or layouts that are none; export the blocklist again")
    if not np.isfinite(made["threshold"].to_numpy()).all():
        raise UserError(f"{file} has thresholds that are none; export the blocklist again")
    return made


def _is_hex(text: str, n: int) -> bool:
    return len(text) == n and not set(text) - set("0123456789abcdef")
