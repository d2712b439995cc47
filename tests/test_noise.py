"""noise_norm against numpy's norm of each row, and its invariances."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.measures.noise import noise_norm


def predictions(n: int, shape: tuple[int, ...], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, *shape, generator=generator), torch.randn(n, *shape, generator=generator)


shapes = st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple)
cases = st.builds(predictions, st.integers(1, 5), shapes, st.integers(0, 10_000))
quick = settings(deadline=None, max_examples=60)


@given(cases)
@quick
def test_is_the_euclidean_norm_of_each_latents_difference(case):
    text, empty = case
    found = noise_norm(text, empty)
    reference = [np.linalg.norm((a.double() - b.double()).numpy().ravel()) for a, b in zip(text, empty, strict=True)]
    assert found.dtype == np.float32 and found.shape == (len(text),)
    np.testing.assert_allclose(found, reference, rtol=1e-5)


@given(cases)
@quick
def test_is_symmetric_and_zero_where_the_caption_changes_nothing(case):
    text, empty = case
    assert np.array_equal(noise_norm(text, empty), noise_norm(empty, text))
    assert not noise_norm(text, text).any()


@given(cases, st.floats(0.1, 10))
@quick
def test_grows_in_proportion_to_the_difference(case, scale):
    text, empty = case
    stretched = noise_norm(empty + scale * (text - empty), empty)
    np.testing.assert_allclose(stretched, scale * noise_norm(text, empty), rtol=1e-3, atol=1e-4)


@given(cases, st.integers(0, 1000))
@quick
def test_each_row_stands_alone_in_any_order_and_the_latents_shape_does_not_count(case, seed):
    text, empty = case
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(text)))
    found = noise_norm(text, empty)
    np.testing.assert_allclose(noise_norm(text[order], empty[order]), found[order.numpy()], rtol=1e-6)
    np.testing.assert_allclose(noise_norm(text.flatten(1), empty.flatten(1)), found, rtol=1e-6)
    np.testing.assert_allclose(found, np.sqrt([torch.nn.functional.mse_loss(a, b, reduction="sum") for a, b in zip(text, empty, strict=True)]), rtol=1e-5)


def test_a_caption_that_moves_the_prediction_stands_out_by_hand():
    empty = torch.zeros(2, 1, 2, 2)
    text = torch.tensor([[[[3.0, 0], [0, 4]]], [[[0.5, 0.5], [0.5, 0.5]]]])
    assert noise_norm(text, empty).tolist() == [5, 1]


def test_half_precision_is_widened_before_the_difference_and_the_sum():
    text, empty = torch.full((1, 4, 64, 64), 300.0, dtype=torch.float16), torch.zeros(1, 4, 64, 64, dtype=torch.float16)
    assert noise_norm(text, empty).tolist() == [300 * 128]  # its square is far beyond the largest half
    high, low = torch.tensor([[60000.0]], dtype=torch.float16), torch.tensor([[-60000.0]], dtype=torch.float16)
    assert np.isfinite(noise_norm(high, low)).all()  # the difference itself overflows in half


def test_takes_predictions_that_carry_gradients():
    text, empty = predictions(2, (3, 4), 0)
    np.testing.assert_array_equal(noise_norm(text.requires_grad_(), empty), noise_norm(text.detach(), empty))


def test_predictions_of_unlike_shapes_are_an_error_and_do_not_broadcast():
    with pytest.raises(ValueError, match="differ"):
        noise_norm(torch.zeros(2, 4), torch.zeros(1, 4))
