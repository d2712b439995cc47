"""No hostile release is loaded and nothing of it runs: each case would leave a file behind if it did, or is broken in a way that must be one line.

The cases go the way of an audit: `inputs` looks at the folder, and what only loading shows, loading refuses. Loading is asked in any case.
"""

import io
import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from tasks import _hostile_models, _pipelines, _sources
from tasks._settings import UserError
from tests import tiny_pipelines

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


class Marker:
    """A pickle that leaves a file behind where it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (open, (str(self.path), "w"))


def pickled(ran: Path, protocol: int = 2) -> bytes:
    return pickle.dumps(Marker(ran), protocol)


def archived(ran: Path) -> bytes:
    """As PyTorch saves it."""
    buffer = io.BytesIO()
    torch.save({"weight": Marker(ran)}, buffer)
    return buffer.getvalue()


def code(ran: Path) -> str:
    """A module that leaves a file behind where it is imported,."""
    return f"open({str(ran)!r}, 'w')\nfrom diffusers import StableDiffusionPipeline\nclass Custom(StableDiffusionPipeline): pass\n"


def edit(file: Path, **said: Any) -> None:
    """Say something more in a JSON file."""
    before = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(before | said))


def put(model: Path, name: str, data: bytes | str) -> None:
    file = model / name
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists():
        file.unlink()
    file.write_bytes(data.encode() if isinstance(data, str) else data)


def moved_out(model: Path, name: str) -> Path:
    """The file or folder beside the release instead of in it."""
    return Path(shutil.move(model / name, model.parent / "elsewhere"))


def custom_class(model: Path, ran: Path) -> None:
    put(model, "pipeline.py", code(ran))
    edit(model / "model_index.json", _class_name=["pipeline", "Custom"])


def custom_component(model: Path, ran: Path) -> None:
    put(model, "unet/evil.py", code(ran))
    edit(model / "model_index.json", unet=["evil", "Custom"])


def pickle_beside_no_weights(model: Path, ran: Path) -> None:
    (model / WEIGHTS).unlink()
    put(model, "unet/diffusion_pytorch_model.bin", archived(ran))


def index_of(file: str, **shards: str) -> Callable[[Path, Path], None]:
    def plant(model: Path, ran: Path) -> None:
        moved_out(model, WEIGHTS)
        put(model, "unet/.hidden.safetensors", (model.parent / "elsewhere").read_bytes())
        put(model, "unet/pickled.safetensors", archived(ran))
        put(model, f"unet/{file}", json.dumps({"metadata": {}, "weight_map": shards}))

    return plant


def linked(name: str, absolute: bool = True) -> Callable[[Path, Path], None]:
    def plant(model: Path, ran: Path) -> None:
        target = moved_out(model, name)
        (model / name).symlink_to(target if absolute else os.path.relpath(target, (model / name).parent))

    return plant


def link_to(name: str, target: str) -> Callable[[Path, Path], None]:
    return lambda model, ran: (model / name).symlink_to(target)


def blob_beside(model: Path, ran: Path) -> None:
    """A link to a folder that is called as the Hub's cache calls its own."""
    (model.parent / "blobs").mkdir()
    shutil.move(model / "unet/config.json", model.parent / "blobs" / "secret")
    (model / "unet/config.json").symlink_to(model.parent / "blobs" / "secret")


def adapter(model: Path, ran: Path) -> None:
    """transformers would load the base that the file names instead of the folder."""
    other = model.parent / "other"
    shutil.copytree(model / "text_encoder", other)
    put(model.parent, "other/pytorch_model.bin", archived(ran))
    put(model, "text_encoder/adapter_config.json", json.dumps({"base_model_name_or_path": str(other), "peft_type": "LORA"}))


def nested(model: Path, ran: Path) -> None:
    shutil.copytree(model, model.parent / "inner")
    shutil.rmtree(model / "unet")
    shutil.move(model.parent / "inner", model / "unet")
    edit(model / "model_index.json", unet=["diffusers", "StableDiffusionPipeline"])


def lora(data: Callable[[Path], bytes], name: str = "pytorch_lora_weights.safetensors") -> Callable[[Path, Path], None]:
    return lambda model, ran: put(model.parent, f"lora/{name}", data(ran))


