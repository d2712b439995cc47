"""Pixel distances against brute force, scipy and scikit-learn, and their properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import cdist
from sklearn.metrics import root_mean_squared_error
from sklearn.neighbors import NearestNeighbors

from tasks.measures import distances

PIXELS = st.floats(0, 1, width=32)


@st.composite
def pairs(draw, min_side=4, max_side=11):
    shape = (draw(st.integers(min_side, max_side)), draw(st.integers(min_side, max_side)), 3)
    picture = hnp.arrays(np.float32, shape, elements=PIXELS)
    return draw(picture), draw(picture)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


def _reference_array_split_tiled(a, b, tiles):
    """The largest tile's l2 by np.array_split and scikit-learn."""
    cut = lambda x: [t for band in np.array_split(x, tiles, 0) for t in np.array_split(band, tiles, 1)]
    return max(root_mean_squared_error(s.ravel(), t.ravel()) for s, t in zip(cut(a), cut(b), strict=True))


@given(pairs())
def test_l2_is_the_root_mean_squared_error_of_scikit_learn(pair):
    a, b = (x.astype(np.float64) for x in pair)
    assert distances.l2(*pair) == pytest.approx(root_mean_squared_error(a.ravel(), b.ravel()), abs=1e-7)


def test_l2_of_black_and_white_is_1_and_of_a_picture_to_itself_0():
    black, white = np.zeros((8, 8, 3), np.float32), np.ones((8, 8, 3), np.float32)
    assert distances.l2(black, white) == 1
    assert distances.l2(white, white) == 0
    assert distances.l2(black, black + np.float32(0.25)) == 0.25


def test_l2_converts_to_the_sum_of_squares_that_webster_publishes():
    a = np.zeros((256, 256, 3), np.float32)
    assert distances.l2(a, a + np.float32(0.15)) ** 2 * a.size == pytest.approx(4424, abs=1)  # methods.md, section 2


@pytest.mark.parametrize("measure", [distances.l2, distances.tiled_l2])
def test_pictures_of_other_shapes_or_ranges_are_refused_by_name(measure):
    good = noise(8, 8, 3)
    with pytest.raises(ValueError, match=r"\(8, 8, 3\) and \(8, 9, 3\) have no distance"):
        measure(good, noise(8, 9, 3))
    with pytest.raises(ValueError, match=r"picture b has pixels in \[0, 255\], not in \[0, 1\]"):
        measure(good, np.linspace(0, 255, 192).reshape(8, 8, 3))
    with pytest.raises(ValueError, match="picture a"):
        measure(good - np.float32(1), good)
    with pytest.raises(ValueError, match="picture b has pixels in .nan"):
        measure(good, np.full_like(good, np.nan))


@given(pairs(), st.integers(1, 4))
def test_tiled_l2_cuts_uneven_pictures_as_array_split_does(pair, tiles):
    a, b = (x.astype(np.float64) for x in pair)
    assert distances.tiled_l2(*pair, tiles=tiles) == pytest.approx(_reference_array_split_tiled(a, b, tiles), abs=1e-7)


@given(pairs(), st.integers(1, 4))
def test_tiled_l2_is_never_below_l2_and_both_are_symmetric_and_within_0_and_1(pair, tiles):
    a, b = pair
    assert 0 <= distances.l2(a, b) <= distances.tiled_l2(a, b, tiles) <= 1
    assert distances.l2(a, b) == distances.l2(b, a)
    assert distances.tiled_l2(a, b, tiles) == distances.tiled_l2(b, a, tiles)


def test_tiled_l2_sees_the_one_tile_that_a_uniform_background_hides():
    a = np.ones((32, 32, 3), np.float32)
    b = a.copy()
    b[8:16, 24:32] = 0
    assert distances.l2(a, b) == 0.25
    assert distances.tiled_l2(a, b) == 1


def test_a_picture_with_fewer_pixels_than_tiles_is_refused():
    with pytest.raises(ValueError, match="3 x 9 px has no 4 x 4 tiles"):
        distances.tiled_l2(noise(3, 9, 3), noise(3, 9, 3))
    with pytest.raises(ValueError, match="no 4 x 4 tiles"):
        distances.pairwise_tiles(noise(2, 9, 3, 3))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12))
