"""Pictures generated from the prompts. One row per generation.

Each prompt is drawn in doubling rounds until its clique is complete, until a prompt worth finding would have shown more, or to
the budget. Beside the table: `sampling`, one row per prompt, and pictures/, Parquet shards of the PNG bytes that `keep` leaves.
"""

import json
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from tasks import _filter, _pictures, _pipelines, _settings, _shards, _sources, _stage, _tables
from tasks._schemas import column, schema
from tasks._settings import UserError
from tasks.measures import cliques, distances, stopping
from tasks.measures.identity import hash63, require_distinct

SCHEMA = schema(
    ["generation_id"],
    [
        column("generation_id", pa.int64(), "63-bit hash of (prompt_id, index): the same in every release"),
        column("release", pa.string(), "Release under audit"),
        column("prompt_id", pa.int64(), "The prompt"),
        column("index", pa.int32(), "Number of the picture within its prompt, from 0"),
        column("seed", pa.int64(), "Seed of its start noise, a hash of (generations.seed, prompts.seed_id, index)"),
        column("shard", pa.string(), "File under pictures/ that holds the picture; NULL where it is not kept", nullable=True),
        column("position", pa.int32(), "Row of the picture in its shard; NULL where it is not kept", nullable=True),
        column("sha256", pa.string(), "Digest of the pixels"),
        column("n_evaluations", pa.int32(), "Denoiser evaluations it took"),
        column("is_fresh", pa.bool_(), "Drawn after the prompt had stopped: hit rates are judged on these and the first round"),
        column("status", pa.string(), "ok, degenerate (blank, flat or blacked out: never matched), or not_kept (never looked at for matches)"),
        column("reason", pa.string(), "Why it is not ok; NULL otherwise", nullable=True),
    ],
)
SAMPLING = schema(
    ["prompt_id"],
    [
        column("prompt_id", pa.int64(), "The prompt"),
        column("release", pa.string(), "Release under audit"),
        column("n_generations", pa.int32(), "Pictures drawn"),
        column("n_evaluations", pa.int64(), "Denoiser evaluations spent on them"),
        column("stop_reason", pa.string(), "clique, futile, budget or not_sampled"),
        column("clique_size", pa.int32(), "Largest clique of generations that agree (1: no two do); NULL where not sampled", nullable=True),
        column("is_exact_clique", pa.bool_(), "Whether that size is proven; NULL where not sampled", nullable=True),
        column("clique_mean_distance", pa.float32(), "Mean tiled l2 within the clique; NULL without a pair", nullable=True),
        column("medoid_generation_id", pa.int64(), "Picture nearest to the others that agree, or to all where fewer than three do; NULL where not sampled",
               nullable=True),
    ],
)
CHECKS: list[dict[str, Any]] = [
    {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "status", "value_set": ["ok", "degenerate", "not_kept"]}},
    {"type": "expect_column_value_lengths_to_equal", "kwargs": {"column": "sha256", "value": 64}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "n_evaluations", "min_value": 1}},
]
SAMPLING_CHECKS: list[dict[str, Any]] = [
    {"type": "expect_column_values_to_be_in_set",
     "kwargs": {"column": "stop_reason", "value_set": ["clique", "futile", "budget", "not_sampled"]}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "clique_size", "min_value": 1}},
]
DECIDING = (*stopping.SETTINGS, "n_fresh", "edge_l2", "exhaustive", "keep")  # what a finished prompt depends on besides its pictures
BLOCKED = {"status": "degenerate", "reason": "blocked by the release's filter, in every draw"}
NOT_KEPT = {"status": "not_kept", "reason": "its prompt is not flagged; its seed makes it again"}
MIN_AGREEING = 3  # two generations agree by chance: below this the medoid is that of all
COMPARE_PX = 64  # agreement of generations is judged at this side: 16 tiles of 16 px
Judged: TypeAlias = tuple[list[dict[str, Any]], dict[str, Any], list[bytes | None]]  # rows, their row of sampling, PNG of those that are kept


def seed_of(seed: int, seed_id: int, index: int) -> int:
    """Seed of one picture's start noise, in [0, 2^63); seed_id is the prompt's, or that of the caption it rewords."""
    return hash63(str(seed), str(seed_id), str(index))


