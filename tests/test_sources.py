"""Hostile and broken releases are refused in one line and run nothing; files are read once."""

import json
import os
import pickle
from pathlib import Path

import pytest

from tasks import _sources, _tables, inputs
from tasks._settings import UserError


def pipeline_folder(folder: Path, **index: object) -> Path:
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"], **index}))
    (folder / "unet" / "config.json").write_text(json.dumps({"sample_size": 8}))
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"weights")
    return folder


class Marker:
    """A pickle that leaves a file behind where it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (open, (str(self.path), "w"))


def test_accepts_a_plain_diffusers_folder(tmp_path: Path) -> None:
    assert _sources.refusal(pipeline_folder(tmp_path / "model")) is None


def test_refuses_pickled_weights_and_loads_nothing(tmp_path: Path) -> None:
    model = pipeline_folder(tmp_path / "model")
    (model / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Marker(tmp_path / "ran")))
    assert "safetensors" in str(_sources.refusal(model))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [("pipeline.py", "is code"), ("unet/extra.pkl", "pickled"), ("unet/weights.ckpt", "pickled")],
)
def test_refuses_code_and_unknown_weights_by_name(tmp_path: Path, name: str, said: str) -> None:
    model = pipeline_folder(tmp_path / "model")
    (model / name).write_text("open('ran', 'w')")
    assert said in str(_sources.refusal(model))


def test_refuses_classes_from_elsewhere_and_a_class_name_that_is_a_list(tmp_path: Path) -> None:
    assert "'evil'" in str(_sources.refusal(pipeline_folder(tmp_path / "a", vae=["evil", "Vae"])))
    assert "names no pipeline class" in str(_sources.refusal(pipeline_folder(tmp_path / "b", _class_name=["pipeline", "Custom"])))


def test_refuses_a_link_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    model = pipeline_folder(tmp_path / "model")
    os.symlink(tmp_path / "secret.json", model / "unet" / "more.json")
    assert "link out of the folder" in str(_sources.refusal(model))


def test_stable_diffusion_1_is_taken_though_its_safety_checker_is_from_elsewhere(tmp_path: Path) -> None:
    model = pipeline_folder(tmp_path / "model", safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])
    assert _sources.refusal(model) is None
    model = pipeline_folder(tmp_path / "other", scheduler=["stable_diffusion", "AnyScheduler"])
    assert "component scheduler comes from 'stable_diffusion'" in str(_sources.refusal(model))


def test_a_hub_id_needs_a_pinned_revision() -> None:
    with pytest.raises(UserError, match="40 hexadecimal digits"):
        _sources.snapshot("owner/model", "main")


def test_a_missing_folder_is_named_with_the_way_out() -> None:
    with pytest.raises(UserError, match="./nowhere does not exist; give a diffusers folder"):
        _sources.snapshot("./nowhere", None)


def test_release_names_may_have_dots_but_lead_nowhere_else() -> None:
    for name in ("sd-v1.5", "v1"):
        _sources.require_name(name)
    with pytest.raises(UserError, match="cannot be a folder"):
        _sources.require_name("../v1")


def test_the_side_is_read_from_the_configuration(tmp_path: Path) -> None:
    model = pipeline_folder(tmp_path / "model")
    (model / "vae").mkdir()
    (model / "vae" / "config.json").write_text(json.dumps({"block_out_channels": [24, 24, 24]}))
    assert _sources.side_px(model) == 32


def test_a_digest_is_remembered_by_path_size_and_time(in_folder: Path) -> None:
    file = in_folder / "picture.png"
    file.write_bytes(b"one")
    first = _sources.Digests()
    assert first.of(file)[1] == "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    first.keep()
    again = _sources.Digests()
    assert list(again.known.values()) == [first.of(file)[1]]
    before = again.of(file)[1]
    file.write_bytes(b"other")
    assert again.of(file)[1] != before


def test_a_release_is_the_digest_of_all_its_files_or_its_refusal(in_folder: Path) -> None:
    file = dict.fromkeys(inputs.SCHEMA.names) | {"source": "v1", "kind": "model", "root": "model", "path": "a", "sha256": "0" * 64, "status": "ok"}
    put = lambda *rows: _tables.put(_tables.table(list(rows), inputs.SCHEMA), _tables.path("inputs", side="releases/v1"))  # noqa: E731
    put(file | {"settings": '{"n_steps": 2}'}, file | {"kind": "kept", "path": "kept.csv"})
    first = _sources.release("v1")
    assert first.settings == {"n_steps": 2} and first.kept == Path("model/kept.csv")
    put(file | {"sha256": "1" * 64})
    assert _sources.release("v1").digest != first.digest
    put(file | {"status": "refused", "reason": "x.bin is pickled"})
    with pytest.raises(UserError, match="release 'v1' is refused: x.bin is pickled"):
        _sources.release("v1")


def test_only_a_u_net_that_the_text_alone_conditions_may_be_screened(tmp_path: Path) -> None:
    model = pipeline_folder(tmp_path / "model")
    assert _sources.may_be_screened(model)
    (model / "unet" / "config.json").write_text(json.dumps({"addition_embed_type": "text_time"}))
    assert not _sources.may_be_screened(model) and not _sources.may_be_screened(tmp_path)
