"""What the filter adds to a bare pipeline, beside the time of one descriptor; two minutes on two cores.

    python -m bench.filter [--rounds 9] [--blocklist FOLDER]

The same call of the example's v1 (8 pictures, 12 guided steps) bare, behind the filter, and bare with the descriptor alone after it, resized and
embedded as the filter does it, in turns: a descriptor after a pipeline takes longer than one after another. Over is (guarded - bare) /
(with the descriptor - bare), of each round's own times; the pictures are ordinary ones, so
that nothing is drawn again. Beside it the same at 512 px, without a model: a picture's hash is taken only where it can decide.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tasks import _filter, _pictures, _pipelines, _sources

EXAMPLE = Path(__file__).resolve().parents[1] / "example"
CAPTIONS = ["waffle", "ant", "fingerprint", "world map", "raised hand", "money with wings", "sun with face", "chicken"]


def seconds(work: Callable[[], object]) -> float:
    """Seconds of processor time that the work takes: other work on the machine does not count."""
    start = time.process_time()
    work()
    return time.process_time() - start


def described(guard: _filter.RegurgitationFilter, pictures: np.ndarray) -> np.ndarray:
    """The descriptors alone."""
    return guard.model.embed(np.stack([_pictures.enlarged(_pictures.resized(p, guard.size_px), guard.model.side) for p in pictures]))


def row(what: str, bare: np.ndarray, guarded: np.ndarray, descriptor: np.ndarray) -> str:
    """A line of the table, of seconds [rounds] for a batch of 8."""
    over = (guarded - bare) / descriptor
    return f"| {what} | {125 * np.median(bare):.1f} | {125 * np.median(guarded):.1f} | {125 * np.median(descriptor):.1f} | {np.median(over):.3f} | " \
           f"{np.median(guarded - bare) / np.median(descriptor):.3f} |"


def main() -> None:
    """Print milliseconds a picture, and what the filter adds in descriptors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--blocklist", type=Path, default=EXAMPLE / "remedies" / "blocklist")
    args = parser.parse_args()
    release = _sources.Release("v1", EXAMPLE / "releases" / "v1", "d" * 64, {"n_steps": 12, "guidance_scale": 3.0}, None)
    pipe = _pipelines.sampler(release, batch_size=8, device="cpu", defaults=dict.fromkeys(_sources.SAMPLER)).pipe
    guard = _filter.RegurgitationFilter.load(args.blocklist)
    guarded = guard.guarded(pipe)

    def call(through: object) -> object:
        noise = [torch.Generator().manual_seed(n) for n in range(8)]
        return through(CAPTIONS, generator=noise, num_inference_steps=12, guidance_scale=3.0, output_type="np")  # type: ignore[operator]

    def then_described() -> object:
        return described(guard, np.stack(_filter.as_pixels(call(pipe).images)))  # type: ignore[attr-defined]

    pictures = np.stack(_filter.as_pixels(call(guarded).images))  # type: ignore[attr-defined]
    large = np.stack([_pictures.enlarged(p, 512) for p in pictures])
    print(f"blocked of these ordinary pictures: {sum(one.is_blocked for one in guarded.screened)} of 8")
    times = np.zeros((args.rounds, 5))
    ways: list[Callable[[], object]] = [lambda: call(pipe), lambda: call(guarded), then_described, lambda: guard.screened(large),
                                        lambda: described(guard, large)]
    for number in range(args.rounds):
        for i in range(5) if number % 2 else reversed(range(5)):
            times[number, i] = seconds(ways[i])
    print("\n| | bare, ms a picture | behind the filter | descriptor alone | over, in descriptors, median of rounds | of medians |\n|---|---|---|---|---|---|")
    print(row("v1, 32 px", times[:, 0], times[:, 1], times[:, 2] - times[:, 0]))
    print(row("512 px, the filter's own work", np.zeros(args.rounds), times[:, 3], times[:, 4]))


if __name__ == "__main__":
    main()
