"""What the audit reads from outside the repository. One row per input file.

The only stage that looks outside and the only one that always runs: it writes one small table per source, on which the
other stages depend, so that a changed file re-runs what it touches and nothing else. Beside the tables `resolution`:
the side at which pictures of every release and of the training set are compared.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks import _files, _settings, _sources, _stage, _tables, _training_sets
from tasks._schemas import column, schema
from tasks._settings import TryAgain, UserError

SCHEMA = schema(
    ["path"],
    [
        column("source", pa.string(), "members, held_out, prompts, reviews, or the release's name"),
        column("kind", pa.string(), "picture_source, model, lora (weights on top), kept (rows it was trained on), filter (a blocklist), prompts or reviews"),
        column("root", pa.string(), "Folder, file or address that params.yaml names"),
        column("path", pa.string(), "File, relative to root"),
        column("format", pa.string(), "Format of a training set as params.yaml says; NULL otherwise", nullable=True),
        column("settings", pa.string(), "Sampler settings named with a release (n_steps, guidance_scale, ...), JSON; NULL otherwise", nullable=True),
        column("size_bytes", pa.int64(), "Size of the file; NULL where not read", nullable=True),
        column("sha256", pa.string(), "Digest of the file's bytes; at an address, of what its file system tells of it (ETag, time); NULL where not read",
               nullable=True),
        column("status", pa.string(), "ok or refused"),
        column("reason", pa.string(), "Why it was refused; NULL otherwise", nullable=True),
    ],
)
RESOLUTION = schema(["size_px"], [column("size_px", pa.int32(), "Side to which both sides of every comparison are brought first")])
CHECKS: list[dict[str, Any]] = [
    {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "status", "value_set": ["ok", "refused"]}},
    {"type": "expect_column_value_lengths_to_equal", "kwargs": {"column": "sha256", "value": 64}},
]
LARGEST_PX = 256  # beyond this, pictures are compared reduced: copies do not differ in finer detail, and it costs 4x per octave


def rows(source: str, kind: str, root: Path | str, names: list[str], sizes: Mapping[str, tuple[int | None, str | None]]) -> list[dict[str, Any]]:
    """One accepted row per file."""
    return [
        {"source": source, "kind": kind, "root": str(root), "path": name, "format": None, "settings": None,
         "size_bytes": sizes[name][0], "sha256": sizes[name][1], "status": "ok", "reason": None}
        for name in names
    ]


def refused(source: str, kind: str, root: str, reason: str) -> list[dict[str, Any]]:
    """The one row of a source that is not read."""
    return [{"source": source, "kind": kind, "root": root, "path": "", "format": None, "settings": None, "size_bytes": None, "sha256": None,
             "status": "refused", "reason": reason}]


def resolution(sides: list[int | None]) -> int:
    """The side in px at which pictures are compared: the smallest that a release makes, at most LARGEST_PX."""
    return min([side for side in sides if side] + [LARGEST_PX])


def main() -> None:
    """Write data/inputs/<source>.parquet, data/inputs/releases/<name>.parquet and resolution.parquet."""
    params = _settings.all_settings()
    releases = params.get("releases") or {}
    for name in releases:
        _sources.require_name(str(name))
    _require_something_to_ask(params.get("training_set") or {}, params["prompts"].get("custom"))
    digests = _sources.Digests()
    for source in ("members", "held_out"):
        _write(_training_rows(source, params["training_set"].get(source), digests), f"{source}.parquet")
    for source, path in (("prompts", params["prompts"].get("custom")), ("reviews", params["report"].get("reviews"))):
        _write(_file_rows(source, source, path, digests), f"{source}.parquet")
    sides = []
    for name, release in releases.items():
        made = _release_rows(name, release, digests)
        _write(made, f"releases/{name}.parquet")
        sides += [_sources.side_px(Path(row["root"])) for row in made if row["status"] == "ok" and row["kind"] == "model"][:1]
    digests.keep()
    side = resolution(sides)
    _tables.write(_tables.table([{"size_px": side}], RESOLUTION), [], "inputs", side="resolution")


def _require_something_to_ask(training_set: dict[str, Any], custom: str | None) -> None:
    """Raise UserError where neither a training set nor a custom list is named, and for held-out images with nothing to hold against."""
    if training_set.get("members", {}) == {}:
        raise UserError("training_set.members is missing; name the format and path of the training set, or null for none")
    if training_set["members"] is None and custom is None:
        raise UserError("training_set.members is null and so is prompts.custom: name a training set, or a text file with one prompt a line")
    if training_set["members"] is None and training_set.get("held_out"):
        raise UserError("training_set.held_out is named without members: held-out images control what is said of members; set it to null too")


def _write(found: list[dict[str, Any]], name: str) -> None:
    side = name.removesuffix(".parquet")
    _tables.write(_tables.table(found, SCHEMA), CHECKS, "inputs", side=side)


def _training_rows(source: str, spec: dict[str, Any] | None, digests: _sources.Digests) -> list[dict[str, Any]]:
    if spec is None:
        return []
    form, path = spec.get("format"), str(spec.get("path"))
    if form not in _training_sets.FORMATS:
        raise UserError(f"training_set.{source}.format '{form}' is not known; use {', '.join(_training_sets.FORMATS)}")
    try:
        root, found = _files.listing(path, lambda name: _training_sets.is_wanted(form, name), digests.of)
    except TryAgain:
        raise
    except UserError as error:
        raise UserError(f"training_set.{source}.path {error}") from None
    if not found:
        raise UserError(f"training_set.{source}.path {root} holds no {form} files")
    return [{**row, "format": form} for row in rows(source, "picture_source", root, list(found), found)]


def _file_rows(source: str, kind: str, path: str | None, digests: _sources.Digests) -> list[dict[str, Any]]:
    if path is None:
        return []
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"{source}: {file} does not exist")
    return rows(source, kind, file.parent, [file.name], {file.name: digests.of(file)})


def _release_rows(name: str, spec: dict[str, Any], digests: _sources.Digests) -> list[dict[str, Any]]:
    try:
        root = _sources.accepted(spec)
    except TryAgain:
        raise  # the Hub not answering is no refusal
    except UserError as error:
        return refused(name, "model", str(spec.get("model")), str(error))
    names = _sources.files(root)
    settings = {key: spec[key] for key in _sources.SAMPLER if spec.get(key) is not None}
    made = [{**row, "settings": json.dumps(settings)} for row in rows(name, "model", root, names, {n: digests.of(root / n) for n in names})]
    lora = str(_sources.lora_file(str(spec["lora"]))) if spec.get("lora") else None
    return made + _file_rows(name, "lora", lora, digests) + _file_rows(name, "kept", spec.get("kept"), digests) + _filter_rows(name, spec, digests)


def _filter_rows(name: str, spec: dict[str, Any], digests: _sources.Digests) -> list[dict[str, Any]]:
    """The files of the blocklist that a release is behind, and how often a blocked picture is drawn again."""
    if not spec.get("filter"):
        return []
    folder, settings = _sources.filter_folder(str(spec["filter"])), json.dumps({"n_resamples": spec.get("n_resamples") or 0})
    names = _sources.files(folder)
    return [{**row, "settings": settings} for row in rows(name, "filter", folder, names, {n: digests.of(folder / n) for n in names})]


if __name__ == "__main__":
    _stage.run(main)
