"""The same pictures as a folder, as Parquet and as tars; pictures that are broken or odd in every way we know, with what is said of each."""

import io
import json
import os
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

from tasks import images, inputs

PER_SHARD = 8
SIDE = 24
Sample = tuple[str, bytes, str | None, str | None]  # key, file, caption, url


def encoded(pixels: np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form, **options)
    return out.getvalue()


def saved(picture: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def shown(number: int, side: int = SIDE) -> np.ndarray:
    """[side, side, 3] uint8, smooth and unlike that of any other number."""
    coarse = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def samples(n: int, first: int = 0) -> list[Sample]:
    """Good ones, a third JPEG under its name."""
    forms = [("PNG", "png"), ("PNG", "png"), ("JPEG", "jpg")]
    return [(f"{i:09d}.{forms[i % 3][1]}", encoded(shown(i), forms[i % 3][0]), f"picture {i}", f"http://a.example/{i}") for i in range(first, first + n)]


def as_folder(root: Path, made: Iterable[Sample]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    with (root / "metadata.jsonl").open("a") as file:
        for key, data, caption, url in made:
            (root / key).write_bytes(data)
            file.write(json.dumps({"file_name": key, "text": caption, "URL": url}) + "\n")


def as_parquet(root: Path, made: list[Sample], start: int = 0) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for number, first in enumerate(range(0, len(made), PER_SHARD), start):
        some = made[first:first + PER_SHARD]
        pq.write_table(pa.table({"image": [{"bytes": d, "path": k} for k, d, _, _ in some], "TEXT": [c for *_, c, _ in some],
                                 "URL": [u for *_, u in some]}), root / f"part-{number:05d}.parquet", row_group_size=3)


def put_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def as_webdataset(root: Path, made: list[Sample], start: int = 0, with_tables: bool = True) -> None:
    """As img2dataset leaves it; numbers of shards have gaps."""
    root.mkdir(parents=True, exist_ok=True)
    for number, first in enumerate(range(0, len(made), PER_SHARD), start):
        members, rows = [], []
        for key, data, caption, url in made[first:first + PER_SHARD]:
            stem, _, suffix = key.rpartition(".")
            rows.append({"key": stem, "URL": url, "TEXT": caption, "status": "success", "error_message": None, "width": SIDE, "height": SIDE})
            members += [(f"{stem}.{suffix}", data), (f"{stem}.txt", (caption or "").encode()), (f"{stem}.json", json.dumps({"key": stem, "url": url}).encode())]
        put_tar(root / f"{2 * number:05d}.tar", members)
        (root / f"{2 * number:05d}_stats.json").write_text("{}")
        if with_tables:
            pq.write_table(pa.Table.from_pylist(rows), root / f"{2 * number:05d}.parquet")


WRITERS: dict[str, Callable[..., None]] = {"image_folder": as_folder, "parquet": as_parquet, "webdataset": as_webdataset}


def put_params(form: str, path: str, held_out: dict[str, str] | None = None, dask: str | None = None) -> None:
    """A params.yaml that names the members so."""
    Path("params.yaml").write_text(yaml.safe_dump({
        "training_set": {"members": {"format": form, "path": path}, "held_out": held_out}, "releases": {}, "prompts": {"custom": None},
        "report": {"reviews": None}, "images": {"version": 1, "jpeg_quality": 75}, "compute": {"device": "cpu", "dask": dask},
        "image_embeddings": {"version": 1, "descriptor": "sscd_distilled", "path": None}}))


def imaged(form: str, path: str, **options: Any) -> list[dict[str, Any]]:
    """The rows of `images` of members of this format at this path, through both stages."""
    put_params(form, path, **options)
    inputs.main()
    images.main()
    return pq.read_table("data/images/images.parquet").to_pylist()


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is so large, and is a few bytes."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def _transparent(number: int) -> Image.Image:
    picture = Image.fromarray(shown(number)).convert("RGBA")
    picture.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, SIDE).astype(np.uint8), (SIDE, 1))))
    return picture


