"""Why a release is not loaded: what in its folder could run code, leads out of it, or is not what its name says. Nothing is loaded to tell."""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".p", ".joblib", ".dill", ".h5", ".hdf5", ".keras", ".pb", ".msgpack", ".onnx", ".npy",
           ".npz", ".gguf", ".ggml", ".zip", ".tar", ".gz", ".7z"}
CODE = {".py", ".pyc", ".pyo", ".pyd", ".pyx", ".pyz", ".so", ".dll", ".dylib", ".exe", ".sh", ".whl", ".egg"}
LIBRARIES = {"diffusers", "transformers"}
NEVER_LOADED = {"safety_checker": LIBRARIES | {"stable_diffusion", "deepfloyd_if"}}  # it blacks pictures out; its class is of a module of its own
VOCABULARIES = {"vocab.json", "tokenizer.json", "added_tokens.json"}  # their keys are words of a language
RUNS_CODE = ("auto_map", "auto_mapping", "trust_remote_code", "custom_pipeline", "custom_generate", "megatron_config")
ATTENTION = ("_attn_implementation", "attn_implementation", "_attn_implementation_internal", "_attention_backend")  # "owner/name" is code of the Hub
PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"\x1f\x8b")  # PyTorch's archive, Python's pickle, gzip
WITHOUT_WEIGHTS = ("Tokenizer", "Processor", "Extractor", "Scheduler")  # ends of the names of classes
LARGEST_HEADER = LARGEST_JSON = 100_000_000  # bytes; safetensors' own limit
SHOWN = 300  # characters of a reason


def refusal(root: Path) -> str | None:
    """Why this folder is not loaded, in one line, or None: pickles, code, ways out of it, classes from elsewhere, files that are not what they say."""
    for path in _walked(root):
        reason = _link(path, root) or _kind(path) or _content(path)
        if reason:
            return _line(f"{path.relative_to(root).as_posix()} {reason}")
        if path.name.lower() == "model_index.json" and path.parent != root:
            return _line(f"{path.relative_to(root).as_posix()} is a pipeline within the pipeline; only its own parts are loaded")
        if path.name.lower() == "adapter_config.json":
            return _line(f"{path.relative_to(root).as_posix()} names another model to load; give a LoRA as `lora` of the release")
    reason = _index(root / "model_index.json")
    return _line(reason) if reason else None


def refusal_of_lora(file: Path) -> str | None:
    """Why this file is not loaded on top of a release, in one line, or None."""
    if file.suffix != ".safetensors":
        return _line(f"{file.name} is no .safetensors file; convert the LoRA to diffusers' layout")
    reason = _content(file)
    return _line(f"{file.name} {reason}") if reason else None


def _line(reason: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in reason).split())[:SHOWN]


def _walked(root: Path) -> Iterator[Path]:
    """All files in order, hidden ones too, and linked folders; hidden folders are left out, for no part of a pipeline can be one."""
    for folder, folders, names in os.walk(root, followlinks=False):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        yield from (Path(folder) / n for n in sorted(names) + [f for f in folders if (Path(folder) / f).is_symlink()])


def _link(path: Path, root: Path) -> str | None:
    if not path.name.isprintable():
        return "has a name that cannot be written"
    if path.is_symlink():
        try:
            target = path.resolve(strict=True)
        except (OSError, RuntimeError):
            return "is a link to nothing"
        if not target.is_relative_to(root.resolve()) and not _in_cache(target, root):
            return "is a link out of the folder"
        if target.is_dir():
            return "is a link to a folder; put the folder itself there"
    return None if stat.S_ISREG(path.stat().st_mode) else "is no ordinary file"


def _in_cache(target: Path, root: Path) -> bool:
    """The Hub's cache, models--<owner>--<name>/snapshots/<revision>, links each file to its blob beside the snapshots."""
    snapshots = root.resolve().parent
    return snapshots.name == "snapshots" and snapshots.parent.name.startswith("models--") and target.parent == snapshots.parent / "blobs"


def _kind(path: Path) -> str | None:
    suffixes = {s.lower() for s in path.suffixes[-2:]} | {path.name.lower() if path.name.startswith(".") else ""}
    if suffixes & PICKLED and path.suffix.lower() not in (".json", ".safetensors", ".md", ".txt"):
        return "is a pickled or unknown kind of weights; convert the release to safetensors"
    if suffixes & CODE and path.suffix.lower() not in (".json", ".safetensors", ".md", ".txt"):
        return "is code; only pipelines that diffusers itself provides are audited"
    return None


