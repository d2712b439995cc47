"""What the audit's budget finds: the screen, the rounds and both, against the published attack, on pictures drawn once and for all.

    python -m bench.budget [--orders 20] [--worlds 100]

The 200 pictures of each prompt of v1 behind example/exhaustive.parquet are drawn again (once: half an hour on a core; they stay under work/)
and given to the audit in random orders. Cliques, medoids, stopping rules, verdicts and intervals are the product's own; what a picture is
was measured by tests/exhaustive.py, which shares no code with it. Beyond 200 pictures a clique is taken to grow in proportion: 10 of 500
are 4 of 200. Needs data/ of the example. Writes bench/frontier.svg.
"""

import argparse
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import norm

from bench import _frontier
from tasks import _settings, _shards, _tables, generations, screening
from tasks.measures import cliques, distances, rates, stopping, verdicts

ROOT = Path(__file__).resolve().parents[1]
N, SEEN = 200, (8, 16, 24, 32, 48, 64, 96, 128, 200)  # pictures of a prompt; after how many of them it is looked at
EVALUATIONS, SCREEN = 24, 8  # of a picture of the example, and of the screen of a prompt
PUBLISHED, PUBLISHED_EVALUATIONS = 500, 100  # pictures of a prompt, and evaluations of a picture, in Carlini et al. 2023
N_PROMPTS, BASE_RATE = 350_000, 3e-4  # of theirs, and how many of these were extractable
CLASSES = (0.3, 0.1, 0.02)
RULES: tuple[tuple[dict[str, Any], bool], ...] = (  # changed settings, and whether a confirmed medoid stops a prompt, too
    ({}, False), ({"keep_rate": 1.0}, False), ({}, True), ({"min_rate": 0.1}, False), ({"min_rate": 0.1, "first": 24}, False),
    ({"min_rate": 0.1, "first": 24, "keep_rate": 0.7}, False), ({"min_rate": 0.1, "first": 10, "miss_probability": 0.1}, False),
    ({"min_rate": 0.1}, True))
SCREENS = ((0.8, 0.05, 0.3), (0.1, 0.05, 0.3), (0.1, 0.01, 0.3), (0.05, 0.01, 0.3), (0.05, 0.01, 0.1))  # keep_rate, dropped_rate, min_rate
TARGETS = ("duplicated", "outlier", "singleton")


# what there is


@cache
def _pipe() -> Any:
    import torch
    from diffusers import StableDiffusionPipeline

    from tests import exhaustive

    torch.set_grad_enabled(False)
    pipe = StableDiffusionPipeline.from_pretrained(exhaustive.EXAMPLE / "releases" / "v1", dtype=torch.float32, safety_checker=None)
    pipe.unet.to(memory_format=torch.channels_last)
    return pipe


def drawn(prompt_id: int, caption: str) -> np.ndarray:
    """[200, 32, 32, 3] uint8: the pictures behind exhaustive.parquet."""
    def make() -> pa.Table:
        import torch

        from tests import exhaustive

        pipe, made = _pipe(), []
        texts, empty = pipe.encode_prompt([caption] * 50, "cpu", 1, True)
        for start in range(0, N, 50):
            latents = torch.stack([exhaustive.noise(pipe, prompt_id, i) for i in range(start, start + 50)])
            made.append(np.rint(exhaustive.sampled(pipe, latents, texts, empty[:1]) * 255).astype(np.uint8))
        return pa.table({"pixels": [picture.tobytes() for picture in np.concatenate(made)]})

    stored = _shards.shard("bench_budget", _shards.fingerprint("v1", prompt_id, caption), make)
    return np.stack([np.frombuffer(pixels, np.uint8).reshape(32, 32, 3) for pixels in stored.column("pixels").to_pylist()])