def _turned(number: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(Image.fromarray(shown(number)[:16]), "JPEG", exif=exif)


def _deep(number: int) -> bytes:
    return saved(Image.fromarray(shown(number)[..., 0].astype(np.uint16) * 257), "PNG")


def _palette(number: int) -> bytes:
    picture = Image.fromarray(shown(number)).quantize(16)
    return saved(picture, "PNG", transparency=int(np.asarray(picture)[0, 0]))


def _frames(number: int, form: str) -> bytes:
    return saved(Image.fromarray(shown(number)), form, save_all=True, append_images=[Image.fromarray(shown(number + 1 + i)) for i in range(11)])


BAD: dict[str, tuple[str, Callable[[int], bytes]]] = {  # what is said of it: suffix, and its bytes
    "empty file": ("png", lambda i: b""),
    "not readable as a picture": ("png", lambda i: b"<html>%d</html>" % i),
    "not readable as a picture: cannot": ("jpg", lambda i: b"%%!PS-Adobe-3.0 EPSF-3.0\n%%%%BoundingBox: 0 0 9 9\n%d" % i),
    "truncated": ("jpg", lambda i: encoded(shown(i), "JPEG", quality=95)[:-200]),
    "truncated#png": ("png", lambda i: encoded(shown(i))[:-60]),
    "truncated#webp": ("webp", lambda i: encoded(shown(i), "WEBP", lossless=True)[:-60]),
    "more than 67108864 pixels": ("png", lambda i: png_header(100_000, 1000 + i)),
    "sides are from 4 to 32768": ("png", lambda i: png_header(40_000, 10) if i % 2 else encoded(shown(i)[:3])),
}
ODD: dict[str, tuple[str, Callable[[int], bytes]]] = {  # these are good
    "animated: first of 12 frames": ("gif", lambda i: _frames(i, "GIF")),
    "animated: first of 12 frames#webp": ("webp", lambda i: _frames(i, "WEBP")),
    "CMYK": ("jpg", lambda i: saved(Image.fromarray(shown(i)).convert("CMYK"), "JPEG")),
    "more than 8 bits a channel, reduced to 8": ("png", _deep),
    "alpha laid over white": ("png", lambda i: saved(_transparent(i), "PNG")),
    "alpha laid over white#palette": ("png", _palette),
    "turned upright": ("jpg", _turned),
    "PNG under a name that says .jpg": ("jpg", lambda i: encoded(shown(i))),
}


def broken(n: int, first: int = 0) -> list[tuple[str, Sample]]:
    """n of them, each kind in turn, with what is said of it."""
    kinds = [*BAD.items(), *ODD.items()]
    made = []
    for i in range(first, first + n):
        said, (suffix, data) = kinds[i % len(kinds)]
        made.append((said.partition("#")[0], (f"bad-{i:05d}.{suffix}", data(i), f"picture {i}", None)))
    return made


def hostile_folder(root: Path, outside: Path) -> dict[str, str]:
    """What a folder may hold that is no file of its own, and what is said of each."""
    outside.mkdir(parents=True, exist_ok=True)
    (outside / "secret.png").write_bytes(encoded(shown(1)))
    (root / "link.png").symlink_to(outside / "secret.png")
    (root / "dangling.png").symlink_to("nowhere.png")
    (root / "loop.png").symlink_to("loop.png")
    (root / "folder").symlink_to(outside)
    os.mkfifo(root / "pipe.png")
    with (root / "metadata.jsonl").open("a") as file:
        file.write(json.dumps({"file_name": "../outside/secret.png", "text": "x"}) + "\n")
        file.write(json.dumps({"file_name": str(outside / "secret.png"), "text": "x"}) + "\n")
        file.write("{not json\n")
    return {"link.png": "path leaves the folder", "dangling.png": "not in the folder", "loop.png": "not readable as a file", "folder": "path leaves the folder",
            "pipe.png": "not a regular file", "../outside/secret.png": "path leaves the folder", str(outside / "secret.png"): "path leaves the folder"}
