"""Looks at the sources of releases, on a schedule: what is new is entered in params.yaml and audited, one release after the other.

Deployed, the flow emits `model.released` for each, and the deployment that this event triggers audits it. From the command line the
audits run in the same process, on a server of their own, with the same look.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.runtime import deployment
from prefect.states import Completed, Failed, Scheduled

from flows import audit, audits, server, watched
from tasks._settings import UserError

N_RUNS = 200  # of the audit, the newest, that are looked at
SECONDS_TO_SETTLE = 60  # a folder that is new is looked at again so soon, and taken if it has not changed
AT_WORK = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING, StateType.PAUSED]


@flow(name="watch", persist_result=False)
def watch() -> State[None]:
    """Look once; announce the first release whose audit is due, if none is on its way. The others follow at later looks, in order.

    The run fails where a source is not there, after the others were looked at.
    """
    server.end_with_worker()
    try:
        found = watched.look()
    except UserError as error:
        return Failed(message=str(error))
    for line in [*found.said, *_told(found)]:
        get_run_logger().info(line)
    asked = _asked() if found.due else {}
    announced = _next(found.due, asked)
    for release in announced:
        audits.emit(audits.RELEASED, release, f"{release} is new, or its files are; its audit is asked for")
    if found.noted:
        _look_soon()
    if found.wrong:
        return Failed(message="; ".join(found.wrong))
    waiting = [release for release in found.due if release not in announced]
    return Completed(message=f"to audit: {', '.join(announced) or 'nothing'}" + (f"; waiting: {', '.join(waiting)}" if waiting else ""))


def looked(say: Callable[[str], None]) -> watched.Look:
    """Look once and audit what is due, one release after the other, in this process. What was refused or failed is among `wrong`.

    Raises UserError as a look does.
    """
    found = watched.look()
    for line in found.said:
        say(line)
    found.wrong += _told(found)
    for release in found.due:
        state = audit.audit([release], return_state=True)
        say(str(state.message))
        found.wrong += [] if state.is_completed() else [str(state.message)]
    return found


def _look_soon() -> None:
    """Have the deployment look again when what was noted has had time to change; once, however many ask for it."""
    if deployment.id is None:
        return
    at = datetime.now(UTC) + timedelta(seconds=SECONDS_TO_SETTLE)
    with get_client(sync_client=True) as client:
        client.create_flow_run_from_deployment(UUID(str(deployment.id)), state=Scheduled(scheduled_time=at),
                                               idempotency_key=f"look-{int(at.timestamp()) // SECONDS_TO_SETTLE}")


def _told(found: watched.Look) -> list[str]:
    """Tell of each place that is refused, once."""
    texts = []
    for entry in found.refused:
        name = entry["name"] or entry["place"]
        texts.append(audits.emit(audits.REFUSED, name, f"{entry['place']} is refused: {entry['reason']}"))
        watched.told(entry["place"])
    return texts


def _asked() -> dict[str, FlowRun]:
    """The newest run of the audit for one release alone that is at work, waits, or was cancelled; by release."""
    states = FlowRunFilterState(type=FlowRunFilterStateType(any_=[*AT_WORK, StateType.CANCELLED]))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["audit"])), flow_run_filter=FlowRunFilter(state=states),
                                     sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=N_RUNS)
    made: dict[str, FlowRun] = {}
    for run in runs:
        named = run.parameters.get("releases")
        if isinstance(named, list) and len(named) == 1:
            made.setdefault(named[0], run)
    return made


def _next(due: list[str], asked: dict[str, FlowRun]) -> list[str]:
    """The first release that is due, unless it has been asked for: one at a time, because Prefect's queue keeps no order.

    So each is compared to the one above it, which has been audited by then. One that was cancelled keeps no other back.
    """
    for release in due:
        run = asked.get(release)
        if _is_open(release, run):
            return [release]
        if run and run.state and run.state.type != StateType.CANCELLED:
            return []
    return []


def _is_open(release: str, run: FlowRun | None) -> bool:
    """Whether an audit is to be asked for: none is on its way, and none was cancelled since the release was last seen to change."""
    if run is None or run.state is None:
        return True
    since = max((datetime.fromisoformat(e["at"]) for e in watched.remembered()["places"].values() if e["name"] == release and e["at"]), default=None)
    return bool(run.state.type == StateType.CANCELLED and since is not None and run.state.timestamp < since)
