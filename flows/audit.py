"""The audit as a Prefect flow: one task per stage of dvc.yaml, in its order. DVC alone decides what is run; Prefect gives it a
schedule, a log, retries of what passes by itself, and an artifact with the verdict."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from prefect import Task, flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.states import Completed, Failed

from flows import audits, server, stages
from flows import releases as listing
from tasks._settings import TryAgain, UserError

REPORTS = Path("reports")
RETRY_SECONDS: list[float] = [10, 60]
SECONDS_BETWEEN_TRIES = 2.0  # of a run that waits for another
TRY_AGAIN = "TryAgain"  # name of the state of a run that failed for a reason that passes by itself
KILLED = "Killed"  # of a stage that was killed from outside


def _passes_by_itself(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    return isinstance(state.result(raise_on_failure=False), TryAgain)


# called directly, never submitted: only so does a signal to the flow reach the code that ends the stage
@task(task_run_name="{target}", cache_policy=NO_CACHE, persist_result=False, retries=len(RETRY_SECONDS), retry_delay_seconds=RETRY_SECONDS,
      retry_condition_fn=_passes_by_itself)
def reproduce(target: str) -> State[Any]:
    """Bring one stage up to date. Completed says whether it ran; Failed carries the stage's complaint."""
    try:
        has_run = stages.reproduced(target, get_run_logger().info)
    except TryAgain as error:
        context = TaskRunContext.get()
        if context and context.task_run.run_count <= len(RETRY_SECONDS):
            raise
        return Failed(message=str(error), name=TRY_AGAIN)
    except stages.Killed as error:
        return Failed(message=str(error), name=KILLED)
    except UserError as error:
        return Failed(message=str(error))
    return Completed(message="ran" if has_run else "nothing to do")


@flow(name="audit", persist_result=False)
def audit(releases: list[str] | None = None) -> State[Any]:
    """Audit these releases of params.yaml, or all of them: the shared stages, each release's own, the warehouse, the reports.

    A release that fails does not keep the others from being audited; the run fails in the end and says which. A run waits while
    another is at work in this folder.
    """
    server.end_with_worker()
    try:
        names = listing.chosen(releases)
        with _turn():
            return _audited(names)
    except TryAgain as error:
        return Failed(message=str(error), name=TRY_AGAIN)
    except UserError as error:
        return Failed(message=str(error))


@contextmanager
def _turn() -> Iterator[None]:
    """Hold the audit's lock, as soon as it is free."""
    from tasks import _shards

    is_said = False
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(_shards.lock("audit"))
                break
            except TryAgain as error:
                if not is_said:
                    get_run_logger().info("waiting: %s", str(error).partition(";")[0])
                is_said = True
                time.sleep(SECONDS_BETWEEN_TRIES)
        yield


def _audited(releases: list[str]) -> State[Any]:
    for line in stages.mended():
        get_run_logger().warning(line)
    failed = _first_failure(stages.shared_targets())
    if failed:
        _tell([], dict.fromkeys(releases, failed), is_shared=True)
        return _failed([failed])
    failures = {release: _first_failure(stages.release_targets(release)) for release in releases}
    unbuilt = _first_failure(["warehouse"])
    if not unbuilt:
        failures |= {release: _first_failure(stages.last_targets(release)) for release in releases if not failures[release]}
    own = {release: state for release, state in failures.items() if state}
    others = [release for release in releases if release not in own]
    _tell([] if unbuilt else others, own)
    if unbuilt:
        _tell([], dict.fromkeys(others, unbuilt), is_shared=True)
        return _failed([*own.values(), unbuilt])
    for release in others:
        create_markdown_artifact(key=f"audit-{slug(release)}", markdown=markdown(release), description=f"Verdict on {release}")
    if own:
        return _failed(list(own.values()))
    return Completed(message="; ".join(_verdict(release) for release in releases))


def _tell(finished: list[str], failures: dict[str, State[Any]], *, is_shared: bool = False) -> None:
    """Tell of what is finished and of what failed; what passes by itself is not told of. It never fails an audit."""
    try:
        reasons = {r: str(s.message) for r, s in failures.items() if s.name != TRY_AGAIN}
        killed = {r for r, s in failures.items() if s.name == KILLED}
        for text in audits.tell(finished, reasons, is_shared=is_shared, killed=killed):
            get_run_logger().info(text)
    except UserError as error:
        get_run_logger().warning("nobody is told of this audit: %s", error)


def _first_failure(targets: list[str]) -> State[Any] | None:
    """Reproduce the stages in order, up to the first that fails; its state, or None."""
    for target in targets:
        state = reproduce(target, return_state=True)
        if not state.is_completed():
            return state
    return None


def _failed(found: list[State[Any]]) -> State[Any]:
    """The run's state of those of its stages: to be tried again where that will do for all of them."""
    will_do = all(state.name == TRY_AGAIN for state in found)
    message = "; ".join(dict.fromkeys(str(state.message) for state in found))
    return Failed(message=message, name=TRY_AGAIN) if will_do else Failed(message=message)


def slug(release: str) -> str:
    """A release's name as Prefect's keys want it: lower case, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", release.lower()).strip("-")


def markdown(release: str) -> str:
    """The artifact: the verdict and where the rest is."""
    folder = (REPORTS / release).resolve()
    links = "\n".join(f"- [{name}]({(folder / name).as_uri()})" for name in ("report.html", "audit_card.md", "audit.json"))
    return f"**{_verdict(release)}**\n\n{links}\n- database: [{stages.DATABASE}]({stages.DATABASE.resolve().as_uri()})\n"


def _verdict(release: str) -> str:
    return str(json.loads((REPORTS / release / "audit.json").read_text(encoding="utf-8"))["verdict"])