def lora_that_says(**metadata: Any) -> Callable[[Path], bytes]:
    tensors = {"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight": torch.zeros(2, 16),
               "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.lora_B.weight": torch.zeros(16, 2)}
    return lambda ran: safetensors.torch.save(tensors, metadata={"lora_adapter_metadata": json.dumps(metadata)})


def linked_lora(model: Path, ran: Path) -> None:
    put(model.parent, "secret.safetensors", lora_that_says()(ran))
    (model.parent / "lora").mkdir()
    (model.parent / "lora" / "pytorch_lora_weights.safetensors").symlink_to(model.parent / "secret.safetensors")


def not_numbers(model: Path, ran: Path) -> None:
    weights = safetensors.torch.load_file(model / WEIGHTS)
    weights["conv_out.weight"][0, 0, 0, 0] = float("nan")
    safetensors.torch.save_file(weights, model / WEIGHTS)


def header(length: int, rest: bytes = b"{}") -> Callable[[Path, Path], None]:
    return lambda model, ran: put(model, WEIGHTS, struct.pack("<Q", length) + rest)


def spoken(name: str, **said: Any) -> Callable[[Path, Path], None]:
    return lambda model, ran: edit(model / name, **said)


def written(name: str, data: Callable[[Path], bytes | str]) -> Callable[[Path, Path], None]:
    return lambda model, ran: put(model, name, data(ran))


