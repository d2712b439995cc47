"""Pictures depend on their seed alone, batches are padded and tried once, evaluations are counted, the screen is the formula of its paper."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

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


def test_batches_of_1_3_and_8_agree_within_tolerance_and_the_same_batch_to_the_bit(sampler: _pipelines.Sampler) -> None:
    captions, seeds = ["a cat", "a dog", "a bird", "a cat", "a boat"], [7, 8, 9, 10, 11]
    made = {n: [_pipelines.Sampler(sampler.pipe, sampler.settings, n, sampler.stack).pictures(captions, seeds)[0] for _ in range(2)] for n in (1, 3, 8)}
    for once, again in made.values():
        assert (once == again).all()
        assert np.abs(once.astype(int) - made[1][0]).max() <= 1


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


class Hungry:
    """A pipeline whose memory holds so many pictures at once."""

    def __init__(self, n: int, error: Exception) -> None:
        self.n, self.error, self.unet, self.calls = n, error, torch.nn.Identity(), []

    def __call__(self, prompt: list[str], generator: list[Any], output_type: str, num_inference_steps: int) -> SimpleNamespace:
        self.calls.append((len(prompt), num_inference_steps))
        for _ in range(num_inference_steps):
            self.unet(torch.zeros(len(prompt), 4))
        if len(prompt) > self.n:
            raise self.error
        return SimpleNamespace(images=np.zeros((len(prompt), 8, 8, 3), np.float32))


def hungry(n: int, error: Exception) -> _pipelines.Sampler:
    return _pipelines.Sampler(Hungry(n, error), {"num_inference_steps": 50}, 8, "torch 2, cuda, bfloat16")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(),
                                   RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")])
def test_a_batch_that_does_not_fit_stops_before_the_first_picture_and_names_the_largest_that_does(error: Exception) -> None:
    sampler = hungry(3, error)
    for _ in range(2):
        with pytest.raises(UserError, match="generations.batch_size is 8, and such a batch does not fit into memory .*; set it to 2, which does") as told:
            sampler.pictures(["a cat"], [1])
        assert "\n" not in str(told.value)
    assert sampler.pipe.calls == [(8, 2), (4, 2), (2, 2)]
    with pytest.raises(UserError, match="not even one picture does"):
        hungry(0, error).pictures(["a cat"], [1])


def test_a_batch_that_fits_is_tried_once_and_not_counted() -> None:
    sampler = hungry(8, MemoryError())
    assert [sampler.pictures(["a cat"] * 9, [1] * 9)[1] for _ in range(2)] == [50, 50]
    assert sampler.pipe.calls == [(8, 2), *[(8, 50)] * 4]


def test_another_error_of_the_trial_is_not_taken_for_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes do not match"):
        hungry(0, RuntimeError("shapes do not match")).pictures(["a cat"], [1])


def test_a_pipeline_that_makes_no_pictures_is_one_line() -> None:
    pipe = Hungry(8, MemoryError())
    film = _pipelines.Sampler(lambda *a, **k: SimpleNamespace(frames=pipe(*a, **k).images), {"num_inference_steps": 1}, 1, "")
    with pytest.raises(UserError, match="makes no pictures; only text-to-image"):
        film.require_fit()


def test_one_step_is_screened_where_it_has_signal_and_else_not_at_all() -> None:
    release = _sources.Release("v0", ROOT / "example" / "releases" / "v0", "d" * 64, {"n_steps": 1, "guidance_scale": 3.0}, None)
    made = _pipelines.sampler(release, batch_size=1, device="cpu", defaults={})
    if made.has_guidance_pair:
        assert np.isfinite(made.noise_norms(["a cat"], [[1]])).all()
    made.pipe.scheduler.alphas_cumprod = made.pipe.scheduler.alphas_cumprod * 1e-6
    assert not made.has_guidance_pair


@pytest.mark.parametrize("lacking", ["prompt", "generator", "output_type"])
def test_a_pipeline_without_what_an_audit_gives_it_is_one_line(lacking: str) -> None:
    names = [n for n in ("prompt", "generator", "output_type") if n != lacking]
    scope: dict[str, Any] = {}
    exec(f"class Odd:\n    def __call__(self, {', '.join(names)}): pass", scope)
    with pytest.raises(UserError, match=f"Odd takes no {lacking}; only text-to-image pipelines are audited"):
        _pipelines._call_settings(scope["Odd"](), {})