def test_tile_slices_visit_every_pixel_once(height, width, tiles):
    if min(height, width) < tiles:
        return
    seen = np.zeros((height, width), int)
    for rows, columns in distances.tile_slices(height, width, tiles):
        seen[rows, columns] += 1
    assert (seen == 1).all()


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 50), st.integers(0, 2**32 - 1))
def test_pairwise_l2_equals_scipys_euclidean_over_the_root_of_the_width(n, m, width, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.random((n, width), np.float32), rng.random((m, width), np.float32)
    made = distances.pairwise_l2(a, b)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, cdist(a, b) / np.sqrt(width), atol=1e-6)


@pytest.mark.parametrize("step", [0, 1e-6, 1e-5, 1e-4, 1e-3])
def test_pairwise_l2_is_accurate_near_zero_where_a_float32_product_is_not(step):
    bright = np.full((1, 49_152), 0.98) + 0.01 * noise(1, 49_152)
    a = np.concatenate([bright, bright + step]).astype(np.float32)
    made = distances.pairwise_l2(a, a)
    assert made[0, 1] == pytest.approx(float(np.sqrt(np.mean((a[0].astype(float) - a[1]) ** 2))), abs=3e-7)
    assert (np.diag(made) == 0).all()
    assert (made == made.T).all()


def test_pairwise_l2_tells_a_copy_from_a_picture_with_one_level_of_one_pixel_changed():
    a = np.round(noise(1, 512 * 512 * 3) * 255) / np.float32(255)
    b = a.copy()
    b[0, 7] += 1 / 255 if b[0, 7] < 0.5 else -1 / 255
    assert distances.pairwise_l2(a, a.copy())[0, 0] == 0
    assert distances.pairwise_l2(a, b)[0, 0] == pytest.approx(1 / 255 / np.sqrt(a.size), rel=0.02)


def test_pairwise_l2_of_no_pictures_is_empty_and_of_other_widths_refused():
    assert distances.pairwise_l2(np.zeros((0, 5), np.float32), noise(3, 5)).shape == (0, 3)
    assert distances.pairwise_l2(noise(3, 5), np.zeros((0, 5), np.float32)).shape == (3, 0)
    with pytest.raises(ValueError, match="flatten the pictures first"):
        distances.pairwise_l2(noise(3, 5), noise(3, 6))
    with pytest.raises(ValueError, match="flatten the pictures first"):
        distances.pairwise_l2(noise(3, 2, 2, 3), noise(3, 12))


@pytest.mark.parametrize("shape", [(5, 16, 16, 3), (4, 13, 18, 3)])
def test_pairwise_tiles_are_the_l2_of_each_tile_one_pair_at_a_time(shape):
    pictures = noise(*shape)
    made = distances.pairwise_tiles(pictures)
    for t, (rows, columns) in enumerate(distances.tile_slices(*shape[1:3], 4)):
        for i in range(shape[0]):
            for j in range(shape[0]):
                assert made[t, i, j] == pytest.approx(distances.l2(pictures[i, rows, columns], pictures[j, rows, columns]), abs=1e-6)


def test_pairwise_tiled_l2_is_tiled_l2_of_all_pairs_whatever_their_order():
    pictures = noise(6, 17, 16, 3)
    made = distances.pairwise_tiled_l2(pictures)
    expected = [[distances.tiled_l2(a, b) for b in pictures] for a in pictures]
    np.testing.assert_allclose(made, expected, atol=1e-6)
    order = np.random.default_rng(1).permutation(6)
    np.testing.assert_allclose(distances.pairwise_tiled_l2(pictures[order]), made[np.ix_(order, order)], atol=1e-6)


def test_adaptive_l2_compares_with_the_neighbours_of_the_generation_as_scikit_learn_finds_them():
    generated, training = noise(1, 48), noise(200, 48, seed=1)
    near, _ = NearestNeighbors(n_neighbors=50).fit(training).kneighbors(generated)
    everything = distances.pairwise_l2(generated, training)[0]
    expected = near[0, 0] / (0.5 * near[0].mean())  # the root of the width cancels
    assert distances.adaptive_l2(float(everything.min()), everything) == pytest.approx(expected, rel=1e-5)


