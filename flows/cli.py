"""The command line. Heavy libraries are imported by the command that needs them: --help answers at once."""

import json
import os
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from flows import releases, stages, unattended
from tasks._settings import TryAgain, UserError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Audits image diffusion models for memorization.")
app.add_typer(releases.app, name="releases")
app.command()(unattended.watch)
app.command()(unattended.alerts)
REPORTS = Path("reports")
QUERIES = Path("sql") / "queries"
DOCS = REPORTS / "data_docs"
TEMPORARY_FAILURE = 75  # EX_TEMPFAIL: try again
STOPPED = 130

Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]…", help="Releases of params.yaml; all of them when none is named")]


class End(StrEnum):
    """Which figure of the extraction rate a bound is held against."""

    measured = "measured"
    low = "low"
    high = "high"


class Form(StrEnum):
    """How an answer is printed."""

    table = "table"
    csv = "csv"
    json = "json"


def main() -> None:
    """Run the command line; a person's mistake is one line on stderr and exit code 1, or 75 where trying again will do."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start background jobs deaf to it
    try:
        app()
    except TryAgain as error:
        sys.exit(_complaint(error, TEMPORARY_FAILURE))
    except UserError as error:
        sys.exit(_complaint(error, 1))
    except (KeyboardInterrupt, SystemExit) as ended:
        if isinstance(ended, SystemExit) and ended.code != STOPPED:  # typer's own way of ending
            raise
        sys.exit(_complaint("stopped; what is finished is kept and the next run goes on from there", STOPPED))


def _complaint(error: object, code: int) -> int:
    typer.echo(f"eidetic: {error}", err=True)
    return code


@app.command()
def audit(names: Names = None) -> None:
    """Audit releases: the shared stages, their own, the warehouse. Only what is stale runs."""
    chosen = releases.chosen(names)
    from tasks import _shards

    with _shards.lock("audit"):
        pass  # a second audit is told so before Prefect starts
    os.environ.setdefault("PREFECT_LOGGING_LOGGERS_PREFECT_LEVEL", "INFO")
    from flows import audit as flow
    from flows import server

    with server.api():
        state = flow.audit(chosen, return_state=True)
    if not state.is_completed():
        raise (TryAgain if state.name == flow.TRY_AGAIN else UserError)(str(state.message))
    verdict(chosen)


@app.command()
def plan(names: Names = None) -> None:
    """What an audit would run, and what it costs in evaluations. Looks at the inputs; runs nothing else."""
    chosen = releases.chosen(names)
    _mend()
    stages.reproduced("inputs", lambda _line: None)
    todo = stages.stale(stages.status(), chosen)
    for target, reasons in todo.items():
        typer.echo(f"{target:<32} {'; '.join(reasons[:2])}{' …' if len(reasons) > 2 else ''}")
    if not todo:
        typer.echo("nothing to run: every stage is up to date")
    refused = []
    for name in chosen:
        try:
            typer.echo(f"{name}: {_cost(name, set(todo))}")
        except UserError as error:  # the others are told all the same
            refused.append(str(error))
    if todo:
        typer.echo("finished pieces and results in DVC's cache are not computed again, so it may be less")
    if refused:
        raise UserError("; ".join(refused))


def _cost(name: str, todo: set[str]) -> str:
    """What a release would cost, in words; todo = the stages that would run. Raises UserError where it is refused."""
    from tasks import _costs

    screens, generates = f"screening@{name}" in todo, f"generations@{name}" in todo
    if not (screens or generates):
        return "no evaluations"
    cost, spent = _costs.of_release(name), _costs.spent(name)
    prompts = f"{'' if cost.is_counted and 'prompts' not in todo else 'up to '}{cost.n_prompts} prompts"
    parts = ([f"{cost.screening:,} to screen"] if screens else []) + ([f"{cost.least:,} to {cost.most:,} to generate"] if generates else [])
    last = f"; its last audit took {spent:,}" if spent else ""
    return f"{prompts}; evaluations: {', '.join(parts)}; the published attack: {cost.published:,}{last}"


@app.command()
def status() -> None:
    """Which stages are stale, and why. Runs nothing: `eidetic plan` looks at the inputs too."""
    chosen = releases.chosen(None)
    _mend()
    todo = stages.stale(stages.status(), chosen)
    for target in stages.targets(chosen):
        if target != "inputs":
            typer.echo(f"{target:<32} {'stale: ' + '; '.join(todo[target]) if target in todo else 'up to date'}")
    if not stages.DATABASE.is_file():
        typer.echo(f"{stages.DATABASE} is missing; `eidetic audit` builds it again")


def _mend() -> None:
    for line in stages.mended():
        typer.echo(f"eidetic: {line}", err=True)


@app.command()
def verdict(names: Names = None) -> None:
    """One line per audited release, and where its report and the database are."""
    for release in releases.chosen(names):
        said = REPORTS / release / "audit.json"
        if not said.is_file():
            typer.echo(f"{release}: not audited yet; run `eidetic audit {release}`", err=True)
            continue
        typer.echo(json.loads(said.read_text(encoding="utf-8"))["verdict"])
        typer.echo(f"    report: {REPORTS / release / 'report.html'}")
    if not stages.DATABASE.is_file():
        raise UserError(f"{stages.DATABASE} is missing; make it with `eidetic audit` or `dvc repro -f -s warehouse`")
    typer.echo(f"database: {stages.DATABASE} (for example: eidetic sql \"from summary\")")


@app.command()
def sql(
    text: Annotated[str | None, typer.Argument(metavar="[SQL]", help="A query; tables and columns carry comments")] = None,
    query: Annotated[str | None, typer.Option(help="A question of sql/queries instead, by its file's name")] = None,
    form: Annotated[Form, typer.Option("--format", help="How the answer is printed")] = Form.table,
) -> None:
    """Ask findings.duckdb, read-only and without access to other files. Without a query: the questions there are."""
    from tasks import _database

    known = {file.stem: file for file in sorted(QUERIES.glob("*.sql"))}
    if query is not None and (text is not None or query not in known):
        raise UserError("give a query or --query NAME, not both" if text is not None else f"no query '{query}'; there are {', '.join(known) or 'none'}")
    if query is None and text is None:
        if not known:
            raise UserError(f"no {QUERIES} in {Path.cwd()}; run from the repository's root, or give a query")
        for name, file in known.items():
            typer.echo(f"{name:<26} {_database.statement(file)[0]}")
        return
    typer.echo(_database.shown(stages.DATABASE, _database.statement(known[query])[1] if query else str(text), form.value))


@app.command()
def gate(
    names: Names = None,
    max_rate: Annotated[float | None, typer.Option(min=0, max=1, help="Largest extraction rate of the arm that the verdict is about")] = None,
    by: Annotated[End, typer.Option(help="What --max-rate bounds: the measured rate, or an end of its 95 % interval")] = End.measured,
    max_new: Annotated[int | None, typer.Option(min=0, help="Most images that the release compared with did not return")] = None,
) -> None:
    """For CI: exit code 1 where a release breaks a bound, is not audited as it is now, or cannot be compared."""
    chosen = releases.chosen(names)
    from tasks import _gate

    made = _gate.decisions(stages.DATABASE, chosen, _gate.Bounds(max_rate, by.value, max_new))
    for decision in made:
        typer.echo(str(decision))
    if not all(decision.is_passed for decision in made):
        raise typer.Exit(1)


@app.command()
def checks(docs: Annotated[bool, typer.Option("--docs", help=f"Build Great Expectations' Data Docs in {DOCS} too")] = False) -> None:
    """What every stage's checks said. Exit code 1 where one failed."""
    from tasks import _tables

    rows = _tables.checked()
    if not rows:
        raise UserError("no stage has been run yet; run `eidetic audit`")
    tables: dict[tuple[str, str | None], list[dict[str, Any]]] = {}
    for row in rows:
        tables.setdefault((row["table_name"], row["release"]), []).append(row)
    for (table, release), of_table in tables.items():
        failed = [row["message"] for row in of_table if not row["is_passed"]]
        typer.echo(f"{table + ('@' + release if release else ''):<36} {len(of_table):>3} checks, {len(failed) or 'none'} failed")
        for message in failed:
            typer.echo(f"    {message}")
    rejected = _tables.rejected()
    for file in rejected:
        typer.echo(f"{file} was rejected: the stage's own message says why")
    if docs:
        from tasks import _checks

        read = {f"{table}@{release}" if release else table: (_tables.named(table, release), of_table) for (table, release), of_table in tables.items()}
        typer.echo(f"Data Docs: {_checks.docs(read, DOCS)}")
    if rejected or any(not row["is_passed"] for row in rows):
        raise typer.Exit(1)


