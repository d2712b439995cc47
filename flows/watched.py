"""What a look at the configured sources finds: new releases are entered in params.yaml, refused ones are remembered with the reason.

What was seen is kept in data/watch/watch.json, by place: a look that is killed, or that is one too many, does nothing twice.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows import audits, releases, stages
from tasks._settings import TryAgain, UserError

SEEN = "taken at the next look, if it has not changed by then"
MEMORY = Path("data") / "watch" / "watch.json"
OF_ENTRIES = ("n_steps", "guidance_scale", "height_px", "width_px", "compare_to", "base", "kept")  # what watch.settings may hold


@dataclass
class Look:
    """What one look found."""

    due: list[str] = field(default_factory=list)  # releases of params.yaml, in the order found, whose audit is not in the history
    refused: list[dict[str, Any]] = field(default_factory=list)  # places that nobody was told of yet
    said: list[str] = field(default_factory=list)  # what happened, a line each
    noted: list[str] = field(default_factory=list)  # places that are taken at the next look if they have not changed by then
    wrong: list[str] = field(default_factory=list)  # what somebody must mend: a source that is not there, a release that cannot be entered

    def say(self, error: UserError) -> None:
        """Keep what a source, or a place, is complained of."""
        self.said.append(str(error))
        self.wrong += [] if isinstance(error, TryAgain) else [str(error)]


def look() -> Look:
    """Look at all sources of params.yaml once. A source that does not answer, or is not there, is said and keeps no other from being looked at.

    Raises UserError for a block `watch` that cannot be used, TryAgain where another look is at work.
    """
    from tasks import _shards

    settings = _settings()
    found = Look()
    with _shards.lock("watch"):
        memory = remembered()
        candidates = [one for kind in ("folders", "hub") for source in settings[kind] for one in _candidates(kind, source, memory, found)]
        audited = _audited()
        for candidate in candidates:
            before = memory["places"].get(candidate.place)
            if before and before["mark"] == candidate.mark and before["status"] != "seen":
                continue
            is_whole = candidate.is_whole or bool(before and before["mark"] == candidate.mark)
            try:
                now = _judged(candidate, settings["settings"] or {}, audited) if is_whole else _entry("seen", reason=SEEN)
            except UserError as error:  # the Hub does not answer, or params.yaml is not edited by machine
                found.say(error)
                continue
            memory["places"][candidate.place] = now | {"mark": candidate.mark, "at": datetime.now(UTC).isoformat(timespec="milliseconds")}
            _remember(memory)
            found.noted += [candidate.place] if now["status"] == "seen" else []
            found.said.append(f"{candidate.place}: {now['status']}" + (f": {now['reason']}" if now["reason"] else ""))
        found.refused = [{"place": place, **entry} for place, entry in memory["places"].items() if entry["status"] == "refused" and not entry.get("is_told")]
        found.due = _due(memory, audited)
    return found


def told(place: str) -> None:
    """Remember that people were told why a place is refused."""
    from tasks import _shards

    with _shards.lock("watch"):
        memory = remembered()
        memory["places"][place]["is_told"] = True
        _remember(memory)


def remembered() -> dict[str, Any]:
    """Places by name: mark, status, name of the release, digest, reason, time; and the organisations that were looked at before."""
    if not MEMORY.is_file():
        return {"organisations": [], "places": {}}
    read: dict[str, Any] = json.loads(MEMORY.read_text(encoding="utf-8"))
    return read


def _remember(memory: dict[str, Any]) -> None:
    from tasks import _tables

    _tables.put_text(json.dumps(memory, indent=1, sort_keys=True) + "\n", MEMORY)


def _settings() -> dict[str, Any]:
    from tasks import _settings

    settings = _settings.settings("watch")
    for name in ("folders", "hub"):
        if not isinstance(settings[name], list) or not all(isinstance(source, str) for source in settings[name]):
            raise UserError(f"watch.{name} is {settings[name]}; give a list such as [releases]")
    unknown = sorted(set(settings["settings"] or {}) - set(OF_ENTRIES))
    if unknown:
        raise UserError(f"watch.settings.{unknown[0]} is no setting that new releases can be given; they are {', '.join(OF_ENTRIES)}")
    return settings


def _candidates(kind: str, source: str, memory: dict[str, Any], found: Look) -> list[Any]:
    """The candidates of one source. Of an organisation, what is there at the first look is only taken note of."""
    from tasks import _new_releases

    ask: Callable[[str], list[_new_releases.Candidate]] = _new_releases.in_folder if kind == "folders" else _new_releases.on_hub
    try:
        there = ask(source)
    except UserError as error:
        found.say(error)
        return []
    if kind == "folders" or "/" in source or source in memory["organisations"]:
        return there
    memory["organisations"].append(source)
    for one in there:
        memory["places"].setdefault(one.place, _entry("there before") | {"mark": one.mark, "at": None})
    _remember(memory)
    found.said.append(f"{source}: {len(there)} pipelines there before; their next commits, and new ones, are audited")
    return []


def _entry(status: str, name: str | None = None, digest: str | None = None, reason: str | None = None) -> dict[str, Any]:
    return {"status": status, "name": name, "digest": digest, "reason": reason}


def _judged(candidate: Any, more: dict[str, Any], audited: dict[str, set[str]]) -> dict[str, Any]:
    """What becomes of a candidate that is there as a whole; it may enter it in params.yaml, with more = watch.settings.

    One that changes while it is read is only noted.
    """
    from tasks import _new_releases, _sources, _tables

    text = releases.text_of()
    listed = releases.listed(text)
    name = next((name for name, spec in listed.items() if _is_there(spec, candidate.entry)), None)
    spec = listed[name] if name else candidate.entry | more
    digest, reason = "", None
    try:
        root = _sources.accepted(spec)
        digest = _sources.digest_of(root, _sources.lora_file(str(spec["lora"])) if spec.get("lora") else None)
    except TryAgain:
        raise
    except UserError as error:
        reason = str(error)
    except OSError as error:  # not for us to read, gone in the meantime, a disk that fails
        reason = f"cannot be read: {error.strerror or error}: {error.filename}"
    if not _new_releases.is_as_it_was(candidate):
        return _entry("seen", reason=SEEN)
    if reason:
        return _entry("refused", name, reason=reason)
    if name:
        return _entry("listed", name, digest)
    same = next((release for release, digests in audited.items() if digest in digests), None)
    if same:
        return _entry("known", same, digest, f"the same files as {same}, which has been audited")
    name = candidate.name if candidate.name not in listed else f"{candidate.name}-{digest[:8]}"
    _tables.put_text(releases.with_release(text, name, spec), releases.PARAMS)
    return _entry("listed", name, digest)


def _is_there(spec: dict[str, Any], entry: dict[str, Any]) -> bool:
    """Whether an entry of params.yaml is of this folder or commit."""
    if entry["revision"]:
        return (spec.get("model"), spec.get("revision")) == (entry["model"], entry["revision"])
    return spec.get("revision") is None and Path(str(spec.get("model"))).expanduser().resolve() == Path(entry["model"]).resolve()


def _audited() -> dict[str, set[str]]:
    """Digests of the models that the history has an audit of, by release."""
    from tasks import _database

    made: dict[str, set[str]] = {}
    if stages.DATABASE.is_file():
        for row in _database.rows(stages.DATABASE, "select distinct release, model_digest from audits").to_pylist():
            made.setdefault(row["release"], set()).add(row["model_digest"])
    return made


def _due(memory: dict[str, Any], audited: dict[str, set[str]]) -> list[str]:
    """Releases that stand in params.yaml, have no audit of these files, and did not fail with them."""
    there, failed = releases.listed(releases.text_of()), audits.failed()
    entries = sorted((entry for entry in memory["places"].values() if entry["status"] == "listed"), key=lambda entry: entry["at"])
    return [e["name"] for e in entries
            if e["name"] in there and e["digest"] not in audited.get(e["name"], set()) and failed.get(e["name"]) != e["digest"]]
