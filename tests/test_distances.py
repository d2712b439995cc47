"""The distances against brute force and scipy, and the properties that their docstrings promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.metrics import root_mean_squared_error
from sklearn.neighbors import NearestNeighbors

from tasks.measures import distances
from tasks.measures.distances import (
    adaptive_l2,
    eidetic_k,
    is_degenerate,
    l2,
    margin,
    pairwise_l2,
    pairwise_tiled_l2,
    pairwise_tiles,
    tile_slices,
    tiled_l2,
)

sides, seeds = st.integers(4, 13), st.integers(0, 10_000)
quick = settings(deadline=None, max_examples=60)


def pictures_of(n: int, height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((n, height, width, 3), dtype=np.float32)


def tile_twin(a: np.ndarray, b: np.ndarray, tiles: int) -> list[float]:
    """Each tile's l2, cut by np.array_split."""
    rows = zip(np.array_split(a, tiles, axis=0), np.array_split(b, tiles, axis=0), strict=True)
    return [float(np.sqrt(np.mean((x.astype(float) - y) ** 2)))
            for p, q in rows for x, y in zip(np.array_split(p, tiles, axis=1), np.array_split(q, tiles, axis=1), strict=True)]


@given(sides, sides, seeds)
@quick
def test_l2_is_the_euclidean_distance_over_the_root_of_the_number_of_values(height, width, seed):
    a, b = pictures_of(2, height, width, seed)
    reference = np.linalg.norm(a.astype(float).ravel() - b.ravel()) / np.sqrt(a.size)
    assert l2(a, b) == pytest.approx(reference, rel=1e-9)
    assert l2(a, b) == l2(b, a) and l2(a, a) == 0


@given(sides, sides, seeds)
@quick
def test_l2_is_scikit_learns_root_mean_squared_error_and_zero_for_equal_pictures_only(height, width, seed):
    a, b = pictures_of(2, height, width, seed)
    assert l2(a, b) == pytest.approx(root_mean_squared_error(a.ravel().astype(float), b.ravel().astype(float)), rel=1e-9)
    c = a.copy()
    c[height // 2, width // 2, 1] = 1 - c[height // 2, width // 2, 1]
    assert l2(a, c) > 0 or a[height // 2, width // 2, 1] == 0.5
    assert tiled_l2(a, c) >= l2(a, c)


@given(sides, seeds, st.integers(0, 3))
@quick
def test_distances_do_not_change_where_both_pictures_are_turned_inverted_or_recoloured(side, seed, turns):
    a, b = pictures_of(2, side, side, seed)
    assert l2(np.rot90(a, turns), np.rot90(b, turns)) == pytest.approx(l2(a, b), rel=1e-9)
    assert l2(1 - a, 1 - b) == pytest.approx(l2(a, b), rel=1e-5)
    assert tiled_l2(a[..., ::-1], b[..., ::-1]) == pytest.approx(tiled_l2(a, b), rel=1e-9)
    assert l2(a / 2, b / 2) == pytest.approx(l2(a, b) / 2, rel=1e-6)


def test_l2_runs_from_zero_to_one():
    black, white = np.zeros((4, 4, 3), np.float32), np.ones((4, 4, 3), np.float32)
    assert l2(black, white) == 1
    assert l2(black, white / 4) == 0.25


@given(sides, sides, seeds)
@quick
def test_l2_keeps_the_triangle_inequality(height, width, seed):
    a, b, c = pictures_of(3, height, width, seed)
    assert l2(a, c) <= l2(a, b) + l2(b, c) + 1e-12


@given(sides, sides, seeds, st.integers(1, 4))
@quick
def test_tiled_l2_is_the_largest_tile_symmetric_and_never_below_l2(height, width, seed, tiles):
    a, b = pictures_of(2, height, width, seed)
    assert tiled_l2(a, b, tiles) == pytest.approx(max(tile_twin(a, b, tiles)), rel=1e-9)
    assert tiled_l2(a, b, tiles) == tiled_l2(b, a, tiles)
    assert tiled_l2(a, b, tiles) >= l2(a, b)
    assert tiled_l2(a, a, tiles) == 0


@given(st.integers(1, 3), seeds)
@quick
def test_finer_tiles_never_see_less_and_at_most_their_number_a_side_times_the_whole(factor, seed):
    a, b = pictures_of(2, 8 * factor, 8 * factor, seed)
    found = [tiled_l2(a, b, tiles) for tiles in (1, 2, 4, 8)]
    assert found[0] == pytest.approx(l2(a, b))
    assert (np.diff(found) >= -1e-12).all()
    assert all(distance <= tiles * l2(a, b) + 1e-12 for tiles, distance in zip((1, 2, 4, 8), found, strict=True))


@given(st.integers(4, 20), st.floats(0, 1, width=32))
@quick
def test_tiled_l2_of_an_even_difference_is_not_below_l2_by_rounding(side, value):
    a, b = np.zeros((side, side, 3), np.float32), np.full((side, side, 3), value, np.float32)
    assert l2(a, b) <= tiled_l2(a, b) <= l2(a, b) + 1e-12


def test_tiled_l2_sees_what_l2_averages_away():
    a = np.zeros((16, 16, 3), np.float32)
    b = a.copy()
    b[4:8, 8:12] = 1  # one whole tile of sixteen
    assert l2(a, b) == 0.25 and tiled_l2(a, b) == 1


@pytest.mark.parametrize("distance", [l2, tiled_l2])
def test_pictures_of_unlike_sizes_or_pixels_out_of_range_are_an_error(distance):
    good = np.full((4, 4, 3), 0.5)
    with pytest.raises(ValueError, match="bring both to one size"):
        distance(good, np.full((4, 5, 3), 0.5))
    for wrong in (255 * good, good - 0.6, np.full((4, 4, 3), np.nan)):
        with pytest.raises(ValueError, match="divide 8-bit pixels by 255"):
            distance(good, wrong)
        with pytest.raises(ValueError, match="picture a has pixels"):
            distance(wrong, good)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 40), seeds)
