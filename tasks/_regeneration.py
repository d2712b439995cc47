"""The picture of a finding, made again from what is on record of it."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from tasks import _filter, _pictures, _pipelines, _settings, _sources, _tables
from tasks._settings import UserError
from tasks.measures import distances


@dataclass(frozen=True)
class Regenerated:
    """A finding's picture made again, beside the one on record."""

    release: str
    png: bytes
    is_identical: bool  # to the bit
    l2: float  # to the picture on record
    largest_difference: int  # of a pixel's channel, of 255
    stack: str  # now
    recorded_stack: str


def regenerated(finding_id: int, releases: list[str]) -> Regenerated:
    """Make the picture of a finding of the current audits again, from its prompt and seed, by the sampler and batch size on record.

    Raises UserError where there is no such finding, where it has no picture, and where the release is no longer what was audited.
    """
    finding = _finding(finding_id, releases)
    release, protocol = finding["release"], _tables.read("screening", finding["release"], side="protocol").to_pylist()[0]
    accepted = _sources.release(release)
    if accepted.digest != protocol["model_digest"]:
        raise UserError(f"release '{release}' has changed since it was audited; its pictures cannot be made again")
    caption = _row(_tables.read("prompts"), "prompt_id", finding["prompt_id"])["caption"]
    generation = _row(_tables.read("generations", release), "generation_id", finding["generation_id"])
    recorded = json.loads(protocol["settings"])
    device = _settings.settings("compute")["device"]
    loaded = _pipelines.sampler(accepted, batch_size=recorded["generations"]["batch_size"], device=device, defaults={})
    sampler = _filter.behind_filter(replace(loaded, settings=recorded["sampler"]), accepted, device)
    made = sampler.pictures([caption], [generation["seed"]])[0][0]
    on_record = _pictures.GenerationReader(release).pixels(generation)
    far = distances.l2(made / 255.0, on_record / 255.0)
    return Regenerated(release, _pictures.png(made), _pictures.pixel_digest(made) == generation["sha256"], far,
                       int(abs(made.astype(int) - on_record).max()), sampler.stack, protocol["stack"])


def _finding(finding_id: int, releases: list[str]) -> dict[str, Any]:
    """The row of findings. Raises UserError where no release has it, or it has no picture."""
    for release in releases:
        if not _tables.path("findings", release).is_file():
            continue
        row = _row(_tables.read("findings", release), "finding_id", finding_id)
        if row and row["generation_id"] is None:
            raise UserError(f"finding {finding_id}: its prompt was not sampled, so there is no picture")
        if row:
            return row
    raise UserError(f"no finding {finding_id} in the current audits of {', '.join(releases)}; `eidetic sql \"from findings\"` lists them")


def _row(table: Any, key: str, value: int) -> dict[str, Any]:
    """The row with this key; empty where there is none."""
    found: list[dict[str, Any]] = table.filter(pc.field(key) == value).to_pylist()
    return found[0] if found else {}


def written(picture: Regenerated, folder: Path, finding_id: int) -> Path:
    """Write the picture as folder/<finding_id>.png; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{finding_id}.png"
    file.write_bytes(picture.png)
    return file
