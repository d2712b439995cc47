"""Image folders as Hugging Face has them: pictures, with their captions in metadata.csv or metadata.jsonl, or in a .txt beside each."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from tasks import _files, _pictures, _rows
from tasks._settings import UserError

METADATA = ("metadata.csv", "metadata.jsonl")
MAX_BYTES = 1 << 28  # of a picture's file
csv.field_size_limit(16 * _rows.MAX_TEXT)  # a long caption is a row's matter, not the file's


def listed(root: str, digests: dict[str, str | None]) -> list[tuple[list[str | None], dict[str, Any]]]:
    """Each picture, in order of its key: what its row depends on, and what `rows` needs to make it.

    digests are those of the folder's files, by path. Raises UserError naming a metadata file that cannot be read at all.
    """
    told: dict[str, dict[str, Any]] = {name: {"key": name, "shard": name, "position": 0} for name in digests if _is_picture(name) or _is_link(name, digests)}
    for name in (n for n in digests if PurePosixPath(n).name in METADATA):
        for number, fields in enumerate(_metadata(root, name)):
            if fields.get("file_name") not in (None, ""):
                key = _rows.text((PurePosixPath(name).parent / str(fields["file_name"])).as_posix()) or ""
                told[key] = {"key": key, "shard": key, "position": 0, "caption": fields.get("caption"), "url": _rows.text(fields.get("url"))}
            else:
                key = f"{name}#{number}"
                told[key] = {"key": key, "shard": name, "position": number, "reason": fields.get("reason", f"row {number} of {name} has no file_name")}
    made = []
    for key in sorted(told):
        beside = PurePosixPath(key).with_suffix(".txt").as_posix() if PurePosixPath(key).name else ""
        if told[key].get("caption") is None and beside in digests:
            told[key]["caption_file"] = beside
        depends = [key, digests.get(told[key]["shard"]), digests.get(told[key].get("caption_file", "")), str(told[key].get("caption")), told[key].get("url")]
        made.append((depends, told[key]))
    return made


def rows(root: str, told: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows of pictures that `listed` found, with the bytes of their files."""
    for one in told:
        place = {name: one[name] for name in ("key", "shard", "position")}
        if "reason" in one:
            yield _rows.error(**place, reason=one["reason"])
            continue
        caption = one.get("caption")
        try:
            caption = _files.content(root, one["caption_file"], _rows.MAX_TEXT).strip() if "caption_file" in one else caption
        except _files.Unreadable:
            caption = None
        row = _rows.row(**place, name=one["key"], caption=caption, url=one.get("url"))
        try:
            yield row | {"data": _files.content(root, one["shard"], MAX_BYTES)}
        except _files.Unreadable as error:
            yield row | {"reason": str(error)}


def picture(root: str, name: str) -> bytes:
    """The file of a picture. Raises UserError where it is no longer there."""
    try:
        return _files.content(root, name, MAX_BYTES)
    except _files.Unreadable as error:
        raise UserError(f"{root}/{name}: {error}; it has changed since `images` was made, run `dvc repro`") from None


def _is_picture(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in _pictures.PICTURES


def _is_link(name: str, digests: dict[str, str | None]) -> bool:
    """Whether it is no file of the folder's own, and nothing that is passed over by its name."""
    return digests[name] is None and PurePosixPath(name).suffix == ""


def _metadata(root: str, name: str) -> Iterator[dict[str, Any]]:
    """The fields of each row of a metadata file, under our names; bytes that are not UTF-8 are kept as surrogates."""
    try:
        file = io.TextIOWrapper(_files.opened(root, name), encoding="utf-8-sig", errors="surrogateescape", newline="")
    except _files.Unreadable as error:
        raise UserError(f"{root}/{name}: {error}; captions are read from there") from None
    with file:
        yield from _csv_rows(root, name, file) if name.endswith(".csv") else _json_rows(name, file)


def _csv_rows(root: str, name: str, file: io.TextIOWrapper) -> Iterator[dict[str, Any]]:
    reader = csv.DictReader(file)
    try:
        names = _rows.columns(reader.fieldnames or [])
        if "file_name" not in names:
            raise UserError(f"{root}/{name} has no column file_name; the Hugging Face image folder needs one")
        for row in reader:
            yield {ours: row[theirs] for ours, theirs in names.items() if row[theirs] is not None}
    except csv.Error as error:
        raise UserError(f"{root}/{name} is not readable as CSV at line {reader.line_num}: {error}") from None


def _json_rows(name: str, file: io.TextIOWrapper) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            yield {ours: row[theirs] for ours, theirs in _rows.columns(row).items()}
        else:
            yield {"reason": f"line {number + 1} of {PurePosixPath(name).name} is no JSON object"}
