"""What the audit says of each arm, in rates with intervals. One row per arm and bin of copies.

The bin `all` is the whole arm. A rate stands beside its n and interval, a list beside its estimated false share and that
estimate's upper bound; prompts that the screen dropped count as not found in rates, and with their chance in totals. A cluster is
one observation, by its most frequent caption: what further captions brought is counted apart. Where no picture could be compared
there is no rate: nothing was confirmed, and nothing ruled out.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks import _library, _settings, _stage, _tables
from tasks._schemas import column, schema
from tasks.measures import decoys, rates

SCHEMA = schema(
    ["arm", "copies_bin"],
    [
        column("arm", pa.string(), "Arm of the prompts"),
        column("copies_bin", pa.string(), "Bin of copies in the training set; unseen for controls, all for the whole arm"),
        column("release", pa.string(), "Release under audit"),
        column("protocol_digest", pa.string(), "Digest of what the audit was bound to before it looked: the warehouse takes no other's findings"),
        column("n_clusters", pa.int32(), "Clusters with a caption in the training (or held-out) set: the frame; NULL where it was not drawn at random",
               nullable=True),
        column("n_prompts", pa.int32(), "Prompts of the arm and bin, one per cluster: this and all below but for n_further, costs and pictures"),
        column("n_sampled", pa.int32(), "Prompts of which pictures were generated"),
        column("n_findings", pa.int32(), "Prompts whose medoid is a copy of a training image"),
        column("n_undecided", pa.int32(), "Prompts that return one picture again and again (a clique), no training image confirmed"),
        column("n_images", pa.int32(), "Distinct clusters among these"),
        column("n_verbatim", pa.int32(), "Of the findings, verbatim"),
        column("n_near_copy", pa.int32(), "Of the findings, near copies"),
        column("n_template", pa.int32(), "Of the findings, templates"),
        column("extraction_rate", pa.float64(), "n_findings / n_prompts: by this attack, a lower bound; NULL if nothing was compared",
               nullable=True),
        column("low", pa.float64(), "Lower end of its 95 % Clopper-Pearson interval; NULL where extraction_rate is", nullable=True),
        column("high", pa.float64(), "Upper end of its 95 % Clopper-Pearson interval; NULL where extraction_rate is", nullable=True),
        column("is_census", pa.bool_(), "Every cluster of the bin was prompted: the interval speaks of other seeds only"),
        column("n_controls", pa.int32(), "Control prompts that judge: those that set thresholds are left out"),
        column("n_controls_flagged", pa.int32(), "Of these, matched to a held-out image"),
        column("fdr_estimate", pa.float64(), "Decoy estimate of the list's false share; NULL for an empty list or without controls", nullable=True),
        column("fdr_upper", pa.float64(), "Its 95 % upper bound; NULL where fdr_estimate is", nullable=True),
        column("n_controls_needed", pa.int32(), "Unflagged controls with which the upper bound would be 5 %; NULL where fdr_estimate is", nullable=True),
        column("n_decoy_hits", pa.int32(), "Prompts matched to a held-out image: what the same search finds among pictures never seen"),
        column("n_hits_equal_size", pa.float64(), "Findings expected were the training set cut to as many clusters as the held-out set; NULL without one",
               nullable=True),
        column("n_hits_equal_size_low", pa.float64(), "2.5th percentile over 100 such cuts; NULL where n_hits_equal_size is", nullable=True),
        column("n_hits_equal_size_high", pa.float64(), "97.5th percentile over 100 such cuts; NULL where n_hits_equal_size is", nullable=True),
        column("expected_distinct_500", pa.float64(), "Distinct images expected at 500 pictures a prompt, sum of 1 - (1 - hit_rate)^500; NULL if not compared",
               nullable=True),
        column("estimated_total", pa.float64(), "Extractable clusters in the frame; NULL where it was not drawn at random, or nothing was compared",
               nullable=True),
        column("estimated_total_low", pa.int32(), "Lower end of its 95 % interval, exact hypergeometric; NULL where estimated_total is", nullable=True),
        column("estimated_total_high", pa.int32(), "Upper end of its 95 % interval, exact hypergeometric; NULL where estimated_total is", nullable=True),
        column("n_further_prompts", pa.int32(), "Further captions of the same clusters that were asked as well (prompts.n_captions)"),
        column("n_further_findings", pa.int32(), "Clusters that came back by a further caption, and by the most frequent one not"),
        column("n_further_flagged", pa.int32(), "Further captions that were matched to a held-out image: false alarms beside n_further_findings"),
        column("n_generations", pa.int64(), "Pictures drawn, of further captions too"),
        column("n_evaluations", pa.int64(), "Denoiser evaluations spent, screen and further captions included"),
    ],
)
CHECKS: list[dict[str, Any]] = [
    {"type": "expect_column_pair_values_a_to_be_greater_than_b", "kwargs": {
        "column_A": "high", "column_B": "extraction_rate", "or_equal": True, "ignore_row_if": "either_value_is_missing"}},
    {"type": "expect_column_pair_values_a_to_be_greater_than_b", "kwargs": {
        "column_A": "extraction_rate", "column_B": "low", "or_equal": True, "ignore_row_if": "either_value_is_missing"}},
    {"type": "expect_column_pair_values_a_to_be_greater_than_b", "kwargs": {"column_A": "n_prompts", "column_B": "n_findings", "or_equal": True}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "fdr_upper", "min_value": 0, "max_value": 1}},
]
MAX_FDR = 0.05  # for n_controls_needed
UNSEEN, ALL = "unseen", "all"
N_PUBLISHED = 500  # pictures per prompt of the published attack
EQUAL_SIZE = ("n_hits_equal_size", "n_hits_equal_size_low", "n_hits_equal_size_high")
TOTALS = ("estimated_total", "estimated_total_low", "estimated_total_high")
NOT_COMPARED = dict.fromkeys(["extraction_rate", "low", "high", "expected_distinct_500", *EQUAL_SIZE, *TOTALS])


def frame_bin(rows: list[dict[str, Any]], population: int) -> rates.Bin:
    """What was seen of a bin whose clusters number `population`, of which the rows are a random sample."""
    kept = [r for r in rows if r["stratum"] != "dropped"]
    dropped = [r for r in rows if r["stratum"] == "dropped"]
    looked = [r for r in dropped if r["n_generations"]]
    found = lambda of: sum(r["is_extracted"] for r in of)  # noqa: E731
    return rates.Bin(population, len(kept), found(kept), len(dropped), len(looked), found(looked))


def decoy_row(rows: list[dict[str, Any]], n_clusters: dict[str, int]) -> dict[str, Any]:
    """Matches to held-out images beside those to training images, both in libraries of one size; n_clusters by split."""
    made: dict[str, Any] = {"n_decoy_hits": sum(r["is_flagged"] for r in rows)} | dict.fromkeys(EQUAL_SIZE)
    if not n_clusters.get("held_out"):
        return made
    found, unseen = (np.array([(r["prompt_id"], r["cluster_id"]) for r in rows if r[flag]]).reshape(-1, 2) for flag in ("is_extracted", "is_flagged"))
    hits, _, _ = decoys.against_decoys(found, unseen, n_clusters["member"], n_clusters["held_out"])
    return made | dict(zip(EQUAL_SIZE, hits, strict=True))


def further(rows: list[dict[str, Any]], beyond: list[dict[str, Any]]) -> dict[str, int]:
    """What the further captions (rows `beyond`) brought that the most frequent ones did not, and all that both cost."""
    found = {r["own_cluster"] for r in rows if r["is_extracted"]}
    return {"n_further_prompts": len(beyond), "n_further_findings": len({r["own_cluster"] for r in beyond if r["is_extracted"]} - found),
            "n_further_flagged": sum(r["is_flagged"] for r in beyond),
            **{name: sum(r[name] for r in [*rows, *beyond]) for name in ("n_generations", "n_evaluations")}}


def summary_row(rows: list[dict[str, Any]], controls: list[dict[str, Any]], confidence: float) -> dict[str, Any]:
    """Counts, rate, interval and decoy estimate of one group of findings, one per cluster."""
    found = [r for r in rows if r["is_extracted"]]
    n, k, flagged = len(rows), len(found), sum(r["is_flagged"] for r in controls)
    low, high = rates.clopper_pearson(k, n, confidence)
    has_estimate = bool(controls) and bool(k) and rows[0]["arm"] != "held_out"
    decoys = (n, k, len(controls), flagged)
    hit_rates = np.array([r["hit_rate"] for r in found if r["hit_rate"] is not None], float)
    told = {
        "n_prompts": n, "n_sampled": sum(r["n_generations"] > 0 for r in rows), "n_findings": k, "n_images": len({r["cluster_id"] for r in found}),
        "n_undecided": sum(r["match_type"] == "undecided" for r in rows),
        **{f"n_{kind}": sum(r["match_type"] == kind for r in found) for kind in ("verbatim", "near_copy", "template")},
        "extraction_rate": k / n if n else 0.0, "low": low, "high": high, "n_controls": len(controls), "n_controls_flagged": flagged,
        "fdr_estimate": rates.decoy_fdr(*decoys) if has_estimate else None,
        "fdr_upper": rates.decoy_fdr_upper(*decoys) if has_estimate else None,
        "n_controls_needed": rates.n_controls_needed(n, k, MAX_FDR) if has_estimate else None,
        "expected_distinct_500": rates.expected_distinct(hit_rates, N_PUBLISHED)}
    return told


def totals(seen: list[rates.Bin], n_prompts: int, confidence: float) -> dict[str, Any]:
    """Clusters of the bins together and how many of them are extractable; all NULL without a bin, as where one was not drawn at random."""
    estimate, low, high = rates.frame_total(seen, confidence) if seen else (None, None, None)
    n_clusters = sum(b.population for b in seen) or None
    return {"n_clusters": n_clusters, "is_census": n_clusters == n_prompts} | dict(zip(TOTALS, (estimate, low, high), strict=True))


def summary(findings: list[dict[str, Any]], frame: dict[tuple[str, str], int], n_clusters: dict[str, int], bound: dict[str, str],
            confidence: float) -> pa.Table:
    """The table; findings carry arm, copies_bin (`unseen` for controls), stratum and own_cluster, frame counts the clusters of (arm, bin).

    n_clusters = clusters that were searched, by split, leaked held-out ones left out; bound = release and protocol_digest, the same in every row.
    """
    observed, beyond = ([r for r in findings if bool(r["caption_rank"]) == is_further] for is_further in (False, True))
    controls = [r for r in observed if r["arm"] == "held_out" and not r["is_calibrating"]]
    made = []
    for arm in sorted({r["arm"] for r in observed}):
        bins = sorted({r["copies_bin"] for r in observed if r["arm"] == arm})
        framed: list[rates.Bin] = []
        for name in [*bins, ALL]:
            rows, more = ([r for r in group if r["arm"] == arm and name in (r["copies_bin"], ALL)] for group in (observed, beyond))
            if population := frame.get((arm, name)):
                framed.append(frame_bin(rows, population))
            seen = (framed if len(framed) == len(bins) else []) if name == ALL else framed[-1:] if population else []
            row = summary_row(rows, controls, confidence) | decoy_row(rows, n_clusters) | further(rows, more)
            row |= {"arm": arm, "copies_bin": name} | totals(seen, len(rows), confidence)
            made.append(row if all(r["is_compared"] for r in rows) else row | NOT_COMPARED)
    return _tables.table([row | bound for row in made], SCHEMA)


def main(release: str) -> None:
    """Summarise the findings; write data/summary/<release>."""
    prompts = {r["prompt_id"]: r for r in _tables.read("prompts").to_pylist()}
    strata = {r["prompt_id"]: r["stratum"] for r in _tables.read("screening", release).to_pylist()}
    rows = [r | {"copies_bin": prompts[r["prompt_id"]]["copies_bin"] or UNSEEN, "own_cluster": prompts[r["prompt_id"]]["cluster_id"],
                 "stratum": strata[r["prompt_id"]]} for r in _tables.read("findings", release).to_pylist()]
    protocol = _tables.read("screening", release, side="protocol").to_pylist()[0]
    bound = {name: protocol[name] for name in ("release", "protocol_digest")}
    made = summary(rows, _frame(list(prompts.values())), _n_searched(), bound, **_settings.settings("summary"))
    _tables.write(made, CHECKS, "summary", release)


def _n_searched() -> dict[str, int]:
    """Clusters that generations were compared with, by split, less held-out ones that leaked."""
    images = _tables.read("images", columns=["image_id", "split", "pixel_digest", "status"])
    counted = _tables.read("duplicates", columns=["image_id", "split", "cluster_id", "is_leaked"]).filter(~pc.field("is_leaked"))
    searched = counted.filter(pc.is_in(counted["image_id"], images["image_id"].filter(pa.array(_library.comparable(images))).combine_chunks()))
    return {split: pc.count_distinct(searched.filter(pc.field("split") == split)["cluster_id"]).as_py() for split in ("member", "held_out")}


def _frame(prompts: list[dict[str, Any]]) -> dict[tuple[str, str], int]:
    """Clusters of each arm and bin, from the prompts' inclusion probabilities; arms that were not drawn at random have none."""
    groups: dict[tuple[str, str], list[float | None]] = {}
    for r in prompts:
        if not r["caption_rank"]:  # one prompt a cluster
            groups.setdefault((r["arm"], r["copies_bin"] or UNSEEN), []).append(r["inclusion_probability"])
    return {group: round(len(chances) / chances[0]) for group, chances in groups.items() if chances[0]}


if __name__ == "__main__":
    _stage.run(main)