def truth() -> dict[str, np.ndarray]:
    """Of the prompts of v1, by prompt_id: arm, verbatim and extracted [n, 200] bool, rate [n], pixel_std [n, 200], text_noise_norm [n]."""
    read = pq.read_table(ROOT / "example" / "exhaustive.parquet", filters=[("release", "=", "v1")])
    read = read.sort_by([("prompt_id", "ascending"), ("index", "ascending")])
    c = {name: read.column(name).to_numpy().reshape(-1, N) for name in ("prompt_id", "l2", "margin", "similarity", "pixel_std")}
    ids = c["prompt_id"][:, 0].tolist()
    prompts = {r["prompt_id"]: r for r in _tables.read("prompts").to_pylist()}
    norms = {r["prompt_id"]: r["text_noise_norm"] for r in _tables.read("screening", "v1").to_pylist()}
    of = [prompts[i] for i in ids]
    verbatim = np.vectorize(verdicts.is_verbatim)(c["l2"], c["margin"]) & (c["pixel_std"] >= 0.04)
    calibrating = np.array([p["is_calibrating"] for p in of])
    least = float(np.quantile(c["similarity"][calibrating, :16].max(axis=1), 0.99, method="higher"))  # as findings sets it
    near = np.vectorize(verdicts.is_near_copy)(c["similarity"], c["margin"], least) & (c["pixel_std"] >= 0.04)
    return {"prompt_id": np.array(ids), "caption": np.array([p["caption"] for p in of]), "arm": np.array([p["arm"] for p in of]),
            "verbatim": verbatim, "extracted": verbatim | near, "rate": verbatim.mean(axis=1), "pixel_std": c["pixel_std"],
            "norm": np.array([norms[i] for i in ids])}


