"""A row of a training set before its picture is looked at: what its columns are called, what may be a caption, why there is no picture."""

import re
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

COLUMNS = {  # ours: the names that Hugging Face, img2dataset, clip-retrieval and LAION give it, in whatever case, the first found
    "caption": ("caption", "text", "txt", "top_caption"),
    "url": ("url", "image_url"),
    "image": ("image", "jpg", "jpeg", "png", "webp"),
    "file_name": ("file_name",),
    "key": ("key", "__key__"),
    "image_path": ("image_path",),
    "status": ("status",),
    "error_message": ("error_message",),
    "width_px": ("width",),
    "height_px": ("height",),
    "sha256": ("sha256",),
}
MAX_TEXT = 1 << 20  # bytes of a caption: what is longer is no caption
SHA256 = re.compile(r"[0-9a-f]{64}")


def columns(names: Iterable[str]) -> dict[str, str]:
    """The source's column for each of ours that it has."""
    lower = {name.lower(): name for name in reversed(list(names))}
    found = {ours: next((lower[name] for name in theirs if name in lower), None) for ours, theirs in COLUMNS.items()}
    return {ours: name for ours, name in found.items() if name is not None}


def row(key: str, shard: str, position: int, **values: Any) -> dict[str, Any]:
    """A row of a source: `data` are the file's bytes, None with a `reason`; `name` is what it is called there, with its suffix; `notes` are what
    is amiss though there is a picture. A caption may be given as it was found, in bytes too.
    """
    caption, amiss = _caption(values.pop("caption", None))
    made = {"key": key, "name": None, "caption": caption, "url": None, "shard": shard, "position": position, "data": None, "reason": None,
            "notes": [amiss] if amiss else []} | values
    return made | {"key": text(made["key"]), "url": text(made["url"]) or None}


def error(key: str, shard: str, position: int, reason: str, **values: Any) -> dict[str, Any]:
    """A row without a picture."""
    return row(key, shard, position, reason=reason, **values)


def failure(fields: dict[str, Any]) -> str | None:
    """Why a row of img2dataset has no picture, from its status and error_message; None where it was downloaded."""
    status = text(fields.get("status"))
    if status is None or status == "success":
        return None
    return ": ".join(part for part in (status, text(fields.get("error_message"))) if part)


def plain(column: pa.Array) -> list[Any]:
    """A column's values; text as bytes, in lists and dictionaries too, so that what is not UTF-8 is a row's matter and not the file's."""
    return list(column.cast(_as_bytes(column.type)).to_pylist())


def _as_bytes(kind: pa.DataType) -> pa.DataType:
    """The type that holds what this one holds, with bytes for text."""
    if pa.types.is_dictionary(kind):
        return _as_bytes(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return (pa.list_ if pa.types.is_list(kind) else pa.large_list)(_as_bytes(kind.value_type))
    return {pa.string(): pa.binary(), pa.large_string(): pa.large_binary(), pa.string_view(): pa.binary_view()}.get(kind, kind)


def text(value: Any) -> str | None:
    """A field as text that Parquet holds: whatever is not UTF-8 is spelled with backslashes."""
    if value is None:
        return None
    data = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape" if _has_bytes(str(value)) else "backslashreplace")
    return data.decode("utf-8", "backslashreplace")


def _has_bytes(value: str) -> bool:
    """Whether a name of a file, or a line read with surrogateescape, holds bytes that are not UTF-8, and nothing worse."""
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _caption(value: Any) -> tuple[str | None, str | None]:
    """The caption, the first where there is a list of them, and what is amiss with it."""
    if isinstance(value, list):
        value = value[0] if value else None
    if value is None:
        return None, "caption missing"
    if len(value if isinstance(value, bytes | str) else str(value)) > MAX_TEXT:
        return None, f"caption longer than {MAX_TEXT} bytes"
    try:
        said = value.decode() if isinstance(value, bytes) else str(value)
        said.encode()
    except UnicodeError:
        return None, "caption not UTF-8"
    return (said, None) if said.strip() else (None, "caption missing")
