"""Template copies: planted layouts are found, flat agreement and plain copies are not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion

from tasks.measures import cliques, distances, templates

SETTINGS = {"edge_l2": 0.1, "clique_size": 10, "template_share": 0.25, "max_l2": 0.15, "max_margin": 0.7}


def noise(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


def prints(n, seed=0, fixed_rows=24, layout=None):
    """n pictures of one layout: the upper rows are the same in all, the rest is new in each."""
    layout = noise(32, 32, 3, seed=99) if layout is None else layout
    pictures = noise(n, 32, 32, 3, seed=seed)
    pictures[:, :fixed_rows] = layout[:fixed_rows]
    return pictures


def edges_of(pictures, **settings):
    return templates.template_edges(distances.pairwise_tiles(pictures), templates.tile_std(pictures), 0.1, **settings)


@pytest.mark.parametrize("shape", [(3, 16, 16, 3), (2, 13, 18, 3)])

def test_tile_std_is_that_of_each_tile_around_its_channel_means(shape):
    pictures = noise(*shape)
    made = templates.tile_std(pictures)
    assert made.shape == (16, shape[0])
    for t, (rows, columns) in enumerate(distances.tile_slices(*shape[1:3], 4)):
        for i, picture in enumerate(pictures[:, rows, columns].astype(float)):
            assert made[t, i] == pytest.approx(np.sqrt(np.mean([picture[..., c].var() for c in range(3)])), abs=1e-6)


def test_a_coloured_but_flat_tile_has_no_deviation():
    picture = np.broadcast_to(np.float32([0.9, 0.1, 0.4]), (1, 8, 8, 3))
    assert templates.tile_std(picture).max() < 1e-7


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 6), st.integers(0, 10**6), st.integers(1, 16), st.floats(0, 0.6), st.floats(0, 0.4))
def test_edges_are_those_of_a_loop_over_pairs_and_tiles(n, seed, min_tiles, edge_l2, min_std):
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.random((16, n, n)), 1)
    tiles, std = upper + upper.transpose(0, 2, 1), 0.5 * rng.random((16, n))
    made = templates.template_edges(tiles, std, edge_l2, min_tiles, min_std)
    for i in range(n):
        for j in range(n):
            agree = sum(tiles[t, i, j] <= edge_l2 and min(std[t, i], std[t, j]) >= min_std for t in range(16))
            assert made[i, j] == (i != j and agree >= min_tiles)


@settings(deadline=None, max_examples=40)
@given(st.floats(0, 0.6), st.floats(0, 0.6), st.integers(1, 15))
def test_a_looser_threshold_or_fewer_tiles_never_removes_an_edge(a, b, min_tiles):
    pictures = np.concatenate([prints(3), prints(3, seed=5, fixed_rows=9)])
    tiles, std = distances.pairwise_tiles(pictures), templates.tile_std(pictures)
    low, high = sorted((a, b))
    strict = templates.template_edges(tiles, std, low, min_tiles)
    assert (strict <= templates.template_edges(tiles, std, high, min_tiles)).all()
    assert (templates.template_edges(tiles, std, low, min_tiles + 1) <= strict).all()
    assert (strict == strict.T).all()


def test_prints_of_one_layout_are_joined_though_no_tiled_l2_joins_them():
    pictures = prints(12)
    assert distances.pairwise_tiled_l2(pictures)[np.triu_indices(12, 1)].min() > 0.3  # the varying part
    assert edges_of(pictures).sum() == 12 * 11
    assert len(cliques.largest_clique(edges_of(pictures))[0]) == 12
    assert not edges_of(noise(12, 32, 32, 3)).any()


def test_half_of_the_tiles_is_enough_and_fewer_are_not():
    assert edges_of(prints(4, fixed_rows=16)).sum() == 4 * 3
    assert not edges_of(prints(4, fixed_rows=15)).any()
    assert edges_of(prints(4, fixed_rows=15), min_tiles=4).sum() == 4 * 3


def test_a_common_white_background_joins_nothing():
    pictures = noise(6, 32, 32, 3)
    pictures[:, :24] = 1
    assert not edges_of(pictures).any()
    assert edges_of(pictures, min_std=0.0).sum() == 6 * 5  # it is the flat tiles that would have


def test_tiles_and_deviations_of_other_pictures_are_refused():
    with pytest.raises(ValueError, match="not of one grid"):
        templates.template_edges(distances.pairwise_tiles(prints(4)), templates.tile_std(prints(3)), 0.1)
    with pytest.raises(ValueError, match="not of one grid"):
        templates.template_edges(distances.pairwise_tiles(prints(4)), templates.tile_std(prints(4), tiles=2), 0.1)


def test_the_fixed_region_is_the_planted_one():
    mask = templates.fixed_region(prints(10, fixed_rows=20))
    assert mask[:20].all()
    assert not mask[20:].any()


def test_a_region_that_jitters_less_than_the_bound_is_fixed_and_one_that_jitters_more_is_not():
    rng = np.random.default_rng(0)
    still = np.full((400, 8, 8, 3), 0.5)
    for edge_l2 in (0.1, 0.2):
        for share, is_fixed in ((0.93, True), (1.07, False)):
            jitter = share * edge_l2 / np.sqrt(2) * rng.standard_normal(still.shape)
            assert templates.fixed_region(still + jitter, edge_l2).all() == is_fixed


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 12), st.integers(0, 10**6))
def test_pictures_within_the_edge_of_each_other_deviate_no_more_than_a_fixed_region_may(n, seed):
    rng = np.random.default_rng(seed)
    shown = noise(1, 8, 8, 3, seed=seed) + rng.uniform(0, 0.3) * rng.standard_normal((n, 1, 1, 3))  # every pixel jitters alike
    apart = [np.sqrt(np.square(a - b).mean()) for a in shown for b in shown]
    assert templates.fixed_region(shown, max(apart) + 1e-9).all()
    assert np.sqrt(shown.var(axis=0).mean()) <= max(apart) * np.sqrt((n - 1) / (2 * n)) + 1e-12


def test_specks_are_taken_out_and_corners_kept():
    pictures = noise(20, 16, 16, 3)
    pictures[:, 5:7, 5:7] = 0.5  # two pixels wide: by chance
    pictures[:, 10:13, 3:6] = 0.5  # three wide
    pictures[:, :4, 12:] = 0.5  # in the corner
    mask = templates.fixed_region(pictures)
    expected = np.zeros((16, 16), bool)
    expected[10:13, 3:6] = expected[:4, 12:] = True
    assert (mask == expected).all()


@settings(deadline=None, max_examples=30)
@given(st.floats(0, 0.5), st.floats(0, 0.5), st.randoms(use_true_random=False))
def test_a_looser_bound_never_shrinks_the_region_and_the_order_of_the_clique_does_not_matter(a, b, random):
    pictures = noise(6, 9, 9, 3) * np.linspace(0, 1, 81, dtype=np.float32).reshape(9, 9, 1)
    low, high = sorted((a, b))
    order = list(range(6))
    random.shuffle(order)
    assert (templates.fixed_region(pictures, low) <= templates.fixed_region(pictures, high)).all()
    assert (templates.fixed_region(pictures[order], high) == templates.fixed_region(pictures, high)).all()


def test_one_picture_has_no_fixed_region():
    with pytest.raises(ValueError, match="clique of at least 2"):
        templates.fixed_region(prints(1))


def test_region_share_is_the_part_of_the_variance_and_adds_up_to_1():
    picture, mask = noise(16, 16, 3), noise(16, 16, seed=1) > 0.7
    centred = picture.astype(float) - picture.astype(float).mean(axis=(0, 1))
    inside = sum(centred[i, j, c] ** 2 for i, j in np.argwhere(mask) for c in range(3))
    assert templates.region_share(picture, mask) == pytest.approx(inside / (16 * 16 * sum(picture[..., c].var() for c in range(3))), rel=1e-5)
    assert templates.region_share(picture, mask) + templates.region_share(picture, ~mask) == pytest.approx(1)


def test_a_large_flat_background_has_little_of_the_variance_and_a_flat_picture_none():
    picture = np.full((32, 32, 3), 0.95, np.float32)
    picture[:8, :8] = noise(8, 8, 3).round()
    background = binary_erosion((picture == np.float32(0.95)).all(axis=-1), border_value=1)
    assert background.mean() > 0.9
    assert templates.region_share(picture, background) < 0.1
    flat = np.full((8, 8, 3), 0.3, np.float32)
    assert templates.region_share(np.zeros((8, 8, 3), np.float32), np.ones((8, 8), bool)) == 0
    assert 0 <= templates.region_share(flat, np.ones((8, 8), bool)) <= 1


def test_masked_l2_is_websters_sum_and_over_the_whole_picture_l2():
    a, b, mask = noise(12, 12, 3), noise(12, 12, 3, seed=1), noise(12, 12, seed=2) > 0.5
    m = mask[..., None].astype(float)
    webster = np.sum((a * m - b * m) ** 2) / mask.mean()  # published; as RMS over H x W x 3
    assert templates.masked_l2(a, b, mask) == pytest.approx(np.sqrt(webster / (12 * 12 * 3)), rel=1e-6)
    assert templates.masked_l2(a, b, np.ones((12, 12), bool)) == pytest.approx(distances.l2(a, b))
    assert templates.masked_l2(a, b, mask) == templates.masked_l2(b, a, mask)


def test_what_lies_outside_the_mask_does_not_matter():
    a, mask = noise(8, 8, 3), np.tri(8, dtype=bool)
    assert templates.masked_l2(a, np.where(mask[..., None], a, 1 - a), mask) == 0


def test_an_empty_mask_or_one_of_another_size_is_refused():
    a = noise(8, 8, 3)
    with pytest.raises(ValueError, match="empty mask"):
        templates.masked_l2(a, a, np.zeros((8, 8), bool))
    with pytest.raises(ValueError, match="differ in size"):
        templates.masked_l2(a, a, np.ones((8, 9), bool))


def library(*layouts, n_others=30):
    """Each layout's picture, then pictures of nothing in particular."""
    return np.concatenate([np.stack(layouts), noise(n_others, 32, 32, 3, seed=7)])


