"""Files outside the repository: listed, remembered by path, size and time, and refused where they could run code."""

import csv
import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks import _hostile_models, _tables
from tasks._settings import TryAgain, UserError

MEMORY = Path("work") / "inputs" / "digests.parquet"
WEIGHTS = {".safetensors"}
TEXT = {".json", ".txt", ".model", ".md", ".jinja"}
LORA = "pytorch_lora_weights.safetensors"  # diffusers' name for it
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
SAMPLER = ("n_steps", "guidance_scale", "height_px", "width_px")
ENTRY = ("model", "revision", *SAMPLER, "lora", "kept", "filter", "n_resamples", "compare_to", "base")  # of a release in params.yaml
REVISION = re.compile(r"[0-9a-f]{40}")


class Digests:
    """sha256 by (path, size, modification time), kept between runs: a training set is read once, not at every audit."""

    def __init__(self) -> None:
        rows = pq.read_table(MEMORY).to_pylist() if MEMORY.is_file() else []
        self.known = {(r["path"], r["size_bytes"], r["mtime_ns"]): r["sha256"] for r in rows}
        self.used: dict[tuple[str, int, int], str] = {}

    def of(self, path: Path) -> tuple[int, str]:
        """Size in bytes and sha256 of a file."""
        stat = path.stat()
        key = (str(path.resolve()), stat.st_size, stat.st_mtime_ns)
        self.used[key] = self.known.get(key) or _tables.file_digest(path)
        return stat.st_size, self.used[key]

    def keep(self) -> None:
        """Remember what this run has seen."""
        if self.used == self.known:
            return
        keys = sorted(self.used)
        columns = {"path": [k[0] for k in keys], "size_bytes": [k[1] for k in keys], "mtime_ns": [k[2] for k in keys],
                   "sha256": [self.used[k] for k in keys]}
        _tables.put(pa.table(columns), MEMORY)


def files(root: Path) -> list[str]:
    """Paths below root, relative to it, in order; hidden files and folders are left out."""
    found = []
    for folder, folders, names in os.walk(root, followlinks=False):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        found += [(Path(folder) / n).relative_to(root).as_posix() for n in names if not n.startswith(".")]
    return sorted(found)


def snapshot(model: str, revision: str | None) -> Path:
    """The local folder of a release: itself where it is one, else the Hub's snapshot of a pinned revision.

    Only weights in safetensors, JSON and text are fetched. Raises UserError where the folder or the pin is missing.
    """
    folder = Path(model)
    if folder.is_dir():
        return folder
    if model.startswith((".", "/", "~")) or model.count("/") != 1 or "" in model.split("/"):
        raise UserError(f"model folder {model} does not exist; give a diffusers folder or a Hub id with a revision")
    if revision is None or not REVISION.fullmatch(str(revision)):
        raise UserError(f"'{model}' is no folder here, and as a Hub id it needs a revision of 40 hexadecimal digits (it is {revision})")
    return _fetched(model, str(revision))


