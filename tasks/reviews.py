"""What people said of pairs. One row per label.

The labels are those of the file that `report.reviews` names, as the report's page saves it: comma-separated, with COLUMNS as its first line.
A line that is no label, or a second one of the same reviewer and finding, is a row with a reason. Labels decide nothing; the database sets
them against the verdicts, those of the same protocol.
"""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks import _stage, _tables
from tasks._schemas import column, schema
from tasks._settings import UserError

SCHEMA = schema(
    ["line"],
    [
        column("release", pa.string(), "Release whose report was looked at; NULL where the line does not say", nullable=True),
        column("finding_id", pa.int64(), "The finding that was looked at; NULL where the line has no such number", nullable=True),
        column("reviewer", pa.string(), "Who looked; NULL where the line does not say", nullable=True),
        column("label", pa.string(), "copy, substantially_similar, template or not_a_copy; NULL where the line says something else", nullable=True),
        column("is_person", pa.bool_(), "Whether a person can be recognised; NULL where not said", nullable=True),
        column("is_trademark", pa.bool_(), "Whether it shows a trademark; NULL where not said", nullable=True),
        column("protocol_digest", pa.string(), "Protocol of the audit that was looked at: only labels of the current one count; NULL where not said",
               nullable=True),
        column("line", pa.int32(), "Line of the file on which it stands, from 1"),
        column("status", pa.string(), "ok or error"),
        column("reason", pa.string(), "Why it is no label; NULL where it is", nullable=True),
    ],
)
COLUMNS = ["release", "finding_id", "label", "is_person", "is_trademark", "reviewer", "protocol_digest"]  # of the file
LABELS = ["copy", "substantially_similar", "template", "not_a_copy"]
CHECKS: list[dict[str, Any]] = [
    {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "label", "value_set": LABELS}},
    {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "status", "value_set": ["ok", "error"]}},
]
FLAGS = {"true": True, "1": True, "false": False, "0": False, "": None}
MAX_CHARACTERS = 200  # of a name
MAX_BYTES = 1 << 26  # half a million labels


def shown(text: str) -> str:
    """A field as it can be told: at most so long, and what does not print is spelled."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text[:MAX_CHARACTERS])


def records(text: str) -> Iterator[tuple[int, list[str] | str]]:
    """Of each record the line on which it starts, and its fields or why it has none; empty lines are left out."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        start = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield start, f"not readable as CSV: {error}"
            continue
        if fields:
            yield start, [field.strip() for field in fields]


def amiss(said: dict[str, str]) -> str | None:
    """Why fields by column are no label, or None."""
    for name, text in said.items():
        if len(text) > MAX_CHARACTERS:
            return f"{name} has over {MAX_CHARACTERS} characters"
        if not text.isprintable():
            return f"{name} '{shown(text)}' is not plain UTF-8 text"
    missing = [name for name in ("release", "reviewer", "protocol_digest") if not said[name]]
    if missing:
        return f"{' and '.join(missing)} missing"
    if finding_id(said["finding_id"]) is None:
        return f"finding_id '{said['finding_id']}' is no id; a spreadsheet rounds it, keep it as text"
    if said["label"] not in LABELS:
        return f"label '{said['label']}' is not {', '.join(LABELS)}"
    wrong = [name for name in ("is_person", "is_trademark") if said[name].lower() not in FLAGS]
    return f"{wrong[0]} '{said[wrong[0]]}' is not true, false or empty" if wrong else None


def finding_id(text: str) -> int | None:
    """The id that a field holds, of 63 bits; None where it holds none."""
    return int(text) if re.fullmatch(r"[0-9]{1,19}", text) and int(text) < 1 << 63 else None


def row(line: int, fields: list[str] | str) -> dict[str, Any]:
    """The row of a record: what it says as far as it can be told, with a reason where it is no label."""
    if isinstance(fields, str):
        return dict.fromkeys(SCHEMA.names) | {"line": line, "status": "error", "reason": fields}
    said = dict(zip(COLUMNS, fields, strict=False))
    whole = {name: said.get(name, "") for name in COLUMNS}
    reason = f"{len(fields)} fields, not {len(COLUMNS)}" if len(fields) != len(COLUMNS) else amiss(whole)
    told = {name: shown(whole[name]) or None for name in ("release", "reviewer", "protocol_digest")}
    return told | {"finding_id": finding_id(whole["finding_id"]), "label": whole["label"] if whole["label"] in LABELS else None,
                   **{name: FLAGS.get(whole[name].lower()) for name in ("is_person", "is_trademark")},
                   "line": line, "status": "error" if reason else "ok", "reason": reason}


def reviews(data: bytes, name: str) -> list[dict[str, Any]]:
    """The rows of a file. Raises UserError where its first line is not COLUMNS: then it is another kind of file."""
    found = records(data.decode("utf-8-sig", "surrogateescape"))
    head = next(found, (1, ["nothing"]))[1]
    if head != COLUMNS:
        told = shown(head if isinstance(head, str) else ",".join(head))
        raise UserError(f"report.reviews: {name} begins with '{told}', not with {','.join(COLUMNS)}; save the labels from the report's page")
    made, seen = [], dict[tuple[Any, ...], int]()
    for line, fields in found:
        made.append(row(line, fields))
        if made[-1]["status"] == "ok":
            first = seen.setdefault(tuple(made[-1][key] for key in ("release", "finding_id", "reviewer")), line)
            if first != line:
                made[-1] |= {"status": "error", "reason": f"the same reviewer has labelled it in line {first}"}
    return made


def main() -> None:
    """Write data/reviews."""
    files = _tables.read("inputs", side="reviews").to_pylist()
    made = [row for file in files for row in reviews(_content(Path(file["root"]) / file["path"]), file["path"])]
    bad = [row for row in made if row["status"] == "error"]
    print(f"reviews: {len(made) - len(bad)} labels" + (f"; {len(bad)} lines are none, line {bad[0]['line']}: {bad[0]['reason']}" if bad else ""))
    _tables.write(_tables.table(made, SCHEMA), CHECKS, "reviews")


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"report.reviews: {path} cannot be read: {error.strerror}; name a file that can, or null") from None
    if len(data) > MAX_BYTES:
        raise UserError(f"report.reviews: {path} is larger than {MAX_BYTES >> 20} MB; that is no list of labels")
    return data


if __name__ == "__main__":
    _stage.run(main)