def test_a_planted_template_is_found_with_its_training_picture():
    layout = noise(32, 32, 3, seed=99)
    made = templates.shared_template(prints(12), library(layout), np.ones(31, bool), SETTINGS)
    assert made is not None
    assert made["row"] == 0
    assert made["l2"] < 1e-6
    assert made["margin"] < 1e-5
    assert made["share"] == pytest.approx(0.75, abs=0.03)  # three quarters of the rows are the layout


def test_a_template_needs_a_clique_a_variation_and_a_picture_seen_in_training():
    layout = noise(32, 32, 3, seed=99)
    seen, unseen = np.ones(31, bool), np.arange(31) > 0
    plain_copies = np.clip(layout + 0.01 * np.random.default_rng(0).standard_normal((12, 32, 32, 3)), 0, 1).astype(np.float32)
    assert templates.shared_template(prints(9), library(layout), seen, SETTINGS) is None
    assert templates.shared_template(noise(12, 32, 32, 3), library(layout), seen, SETTINGS) is None
    assert templates.shared_template(plain_copies, library(layout), seen, SETTINGS) is None
    assert templates.shared_template(prints(12), library(layout), unseen, SETTINGS) is None
    assert templates.shared_template(prints(12), noise(31, 32, 32, 3, seed=7), seen, SETTINGS) is None


