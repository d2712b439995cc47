"""The command line. Heavy libraries are imported by the command that needs them: --help answers at once."""

import json
from pathlib import Path

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Audits image diffusion models for memorization.")
REPORTS = Path("reports")
DATABASE = Path("findings.duckdb")


def _complaint(message: str) -> int:
    """Print a person's way out; the exit code."""
    typer.echo(f"eidetic: {message}", err=True)
    return 1


@app.callback()
def eidetic() -> None:
    """Audits image diffusion models for memorization."""


@app.command()
def verdict() -> None:
    """Print one line per audited release, and where its report and the database are."""
    from tasks import _settings

    for release in _settings.all_settings().get("releases") or {}:
        audit = REPORTS / release / "audit.json"
        if not audit.is_file():
            typer.echo(f"{release}: not audited yet; run `dvc repro`", err=True)
            continue
        typer.echo(json.loads(audit.read_text(encoding="utf-8"))["verdict"])
        typer.echo(f"    report: {REPORTS / release / 'report.html'}")
    if not DATABASE.is_file():
        raise typer.Exit(_complaint(f"{DATABASE} is missing; make it with `dvc repro -f -s warehouse`"))
    typer.echo(f"database: {DATABASE} (for example: duckdb -readonly findings.duckdb \"from summary\")")
