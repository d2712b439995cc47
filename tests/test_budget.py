"""A smaller bench/budget.py: its simulated prompts stop as enumerated ones do, and its screen and frontier say what they claim."""

import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
import pytest

from bench import _frontier, budget, coverage

SETTINGS: dict[str, Any] = {"first": 8, "budget": 512, "clique_size": 10, "min_rate": 0.3, "miss_probability": 0.05, "n_fresh": 8, "exhaustive": False,
                            "keep_rate": 0.8, "dropped_rate": 0.05}


def seen_of(rate: float, n_orders: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """Looks at a prompt whose hits agree with each other and with nothing else; its medoid is a hit where three agree."""
    hits = np.random.default_rng(0).random((1, n_orders, budget.N)) < rate
    largest = np.stack([np.maximum(hits[..., :n].sum(axis=-1), 1) for n in budget.SEEN], axis=-1)
    return largest, largest >= 3


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 0.9])
def test_prompts_draw_as_many_pictures_as_by_enumeration(rate):
    n_drawn, found = budget.stopped(*seen_of(rate), SETTINGS)
    chance: dict[str, float] = {}
    for (reason, _, _), weight in coverage.paths(rate, SETTINGS).items():
        chance[reason] = chance.get(reason, 0) + weight
    with_fresh = np.isin(n_drawn, [n + 8 for n in (16, 32, 64, 128, 256, 512)]).mean()
    assert with_fresh == pytest.approx(chance.get("clique", 0), abs=0.04)
    assert n_drawn.min() >= 16 and (found.mean() > 0.95 if rate >= 0.5 else True)


def test_a_confirmed_medoid_stops_a_prompt_at_its_first_round_with_one():
    largest, confirmed = seen_of(1.0, 5)
    assert set(budget.stopped(largest, confirmed, SETTINGS, by_match=True)[0].ravel()) == {16}
    assert set(budget.stopped(largest, confirmed, SETTINGS)[0].ravel()) == {24}


def test_beyond_what_was_drawn_a_clique_grows_in_proportion():
    largest = np.full((1, 1, len(budget.SEEN)), 4)
    assert budget.at(largest, 500) == 10 and budget.at(largest, 192) == 4 and budget.at(largest > 1, 500)
    assert budget.published(largest, largest > 1)[1].all() and not budget.published(largest - 1, largest > 1)[1].any()


def test_simulated_audits_know_what_they_planted():
    rates = np.repeat([0.0, 0.8], [9, 1])
    looks = [seen_of(rate, 40) for rate in rates]
    seen = np.concatenate([s[0] for s in looks]), np.concatenate([s[1] for s in looks])
    found = budget.audits(seen, SETTINGS, 0.992, 3)
    assert found["found"] > 0.95 and found["low"] <= found["n_hits"] <= found["high"]
    assert found["spent"] == pytest.approx((8 + 100 * 16 * (0.8 + 0.2 * 0.05)) / 50_000, rel=0.02)


def test_the_frontier_is_a_picture_with_a_panel_per_class_and_a_line_per_way():
    drawn = ElementTree.fromstring(_frontier.svg({"one": {"a": [(0.1, 0.5), (0.05, 0.6)], "b": [(1.0, 1.0)]}, "two": {"a": [(0.1, 0.5)], "b": []}}))
    names = [element.tag.split("}")[1] for element in drawn.iter()]
    assert names.count("g") == 2 and names.count("polyline") == 4
