"""Pictures are decoded in one way, read from where they lie, and a broken one is named."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tasks import _pictures, images
from tasks.measures import distances
from tests import tiny_sets
from tests.tiny_sets import encoded, saved

pytestmark = pytest.mark.filterwarnings("ignore:Image size")
Maker = Callable[..., np.ndarray]


def test_a_decompression_bomb_is_an_error(monkeypatch: pytest.MonkeyPatch, picture: Maker) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "pixels" in images.image({"key": "a", "data": encoded(picture(1))}, "member", 75)["reason"]


def test_alpha_is_laid_over_white_and_exif_turns_the_picture() -> None:
    clear = Image.new("RGBA", (8, 4), (255, 0, 0, 0))
    out = io.BytesIO()
    clear.save(out, "PNG")
    assert (_pictures.canonical(out.getvalue()) == 255).all()
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = io.BytesIO()
    Image.new("RGB", (8, 4)).save(turned, "JPEG", exif=exif)
    assert _pictures.canonical(turned.getvalue()).shape == (8, 4, 3)


def test_a_canonical_picture_is_the_same_however_its_file_holds_it(picture: Maker) -> None:
    pixels = picture(3)
    grey = pixels[..., 0]
    same = {"16 bits": (saved(Image.fromarray(grey.astype(np.uint16) * 257), "PNG"), np.repeat(grey[..., None], 3, 2)),
            "palette": (saved(Image.fromarray(pixels // 128 * 255).convert("P", palette=Image.Palette.ADAPTIVE), "PNG"), pixels // 128 * 255),
            "opaque": (saved(Image.fromarray(pixels).convert("RGBA"), "PNG"), pixels), "TIFF": (encoded(pixels, "TIFF"), pixels)}
    for name, (data, wanted) in same.items():
        scaled = wanted if name != "16 bits" else np.floor(wanted / wanted.max() * 255 + 1e-9).astype(np.uint8)
        assert (_pictures.canonical(data) == scaled).all(), name


@pytest.mark.parametrize("number", range(len(tiny_sets.BAD) + len(tiny_sets.ODD)))
def test_a_file_has_the_reason_of_its_kind(number: int) -> None:
    said, (name, data, *_) = tiny_sets.broken(1, first=number)[0]
    row = images.image({"key": name, "name": name, "data": data}, "member", 75)
    assert row["status"] == ("error" if number < len(tiny_sets.BAD) else "ok") and said in row["reason"]
    assert (row["pixel_digest"] is None) == (row["status"] == "error") == (row["pdq"] is None)


def test_several_things_that_the_decode_had_to_do_are_all_said() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    data = saved(Image.new("LA", (8, 8), (0, 100)), "PNG", exif=exif)
    row = images.image({"key": "a", "name": "a.gif", "data": data, "notes": ["caption missing"]}, "member", 75)
    assert row["reason"] == "turned upright; alpha laid over white; PNG under a name that says .gif; caption missing"


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000"])
def test_a_damaged_file_is_a_picture_or_a_reason_and_nothing_else(form: str, picture: Maker, rng: np.random.Generator) -> None:
    whole = encoded(picture(1), form)
    for _ in range(150):
        data = bytearray(whole[:int(rng.integers(1, len(whole) + 1))])
        for place in rng.integers(0, len(data), int(rng.integers(0, 6))):
            data[place] = int(rng.integers(0, 256))
        row = images.image({"key": "a", "data": bytes(data)}, "member", 75)
        assert row["status"] == "ok" or row["reason"]


@given(st.integers(4, 40), st.integers(4, 40), st.floats(0, 30), st.integers(0, 255), st.integers(0, 99))
def test_a_flat_picture_is_what_the_measure_says_is_flat(height: int, width: int, spread: float, level: int, seed: int) -> None:
    noise = np.random.default_rng(seed).normal(level, spread, (height, width, 3))
    pixels = np.clip(noise, 0, 255).astype(np.uint8)
    assert _pictures.is_degenerate(pixels) == bool(distances.is_degenerate(pixels[None].astype(np.float32) / 255)[0])


def test_pdq_survives_a_smaller_copy_and_tells_another_picture(picture: Maker) -> None:
    bits = lambda n, side: np.unpackbits(np.frombuffer(_pictures.pdq(picture(n, side))[0], np.uint8))  # noqa: E731
    assert (bits(1, 600) != bits(1, 200)).sum() < 32 < (bits(1, 600) != bits(2, 600)).sum()
    assert _pictures.pdq(picture(1, 600))[1] > 50 > _pictures.pdq(np.full((64, 64, 3), 9, np.uint8))[1]
    import pdqhash

    vector, quality = pdqhash.compute(picture(5, 200))
    assert _pictures.pdq(picture(5, 200)) == (np.packbits(vector.astype(np.uint8)).tobytes(), quality)
    for shape in ((4, 4, 3), (4, 2000, 3), (2000, 4, 3)):
        assert len(_pictures.pdq(np.zeros(shape, np.uint8))[0]) == 32


def test_generations_are_gathered_in_shards_that_find_them_again_and_what_is_not_kept_has_no_place(in_folder: Path, picture: Callable[..., np.ndarray],
                                                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pictures, "PICTURES_PER_SHARD", 4)
    pngs = [_pictures.png(picture(i)) if i != 2 else None for i in range(7)]
    writer = _pictures.GenerationWriter("v1")
    rows = writer.add([{"generation_id": 10 + i} for i in range(7)], pngs)
    writer.close()
    places = [(r["shard"], r["position"]) for r in rows]
    assert places[2:6] == [(None, None), ("pictures_00000.parquet", 2), ("pictures_00000.parquet", 3), ("pictures_00001.parquet", 0)]
    reader = _pictures.GenerationReader("v1")
    assert all((reader.pixels(r) == picture(i)).all() for i, r in enumerate(rows) if r["shard"])
    stored = pq.read_table(in_folder / "data" / "generations" / "v1" / "pictures" / "pictures_00001.parquet")
    assert stored.column("generation_id").to_pylist() == [15, 16]
