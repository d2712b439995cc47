"""The findings of all audits in one DuckDB file, with history. One database per project.

An audit is kept under audits/<audit_id> as soon as its tables have passed the checks in sql/checks, and never written again. What
it was made with is read from what the audit itself recorded, never from today's params.yaml: a release that was not audited again
keeps its audit. The database is made anew from data/ and audits/ each time.
"""

import json
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tasks import _checks, _comparisons, _database, _settings, _shards, _sources, _stage, _tables
from tasks._schemas import column, schema
from tasks._settings import UserError

DATABASE = Path("findings.duckdb")
METRICS = Path("metrics.json")
AUDITS = Path("audits")
SQL = Path("sql")
SCRIPTS = ("images", "duplicates", "prompts", "screening", "generations", "matches", "findings", "summary", "checks", "releases",
           "comparisons", "reviews", "history", "views", "blocklist", "keep_list")  # in this order
SHARED = {"images": ("images", None), "duplicates": ("duplicates", None), "pairs": ("duplicates", "pairs"),
          "canaries": ("duplicates", "canaries"), "thresholds": ("duplicates", "thresholds"),
          "prompts": ("prompts", None), "reviews": ("reviews", None)}  # table of the database -> noun and side
OF_RELEASE = {"screening": ("screening", None), "protocol": ("screening", "protocol"), "generations": ("generations", None),
              "sampling": ("generations", "sampling"), "matches": ("matches", None), "findings": ("findings", None),
              "summary": ("summary", None), "blocklist": ("blocklist", None), "filter_rates": ("blocklist", "filter_rates"),
              "keep_list": ("keep_list", None), "policies": ("keep_list", "policies")}
SHARED_STAGES = ("inputs", "images", "image_embeddings", "duplicates", "prompts", "reviews")
RELEASE_STAGES = ("screening", "generations", "generation_embeddings", "matches", "findings", "summary", "blocklist", "keep_list")
SHARED_BLOCKS = ("images", "image_embeddings", "duplicates", "prompts")  # settings that no protocol records
RATES = ("extraction_rate", "fdr_estimate", "fdr_upper", "estimated_total", "estimated_total_low", "estimated_total_high")
HISTORY = ("findings", "sampling", "summary", "checks", "settings")

RELEASES = schema(["position"], [
    column("release", pa.string(), "Release under audit"),
    column("position", pa.int32(), "Its place in params.yaml, from 0"),
    column("compare_to", pa.string(), "Release it is compared to: the entry above unless params.yaml names one; NULL for none", nullable=True),
    column("base", pa.string(), "For a fine-tune, the release it was made from; NULL where params.yaml names none", nullable=True),
    column("status", pa.string(), "current, stale (files or prompts changed since, or stopped halfway), refused or not_audited; tables hold current ones only"),
    column("reason", pa.string(), "Why it is not current, with the way out; NULL where it is", nullable=True),
    column("audit_id", pa.string(), "Its current audit; NULL where there is none", nullable=True),
])
SETTINGS = schema(["release", "name"], [
    column("release", pa.string(), "Release under audit"),
    column("name", pa.string(), "Block and name of the setting, with dots between"),
    column("value", pa.string(), "Its value as JSON"),
])
AUDIT = schema(["audit_id"], [
    column("audit_id", pa.string(), "The release and 8 digits of a digest of what the audit was made with and what it found"),
    column("release", pa.string(), "Release that was audited"),
    column("audited_at", pa.timestamp("s"), "When the audit entered the history, UTC"),
    column("protocol_digest", pa.string(), "Digest of model, prompts, settings, thresholds and stack, fixed before looking"),
    column("model_digest", pa.string(), "Digest over the paths and digests of all files of the release"),
    column("training_set_digest", pa.string(), "Digest over the files of the training set and the held-out set"),
    column("stack", pa.string(), "Versions, device and dtype"),
])
AUDIT_ID = column("audit_id", pa.string(), "The audit: a row of audits")


