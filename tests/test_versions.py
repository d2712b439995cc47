"""The dear stages: their code is no dep of theirs, so a change of what they make must come with a new version.

Golden values by version, made on a CPU; the tolerance is far above what another processor changes and far below what a change of
method does. Where a test fails and the change is wanted: raise <stage>.version in params.yaml and add its values here.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
import yaml

from tasks import _embedders, _pictures, _pipelines, _sources, generations, images, screening
from tests import tiny_sets
from tests.conftest import ROOT

PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
CAPTIONS = ["military helmet", "rocket, drawn as an icon"]
GOLDEN: dict[str, dict[int, list[float]]] = {
    "images": {1: [
        0.495, 0.607, 0.498, 0.5, 1.0, 0.853, 0.511, 0.527, 0.508, 0.5, 1.0, 0.83,
        0.53, 0.477, 0.507, 0.5, 1.0, 0.832, 0.409, 0.409, 0.409, 0.5, 1.0, 0.77,
        0.738, 0.744, 0.765, 0.5, 0.72, 0.789, 0.433, 0.502, 0.486, 0.5, 1.0, 0.877,
        0.511, 0.479, 0.574, 0.5, 1.0, 0.744, 0.537, 0.384, 0.525, 0.5, 1.0, 0.829,
    ]},
    "screening": {1: [
        1.443, 0.733,
    ]},
    "generations": {1: [
        0.453, 0.665, 0.61, 0.796, 0.934, 0.718, 0.723, 0.935,
    ]},
    "image_embeddings": {1: [
        -0.043, 0.006, -0.078, -0.004, 0.027, -0.011,
        -0.061, 0.02,
    ]},
}


@pytest.fixture(scope="module")
def sampler() -> _pipelines.Sampler:
    release = _sources.Release("v1", ROOT / "example" / "releases" / "v1", "d" * 64, {"n_steps": 12, "guidance_scale": 3.0}, None)
    return _pipelines.sampler(release, batch_size=8, device="cpu", defaults=dict.fromkeys(_sources.SAMPLER))


def require_golden(stage: str, made: np.ndarray) -> None:
    version = PARAMS[stage]["version"]
    assert version in GOLDEN[stage], f"{stage}.version is {version}: add what it makes, {np.round(made, 3).tolist()}"
    assert np.allclose(made, GOLDEN[stage][version], atol=0.02), f"{stage} makes {np.round(made, 3).tolist()}; raise {stage}.version in params.yaml"


def test_the_screen_measures_what_its_version_measured(sampler: _pipelines.Sampler) -> None:
    prompts = pa.table({"prompt_id": [1, 2], "caption": CAPTIONS})
    require_golden("screening", screening.mean_norms(prompts, sampler.noise_norms, n_seeds=4, seed=0) / 10)


def test_pictures_are_those_of_their_version(sampler: _pipelines.Sampler) -> None:
    seeds = [generations.seed_of(0, prompt_id, 0) for prompt_id in (1, 2)]
    pictures, n_evaluations = sampler.pictures(CAPTIONS, seeds)
    assert n_evaluations == 24
    require_golden("generations", pictures.reshape(2, 2, 16, 2, 16, 3).mean(axis=(2, 4, 5)).ravel() / 255)


def test_rows_of_pictures_are_those_of_their_version() -> None:
    """Of every kind of good file: mean colours, share of PDQ's bits that are set, its quality, complexity in kB."""
    made = []
    for number, (suffix, data) in enumerate(tiny_sets.ODD.values()):
        row = images.image({"key": "a", "name": f"a.{suffix}", "data": data(number)}, "member", PARAMS["images"]["jpeg_quality"])
        bits = bin(int(row["pdq"], 16)).count("1") / 256
        made += [*(_pictures.canonical(data(number)).mean(axis=(0, 1)) / 255), bits, row["pdq_quality"] / 100, row["complexity_bytes"] / 1000]
    require_golden("images", np.array(made))


def test_descriptors_are_those_of_their_version(picture: Callable[..., np.ndarray]) -> None:
    settings = PARAMS["image_embeddings"]
    model = _embedders.embedder(settings["descriptor"], settings["path"])
    require_golden("image_embeddings", model.descriptors([picture(1)], 32)[0, :8])


def test_both_embeddings_share_one_version_and_every_dear_stage_has_one() -> None:
    assert all(isinstance(PARAMS[stage]["version"], int) for stage in GOLDEN)
