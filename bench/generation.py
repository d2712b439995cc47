"""What the stage `generations` adds to bare diffusers: pictures a second on the example's v1, in turns; five minutes on two cores.

    python -m bench.generation [--prompts 6] [--rounds 9]

Three ways draw the same pictures of the same captions, once the model is loaded and warm: the pipeline's own call in a loop, in the same
batches, with arrays for output; `Sampler.pictures`; and all that the stage does for a prompt: rounds, PNG, resumable shards,
cliques, rows and picture shards. How many pictures that takes is the stage's to say; the other two draw as many.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tasks import _pictures, _pipelines, _settings, _shards, _sources, _tables, generations

EXAMPLE = Path(__file__).resolve().parents[1] / "example"
SAMPLED_AS = {"n_steps": 12, "guidance_scale": 3.0}  # as params.yaml has v1


def prompts_of(n: int) -> list[dict[str, Any]]:
    """n prompts: captions of the training set, evenly spaced."""
    captions = sorted(set(pq.read_table(EXAMPLE / "training_set" / "members.parquet", columns=["caption"]).column(0).to_pylist()))
    return [{"prompt_id": i, "seed_id": i, "caption": captions[i * len(captions) // n]} for i in range(n)]


def whole(sampler: _pipelines.Sampler, prompts: list[dict[str, Any]], settings: dict[str, Any]) -> list[int]:
    """Pictures drawn of each prompt, with all that `generations.main` does for them, in a folder of its own."""
    drawn = []
    with tempfile.TemporaryDirectory() as scratch:
        _shards.WORK = Path(scratch)
        _tables.DATA = Path(scratch)
        writer = _pictures.GenerationWriter("v1")
        for prompt in prompts:
            draw = generations._Draw(sampler, ["bench"], prompt, settings["seed"])
            rows, _, pngs = generations._judged(draw, "v1", settings)
            writer.add(rows, pngs)
            drawn.append(len(rows))
        writer.close()
    return drawn


def batches(prompts: list[dict[str, Any]], drawn: list[int], settings: dict[str, Any]) -> list[tuple[list[str], list[int]]]:
    """Captions and seeds of the same pictures, batch by batch."""
    size = settings["batch_size"]
    seeds = [[generations.seed_of(settings["seed"], p["seed_id"], i) for i in range(n)] for p, n in zip(prompts, drawn, strict=True)]
    return [([p["caption"]] * size, of[start:start + size]) for p, of in zip(prompts, seeds, strict=True) for start in range(0, len(of), size)]


def bare(sampler: _pipelines.Sampler, asked: list[tuple[list[str], list[int]]]) -> np.ndarray:
    """[n, h, w, 3] float of the pipeline's own call in a loop: what a user would write."""
    import torch

    made = [sampler.pipe(captions, generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds], output_type="np",
                         num_inference_steps=SAMPLED_AS["n_steps"], guidance_scale=SAMPLED_AS["guidance_scale"]).images for captions, seeds in asked]
    return np.concatenate(made)


def alone(sampler: _pipelines.Sampler, asked: list[tuple[list[str], list[int]]]) -> np.ndarray:
    """[n, h, w, 3] uint8 of Sampler.pictures, batch by batch."""
    return np.concatenate([sampler.pictures(captions, seeds)[0] for captions, seeds in asked])


def timed(work: Callable[[], object]) -> np.ndarray:
    """[2] seconds that the work takes, by the clock and of the processors."""
    start = np.array([time.perf_counter(), time.process_time()])
    work()
    return np.array([time.perf_counter(), time.process_time()]) - start


def main() -> None:
    """Print pictures a second of the three ways, and the ratios of their medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=9)
    args, settings = parser.parse_args(), _settings.settings("generations")
    release = _sources.Release("v1", EXAMPLE / "releases" / "v1", "d" * 64, SAMPLED_AS, None)
    sampler = _pipelines.sampler(release, batch_size=settings["batch_size"], device="cpu", defaults=dict.fromkeys(_sources.SAMPLER))
    prompts = prompts_of(args.prompts)
    drawn = whole(sampler, prompts, settings)  # warm, and counted
    asked = [batches([prompt], [n], settings) for prompt, n in zip(prompts, drawn, strict=True)]
    ways: dict[str, Callable[[int], object]] = {"bare diffusers": lambda i: bare(sampler, asked[i]), "Sampler.pictures": lambda i: alone(sampler, asked[i]),
                                                "the stage": lambda i: whole(sampler, [prompts[i]], settings)}
    assert all(np.array_equal(np.rint(bare(sampler, of) * 255).astype(np.uint8), alone(sampler, of)) for of in asked)
    seconds = {way: np.zeros((args.rounds, len(prompts), 2)) for way in ways}
    for number in range(args.rounds):
        for i in range(len(prompts)):
            for way in list(ways) if (number + i) % 2 else reversed(ways):
                seconds[way][number, i] = timed(lambda way=way, i=i: ways[way](i))
    bare_seconds = seconds["bare diffusers"]
    print(f"{sum(drawn)} pictures of {len(prompts)} prompts, {args.rounds} rounds, the three in turns prompt by prompt\n")
    print("| | pictures a second, median | of bare | median of pairs | by processor time | each round |\n|---|---|---|---|---|---|")
    for way, took in seconds.items():
        rates = sum(drawn) / took.sum(axis=1)  # [rounds, 2]
        middle = np.median(rates, axis=0)
        base = np.median(sum(drawn) / bare_seconds.sum(axis=1), axis=0)
        pairs = np.median(bare_seconds / took, axis=(0, 1))
        print(f"| {way} | {middle[0]:.1f} | {middle[0] / base[0]:.3f} | {pairs[0]:.3f} | {pairs[1]:.3f} | {' '.join(f'{v:.1f}' for v in rates[:, 0])} |")


if __name__ == "__main__":
    main()
