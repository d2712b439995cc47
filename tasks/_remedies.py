"""What the report says of the remedies, from `blocklist` and `keep_list`."""

from typing import Any

from tasks import _tables

KINDS = {"returned": "copies of extracted images", "ordinary": "ordinary pictures", "bordering": "pictures of prompts that border on a blocked image"}
TRANSFORMS = {"none": "as made", "reencoded": "re-encoded (JPEG, quality 30)", "half_size": "half the size", "brighter": "15 % brighter",
              "cropped_5pct": "cropped by 5 %", "rotated_3deg": "turned by 3°"}
POLICIES = {"all": "train on all rows again", "one_per_cluster": "one row of each cluster", "cap_k": "a cap on the rows of a cluster",
            "drop_extracted": "nothing of an extracted cluster"}


def remedies(filter_rates: list[dict[str, Any]], policies: list[dict[str, Any]], blocklist: list[dict[str, Any]],
             summary: list[dict[str, Any]]) -> dict[str, Any]:
    """What the part `remedies` of the report is filled with.

    filter: rows with kind and transform in words, unaltered ones first; policies: the cheapest first; covered: arms with an estimated total, and
    how many of it the blocklist stops.
    """
    promised = [r | {"what": KINDS[r["kind"]], "how": TRANSFORMS[r["transform"]]} for r in filter_rates
                if r["kind"] in KINDS and r["transform"] in TRANSFORMS and r["n_pictures"]]
    kinds, transforms = list(KINDS), list(TRANSFORMS)
    whole = [r for r in summary if r["copies_bin"] == "all" and r["estimated_total"] and r["arm"] != "held_out"]
    return {
        "n_entries": len(blocklist), "n_images": len({r["cluster_id"] for r in blocklist}),
        "threshold": blocklist[0]["threshold"] if blocklist else None,
        "filter": sorted(promised, key=lambda r: (kinds.index(r["kind"]), transforms.index(r["transform"]))),
        "policies": sorted((r | {"what": POLICIES[r["policy"]]} for r in policies), key=lambda r: (r["n_dropped"], r["policy"] != "all")),
        "covered": [{"arm": r["arm"], "n_listed": r["n_images"], "estimate": r["estimated_total"], "low": r["estimated_total_low"],
                     "high": r["estimated_total_high"]} for r in whole]}


def of_release(release: str) -> dict[str, Any]:
    """The same of a release, from its tables."""
    tables = (("blocklist", "filter_rates"), ("keep_list", "policies"), ("blocklist", None), ("summary", None))
    return remedies(*(_tables.read(noun, release, side=side).to_pylist() for noun, side in tables))
