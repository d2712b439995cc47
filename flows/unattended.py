"""The commands for running unattended: a look at the sources of releases, and the alerts."""

import os
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer

from tasks._settings import UserError


def watch(
    every: Annotated[float | None, typer.Option(min=0.1, metavar="MINUTES", help="Look again and again, so many minutes apart, until stopped")] = None,
    status: Annotated[bool, typer.Option("--status", help="Say what is known of each place, and of audits that failed; look at nothing")] = False,
) -> None:
    """Look for new releases in the sources that params.yaml names under `watch`, and audit them. The same look as the deployed flow's."""
    if status:
        _say_what_is_known()
        return
    os.environ.setdefault("PREFECT_LOGGING_LOGGERS_PREFECT_LEVEL", "INFO")
    from flows import server
    from flows import watch as flow

    with server.api():
        while every is not None:
            time.sleep(_look(flow.looked, 60 * every, flow.SECONDS_TO_SETTLE))
        found = flow.looked(typer.echo)
    if found.wrong:
        raise UserError("; ".join(found.wrong))


def _look(looked: Callable[[Callable[[str], None]], Any], seconds: float, seconds_to_settle: float) -> float:
    """Look once; seconds to the next look. What is wrong is said, and ends nothing: it may be mended meanwhile."""
    try:
        found = looked(typer.echo)
    except UserError as error:
        typer.echo(f"eidetic: {error}", err=True)
        return seconds
    for line in found.wrong:
        typer.echo(f"eidetic: {line}", err=True)
    return min(seconds, seconds_to_settle) if found.noted else seconds


def _say_what_is_known() -> None:
    from flows import audits, watched

    for place, entry in sorted(watched.remembered()["places"].items()):
        typer.echo(f"{place:<32} {entry['status']:<12} {': '.join(filter(None, (entry['name'], entry['reason'])))}")
    for release, reason in audits.failures().items():
        typer.echo(f"{release:<32} {'failed':<12} {reason}")


def alerts(
    to: Annotated[str | None, typer.Argument(metavar="[TO]", help="A webhook's address, or a notification block of Prefect's as type/name")] = None,
    on: Annotated[list[str] | None, typer.Option(metavar="EVENT", help="Only of this event, which may be given several times; else of all")] = None,
) -> None:
    """Put the project's automations on Prefect's server: alerts, and crashed runs marked as such. Again and again with the same end."""
    from flows import alerts as automations
    from flows import server

    with server.api():
        for line in automations.put(to, on or list(automations.EVENTS)):
            typer.echo(line)
