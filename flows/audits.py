"""What people and automations are told of audits: events with a text, each of them once."""

import json
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect.events import emit_event

from flows import stages
from tasks._settings import UserError

MEMORY = Path("data") / "watch" / "audits.json"
REPORTS = Path("reports")
RESOURCE = "eidetic.release"
FINISHED, REGRESSED, FAILED, RELEASED, REFUSED = "audit.finished", "audit.regressed", "audit.failed", "model.released", "release.refused"
N_SHOWN = 5  # images that a text names


def tell(finished: list[str], failures: dict[str, str], *, is_shared: bool = False, killed: Collection[str] = ()) -> list[str]:
    """Emit an event for each audit, and each failure, that nobody was told of; their texts. For whoever holds the audit's lock.

    finished = releases that were brought up to date; failures = why others were not.
    is_shared: what failed is not the release's own, so that it is tried again as it is. killed: of these a stage was killed, which is
    tried once more.
    """
    memory = _remembered()
    texts = []
    for release, reason in failures.items():
        failure = {"digest": None if is_shared else _digest(release), "reason": reason}
        before = memory.get(release, {}).get("failure") or {}
        is_told = {name: before.get(name) for name in failure} == failure
        if not is_told:
            texts.append(emit(FAILED, release, f"{release}: the audit failed: {reason}"))
        _remember(memory, release, failure=failure | {"is_open": release in killed and not is_told}, at=_now())
    for release, audit_id, rows in _current(finished):
        outcomes = [f"{row['kind']} {row['arm']} {row['outcome']}" for row in rows]
        before = memory.get(release, {})
        if before.get("audit_id") != audit_id:
            texts.append(emit(FINISHED, release, finished_text(_verdict(release), rows), audit_id=audit_id))
        if (before.get("audit_id"), before.get("outcomes")) != (audit_id, outcomes) and any(map(_is_regression, rows)):
            texts.append(emit(REGRESSED, release, regressed_text(release, rows, _returned(release)), audit_id=audit_id))
        _remember(memory, release, failure=None, audit_id=audit_id, outcomes=outcomes, at=_now())
    return texts


def failed() -> dict[str, str]:
    """Digests of the models whose audit failed when it was last tried, and that are left alone, by release."""
    failures = {release: said.get("failure") for release, said in _remembered().items()}
    return {release: failure["digest"] for release, failure in failures.items()
            if failure and failure["digest"] and not failure.get("is_open")}


def failures() -> dict[str, str]:
    """Why an audit failed when it was last tried, by release."""
    return {release: said["failure"]["reason"] for release, said in _remembered().items() if said.get("failure")}


def emit(event: str, release: str, text: str, **more: Any) -> str:
    """Emit an event of Prefect's about a release; its text."""
    resource = {"prefect.resource.id": f"{RESOURCE}.{release}", "prefect.resource.name": release, "eidetic.project": str(Path.cwd())}
    emit_event(event, resource=resource, payload={"release": release, "text": text, **more})
    return text


def finished_text(verdict: str, rows: list[dict[str, Any]]) -> str:
    """The verdict, and what became of all targets since the release it is compared to, and since its base; rows of comparisons."""
    return "; ".join([verdict, *(f"compared to {row['against']}: {_in_words(row)}" for row in rows if row["arm"] == "all")])


def regressed_text(release: str, rows: list[dict[str, Any]], returned: list[dict[str, Any]]) -> str:
    """What got worse, with the intervals: rows of comparisons, of the pairs that are worse as a whole, and of the view regressions."""
    said = []
    for whole in filter(_is_regression, rows):
        pair = (whole["kind"], whole["against"])
        arms = [row for row in rows if (row["kind"], row["against"]) == pair and row["arm"] != "all" and row["outcome"] == "worse"]
        keys = [str(row["key"]) for row in returned if (row["kind"], row["against"]) == pair]
        shown = ", ".join(keys[:N_SHOWN]) + (f" and {len(keys) - N_SHOWN} more" if len(keys) > N_SHOWN else "")
        said.append(f"{release} is worse than {whole['against']}: " + "; ".join(
            [_in_words(whole), *(f"{row['arm']}: {_in_words(row)}" for row in arms), *([f"came back only now: {shown}"] if keys else [])]))
    return ". ".join(said)


def _in_words(row: dict[str, Any]) -> str:
    """A row of comparisons."""
    if row["outcome"] == "not_comparable":
        return f"not comparable: {row['reason']}"
    outcome = {"no_evidence": "no evidence of a change"}.get(row["outcome"], row["outcome"])
    difference, low, high = (f"{100 * row[name]:+.1f}" for name in ("difference", "low", "high"))
    return (f"{outcome}, {difference} percentage points (95 % interval {low} to {high}; of {row['n_clusters']} clusters "
            f"{row['n_only_later']} come back only now, {row['n_only_earlier']} only then)")


def _is_regression(row: dict[str, Any]) -> bool:
    """Whether all targets together are worse: single arms are told beside it, for by chance one of several may be."""
    return bool(row["arm"] == "all" and row["outcome"] == "worse")


def _current(releases: list[str]) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """Of these releases those with a current audit, its id and its rows of comparisons."""
    from tasks import _database

    if not releases:
        return []
    compared = _database.rows(stages.DATABASE, "from comparisons order by release, kind, arm").to_pylist()
    audits = _database.rows(stages.DATABASE, "select release, audit_id from releases where status = 'current' order by position").to_pylist()
    return [(a["release"], a["audit_id"], [row for row in compared if row["release"] == a["release"]]) for a in audits if a["release"] in releases]


def _returned(release: str) -> list[dict[str, Any]]:
    """Rows of regressions, new images first."""
    from tasks import _database

    query = "select release, kind, against, coalesce(key, caption) as key from regressions order by is_new_image desc, l2, prompt_id"
    return [row for row in _database.rows(stages.DATABASE, query).to_pylist() if row["release"] == release]


def _digest(release: str) -> str | None:
    from tasks import _sources

    try:
        return _sources.release(release).digest
    except UserError:
        return None


def _verdict(release: str) -> str:
    return str(json.loads((REPORTS / release / "audit.json").read_text(encoding="utf-8"))["verdict"])


def _remembered() -> dict[str, dict[str, Any]]:
    if not MEMORY.is_file():
        return {}
    read: dict[str, dict[str, Any]] = json.loads(MEMORY.read_text(encoding="utf-8"))
    return read


def _remember(memory: dict[str, dict[str, Any]], release: str, **said: Any) -> None:
    from tasks import _tables

    memory[release] = memory.get(release, {}) | said
    _tables.put_text(json.dumps(memory, indent=1, sort_keys=True) + "\n", MEMORY)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
