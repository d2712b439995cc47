"""No rate without n and interval, no list without its estimated false share."""

from typing import Any

import pytest

from tasks import summary


def found(n: int, k: int, *, arm: str = "duplicated", name: str = "10-29", stratum: str = "kept", flagged: int = 0) -> list[dict[str, Any]]:
    """n rows of which k are extracted; dropped ones are not sampled."""
    return [{"arm": arm, "copies_bin": name, "stratum": stratum, "n_generations": 0 if stratum == "dropped" else 16, "n_evaluations": 8,
             "cluster_id": i, "prompt_id": i, "hit_rate": None if stratum == "dropped" else 0.5,
             "is_extracted": i < k, "is_flagged": i < flagged, "match_type": "verbatim" if i < k else "none",
             "is_calibrating": False} for i in range(n)]


def made(rows: list[dict[str, Any]], frame: dict[tuple[str, str], int]) -> dict[tuple[str, str], dict[str, Any]]:
    bound = {"release": "v1", "protocol_digest": "p"}
    return {(r["arm"], r["copies_bin"]): r for r in summary.summary(rows, frame, {"member": 500, "held_out": 100}, bound, 0.95).to_pylist()}


def test_the_designs_own_figures_come_out() -> None:
    """0 of 64 controls flagged with 34 findings of 96: 4 %, at most 13 %."""
    row = made(found(96, 34) + found(64, 0, arm="held_out", name="unseen"), {})["duplicated", "all"]
    assert row["fdr_estimate"] == pytest.approx(0.04, abs=0.005) and row["fdr_upper"] == pytest.approx(0.13, abs=0.005)
    assert row["n_controls_needed"] > 64


def test_a_census_says_so_and_its_total_is_exact() -> None:
    row = made(found(20, 18), {("duplicated", "10-29"): 20})["duplicated", "10-29"]
    assert row["is_census"] and (row["estimated_total"], row["estimated_total_low"], row["estimated_total_high"]) == (18, 18, 18)
    assert row["low"] < row["extraction_rate"] == 0.9 < row["high"]


def test_what_was_not_looked_at_still_counts_in_the_upper_end() -> None:
    rows = found(10, 5) + found(10, 0, stratum="dropped")
    row = made(rows, {("duplicated", "10-29"): 20})["duplicated", "10-29"]
    assert (row["estimated_total_low"], row["estimated_total_high"]) == (5, 15)


def test_a_sample_without_a_hit_has_an_upper_bound_above_zero() -> None:
    row = made(found(16, 0, name="1", arm="singleton"), {("singleton", "1"): 400})["singleton", "all"]
    assert row["estimated_total"] == 0 and row["estimated_total_high"] > 40


def test_an_arm_that_was_not_drawn_at_random_has_no_total() -> None:
    row = made(found(16, 2, arm="outlier", name="1"), {})["outlier", "all"]
    assert row["estimated_total"] is None and row["n_findings"] == 2


def test_without_controls_nothing_bounds_the_false_discoveries() -> None:
    row = made(found(20, 5), {})["duplicated", "all"]
    assert row["n_controls"] == 0 and row["fdr_estimate"] is None and row["fdr_upper"] is None


def test_flagged_controls_raise_the_estimate() -> None:
    clean, flagged = (made(found(96, 34) + found(64, 0, arm="held_out", name="unseen", flagged=f), {})["duplicated", "all"] for f in (0, 3))
    assert flagged["n_controls_flagged"] == 3 and flagged["fdr_estimate"] > 3 * clean["fdr_estimate"]


def test_controls_that_set_thresholds_count_for_no_error_rate() -> None:
    calibrating = [r | {"is_calibrating": True} for r in found(32, 0, arm="held_out", name="unseen", flagged=5)]
    row = made(found(96, 34) + found(64, 0, arm="held_out", name="unseen") + calibrating, {})["duplicated", "all"]
    assert (row["n_controls"], row["n_controls_flagged"]) == (64, 0)


def test_a_larger_library_is_cut_to_the_decoys_number_before_the_two_are_compared() -> None:
    row = made(found(64, 40) + found(64, 0, arm="held_out", name="unseen", flagged=2), {})
    assert row["duplicated", "all"]["n_hits_equal_size"] == pytest.approx(40 * 100 / 500)
    assert row["duplicated", "all"]["n_hits_equal_size_low"] < 8 < row["duplicated", "all"]["n_hits_equal_size_high"]
    assert (row["duplicated", "all"]["n_decoy_hits"], row["held_out", "all"]["n_decoy_hits"]) == (0, 2)


def test_images_expected_at_the_published_number_of_pictures() -> None:
    row = made(found(10, 4), {})["duplicated", "all"]
    assert row["expected_distinct_500"] == pytest.approx(4 * (1 - 0.5**500))
