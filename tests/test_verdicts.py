"""The definitions of the match types."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.measures import verdicts


@pytest.mark.parametrize(("l2", "margin", "expected"), [(0.15, 0.7, True), (0.151, 0.1, False), (0.02, 0.71, False), (0.1, None, True), (0.1, math.nan, True)])
def test_verbatim_needs_both_the_distance_and_the_margin(l2: float, margin: float | None, expected: bool) -> None:
    assert verdicts.is_verbatim(l2, margin) is expected


def test_a_near_copy_needs_both_the_similarity_and_the_margin() -> None:
    assert verdicts.is_near_copy(0.8, 0.85, 0.8)
    assert not verdicts.is_near_copy(0.79, 0.5, 0.8) and not verdicts.is_near_copy(0.9, 0.86, 0.8)


@given(st.floats(0, 1), st.floats(0, 2), st.floats(0, 0.5))
def test_a_stricter_bound_never_adds_a_verbatim_match(l2: float, margin: float, stricter: float) -> None:
    if verdicts.is_verbatim(l2, margin, 0.15 - min(stricter, 0.15), 0.7):
        assert verdicts.is_verbatim(l2, margin)


@pytest.mark.parametrize(("l2", "band"), [(0.0, "0.05"), (0.05, "0.05"), (0.051, "0.10"), (0.15, "0.15"), (0.2, None)])
def test_bands_are_kept_apart(l2: float, band: str | None) -> None:
    assert verdicts.l2_band(l2) == band


@given(st.floats(-1, 1), st.floats(0, 2), st.floats(-1, 1), st.floats(0, 1))
def test_a_more_alike_or_clearer_pair_never_stops_being_a_near_copy(similarity: float, margin: float, bound: float, share: float) -> None:
    if verdicts.is_near_copy(similarity, margin, bound):
        assert verdicts.is_near_copy(similarity, share * margin, bound)
        assert verdicts.is_near_copy(similarity + share, margin, bound) and verdicts.is_near_copy(similarity, margin, bound - share)


@given(st.floats(0, 1), st.floats(0, 2))
def test_every_verbatim_pair_has_the_smallest_band_it_fits_in(l2: float, margin: float) -> None:
    fits = [f"{band:.2f}" for band in (0.05, 0.10, 0.15) if l2 <= band]
    assert verdicts.l2_band(l2) == (fits[0] if fits else None)
    assert not verdicts.is_verbatim(l2, margin) or fits


def test_what_has_no_distance_is_never_verbatim_and_no_band_holds_it() -> None:
    assert not verdicts.is_verbatim(math.nan, 0.1) and verdicts.l2_band(math.nan) is None
    assert not verdicts.is_near_copy(math.nan, 0.1, 0.5)