@quick
def test_pairwise_l2_is_scipys_cdist(n, m, width, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.random((n, width), dtype=np.float32), rng.random((m, width), dtype=np.float32)
    b[0] = a[0]
    found = pairwise_l2(a, b)
    assert found.dtype == np.float32 and found.shape == (n, m)
    np.testing.assert_allclose(found, cdist(a.astype(float), b.astype(float)) / np.sqrt(width), atol=2e-7)
    assert found[0, 0] == 0


def test_pairwise_l2_resolves_a_tiny_difference_between_bright_pictures():
    a = np.full((1, 3072), 0.9, np.float32)
    b = np.concatenate([a, a, 1 - a])
    b[1] += np.float32(1e-5)
    reference = float(b[1, 0]) - float(a[0, 0])
    np.testing.assert_allclose(pairwise_l2(a, b)[0, :2], [0, reference], rtol=1e-3)


def test_pairwise_l2_of_nothing_is_empty_and_of_unlike_widths_an_error():
    assert pairwise_l2(np.zeros((0, 5)), np.zeros((3, 5))).shape == (0, 3)
    with pytest.raises(ValueError, match="flatten"):
        pairwise_l2(np.zeros((2, 5)), np.zeros((2, 6)))
    with pytest.raises(ValueError, match="flatten"):
        pairwise_l2(np.zeros((2, 5, 3)), np.zeros((2, 5, 3)))


@given(st.integers(1, 5), sides, sides, seeds, st.integers(1, 4))
@quick
def test_pairwise_tiles_are_each_tiles_l2_in_row_major_order(n, height, width, seed, tiles):
    pictures = pictures_of(n, height, width, seed)
    found = pairwise_tiles(pictures, tiles)
    reference = [[tile_twin(a, b, tiles) for b in pictures] for a in pictures]
    np.testing.assert_allclose(found, np.moveaxis(np.array(reference), -1, 0), atol=2e-7)


@given(st.integers(1, 5), sides, sides, seeds)
@quick
def test_pairwise_tiled_l2_is_tiled_l2_symmetric_with_a_diagonal_of_zeros(n, height, width, seed):
    pictures = pictures_of(n, height, width, seed)
    found = pairwise_tiled_l2(pictures)
    np.testing.assert_allclose(found, [[tiled_l2(a, b) for b in pictures] for a in pictures], atol=2e-7)
    assert np.array_equal(found, found.T) and not np.diag(found).any()


@given(st.integers(2, 6), seeds)
@quick
def test_pairwise_tiled_l2_follows_the_order_of_the_pictures(n, seed):
    pictures, order = pictures_of(n, 8, 8, seed), np.random.default_rng(seed).permutation(n)
    np.testing.assert_allclose(pairwise_tiled_l2(pictures[order]), pairwise_tiled_l2(pictures)[np.ix_(order, order)], atol=2e-7)


@given(st.floats(0, 1), st.lists(st.floats(0.01, 1), min_size=1, max_size=80), st.integers(1, 60), st.floats(0.1, 2))
@quick
def test_adaptive_l2_divides_by_alpha_times_the_mean_of_the_n_nearest(distance, neighbours, n, alpha):
    nearest = sorted(neighbours)[:n]
    reference = distance / (alpha * sum(nearest) / len(nearest))
    assert adaptive_l2(distance, np.array(neighbours), n, alpha) == pytest.approx(reference)
    assert adaptive_l2(distance, np.array(neighbours[::-1]), n, alpha) == pytest.approx(reference)


def test_adaptive_l2_uses_fifty_neighbours_and_one_half():
    neighbours = np.concatenate([np.full(50, 0.2), np.full(1000, 0.9)])
    assert adaptive_l2(0.1, neighbours) == pytest.approx(1)


def test_adaptive_l2_of_a_copy_is_zero_and_without_a_scale_infinite():
    assert adaptive_l2(0.0, np.array([0.3])) == 0
    assert adaptive_l2(0.0, np.zeros(3)) == 0
    assert adaptive_l2(0.1, np.zeros(3)) == np.inf
    with pytest.raises(ValueError, match="no neighbours"):
        adaptive_l2(0.1, np.array([]))


@given(st.floats(0, 1), st.floats(0.001, 1))
@quick
def test_margin_is_own_over_other_and_elementwise_the_same(own, other):
    assert margin(own, other) == own / other
    assert margin(np.array([own, own]), np.array([other, 2 * other])).tolist() == [own / other, own / (2 * other)]


@given(st.floats(0.001, 1), st.floats(0.001, 1), st.floats(0.01, 100))
@quick
def test_margin_has_no_scale_and_two_that_swap_places_are_inverse(own, other, scale):
    assert margin(scale * own, scale * other) == pytest.approx(margin(own, other))
    assert margin(own, other) * margin(other, own) == pytest.approx(1)
    assert margin(own / 2, other) < margin(own, other) < margin(own, other / 2)


@given(st.floats(0, 1), st.lists(st.floats(0.01, 1), min_size=1, max_size=60), st.floats(0.01, 100))
@quick
def test_adaptive_l2_has_no_scale_and_a_nearer_neighbour_never_makes_closer(distance, neighbours, scale):
    around = np.array(neighbours)
    assert adaptive_l2(scale * distance, scale * around) == pytest.approx(adaptive_l2(distance, around))
    assert adaptive_l2(distance, np.append(around, around.min())) >= adaptive_l2(distance, around) - 1e-12
    assert adaptive_l2(distance / 2, around) <= adaptive_l2(distance, around)


def test_margin_of_two_zeros_is_one_and_of_a_copy_of_the_other_infinite():
    assert margin(0.0, 0.0) == 1 and margin(0.1, 0.0) == np.inf and margin(0.0, 0.1) == 0
    assert margin(0.1, np.inf) == 0
    assert isinstance(margin(0.1, 0.2), float)
    assert margin(np.array([0.0, 0.1, 0.1]), np.array([0.0, 0.0, 0.4])).tolist() == [1, np.inf, 0.25]
    assert margin(np.array([0.1, 0.2]), 0.4).tolist() == [0.25, 0.5]


@given(st.floats(0, 1), st.floats(0, 0.2), seeds)
@quick
def test_a_picture_is_degenerate_by_the_deviation_around_its_channels_means(level, spread, seed):
    noise = np.random.default_rng(seed).normal(0, spread, (6, 6, 3))
    picture = level + noise
    deviation = np.sqrt(np.mean([(picture[..., c] - picture[..., c].mean()) ** 2 for c in range(3)]))
    assert is_degenerate(picture[None]).tolist() == [deviation < 0.04]


def test_flat_colour_is_degenerate_and_a_picture_is_not():
    colour = np.broadcast_to(np.array([0.9, 0.1, 0.5], np.float32), (8, 8, 3))
    pictures = np.stack([np.zeros((8, 8, 3), np.float32), colour, pictures_of(1, 8, 8, 0)[0]])
    assert is_degenerate(pictures).tolist() == [True, True, False]
    assert is_degenerate(pictures, min_std=1.0).all()


@given(st.lists(st.floats(0, 1), max_size=30), st.floats(0, 1))
@quick
def test_eidetic_k_counts_the_images_within_delta_and_grows_with_it(others, delta):
    around = np.array([0.0, *others])
    assert eidetic_k(around, delta) == 1 + sum(other <= delta for other in others)
    assert 1 <= eidetic_k(around, delta / 2) <= eidetic_k(around, delta)


@given(st.integers(1, 40), st.floats(0.01, 0.5), seeds)
@quick
def test_eidetic_k_is_the_number_of_scikit_learns_neighbours_within_delta(n, delta, seed):
    flat = np.random.default_rng(seed).random((n, 4, 4, 3)).reshape(n, -1)
    within = NearestNeighbors(radius=delta * np.sqrt(48), algorithm="kd_tree").fit(flat).radius_neighbors(flat, return_distance=False)
    distance = pairwise_l2(flat, flat)
    assert [eidetic_k(row, delta) for row in distance] == [len(found) for found in within]


@given(st.integers(1, 8), st.floats(0, 0.5), seeds)
@quick
def test_degenerate_pictures_are_so_by_themselves_in_any_order_brightness_and_turn(n, bound, seed):
    rng = np.random.default_rng(seed)
    pictures = 0.5 + rng.uniform(0, 0.5, (n, 1, 1, 1)) * (rng.random((n, 6, 6, 3)) - 0.5)
    found, order = is_degenerate(pictures, bound), rng.permutation(n)
    assert is_degenerate(pictures[order], bound).tolist() == found[order].tolist()
    assert is_degenerate(np.rot90(pictures + 1 / 4, axes=(1, 2)), bound).tolist() == found.tolist()
    assert (is_degenerate(pictures, bound / 2) <= found).all()


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 8))
@quick
def test_tiles_cover_each_pixel_once_cut_as_array_split_does(height, width, tiles):
    if min(height, width) < tiles:
        with pytest.raises(ValueError, match="fewer tiles"):
            tile_slices(height, width, tiles)
        return
    covered = np.zeros((height, width), int)
    numbers = np.arange(height * width).reshape(height, width)
    twin = [part for band in np.array_split(numbers, tiles) for part in np.array_split(band, tiles, axis=1)]
    for part, (rows, columns) in zip(twin, tile_slices(height, width, tiles), strict=True):
        covered[rows, columns] += 1
        assert np.array_equal(numbers[rows, columns], part)
    assert (covered == 1).all()


def test_no_tiles_at_all_is_an_error():
    with pytest.raises(ValueError, match="0 x 0 tiles"):
        distances.tile_slices(8, 8, 0)