def _content(path: Path) -> str | None:
    """What is wrong within a file."""
    if path.suffix == ".safetensors":
        return _header(path)
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(PICKLES) or path.suffix.lower() == ".safetensors":
        return "is a pickled or unknown kind of weights under another name; convert the release to safetensors"
    return _configuration(path) if path.suffix.lower() == ".json" else None


def _header(path: Path) -> str | None:
    """A safetensors file is the length of its header, the header in JSON, and numbers to the last byte that the header speaks of."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if start == b"version ":
            return "is a pointer of Git LFS; get the file itself with `git lfs pull`"
        length = int.from_bytes(start, "little")
        if size < 8 or length > min(LARGEST_HEADER, size - 8):
            return "is no safetensors file (a pickle under another name, or cut off); convert the release to safetensors"
        text = file.read(length)
    try:
        header = json.loads(text)
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        said = json.loads((header.get("__metadata__") or {}).get("lora_adapter_metadata", "{}"))
    except (ValueError, RecursionError, TypeError, KeyError, IndexError, AttributeError):
        return "is no safetensors file: its header cannot be read"
    if end != size - 8 - length:
        return f"is cut off or overlong: {size - 8 - length} bytes of weights where its header says {end}"
    return _words(said)


def _configuration(path: Path) -> str | None:
    if path.stat().st_size > LARGEST_JSON:
        return f"has {path.stat().st_size} bytes, more than any configuration"
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return "is not valid JSON"
    return None if path.name in VOCABULARIES else _words(said)


def _words(said: Any) -> str | None:
    """What a configuration asks for that would run code or leave the folder, at any depth."""
    pending = [said]
    while pending:
        value = pending.pop()
        pending += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
        if not isinstance(value, dict):
            continue
        for key in RUNS_CODE:
            if value.get(key):
                return f"has {key}: {value[key]}, which runs code that is not diffusers' or transformers'"
        for key in ATTENTION:
            if "/" in json.dumps(value.get(key)):
                return f"has {key}: {value[key]}, which is code from the Hub"
        if not str(value.get("_class_name", "A")).isidentifier():
            return f"names no class of diffusers: {value['_class_name']}"
        names = value.get("weight_map", {})
        outside = next((n for n in names.values() if not _is_beside(n)), None) if isinstance(names, dict) else names
        if outside is not None:
            return f"names weights that are not in its folder: {outside}"
    return None


def _is_beside(name: Any) -> bool:
    """Whether a shard of weights is a plain file beside its index."""
    return isinstance(name, str) and not name.startswith(".") and not set(name) & set("/\\:\0")


def _index(index: Path) -> str | None:
    if not index.is_file():
        return "no model_index.json; not a diffusers pipeline folder"
    parts = json.loads(index.read_text(encoding="utf-8"))
    if not isinstance(parts, dict) or not isinstance(parts.get("_class_name"), str):
        return "model_index.json names no pipeline class of diffusers"
    for part, where in parts.items():
        if not isinstance(where, list) or part.startswith("_"):
            continue
        if not part.isidentifier() or len(where) != 2 or not all(isinstance(w, str | None) for w in where):
            return f"component {part} of model_index.json is {where}; it names a library and a class"
        if where[0] is not None and where[0] not in NEVER_LOADED.get(part, LIBRARIES):
            return f"component {part} comes from '{where[0]}'; only diffusers and transformers are loaded"
        if where[0] is not None and not str(where[1]).isidentifier():
            return f"component {part} is '{where[1]}', no class of {where[0]}"
        reason = _absence(index.parent / part, str(where[1])) if where[0] is not None and part not in NEVER_LOADED else None
        if reason:
            return f"component {part} {reason}; the folder is not whole"
    return None


def _absence(part: Path, name: str) -> str | None:
    """What is not there of a component, as of one that was copied by half: its folder, its weights, or shards that its index names."""
    if not part.is_dir():
        return "of model_index.json has no folder"
    for index in sorted(part.glob("*.safetensors.index*.json")):
        said = json.loads(index.read_text(encoding="utf-8"))
        names = said.get("weight_map") if isinstance(said, dict) else None
        absent = next((shard for shard in sorted(set((names or {}).values())) if not (part / shard).is_file()), None)
        if absent:
            return f"has no {absent}, which {index.name} names"
    if (part / "config.json").is_file() and not any(part.glob("*.safetensors")) and not name.removesuffix("Fast").endswith(WITHOUT_WEIGHTS):
        return "has no weights in safetensors"
    return None
