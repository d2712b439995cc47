"""Do the intervals hold what they say? Enumerated and simulated, with the audit's own rules and settings; a minute or two on a core.

    python -m bench.coverage [--worlds 1000]

Each row: how often the interval held the truth (at 95 %), the worst over a grid where there is one, and the median width.
"""

import argparse
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.stats import binom, hypergeom

from tasks import _settings, generations, screening, summary
from tasks.measures import rates, stopping

# name, clusters in the frame, of these prompted, share that is extractable: three censuses, a sample, and one that hardly ever has a hit
BINS = (("100+", 12, 12, 0.9), ("30-99", 30, 30, 0.6), ("10-29", 90, 90, 0.3), ("4-9", 400, 60, 0.08), ("2-3", 3000, 60, 0.0005))
NEGLIGIBLE = 1e-14  # chance of a path that is not followed further


# rates of a count


def clopper_pearson(n: int, n_rates: int = 1001) -> tuple[float, float]:
    """Smallest coverage over a grid of rates, by enumeration, and the median width over the counts of n."""
    ends = np.array([rates.clopper_pearson(k, n) for k in range(n + 1)])
    p = np.linspace(0, 1, n_rates)[:, None]
    holds = (ends[:, 0] <= p) & (p <= ends[:, 1])
    return float((binom.pmf(np.arange(n + 1), n, p) * holds).sum(axis=1).min()), float(np.median(ends[:, 1] - ends[:, 0]))


def hypergeometric(n: int, population: int) -> tuple[float, float]:
    """Smallest coverage over all totals of a population, by enumeration, and the median width over the counts of n, as a share of it."""
    ends = np.array([rates.hypergeometric_interval(k, n, population) for k in range(n + 1)])
    totals = np.arange(population + 1)[:, None]
    holds = (ends[:, 0] <= totals) & (totals <= ends[:, 1])
    return (float((hypergeom.pmf(np.arange(n + 1), population, totals, n) * holds).sum(axis=1).min()),
            float(np.median(ends[:, 1] - ends[:, 0])) / population)


# estimated totals


