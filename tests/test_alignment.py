"""aligned_l2 against planted crops, shifts and gains, and against a slow search over the same placements."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch.nn import functional

from tasks.measures import alignment
from tasks.measures.distances import l2

SIDE = 32
FORTH = np.array([[0, 1]])
BOTH = np.array([[0, 1], [1, 0]])


def scene(seed: int, side: int = SIDE, blur: float = 3.0) -> np.ndarray:
    """[side, side, 3] smooth picture in [0.05, 0.75]: no pixel saturates under a gain of 1.2."""
    rng = np.random.default_rng(seed)
    picture = gaussian_filter(rng.random((side, side, 3)), (blur, blur, 0), mode="wrap")
    low, high = picture.min(), picture.max()
    return (0.05 + 0.7 * (picture - low) / (high - low)).astype(np.float32)


def cropped(picture: np.ndarray, zoom: float, x: float, y: float) -> np.ndarray:
    """The picture cropped to zoom of its side around (x, y), enlarged again: interpolated by hand, not by grid_sample."""
    height, width = picture.shape[:2]
    out = np.empty_like(picture)
    for row in range(height):
        for column in range(width):
            v = (zoom * ((2 * row + 1) / height - 1) + y + 1) * height / 2 - 0.5
            u = (zoom * ((2 * column + 1) / width - 1) + x + 1) * width / 2 - 0.5
            v, u = np.clip(v, 0, height - 1), np.clip(u, 0, width - 1)
            top, left = min(int(v), height - 2), min(int(u), width - 2)
            a, b = v - top, u - left
            out[row, column] = ((1 - a) * ((1 - b) * picture[top, left] + b * picture[top, left + 1])
                                + a * ((1 - b) * picture[top + 1, left] + b * picture[top + 1, left + 1]))
    return out


def pair_l2(a: np.ndarray, b: np.ndarray, enough: float = 0.0, **options: float) -> float:
    return float(alignment.aligned_l2(np.stack([a, b]), FORTH, enough, **options)[0])


def test_views_crop_as_an_interpolation_by_hand_does():
    picture = scene(0)
    places = alignment.placements(0.0625)
    seen = alignment.views(torch.from_numpy(picture.transpose(2, 0, 1).copy()), places)
    for row in (0, 1, 9, 17, 36):
        np.testing.assert_allclose(seen[row].numpy().transpose(1, 2, 0), cropped(picture, *places[row].tolist()), atol=2e-6)


def test_placements_begin_with_the_whole_picture_and_never_leave_it():
    places = alignment.placements(0.1, n_steps=3).numpy()
    assert places[0].tolist() == [1, 0, 0]
    assert len(places) == 1 + 3 * 9 and len(np.unique(places, axis=0)) == len(places)
    assert places[:, 0].min() == pytest.approx(0.9)
    assert (np.abs(places[:, 1:]) + places[:, :1] <= 1 + 1e-6).all()


@pytest.mark.parametrize("place", [(0.9375, 0.0625, -0.0625), (0.9375, 0.0, 0.0), (0.96875, -0.03125, 0.03125)])
@pytest.mark.parametrize("gain", [1.0, 1.2, 1 / 1.2, 0.9])
def test_undoes_a_planted_crop_and_a_planted_brightness(place, gain):
    picture = scene(1)
    copy = gain * cropped(picture, *place)
    assert l2(picture, copy) > 0.02
    assert pair_l2(picture, copy) < 1e-4


@pytest.mark.parametrize("seed", range(5))
def test_takes_a_quarter_off_a_shift_by_one_pixel(seed):
    picture = scene(seed, side=40)
    first, second = picture[4:36, 4:36], picture[4:36, 5:37]
    coarse = pair_l2(first, second)
    assert coarse < 0.75 * l2(first, second)
    assert pair_l2(first, second, enough=0.6 * coarse) <= coarse


def test_does_not_undo_more_brightness_than_it_may():
    picture = scene(3)
    least = l2(1.2 * 0.7 * picture, picture), l2(picture / 1.2, 0.7 * picture)
    assert pair_l2(picture, 0.7 * picture, max_crop=0.0) == pytest.approx(min(least), rel=1e-4)
    assert pair_l2(picture, 0.7 * picture, max_crop=0.0, max_gain=1.5) < 1e-6


def test_does_not_make_unlike_pictures_alike():
    assert pair_l2(scene(4), scene(5)) > 0.1


def test_is_zero_for_the_same_picture_and_for_a_pair_with_itself():
    pictures = np.stack([scene(6), scene(6)])
    assert alignment.aligned_l2(pictures, np.array([[0, 1], [0, 0]]), 0.1).tolist() == [0, 0]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("blur", [0.0, 1.5])
def test_is_symmetric_at_most_plain_l2_and_at_least_zero(seed, blur):
    a = scene(seed, blur=blur)
    b = np.clip(cropped(a, 0.97, 0.01, -0.02) + np.random.default_rng(seed).normal(0, 0.1, a.shape), 0, 1).astype(np.float32)
    plain = l2(a, b)
    forth, back = alignment.aligned_l2(np.stack([a, b]), BOTH, 0.6 * plain)
    assert forth == back
    assert 0 < forth <= plain + 1e-6


@pytest.mark.parametrize("seed", [73, 109, 132])
def test_is_symmetric_where_both_directions_tie_as_for_black_and_white_pictures(seed):
    rng = np.random.default_rng(seed)
    grey = functional.interpolate(torch.from_numpy(rng.random((1, 3, 12, 12), dtype=np.float32)), (64, 64), mode="bicubic")[0]
    zoom = 1 - rng.uniform(0.003, 0.012)
    x, y = (1 - zoom) * rng.uniform(-1, 1, 2)
    near = alignment.views(grey, torch.tensor([[zoom, x, y]], dtype=torch.float32))[0]
    pictures = (torch.stack([grey, near]) > 0.5).float().permute(0, 2, 3, 1).numpy()
    forth, back = alignment.aligned_l2(pictures, BOTH, 0.6 * l2(pictures[0], pictures[1]))
    assert forth == back


def test_agrees_with_a_slow_search_over_all_placements_and_many_gains():
    a, b = scene(7), 0.5 * scene(7) + 0.5 * scene(8)
    gains = np.append(np.linspace(1 / 1.2, 1.2, 400), 1)[:, None]
    best = np.inf
    for source, target in ((a, b), (b, a)):
        for place in alignment.placements(0.0625).tolist():
            view = cropped(source, *place).ravel()
            best = min(best, np.sqrt(np.square(np.clip(gains * view, 0, 1) - target.ravel()).mean(axis=1)).min())
    assert pair_l2(a, b) == pytest.approx(best, abs=1e-4)  # enough = 0: nothing is refined


def test_refines_only_between_enough_and_twice_enough_and_only_to_the_better():
    a = scene(9)
    b = cropped(a, 0.975, 0.012, -0.02)  # between two placements of the grid
    coarse = pair_l2(a, b, enough=0.0)
    assert coarse > 0
    assert pair_l2(a, b, enough=coarse) == coarse
    assert pair_l2(a, b, enough=0.49 * coarse) == coarse
    assert pair_l2(a, b, enough=0.7 * coarse) < 0.8 * coarse


def test_saturated_pixels_do_not_set_the_gain():
    picture = scene(10)
    picture[: SIDE // 2] = 1.0
    dimmed = picture / 1.15
    dimmed[: SIDE // 2] = 1.0  # a clipped sky stays white whatever the exposure
    assert pair_l2(picture, dimmed, max_crop=0.0) < 1e-4


def test_each_pair_stands_alone():
    pictures = np.stack([scene(seed) for seed in range(4)])
    pairs = np.array([[0, 1], [2, 3], [0, 3], [1, 2]])
    together = alignment.aligned_l2(pictures, pairs, 0.1)
    alone = [alignment.aligned_l2(pictures, pair[None], 0.1)[0] for pair in pairs]
    assert together.tolist() == alone
    assert len(alignment.aligned_l2(pictures, pairs[:0], 0.1)) == 0
