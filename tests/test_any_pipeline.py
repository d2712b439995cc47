"""Any text-to-image pipeline that diffusers loads is audited: six layouts as people release them, and a LoRA on top of a base."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import yaml

from tasks import _hostile_models, _pipelines, _sources, _tables, inputs
from tasks._settings import UserError
from tests import tiny_pipelines

STEPS = {"sd1": 3, "sd2_v": 4, "sdxl": 4, "sd3": 4, "pixart": 4, "flux": 2}  # evaluations of two steps; sd1's own sampler adds one, twice guided
OWN_GUIDANCE = {"sd1": 7.5, "sd2_v": 7.5, "sdxl": 5.0, "sd3": 7.0, "pixart": 4.5, "flux": 3.5}
SCREENED = {"sd1", "sd2_v"}
SIDES = {"sd1": 16, "sd2_v": 16, "sdxl": 16, "sd3": 16, "pixart": 256, "flux": None}
ATTENTION = {"sd1": "AttnProcessor2_0", "sd2_v": "AttnProcessor2_0", "sdxl": "AttnProcessor2_0", "sd3": "JointAttnProcessor2_0",
             "pixart": "AttnProcessor2_0", "flux": "FluxAttnProcessor"}
kinds = pytest.mark.parametrize("kind", tiny_pipelines.KINDS)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory):
    """The folder of a release of this kind, made once."""
    folder, there = tmp_path_factory.mktemp("releases"), {}

    def of(kind: str) -> Path:
        there[kind] = there.get(kind) or tiny_pipelines.made(kind, folder / kind)
        return there[kind]

    return of


@pytest.fixture(scope="module")
def loaded(release: Any):
    """Its sampler, loaded once."""
    there: dict[str, _pipelines.Sampler] = {}

    def of(kind: str) -> _pipelines.Sampler:
        there[kind] = there.get(kind) or sampler_of(release(kind), kind)
        return there[kind]

    return of


def sampler_of(root: Path, kind: str, lora: Path | None = None, **settings: Any) -> _pipelines.Sampler:
    small = {"height_px": 16, "width_px": 16} if kind == "flux" else {}  # nothing in Flux's files says how large its pictures are
    accepted = _sources.Release(kind, root, "d" * 64, {"n_steps": 2, **small, **settings}, None, lora)
    return _pipelines.sampler(accepted, batch_size=2, device="cpu", defaults=dict.fromkeys(_sources.SAMPLER))


@kinds
def test_a_release_in_this_layout_is_accepted_and_makes_pictures_of_its_captions_and_seeds(release: Any, loaded: Any, kind: str) -> None:
    assert _sources.accepted({"model": str(release(kind)), "revision": None}) == release(kind)
    pictures, n_evaluations = loaded(kind).pictures(["a cat", "a dog", "a cat"], [1, 1, 2])
    side = SIDES[kind] or 16
    assert pictures.shape == (3, side, side, 3) and pictures.dtype == np.uint8
    assert n_evaluations == STEPS[kind] * (2 if kind == "sd1" else 1)
    assert (pictures[0] != pictures[1]).any() and (pictures[0] != pictures[2]).any()
    again, _ = loaded(kind).pictures(["a dog", "a cat"], [1, 1])
    assert (again[::-1] == pictures[:2]).all()


@kinds
def test_what_is_loaded_is_recorded_and_the_safety_checker_is_off(loaded: Any, kind: str) -> None:
    facts = loaded(kind).loaded
    assert facts["safety_checker"] == ("off" if kind == "sd1" else "none") and getattr(loaded(kind).pipe, "safety_checker", None) is None
    assert ATTENTION[kind] in facts["attention"] and "native" in facts["attention"] and facts["lora"] == "none"
    assert facts["pipeline"] == type(loaded(kind).pipe).__name__ and facts["scheduler"] and facts["transformers"][0].isdigit()
    assert loaded(kind).stack.endswith(", cpu, float32")


@kinds
def test_settings_that_are_not_named_are_the_pipelines_own(release: Any, loaded: Any, kind: str) -> None:
    assert loaded(kind).settings["guidance_scale"] == OWN_GUIDANCE[kind] == _pipelines.own_settings(release(kind))["guidance_scale"]


@kinds
def test_only_a_u_net_that_the_text_alone_conditions_is_screened(release: Any, loaded: Any, kind: str) -> None:
    assert loaded(kind).has_guidance_pair is (kind in SCREENED) is _sources.may_be_screened(release(kind))
    assert _sources.side_px(release(kind)) == SIDES[kind]
    if kind in SCREENED:
        norms = loaded(kind).noise_norms(["a cat", "a dog"], [[1, 2], [1, 2]])
        assert norms.shape == (2, 2) and (norms > 0).all() and (norms[0] != norms[1]).all()


def test_without_guidance_and_without_a_timestep_that_has_signal_there_is_no_screen(release: Any) -> None:
    import diffusers

    assert not sampler_of(release("sd2_v"), "sd2_v", guidance_scale=1.0).has_guidance_pair
    one_step = sampler_of(release("sd2_v"), "sd2_v", n_steps=1)
    assert one_step.has_guidance_pair
    config = one_step.pipe.scheduler.config
    one_step.pipe.scheduler = diffusers.DDIMScheduler.from_config(config, rescale_betas_zero_snr=True, timestep_spacing="trailing")
    assert not one_step.has_guidance_pair
    assert one_step.pictures(["a cat"], [1])[0].shape == (1, 16, 16, 3)


def test_a_setting_that_the_pipeline_cannot_do_is_one_line(release: Any) -> None:
    with pytest.raises(UserError, match="StableDiffusionPipeline does not take these settings, .*'height': 17.*divisible by 8") as error:
        sampler_of(release("sd1"), "sd1", height_px=17, width_px=17).pictures(["a cat"], [1])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["sd1", "sdxl", "sd3", "flux"])
def test_a_lora_changes_the_pictures_of_its_base_and_one_of_no_strength_does_not(release: Any, loaded: Any, tmp_path: Path, kind: str) -> None:
    base, _ = loaded(kind).pictures(["a cat"], [1])
    strong = _sources.lora_file(str(tiny_pipelines.put_lora(release(kind), tmp_path / "strong", 20.0)))
    with_it = sampler_of(release(kind), kind, strong)
    assert with_it.loaded["lora"] == "loaded, scale 1" and (with_it.pictures(["a cat"], [1])[0] != base).any()
    none = _sources.lora_file(str(tiny_pipelines.put_lora(release(kind), tmp_path / "none", 0.0) / "pytorch_lora_weights.safetensors"))
    assert np.abs(sampler_of(release(kind), kind, none).pictures(["a cat"], [1])[0].astype(int) - base).max() <= 1


def test_a_lora_of_another_model_is_refused_and_so_is_one_where_diffusers_loads_none(release: Any, tmp_path: Path) -> None:
    lora = _sources.lora_file(str(tiny_pipelines.put_lora(release("sd3"), tmp_path / "lora")))
    with pytest.raises(UserError, match="release 'sd1'") as error:
        sampler_of(release("sd1"), "sd1", lora)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="diffusers loads no LoRA into PixArtAlphaPipeline; fuse it"):
        sampler_of(release("pixart"), "pixart", lora)
    other = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"unrelated.lora_A.weight": safetensors.torch.load_file(lora)[next(iter(safetensors.torch.load_file(lora)))]}, other)
    with pytest.raises(UserError, match="release 'sd1'"):
        sampler_of(release("sd1"), "sd1", other)


def test_the_digest_of_a_release_is_that_of_its_base_and_its_lora(release: Any, in_folder: Path) -> None:
    (in_folder / "pictures").mkdir()
    (in_folder / "pictures" / "0.txt").write_text("a cat")
    first, second = (tiny_pipelines.put_lora(release("sd1"), in_folder / name, strength) for name, strength in (("one", 1.0), ("two", 2.0)))
    root = str(release("sd1"))
    named = {"base": {"model": root}, "one": {"model": root, "lora": str(first)}, "two": {"model": root, "lora": str(second)},
             "gone": {"model": root, "lora": "nowhere"}}
    params = {"training_set": {"members": {"format": "image_folder", "path": "pictures"}}, "releases": named, "prompts": {}, "report": {}}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    inputs.main()
    accepted = {name: _sources.release(name) for name in ("base", "one", "two")}
    assert len({r.digest for r in accepted.values()}) == 3 and accepted["base"].lora is None
    assert accepted["one"].lora == first / "pytorch_lora_weights.safetensors"
    (row,) = _tables.read("inputs", side="releases/gone").to_pylist()
    assert row["reason"] == "lora: nowhere does not exist; name a .safetensors file, or a folder with pytorch_lora_weights.safetensors"
    (first / "pytorch_lora_weights.safetensors").write_bytes((second / "pytorch_lora_weights.safetensors").read_bytes())
    inputs.main()
    assert _sources.release("one").digest == accepted["two"].digest


@kinds
def test_nothing_is_held_against_an_honest_release(release: Any, kind: str) -> None:
    assert _hostile_models.refusal(release(kind)) is None
