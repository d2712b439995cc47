"""Webdataset tars as img2dataset writes them: read by offset where they lie, never extracted; beside each, a table of all that was attempted."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from tasks import _files, _pictures, _rows

MAX_BYTES = 1 << 28  # of a picture's file
SAMPLES = pa.schema([
    pa.field("key", pa.string()), pa.field("name", pa.string()), pa.field("reason", pa.string()),  # reason: why there is no picture
    *(pa.field(f"{part}_{what}", pa.int64()) for part in ("picture", "caption", "json") for what in ("offset", "size")),
    pa.field("caption", pa.binary()), pa.field("url", pa.string()),  # as the table beside the tar has them
])


def samples(root: str, tar: str | None, table: str | None) -> pa.Table:
    """What a shard holds, a row per sample at its position, with the places of its members in the tar.

    First the rows of the table beside it, attempted ones that failed too; then what the tar alone has, members that are no files and, at the
    end, one row where the tar is cut or damaged.
    """
    found, odd = ({}, []) if tar is None else _members(root, tar)
    listed = [] if table is None else _attempted(root, table)
    made = []
    for row in listed:
        held = found.pop(row["key"], None)
        missing = f"downloaded, but not in {tar}" if tar else "downloaded, but its tar is not there"
        reason = row["reason"] if row["reason"] else missing if held is None else held.get("reason")
        made.append({**(held or {}), **row, "reason": reason})
    return pa.Table.from_pylist([*made, *found.values(), *odd], SAMPLES)


def rows(root: str, shard: str, tar: str | None, found: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows of a shard, with the bytes of their pictures; found is what `samples` found in it."""
    file = None
    try:
        file = _files.opened(root, tar) if tar else None
        for position, one in enumerate(found.to_pylist()):
            yield _row(file, shard, position, one)
    finally:
        if file is not None:
            file.close()


def _row(file: BinaryIO | None, shard: str, position: int, one: dict[str, Any]) -> dict[str, Any]:
    caption, url = one["caption"], one["url"]
    if file is not None and caption is None and one["caption_offset"] is not None:
        caption = part(file, one["caption_offset"], min(one["caption_size"], _rows.MAX_TEXT + 1)).strip()
    if file is not None and one["json_offset"] is not None and (caption is None or url is None):
        fields = _json(part(file, one["json_offset"], min(one["json_size"], _rows.MAX_TEXT)))
        caption, url = fields.get("caption") if caption is None else caption, fields.get("url") if url is None else url
    row = _rows.row(one["key"], shard, position, name=one["name"], caption=caption, url=url, reason=one["reason"])
    if one["reason"] is not None or file is None:
        return row
    return row | {"data": part(file, one["picture_offset"], one["picture_size"])}


def part(file: BinaryIO, offset: int, size: int) -> bytes:
    """So many bytes at a place of a file."""
    file.seek(offset)
    return file.read(size)


def _json(data: bytes) -> dict[str, Any]:
    try:
        read = json.loads(data.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        return {}
    return {ours: read[theirs] for ours, theirs in _rows.columns(read).items()} if isinstance(read, dict) else {}


def _attempted(root: str, table: str) -> list[dict[str, Any]]:
    """Key, caption, url and reason of failure of each row of the table beside a tar."""
    try:
        with _files.opened(root, table) as file:
            names = _rows.columns(pq.read_schema(file).names)
            wanted = {ours: names[ours] for ours in ("key", "caption", "url", "status", "error_message") if ours in names}
            read = pq.read_table(file, columns=list(wanted.values())).rename_columns(list(wanted))
    except (_files.Unreadable, pa.ArrowException, OSError) as error:
        return [{"key": table, "reason": f"{table} is not readable as Parquet: {_first_line(error)}"}]
    if "key" not in names:
        return [{"key": table, "reason": f"{table} has no column key: no table of a tar"}]
    made = []
    for number, values in enumerate(zip(*(_rows.plain(column) for column in read.columns), strict=True)):
        row = dict(zip(read.column_names, values, strict=True))
        caption = row.get("caption")
        made.append({"key": _rows.text(row["key"]) or f"{table}#{number}", "reason": _rows.failure(row), "url": _rows.text(row.get("url")),
                     "caption": caption if isinstance(caption, bytes | None) else str(caption).encode()})
    return made


def _members(root: str, tar: str) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """The samples of a tar by their key, in its order, and rows for what is none."""
    found: dict[str, dict[str, Any]] = {}
    odd: list[dict[str, Any]] = []
    try:
        with _files.opened(root, tar) as file:
            end = file.seek(0, 2)
            for number, member in enumerate(_headers(file)):
                if isinstance(member, str):
                    last = next(reversed(found), None)
                    if last is not None and "picture_offset" not in found[last]:
                        del found[last]  # what the shard's row says is why it is not whole
                    odd.append({"key": tar, "reason": member})
                    continue
                name = _rows.text(member.name) or ""
                reason = _refusal(member)
                if reason is not None:
                    odd.append({"key": name, "name": name, "reason": reason})
                elif member.isreg() and member.offset_data + member.size <= end and not _put(found, name, member):
                    odd.append({"key": f"{tar}#{number}", "name": name, "reason": "the same name twice in one tar"})
    except _files.Unreadable as error:
        odd.append({"key": tar, "reason": str(error)})
    made = {key: one if "picture_offset" in one else one | {"reason": "no picture of that name in the tar"} for key, one in found.items()}
    return made, odd


def _headers(file: BinaryIO) -> Iterator[tarfile.TarInfo | str]:
    """The members of a tar; last, in words, what is wrong with it if it does not end as a tar does."""
    file.seek(0)
    n, place, is_compressed = 0, 0, file.read(2) == b"\x1f\x8b"
    file.seek(0)
    if is_compressed:
        yield "not readable as a tar: compressed, and read where it lies; unpack it"
        return
    try:
        with tarfile.open(fileobj=file, mode="r:", errors="surrogateescape") as opened:
            for member in opened:
                if opened.offset <= place:
                    raise tarfile.ReadError("a member of negative size")
                n, place, opened.members = n + 1, opened.offset, []  # type: ignore[attr-defined]  # they would be held until the end
                yield member
            file.seek(opened.offset)
            if file.read(512) != bytes(512):
                yield f"truncated or damaged after {n} members"
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        yield f"truncated or damaged after {n} members: {_first_line(error)}" if n else f"not readable as a tar: {_first_line(error)}"


def _refusal(member: tarfile.TarInfo) -> str | None:
    """Why a member is no file to read; None for folders too, which hold nothing themselves."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        return "path leaves the folder"
    if member.issym() or member.islnk():
        return "a link, not a file"
    if not (member.isreg() or member.isdir()) or member.issparse():
        return "a device or another special file"
    return f"a file of more than {MAX_BYTES} bytes" if member.size > MAX_BYTES else None


def _put(found: dict[str, dict[str, Any]], name: str, member: tarfile.TarInfo) -> bool:
    """Put a member to its sample; False where the sample has such a part already."""
    path = PurePosixPath(name)
    suffix = path.suffix.lower()
    part = "picture" if suffix in _pictures.PICTURES else {".txt": "caption", ".json": "json"}.get(suffix)
    if part is None or path.name.startswith("._"):  # what macOS puts beside each file
        return True
    one = found.setdefault(path.with_suffix("").as_posix(), {"key": path.with_suffix("").as_posix()})
    if f"{part}_offset" in one:
        return False
    one |= {f"{part}_offset": member.offset_data, f"{part}_size": member.size} | ({"name": name} if part == "picture" else {})
    return True


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:80]