def test_a_layout_that_an_unseen_picture_shares_is_no_evidence():
    seen_print, unseen_print = prints(2, seed=50)
    is_member = np.arange(32) != 1
    assert templates.shared_template(prints(12), library(seen_print, unseen_print), is_member, SETTINGS) is None
    assert templates.shared_template(prints(12), library(seen_print, unseen_print), np.ones(32, bool), SETTINGS) is not None


@pytest.mark.parametrize(("deviation", "is_template"), [(0.085, False), (0.2, True)])
def test_a_copy_that_is_loose_in_one_part_is_no_template(deviation, is_template):
    layout = 0.2 + 0.6 * noise(32, 32, 3, seed=99)
    loose_copies = np.repeat(layout[None], 12, axis=0)
    loose_copies[:, 24:] += deviation * np.random.default_rng(0).standard_normal((12, 8, 32, 3)).astype(np.float32)
    assert not templates.fixed_region(loose_copies)[24:].any()
    found = templates.shared_template(loose_copies, library(layout), np.ones(31, bool), SETTINGS)
    assert (found is not None) == is_template


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.integers(0, 3))
def test_the_order_of_the_generations_and_of_the_library_does_not_matter(seed, n_strangers):
    rng, layout = np.random.default_rng(seed), noise(32, 32, 3, seed=99)
    pictures, shelf = np.concatenate([prints(11, seed=seed), noise(n_strangers, 32, 32, 3, seed=seed + 1)]), library(layout, n_others=8)
    order, place = rng.permutation(len(pictures)), rng.permutation(len(shelf))
    found = templates.shared_template(pictures, shelf, np.ones(9, bool), SETTINGS)
    again = templates.shared_template(pictures[order], shelf[place], np.ones(9, bool), SETTINGS)
    assert found is not None and again is not None
    assert found["row"] == place[again["row"]] == 0
    assert (found["mask"] == again["mask"]).all()
    assert [found[k] for k in ("share", "l2", "margin")] == pytest.approx([again[k] for k in ("share", "l2", "margin")], abs=1e-5)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.floats(0.05, 1), st.floats(0, 0.5))
def test_region_share_knows_neither_brightness_nor_contrast_and_a_larger_region_never_holds_less(seed, contrast, brightness):
    picture, mask = noise(10, 10, 3, seed=seed).astype(float), noise(10, 10, seed=seed + 1) > 0.5
    larger = mask | (noise(10, 10, seed=seed + 2) > 0.5)
    assert templates.region_share(contrast * picture + brightness, mask) == pytest.approx(templates.region_share(picture, mask))
    assert templates.region_share(picture, mask) <= templates.region_share(picture, larger) + 1e-12


@pytest.mark.parametrize("seed", range(3))
def test_pairs_of_one_layout_are_the_template_edges_between_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    pictures = np.concatenate([base, base, np.full((1, 32, 32, 3), 200, np.uint8)])
    pictures[3:6, : int(rng.integers(4, 28))] = rng.integers(0, 256, (3, 1, 32, 3), dtype=np.uint8)
    floats = pictures / np.float32(255)
    edges = templates.template_edges(distances.pairwise_tiles(floats), templates.tile_std(floats), 0.1)
    pairs = np.argwhere(np.triu(np.ones((7, 7), bool), 1))
    assert templates.same_layout(pictures, pairs, 0.1).tolist() == edges[pairs[:, 0], pairs[:, 1]].tolist()
