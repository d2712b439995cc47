"""The audit of a release for people and for CI. One row per finding in its pairs.

report.html is one file that opens from disk and asks the network for nothing; audit.json holds the same figures for CI;
audit_card.md is a section for a model card. Captions, addresses and names are hostile: all is escaped, nothing is linked.
"""

import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks import _figures, _labels, _pairs, _remedies, _sources, _stage, _tables
from tasks._pages import at_most, percent, rendered
from tasks.measures import rates

SCHEMA_VERSION = 1
N_NEAREST_CONTROLS = 8
N_IN_CARD = 10
PACKAGES = ("torch", "diffusers", "transformers", "onnxruntime", "faiss-cpu", "faiss-gpu", "numpy", "pillow", "pyarrow")
TARGETS = {"duplicated": "most duplicated images", "singleton": "images seen once", "outlier": "unusual images",
           "paraphrased": "paraphrased captions", "custom": "custom prompts"}
BANDS = {"0.05": "Verbatim, l2 up to 0.05", "0.10": "Verbatim, l2 over 0.05 up to 0.10",
         "0.15": "Verbatim, l2 over 0.10 up to 0.15", "beyond": "Verbatim, l2 over 0.15, as params.yaml allows it",
         "near_copy": "Near copies", "template": "Templates"}


