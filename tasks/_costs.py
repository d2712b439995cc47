"""What an audit will cost, in denoiser evaluations, before it starts."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tasks import _settings, _sources, _tables
from tasks.measures import stopping

PUBLISHED_PER_PROMPT = 50_000  # Carlini et al. 2023: 500 pictures of 50 guided steps, counted as they do


@dataclass(frozen=True)
class Cost:
    """Evaluations of one release: the screen's, and of the generations the least and the most that the rounds can take."""

    n_prompts: int
    is_counted: bool  # whether the prompts are those of data/prompts; else params.yaml's numbers are an upper bound
    screening: int
    least: int
    most: int
    published: int


def cost(prompts: dict[str, Any], screening: dict[str, Any], generations: dict[str, Any], sampler: dict[str, Any], n_prompts: int | None) -> Cost:
    """The cost of a release, from the blocks of params.yaml and what a picture takes: sampler has n_steps and guidance_scale, and
    is_screened.

    A guided step is two evaluations. Least: no prompt shows a pair, and each is given up at the first round that allows it; most:
    every prompt goes to the budget.
    """
    n = n_prompts if n_prompts is not None else _n_asked(prompts)
    is_guided = float(sampler["guidance_scale"] or 0) > 1
    per_picture = int(sampler["n_steps"]) * (2 if is_guided else 1)
    published = n * PUBLISHED_PER_PROMPT
    if generations["exhaustive"]:
        return Cost(n, n_prompts is not None, 0, n * generations["budget"] * per_picture, n * generations["budget"] * per_picture, published)
    is_screened = is_guided and sampler["is_screened"]
    kept = math.ceil(screening["keep_rate"] * n) if is_screened else n
    sampled = kept + screening["dropped_rate"] * (n - kept)
    futile = stopping.first_futile_n(generations["min_rate"], generations["miss_probability"], 1)
    first = next((r for r in stopping.cumulative_rounds(generations["first"], generations["budget"]) if r >= futile), generations["budget"])
    return Cost(n, n_prompts is not None, 2 * screening["n_seeds"] * n if is_screened else 0, round(sampled * first * per_picture),
                round(sampled * (generations["budget"] + generations["n_fresh"]) * per_picture), published)


def _n_asked(prompts: dict[str, Any]) -> int:
    """Prompts that params.yaml asks for: calibrating controls are some of the held-out ones, a custom list counts its lines."""
    custom = Path(prompts["custom"]) if prompts.get("custom") else None
    listed = len(custom.read_text(encoding="utf-8", errors="replace").splitlines()) if custom and custom.is_file() else 0
    n_clusters = sum(prompts.get(f"n_{arm}", 0) for arm in ("duplicated", "outlier", "singleton", "held_out"))
    return int(listed + prompts.get("n_paraphrased", 0) + n_clusters * prompts.get("n_captions", 1))


def of_release(name: str) -> Cost:
    """The cost of a release of params.yaml that `inputs` has accepted. Raises UserError where it has not."""
    everything = _settings.all_settings()
    release = _sources.release(name)
    asked = {k: everything["generations"].get(k) for k in _sources.SAMPLER} | release.settings
    if asked["n_steps"] is None or asked["guidance_scale"] is None:
        from tasks import _pipelines

        own = _pipelines.own_settings(release.root)
        asked = own | {k: v for k, v in asked.items() if v is not None}
    asked["is_screened"] = _sources.may_be_screened(release.root)
    counted = _tables.path("prompts")
    n = pq.read_metadata(counted).num_rows if counted.is_file() else None
    return cost(everything["prompts"], everything["screening"], everything["generations"], asked, n)


def spent(name: str) -> int | None:
    """Evaluations of the release's last audit; None where there is none."""
    file: Path = _tables.path("findings", name)
    return sum(pq.read_table(file, columns=["n_evaluations"]).column(0).to_pylist()) if file.is_file() else None