@app.command()
def regenerate(
    finding_id: Annotated[int, typer.Argument(metavar="FINDING_ID", help="A finding of the current audits: `eidetic sql \"from findings\"`")],
    to: Annotated[Path, typer.Option(help="Folder for the picture")] = Path("regenerated"),
) -> None:
    """Make a finding's picture again from its prompt and seed, and say how far it is from the one on record."""
    from tasks import _regeneration

    made = _regeneration.regenerated(finding_id, releases.chosen(None))
    typer.echo(f"{_regeneration.written(made, to, finding_id)}: {made.release}, by {made.stack}")
    if made.is_identical:
        typer.echo("identical to the bit with the picture on record")
    else:
        typer.echo(f"not identical with the picture on record, which was made by {made.recorded_stack}: "
                   f"l2 {made.l2:.2g}, largest difference of a pixel {made.largest_difference} of 255")


@app.command()
def screen(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE…", help="Pictures to check")],
    blocklist: Annotated[Path, typer.Option(help="Folder of an exported blocklist: data/blocklist/<release>/export")],
    model: Annotated[Path | None, typer.Option(help="TorchScript file of its descriptor, where it was made with one")] = None,
) -> None:
    """Check pictures against a blocklist, one line each. Exit code 2 where one is blocked, 1 where one is no picture."""
    from tasks import _filter

    said = _filter.of_files(images, blocklist, str(model) if model else None)
    for file, answer in zip(images, said, strict=True):
        typer.echo(f"{file}: {answer}")
    if any(isinstance(answer, str) for answer in said):
        raise typer.Exit(1)
    if any(answer.is_blocked for answer in said if not isinstance(answer, str)):
        raise typer.Exit(2)


@app.command()
def clean() -> None:
    """Remove the finished pieces under work/ that let a stopped audit go on. Results stay; only time is lost."""
    from tasks import _shards, _tables

    freed = _shards.cleaned()
    for file in _tables.rejected():
        file.unlink()
    typer.echo(f"{freed / 1e6:,.1f} MB removed from {_shards.WORK}/; `dvc gc --workspace` removes old results from DVC's cache")


@app.command()
def doctor() -> None:
    """Versions, GPU, faiss, descriptor, disk, DVC remote, Prefect's API. Exit code 1 where something is amiss."""
    from flows import doctor as found

    is_well = True
    for name, value, way_out in found.findings():
        is_well &= way_out is None
        typer.echo(f"{name:<18} {value}" + (f"  <- {way_out}" if way_out else ""))
    if not is_well:
        raise typer.Exit(1)


if __name__ == "__main__":
    main()