def clique_of(pictures: np.ndarray, edge_l2: float) -> tuple[np.ndarray, bool, np.ndarray]:
    """Largest clique of the pictures [n, h, w, 3] in [0, 1] (rows, proven?) and their tiled l2 [n, n]; degenerate ones have no edge."""
    tiled = distances.pairwise_tiled_l2(pictures)
    flat = distances.is_degenerate(pictures)
    members, is_exact = cliques.largest_clique((tiled < edge_l2) & ~flat[:, None] & ~flat[None, :])
    return members, is_exact, tiled


def stop_reason(largest: int, n: int, settings: dict[str, Any]) -> str | None:
    """Why a prompt needs no more pictures after n of them, or None."""
    rounds = stopping.cumulative_rounds(settings["first"], settings["budget"])
    if not settings["exhaustive"]:
        if largest >= settings["clique_size"]:
            return "clique"
        if max(largest, 1) <= stopping.futile_cliques(*(settings[k] for k in stopping.SETTINGS))[n]:
            return "futile"
    return "budget" if n >= rounds[-1] else None


def sampled(draw: Callable[[int, int], np.ndarray], settings: dict[str, Any]) -> tuple[np.ndarray, str, int]:
    """All pictures [n, h, w, 3] uint8 of one prompt, why drawing stopped, and after how many; draw(start, stop) makes some of them."""
    rounds = stopping.cumulative_rounds(settings["first"], settings["budget"])
    pictures = draw(0, rounds[0])
    for n in rounds:
        if n > len(pictures):
            pictures = np.concatenate([pictures, draw(len(pictures), n)])
        largest = len(clique_of(_compared(pictures), settings["edge_l2"])[0])
        reason = stop_reason(largest, n, settings)
        if reason:
            break
    n_stopped = len(pictures)
    if reason == "clique" and settings["n_fresh"]:
        pictures = np.concatenate([pictures, draw(n_stopped, n_stopped + settings["n_fresh"])])
    return pictures, str(reason), n_stopped


def _compared(pictures: np.ndarray) -> np.ndarray:
    """[n, s, s, 3] float32 in [0, 1] at the side where agreement is judged."""
    side = min(COMPARE_PX, *pictures.shape[1:3])
    return np.stack([_pictures.resized(p, side) for p in pictures]) / np.float32(255)


def generations(prompt_id: int, pictures: np.ndarray, n_stopped: int, *, release: str, seeds: list[int],
                n_evaluations: int | list[int]) -> list[dict[str, Any]]:
    """The table's rows of one prompt, less shard and position; n_evaluations of all alike, or of each."""
    each = np.broadcast_to(n_evaluations, len(pictures)).tolist()
    flat = distances.is_degenerate(pictures.astype(np.float32) / 255)
    return [{"generation_id": hash63(str(prompt_id), str(i)), "release": release, "prompt_id": prompt_id, "index": i,
             "seed": seeds[i], "sha256": _pictures.pixel_digest(picture), "n_evaluations": each[i],
             "is_fresh": i >= n_stopped, "status": "degenerate" if flat[i] else "ok", "reason": "blank, flat or blacked out" if flat[i] else None}
            for i, picture in enumerate(pictures)]


def sampling(rows: list[dict[str, Any]], pictures: np.ndarray, reason: str, n_stopped: int, edge_l2: float) -> dict[str, Any]:
    """The row of `sampling` of one prompt that was sampled; the clique is that of the pictures on which drawing stopped."""
    members, is_exact, tiled = clique_of(_compared(pictures[:n_stopped]), edge_l2)
    mean = cliques.clique_mean_distance(tiled, members)
    agreeing = members if len(members) >= MIN_AGREEING else np.arange(n_stopped)
    return {"prompt_id": rows[0]["prompt_id"], "release": rows[0]["release"], "n_generations": len(rows),
            "n_evaluations": sum(r["n_evaluations"] for r in rows), "stop_reason": reason, "clique_size": max(1, len(members)),
            "is_exact_clique": is_exact, "clique_mean_distance": None if np.isnan(mean) else mean,
            "medoid_generation_id": rows[cliques.medoid(tiled, agreeing)]["generation_id"]}


