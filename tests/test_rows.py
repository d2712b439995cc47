"""Whatever a column is called and a caption holds, a row is made of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks import _rows


def test_columns_are_found_under_the_names_that_others_give_them() -> None:
    laion = _rows.columns(["SAMPLE_ID", "URL", "TEXT", "HEIGHT", "WIDTH", "NSFW"])
    assert laion == {"url": "URL", "caption": "TEXT", "height_px": "HEIGHT", "width_px": "WIDTH"}
    assert _rows.columns(["url", "key", "jpg", "txt", "status"]) == {"url": "url", "key": "key", "image": "jpg", "caption": "txt", "status": "status"}
    assert _rows.columns(["TEXT", "caption", "image"])["caption"] == "caption"


@pytest.mark.parametrize(("given_caption", "caption", "notes"), [
    ("a kettle", "a kettle", []), (b"caf\xc3\xa9", "café", []), (7, "7", []), (None, None, ["caption missing"]), ("  ", None, ["caption missing"]),
    ([b"the first", b"the second"], "the first", []), ([], None, ["caption missing"]), ([None, "x"], None, ["caption missing"]),
    (b"caf\xe9", None, ["caption not UTF-8"]), ("caf\udce9", None, ["caption not UTF-8"]), ("\ud800", None, ["caption not UTF-8"]),
    ("x" * (_rows.MAX_TEXT + 1), None, [f"caption longer than {_rows.MAX_TEXT} bytes"]),
])
def test_a_caption_is_text_or_said_to_be_none(given_caption: object, caption: str | None, notes: list[str]) -> None:
    row = _rows.row("a", "s", 0, caption=given_caption)
    assert (row["caption"], row["notes"]) == (caption, notes)


def test_an_attempt_that_failed_has_the_reason_that_img2dataset_gave() -> None:
    assert _rows.failure({"status": b"success"}) is None and _rows.failure({}) is None
    assert _rows.failure({"status": b"failed_to_download", "error_message": b"HTTP Error 404"}) == "failed_to_download: HTTP Error 404"


@given(st.one_of(st.text(), st.binary(), st.characters(), st.integers()))
def test_any_name_becomes_text_that_parquet_holds(value: object) -> None:
    said = _rows.text(value)
    assert said is not None and said.encode().decode() == said
    if isinstance(value, str) and value.isascii():
        assert said == value
