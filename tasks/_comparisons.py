"""What became of a release against another on the same prompts and seeds: rows of the table `comparisons`, from the tables of audits."""

import shutil
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks import _sources, _tables
from tasks._schemas import column, schema
from tasks.measures import comparisons as measures
from tasks.measures.identity import hash63

SCHEMA = schema(["release", "kind", "arm"], [
    column("release", pa.string(), "Release under audit: the later of the two"),
    column("kind", pa.string(), "previous (against releases.compare_to) or base (against releases.base)"),
    column("arm", pa.string(), "Arm of the prompts; all is all arms but the controls (held_out), each cluster once"),
    column("against", pa.string(), "Release it is compared to: the earlier of the two"),
    column("outcome", pa.string(), "better (fewer come back) or worse: p_value at most 0.05 and an interval without 0; else no_evidence, or not_comparable"),
    column("reason", pa.string(), "Why the two are not comparable, with the way out; NULL where they are", nullable=True),
    column("n_clusters", pa.int32(), "Clusters with a prompt in the arm; members of one are one observation; NULL where not comparable",
           nullable=True),
    column("n_unpaired", pa.int32(), "Of these, clusters of which one of the two drew no picture: counted as unchanged; NULL where not comparable",
           nullable=True),
    column("n_both", pa.int32(), "Clusters that both hand back; NULL where not comparable", nullable=True),
    column("n_only_later", pa.int32(), "Clusters that only this release hands back; NULL where not comparable", nullable=True),
    column("n_only_earlier", pa.int32(), "Clusters that only the other one hands back; NULL where not comparable", nullable=True),
    column("difference", pa.float64(), "(n_only_later - n_only_earlier) / n_clusters: of the extraction rates, below 0 is better; NULL where not comparable",
           nullable=True),
    column("low", pa.float64(), "Lower end of its 95 % interval (Tango's paired score interval, corrected for continuity); NULL where not comparable",
           nullable=True),
    column("high", pa.float64(), "Upper end of its 95 % interval; NULL where not comparable", nullable=True),
    column("bootstrap_low", pa.float64(), "Lower end of the 95 % percentile bootstrap over clusters: beside low, decides nothing; NULL where not comparable",
           nullable=True),
    column("bootstrap_high", pa.float64(), "Upper end of the same; both are 0 where no cluster changed; NULL where not comparable", nullable=True),
    column("p_value", pa.float64(), "Exact McNemar, two-sided. Its null: for a cluster that changed, either way is as likely; NULL where not comparable",
           nullable=True),
])
CHANGES = schema(["kind", "prompt_id"], [
    column("release", pa.string(), "Release under audit"),
    column("kind", pa.string(), "previous (against releases.compare_to) or base (against releases.base)"),
    column("prompt_id", pa.int64(), "A prompt that returns a training image of one of the two at least"),
    column("against", pa.string(), "The other release"),
    column("outcome", pa.string(), "still (extracted from both), new (from this release only) or gone (from the other one only)"),
    column("was_drawn", pa.bool_(), "Whether the other release drew pictures of the prompt: without, new is no evidence of a change"),
    column("is_new_image", pa.bool_(), "Whether no prompt of the other release returned a picture of the same cluster"),
    column("earlier_l2", pa.float32(), "l2 of the other release's medoid to the picture nearest to it; NULL where none was drawn", nullable=True),
    column("earlier_margin", pa.float32(), "Margin of the other release's medoid; NULL where none was drawn", nullable=True),
])
KINDS = {"previous": "compare_to", "base": "base"}  # kind of a comparison -> column of releases with the other one
SAME = ("screening.", "generations.", "matches.", "findings.")  # settings that decide what is drawn, and what is called a finding
# batch_size changes the last digits of a picture; the sampler's are each release's own, and these only its defaults
OWN = {"generations.batch_size", *(f"generations.{name}" for name in _sources.SAMPLER)}
CONTROLS = "held_out"


def comparisons(releases: list[dict[str, Any]], prompts: list[dict[str, Any]], audits: dict[str, dict[str, pa.Table]]) -> pa.Table:
    """The table; rows of releases and of prompts, and by release the tables `findings` and `settings` of those that are current."""
    standing = {r["release"]: r for r in releases}
    made: list[dict[str, Any]] = []
    for release in audits:
        for kind, name in KINDS.items():
            against = standing[release][name]
            if against is None:
                continue
            reason = standing[against]["reason"] or difference_of_audits(release, against, audits)
            arms = [_not_comparable(reason)] if reason else _arms(prompts, audits[release]["findings"], audits[against]["findings"], (release, against))
            made += [arm | {"release": release, "kind": kind, "against": against} for arm in arms]
    return _tables.table(made, SCHEMA)


