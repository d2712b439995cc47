"""Pictures as files hold them and as the audit sees them: the only file that imports PIL and PDQ."""

import hashlib
import io
import struct
import threading
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pdqhash
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps

from tasks import _tables

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "JPEG2000", "PPM")  # none of those for which PIL runs other programs
_NAMES = {"PNG": ".png .apng", "JPEG": ".jpg .jpeg .jpe .jfif", "WEBP": ".webp", "BMP": ".bmp .dib", "GIF": ".gif", "TIFF": ".tif .tiff", "AVIF": ".avif",
          "JPEG2000": ".jp2 .j2k", "PPM": ".ppm .pgm .pbm .pnm"}
SUFFIXES = {suffix: form for form, names in _NAMES.items() for suffix in names.split()}
PICTURES = {*SUFFIXES, ".heic", ".heif", ".jxl", ".svg", ".eps", ".tga", ".psd", ".ico"}  # by their name; the last are not read, and rows all the same
MAX_PIXELS = 1 << 26
MIN_SIDE, MAX_SIDE = 4, 1 << 15  # px; below there is nothing to compare
LARGE = 1 << 22  # pixels; of larger pictures one at a time is decoded, so that memory does not grow with the cores
BAND = 256  # rows turned into RGB at a time
PDQ_PX = 512
MIN_STD = 0.04  # as in tasks.measures.distances.is_degenerate
PICTURES_PER_SHARD = 4096
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # sizes are judged here, before anything is decoded
BROKEN = (OSError, SyntaxError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RuntimeError, MemoryError, EOFError, struct.error,
          zlib.error)  # what PIL raises over a damaged file
_one_at_a_time = threading.Lock()


class BadPicture(Exception):
    """A file that is not a picture we can judge; the message is the row's reason."""


def canonical(data: bytes) -> np.ndarray:
    """[h, w, 3] uint8: the first frame, turned upright by its EXIF tag, alpha over white, RGB. Raises BadPicture with the reason."""
    picture = _opened(data)
    with _room(picture):
        return _decoded(picture, data)[0]


def measured(data: bytes, name: str | None, jpeg_quality: int) -> dict[str, Any]:
    """What `images` says of a picture: its `columns`, measured on the canonical pixels, and `notes`: what the canonical decode had to do.

    name, where the source gives one, is held against the format. Raises BadPicture with the reason.
    """
    picture = _opened(data)
    with _room(picture):
        pixels, notes = _decoded(picture, data)
        suffix = PurePosixPath(name or "").suffix.lower()
        if suffix in SUFFIXES and SUFFIXES[suffix] != _format(picture):
            notes.append(f"{_format(picture)} under a name that says {suffix}")
        found, quality = pdq(pixels)
        columns = {"pixel_digest": pixel_digest(pixels), "width_px": pixels.shape[1], "height_px": pixels.shape[0], "pdq": found.hex(),
                   "pdq_quality": quality, "complexity_bytes": jpeg_size(pixels, jpeg_quality), "is_degenerate": is_degenerate(pixels)}
        return {"columns": columns, "notes": notes}


def _room(picture: Image.Image) -> AbstractContextManager[Any]:
    """Held while a picture is decoded: large ones wait for each other."""
    return _one_at_a_time if picture.width * picture.height > LARGE else nullcontext()


def _opened(data: bytes) -> Image.Image:
    """The picture with its header read and its size judged; nothing is decoded yet."""
    if not data:
        raise BadPicture("empty file")
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise BadPicture(f"more than {Image.MAX_IMAGE_PIXELS} pixels") from None
    except BROKEN as error:
        raise BadPicture(_reason(error, data)) from None
    if picture.width * picture.height > (Image.MAX_IMAGE_PIXELS or MAX_PIXELS):
        raise BadPicture(f"more than {Image.MAX_IMAGE_PIXELS} pixels")
    if not MIN_SIDE <= min(picture.size) <= max(picture.size) <= MAX_SIDE:
        raise BadPicture(f"{picture.width} x {picture.height} px; sides are from {MIN_SIDE} to {MAX_SIDE}")
    return picture


def _decoded(picture: Image.Image, data: bytes) -> tuple[np.ndarray, list[str]]:
    """[h, w, 3] uint8 of the canonical decode, and what it had to do. The picture is closed: its pixels are held once."""
    opened, notes = picture, list[str]()
    try:
        depths = [str(tile[3]) for tile in getattr(picture, "tile", [])]
        before = _orientation(picture) if picture.format == "TIFF" else 1  # PIL turns a TIFF as it loads it
        picture.load()
        if before in range(2, 9) or _orientation(opened) in range(2, 9):
            notes.append("turned upright")
            picture = ImageOps.exif_transpose(picture)
        if picture.mode.startswith(("I", "F")) or any(";16" in depth for depth in depths):
            notes.append("more than 8 bits a channel, reduced to 8")
        if picture.mode == "CMYK":
            notes.append("CMYK")
        pixels, has_alpha = _rgb(picture)
    except BROKEN as error:
        raise BadPicture(_reason(error, data)) from None
    notes = [note for note in [_frames(opened), *notes, "alpha laid over white" if has_alpha else None] if note]
    opened.close()
    return pixels, notes