def world(rng: np.random.Generator, keep_rate: float, dropped_rate: float) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Findings of one simulated audit, as `summary` gets them, and the extractable clusters of each bin.

    The screen sees what is extractable, not well; its cut is a quantile of all prompts, and of those below it each is sampled all
    the same with the chance dropped_rate.
    """
    is_extractable = [rng.random(population) < rate for _, population, _, rate in BINS]
    prompted = [rng.permutation(of_bin)[:n] for of_bin, (_, _, n, _) in zip(is_extractable, BINS, strict=True)]
    names = [name for name, _, n, _ in BINS for _ in range(n)]
    shown = np.concatenate(prompted)
    is_kept = screening.strata(rng.normal(size=len(shown)) + 1.5 * shown, keep_rate)
    is_sampled = is_kept | (rng.random(len(shown)) < dropped_rate)
    rows = [{"arm": "duplicated", "copies_bin": name, "stratum": "kept" if kept else "dropped", "n_generations": 16 * sampled, "n_evaluations": 8,
             "prompt_id": i, "cluster_id": i, "hit_rate": float(hit) if sampled else None, "is_extracted": bool(sampled and hit),
             "is_flagged": False, "is_calibrating": False, "match_type": "verbatim" if sampled and hit else "none", "own_cluster": i,
             "caption_rank": 0, "is_compared": True}
            for i, (name, kept, sampled, hit) in enumerate(zip(names, is_kept.tolist(), is_sampled.tolist(), shown.tolist(), strict=True))]
    return rows, {name: int(of_bin.sum()) for of_bin, (name, *_) in zip(is_extractable, BINS, strict=True)}


def totals(n_worlds: int, keep_rate: float, dropped_rate: float, seed: int = 0) -> dict[str, dict[str, float]]:
    """By bin and for `all`: share of the worlds whose interval holds the truth, median width, share without a hit, mean of estimate and truth."""
    rng, seen = np.random.default_rng(seed), {name: [] for name in [*(name for name, *_ in BINS), "all"]}
    frame = {("duplicated", name): population for name, population, *_ in BINS}
    for _ in range(n_worlds):
        rows, truth = world(rng, keep_rate, dropped_rate)
        truth["all"] = sum(truth.values())
        made: pa.Table = summary.summary(rows, frame, {}, {"release": "simulated", "protocol_digest": ""}, 0.95)
        for r in made.to_pylist():
            low, high, true = r["estimated_total_low"], r["estimated_total_high"], truth[r["copies_bin"]]
            assert low <= r["estimated_total"] <= high
            seen[r["copies_bin"]].append((low <= true <= high, high - low, r["n_findings"] == 0, r["estimated_total"], true))
    columns = {name: np.array(values, float).T for name, values in seen.items()}
    return {name: {"coverage": c[0].mean(), "width": float(np.median(c[1])), "no_hit": c[2].mean(), "estimate": c[3].mean(), "truth": c[4].mean()}
            for name, c in columns.items()}


# hit rates after early stopping


def paths(p: float, settings: dict[str, Any]) -> dict[tuple[str, int, int], float]:
    """Chance of each (stop reason, pictures judged, hits among them) of a prompt that returns its image at rate p, by enumeration.

    The rules are those of `generations`; hits agree with each other and with nothing else, so that the clique is as large as they
    are many. Judged are the pictures that every prompt gets and those drawn after a clique.
    """
    always = settings["budget"] if settings["exhaustive"] else stopping.n_always_drawn(
        *(settings[k] for k in ("first", "budget", "clique_size", "min_rate", "miss_probability")))
    fresh = list(enumerate(binom.pmf(np.arange(settings["n_fresh"] + 1), settings["n_fresh"], p).tolist()))
    chance: Counter[tuple[str, int, int]] = Counter()
    going, drawn = {(0, 0): 1.0}, 0  # (hits among those always drawn, hits): chance
    for n in stopping.cumulative_rounds(settings["first"], settings["budget"]):
        new = binom.pmf(np.arange(n - drawn + 1), n - drawn, p).tolist()
        after: Counter[tuple[int, int]] = Counter()
        for (judged, hits), weight in going.items():
            for more, share in enumerate(new):
                if weight * share > NEGLIGIBLE:
                    after[judged + more if n <= always else judged, hits + more] += weight * share
        going, drawn = {}, n
        for (judged, hits), weight in after.items():
            reason = generations.stop_reason(max(hits, 1), n, settings)
            if reason is None:
                going[judged, hits] = weight
            elif reason == "clique":
                for more, share in fresh:
                    chance[reason, always + settings["n_fresh"], judged + more] += weight * share
            else:
                chance[reason, min(always, n), judged] += weight
    return dict(chance)


def hit_rates(settings: dict[str, Any], p: np.ndarray) -> dict[str, float]:
    """Over rates p: smallest coverage of the interval, where, the largest bias of the rate itself, and the median width.

    `coverage_of_cliques` is the smallest among prompts stopped by a clique, where at least 5 % of the prompts of a rate are.
    """
    coverage, bias, widths, of_cliques = [], [], [], []
    for rate in p.tolist():
        of_path = []
        for (reason, n, hits), weight in paths(rate, settings).items():
            low, high = rates.clopper_pearson(hits, n)
            of_path.append((weight, low <= rate <= high, hits / n, high - low, reason == "clique"))
        weight, holds, estimate, width, is_clique = np.array(of_path, float).T
        assert abs(weight.sum() - 1) < 1e-9
        coverage.append(weight @ holds)
        bias.append(abs(weight @ estimate - rate))
        widths.append(weight @ width)
        if weight @ is_clique >= 0.05:
            of_cliques.append((weight * is_clique) @ holds / (weight @ is_clique))
    return {"coverage": min(coverage), "at": p[int(np.argmin(coverage))], "bias": max(bias), "width": float(np.median(widths)),
            "coverage_of_cliques": min(of_cliques, default=float("nan"))}


# the controls


def nulls(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and nearest_other_l2 of pictures the model never saw: the denser its surroundings, the closer it comes by chance."""
    nearest_other = np.exp(rng.uniform(-3, 0, n))
    return -np.log(nearest_other) + rng.normal(0, 0.3, n), nearest_other


def p_values(n_lists: int, n_controls: int, k: int, n_pool: int = 400, seed: int = 0) -> dict[str, float]:
    """Share of p <= 0.05 among null targets that were chosen as the 32 densest of a pool, by matched and by all controls."""
    rng, found = np.random.default_rng(seed), {"matched": [], "unmatched": []}
    for _ in range(n_lists):
        (scores, nearest_other), (control_scores, control_nearest_other) = nulls(rng, n_pool), nulls(rng, n_controls)
        dense = np.argsort(nearest_other)[:32]
        is_own = np.zeros((32, n_controls), bool)
        p = rates.matched_p(scores[dense], nearest_other[dense], control_scores, control_nearest_other, is_own, k)
        found["matched"].append(np.mean(p <= 0.05))
        found["unmatched"].append(np.mean([rates.conformal_p(s, control_scores) <= 0.05 for s in scores[dense]]))
    return {name: float(np.mean(shares)) for name, shares in found.items()}