@given(st.floats(1e-6, 1), st.lists(st.floats(1e-3, 1), min_size=1, max_size=80), st.floats(0.1, 10))
def test_adaptive_l2_has_no_unit_and_no_order(distance, neighbours, scale):
    values = np.array(neighbours)
    made = distances.adaptive_l2(distance, values)
    assert distances.adaptive_l2(distance * scale, values * scale) == pytest.approx(made)
    assert distances.adaptive_l2(distance, values[::-1]) == pytest.approx(made)
    assert distances.adaptive_l2(distance, values, alpha=1.0) == pytest.approx(made / 2)


def test_adaptive_l2_of_a_copy_is_0_and_among_copies_infinite():
    assert distances.adaptive_l2(0.0, np.zeros(60)) == 0
    assert distances.adaptive_l2(0.1, np.zeros(60)) == np.inf
    assert distances.adaptive_l2(0.1, np.r_[np.full(50, 0.2), np.full(9, 9.0)]) == pytest.approx(1.0)  # the far ones are no neighbours
    with pytest.raises(ValueError, match="no neighbours"):
        distances.adaptive_l2(0.1, np.zeros(0))


def test_margin_is_the_ratio_and_1_where_both_are_copies():
    assert distances.margin(0.1, 0.2) == 0.5
    assert distances.margin(0.0, 0.2) == 0
    assert distances.margin(0.0, 0.0) == 1
    assert distances.margin(0.1, 0.0) == np.inf
    assert isinstance(distances.margin(0.1, 0.2), float)
    made = distances.margin(np.array([0.1, 0.0, 0.0, 0.3]), np.array([0.2, 0.2, 0.0, 0.0]))
    np.testing.assert_array_equal(made, [0.5, 0, 1, np.inf])


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_margin_grows_with_the_own_distance_and_is_below_1_only_when_the_own_image_is_nearer(own, other, more):
    assert distances.margin(own, other) <= distances.margin(max(own, more), other) or own == other == 0
    if own > 1e-300 and other > 1e-300:
        assert (distances.margin(own, other) < 1) == (own < other) or np.isclose(own, other)


def test_flat_pictures_of_any_colour_are_degenerate_and_faint_texture_decides_at_the_bound():
    flat = np.broadcast_to(np.float32([0.9, 0.1, 0.4]), (16, 16, 3))  # its pixels deviate by 0.33 from their common mean
    checks = np.where(np.indices((16, 16)).sum(0)[..., None] % 2, 0.5 + 0.039, 0.5 - 0.039).repeat(3, -1)
    clearer = np.where(np.indices((16, 16)).sum(0)[..., None] % 2, 0.5 + 0.041, 0.5 - 0.041).repeat(3, -1)
    pictures = np.stack([flat, np.zeros((16, 16, 3)), checks, clearer, noise(16, 16, 3)]).astype(np.float32)
    assert distances.is_degenerate(pictures).tolist() == [True, True, True, False, False]


@given(st.floats(0, 0.5), st.floats(0, 0.5))
def test_raising_the_bound_never_clears_a_degenerate_picture(low, high):
    pictures = noise(5, 6, 6, 3) * np.linspace(0, 1, 5, dtype=np.float32)[:, None, None, None]
    low, high = sorted((low, high))
    assert (distances.is_degenerate(pictures, low) <= distances.is_degenerate(pictures, high)).all()


@given(hnp.arrays(np.float32, st.integers(0, 30), elements=PIXELS), PIXELS, PIXELS)
def test_eidetic_k_counts_the_image_itself_and_grows_with_delta(others, low, high):
    everything = np.append(others, np.float32(0))
    low, high = sorted((low, high))
    assert 1 <= distances.eidetic_k(everything, low) <= distances.eidetic_k(everything, high) <= len(everything)


def test_eidetic_k_counts_the_planted_copies():
    assert [distances.eidetic_k(np.array([0, 0.05, 0.051, 0.1, 0.4]), d) for d in (0.05, 0.10, 0.15)] == [2, 4, 4]
