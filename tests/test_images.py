"""Every file becomes a row: good ones measured, bad ones with their reason."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from tasks import images

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


def test_two_rows_with_one_key_are_refused(picture: Maker) -> None:
    row = {"key": "same", "data": encoded(picture(1)), "shard": "s", "position": 0}
    with pytest.raises(ValueError, match="same key"):
        images.images(iter([("member", row), ("member", row)]), jpeg_quality=75)
