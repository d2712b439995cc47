"""What params.yaml names is found or refused in one line; files are read once."""

import json
from pathlib import Path

import pytest

from tasks import _sources, _tables, inputs
from tasks._settings import UserError


def pipeline_folder(folder: Path, **index: object) -> Path:
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"], **index}))
    (folder / "unet" / "config.json").write_text(json.dumps({"sample_size": 8}))
    return folder


def test_a_hub_id_needs_a_pinned_revision() -> None:
    with pytest.raises(UserError, match="40 hexadecimal digits"):
        _sources.snapshot("owner/model", "main")


def test_a_missing_folder_is_named_with_the_way_out() -> None:
    with pytest.raises(UserError, match="./nowhere does not exist; give a diffusers folder"):
        _sources.snapshot("./nowhere", None)


def test_a_lora_is_a_file_or_a_folder_in_diffusers_layout(tmp_path: Path) -> None:
    weights = (2).to_bytes(8, "little") + b"{}"
    (tmp_path / "pytorch_lora_weights.safetensors").write_bytes(weights)
    (tmp_path / "lora.bin").write_bytes(weights)
    assert _sources.lora_file(str(tmp_path)) == _sources.lora_file(str(tmp_path / "pytorch_lora_weights.safetensors"))
    with pytest.raises(UserError, match="lora: lora.bin is no .safetensors file; convert the LoRA"):
        _sources.lora_file(str(tmp_path / "lora.bin"))
    with pytest.raises(UserError, match="lora: .*other does not exist; name a .safetensors file, or a folder with pytorch_lora_weights"):
        _sources.lora_file(str(tmp_path / "other"))


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
