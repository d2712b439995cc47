"""What people said of a report's pairs and decoys, beside what the audit said."""

from typing import Any

import numpy as np

from tasks.measures import agreement


def reviewed(reviews: list[dict[str, Any]], findings: list[dict[str, Any]], protocol_digest: str) -> dict[str, Any] | None:
    """What people said of this audit's pairs and decoys beside the verdicts, by reviewer; None where nobody has.

    The curve is the share of the labelled pairs that most of their reviewers call copies, closest first by margin.
    """
    of = {r["finding_id"]: r for r in findings}
    own = [r for r in reviews if r["status"] == "ok" and r["protocol_digest"] == protocol_digest and r["finding_id"] in of]
    if not own:
        return None
    votes: dict[int, list[bool]] = {}
    for r in own:
        votes.setdefault(r["finding_id"], []).append(r["label"] != "not_a_copy")
    pairs = sorted((of[i] for i in votes if of[i]["is_extracted"]), key=lambda r: (r["margin"], r["l2"], r["finding_id"]))
    curve = agreement.precision_at(np.array([2 * sum(votes[r["finding_id"]]) > len(votes[r["finding_id"]]) for r in pairs], bool))
    return {"n": len(own), "n_pairs": len(pairs), "curve": curve.tolist(),
            "reviewers": [{"reviewer": name} | _judged([r for r in own if r["reviewer"] == name], of) for name in sorted({r["reviewer"] for r in own})]}


def _judged(own: list[dict[str, Any]], of: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Counts of one reviewer's labels, and kappa between these and the verdicts over pairs and decoys together."""
    is_copy = np.array([r["label"] != "not_a_copy" for r in own], bool)
    is_extracted = np.array([of[r["finding_id"]]["is_extracted"] for r in own], bool)
    kappa = [None if np.isnan(x) else float(x) for x in agreement.kappa(is_copy, is_extracted)]
    return {"n_pairs": int(is_extracted.sum()), "n_copies": int((is_copy & is_extracted).sum()), "n_decoys": int((~is_extracted).sum()),
            "n_decoys_called": int((is_copy & ~is_extracted).sum()), "n_person": sum(r["is_person"] for r in own),
            "n_trademark": sum(r["is_trademark"] for r in own), **dict(zip(("kappa", "kappa_low", "kappa_high"), kappa, strict=True))}
