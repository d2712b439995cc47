"""Thumbnails against Pillow, and the copy measured in pixels and bits."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tasks.measures.distances import l2
from tasks.measures.thumbnails import search_bits, thumbnail, thumbnail_px


def drawing(side=32, seed=0):
    """A smooth coloured picture with some grain: every thumbnail loses something."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((1, 3, 5, 5), np.float32))
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")[0].permute(1, 2, 0).numpy()
    return np.clip(smooth + 0.03 * rng.standard_normal((side, side, 3)), 0, 1).astype(np.float32)


def _reference_pillow_box(picture, side):
    channels = [Image.fromarray(picture[..., c]).resize((side, side), Image.Resampling.BOX) for c in range(3)]
    return np.stack([np.asarray(c) for c in channels], axis=-1)


@pytest.mark.parametrize("side", [1, 2, 4, 8, 16])
def test_the_way_down_is_pillows_box_filter(side):
    picture = drawing()
    small = _reference_pillow_box(picture, side)
    up = torch.nn.functional.interpolate(torch.from_numpy(small).permute(2, 0, 1)[None], (32, 32), mode="bicubic").clamp(0, 1)
    np.testing.assert_allclose(thumbnail(picture, side), up[0].permute(1, 2, 0).numpy(), atol=1e-5)


def test_the_full_side_is_the_picture_and_one_pixel_its_mean_colour():
    picture = drawing()
    np.testing.assert_allclose(thumbnail(picture, 32), picture, atol=1e-6)
    np.testing.assert_allclose(thumbnail(picture, 1), np.broadcast_to(picture.mean((0, 1)), picture.shape), atol=1e-5)


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(0, 1000))
def test_a_thumbnail_keeps_shape_type_and_range_though_bicubic_overshoots(side, seed):
    picture = (np.random.default_rng(seed).random((9, 14, 3)) > 0.5).astype(np.float32)
    made = thumbnail(picture, side)
    assert made.shape == picture.shape
    assert made.dtype == np.float32
    assert 0 <= made.min() <= made.max() <= 1


def test_a_thumbnail_of_no_or_too_many_pixels_is_refused():
    for side in (0, 33):
        with pytest.raises(ValueError, match=f"32 x 32 px has no thumbnail of {side} px"):
            thumbnail(drawing(), side)


def test_a_copy_takes_the_whole_picture():
    picture = drawing()
    assert thumbnail_px(picture, picture) == 32


@pytest.mark.parametrize("side", [1, 3, 8, 12, 16])
def test_a_planted_thumbnail_is_given_its_own_side(side):
    picture = drawing()
    closer = [s for s in range(1, side) if l2(thumbnail(picture, s), picture) <= l2(thumbnail(picture, side), picture)]
    assert closer == []  # so that nothing smaller is as close in this picture
    assert thumbnail_px(thumbnail(picture, side), picture) == side


@settings(deadline=None, max_examples=30)
@given(st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_closer_generation_is_never_given_a_smaller_thumbnail(a, b):
    picture = drawing(16)
    near, far = sorted((a, b))
    worse = lambda share: (picture + np.float32(share) * (0.5 - picture)).astype(np.float32)
    assert thumbnail_px(worse(near), picture) >= thumbnail_px(worse(far), picture)


@settings(deadline=None, max_examples=30)
@given(st.floats(0, 0.6), st.integers(0, 1000))
def test_the_side_is_the_smallest_of_all_that_are_as_close(share, seed):
    picture = drawing(12, seed)
    generated = ((1 - share) * picture + np.float32(share) * drawing(12, seed + 1)).astype(np.float32)
    as_close = [side for side in range(1, 13) if side == 12 or l2(thumbnail(picture, side), picture) <= l2(generated, picture)]
    assert thumbnail_px(generated, picture) == as_close[0]
    assert thumbnail_px(np.flip(generated, 1).copy(), np.flip(picture, 1).copy()) == as_close[0]  # mirrored alike


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 9), st.integers(0, 1000))
def test_a_mirrored_or_turned_picture_has_the_mirrored_or_turned_thumbnail(side, seed):
    picture = drawing(9, seed)
    for moved in (lambda x: np.flip(x, 1).copy(), lambda x: np.rot90(x).copy()):
        np.testing.assert_allclose(thumbnail(moved(picture), side), moved(thumbnail(picture, side)), atol=1e-5)


def test_closeness_is_not_monotone_so_the_smallest_side_is_searched_for():
    # a box filter onto 25 of 32 pixels straddles pixels and is further away than the one onto every second pixel
    picture = drawing()
    assert l2(thumbnail(picture, 16), picture) < l2(thumbnail(picture, 25), picture)
    assert thumbnail_px(thumbnail(picture, 25), picture) == 16


def test_another_picture_holds_at_most_a_pixel_of_this_one():
    assert thumbnail_px(1 - drawing(), drawing()) == 1


def test_a_picture_that_is_not_square_is_measured_by_its_shorter_side():
    picture = np.concatenate([drawing(16), drawing(16, seed=1)], axis=1)
    assert thumbnail_px(picture, picture) == 16


def test_pictures_of_different_size_are_refused():
    with pytest.raises(ValueError, match="have no distance"):
        thumbnail_px(drawing(16), drawing(32))


def test_search_bits_are_those_of_the_choice_and_of_the_caption():
    assert search_bits(512, 1, 0) == 9
    assert search_bits(512, 350_000, 60) == pytest.approx(np.log2(512) + np.log2(350_000) + 480)
    assert search_bits(1, 1, 0) == 0
    with pytest.raises(ValueError, match="0 generations, 1 prompts"):
        search_bits(0, 1, 5)


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(0, 500))
def test_each_doubling_of_the_search_costs_a_bit_and_each_byte_of_the_caption_eight(n_generations, n_prompts, caption_bytes):
    found = search_bits(n_generations, n_prompts, caption_bytes)
    assert found >= 8 * caption_bytes
    assert search_bits(2 * n_generations, n_prompts, caption_bytes) == pytest.approx(found + 1)
    assert search_bits(n_generations, 2 * n_prompts, caption_bytes + 1) == pytest.approx(found + 9)
    assert search_bits(n_prompts, n_generations, caption_bytes) == pytest.approx(found)
