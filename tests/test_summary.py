"""No rate without n and interval, no list without its estimated false share."""

from typing import Any

import pytest

from tasks import summary


def found(n: int, k: int, *, arm: str = "duplicated", name: str = "10-29", stratum: str = "kept", flagged: int = 0) -> list[dict[str, Any]]:
    """n rows of which k are extracted; dropped ones are not sampled."""
    return [{"arm": arm, "copies_bin": name, "stratum": stratum, "n_generations": 0 if stratum == "dropped" else 16, "n_evaluations": 8,
             "cluster_id": i, "own_cluster": i, "prompt_id": i, "caption_rank": 0, "is_compared": True, "hit_rate": None if stratum == "dropped" else 0.5,
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


def test_a_cluster_is_one_observation_and_what_further_captions_brought_stands_apart() -> None:
    once = found(10, 4) + found(8, 0, arm="held_out", name="unseen")
    more = [r | {"caption_rank": 1, "prompt_id": 100 + r["prompt_id"], "is_extracted": r["own_cluster"] in (2, 7)} for r in found(10, 0)]
    more += [r | {"caption_rank": 1, "is_flagged": r["own_cluster"] == 1} for r in found(3, 0, arm="held_out", name="unseen")]
    alone, row = made(once, {("duplicated", "10-29"): 20}), made(once + more, {("duplicated", "10-29"): 20})
    apart = {"n_further_prompts": 10, "n_further_findings": 1, "n_further_flagged": 0, "n_generations": 320, "n_evaluations": 160}
    assert row["duplicated", "10-29"] == alone["duplicated", "10-29"] | apart, "image 2 came back by its first caption, 7 by the further one alone"
    assert row["held_out", "all"]["n_further_flagged"] == 1 and row["held_out", "all"]["n_controls_flagged"] == 0


def test_where_no_picture_could_be_compared_no_rate_and_no_total_is_stated() -> None:
    rows = [r | {"is_compared": False, "match_type": "undecided" if r["own_cluster"] < 3 else "none"} for r in found(16, 0, name="1", arm="singleton")]
    row = made(rows, {("singleton", "1"): 400})["singleton", "all"]
    assert (row["n_prompts"], row["n_undecided"], row["n_clusters"]) == (16, 3, 400)
    assert all(row[name] is None for name in ("extraction_rate", "low", "high", "estimated_total", "estimated_total_high", "n_hits_equal_size",
                                              "expected_distinct_500"))
