"""Pictures as files hold them and as the audit sees them: the only file that imports PIL."""

import hashlib
import io
import warnings
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
from PIL import Image, ImageOps

from tasks import _tables
from tasks._settings import UserError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
MAX_PIXELS = 1 << 28
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
BATCH = 256
PICTURES_PER_SHARD = 4096


class BadPicture(Exception):
    """A file that is not a picture we can judge; the message is the row's reason."""


def canonical(data: bytes) -> np.ndarray:
    """[h, w, 3] uint8: the first frame, turned upright by its EXIF tag, alpha over white, RGB. Raises BadPicture with the reason."""
    if not data:
        raise BadPicture("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data))
            picture.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadPicture(f"more than {MAX_PIXELS} pixels") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise BadPicture(f"not readable as a picture: {str(error).split('<')[0].strip()[:80]}") from None
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith(("I", "F")):
        values = np.asarray(picture, np.float64)
        picture = Image.fromarray((values / max(values.max(), 255) * 255).astype(np.uint8))
    if "A" in picture.getbands() or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.asarray(picture.convert("RGB"))


def pixel_digest(pixels: np.ndarray) -> str:
    """sha256 of size and canonical RGB values: equal for files that show the very same pixels."""
    return hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def resized(pixels: np.ndarray, side: int) -> np.ndarray:
    """[side, side, 3] uint8: box filter down, bicubic up. The same on both sides of every comparison."""
    if pixels.shape[:2] == (side, side):
        return pixels
    smaller = min(pixels.shape[:2]) >= side
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BOX if smaller else Image.Resampling.BICUBIC))


def enlarged(pixels: np.ndarray, side: int) -> np.ndarray:
    """[side, side, 3] uint8 by bilinear resampling: a descriptor's input."""
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR))


def png(pixels: np.ndarray) -> bytes:
    """Lossless PNG bytes of [h, w, 3] uint8."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def jpeg_size(pixels: np.ndarray, quality: int) -> int:
    """Bytes of the picture's JPEG: how much there is to see in it."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality)
    return out.tell()


def scan_size(pixels: np.ndarray, quality: int) -> int:
    """Bytes of the JPEG's entropy-coded scan alone: at thumbnail size header and tables are most of a file."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality, optimize=True)
    data = out.getvalue()
    scan = data.index(b"\xff\xda")
    return len(data) - scan - 2 - int.from_bytes(data[scan + 2:scan + 4], "big") - 2


def altered(pixels: np.ndarray, transform: str, rng: np.random.Generator) -> np.ndarray:
    """[h, w, 3] uint8 of a copy as the web makes them: reencoded, half_size, cropped_4pct or brighter_10pct."""
    picture = Image.fromarray(pixels)
    if transform == "half_size":
        return np.asarray(picture.resize((max(1, picture.width // 2), max(1, picture.height // 2)), Image.Resampling.LANCZOS))
    if transform == "cropped_4pct":
        cut_x, cut_y = max(1, picture.width // 25), max(1, picture.height // 25)
        left, top = int(rng.integers(0, cut_x + 1)), int(rng.integers(0, cut_y + 1))
        return pixels[top:pixels.shape[0] - cut_y + top, left:pixels.shape[1] - cut_x + left]
    if transform == "brighter_10pct":
        return np.clip(pixels * 1.1, 0, 255).astype(np.uint8)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=int(rng.integers(50, 91)))
    return canonical(out.getvalue())


def webp(pixels: np.ndarray, side: int) -> bytes:
    """A WebP thumbnail for the report, pixel for pixel enlarged where the picture is small."""
    picture = Image.fromarray(pixels)
    small = max(picture.size) < side
    picture = picture.resize((side, side), Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=85, method=6)
    return out.getvalue()


def inside(root: Path, name: str) -> Path:
    """root/name. Raises BadPicture where the name leads out of the folder."""
    target = (root / name).resolve()
    if PurePosixPath(name).is_absolute() or not target.is_relative_to(root.resolve()):
        raise BadPicture("path leaves the folder")
    return target


def rows(form: str, root: Path, files: list[str]) -> Iterator[dict[str, Any]]:
    """The source's rows in order: key, caption, url, shard, position and `data`, the file's bytes (None with a reason).

    files are paths relative to root, as `inputs` listed them.
    """
    if form == "image_folder":
        yield from _folder_rows(root, files)
    elif form == "parquet":
        for shard in sorted(f for f in files if f.endswith(".parquet")):
            yield from _parquet_rows(root, shard)
    else:
        raise UserError(f"training_set: format '{form}' is not known; use image_folder or parquet")


def _folder_rows(root: Path, files: list[str]) -> Iterator[dict[str, Any]]:
    captions = _folder_captions(root, files)
    pictures = {f for f in files if Path(f).suffix.lower() in SUFFIXES}
    for name in sorted(pictures | set(captions)):
        row = {"key": name, "caption": None, "url": None, "shard": name, "position": 0, "data": None, "reason": None}
        row.update(captions.get(name, {}))
        try:
            source = inside(root, name)
            row["data"] = source.read_bytes() if source.is_file() else None
            row["reason"] = None if source.is_file() else "listed in the metadata but not in the folder"
            text = source.with_suffix(".txt")
            if row["caption"] is None and text.is_file():
                row["caption"] = text.read_text(encoding="utf-8").strip()
        except (BadPicture, UnicodeDecodeError) as error:
            row["reason"] = "caption is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        yield row


def _folder_captions(root: Path, files: list[str]) -> dict[str, dict[str, Any]]:
    """What metadata.csv and metadata.jsonl say of each file, by its path relative to root."""
    captions: dict[str, dict[str, Any]] = {}
    for name in files:
        if Path(name).name not in ("metadata.csv", "metadata.jsonl"):
            continue
        listed = pa.csv.read_csv(root / name) if name.endswith(".csv") else pa.json.read_json(root / name)
        listed = listed.rename_columns([_field(c) for c in listed.column_names])
        if "file_name" not in listed.column_names:
            raise UserError(f"{root / name} has no column file_name; the Hugging Face image folder needs one")
        for row in listed.to_pylist():
            key = (PurePosixPath(name).parent / str(row["file_name"])).as_posix()
            captions[key] = {"caption": _text(row.get("caption")), "url": _text(row.get("url"))}
    return captions


def _parquet_rows(root: Path, shard: str) -> Iterator[dict[str, Any]]:
    file = pq.ParquetFile(root / shard)
    names = {_field(c): c for c in file.schema_arrow.names}
    if "image" not in names:
        raise UserError(f"{root / shard} has no column image (struct<bytes, path> or binary); it has {file.schema_arrow.names}")
    position = 0
    wanted = [names[c] for c in ("image", "caption", "url") if c in names]
    for batch in file.iter_batches(batch_size=BATCH, columns=wanted):
        for raw in batch.to_pylist():
            row = {_field(k): v for k, v in raw.items()}
            image = row["image"] if isinstance(row["image"], dict) else {"bytes": row["image"]}
            key = image.get("path") or f"{shard}#{position}"
            yield {"key": key, "caption": _text(row.get("caption")), "url": _text(row.get("url")), "shard": shard,
                   "position": position, "data": image.get("bytes"), "reason": None if image.get("bytes") else "no bytes"}
            position += 1


def _field(name: str) -> str:
    """A source's column under the name we use: LAION's TEXT and URL, datasets' text."""
    lower = name.lower()
    return {"text": "caption", "txt": "caption"}.get(lower, lower if lower in ("caption", "url", "image", "file_name") else name)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


