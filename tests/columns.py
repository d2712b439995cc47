"""docs/columns.md, written from the SCHEMAs of the stages and the comments in sql/: python -m tests.columns > docs/columns.md"""

import ast
import importlib
import re
from pathlib import Path

import pyarrow as pa
import yaml

from tasks import _checks, _comparisons
from tasks._schemas import keys_of

ROOT = Path(__file__).resolve().parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
COMMENT = re.compile(r"comment on (table|view|column) (\S+) is\s+'((?:[^']|'')*)'")
PLACES = {  # where a table is not data/<noun>[/<release>]/<name>.parquet
    "inputs": "`data/inputs/<source>.parquet` and `data/inputs/releases/<release>.parquet`",
    "image_embeddings": "`data/image_embeddings/metadata/metadata_*.parquet`, row by row with `img_emb/img_emb_*.npy`",
    "generation_embeddings": "`data/generation_embeddings/<release>/metadata/metadata_*.parquet`, row by row with `img_emb/img_emb_*.npy`",
    "releases": "`data/warehouse/warehouse.parquet`",
    "settings": "`audits/<audit_id>/settings.parquet`",
    "audits": "`audits/<audit_id>/audit.parquet`",
    "changes": "`data/warehouse/<release>/changes.parquet`",
    "checks": "`checks.parquet` in each folder of `data/`",
}
GRAINS = {  # of tables that are neither a stage's own nor in the database
    "resolution": "The side at which pictures are compared. One row.",
    "changes": "What the report says of a release beside another one. One row per kind and prompt that either returns.",
}
HEAD = """# Every table and column

Written by `python -m tests.columns > docs/columns.md` from the schemas in `tasks/` and the comments in `sql/`; not to be edited by hand.
The same words stand in each Parquet file and, as comments, in `findings.duckdb`:

<!-- run here -->
```sh
duckdb -readonly findings.duckdb "select column_name, comment from duckdb_columns() where table_name = 'findings'"
```

Tables of a release carry its name in the column `release`. Ids are 63-bit hashes, the same on every machine. NULL means: not known, or
does not apply; the column's meaning says which.
"""
HISTORY = """## History

`all_findings`, `all_summary`, `all_sampling`, `all_checks` and `all_settings` hold every audit ever made: the columns of the tables of
the same name without `all_`, after an `audit_id` (text, a row of `audits`).
"""


def schemas() -> dict[str, tuple[str, pa.Schema]]:
    """Noun and schema of every table by its name, in the order of the map; a side table is named like its constant."""
    found: dict[str, tuple[str, pa.Schema]] = {}
    for noun in STAGES:
        for constant, value in vars(importlib.import_module(f"tasks.{noun}")).items():
            if isinstance(value, pa.Schema):
                found[{"SCHEMA": noun, "AUDIT": "audits"}.get(constant, constant.lower())] = (noun, value)
    return found | {"comparisons": ("warehouse", _comparisons.SCHEMA), "changes": ("warehouse", _comparisons.CHANGES), "checks": ("checks", _checks.SCHEMA)}


def comments(kind: str) -> dict[str, str]:
    """Comments in sql/ on tables, views or columns (<view>.<column>), by name."""
    texts = [file.read_text(encoding="utf-8") for file in sorted((ROOT / "sql").glob("*.sql"))]
    return {name: text.replace("''", "'") for every in texts for what, name, text in COMMENT.findall(every) if what == kind}


def page() -> str:
    """docs/columns.md."""
    of_database = comments("table")
    parts = [HEAD]
    for name, (noun, columns) in schemas().items():
        own = _first_line(noun) if name in STAGES else GRAINS.get(name) or of_database[name]
        inside = of_database.get(name)
        told = "not there." if inside is None else "the same." if inside == own else inside
        keys = ", ".join(f"`{key}`" for key in keys_of(columns))
        parts.append(f"## `{name}`\n\n{own}\n\n- File: {_place(name, noun)}. Key: {keys}.\n- In `findings.duckdb`: {told}\n\n{_table(columns)}")
    parts.append(HISTORY)
    for name, grain in sorted(comments("view").items()):
        rows = [(full.partition(".")[2], text) for full, text in comments("column").items() if full.startswith(f"{name}.")]
        parts.append(f"## `{name}`\n\n{grain}\n\nA view in `findings.duckdb`.\n\n| column | meaning |\n|---|---|\n" +
                     "".join(f"| `{column}` | {_cell(text)} |\n" for column, text in rows))
    return "\n".join(parts)


def _place(name: str, noun: str) -> str:
    if name in PLACES:
        return PLACES[name]
    release = "<release>/" if "foreach" in STAGES[noun] else ""
    return f"`data/{noun}/{release}{name}.parquet`"


def _first_line(noun: str) -> str:
    text = (ROOT / "tasks" / f"{noun}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").splitlines()[0]


def _table(columns: pa.Schema) -> str:
    rows = [f"| `{c.name}` | {c.type} | {_cell((c.metadata or {}).get(b'comment', b'').decode())} |\n" for c in columns]
    return "| column | type | meaning |\n|---|---|---|\n" + "".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    print(page(), end="")