class NotCurrent(UserError):
    """A release of which there is no audit as params.yaml has it; status as in RELEASES."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class Audit:
    """The current audit of a release."""

    audit_id: str
    bound: dict[str, Any]  # its row of AUDIT, less audited_at
    tables: dict[str, pa.Table]  # by name of HISTORY


def release_rows(releases: dict[str, dict[str, Any] | None]) -> list[dict[str, Any]]:
    """Rows of RELEASES, less audit_id, in the order of params.yaml.

    Raises UserError where there is none, or a compare_to or base that is not listed.
    """
    if not releases:
        raise UserError("releases: params.yaml lists none; add one, then run `dvc repro`")
    made: list[dict[str, Any]] = []
    for position, (name, spec) in enumerate(releases.items()):
        others = {"compare_to": made[-1]["release"] if made else None, "base": None}  # where the entry does not say
        for key, unsaid in others.items():
            other = others[key] = (spec or {}).get(key, unsaid)
            if other is not None and (other not in releases or other == name):
                raise UserError(f"releases.{name}.{key} '{other}' is not another of {', '.join(releases)}, nor null")
        made.append({"release": name, "position": position, **others})
    return made


def settings_rows(release: str, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of SETTINGS: blocks within blocks become dotted names, values JSON."""
    made = []
    for name, value in sorted(settings.items()):
        if isinstance(value, dict):
            made += [row | {"name": f"{name}.{row['name']}"} for row in settings_rows(release, value)]
        else:
            made.append({"release": release, "name": name, "value": json.dumps(value, sort_keys=True)})
    return made


def training_set_digest(files: list[dict[str, Any]]) -> str:
    """Digest of the training set and held-out set, from their rows of inputs."""
    return _shards.fingerprint(sorted((r["source"], r["path"], r["sha256"]) for r in files))


def audit_id(bound: dict[str, Any], settings: list[dict[str, Any]], outcome: list[pa.Table]) -> str:
    """The release and 8 hexadecimal digits: the same for the same model, training set, prompts, settings, stack and outcome.

    The outcome is digested too, so that an audit whose tables changed with the code is another audit, never silently the old one.
    """
    digest = _shards.fingerprint(bound, settings, [table.to_pydict() for table in outcome])
    return f"{bound['release']}-{digest[:8]}"