def _fetched(model: str, revision: str) -> Path:
    from huggingface_hub import errors, snapshot_download

    name = f"{model}@{revision[:8]}"
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=[f"*{s}" for s in sorted(WEIGHTS | TEXT)]))
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:  # gated ones are among them
        raise UserError(f"{name} cannot be fetched: {_first_line(error)}") from None
    except OSError as error:
        if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
            raise UserError(f"{name} is not in the Hub's cache, and HF_HUB_OFFLINE forbids to fetch it; unset it once") from None
        raise TryAgain(f"{name} cannot be fetched now: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def require_name(name: str) -> None:
    """Raise UserError for a release's name that could not be a folder's."""
    if not NAME.fullmatch(name):
        raise UserError(f"releases: '{name}' cannot be a folder's name; use letters, digits, '.', '_' and '-'")


def accepted(spec: dict[str, Any]) -> Path:
    """The folder of a release that may be loaded, given its entry of params.yaml.

    Raises UserError with the reason where it may not, TryAgain where the Hub does not answer.
    """
    unknown = sorted(set(spec) - set(ENTRY))
    if unknown or not spec.get("model"):
        raise UserError(f"unknown setting '{unknown[0]}'; a release has {', '.join(ENTRY)}" if unknown else "no model is named")
    wrong = next((k for k in SAMPLER if spec.get(k) is not None and not (isinstance(spec[k], (int, float)) and spec[k] >= 0)), None)
    if wrong:
        raise UserError(f"{wrong} is '{spec[wrong]}'; give a number")
    root = snapshot(str(spec["model"]), spec.get("revision"))
    reason = _hostile_models.refusal(root)
    if reason:
        raise UserError(reason)
    if spec.get("lora"):
        lora_file(str(spec["lora"]))
    if spec.get("filter"):
        filter_folder(str(spec["filter"]))
    n_resamples = spec.get("n_resamples")
    if n_resamples is not None and (not spec.get("filter") or not isinstance(n_resamples, int) or isinstance(n_resamples, bool) or n_resamples < 0):
        raise UserError(f"n_resamples is {n_resamples}; it is how often a filter may draw a picture again: a number, beside `filter`")
    if spec.get("kept") and not Path(spec["kept"]).expanduser().is_file():
        raise UserError(f"kept: {spec['kept']} does not exist; name a CSV file with a column key")
    return root


def lora_file(path: str) -> Path:
    """The file of a LoRA: itself, or the one that diffusers' layout has in its folder. Raises UserError with the reason where it may not be loaded."""
    named = Path(path).expanduser()
    file = named / LORA if named.is_dir() else named
    if not file.is_file():
        raise UserError(f"lora: {file} does not exist; name a .safetensors file, or a folder with {LORA}")
    if named.is_dir() and not file.resolve().is_relative_to(named.resolve()):
        raise UserError(f"lora: {file} is a link out of the folder")
    reason = _hostile_models.refusal_of_lora(file)
    if reason:
        raise UserError(f"lora: {reason}")
    return file


def filter_folder(path: str) -> Path:
    """The folder of an exported blocklist that a release is behind. Raises UserError where it is none."""
    folder = Path(path).expanduser()
    if not (folder / "blocklist.json").is_file():
        raise UserError(f"filter: {folder} holds no blocklist.json; name the export of a blocklist, such as data/blocklist/<release>/export")
    return folder


def side_px(root: Path) -> int | None:
    """The side of the pictures the pipeline makes by default, from its configuration files; None where they do not say."""
    for part in ("unet", "transformer"):
        config = _json(root / part / "config.json")
        if isinstance(config.get("sample_size"), int):
            blocks = _json(root / "vae" / "config.json")
            channels = blocks.get("block_out_channels") or blocks.get("decoder_block_out_channels") or [0] * 4
            return int(config["sample_size"]) * 2 ** (len(channels) - 1)
    return None


def may_be_screened(root: Path) -> bool:
    """Whether the pipeline is of the kind whose first step the screen can compare: a U-Net that the text alone conditions."""
    return (root / "unet" / "config.json").is_file() and _json(root / "unet" / "config.json").get("addition_embed_type") is None


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError):
        return {}
    return read if isinstance(read, dict) else {}


@dataclass(frozen=True)
class Release:
    """A release under audit as `inputs` accepted it."""

    name: str
    root: Path
    digest: str  # sha256 over the paths and digests of all its files, of its LoRA and of the filter it is behind
    settings: dict[str, Any]  # of its sampler, where params.yaml names them with the release
    kept: Path | None  # list of the members it was trained on, where that is not all of them
    lora: Path | None = None  # file of weights that are loaded on top
    filter: Path | None = None  # folder of the exported blocklist that it is behind
    n_resamples: int = 0  # times that a picture which the filter blocks is drawn again

    def trained_on(self, keys: Iterable[str]) -> set[str]:
        """Of the keys of the members, those that the release was trained on: all, but where `kept` lists them."""
        if self.kept is None:
            return set(keys)
        with self.kept.open(newline="", encoding="utf-8") as file:
            return set(keys) & {row["key"] for row in csv.DictReader(file)}


def release(name: str) -> Release:
    """The release named. Raises UserError with the reason where `inputs` refused it."""
    rows = _tables.read("inputs", side=f"releases/{name}").to_pylist()
    refused = next((row for row in rows if row["status"] == "refused"), None)
    if refused:
        raise UserError(f"release '{name}' is refused: {refused['reason']}")
    files = [row for row in rows if row["kind"] == "model"]
    loaded = [(row["path"], row["sha256"]) for row in files] + [("lora", row["sha256"]) for row in rows if row["kind"] == "lora"]
    behind = [row for row in rows if row["kind"] == "filter"]
    loaded += [(f"filter {row['path']}", f"{row['sha256']} {row['settings']}") for row in behind]
    kept, lora = (next((Path(row["root"]) / row["path"] for row in rows if row["kind"] == kind), None) for kind in ("kept", "lora"))
    made = Release(name, Path(files[0]["root"]), _digest(loaded), json.loads(files[0]["settings"] or "{}"), kept, lora)
    return replace(made, filter=Path(behind[0]["root"]), **json.loads(behind[0]["settings"])) if behind else made


def digest_of(root: Path, lora: Path | None) -> str:
    """The digest that a release of this folder will have, with a LoRA's file on top where there is one. Every file is read."""
    loaded = [(name, _tables.file_digest(root / name)) for name in files(root)]
    return _digest(loaded + ([("lora", _tables.file_digest(lora))] if lora else []))


def _digest(loaded: list[tuple[str, str]]) -> str:
    return hashlib.sha256("\n".join(f"{path} {sha256}" for path, sha256 in loaded).encode()).hexdigest()
