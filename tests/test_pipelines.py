"""Pictures depend on their seed alone, batches are padded, evaluations are counted, the screen is the formula of its paper."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tasks import _pipelines, _sources
from tasks._settings import UserError

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = {"n_steps": 2, "guidance_scale": 3.0}


@pytest.fixture(scope="module")
def sampler() -> _pipelines.Sampler:
    release = _sources.Release("v0", ROOT / "example" / "releases" / "v0", "d" * 64, SETTINGS, None)
    return _pipelines.sampler(release, batch_size=4, device="cpu", defaults=dict.fromkeys(_sources.SAMPLER))


def test_a_guided_step_costs_two_evaluations(sampler: _pipelines.Sampler) -> None:
    pictures, n_evaluations = sampler.pictures(["a cat"], [1])
    assert pictures.shape == (1, 32, 32, 3) and pictures.dtype == np.uint8 and n_evaluations == 4


def test_a_picture_is_the_same_to_the_bit_wherever_it_stands_in_a_padded_batch(sampler: _pipelines.Sampler) -> None:
    alone, _ = sampler.pictures(["a cat"], [7])
    among, _ = sampler.pictures(["a dog", "a cat", "a bird"], [1, 7, 3])
    assert (among[1] == alone[0]).all()


def test_other_batch_sizes_agree_within_tolerance(sampler: _pipelines.Sampler) -> None:
    other = _pipelines.Sampler(sampler.pipe, sampler.settings, 1, sampler.stack)
    assert np.abs(other.pictures(["a cat"], [7])[0].astype(int) - sampler.pictures(["a cat"], [7])[0]).max() <= 1


def test_the_noise_norm_is_the_difference_of_the_two_halves_of_a_step(sampler: _pipelines.Sampler) -> None:
    """Wen et al. 2024, written out by hand, on the model's own prediction."""
    pipe = sampler.pipe
    found = sampler.noise_norms(["a cat"], [[5]])[0, 0]
    pipe.scheduler.set_timesteps(sampler.settings["num_inference_steps"])
    t = next(t for t in pipe.scheduler.timesteps if pipe.scheduler.alphas_cumprod[int(t)] >= _pipelines.ALPHA_FLOOR)
    x = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(5))
    states = [pipe.text_encoder(pipe.tokenizer(text, padding="max_length", max_length=24, return_tensors="pt").input_ids)[0] for text in ("a cat", "")]
    text, empty = (pipe.unet(x, t, encoder_hidden_states=s).sample for s in states)
    assert found == pytest.approx(float((text - empty).norm()), rel=1e-4)
    assert float(pipe.scheduler.alphas_cumprod[int(t)]) >= 1e-3


def test_the_releases_own_settings_go_before_the_defaults() -> None:
    release = _sources.Release("v0", ROOT / "example" / "releases" / "v0", "d" * 64, {"n_steps": 3}, None)
    made = _pipelines.sampler(release, batch_size=1, device="cpu", defaults={"n_steps": 9, "guidance_scale": None})
    assert made.settings["num_inference_steps"] == 3 and made.settings["guidance_scale"] == 7.5


def test_a_broken_release_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}')
    with pytest.raises(UserError, match="release 'broken'") as error:
        _pipelines.sampler(_sources.Release("broken", tmp_path, "d", {}, None), batch_size=1, device="cpu", defaults={})
    assert "\n" not in str(error.value)