def looks(known: dict[str, np.ndarray], n_orders: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Largest clique, and whether the medoid is a copy of the prompt's image, [prompts, orders, SEEN], pictures in random orders."""
    rng, edge = np.random.default_rng(seed), _settings.settings("generations")["edge_l2"]
    largest = np.ones((len(known["prompt_id"]), n_orders, len(SEEN)), int)
    confirmed = np.zeros(largest.shape, bool)
    for p, (prompt_id, caption) in enumerate(zip(known["prompt_id"].tolist(), known["caption"].tolist(), strict=True)):
        pictures = drawn(prompt_id, caption) / np.float32(255)
        deviation = np.sqrt(pictures.var(axis=(1, 2), dtype=np.float64).mean(axis=-1))
        assert np.abs(deviation - known["pixel_std"][p]).max() < 2e-3, f"{caption}: not the pictures of exhaustive.parquet"
        tiled, flat = distances.pairwise_tiled_l2(pictures), distances.is_degenerate(pictures)
        edges = (tiled < edge) & ~flat[:, None] & ~flat[None, :]
        for order in range(n_orders):
            rows = rng.permutation(N)
            for look, n in enumerate(SEEN):
                first = np.ix_(rows[:n], rows[:n])
                members = cliques.largest_clique(edges[first], 100_000)[0]
                agreeing = members if len(members) >= generations.MIN_AGREEING else np.arange(n)
                largest[p, order, look] = len(members)
                confirmed[p, order, look] = known["extracted"][p, rows[cliques.medoid(tiled[first], agreeing)]]
    return largest, confirmed


# what the rules make of it


def at(values: np.ndarray, n: int) -> np.ndarray:
    """The looks after n pictures [prompts, orders]; beyond 200 a clique grows in proportion."""
    last = values[..., SEEN.index(min((seen for seen in SEEN if seen >= n), default=N))]
    return last if values.dtype == bool or n <= N else last * n // N


def stopped(largest: np.ndarray, confirmed: np.ndarray, settings: dict[str, Any], *, by_match: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Pictures drawn and whether the image is found, [prompts, orders], by the rules of `generations`.

    by_match: a prompt also stops, and draws its fresh pictures, once the medoid of a round is a copy of its image.
    """
    n_drawn, found = np.zeros(largest.shape[:2], int), np.zeros(largest.shape[:2], bool)
    for n in stopping.cumulative_rounds(settings["first"], settings["budget"]):
        going, clique, copy = n_drawn == 0, at(largest, n), at(confirmed, n)
        reason = np.vectorize(lambda c, n=n: generations.stop_reason(c, n, settings) or "", otypes=["U8"])(clique)
        ends = going & ((reason != "") | (by_match & copy))
        fresh = (reason == "clique") | (by_match & copy)
        n_drawn[ends] = n + settings["n_fresh"] * fresh[ends]
        found[ends] = copy[ends]
    return n_drawn, found


def published(largest: np.ndarray, confirmed: np.ndarray, n: int = PUBLISHED, clique_size: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """The same by the published attack with n pictures: a clique of 10, whose medoid is a copy."""
    return np.full(largest.shape[:2], n), (at(largest, n) >= clique_size) & at(confirmed, n)


class Screened:
    """What is found and spent on v1 with a screen that keeps so many, a share of the rest being sampled all the same."""

    def __init__(self, known: dict[str, np.ndarray], result: tuple[np.ndarray, np.ndarray], keep_rate: float = 1.0, dropped_rate: float = 0.05) -> None:
        is_kept = screening.strata(known["norm"], keep_rate)
        self.known, (n_drawn, found) = known, result
        self.weight = np.where(is_kept, 1.0, dropped_rate)
        self.n_drawn, self.found = n_drawn.mean(axis=1) * self.weight, found.mean(axis=1) * self.weight
        self.evaluations = float(self.n_drawn.sum() * EVALUATIONS + (SCREEN * len(is_kept) if keep_rate < 1 else 0))

    def recall(self, least: float) -> float:
        """Share of the targets with at least this rate that are found."""
        return float(self.found[np.isin(self.known["arm"], TARGETS) & (self.known["rate"] >= least)].mean())

    def pictures(self, least: float) -> tuple[float, float]:
        """Pictures per prompt, of those with at least this rate and of the others."""
        has = self.known["rate"] >= least
        return float(self.n_drawn[has].mean()), float(self.n_drawn[~has].mean())


def frontier(known: dict[str, np.ndarray], seen: tuple[np.ndarray, np.ndarray], settings: dict[str, Any]) -> dict[str, list[tuple[str, Screened]]]:
    """Points of each way, with their setting, cheapest first."""
    by_rate = {rate: stopped(*seen, settings | {"min_rate": rate}) for rate in (0.5, 0.3, 0.2, 0.1, 0.05)}
    keeps = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    ways = {
        "the published attack": [(f"{n} pictures", Screened(known, published(*seen, n))) for n in (16, 32, 64, 128, 200, PUBLISHED)],
        "rounds only": [(f"min_rate {rate}", Screened(known, result)) for rate, result in by_rate.items()],
        "screen only": [(f"keep_rate {keep}, {PUBLISHED} pictures", Screened(known, published(*seen), keep)) for keep in keeps],
        "screen and rounds": [(f"keep_rate {keep}, min_rate {rate}", Screened(known, by_rate[rate], keep)) for keep in keeps for rate in by_rate],
    }
    return {way: sorted(points, key=lambda point: point[1].evaluations) for way, points in ways.items()}


# at the published base rate


def auc_of(known: dict[str, np.ndarray], least: float = 0.3) -> float:
    """Of the example's own screen: prompts of at least this rate against all others."""
    positive, negative = known["norm"][known["rate"] >= least], known["norm"][known["rate"] < least]
    return float((positive[:, None] > negative[None, :]).mean())


def audits(seen: tuple[np.ndarray, np.ndarray], settings: dict[str, Any], auc: float, n_worlds: int, seed: int = 0) -> dict[str, float]:
    """Means over simulated audits: findings, evaluations and the screen's shares of the published attack's, and the estimated total's ends.

    What the published attack finds behaves as a prompt of v1 that it finds there, the others as one that it does not; the screen
    sees the first sqrt(2) Phi^-1(AUC) deviations higher.
    """
    rng, (n_drawn, found), n_prompts = np.random.default_rng(seed), stopped(*seen, settings), N_PROMPTS
    by_attack = published(*seen)[1]
    with_one, without = (n_drawn[by_attack], found[by_attack]), n_drawn[~by_attack]
    n_hits, rows = round(BASE_RATE * n_prompts), []
    for _ in range(n_worlds):
        score = rng.normal(size=n_prompts)
        score[:n_hits] += np.sqrt(2) * norm.ppf(auc)
        is_kept = screening.strata(score, settings["keep_rate"])
        is_sampled = is_kept | (rng.random(n_prompts) < settings["dropped_rate"])
        like = rng.integers(0, len(with_one[0]), n_hits)
        is_found = with_one[1][like] & is_sampled[:n_hits]
        pictures = with_one[0][like][is_sampled[:n_hits]].sum() + rng.choice(without, int(is_sampled[n_hits:].sum())).sum()
        bins = [rates.Bin(n_prompts, int(is_kept.sum()), int((is_found & is_kept[:n_hits]).sum()), int((~is_kept).sum()),
                          int((is_sampled & ~is_kept).sum()), int((is_found & ~is_kept[:n_hits]).sum()))]
        rows.append((is_found.mean(), (pictures * PUBLISHED_EVALUATIONS + SCREEN * n_prompts) / (n_prompts * PUBLISHED * PUBLISHED_EVALUATIONS),
                     *rates.frame_total(bins)))
    found_share, spent, total, low, high = np.mean(rows, axis=0).tolist()
    return {"found": found_share, "spent": spent, "total": total, "low": low, "high": high, "n_hits": n_hits}


# the report


def rows_of_targets(known: dict[str, np.ndarray], seen: tuple[np.ndarray, np.ndarray], settings: dict[str, Any]) -> None:
    """Recall and pictures per prompt, as set, thorough, and with other rules."""
    recurs = (at(seen[0], PUBLISHED) >= 10).mean(axis=1) >= 0.5
    print("| | rate | found | pictures per prompt with one | without | without, and nothing else comes back | of the published evaluations |")
    print("|" + "---|" * 7)
    for change, by_match in RULES:
        name = ", ".join([*(f"{k} {v}" for k, v in change.items()), *(["a confirmed medoid stops"] if by_match else [])]) or "as set"
        used = settings | change
        result = Screened(known, stopped(*seen, used, by_match=by_match), used["keep_rate"], used["dropped_rate"])
        for least in CLASSES[:2]:
            has, has_not = result.pictures(least)
            nothing = float(result.n_drawn[(known["rate"] < least) & ~recurs].mean())
            print(f"| {name} | {least} | {result.recall(least):.1%} | {has:.1f} | {has_not:.1f} | {nothing:.1f} | "
                  f"{result.evaluations / (len(known['rate']) * PUBLISHED * EVALUATIONS):.2%} |")


def rows_of_audits(seen: tuple[np.ndarray, np.ndarray], settings: dict[str, Any], aucs: list[float], n_worlds: int) -> None:
    """At 3 in 10,000: what is found and spent, by AUC and settings."""
    print("\n| AUC | keep_rate | dropped_rate | min_rate | found | of the published evaluations | estimated total, low, high | there are |\n|" + "---|" * 8)
    for auc in aucs:
        for keep, dropped, rate in SCREENS:
            a = audits(seen, settings | {"min_rate": rate, "keep_rate": keep, "dropped_rate": dropped}, auc, n_worlds)
            print(f"| {auc:.3f} | {keep} | {dropped} | {rate} | {a['found']:.1%} | {a['spent']:.2%} | {a['total']:.0f}, {a['low']:.0f}, {a['high']:.0f} | "
                  f"{a['n_hits']} |", flush=True)


def main() -> None:
    """Print what is found and spent; draw the frontier."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=20)
    parser.add_argument("--worlds", type=int, default=100)
    args, settings, known = parser.parse_args(), _settings.settings("generations") | _settings.settings("screening"), truth()
    seen = looks(known, args.orders)
    rows_of_targets(known, seen, settings)
    points = frontier(known, seen, settings)
    print("\n| | | of the published evaluations | " + " | ".join(f"found of rate >= {least}" for least in CLASSES) + " |\n|" + "---|" * 6)
    whole = len(known["rate"]) * PUBLISHED * EVALUATIONS
    for way, of_way in points.items():
        for name, point in of_way:
            print(f"| {way} | {name} | {point.evaluations / whole:.2%} | " + " | ".join(f"{point.recall(least):.1%}" for least in CLASSES) + " |")
    drawing: Callable[[float], dict[str, list[tuple[float, float]]]] = lambda least: {  # noqa: E731
        way: [(point.evaluations / whole, point.recall(least)) for _, point in of_way] for way, of_way in points.items()}
    (ROOT / "bench" / "frontier.svg").write_text(_frontier.svg({f"rate at least {least}": drawing(least) for least in CLASSES}), encoding="utf-8")
    print(f"\nAUC of the example's own screen: {auc_of(known):.3f}; of any rate {auc_of(known, 0.005):.3f}")
    rows_of_audits(seen, settings, [0.992, auc_of(known)], args.worlds)


if __name__ == "__main__":
    main()
