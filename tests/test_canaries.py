"""Canaries: altered as said, the same pictures whatever the order of the rows, and seen as the search sees a copy."""

from collections.abc import Callable

import numpy as np
import pytest

from tasks import _canaries
from tasks.measures import indexes

Maker = Callable[..., np.ndarray]


@pytest.mark.parametrize("name", _canaries.ALTERATIONS)
@pytest.mark.parametrize("side", [4, 33, 64])
def test_every_alteration_makes_another_picture_of_eight_bits(name: str, side: int, picture: Maker, rng: np.random.Generator) -> None:
    made = _canaries.ALTERATIONS[name](picture(1, side), rng)
    assert made.dtype == np.uint8 and made.ndim == 3 and made.shape[2] == 3 and min(made.shape[:2]) >= 2
    assert made.shape != (side, side, 3) or (made != picture(1, side)).any()


@pytest.mark.parametrize(("name", "share"), [("cropped_5pct", 0.05), ("cropped_10pct", 0.10), ("cropped_25pct", 0.25)])
def test_a_crop_is_a_part_of_the_picture(name: str, share: float, picture: Maker, rng: np.random.Generator) -> None:
    whole = picture(2, 80)
    made = _canaries.ALTERATIONS[name](whole, rng)
    side = 80 - round(80 * share)
    assert made.shape == (side, side, 3)
    places = [(y, x) for y in range(81 - side) for x in range(81 - side) if (whole[y:y + side, x:x + side] == made).all()]
    assert len(places) == 1


def test_the_same_pictures_are_chosen_in_any_order_and_a_larger_number_adds_and_replaces_none(rng: np.random.Generator) -> None:
    names = np.array([f"{i:064x}" for i in range(40)])
    order = rng.permutation(40)
    few = _canaries.chosen(names.tolist(), np.arange(40), 5, "0 n_canaries")
    moved = _canaries.chosen(names[order].tolist(), np.arange(40), 5, "0 n_canaries")
    assert set(names[few]) == set(names[order][moved])
    assert few.tolist() == _canaries.chosen(names.tolist(), np.arange(40), 9, "0 n_canaries")[:5].tolist()
    assert set(few.tolist()) != set(_canaries.chosen(names.tolist(), np.arange(40), 5, "1 n_canaries").tolist())


def test_thresholds_are_those_of_params_where_it_names_them() -> None:
    seen = _canaries.Seen(*(np.linspace(0.5, 1, 50), np.ones(50, bool), np.ones(50, bool), np.linspace(0, 0.06, 50), np.linspace(0, 0.03, 50)))
    none = _canaries.Seen(*(np.zeros(0),) * 5)
    settings = {"max_tile_difference": None, "max_l2": None, "min_similarity": 0.5}
    free = _canaries.marks_of({"half_size": seen, "mirrored": none}, none, 10, settings)
    assert free.tile_difference == pytest.approx(np.quantile(seen.tile_difference, 0.99)) and free.l2 > 0.06
    named = _canaries.marks_of({"half_size": seen}, none, 10, settings | {"max_tile_difference": 0.02, "max_l2": 0.5})
    assert (named.tile_difference, named.l2) == (0.02, 0.5)


def test_what_is_found_is_what_is_proposed_and_confirmed() -> None:
    close = np.array([True, False, False, False])
    seen = _canaries.Seen(np.array([0.1, 0.9, 0.35, 0.35]), np.array([False, False, True, False]), close, np.zeros(4), np.array([0.01, 0.5, 0.01, 0.01]))
    marks = _canaries.Marks(tile_difference=0.03, l2=0.1, floor=0.3, enough=0.5)
    exact = indexes.Probes(n_probe=8, n_found=99, n_exact=100, n_sampled=2000)
    rows = {r["transform"]: r for r in _canaries.recall_rows({"half_size": seen, "mirrored": seen}, marks, exact)}
    assert (rows["half_size"]["n_planted"], rows["half_size"]["n_proposed"], rows["half_size"]["n_found"]) == (4, 3, 2)
    assert [rows[name]["is_promised"] for name in ("half_size", "mirrored", "exact_search")] == [True, False, True]
    assert rows["exact_search"]["recall"] == 0.99 and rows["half_size"]["recall_low"] < 0.5 < rows["half_size"]["recall_high"]


def test_thresholds_say_how_many_canaries_and_neighbours_lie_within() -> None:
    seen = _canaries.Seen(np.array([0.9, 0.4]), np.ones(2, bool), np.ones(2, bool), np.array([0.01, 0.2]), np.array([0.01, 0.05]))
    near = _canaries.Seen(np.array([0.6, 0.7, 0.2]), np.ones(3, bool), np.zeros(3, bool), np.array([0.3, 0.05, 0.4]), np.array([0.3, 0.02, 0.4]))
    marks = _canaries.Marks(tile_difference=0.03, l2=0.1, floor=0.5, enough=0.5)
    rows = {r["name"]: r for r in _canaries.threshold_rows(marks, {"half_size": seen, "mirrored": near}, near, 2, {"max_tile_difference": None, "max_l2": 0.1})}
    assert (rows["tile_difference"]["canary_share"], rows["tile_difference"]["natural_rate"], rows["tile_difference"]["is_calibrated"]) == (0.5, 0.5, True)
    assert (rows["similarity"]["canary_share"], rows["similarity"]["natural_rate"]) == (0.5, 1.0) and not rows["l2"]["is_calibrated"]


def test_without_canaries_copies_end_where_they_usually_do_and_not_at_everything() -> None:
    none = _canaries.Seen(*(np.zeros(0),) * 5)
    settings = {"max_tile_difference": None, "max_l2": None, "min_similarity": 0.5}
    assert _canaries.marks_of({}, none, 0, settings) == _canaries.Marks(0.04, 0.1, 0.5, 0.5)
    assert _canaries.marks_of({}, none, 0, settings | {"max_tile_difference": 0.01}).tile_difference == 0.01