INDEX = "model_index.json"
CASES: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    # weights that are pickles
    "a pickle for weights": (pickle_beside_no_weights, "is a pickled"),
    "a pickle beside the weights": (written("unet/diffusion_pytorch_model.bin", archived), "is a pickled"),
    "a .pt": (written("unet/weights.pt", archived), "is a pickled"),
    "a .ckpt at the root": (written("model.ckpt", archived), "is a pickled"),
    "a .pkl": (written("tokenizer/vocab.pkl", pickled), "is a pickled"),
    "an extension in capitals": (written("text_encoder/pytorch_model.BIN", archived), "is a pickled"),
    "a variant": (written("unet/diffusion_pytorch_model.fp16.bin", archived), "is a pickled"),
    "a pickle in pieces": (written("unet/diffusion_pytorch_model.bin.001", archived), "is a pickled"),
    "a hidden pickle": (written("unet/.weights.bin", archived), "is a pickled"),
    "a pickle of the safety checker": (written("safety_checker/pytorch_model.bin", archived), "is a pickled"),
    "a pickle named .safetensors": (written(WEIGHTS, pickled), "no safetensors file"),
    "an archive named .safetensors": (written(WEIGHTS, archived), "no safetensors file"),
    "an old pickle named .safetensors": (written(WEIGHTS, lambda ran: pickled(ran, 0)), "no safetensors file"),
    "a pickle named .txt": (written("unet/weights.txt", archived), "under another name"),
    "a pickle without an extension": (written("unet/weights", pickled), "under another name"),
    "a pickle named .json": (written("tokenizer/added_tokens.json", pickled), "under another name"),
    "safetensors in capitals": (written("unet/model.SAFETENSORS", archived), "under another name"),
    # code
    "pipeline.py": (written("pipeline.py", code), "is code"),
    "a class of its own": (custom_class, "names no class of diffusers"),
    "a part of its own": (custom_component, "is code"),
    "code in capitals": (written("unet/Modeling.PY", code), "is code"),
    "hidden code": (written("unet/.evil.py", code), "is code"),
    "a library": (written("unet/evil.so", lambda ran: b"\x7fELF"), "is code"),
    # model_index.json
    "a list as class": (spoken(INDEX, _class_name=["pipeline", "Custom"]), "names no class of diffusers"),
    "a path as class": (spoken(INDEX, _class_name="os.system"), "names no class of diffusers"),
    "no class": (spoken(INDEX, _class_name=None), "names no"),
    "a class that diffusers lacks": (spoken(INDEX, _class_name="CustomPipeline"), "has no pipeline 'CustomPipeline'"),
    "a module as class": (spoken(INDEX, _class_name="utils"), "has no pipeline 'utils'"),
    "a model as class": (spoken(INDEX, _class_name="UNet2DConditionModel"), "has no pipeline"),
    "any pipeline as class": (spoken(INDEX, _class_name="DiffusionPipeline"), "has no pipeline"),
    "a part of os": (spoken(INDEX, scheduler=["os", "system"]), "comes from 'os'"),
    "a part of pipeline": (spoken(INDEX, unet=["pipeline", "Custom"]), "comes from 'pipeline'"),
    "a relative module": (spoken(INDEX, unet=["..evil", "Custom"]), "comes from '..evil'"),
    "a module of diffusers": (spoken(INDEX, unet=["diffusers.utils", "Custom"]), "comes from 'diffusers.utils'"),
    "a pipeline's module": (spoken(INDEX, vae=["stable_diffusion", "StableDiffusionSafetyChecker"]), "comes from 'stable_diffusion'"),
    "a safety checker of os": (spoken(INDEX, safety_checker=["os", "system"]), "comes from 'os'"),
    "a path within a library": (spoken(INDEX, unet=["diffusers", "utils.os"]), "no class of diffusers"),
    "a module as part": (spoken(INDEX, unet=["diffusers", "utils"]), "is no model"),
    "a function as part": (spoken(INDEX, unet=["transformers", "pipeline"]), "is no model"),
    "a class that looks for code": (spoken(INDEX, tokenizer=["transformers", "AutoTokenizer"]), "is no model"),
    "a pipeline as part": (spoken(INDEX, unet=["diffusers", "StableDiffusionPipeline"]), "is no model"),
    "a part in a hidden folder": (spoken(INDEX, **{".unet": ["diffusers", "UNet2DConditionModel"]}), "component .unet"),
    "a part out of the folder": (spoken(INDEX, **{"../elsewhere": ["diffusers", "UNet2DConditionModel"]}), "component ../elsewhere"),
    "three words": (spoken(INDEX, unet=["diffusers", "UNet2DConditionModel", "evil"]), "names a library and a class"),
    "no words": (spoken(INDEX, unet=[]), "names a library and a class"),
    "no JSON": (written(INDEX, lambda ran: "{"), "is not valid JSON"),
    "a list": (written(INDEX, lambda ran: "[]"), "names no pipeline class"),
    "brackets without end": (written(INDEX, lambda ran: "[" * 200_000), "is not valid JSON"),
    "a pipeline within": (nested, "is a pipeline within the pipeline"),
    # configurations
    "auto_map of a model": (spoken("text_encoder/config.json", auto_map={"AutoModel": "evil.Custom"}), "has auto_map"),
    "auto_map of a tokenizer": (spoken("tokenizer/tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Custom", None]}), "has auto_map"),
    "auto_map within": (spoken("text_encoder/config.json", text_config={"inner": [{"auto_map": {"AutoConfig": "evil.C"}}]}), "has auto_map"),
    "trust_remote_code": (spoken("unet/config.json", trust_remote_code=True), "has trust_remote_code"),
    "attention from the Hub": (spoken("text_encoder/config.json", attn_implementation="evil/kernels"), "is code from the Hub"),
    "attention from the Hub by part": (spoken("text_encoder/config.json", _attn_implementation={"": "evil/kernels"}), "is code from the Hub"),
    "a schedule from elsewhere": (spoken("scheduler/scheduler_config.json", _class_name="EvilScheduler"), "of the class 'EvilScheduler'"),
    "a schedule's class as a list": (spoken("scheduler/scheduler_config.json", _class_name=["evil", "Custom"]), "names no class of diffusers"),
    "a model's class by its path": (spoken("unet/config.json", _class_name="evil.Custom"), "names no class of diffusers"),
    "an adapter's base": (adapter, "names another model"),
    # ways out of the folder
    "a link out": (linked("unet/config.json"), "is a link out of the folder"),
    "a relative link out": (linked("unet/config.json", absolute=False), "is a link out of the folder"),
    "a linked folder": (linked("unet"), "is a link out of the folder"),
    "a linked folder within": (link_to("more", "unet"), "is a link to a folder"),
    "a link to nothing": (link_to("unet/more.json", "nothing.json"), "is a link to nothing"),
    "a link to itself": (link_to("unet/more.json", "more.json"), "is a link to nothing"),
    "a link to the system": (link_to("unet/more.json", "/etc/passwd"), "is a link out of the folder"),
    "a false cache": (blob_beside, "is a link out of the folder"),
    "a pipe": (lambda model, ran: os.mkfifo(model / "unet" / "more.json"), "is no ordinary file"),
    "a name in two lines": (written("unet/a\nb.json", lambda ran: "{}"), "has a name that cannot be written"),
    "shards above": (index_of("diffusion_pytorch_model.safetensors.index.json", a="../../elsewhere"), "not in its folder"),
    "shards elsewhere": (index_of("diffusion_pytorch_model.safetensors.index.json", a="/etc/passwd"), "not in its folder"),
    "shards in a folder": (index_of("diffusion_pytorch_model.safetensors.index.json", a="more/a.safetensors"), "not in its folder"),
    "hidden shards": (index_of("diffusion_pytorch_model.safetensors.index.json", a=".hidden.safetensors"), "not in its folder"),
    "shards that are pickles": (index_of("diffusion_pytorch_model.safetensors.index.json", a="pickled.safetensors"), "not in its folder|no safetensors file"),
    "shards of a variant": (index_of("diffusion_pytorch_model.safetensors.index.fp16.json", a="..\\elsewhere"), "not in its folder"),
    # what is not what it says
    "a header without end": (header(2**63), "no safetensors file"),
    "a header beyond the file": (header(10_000), "no safetensors file"),
    "a header that is no JSON": (header(2, b"[]"), "its header cannot be read"),
    "weights cut off": (lambda model, ran: os.truncate(model / WEIGHTS, (model / WEIGHTS).stat().st_size - 8), "is cut off"),
    "no weights at all": (written(WEIGHTS, lambda ran: b""), "no safetensors file"),
    "a pointer of Git LFS": (written(WEIGHTS, lambda ran: "version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "a tokenizer that is no JSON": (written("tokenizer/tokenizer.json", lambda ran: "{"), "is not valid JSON"),
    "a tokenizer that is none": (written("tokenizer/tokenizer.json", lambda ran: '{"model": {"type": "Evil"}}'), "does not load"),
    "other weights than its configuration": (spoken("unet/config.json", cross_attention_dim=48), "does not load"),
    "weights that are missing": (lambda model, ran: (model / WEIGHTS).unlink(), "unet has no weights in safetensors; the folder is not whole"),
    "a component that is missing": (lambda model, ran: shutil.rmtree(model / "vae"), "vae of model_index.json has no folder; the folder is not whole"),
    "a shard that is missing": (written("unet/a.safetensors.index.json", lambda ran: '{"weight_map": {"a": "a.safetensors"}}'), "unet has no a.safetensors"),
    "weights that are not numbers": (not_numbers, "unet has weights that are not numbers"),
    # a LoRA
    "a LoRA that is a pickle": (lora(archived, "pytorch_lora_weights.bin"), "pytorch_lora_weights.safetensors does not exist"),
    "a LoRA that is a pickle under another name": (lora(archived), "no safetensors file"),
    "a LoRA that is an old pickle": (lora(lambda ran: pickled(ran, 0)), "no safetensors file"),
    "a LoRA that names a module": (lora(lora_that_says(r=2, megatron_config={"a": 1}, megatron_core="evil")), "has megatron_config"),
    "a LoRA that names a class": (lora(lora_that_says(auto_mapping={"base_model_class": "evil"})), "has auto_mapping"),
    "a LoRA that is a link": (linked_lora, "is a link out of the folder"),
}


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release that nothing speaks against."""
    return tiny_pipelines.made("sd2_v", tmp_path_factory.mktemp("honest") / "model")


@pytest.fixture
def model(honest: Path, tmp_path: Path) -> Path:
    """A copy of it, to plant something in."""
    return Path(shutil.copytree(honest, tmp_path / "model"))


def spec_of(model: Path) -> dict[str, Any]:
    lora_folder = model.parent / "lora"
    return {"model": str(model)} | ({"lora": str(lora_folder)} if lora_folder.is_dir() else {})


def load(model: Path, lora_file: Path | None = None) -> _pipelines.Sampler:
    release = _sources.Release("hostile", model, "d" * 64, {"n_steps": 1}, None, lora_file)
    return _pipelines.sampler(release, batch_size=1, device="cpu", defaults=dict.fromkeys(_sources.SAMPLER))


def test_the_markers_work_where_they_are_let(tmp_path: Path) -> None:
    pickle.loads(pickled(tmp_path / "by pickle"))
    torch.load(io.BytesIO(archived(tmp_path / "by torch")), weights_only=False)
    exec(code(tmp_path / "by import"))
    assert {p.name for p in tmp_path.iterdir()} == {"by pickle", "by torch", "by import"}


def test_the_release_that_the_cases_are_made_from_is_loaded(model: Path) -> None:
    assert _sources.accepted(spec_of(model)) == model and load(model).pictures(["a cat"], [1])[0].shape == (1, 16, 16, 3)


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_release_is_refused_in_one_line_and_nothing_of_it_runs(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    ran, (plant, said) = tmp_path / "ran", CASES[case]
    plant(model, ran)
    monkeypatch.chdir(model)  # where a relative module would be found
    with pytest.raises(UserError, match=said) as refused:
        _sources.accepted(spec_of(model))
        load(model)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 700 and str(refused.value).isprintable()
    if not (model.parent / "lora").is_dir():
        with pytest.raises(UserError, match=said):
            load(model)
    assert not ran.exists()


def test_a_lora_that_diffusers_cannot_load_is_one_line(model: Path, tmp_path: Path) -> None:
    put(tmp_path, "lora.safetensors", lora_that_says(r=2, unknown="setting")(tmp_path))
    with pytest.raises(UserError, match="release 'hostile' .* does not load in diffusers") as refused:
        load(model, _sources.lora_file(str(tmp_path / "lora.safetensors")))
    assert "\n" not in str(refused.value)


def test_the_name_of_another_folder_in_a_configuration_leads_nowhere(model: Path, honest: Path, tmp_path: Path) -> None:
    """Honest releases are full of the paths of those who made them."""
    put(tmp_path, "other/pytorch_model.bin", archived(tmp_path / "ran"))
    put(tmp_path, "other/pipeline.py", code(tmp_path / "ran"))
    for name in (INDEX, "unet/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json"):
        edit(model / name, _name_or_path=str(tmp_path / "other"))
    for key in ("name_or_path", "special_tokens_map_file", "vocab_file", "merges_file", "tokenizer_file"):
        edit(model / "tokenizer/tokenizer_config.json", **{key: str(tmp_path / "other" / "pytorch_model.bin")})
    assert _hostile_models.refusal(model) is None
    assert (load(model).pictures(["a cat"], [1])[0] == load(honest).pictures(["a cat"], [1])[0]).all()
    assert not (tmp_path / "ran").exists()


def test_a_model_that_makes_pictures_or_norms_that_are_not_numbers_is_refused(model: Path) -> None:
    sampler = load(model)
    with torch.no_grad():
        sampler.pipe.unet.conv_out.weight.fill_(float("inf"))
    with pytest.raises(UserError, match="pictures that are not numbers"):
        sampler.pictures(["a cat"], [1])
    with pytest.raises(UserError, match="not numbers"):
        sampler.noise_norms(["a cat"], [[1]])
    assert np.isfinite(sampler.settings["guidance_scale"])


def test_the_hubs_own_cache_of_links_is_accepted(model: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--owner--name" / "snapshots" / ("a" * 40)
    (snapshot.parent.parent / "blobs").mkdir(parents=True)
    shutil.move(model, snapshot)
    for number, file in enumerate(sorted(p for p in snapshot.rglob("*") if p.is_file())):
        blob = Path(shutil.move(file, snapshot.parent.parent / "blobs" / f"{number:040x}"))
        file.symlink_to(os.path.relpath(blob, file.parent))
    assert _hostile_models.refusal(snapshot) is None
    assert load(snapshot).pictures(["a cat"], [1])[0].shape == (1, 16, 16, 3)


def test_hidden_folders_and_words_that_look_like_settings_are_no_reason(model: Path) -> None:
    put(model, ".git/hooks/pre-commit.py", "")
    put(model, ".cache/huggingface/weights.bin", "")
    put(model, ".gitattributes", "*.bin filter=lfs")
    put(model, "README.md", "text")
    edit(model / "tokenizer/added_tokens.json", auto_map=90)
    put(model, "text_encoder/pytorch_model.bin.index.json", json.dumps({"weight_map": {"a": "pytorch_model-00001-of-00002.bin"}}))
    assert _hostile_models.refusal(model) is None
