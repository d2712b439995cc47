"""Which prompts deserve the full budget, by a one-step screen. One row per prompt.

The screen ranks, it never convicts. Its cut is a quantile of all prompts together, blind to their arm, so that p-values stay
valid; of the prompts below it a known share is sampled all the same, so that what was not looked at is estimated.
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from tasks import _pipelines, _settings, _shards, _sources, _stage, _tables
from tasks._schemas import column, schema
from tasks.measures.identity import hash63

SCHEMA = schema(
    ["prompt_id"],
    [
        column("prompt_id", pa.int64(), "The prompt"),
        column("release", pa.string(), "Release under audit"),
        column("text_noise_norm", pa.float64(), "Mean norm of the text's part of the first noise prediction; NULL without a guidance pair", nullable=True),
        column("n_evaluations", pa.int32(), "Denoiser evaluations the screen spent"),
        column("stratum", pa.string(), "kept (above the cut), dropped (below it) or unscreened"),
        column("inclusion_probability", pa.float64(), "Chance of the prompt to be sampled"),
        column("is_sampled", pa.bool_(), "Whether pictures are generated"),
    ],
)
PROTOCOL = schema(
    ["release"],
    [
        column("release", pa.string(), "Release under audit"),
        column("protocol_digest", pa.string(), "Digest of model, prompts, settings, thresholds and stack, fixed before a picture is generated"),
        column("model_digest", pa.string(), "Digest over the paths and digests of all files of the release"),
        column("stack", pa.string(), "Versions, device and dtype"),
        column("settings", pa.string(), "All that the digest covers but the prompts, JSON"),
    ],
)
CHECKS: list[dict[str, Any]] = [
    {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "stratum", "value_set": ["kept", "dropped", "unscreened"]}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "text_noise_norm", "min_value": 0, "strict_min": True}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "inclusion_probability", "min_value": 0, "max_value": 1}},
]
PIECE = 64  # prompts of one resumable piece


def strata(norms: np.ndarray, keep_rate: float) -> np.ndarray:
    """[n] whether each prompt is kept: the ceil(keep_rate n) largest norms, ties in order."""
    kept = np.zeros(len(norms), bool)
    kept[np.argsort(-norms, kind="stable")[: int(np.ceil(keep_rate * len(norms)))]] = True
    return kept


def screening(prompts: pa.Table, norms: np.ndarray | None, n_evaluations: int, release: str, settings: dict[str, Any]) -> pa.Table:
    """The table; norms [n] of the prompts in their order, or None where the release has no guidance pair (all are sampled)."""
    ids = prompts.column("prompt_id").to_pylist()
    n = len(ids)
    kept = np.ones(n, bool) if norms is None else strata(norms, settings["keep_rate"])
    by_chance = np.array([hash63(str(settings["seed"]), "dropped", str(i)) / 2**63 < settings["dropped_rate"] for i in ids], bool)
    return _tables.table({
        "prompt_id": ids, "release": [release] * n, "text_noise_norm": [None] * n if norms is None else norms,
        "n_evaluations": [n_evaluations] * n, "stratum": ["unscreened" if norms is None else "kept" if k else "dropped" for k in kept],
        "inclusion_probability": np.where(kept, 1.0, settings["dropped_rate"]), "is_sampled": kept | by_chance,
    }, SCHEMA)


def protocol(release: str, model_digest: str, stack: str, prompts: pa.Table, settings: dict[str, Any]) -> pa.Table:
    """What the audit is bound to before it looks: one row with the digest of everything that decides its outcome."""
    text = json.dumps(settings, sort_keys=True)
    digest = _shards.fingerprint(model_digest, stack, prompts.to_pydict(), text)
    return _tables.table([{"release": release, "protocol_digest": digest, "model_digest": model_digest, "stack": stack, "settings": text}], PROTOCOL)


def mean_norms(prompts: pa.Table, norms_of: Callable[[list[str], list[list[int]]], np.ndarray], n_seeds: int, seed: int) -> np.ndarray:
    """[n] mean over n_seeds of the noise norms of each prompt; norms_of maps captions and their seeds to [n, n_seeds]."""
    seeds = [[hash63(str(seed), "screening", str(i), str(s)) for s in range(n_seeds)] for i in prompts.column("prompt_id").to_pylist()]
    # the last digits of a float32 model depend on the number of threads: they must not reach dvc.lock
    return np.round(norms_of(prompts.column("caption").to_pylist(), seeds).mean(axis=1).astype(np.float64), 4)


def main(release: str) -> None:
    """Screen every prompt, in pieces that survive a kill; write data/screening/<release>."""
    settings, sampling = _settings.settings("screening"), _settings.settings("generations")
    accepted = _sources.release(release)
    prompts = _tables.read("prompts").select(["prompt_id", "caption"])
    defaults = {k: sampling[k] for k in _sources.SAMPLER}
    sampler = _pipelines.sampler(accepted, batch_size=sampling["batch_size"], device=_settings.settings("compute")["device"], defaults=defaults)
    judged = {block: _settings.settings(block) for block in ("screening", "generations", "matches", "findings", "summary")}
    bound = protocol(release, accepted.digest, sampler.stack, prompts, judged | {"sampler": sampler.settings, "loaded": sampler.loaded})
    _tables.write(bound, [], "screening", release, side="protocol")
    if sampling["exhaustive"] or not sampler.has_guidance_pair:
        made = screening(prompts, None, 0, release, settings)
        print(f"screening: '{release}' is not screened ({'exhaustive' if sampling['exhaustive'] else 'no guidance pair'}); every prompt is sampled")
        return _tables.write(made, CHECKS, "screening", release)

    def piece(rows: pa.Table) -> pa.Table:
        key = _shards.fingerprint(accepted.digest, sampler.settings, settings["version"], settings["n_seeds"], settings["seed"], rows.to_pydict())
        return _shards.shard("screening", key, lambda: pa.table(
            {"norm": mean_norms(rows, sampler.noise_norms, settings["n_seeds"], settings["seed"])}))

    starts = range(0, prompts.num_rows, PIECE)
    bar = _shards.progress(starts, len(starts), f"screening: '{release}', pieces of {PIECE} prompts")
    norms = np.concatenate([piece(prompts.slice(start, PIECE)).column("norm").to_numpy() for start in bar])
    made = screening(prompts, norms, 2 * settings["n_seeds"], release, settings)
    _tables.write(made, CHECKS, "screening", release)


if __name__ == "__main__":
    _stage.run(main)
