"""What people said is counted by reviewer, against the verdicts, on this audit's pairs and decoys alone."""

import pytest
from statsmodels.stats.inter_rater import cohens_kappa

from tasks import _labels
from tests.tiny_report import PROTOCOL, control, finding

PAIRS = [finding(number=i, margin=0.1 * i) for i in range(1, 5)]
DECOYS = [control(i) for i in range(11, 15)]


def said(finding_id: int, label: str, reviewer: str = "ada", **other: object) -> dict[str, object]:
    return {"release": "v1", "finding_id": finding_id, "reviewer": reviewer, "label": label, "is_person": False, "is_trademark": label == "copy",
            "protocol_digest": PROTOCOL, "line": finding_id, "status": "ok", "reason": None} | other


def test_one_reviewer_is_counted_and_kappa_is_that_of_statsmodels() -> None:
    reviews = [said(1, "copy"), said(2, "template"), said(3, "not_a_copy"), said(11, "substantially_similar"), said(12, "not_a_copy"), said(13, "not_a_copy")]
    told = _labels.reviewed(reviews, [*PAIRS, *DECOYS], PROTOCOL)
    assert told is not None
    ada = told["reviewers"][0]
    assert {k: v for k, v in ada.items() if not k.startswith("kappa")} == {
        "reviewer": "ada", "n_pairs": 3, "n_copies": 2, "n_decoys": 3, "n_decoys_called": 1, "n_person": 0, "n_trademark": 1}
    assert ada["kappa"] == pytest.approx(cohens_kappa([[2, 1], [1, 2]], return_results=False)) and ada["kappa_low"] < ada["kappa"] < ada["kappa_high"]
    assert told["n"] == 6 and told["n_pairs"] == 3 and [row[0] for row in told["curve"]] == [1, 1, pytest.approx(2 / 3)]


def test_several_reviewers_stand_apart_and_most_of_them_decide_the_curve() -> None:
    reviews = [said(1, "copy", "ada"), said(1, "not_a_copy", "bob"), said(2, "copy", "ada"), said(2, "copy", "bob"), said(2, "not_a_copy", "cy")]
    told = _labels.reviewed(reviews, PAIRS, PROTOCOL)
    assert told is not None
    assert [r["reviewer"] for r in told["reviewers"]] == ["ada", "bob", "cy"] and told["reviewers"][0]["kappa"] is None
    assert [row[0] for row in told["curve"]] == [0, 0.5], "one against one calls no copy"


@pytest.mark.parametrize("other", [{"status": "error"}, {"protocol_digest": "another"}, {"finding_id": 99}], ids=str)
def test_labels_of_another_audit_and_broken_ones_count_for_nothing(other: dict[str, object]) -> None:
    assert _labels.reviewed([said(1, "copy") | other], PAIRS, PROTOCOL) is None
