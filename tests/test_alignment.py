"""Alignment against planted crops, rotations, shifts and gains made by another library, and against what it must never undo."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from scipy import ndimage
from scipy.ndimage import gaussian_filter

from tasks.measures import alignment
from tasks.measures.distances import pairwise_l2

SIDE = 64
FORTH = np.array([[0, 1]])


def scene(seed: int, side: int = SIDE, blur: float = 4.0) -> np.ndarray:
    """[side, side, 3] uint8, smooth, within [13, 190]: no pixel saturates under a gain of 1.2."""
    rng = np.random.default_rng(seed)
    picture = gaussian_filter(rng.random((side, side, 3)), (blur, blur, 0), mode="reflect")
    low, high = picture.min(), picture.max()
    return np.rint(13 + 177 * (picture - low) / (high - low)).astype(np.uint8)


def resized(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def distances(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    l2, difference = alignment.aligned(np.stack([a, b]), FORTH)
    return float(l2[0]), float(difference[0])


def plain(a: np.ndarray, b: np.ndarray) -> float:
    return float(pairwise_l2((a / np.float32(255)).reshape(1, -1), (b / np.float32(255)).reshape(1, -1))[0, 0])


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "cropped by 5 % at a corner": lambda p: resized(p[3:, 3:]),
    "cropped by 5 % at a side": lambda p: resized(p[1:62, :61]),
    "cropped by a tenth": lambda p: resized(p[6:, 2:60]),
    "turned by 3 degrees over white": lambda p: np.asarray(Image.fromarray(p).rotate(3, Image.Resampling.BICUBIC, fillcolor=(255, 255, 255))),
    "turned by 3 degrees over black": lambda p: np.asarray(Image.fromarray(p).rotate(-3, Image.Resampling.BICUBIC)),
    "shifted by 2 px": lambda p: ndimage.shift(p, (2, -2, 0), order=1, mode="nearest"),
    "brighter by 15 %": lambda p: np.clip(p * 1.15, 0, 255).astype(np.uint8),
    "of more contrast": lambda p: np.clip((p - 128.0) * 1.15 + 138, 0, 255).astype(np.uint8),
    "turned, cropped and dimmed at once": lambda p: (resized(np.asarray(Image.fromarray(p).rotate(2, Image.Resampling.BICUBIC))[3:-1, 3:-1]) * 0.9)
    .astype(np.uint8),
}


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("seed", range(3))
def test_undoes_what_makes_a_copy(name: str, seed: int) -> None:
    picture = scene(seed)
    copy = COPIES[name](picture)
    l2, difference = distances(picture, copy)
    assert plain(picture, copy) > 0.02
    assert l2 < 0.015 and difference < 0.012


@pytest.mark.parametrize("contrast", [0.8, 1.2])
@pytest.mark.parametrize("seed", range(3))
def test_contrast_is_undone_by_a_fifth(seed: int, contrast: float) -> None:
    picture = np.full((SIDE, SIDE, 3), 255, np.uint8)  # a dark thing on white: pixels are far from the mean, which contrast keeps
    picture[16:48, 16:48] = scene(seed)[16:48, 16:48] // 2
    copy = np.asarray(ImageEnhance.Contrast(Image.fromarray(picture)).enhance(contrast))
    assert plain(picture, copy) > 0.05 and distances(picture, copy)[1] < 0.04


@pytest.mark.parametrize("seed", range(3))
def test_noise_and_blur_of_a_copy_average_out_within_a_tile(seed: int) -> None:
    picture = scene(seed, blur=1.0)
    noisy = np.clip(picture + np.random.default_rng(seed).normal(0, 20, picture.shape), 0, 255).astype(np.uint8)
    small = resized(np.asarray(Image.fromarray(picture).resize((32, 32), Image.Resampling.LANCZOS)))
    for copy in (noisy, small):
        l2, difference = distances(picture, copy)
        assert l2 > 0.03 and difference < 0.4 * l2


@pytest.mark.parametrize("seed", range(3))
def test_another_content_in_one_place_does_not_average_out(seed: int) -> None:
    picture, other = scene(seed), scene(seed)
    other[20:32, 20:32] = 255 - other[20:32, 20:32]
    l2, difference = distances(picture, other)
    assert difference > 0.1 and difference > l2


def with_detail(picture: np.ndarray, top: int, left: int, change: tuple[float, float, float]) -> np.ndarray:
    """The picture with the upper half of a tile of 8 px changed by so much red, green and blue, and its lower half by the opposite."""
    made = picture.astype(float)
    made[top:top + 4, left:left + 8] += change
    made[top + 4:top + 8, left:left + 8] -= change
    return np.rint(made).astype(np.uint8)


@pytest.mark.parametrize("seed", range(3))
def test_a_detail_that_averages_out_within_a_tile_counts_by_half_its_lightness(seed: int) -> None:
    picture = np.clip(scene(seed), 60, 190)
    other = with_detail(picture, 24, 32, (50, 50, 50))
    lightness = (other / 255.0 - picture / 255.0) @ (0.299, 0.587, 0.114)
    quarters = np.abs(lightness.reshape(16, 4, 16, 4).mean(axis=(1, 3)))
    assert distances(picture, other)[1] == pytest.approx(quarters.max() / 2, abs=0.015)
    assert distances(picture, with_detail(picture, 24, 32, (50 * 0.587, -50 * 0.299, 0)))[1] < 0.02, "another colour of the same lightness"


@pytest.mark.parametrize("seed", range(3))
def test_details_along_the_border_are_what_a_turn_or_a_crop_leaves_there(seed: int) -> None:
    picture = scene(seed)
    picture[:8, 32:40] = picture[24:32, 32:40] = 120
    edge, inside = picture.copy(), picture.copy()
    edge[:4, 32:36] = inside[28:32, 32:36] = 0
    assert distances(picture, inside)[1] == pytest.approx(120 / 255 / 2, abs=0.04)
    assert distances(picture, edge)[1] == pytest.approx(120 / 255 / 4, abs=0.04), "the mean of its tile alone"


@pytest.mark.parametrize("seed", range(4))
def test_does_not_make_unlike_pictures_alike_nor_undo_a_large_crop_turn_or_gain(seed: int) -> None:
    picture = scene(seed)
    others = [scene(seed + 50), resized(picture[20:, 20:]), np.rot90(picture), (picture * 0.3).astype(np.uint8), picture[:, ::-1]]
    assert all(distances(picture, np.ascontiguousarray(other))[1] > 0.06 for other in others)


def test_is_zero_for_the_same_picture_and_for_a_pair_with_itself() -> None:
    l2, difference = alignment.aligned(np.stack([scene(6), scene(6)]), np.array([[0, 1], [0, 0]]))
    assert l2.tolist() == difference.tolist() == [0, 0]


@given(st.integers(0, 1000), st.floats(0, 3), st.floats(0, 60), st.integers(0, 9))
@settings(deadline=None, max_examples=25)
def test_is_symmetric_at_most_plain_l2_and_within_bounds(seed: int, blur: float, noise: float, cut: int) -> None:
    rng = np.random.default_rng(seed)
    a = scene(seed, blur=blur)
    b = np.clip(resized(a[cut:, : SIDE - cut]) + rng.normal(0, noise, a.shape), 0, 255).astype(np.uint8)
    l2, difference = alignment.aligned(np.stack([a, b]), np.array([[0, 1], [1, 0]]))
    assert l2[0] == l2[1] and difference[0] == difference[1]
    assert 0 <= l2[0] <= 1 and 0 <= difference[0] <= 1


@pytest.mark.parametrize("seed", range(3))
def test_the_moves_are_those_of_a_search_over_a_grid_of_crops(seed: int) -> None:
    """A slow twin: every crop of up to a tenth at whole pixels, enlarged by PIL; the alignment is at least as near."""
    picture = scene(seed, blur=2.0)
    copy = resized(picture[4:62, 3:61])
    best = min(plain(resized(picture[top:top + side, left:left + side]), copy)
               for side in range(56, 65, 2) for top in range(0, 65 - side, 2) for left in range(0, 65 - side, 2))
    assert distances(picture, copy)[0] <= best + 0.002


def test_each_pair_stands_alone() -> None:
    pictures = np.stack([scene(seed) for seed in range(4)] + [resized(scene(0)[2:, 2:])])
    pairs = np.array([[0, 1], [2, 3], [0, 4], [1, 2]])
    together = alignment.aligned(pictures, pairs)
    for i, pair in enumerate(pairs):
        alone = alignment.aligned(pictures, pair[None])
        assert together[0][i] == pytest.approx(alone[0][0], abs=2e-5) and together[1][i] == pytest.approx(alone[1][0], abs=2e-5)
    assert all(len(part) == 0 for part in alignment.aligned(pictures, pairs[:0]))


def test_pictures_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="not \\[n, s, s, 3\\] with s a multiple of 32"):
        alignment.aligned(np.zeros((2, 40, 40, 3), np.uint8), FORTH)