def false_share(n_lists: int, n_controls: int, rate: float, seed: int = 0) -> float:
    """Share of lists whose expected false share is at most decoy_fdr_upper: 5 true findings, and 95 nulls listed at this rate as controls are."""
    rng, held = np.random.default_rng(seed), []
    for _ in range(n_lists):
        n_found = 5 + rng.binomial(95, rate)
        upper = rates.decoy_fdr_upper(100, n_found, n_controls, int(rng.binomial(n_controls, rate)))
        held.append(upper is not None and min(1.0, 95 * rate / n_found) <= upper)
    return float(np.mean(held))


def rows_of_counts() -> list[str]:
    """Both intervals of a count, over sizes from a single picture to a large sample."""
    of_n = {n: clopper_pearson(n) for n in (1, 2, 3, 5, 8, 16, 24, 40, 64, 96, 200, 512)}
    worst = min(of_n, key=lambda n: of_n[n][0])
    made = [row(f"Clopper-Pearson, {len(of_n)} sizes from 1 to 512, 1,001 rates", of_n[worst][0], of_n[64][1], f"at n = {worst}; width at n = 64")]
    sizes = [(n, total) for total in (5, 20, 64, 100, 400, 1000) for n in sorted({1, 2, total // 10, total // 4, total // 2, total - 1, total} - {0})]
    of_size = {size: hypergeometric(*size) for size in sizes}
    worst_size = min(of_size, key=lambda size: of_size[size][0])
    return [*made, row(f"hypergeometric, {len(sizes)} samples of 5 to 1,000 clusters, all totals", of_size[worst_size][0], of_size[100, 400][1],
                       f"at {worst_size[0]} of {worst_size[1]}; width at 100 of 400, of the population")]


def rows_of_totals(n_worlds: int) -> list[str]:
    """The arm's estimated total, and the worst of its bins, at three screens."""
    made = []
    settings = _settings.settings("screening")
    for keep, dropped in ((settings["keep_rate"], settings["dropped_rate"]), (0.5, 0.25), (1.0, 0.0)):
        found = totals(n_worlds, keep, dropped)
        whole, bins = found["all"], {name: f for name, f in found.items() if name != "all"}
        worst = min(bins, key=lambda name: bins[name]["coverage"])
        made.append(row(f"estimated total, {n_worlds:,} worlds, screen keeps {keep:.0%}, samples {dropped:.0%} of the rest", whole["coverage"],
                        whole["width"], f"mean estimate {whole['estimate']:.1f}, truth {whole['truth']:.1f}; least covered bin {worst}: "
                        f"{bins[worst]['coverage']:.1%}; no hit in bin {BINS[-1][0]} in {bins[BINS[-1][0]]['no_hit']:.0%}"))
    return made


def rows_of_hit_rates() -> list[str]:
    """Hit rates with the audit's settings, with the least rate of a thorough audit and with more fresh pictures."""
    made, settings = [], _settings.settings("generations")
    for change in ({}, {"min_rate": 0.1}, {"n_fresh": 32}):
        used = settings | change
        found = hit_rates(used, np.linspace(0.05, 0.95, 901))
        made.append(row(f"hit rate 0.05 to 0.95, min_rate {used['min_rate']}, n_fresh {used['n_fresh']}", found["coverage"], found["width"],
                        f"at {found['at']:.3f}; the rate itself is off by at most {found['bias']:.3f}; after a clique {found['coverage_of_cliques']:.1%}"))
    return made


def row(what: str, coverage: float, width: float | None, note: str) -> str:
    """One line of the table."""
    shown = "" if width is None else f"{width:,.0f}" if width >= 2 else f"{width:.2f}"
    return f"| {what} | {coverage:.1%} | {shown} | {note} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=1000)
    n_worlds = parser.parse_args().worlds
    print("| interval, nominal 95 % | held the truth | median width | |\n|---|---|---|---|", flush=True)
    for made in (rows_of_counts(), rows_of_totals(n_worlds), rows_of_hit_rates()):
        print("\n".join(made), flush=True)
    for n_controls in (64, 400):
        for rate in (0.02, 0.1):
            print(row(f"decoy_fdr_upper, {n_controls} controls, a null flagged in {rate:.0%}", false_share(20 * n_worlds, n_controls, rate), None, ""))
    print("\n| null targets, the 32 densest of 400 | p <= 0.05, matched | unmatched |\n|---|---|---|")
    for n_controls in (64, 400):
        found = p_values(n_worlds // 5, n_controls, _settings.settings("findings")["n_matched_controls"])
        print(f"| {n_controls} controls | {found['matched']:.1%} | {found['unmatched']:.1%} |", flush=True)


if __name__ == "__main__":
    main()
