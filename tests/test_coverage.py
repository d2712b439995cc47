"""A smaller bench/coverage.py: the audit's intervals hold what they say, and the simulations are what they claim to be."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from bench import coverage
from tasks import generations
from tasks.measures import stopping

SETTINGS: dict[str, Any] = {"first": 8, "budget": 512, "clique_size": 10, "min_rate": 0.3, "miss_probability": 0.05, "n_fresh": 8, "exhaustive": False}


@pytest.mark.parametrize(("keep_rate", "dropped_rate"), [(0.8, 0.05), (0.5, 0.25), (1.0, 0.0)])
def test_estimated_totals_hold_in_simulated_audits_of_every_bin_and_of_the_arm(keep_rate, dropped_rate):
    found = coverage.totals(40, keep_rate, dropped_rate)
    assert found["all"]["coverage"] >= 0.93
    assert min(f["coverage"] for f in found.values()) >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / 40)
    assert found["2-3"]["no_hit"] > 0.9 and found["2-3"]["width"] > 100  # a sample without a hit is no proof of none
    assert found["100+"]["width"] <= 2  # a census leaves out what the screen dropped, and nothing else
    assert 0 < found["all"]["truth"] < found["all"]["width"] < sum(population for _, population, *_ in coverage.BINS)


def test_estimated_totals_are_unbiased_where_nothing_was_dropped():
    found = coverage.totals(60, 1.0, 0.0)
    assert found["all"]["estimate"] == pytest.approx(found["all"]["truth"], rel=0.1)
    assert found["10-29"]["estimate"] == found["10-29"]["truth"]  # a census


def judged(rate: float, rng: np.random.Generator) -> tuple[int, int]:
    """Pictures judged of one prompt and hits among them, drawn one by one by the rules of `generations`."""
    hits: list[bool] = []
    for n in stopping.cumulative_rounds(SETTINGS["first"], SETTINGS["budget"]):
        hits += (rng.random(n - len(hits)) < rate).tolist()
        reason = generations.stop_reason(max(sum(hits), 1), n, SETTINGS)
        if reason:
            break
    fresh = (rng.random(SETTINGS["n_fresh"]) < rate).tolist() if reason == "clique" else []
    return 16 + len(fresh), sum(hits[:16] + fresh)


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5])
def test_the_paths_of_a_prompt_are_those_of_prompts_drawn_one_by_one(rate):
    rng, n_prompts = np.random.default_rng(3), 4000
    drawn = Counter(judged(rate, rng) for _ in range(n_prompts))
    chance: Counter[tuple[int, int]] = Counter()
    for (_, n, hits), weight in coverage.paths(rate, SETTINGS).items():
        chance[n, hits] += weight
    assert sum(chance.values()) == pytest.approx(1)
    assert set(drawn) <= set(chance)
    for path, weight in chance.items():
        assert drawn[path] / n_prompts == pytest.approx(weight, abs=4.5 * np.sqrt(weight / n_prompts) + 1e-9)


@pytest.mark.parametrize("change", [{}, {"min_rate": 0.1}, {"n_fresh": 32}, {"first": 16}, {"exhaustive": True, "budget": 64}])
def test_hit_rates_hold_after_stopping_early_and_are_hardly_biased(change):
    found = coverage.hit_rates(SETTINGS | change, np.linspace(0.05, 0.95, 46))
    assert found["coverage"] >= 0.94
    assert found["bias"] < 0.02


@pytest.mark.parametrize("n_controls", [40, 64, 400])
def test_p_values_of_dense_nulls_are_valid_by_matched_controls_however_few_and_not_by_all(n_controls):
    found = coverage.p_values(15, n_controls, 40)
    assert found["matched"] <= 0.08
    assert found["unmatched"] > 0.25


@pytest.mark.parametrize(("n_controls", "rate"), [(64, 0.02), (64, 0.1), (400, 0.1)])
def test_the_bound_of_a_lists_false_share_holds(n_controls, rate):
    assert coverage.false_share(2000, n_controls, rate) >= 0.95 - 2 * np.sqrt(0.05 * 0.95 / 2000)
