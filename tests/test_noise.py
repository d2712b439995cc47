"""The text-conditional noise norm against a loop, in any precision."""

import numpy as np
import pytest
import torch

from tasks.measures.noise import noise_norm


def test_the_norm_runs_over_all_latent_dimensions_of_each_picture():
    rng = np.random.default_rng(0)
    text, empty = rng.standard_normal((2, 3, 4, 8, 8)).astype(np.float32)
    made = noise_norm(torch.from_numpy(text), torch.from_numpy(empty))
    expected = [np.sqrt(sum(float(d) ** 2 for d in (a - b).ravel())) for a, b in zip(text, empty, strict=True)]
    np.testing.assert_allclose(made, expected, rtol=1e-5)
    assert made.dtype == np.float32
    assert made.shape == (3,)


def test_a_caption_without_effect_scores_0_and_twice_the_effect_twice_as_much():
    empty, shift = torch.zeros(2, 4, 4, 4), torch.ones(2, 4, 4, 4)
    assert noise_norm(empty, empty).tolist() == [0, 0]
    assert noise_norm(empty + shift, empty).tolist() == [8, 8]
    assert noise_norm(empty + 2 * shift, empty).tolist() == noise_norm(empty, empty + 2 * shift).tolist() == [16, 16]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_neither_overflows_nor_drowns_in_rounding(dtype):
    text, empty = torch.full((1, 4, 64, 64), 300.0, dtype=dtype), torch.zeros(1, 4, 64, 64, dtype=dtype)
    assert noise_norm(text, empty)[0] == pytest.approx(300 * 128, rel=1e-3)  # 38,400 squared is beyond float16


def test_a_prediction_that_still_has_its_graph_is_accepted():
    text = torch.ones(1, 2, requires_grad=True)
    assert noise_norm(text, torch.zeros(1, 2))[0] == pytest.approx(np.sqrt(2))


def test_predictions_of_other_shapes_are_refused_rather_than_broadcast():
    with pytest.raises(ValueError, match=r"\(2, 4\) and eps_empty \(1, 4\) differ"):
        noise_norm(torch.zeros(2, 4), torch.zeros(1, 4))