def thinned(rows: list[dict[str, Any]], row: dict[str, Any], settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of one prompt, marked where not kept: unless its row of `sampling` flags it, all but what every prompt gets and the medoid."""
    if settings["keep"] == "all" or row["clique_size"] >= settings["clique_size"]:
        return rows
    n_always = stopping.n_always_drawn(*(settings[k] for k in stopping.SETTINGS))
    return [r if r["index"] < n_always or r["generation_id"] == row["medoid_generation_id"] else r | NOT_KEPT for r in rows]


def not_sampled(prompt_id: int, release: str) -> dict[str, Any]:
    """The row of `sampling` of a prompt that the screen dropped."""
    return {"prompt_id": prompt_id, "release": release, "n_generations": 0, "n_evaluations": 0, "stop_reason": "not_sampled",
            "clique_size": None, "is_exact_clique": None, "clique_mean_distance": None, "medoid_generation_id": None}


def main(release: str) -> None:
    """Sample every prompt that the screen chose, one resumable shard per prompt and round; write data/generations/<release>."""
    settings = _settings.settings("generations")
    judged = _judge(settings)
    prompts = {r["prompt_id"]: r for r in _tables.read("prompts").to_pylist()}
    screened = _tables.read("screening", release).to_pylist()
    chosen = [row["prompt_id"] for row in screened if row["is_sampled"]]
    scheduler = _settings.settings("compute").get("dask")
    sampler, provenance = (None, _spread(release, [prompts[i] for i in chosen], scheduler)) if scheduler else _loaded(release)
    is_filtered = _sources.release(release).filter is not None
    rows, summary = [], [not_sampled(row["prompt_id"], release) for row in screened if not row["is_sampled"]]
    writer = _pictures.GenerationWriter(release)

    for prompt_id in _shards.progress(chosen, len(chosen), f"generations: '{release}', prompts"):
        draw = _Draw(sampler, provenance, prompts[prompt_id], settings["seed"], is_filtered)
        made, row, pngs = judged(draw, release, settings)
        summary.append(row)
        rows += writer.add(made, pngs)
    writer.close()
    table = _tables.table(rows or {name: [] for name in SCHEMA.names}, SCHEMA)
    require_distinct(table.column("generation_id").to_numpy(), "generation_id")
    beside = _tables.table(summary, SAMPLING)
    _tables.write(beside, SAMPLING_CHECKS, "generations", release, side="sampling")
    _tables.write(table, CHECKS, "generations", release)


def _drawn(release: str, prompt: dict[str, Any]) -> list[Any]:
    """Make the shards of one prompt, on a worker of a cluster; what they depend on besides the prompt."""
    settings = _settings.settings("generations")
    sampler, provenance = _loaded(release)
    _judge(settings)(_Draw(sampler, provenance, prompt, settings["seed"], _sources.release(release).filter is not None), release, settings)
    return provenance


def _judge(settings: dict[str, Any]) -> Callable[["_Draw", str, dict[str, Any]], Judged]:
    """What draws and judges a prompt. Raises UserError for a `keep` that is not known."""
    if settings.get("keep") not in ("all", "flagged"):
        raise UserError(f"generations.keep: '{settings.get('keep')}' is not known; use all or flagged")
    return _finished if settings["keep"] == "flagged" else _judged


def _judged(draw: "_Draw", release: str, settings: dict[str, Any]) -> Judged:
    """One prompt, drawn and judged; the shards of its rounds stay."""
    pictures, reason, n_stopped = sampled(draw, settings)
    made = generations(draw.prompt_id, pictures, n_stopped, release=release, seeds=draw.seeds(len(pictures)), n_evaluations=draw.n_evaluations)
    made = [r | BLOCKED if draw.is_filtered and not pictures[r["index"]].any() else r for r in made]
    row = sampling(made, pictures, reason, n_stopped, settings["edge_l2"])
    made = thinned(made, row, settings)
    return made, row, [None if r["status"] == "not_kept" else png for r, png in zip(made, draw.png, strict=True)]


def _finished(draw: "_Draw", release: str, settings: dict[str, Any]) -> Judged:
    """The same from one shard for the prompt, with the pictures that are kept; it takes the place of the shards of its rounds."""
    def make() -> pa.Table:
        made, row, pngs = _judged(draw, release, settings)
        fields = [f for f in SCHEMA if f.name not in ("shard", "position")] + [pa.field("png", pa.binary())]
        with_png = [r | {"png": png} for r, png in zip(made, pngs, strict=True)]
        return pa.Table.from_pylist(with_png, pa.schema(fields, {"sampling": json.dumps(_tables.table([row], SAMPLING).to_pylist()[0])}))

    key = _shards.fingerprint(draw.provenance, draw.caption, draw.seed_id, draw.prompt_id, {k: settings[k] for k in DECIDING})
    stored = _shards.shard("generations", key, make)
    draw.forget(settings)
    made = [r | {"release": release} for r in stored.drop_columns("png").to_pylist()]
    return made, json.loads(stored.schema.metadata[b"sampling"]) | {"release": release}, stored.column("png").to_pylist()


def _loaded(release: str) -> tuple[Any, list[Any]]:
    """The release's sampler, behind its filter where it has one, and what a picture depends on besides its prompt and number."""
    settings, accepted = _settings.settings("generations"), _sources.release(release)
    asked = {"batch_size": settings["batch_size"], "device": _settings.settings("compute")["device"], "defaults": {k: settings[k] for k in _sources.SAMPLER}}
    sampler = _sampler(release, json.dumps([accepted.digest, accepted.settings], sort_keys=True), json.dumps(asked))
    return sampler, [accepted.digest, sampler.settings, sampler.stack, settings["version"], settings["seed"], settings["batch_size"]]


@lru_cache(maxsize=1)
def _sampler(release: str, _digest_and_settings: str, asked: str) -> Any:
    """One model per process, loaded again where the release of that name or what is asked of it has changed: a worker outlives an audit."""
    accepted, how = _sources.release(release), json.loads(asked)
    return _filter.behind_filter(_pipelines.sampler(accepted, **how), accepted, how["device"])


def _spread(release: str, prompts: list[dict[str, Any]], scheduler: str) -> list[Any]:
    """Have the workers of a cluster make all shards; what these depend on, which must be the same on all."""
    items = [(release, prompt) for prompt in prompts]
    bar = _shards.progress(_shards.spread("tasks.generations:_drawn", items, scheduler), len(items), f"generations: '{release}', prompts on workers")
    different = {_shards.fingerprint(provenance): provenance for provenance in bar}
    if len(different) > 1:
        stacks = " / ".join(sorted({str(provenance[2]) for provenance in different.values()}))
        raise UserError(f"the workers of compute.dask differ ({stacks}), and so do their pictures; give them the same versions and devices")
    return next(iter(different.values()), [])


class _Draw:
    """draw(start, stop): pictures of one prompt, each round from its finished shard where there is one.

    Without a sampler every shard must be there: the workers have made them.
    """

    def __init__(self, sampler: Any, provenance: list[Any], prompt: dict[str, Any], seed: int, is_filtered: bool = False) -> None:
        self.sampler, self.provenance, self.caption, self.seed_id, self.seed = sampler, provenance, prompt["caption"], prompt["seed_id"], seed
        self.prompt_id, self.is_filtered = prompt["prompt_id"], is_filtered
        self.n_evaluations, self.png = list[int](), list[bytes]()  # of the pictures drawn so far

    def seeds(self, stop: int, start: int = 0) -> list[int]:
        """Seeds of the pictures from start to stop."""
        return [seed_of(self.seed, self.seed_id, i) for i in range(start, stop)]

    def __call__(self, start: int, stop: int) -> np.ndarray:
        stored = _shards.shard("generations", self._key(start, stop), lambda: self._made(start, stop))
        self.n_evaluations = self.n_evaluations[:start] + stored.column("n_evaluations").to_pylist()
        self.png = self.png[:start] + stored.column("png").to_pylist()
        return np.stack([_pictures.canonical(data) for data in self.png[start:]])

    def forget(self, settings: dict[str, Any]) -> None:
        """Remove the shards of all rounds that there can be."""
        rounds = stopping.cumulative_rounds(settings["first"], settings["budget"])
        for start, stop in [*pairwise([0, *rounds]), *((n, n + settings["n_fresh"]) for n in rounds)]:
            _shards.remove("generations", self._key(start, stop))

    def _key(self, start: int, stop: int) -> str:
        return _shards.fingerprint(self.provenance, self.caption, self.seed_id, start, stop)

    def _made(self, start: int, stop: int) -> pa.Table:
        if self.sampler is None:
            raise UserError("the workers of compute.dask left no shards here; give them this folder's work/ on a file system that all share")
        seeds = self.seeds(stop, start)
        pictures, n_evaluations = self.sampler.pictures([self.caption] * len(seeds), seeds)
        return pa.table({"png": [_pictures.png(p) for p in pictures], "n_evaluations": pa.array(np.broadcast_to(n_evaluations, len(seeds)), pa.int32())})


if __name__ == "__main__":
    _stage.run(main)