def metrics(summaries: list[dict[str, Any]], comparisons: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """metrics.json by release, from rows of summary: counts over all arms; rate, false share and total of the duplicated arm.

    From rows of comparisons: what became of all targets since the release it is compared to, if there is one.
    """
    whole = [r for r in summaries if r["copies_bin"] == "all"]
    made = {}
    for release in sorted({r["release"] for r in whole}):
        arms = [r for r in whole if r["release"] == release]
        main_arm = next((r for r in arms if r["arm"] == "duplicated"), {})
        made[release] = {
            **{name: sum(r[name] for r in arms) for name in ("n_prompts", "n_findings", "n_evaluations")},
            **{name: max(r[name] for r in arms) for name in ("n_controls", "n_controls_flagged")},
            **{name: _rounded(main_arm.get(name)) for name in RATES},
            "extraction_rate_low": _rounded(main_arm.get("low")), "extraction_rate_high": _rounded(main_arm.get("high")),
            "n_duplicated_findings": main_arm.get("n_findings"), "n_duplicated_prompts": main_arm.get("n_prompts")}
    for r in comparisons:
        if (r["kind"], r["arm"]) == ("previous", "all"):
            made[r["release"]] |= {"compared_to": r["against"], "compared_outcome": r["outcome"],
                                   **{f"compared_{name}": _rounded(r[name]) for name in ("difference", "low", "high")}}
    return made


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def require_current(protocol: dict[str, Any], prompts: pa.Table, model_digest: str, summarized: set[str]) -> None:
    """Raise NotCurrent where the model or the prompts are others than the release was audited with, or the audit stopped halfway.

    summarized = protocol digests in its summary: the last table that an audit makes.
    """
    name = protocol["release"]
    asked = prompts.select(["prompt_id", "caption"]).to_pydict()
    if model_digest != protocol["model_digest"]:
        raise NotCurrent("stale", f"the files of release '{name}' have changed since its audit; run `eidetic audit {name}`")
    if _shards.fingerprint(protocol["model_digest"], protocol["stack"], asked, protocol["settings"]) != protocol["protocol_digest"]:
        raise NotCurrent("stale", f"release '{name}' was audited with other prompts than there are now; run `eidetic audit {name}`")
    if summarized != {protocol["protocol_digest"]}:
        raise NotCurrent("stale", f"the audit of release '{name}' has not come to its end; run `eidetic audit {name}`")


def main() -> None:
    """Keep the current audits in audits/, build findings.duckdb, write metrics.json and which audit is current."""
    listed = _settings.all_settings()
    rows = release_rows(listed.get("releases") or {})
    shared = {block: listed.get(block) for block in SHARED_BLOCKS}
    found = {row["release"]: _audit_or_why(row["release"], shared) for row in rows}
    audits = [a for a in found.values() if isinstance(a, Audit)]
    if not audits:
        raise UserError("; ".join(str(why) for why in found.values()))
    listing = [row | _standing(found[row["release"]]) for row in rows]
    releases = _tables.table(listing, RELEASES)
    of_release = {a.bound["release"]: a.tables for a in audits}
    compared = _comparisons.comparisons(listing, _tables.read("prompts").to_pylist(), of_release)
    _forget_pending()  # of a run that was killed
    for folder in (METRICS.parent, _tables.folder("warehouse")):
        _shards.sweep(folder)
    scripts, checks = [SQL / f"{name}.sql" for name in SCRIPTS], sorted((SQL / "checks").glob("*.sql"))
    try:
        pending = {a.audit_id: _pending(a) for a in audits if not (AUDITS / a.audit_id).is_dir()}
        parts = {"releases": releases, "comparisons": compared} | _parts(audits, _folders(list(pending.values())))
        _database.build(DATABASE, parts, scripts, checks)
        for name, folder in pending.items():
            os.rename(folder, AUDITS / name)
    finally:
        _forget_pending()
    told = metrics([r for a in audits for r in a.tables["summary"].to_pylist()], compared.to_pylist())
    _tables.put_text(json.dumps(told, indent=2, sort_keys=True) + "\n", METRICS)
    # DVC's out: the database's own bytes differ with every build, and would leave dvc.lock changed after each audit
    _tables.write(releases, [], "warehouse")
    _tables.write(compared, [], "warehouse", side="comparisons")
    _comparisons.put_of_releases(compared, of_release, set(found))
    for why in found.values():
        if isinstance(why, NotCurrent):
            print(f"warehouse: without a {why.status} release: {why}")
    held = ", ".join(a.audit_id for a in audits)
    print(f"warehouse: {DATABASE} holds {held}; {len(pending)} new in {AUDITS}/, {len(_folders([]))} there in all")


def _standing(found: Audit | NotCurrent) -> dict[str, Any]:
    """Status, reason and audit_id of RELEASES."""
    if isinstance(found, Audit):
        return {"status": "current", "reason": None, "audit_id": found.audit_id}
    return {"status": found.status, "reason": str(found), "audit_id": None}


def _audit_or_why(release: str, shared: dict[str, Any]) -> Audit | NotCurrent:
    """The current audit of a release, or why there is none: one that is refused or stale does not keep the others out."""
    try:
        model_digest = _sources.release(release).digest
    except UserError as error:
        return NotCurrent("refused", str(error))
    for where in OF_RELEASE.values():
        if not _tables.path(*_place(where, release)).is_file():
            return NotCurrent("not_audited", f"release '{release}' is not audited yet; run `eidetic audit {release}`")
    try:
        return _audit(release, shared, model_digest)
    except NotCurrent as why:
        return why


def _audit(release: str, shared: dict[str, Any], model_digest: str) -> Audit:
    protocol = _tables.read("screening", release, side="protocol").to_pylist()[0]
    summarized = set(_tables.read("summary", release).column("protocol_digest").to_pylist())
    require_current(protocol, _tables.read("prompts"), model_digest, summarized)
    files = [r for source in ("members", "held_out") for r in _tables.read("inputs", side=source).to_pylist()]
    bound = {k: protocol[k] for k in ("release", "protocol_digest", "model_digest", "stack")}
    bound |= {"training_set_digest": training_set_digest(files)}
    settings = settings_rows(release, shared | json.loads(protocol["settings"]))
    tables = {name: _tables.read(*_place(OF_RELEASE[name], release)) for name in ("findings", "sampling", "summary")}
    identity = audit_id(bound, settings, list(tables.values()))
    tables |= {"checks": _checks_of([release]), "settings": _tables.table(settings, SETTINGS)}
    return Audit(identity, bound | {"audit_id": identity}, tables)


def _place(where: tuple[str, str | None], release: str | None) -> tuple[str, str | None, str | None]:
    return where[0], release, where[1]


def _checks_of(releases: list[str]) -> pa.Table:
    """The checks of all stages, less those of other releases than these."""
    stages = [(noun, None) for noun in SHARED_STAGES] + [(noun, release) for noun in RELEASE_STAGES for release in releases]
    made = pa.concat_tables([_tables.read(noun, release, side="checks").cast(_checks.SCHEMA) for noun, release in stages])
    prefix = "inputs.releases/"
    is_of_these = pc.is_in(made["table_name"], pa.array([prefix + release for release in releases]))
    return made.filter(pc.or_(is_of_these, pc.invert(pc.starts_with(made["table_name"], prefix))))


def _pending(audit: Audit) -> Path:
    """The folder of an audit that is not in the history yet, beside its place."""
    folder = AUDITS / f".{audit.audit_id}.tmp"
    now = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
    _tables.put(_tables.table([audit.bound | {"audited_at": now}], AUDIT), folder / "audit.parquet")
    for name, table in audit.tables.items():
        _tables.put(table.add_column(0, AUDIT_ID, [[audit.audit_id] * table.num_rows]), folder / f"{name}.parquet")
    return folder


def _forget_pending() -> None:
    for folder in AUDITS.glob(".*.tmp"):
        shutil.rmtree(folder)


def _folders(pending: list[Path]) -> list[Path]:
    """All audits of the history and those about to enter it, in order of audit_id."""
    kept = [p.parent for p in AUDITS.glob("*/audit.parquet") if not p.parent.name.startswith(".")]
    return sorted([*kept, *pending], key=lambda p: p.name.removeprefix("."))


def _parts(audits: list[Audit], folders: list[Path]) -> dict[str, _database.Source]:
    names = [audit.bound["release"] for audit in audits]
    made: dict[str, _database.Source] = {name: [_existing(_place(where, None))] for name, where in SHARED.items()}
    made |= {name: [_tables.path(*_place(where, r)) for r in names] for name, where in OF_RELEASE.items()}
    settings = pa.concat_tables([audit.tables["settings"] for audit in audits])
    made |= {"checks": _checks_of(names), "settings": settings}
    made |= {f"all_{name}": [folder / f"{name}.parquet" for folder in folders] for name in HISTORY}
    return made | {"audits": [folder / "audit.parquet" for folder in folders]}


def _existing(place: tuple[str, str | None, str | None]) -> Path:
    file = _tables.path(*place)
    if not file.is_file():
        raise UserError(f"{file} is missing; make it with `dvc repro {place[0]}`")
    return file


if __name__ == "__main__":
    _stage.run(main)
