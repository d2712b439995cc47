"""Blocklist maths: copies that stand for the others, thresholds set by ordinary pictures, what is left to be extracted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist

from tasks.measures import blocking


def unit(rng: np.random.Generator, n: int, d: int = 8) -> np.ndarray:
    vectors = rng.normal(size=(n, d))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 14))
@settings(max_examples=50, deadline=None)
def test_the_chosen_are_distinct_and_each_is_the_one_least_like_those_before_it(seed: int, n: int, k: int) -> None:
    vectors = unit(np.random.default_rng(seed), n)
    chosen = blocking.spread(vectors, k).tolist()
    assert len(chosen) == min(k, n) == len(set(chosen))
    for i in range(1, len(chosen)):
        likeness = (vectors @ vectors[chosen[:i]].T).max(axis=1)
        left = [row for row in range(n) if row not in chosen[:i]]
        assert likeness[chosen[i]] <= likeness[left].min() + 1e-12


def test_the_chosen_are_at_most_twice_as_far_from_the_rest_as_the_best_choice(rng: np.random.Generator) -> None:
    """Gonzalez 1985, against every choice of three, in angles: a metric, which the cosine is not."""
    from itertools import combinations

    for _ in range(10):
        vectors = unit(rng, 10, 3)
        angles = np.arccos(np.clip(vectors @ vectors.T, -1, 1))
        best = min(angles[:, list(rows)].min(axis=1).max() for rows in combinations(range(10), 3))
        assert angles[:, blocking.spread(vectors, 3)].min(axis=1).max() <= 2 * best + 1e-9


def test_nothing_stands_for_nothing_and_no_rows_cannot_be_chosen() -> None:
    assert len(blocking.spread(np.zeros((0, 8)), 3)) == 0
    with pytest.raises(ValueError, match="choose at least 1"):
        blocking.spread(np.eye(3), 0)


def test_the_threshold_lies_beyond_every_ordinary_picture_and_never_below_the_least() -> None:
    assert blocking.likeness_threshold(np.array([0.2, 0.8]), 0.45) == pytest.approx(0.8 + blocking.ROOM)
    assert blocking.likeness_threshold(np.array([0.2, 0.3]), 0.45) == blocking.likeness_threshold(np.zeros(0), 0.45) == 0.45


def test_a_further_ordinary_picture_passes_the_largest_of_n_about_once_in_n_and_one(rng: np.random.Generator) -> None:
    n, rounds = 9, 4000
    drawn = rng.normal(size=(rounds, n + 1)) / 10
    passed = np.mean([row[-1] > blocking.likeness_threshold(row[:-1], -9.0) - blocking.ROOM for row in drawn])
    assert passed == pytest.approx(1 / (n + 1), abs=0.02)


@given(arrays(np.uint8, (3, 32)), arrays(np.uint8, (4, 32)))
@settings(max_examples=30, deadline=None)
def test_bits_that_differ_are_those_of_scipys_hamming_distance(a: np.ndarray, b: np.ndarray) -> None:
    theirs = 256 * cdist(np.unpackbits(a, axis=1), np.unpackbits(b, axis=1), "hamming")
    assert (blocking.hash_distances(a, b) == np.rint(theirs)).all()


@given(st.integers(4, 21), st.integers(4, 21), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_a_layout_has_the_mean_colour_of_each_tile(height: int, width: int, seed: int) -> None:
    """Against numpy's array_split and mean, a tile at a time."""
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    tiles = [tile.mean(axis=(0, 1)) for band in np.array_split(picture, 4, axis=0) for tile in np.array_split(band, 4, axis=1)]
    assert (blocking.layout(picture) == np.rint(np.concatenate(tiles))).all()


@given(arrays(np.uint8, (8, 8, 3)), arrays(np.uint8, (8, 8, 3)))
@settings(max_examples=30, deadline=None)
def test_layouts_are_never_farther_apart_than_their_pictures(a: np.ndarray, b: np.ndarray) -> None:
    apart = blocking.layout_distances(blocking.layout(a)[None], blocking.layout(b)[None])[0, 0]
    assert apart <= np.sqrt((((a - b.astype(float)) / 255) ** 2).mean()) + 1.01 / 255, "but for the rounding of both"


def test_a_layout_of_thirty_two_pixels_is_pils_box_and_nothing_smaller_than_its_tiles_has_one(rng: np.random.Generator) -> None:
    from PIL import Image

    picture = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    box = np.asarray(Image.fromarray(picture).resize((4, 4), Image.Resampling.BOX)).ravel()
    assert np.abs(blocking.layout(picture).astype(int) - box).max() <= 1
    with pytest.raises(ValueError, match="3 x 8 px has no 4 x 4 tiles"):
        blocking.layout(picture[:8, :3])


def test_likeness_is_never_above_similarity_and_falls_with_colours_and_bits() -> None:
    similarity, colours, bits = np.array([0.9, 0.9, 0.9]), np.array([0.0, 0.1, 0.0]), np.array([0, 0, 128])
    assert blocking.likeness(similarity, colours, bits) == pytest.approx([0.9, 0.7, 0.65])


def test_a_hash_that_says_too_little_counts_as_chance() -> None:
    said = blocking.told_bits(np.array([[10, 20], [30, 40]]), np.array([True, False]), np.array([True, False]))
    assert said.tolist() == [[10, 128], [128, 128]]


def test_what_is_expected_to_come_back_is_the_sum_over_bins_and_unknown_where_a_bin_is() -> None:
    n, rate = np.array([100, 10, 0]), np.array([0.01, 0.5, np.nan])
    assert blocking.expected_extracted(n, rate) == pytest.approx(6.0), "a bin without clusters need not be known"
    assert np.isnan(blocking.expected_extracted(np.array([1, 1, 1]), rate))
    for wrong in ((np.array([-1]), np.array([0.5])), (np.array([1]), np.array([1.5]))):
        with pytest.raises(ValueError, match="rates lie in"):
            blocking.expected_extracted(*wrong)