class Reader:
    """Canonical pictures of the training and held-out images by place; the last shards read stay open."""

    def __init__(self) -> None:
        listed = {"member": _tables.read("inputs", side="members").to_pylist(), "held_out": _tables.read("inputs", side="held_out").to_pylist()}
        self.roots = {split: (rows[0]["format"], Path(rows[0]["root"])) for split, rows in listed.items() if rows}
        self.column = lru_cache(maxsize=4)(_image_column)

    def pixels(self, row: dict[str, Any]) -> np.ndarray:
        """[h, w, 3] uint8 of a row of `images` (split, shard, position)."""
        form, root = self.roots[row["split"]]
        if form == "image_folder":
            return canonical(inside(root, row["shard"]).read_bytes())
        image = self.column(root / row["shard"])[row["position"]].as_py()
        return canonical(image["bytes"] if isinstance(image, dict) else image)

    def reduced(self, rows: list[dict[str, Any]], side: int) -> np.ndarray:
        """[n, side, side, 3] float32 in [0, 1] of rows of `images`, in their order, read shard by shard."""
        out = np.empty((len(rows), side, side, 3), np.float32)
        for i in sorted(range(len(rows)), key=lambda i: (rows[i]["split"], rows[i]["shard"], rows[i]["position"])):
            out[i] = resized(self.pixels(rows[i]), side) / np.float32(255)
        return out


def _image_column(shard: Path) -> pa.ChunkedArray:
    names = {_field(c): c for c in pq.read_schema(shard).names}
    return pq.read_table(shard, columns=[names["image"]]).column(0)


class GenerationWriter:
    """PNGs of a release's generations gathered into Parquet shards of PICTURES_PER_SHARD rows: never one file per picture."""

    def __init__(self, release: str) -> None:
        self.folder, self.pending, self.n_shards = _tables.folder("generations", release) / "pictures", list[dict[str, Any]](), 0

    def add(self, rows: list[dict[str, Any]], pngs: Iterable[bytes | None]) -> list[dict[str, Any]]:
        """The rows with the place of their picture (shard, position), None where there is no picture."""
        placed: list[dict[str, Any]] = []
        for row, png in zip(rows, pngs, strict=True):
            shard, position = (None, None) if png is None else (f"pictures_{self.n_shards:05d}.parquet", len(self.pending))
            placed.append({**row, "shard": shard, "position": position})
            if png is not None:
                self.pending.append({"generation_id": row["generation_id"], "png": png})
            if len(self.pending) == PICTURES_PER_SHARD:
                self.close()
        return placed

    def close(self) -> None:
        """Write what is pending."""
        if self.pending:
            _tables.put(pa.Table.from_pylist(self.pending), self.folder / f"pictures_{self.n_shards:05d}.parquet")
            self.pending, self.n_shards = [], self.n_shards + 1


class GenerationReader:
    """Canonical pictures of a release's generations by place; the last shards read stay open."""

    def __init__(self, release: str) -> None:
        folder = _tables.folder("generations", release) / "pictures"
        self.column = lru_cache(maxsize=4)(lambda shard: pq.read_table(folder / shard, columns=["png"]).column(0))

    def pixels(self, row: dict[str, Any]) -> np.ndarray:
        """[h, w, 3] uint8 of a row of `generations` (shard, position)."""
        return canonical(self.column(row["shard"])[row["position"]].as_py())

    def reduced(self, rows: list[dict[str, Any]], side: int) -> np.ndarray:
        """[n, side, side, 3] float32 in [0, 1] of rows of `generations`, in their order."""
        out = np.empty((len(rows), side, side, 3), np.float32)
        for i, row in enumerate(rows):
            out[i] = resized(self.pixels(row), side) / np.float32(255)
        return out
