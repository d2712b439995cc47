"""Which rows to keep before training again, by policy. One row per training image.

The policies: one_per_cluster keeps the centre of each cluster of copies, drop_extracted nothing of a cluster that came back, cap_k at most
`cap` rows of a cluster; weight is for those who would rather sample than drop. Beside the table: `policies`, what each removes and is
expected to do, and keys/, the kept keys of each as CSV, which a later release may name as its own `kept`.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks import _keep_lists, _settings, _sources, _stage, _tables
from tasks._schemas import column, schema
from tasks.measures import blocking, rates

SCHEMA = schema(
    ["image_id"],
    [
        column("image_id", pa.int64(), "Training image that the release was trained on"),
        column("release", pa.string(), "Release under audit"),
        column("key", pa.string(), "Its name in the training set"),
        column("cluster_id", pa.int64(), "Its cluster of copies; its own image_id where it could not be read"),
        column("n_in_cluster", pa.int32(), "Rows of its cluster that the release was trained on"),
        column("weight", pa.float64(), "Sampling weight with which its cluster counts as one image: 1 / n_in_cluster"),
        column("is_extracted", pa.bool_(), "Whether its cluster came back from this release"),
        column("is_kept_one_per_cluster", pa.bool_(), "Kept where one row of each cluster is"),
        column("is_kept_drop_extracted", pa.bool_(), "Kept where nothing of an extracted cluster is"),
        column("is_kept_cap_k", pa.bool_(), "Kept where at most keep_list.cap rows of each cluster are"),
    ],
)
POLICIES = schema(
    ["policy"],
    [
        column("policy", pa.string(), "all (nothing is dropped), one_per_cluster, drop_extracted or cap_k"),
        column("release", pa.string(), "Release under audit"),
        column("n_rows", pa.int64(), "Rows that the release was trained on"),
        column("n_dropped", pa.int64(), "Of these, rows that the policy drops"),
        column("n_clusters_reduced", pa.int64(), "Clusters that lose a row and keep one"),
        column("n_clusters_dropped", pa.int64(), "Clusters that lose all: what they show is no longer trained on"),
        column("n_extracted", pa.int32(), "Clusters that came back and of which rows are left"),
        column("expected_extracted", pa.float64(), "Clusters expected to come back from a model trained on what is kept: an extrapolation of "
               "extraction_by_copies; NULL where a bin was never asked", nullable=True),
        column("expected_low", pa.float64(), "Its lower end: the bins' Clopper-Pearson intervals, jointly 95 %; NULL likewise", nullable=True),
        column("expected_high", pa.float64(), "Its upper end, likewise; NULL likewise", nullable=True),
    ],
)
CHECKS: list[dict[str, Any]] = [
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "weight", "min_value": 0, "max_value": 1, "strict_min": True}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "n_in_cluster", "min_value": 1}},
]
POLICIES_CHECKS: list[dict[str, Any]] = [
    {"type": "expect_column_pair_values_a_to_be_greater_than_b", "kwargs": {"column_A": "n_rows", "column_B": "n_dropped", "or_equal": True}},
    {"type": "expect_column_pair_values_a_to_be_greater_than_b", "kwargs": {
        "column_A": "expected_high", "column_B": "expected_low", "or_equal": True, "ignore_row_if": "either_value_is_missing"}},
]
ALL, ONE, DROP, CAP = "all", "one_per_cluster", "drop_extracted", "cap_k"
LEAST = (1, 2, 4, 10, 30, 100)  # least copies of each bin of `prompts`
BINS = ("1", "2-3", "4-9", "10-29", "30-99", "100+")
ARMS = ("duplicated", "singleton")  # drawn at random: their rates speak of all clusters of the bin


def rank_in_cluster(cluster: np.ndarray, image: np.ndarray, names: list[str]) -> np.ndarray:
    """[n] place of each row in its cluster [n]: its centre (the image [n] that the cluster is named after) first, then by name."""
    order = np.lexsort((np.argsort(np.argsort(np.array(names, object), kind="stable"), kind="stable"), cluster != image, cluster))
    ordered = cluster[order]
    start = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.zeros(0, np.int64)
    place = np.arange(len(ordered)) - np.repeat(start, np.diff(np.r_[start, len(ordered)]))
    out = np.empty(len(cluster), np.int64)
    out[order] = place
    return out


def rate_by_copies(summary: list[dict[str, Any]], confidence: float) -> dict[str, np.ndarray]:
    """Extraction rate of each bin of copies [b] with its interval, joint over the bins asked (Bonferroni); nan for a bin that nothing was asked of."""
    seen = {r["copies_bin"]: r for r in summary if r["arm"] in ARMS and r["copies_bin"] in BINS and r["extraction_rate"] is not None}
    each = 1 - (1 - confidence) / max(len(seen), 1)
    made = {name: np.full(len(BINS), np.nan) for name in ("rate", "low", "high")}
    for b, name in enumerate(BINS):
        if name in seen:
            k, n = seen[name]["n_findings"], seen[name]["n_prompts"]
            made["rate"][b], (made["low"][b], made["high"][b]) = k / n, rates.clopper_pearson(k, n, each)
    return made


def policy_row(name: str, kept: np.ndarray, cluster: np.ndarray, is_extracted: np.ndarray, rate: dict[str, np.ndarray]) -> dict[str, Any]:
    """A row of POLICIES, less release, of flags [n] of the rows with their clusters [n]."""
    clusters, at, before = np.unique(cluster, return_inverse=True, return_counts=True)
    after = np.bincount(at, kept, len(clusters)).astype(np.int64)
    came_back = np.bincount(at, is_extracted, len(clusters)) > 0
    bins = np.bincount(np.searchsorted(LEAST, after[after > 0], side="right") - 1, minlength=len(LEAST))
    expected = {of: blocking.expected_extracted(bins, rate[of]) for of in ("rate", "low", "high")}
    return {"policy": name, "n_rows": len(kept), "n_dropped": int((~kept).sum()), "n_clusters_reduced": int(((after < before) & (after > 0)).sum()),
            "n_clusters_dropped": int((after == 0).sum()), "n_extracted": int((came_back & (after > 0)).sum()), "expected_extracted": expected["rate"],
            "expected_low": expected["low"], "expected_high": expected["high"]}


def keep_list(trained: pa.Table, extracted: set[int], release: str, cap: int) -> pa.Table:
    """The table, of the images trained on (image_id, key, cluster_id); extracted = clusters that came back."""
    image = trained["image_id"].to_numpy()
    known = trained["cluster_id"].is_valid().to_numpy(zero_copy_only=False)
    cluster = np.where(known, pc.fill_null(trained["cluster_id"], 0).to_numpy(), image)  # what could not be read has no copies that we know of
    _, at, counts = np.unique(cluster, return_inverse=True, return_counts=True)
    n, place = counts[at].astype(np.int32), rank_in_cluster(cluster, image, trained["key"].to_pylist())
    came_back = np.isin(cluster, np.array(sorted(extracted), np.int64))
    return _tables.table({
        "image_id": image, "release": [release] * len(image), "key": trained["key"], "cluster_id": cluster, "n_in_cluster": n, "weight": 1 / n,
        "is_extracted": came_back, "is_kept_one_per_cluster": place == 0, "is_kept_drop_extracted": ~came_back, "is_kept_cap_k": place < cap}, SCHEMA)


def policies(made: pa.Table, rate: dict[str, np.ndarray], release: str) -> pa.Table:
    """What each policy of a keep list removes, and is expected to do."""
    cluster, came_back = made["cluster_id"].to_numpy(), made["is_extracted"].to_numpy(zero_copy_only=False)
    kept = {ALL: np.ones(made.num_rows, bool)} | {p: made[f"is_kept_{p}"].to_numpy(zero_copy_only=False) for p in (ONE, DROP, CAP)}
    return _tables.table([policy_row(p, flags, cluster, came_back, rate) | {"release": release} for p, flags in kept.items()], POLICIES)


def main(release: str) -> None:
    """Say which rows each policy keeps; write data/keep_list/<release>."""
    cap = _settings.settings("keep_list")["cap"]
    if not isinstance(cap, int) or cap < 1:
        raise _settings.UserError(f"keep_list.cap is {cap}; give a number of rows, at least 1")
    images = _tables.read("images", columns=["image_id", "key", "split"]).filter(pc.field("split") == "member")
    trained_on = _sources.release(release).trained_on(images["key"].to_pylist())
    counted = _tables.read("duplicates", columns=["image_id", "cluster_id"])
    trained = images.filter(pc.is_in(images["key"], pa.array(sorted(trained_on), pa.string()))).join(counted, "image_id").sort_by("image_id")
    extracted = {r["cluster_id"] for r in _tables.read("findings", release).to_pylist() if r["is_extracted"]}
    made = keep_list(trained.combine_chunks(), extracted, release, cap)
    rate = rate_by_copies(_tables.read("summary", release).to_pylist(), _settings.settings("summary")["confidence"])
    told = policies(made, rate, release)
    _tables.write(told, POLICIES_CHECKS, "keep_list", release, side="policies")
    _tables.write(made, CHECKS, "keep_list", release)
    for policy in (ONE, DROP, CAP):
        _keep_lists.write(_tables.folder("keep_list", release) / "keys" / f"{policy}.csv", made.filter(made[f"is_kept_{policy}"])["key"])
    print("; ".join(f"keep_list: '{release}', {r['policy']}: {r['n_dropped']} of {r['n_rows']} rows dropped" for r in told.to_pylist()[1:]))


if __name__ == "__main__":
    _stage.run(main)
