"""Every file becomes a row: good ones measured, bad ones with their reason."""

import io
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tasks import images
from tasks.measures.identity import hash63

Maker = Callable[[int], np.ndarray]


def encoded(pixels: np.ndarray, form: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form, **options)
    return out.getvalue()


def test_a_good_picture_is_measured(picture: Maker) -> None:
    row = images.image({"key": "a", "data": encoded(picture(1)), "shard": "s", "position": 3}, "member", 75)
    assert (row["status"], row["width_px"], row["height_px"], row["position"]) == ("ok", 32, 32, 3)
    assert row["complexity_bytes"] > 0 and not row["is_degenerate"]


def test_the_same_pixels_in_another_file_share_the_pixel_digest_only(picture: Maker) -> None:
    one, two = (images.image({"key": k, "data": encoded(picture(1), compress_level=c)}, "member", 75) for k, c in (("a", 0), ("b", 9)))
    assert one["pixel_digest"] == two["pixel_digest"] and one["sha256"] != two["sha256"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "empty file"), (b"not a picture", "not readable"), (None, "no bytes")],
)
def test_a_broken_file_is_a_row_with_its_reason(data: bytes | None, reason: str) -> None:
    row = images.image({"key": "a", "data": data, "reason": None if data is not None else "no bytes"}, "member", 75)
    assert row["status"] == "error" and reason in row["reason"]


def test_a_truncated_picture_is_an_error(picture: Maker) -> None:
    data = encoded(picture(2), "JPEG")
    assert images.image({"key": "a", "data": data[: len(data) // 2]}, "member", 75)["status"] == "error"


def test_a_flat_picture_is_marked_degenerate() -> None:
    assert images.image({"key": "a", "data": encoded(np.full((8, 8, 3), 200, np.uint8))}, "member", 75)["is_degenerate"]


def test_a_row_of_descriptors_alone_is_good_without_pixels() -> None:
    row = images.image({"key": "a", "shard": "s", "position": 0, "data": None, "reason": None, "width_px": 640, "sha256": "0" * 64}, "member", 75)
    assert (row["status"], row["width_px"], row["sha256"], row["pixel_digest"], row["pdq"]) == ("ok", 640, "0" * 64, None, None)


def piece(*rows: tuple[str, str, str, int]) -> pa.Table:
    """Rows of (split, key, shard, position)."""
    return pa.Table.from_pylist([images.image({"key": k, "shard": s, "position": p, "data": None, "reason": "no bytes"}, split, 75)
                                 for split, k, s, p in rows], images.SCHEMA)


def test_keys_that_repeat_within_a_split_are_told_apart_and_others_stay() -> None:
    made = images.images([piece(("member", "a", "x", 0), ("member", "b", "x", 1)), piece(("member", "a", "y", 0), ("held_out", "a", "x", 0)),
                          piece(("member", "c", "z", 0), ("member", "c", "z", 1), ("member", "y/a", "w", 0))])
    keys = sorted((r["split"], r["key"]) for r in made.to_pylist())
    assert keys == [("held_out", "a"), ("member", "b"), ("member", "w#0/y/a"), ("member", "x/a"), ("member", "y#0/y/a"), ("member", "z#0/z/c"),
                    ("member", "z#1/z/c")]
    assert made.column("image_id").to_pylist() == sorted(hash63(r["split"], r["key"]) for r in made.to_pylist())
    with pytest.raises(ValueError, match="same key"):
        images.images([piece(("member", "a", "x", 0), ("member", "a", "x", 0))])


def test_no_source_is_an_empty_table() -> None:
    assert images.images([]).num_rows == 0