def main_arm(summary: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The row of the arm that the verdict is about: the most duplicated images where there are any; None for controls alone."""
    whole = {r["arm"]: r for r in summary if r["copies_bin"] == "all"}
    return next((whole[arm] for arm in TARGETS if arm in whole), None)


def verdict(summary: list[dict[str, Any]], release: str, n_cliques: int = 0) -> str:
    """The audit in one sentence: targets with their interval, controls, and the estimated share of false discoveries.

    n_cliques = prompts that return one picture again and again, no image confirmed: what is left to say without training pictures.
    """
    main = main_arm(summary)
    if main is None:
        return f"{release}: no target was prompted, so nothing is said about what comes back"
    n, k = main["n_prompts"], main["n_findings"]
    cliques = f"{release}: {n_cliques} of {n} prompts {'gives' if n_cliques == 1 else 'give'} the same picture again and again (clique)"
    if main["extraction_rate"] is None:
        return cliques + "; no training picture was there to compare with, so no copy is confirmed or ruled out, and no control bounds what chance does"
    if main["arm"] == "custom" and not k:
        said = cliques + "; no training image is confirmed"
    else:
        comes = "comes" if k == 1 else "come"
        said = (f"{release}: {k} of the {n} {TARGETS[main['arm']]} {comes} back "
                f"({percent(main['extraction_rate'])}, 95 % interval {100 * main['low']:.0f}–{100 * main['high']:.0f} %)")
    if not main["n_controls"]:
        return said + "; no held-out images were given, so nothing bounds the false-discovery rate"
    flagged = main["n_controls_flagged"]
    said += f", {flagged} of {main['n_controls']} it never saw {'does' if flagged == 1 else 'do'}"
    if main["fdr_estimate"] is None:
        return said
    return said + f"; estimated false-discovery rate {percent(main['fdr_estimate'])}, at most {at_most(main['fdr_upper'])}"


def code_bytes(extracted: list[dict[str, Any]]) -> int:
    """Bytes of the copies' thumbnails, each cluster once: members of one cluster are one observation."""
    largest: dict[int, int] = {}
    for r in extracted:
        largest[r["cluster_id"]] = max(largest.get(r["cluster_id"], 0), r["code_bytes"] or 0)
    return sum(largest.values())


def limits(main: dict[str, Any] | None, controls: list[dict[str, Any]], n_matched: int) -> dict[str, Any]:
    """What these controls cannot resolve, and the false share if the control captions that returned a member did by chance."""
    compared, n_returned = min(len(controls), n_matched), sum(r["is_extracted"] for r in controls)
    chance = None
    if main and main["n_findings"] and n_returned:
        counts = (main["n_prompts"], main["n_findings"], len(controls), n_returned + sum(r["is_flagged"] for r in controls))
        chance = {"estimate": rates.decoy_fdr(*counts), "upper": rates.decoy_fdr_upper(*counts)}
    return {"n_matched_controls": compared, "smallest_p": rates.smallest_p(compared) if compared else None,
            "n_controls_needed": main["n_controls_needed"] if main else None, "fdr_if_chance": chance}


def screened(findings: list[dict[str, Any]], strata: dict[int, str]) -> dict[str, Any] | None:
    """What the screen cost: targets it dropped, those sampled all the same, and findings below its cut; None without a screen.

    strata by prompt_id. share_high bounds the share of all of the targets' findings that lay below the cut, at 95 %.
    """
    targets = [r for r in findings if r["arm"] != "held_out"]
    if not targets or all(strata[r["prompt_id"]] == "unscreened" for r in targets):
        return None
    dropped = [r for r in targets if strata[r["prompt_id"]] == "dropped"]
    looked = [r for r in dropped if r["n_generations"]]
    below, above = sum(r["is_extracted"] for r in looked), sum(r["is_extracted"] for r in targets if strata[r["prompt_id"]] == "kept")
    high = rates.hypergeometric_interval(below, len(looked), len(dropped))[1]
    return {"n_dropped": len(dropped), "n_sampled": len(looked), "n_findings": below, "share_high": high / (high + above) if high else 0.0,
            "most_findings": high}


def further_captions(summary: list[dict[str, Any]]) -> dict[str, int]:
    """What further captions brought: images that the most frequent ones did not, beside the controls' false alarms."""
    whole = [r for r in summary if r["copies_bin"] == "all"]
    targets, controls = ([r for r in whole if (r["arm"] == "held_out") == is_control] for is_control in (False, True))
    return {"n_prompts": sum(r["n_further_prompts"] for r in targets), "n_findings": sum(r["n_further_findings"] for r in targets),
            "n_controls": sum(r["n_further_prompts"] for r in controls), "n_flagged": sum(r["n_further_flagged"] for r in controls)}


def near_controls(findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The controls that came nearest to a false alarm, flagged ones first; true extractions stand among the pairs."""
    sampled = [r for r in findings if r["arm"] == "held_out" and r["margin"] is not None and not r["is_extracted"]]
    return sorted(sampled, key=lambda r: (not r["is_flagged"], r["margin"], r["finding_id"]))[:N_NEAREST_CONTROLS]


def bands(pairs: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The pairs under the title of their band, each band apart; empty ones left out."""
    of: dict[str, list[dict[str, Any]]] = {band: [] for band in BANDS}
    for r in pairs:
        of[r["l2_band"] or "beyond" if r["match_type"] == "verbatim" else r["match_type"]].append(r)
    return [(title, of[band]) for band, title in BANDS.items() if of[band]]


def in_order(summary: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The arms' rows as they are read: targets first, few copies to many, then the whole, once where it is a single bin."""
    arms, bins = [*TARGETS, "held_out"], [*_figures.BINS, "unseen", "all"]
    n_bins = Counter(r["arm"] for r in summary if r["copies_bin"] != "all")
    rows = [r for r in summary if n_bins[r["arm"]] != 1 or r["copies_bin"] != "all"]
    return sorted(rows, key=lambda r: (arms.index(r["arm"]), bins.index(r["copies_bin"])))


def report(release: str, summary: list[dict[str, Any]], findings: list[dict[str, Any]], protocol: dict[str, Any],
           facts: dict[str, Any]) -> dict[str, Any]:
    """The content of audit.json: figures, the extracted findings, and what it takes to do it again. No time stamps.

    facts: n_training_images, checks (rows), strata (by prompt_id), and whatever else stands in audit.json as it is.
    """
    settings = json.loads(protocol["settings"])
    extracted = sorted((r for r in findings if r["is_extracted"]), key=lambda r: (r["l2"], r["finding_id"]))
    observed = [r for r in findings if not r["caption_rank"]]  # one prompt a cluster
    controls = [r for r in observed if r["arm"] == "held_out" and not r["is_calibrating"]]
    main, checks = main_arm(summary), facts["checks"]
    n_cliques, is_compared = main["n_undecided"] if main else 0, all(r["is_compared"] for r in findings)
    n_generations = sum(r["n_generations"] for r in findings)
    framed = [r for r in summary if r["copies_bin"] == "all" and r["arm"] != "held_out" and r["estimated_total"] is not None]
    return {k: v for k, v in facts.items() if k not in ("n_training_images", "strata")} | {
        "schema_version": SCHEMA_VERSION, "release": release, "verdict": verdict(summary, release, n_cliques),
        "model_digest": protocol["model_digest"], "protocol_digest": protocol["protocol_digest"], "stack": protocol["stack"],
        "settings": settings, "arms": summary, "findings": extracted,
        "controls": {"n": len(controls), "n_sampled": sum(r["n_generations"] > 0 for r in controls),
                     "n_flagged": sum(r["is_flagged"] for r in controls),
                     "n_true_extractions": sum(r["is_extracted"] for r in controls)},
        "checks": {"n": len(checks), "n_failed": sum(not r["is_passed"] for r in checks)},
        "totals": {"prompts": len(findings), "screened_out": sum(r["n_generations"] == 0 for r in findings),
                   "generations": n_generations, "evaluations": sum(r["n_evaluations"] for r in findings)},
        "denominators": {"pictures_generated": n_generations, "prompts": len(findings),
                         "training_images": facts["n_training_images"]},
        "estimated_totals": [{"arm": r["arm"], "n_clusters": r["n_clusters"], "estimate": r["estimated_total"],
                              "low": r["estimated_total_low"], "high": r["estimated_total_high"]} for r in framed],
        "code_bytes": code_bytes(extracted), "screen": screened(observed, facts["strata"]) if is_compared else None,
        "is_compared": is_compared, "further_captions": further_captions(summary),
        "limits": limits(main, controls, settings["findings"]["n_matched_controls"])}


def content(audit: dict[str, Any], findings: list[dict[str, Any]], pictures: Callable[[int], Any], beside: dict[str, Any]) -> dict[str, Any]:
    """What the templates are filled with. pictures(n) = what adds pictures to findings (pair, decoy), of which n will be asked for.

    beside: checks and changes (rows), remedies (`_remedies.remedies`), screening (rows by prompt_id), near_copy (the threshold, or None).
    """
    new: dict[int, list[dict[str, Any]]] = {}
    for r in beside["changes"]:
        if r["outcome"] == "new":
            new.setdefault(r["prompt_id"], []).append(r)
    shown = _pairs.pairs(audit["findings"], set(new))
    undecided = [r for r in findings if r["match_type"] == "undecided"]
    undecided.sort(key=lambda r: (-r["clique_size"], r["finding_id"]))
    controls, asked = near_controls(findings), _pairs.asked(shown, findings, audit["protocol_digest"])
    is_pair = {r["finding_id"] for r in shown}
    more = undecided[:_pairs.MAX_PAIRS - len(shown)]
    made = pictures(3 * (len(shown) + len(more) + len(controls)) + 2 * sum(r["finding_id"] not in is_pair for r in asked))
    pair = lambda r: made.pair(r) | {"new": new.get(r["prompt_id"], []) if r["is_extracted"] else []}  # noqa: E731
    curve = np.array((audit["reviews"] or {}).get("curve", [])).reshape(-1, 3)
    return {
        "audit": audit, "main": main_arm(audit["arms"]), "n_pairs": len(shown), "n_undecided": len(undecided),
        "bands": [(title, list(map(pair, rows))) for title, rows in bands(shown)], "undecided": list(map(pair, more)),
        "controls": list(map(pair, controls)), "checks": beside["checks"], "changes": beside["changes"], "remedies": beside["remedies"],
        "anchors": {r["prompt_id"]: {"finding_id": r["finding_id"], "caption": r["caption"]} for r in shown}, "arms": in_order(audit["arms"]),
        "bins": _figures.by_copies(audit["arms"]), "in_card": audit["findings"][:N_IN_CARD],
        "plots": _figures.plots([r | beside["screening"][r["prompt_id"]] for r in findings], audit["settings"]["findings"], beside["near_copy"], curve),
        "rows": _pairs.rows(findings, is_pair, set(new)),
        "review": [{"id": str(r["finding_id"])} | ({} if r["finding_id"] in is_pair else _asked_about(made.decoy(r))) for r in asked]}


def _asked_about(decoy: dict[str, Any]) -> dict[str, Any]:
    return {name: decoy[name] for name in ("caption", "generated", "original")}


def main(release: str) -> None:
    """Write reports/<release>/report.html, audit.json, audit_card.md and figures/."""
    prompts = {r["prompt_id"]: r for r in _tables.read("prompts").to_pylist()}
    judged = _tables.read("findings", release).to_pylist()
    images = _images({r["image_id"] for r in [*prompts.values(), *judged]})
    findings = [r | _asked(prompts[r["prompt_id"]], images) | _place(images.get(r["image_id"])) for r in judged]
    protocol = _tables.read("screening", release, side="protocol").to_pylist()[0]
    screening = _tables.read("screening", release).to_pylist()
    checks, changes = _checks(release), _tables.read("warehouse", release, side="changes").to_pylist()
    facts = {"n_training_images": _n_training_images(release), "checks": checks} | _facts(release)
    facts |= {"strata": {r["prompt_id"]: r["stratum"] for r in screening}, "comparisons": _tables.read("warehouse", release, side="comparisons").to_pylist(),
              "reviews": _labels.reviewed(_reviews(release), findings, protocol["protocol_digest"])}
    audit = report(release, _tables.read("summary", release).to_pylist(), findings, protocol, facts)
    asked_of = [r | {"own_image": prompts[r["prompt_id"]]["image_id"]} for r in findings]
    filled = content(audit, asked_of, lambda n: _pairs.Pictures(release, images, audit["compared_at_px"], n), {
        "checks": checks, "changes": changes, "remedies": _remedies.of_release(release),
        "near_copy": audit["settings"]["findings"]["near_copy_similarity"] or _near_copy_similarity(release, prompts),
        "screening": {r["prompt_id"]: {"text_noise_norm": r["text_noise_norm"], "screen_evaluations": r["n_evaluations"]} for r in screening}})
    folder = Path("reports") / release
    text = json.dumps(audit, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    _tables.put_text(text + "\n", folder / "audit.json")
    _tables.put_text(rendered("audit_card.md.jinja", filled, html=False), folder / "audit_card.md")
    _tables.put_text(rendered("report.html.jinja", filled, html=True), folder / "report.html")
    drawn = {name: _figures.png(plot) for name, plot in filled["plots"].items()} | {"by_copies": _figures.png_by_copies(filled["bins"])}
    _figures.put(drawn, folder / "figures")
    print(f"report: {audit['verdict']}")


def _reviews(release: str) -> list[dict[str, Any]]:
    """What people said of this release's findings, where a file of reviews was given."""
    path = _tables.path("reviews")
    return [r for r in pq.read_table(path).to_pylist() if r["release"] == release] if path.is_file() else []


def _near_copy_similarity(release: str, prompts: dict[int, dict[str, Any]]) -> float | None:
    """The threshold that `findings` set: the 99th percentile, over calibrating controls, of the best similarity to the own image; None without any."""
    drawn = pc.greater(pc.field("n_generations"), 0)
    sampled = set(_tables.read("findings", release).filter(drawn)["prompt_id"].to_pylist())
    best = {p: -1.0 for p, r in prompts.items() if p in sampled and r["is_calibrating"] and not r["caption_rank"]}
    own = _tables.read("matches", release, columns=["prompt_id", "similarity", "is_own_cluster"]).filter(pc.field("is_own_cluster"))
    for r in own.group_by("prompt_id").aggregate([("similarity", "max")]).to_pylist():
        if r["prompt_id"] in best:
            best[r["prompt_id"]] = r["similarity_max"]
    return float(np.quantile(list(best.values()), 0.99, method="higher")) if best else None


def _images(ids: set[int | None]) -> dict[int, dict[str, Any]]:
    """Rows of `images` by image_id, of these alone: there may be millions."""
    images = _tables.read("images")
    return {r["image_id"]: r for r in images.filter(pc.is_in(images["image_id"], pa.array(ids - {None}, pa.int64()))).to_pylist()}


def _n_training_images(release: str) -> int:
    """Members that the release was trained on, broken ones included."""
    keys = _tables.read("images", columns=["key", "split"]).filter(pc.field("split") == "member")["key"]
    accepted = _sources.release(release)
    return len(keys) if accepted.kept is None else len(accepted.trained_on(keys.to_pylist()))


def _asked(prompt: dict[str, Any], images: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """A prompt's caption, and the image whose caption it is."""
    own = images.get(prompt["image_id"])
    return {"caption": prompt["caption"], "caption_key": own["key"] if own else None, "caption_copies": prompt["n_copies"]}


def _place(image: dict[str, Any] | None) -> dict[str, Any]:
    """Name, digest and place of a finding's picture."""
    return {f"image_{name}": image[name] if image else None for name in ("key", "sha256", "shard", "position", "url")}


def _facts(release: str) -> dict[str, Any]:
    """What audit.json repeats as it is: canaries, sizes, and what the pictures were compared with."""
    files = _tables.read("inputs", side=f"releases/{release}").filter(pc.equal(pc.field("kind"), "model"))
    return {"canaries": _tables.read("duplicates", side="canaries").to_pylist(), "packages": _versions(),
            "model_bytes": pc.sum(files.column("size_bytes")).as_py(),
            "compared_at_px": _tables.read("inputs", side="resolution").column("size_px")[0].as_py(),
            "sampler": _sources.release(release).settings,
            "descriptor": next((text for part in _tables.metadata("image_embeddings") for text in part["descriptor"].to_pylist()), None)}


def _versions() -> dict[str, str]:
    """Versions of the packages that a result depends on, of those that are installed."""
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _checks(release: str) -> list[dict[str, Any]]:
    """What the checks of the shared stages and of this release's said: not of `inputs`, which others change, nor of the later warehouse."""
    shared = [p for p in sorted(_tables.DATA.glob("*/checks.parquet")) if p.parent.name not in ("inputs", "warehouse")]
    paths = [*shared, *sorted(_tables.DATA.glob(f"*/{release}/checks.parquet"))]
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


if __name__ == "__main__":
    _stage.run(main)