def difference_of_audits(release: str, against: str, audits: dict[str, dict[str, pa.Table]]) -> str | None:
    """Why these two audits are no pair: other prompts, other seeds, or another setting that decides what is found; None where they are."""
    asked, asked_then = (set(audits[r]["findings"].column("prompt_id").to_pylist()) for r in (release, against))
    if asked != asked_then:
        return f"{len(asked ^ asked_then)} prompts were put to only one of '{release}' and '{against}'; run `eidetic audit`"
    now, then = (_settings(audits[r]["settings"]) for r in (release, against))
    for name in sorted(now.keys() | then.keys()):
        if now.get(name) != then.get(name):
            return f"{name} was {now.get(name)} for '{release}' and {then.get(name)} for '{against}'; run `eidetic audit` to audit both alike"
    return None


def changes(compared: list[dict[str, Any]], audits: dict[str, dict[str, pa.Table]]) -> pa.Table:
    """Prompt by prompt what the rows of comparisons of one release count; none where it is not comparable. audits as in `comparisons`."""
    made: list[dict[str, Any]] = []
    for pair in (r for r in compared if r["arm"] == "all" and r["outcome"] != "not_comparable"):
        later, earlier = (audits[pair[name]]["findings"].to_pylist() for name in ("release", "against"))
        then = {r["prompt_id"]: r for r in earlier}
        returned = {r["cluster_id"] for r in earlier if r["is_extracted"]}
        for now in later:
            was = then[now["prompt_id"]]
            if now["is_extracted"] or was["is_extracted"]:
                made.append({name: pair[name] for name in ("release", "kind", "against")} | {
                    "prompt_id": now["prompt_id"], "outcome": "gone" if not now["is_extracted"] else "still" if was["is_extracted"] else "new",
                    "was_drawn": was["n_generations"] > 0, "is_new_image": now["is_extracted"] and now["cluster_id"] not in returned,
                    "earlier_l2": was["l2"], "earlier_margin": was["margin"]})
    return _tables.table(made, CHANGES)


def put_of_releases(compared: pa.Table, audits: dict[str, dict[str, pa.Table]], listed: set[str]) -> None:
    """What each release's report says of the other one, in a folder of its own: another release's audit does not make that report stale.

    listed = the releases of params.yaml; folders of others are removed, those of a release that is not current stay as they are.
    """
    for folder in _tables.folder("warehouse").glob("*/"):
        if folder.name not in listed:
            shutil.rmtree(folder)
    for release in audits:
        own = compared.filter(pc.equal(compared["release"], release))
        _tables.put(own, _tables.path("warehouse", release, "comparisons"))
        _tables.put(changes(own.to_pylist(), audits), _tables.path("warehouse", release, "changes"))


def _settings(rows: pa.Table) -> dict[str, str]:
    """Settings that two audits must share, as JSON by name."""
    listed = zip(rows.column("name").to_pylist(), rows.column("value").to_pylist(), strict=True)
    return {name: value for name, value in listed if name.startswith(SAME) and name not in OWN}


def _arms(prompts: list[dict[str, Any]], later: pa.Table, earlier: pa.Table, names: tuple[str, str]) -> list[dict[str, Any]]:
    """Rows of all targets together, of each of their arms, and of the controls that judge; names = the two releases."""
    now, then = _found(later), _found(earlier)
    listed = [p for p in prompts if not p["is_calibrating"] and p["prompt_id"] in now]
    arms = {arm: [p for p in listed if p["arm"] == arm] for arm in {p["arm"] for p in listed}}
    arms["all"] = [p for p in listed if p["arm"] != CONTROLS]
    made = []
    for arm, rows in arms.items():
        units = np.array([_unit(p) for p in rows], np.int64)
        verdicts = np.array([(*now[p["prompt_id"]], *then[p["prompt_id"]]) for p in rows], bool).reshape(-1, 4).T
        counts = measures.paired_counts(units, verdicts[0], verdicts[2], verdicts[1] & verdicts[3])
        rng = np.random.default_rng(hash63(*names, arm))  # the same numbers whenever the database is built
        made.append({"arm": arm, "reason": None, **vars(counts), **measures.comparison(counts, rng)})
    return made


def _found(findings: pa.Table) -> dict[int, tuple[bool, bool]]:
    """By prompt: whether it is extracted, and whether a picture was drawn of it."""
    return {r["prompt_id"]: (r["is_extracted"], r["n_generations"] > 0) for r in findings.to_pylist()}


def _unit(prompt: dict[str, Any]) -> int:
    """The cluster of a prompt; a custom prompt has none and stands for itself, below 0, where no id is."""
    return int(~prompt["prompt_id"] if prompt["cluster_id"] is None else prompt["cluster_id"])


def _not_comparable(reason: str) -> dict[str, Any]:
    """The one row of a pair of releases that cannot be compared."""
    told = {"arm": "all", "outcome": "not_comparable", "reason": reason}
    return dict.fromkeys(SCHEMA.names[3:]) | told
