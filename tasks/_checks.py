"""Great Expectations over a table: the only file that imports it.

A result is a function of the table's bytes and the checks alone, so it is remembered under work/checks: an unchanged
table is not judged twice (the import costs 4 to 20 s).
"""

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks._schemas import column, keys_of, schema

WORK = Path("work") / "checks"
SCHEMA = schema(
    ["table_name", "check_number"],
    [
        column("table_name", pa.string(), "Table that was checked; <stage>.<side table> for a side table"),
        column("release", pa.string(), "Release under audit; NULL for the tables all releases share", nullable=True),
        column("check_number", pa.int32(), "Order of the check within its table"),
        column("expectation", pa.string(), "Great Expectations' name of what must hold"),
        column("column_name", pa.string(), "Column or columns it is about; NULL for the whole table", nullable=True),
        column("arguments", pa.string(), "The expectation's other arguments, JSON"),
        column("n_rows", pa.int64(), "Rows of the table"),
        column("n_unexpected", pa.int64(), "Rows that broke the expectation; NULL where it is not about rows", nullable=True),
        column("observed", pa.string(), "Value observed, for expectations about one; NULL otherwise", nullable=True),
        column("is_passed", pa.bool_(), "Whether it held"),
        column("message", pa.string(), "What to tell a person: table, expectation, column, example values"),
    ],
)


def results(made: pa.Table, checks: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """One row of SCHEMA (less release) per check: those written in CHECKS and those that the schema implies."""
    everything = [*implied(made.schema), *checks]
    key = WORK / f"{_digest(made, everything, name)}.json"
    if key.is_file():
        return json.loads(key.read_text())
    rows = _judged(made, everything, name)
    key.parent.mkdir(parents=True, exist_ok=True)
    temporary = key.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(rows))
    os.replace(temporary, key)
    return rows


def implied(table_schema: pa.Schema) -> list[dict[str, Any]]:
    """Keys are unique; columns that are not nullable have no null."""
    keys = keys_of(table_schema)
    unique: dict[str, Any] = (
        {"type": "expect_column_values_to_be_unique", "kwargs": {"column": keys[0]}}
        if len(keys) == 1
        else {"type": "expect_compound_columns_to_be_unique", "kwargs": {"column_list": keys}}
    )
    filled = [{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": f.name}} for f in table_schema if not f.nullable]
    return [unique, *filled]


def docs(tables: dict[str, tuple[pa.Table, list[dict[str, Any]]]], folder: Path) -> Path:
    """Great Expectations' Data Docs of tables by name, each with its rows of SCHEMA; the page to open.

    The pages take styles and fonts from the network; without one they are plain but readable.
    """
    context = _context()
    site = {"class_name": "SiteBuilder", "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder.resolve())}}
    import great_expectations as gx

    context.add_data_docs_site(site_name="local", site_config=site)
    source = context.data_sources.add_pandas("tables")
    for name, (made, rows) in tables.items():
        batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
        suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=[serialised(row) for row in rows]))
        validation = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
        actions = [gx.checkpoint.UpdateDataDocsAction(name="docs", site_names=["local"])]
        checkpoint = context.checkpoints.add(gx.Checkpoint(name=name, validation_definitions=[validation], actions=actions))
        checkpoint.run(batch_parameters={"dataframe": made.to_pandas(integer_object_nulls=True)})
    return folder / "index.html"


def serialised(row: dict[str, Any]) -> dict[str, Any]:
    """The expectation of a row of SCHEMA, as CHECKS hold it."""
    kwargs = json.loads(row["arguments"])
    about = row["column_name"]
    if about and "column_A" not in kwargs:
        kwargs |= {"column_list": about.split(", ")} if row["expectation"].startswith("expect_compound_columns") else {"column": about}
    return {"type": row["expectation"], "kwargs": kwargs}


def _context() -> Any:
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    return context


def _digest(made: pa.Table, checks: list[dict[str, Any]], name: str) -> str:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, made.schema) as stream:
        stream.write_table(made.combine_chunks())
    return hashlib.sha256(sink.getvalue().to_pybytes() + json.dumps([name, checks], sort_keys=True).encode()).hexdigest()[:32]


def _judged(made: pa.Table, checks: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    context = _context()
    import great_expectations as gx

    batch = context.data_sources.add_pandas("tables").add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
    frame = made.to_pandas(integer_object_nulls=True)
    suite = gx.ExpectationSuite(name=name, expectations=checks)
    validation = batch.get_batch({"dataframe": frame}).validate(suite)
    found = {_identity(r.expectation_config.type, r.expectation_config.kwargs): r for r in validation.results}
    asked = [_identity(e.expectation_type, e.configuration.kwargs) for e in suite.expectations]
    return [_row(number, check, found[asked[number]], made.num_rows, name) for number, check in enumerate(checks)]


def _identity(kind: str, kwargs: dict[str, Any]) -> str:
    plain = {k: v for k, v in kwargs.items() if k != "batch_id"}
    return json.dumps([kind, plain], sort_keys=True, default=str)


def _row(number: int, check: dict[str, Any], result: Any, n_rows: int, name: str) -> dict[str, Any]:
    kwargs = check["kwargs"]
    about = kwargs.get("column") or ", ".join(kwargs.get("column_list", [])) or " and ".join(
        kwargs[k] for k in ("column_A", "column_B") if k in kwargs) or None
    said = result.result or {}
    examples = said.get("partial_unexpected_list") or []
    observed = said.get("observed_value")
    shown = f"for example {examples[:5]}" if examples else f"observed {observed}" if observed is not None else str(result.exception_info)[:200]
    is_passed = bool(result.success) or (n_rows == 0 and check["type"] == "expect_column_mean_to_be_between")  # no rows have no mean
    message = "" if is_passed else f"{name}: {check['type']} failed on {about or 'the table'}; {shown}"
    return {
        "table_name": name,
        "check_number": number,
        "expectation": check["type"],
        "column_name": about,
        "arguments": json.dumps({k: v for k, v in kwargs.items() if k not in ("column", "column_list")}, sort_keys=True),
        "n_rows": n_rows,
        "n_unexpected": said.get("unexpected_count"),
        "observed": None if observed is None else str(observed),
        "is_passed": is_passed,
        "message": message,
    }