def _rgb(picture: Image.Image) -> tuple[np.ndarray, bool]:
    """[h, w, 3] uint8, and whether anything was transparent. Band by band, for PIL's own copies are four bytes a pixel.

    Grey levels of 16 or 32 bits are scaled so that the brightest (at least 255) is 255.
    """
    is_deep = picture.mode.startswith(("I", "F"))
    brightest = max(255.0, *(float(np.nan_to_num(np.asarray(band)).max()) for _, band in _bands(picture))) if is_deep else 255.0
    pixels, has_alpha = np.empty((picture.height, picture.width, 3), np.uint8), False
    for start, band in _bands(picture):
        if is_deep:
            band = Image.fromarray(np.clip(np.nan_to_num(np.asarray(band, np.float64)) / brightest * 255, 0, 255).astype(np.uint8))
        elif "A" in band.getbands() or "transparency" in band.info:
            band = band.convert("RGBA")
            has_alpha = has_alpha or np.asarray(band.getchannel("A")).min() < 255
            band = Image.alpha_composite(Image.new("RGBA", band.size, "white"), band)
        pixels[start:start + BAND] = np.asarray(band.convert("RGB"))
    return pixels, bool(has_alpha)


def _bands(picture: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """The picture from top to bottom, with the first row of each part."""
    for start in range(0, picture.height, BAND):
        yield start, picture.crop((0, start, picture.width, min(start + BAND, picture.height)))


def _frames(picture: Image.Image) -> str | None:
    """What is left out of a file that holds more than one picture."""
    try:
        n_frames = getattr(picture, "n_frames", 1)
    except BROKEN:  # the first was whole
        return "animated: first frame"
    if n_frames == 1:
        return None
    return {"TIFF": f"first of {n_frames} pages", "MPO": f"first of {n_frames} pictures"}.get(str(picture.format), f"animated: first of {n_frames} frames")


def _orientation(picture: Image.Image) -> Any:
    try:
        return picture.getexif().get(0x0112, 1)
    except BROKEN:
        return 1


def _format(picture: Image.Image) -> str:
    return {"MPO": "JPEG", "DIB": "BMP"}.get(str(picture.format), str(picture.format))


def _reason(error: BaseException, data: bytes) -> str:
    said = str(error).split("<")[0].strip()[:80]
    return "truncated" if "truncated" in said.lower() or _is_cut(data) else f"not readable as a picture: {said or type(error).__name__}"


def _is_cut(data: bytes) -> bool:
    """Whether a file that cannot be read lacks its end."""
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data[-64:]
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in data[-64:]
    if data.startswith(b"RIFF"):
        return len(data) < int.from_bytes(data[4:8], "little") + 8
    if data.startswith(b"GIF8"):
        return not data.rstrip(b"\0").endswith(b";")
    return data.startswith(b"BM") and len(data) < int.from_bytes(data[2:6], "little")


def pixel_digest(pixels: np.ndarray) -> str:
    """sha256 of size and canonical RGB values: equal for files that show the very same pixels."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def pdq(pixels: np.ndarray) -> tuple[bytes, int]:
    """PDQ of a picture: 256 bits in 32 bytes, most significant first, and its quality, 0 to 100 (below 50 there is too little to see)."""
    size = (min(pixels.shape[1], PDQ_PX), min(pixels.shape[0], PDQ_PX))
    small = pixels if size == pixels.shape[1::-1] else np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
    bits, quality = pdqhash.compute(np.ascontiguousarray(small))
    return np.packbits(bits.astype(np.uint8)).tobytes(), int(quality)


def is_degenerate(pixels: np.ndarray) -> bool:
    """What tasks.measures.distances.is_degenerate says of a picture, from its histogram: without a float of every pixel."""
    counts = np.array(Image.fromarray(pixels).histogram(), np.float64).reshape(3, 256)
    levels, n = (np.arange(256, dtype=np.float32) / np.float32(255)).astype(np.float64), pixels.shape[0] * pixels.shape[1]
    means = counts @ levels / n
    return bool(np.mean([(c * (levels - mean) ** 2).sum() / n for c, mean in zip(counts, means, strict=True)]) < MIN_STD**2)


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
    return _encoded(Image.fromarray(pixels), "PNG")


def jpeg(pixels: np.ndarray, quality: int) -> bytes:
    """JPEG bytes of [h, w, 3] uint8."""
    return _encoded(Image.fromarray(pixels), "JPEG", quality=quality)


def jpeg_size(pixels: np.ndarray, quality: int) -> int:
    """Bytes of the picture's JPEG: how much there is to see in it."""
    return len(jpeg(pixels, quality))


def scan_size(pixels: np.ndarray, quality: int) -> int:
    """Bytes of the JPEG's entropy-coded scan alone: at thumbnail size header and tables are most of a file."""
    data = _encoded(Image.fromarray(pixels), "JPEG", quality=quality, optimize=True)
    scan = data.index(b"\xff\xda")
    return len(data) - scan - 2 - int.from_bytes(data[scan + 2:scan + 4], "big") - 2


def thumbnail(pixels: np.ndarray, side: int, max_bytes: int) -> bytes:
    """A WebP for the report: as it is where it is no larger than side x side, else brought to that; coarser until it has at most max_bytes."""
    picture = Image.fromarray(pixels)
    if max(picture.size) > side:
        picture = picture.resize((side, side), Image.Resampling.LANCZOS)
    elif len(exact := _encoded(picture, "WEBP", lossless=True)) <= max_bytes:
        return exact
    while True:
        for data in (_encoded(picture, "WEBP", quality=quality) for quality in (85, 70, 50, 30, 10)):
            if len(data) <= max_bytes or picture.size == (1, 1):
                return data
        picture = picture.reduce(2)


def _encoded(picture: Image.Image, form: str, **how: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **how)
    return out.getvalue()


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
