"""Rates with exact intervals, p-values from controls, and the share of a list that is expected to be false."""

from bisect import bisect_left, bisect_right
from typing import NamedTuple

import numpy as np
from scipy.stats import beta, false_discovery_control, hypergeom


def clopper_pearson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact two-sided interval for a rate of which k in n were seen (Clopper & Pearson 1934); (0, 1) for n = 0.

    Both ends in [0, 1], k / n between them. Raises ValueError unless 0 <= k <= n.
    """
    _require_count(k, n)
    if n == 0:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low = 0.0 if k == 0 else float(beta.ppf(tail, k, n - k + 1))
    high = 1.0 if k == n else float(beta.ppf(1 - tail, k + 1, n - k))
    return low, high


def upper_bound(k: int, n: int, confidence: float = 0.95) -> float:
    """One-sided Clopper-Pearson upper bound of a rate of which k in n were seen; 1 for n = 0 or k = n."""
    _require_count(k, n)
    return 1.0 if k >= n else float(beta.ppf(confidence, k + 1, n - k))


def hypergeometric_interval(k: int, n: int, population: int, confidence: float = 0.95) -> tuple[int, int]:
    """Exact interval for the successes in a population of which n were drawn without replacement and k of these were some.

    All totals that neither tail of the hypergeometric distribution rejects; the census n = population gives (k, k).
    Raises ValueError unless 0 <= k <= n <= population.
    """
    _require_count(k, n)
    if n > population:
        raise ValueError(f"{n} drawn from a population of {population}; a sample without replacement is no larger")
    if n == 0:
        return 0, population
    totals = range(k, population - (n - k) + 1)
    tail = (1 - confidence) / 2
    # both tails are monotone in the total: a search asks 2 log2(population) of them, where all would take half a minute at 10^5
    low = bisect_right(totals, tail, key=lambda total: hypergeom.sf(k - 1, population, total, n))
    high = bisect_left(totals, -tail, key=lambda total: -hypergeom.cdf(k, population, total, n)) - 1
    return totals[low], totals[high]


def estimated_total(strata: list[tuple[int, int, int]], confidence: float = 0.95) -> tuple[float, int, int]:
    """Successes in all strata together, and an interval that holds jointly; strata of (k seen, n drawn, population).

    The estimate expands each stratum and lies in the interval (near a census the expanded count can miss the few whole totals that
    are left: it is then moved to the nearer end, by less than one); the interval adds up exact hypergeometric ends at
    1 - (1 - confidence) / m, m the strata that are not a census (a bootstrap over a sampled stratum without a hit would say
    exactly zero). Raises ValueError as hypergeometric_interval does.
    """
    each = _share_of_error(sum(n < population for _, n, population in strata), confidence)
    return _added([_expanded((k, k, k), n, population, each) for k, n, population in strata])


class Bin(NamedTuple):
    """Clusters of one bin of the frame, and what was seen of those that were prompted."""

    population: int  # clusters in the frame
    n_kept: int  # prompts that the screen kept
    k_kept: int  # of these, extracted
    n_dropped: int = 0  # prompts that it dropped
    n_looked: int = 0  # of these, sampled all the same, at random
    k_looked: int = 0  # of these, extracted


def frame_total(bins: list[Bin], confidence: float = 0.95) -> tuple[float, int, int]:
    """Extractable clusters among the populations of all bins together, and an interval that holds jointly.

    Two phases a bin: its dropped prompts from those of them that were looked at, then its population from its prompts. Each
    phase is exact, and they share the error with those of the other bins (Bonferroni over the phases that leave anything out; which
    ones do is known before anything is found). The estimate lies in the interval. Raises ValueError where a count exceeds its whole.
    """
    phases = [(b.n_looked < b.n_dropped) + (b.n_kept + b.n_dropped < b.population) for b in bins]
    each = _share_of_error(sum(phases), confidence)
    totals = []
    for b in bins:
        _require_count(b.k_kept, b.n_kept)
        point, low, high = _expanded((b.k_looked,) * 3, b.n_looked, b.n_dropped, each)
        totals.append(_expanded((b.k_kept + point, b.k_kept + low, b.k_kept + high), b.n_kept + b.n_dropped, b.population, each))
    return _added(totals)


def conformal_p(score: float, controls: np.ndarray) -> float:
    """(1 + controls scoring at least as high) / (1 + controls), in (0, 1]; controls [c].

    Raises ValueError where a score is NaN: no comparison with it is true, which would give the smallest p.
    """
    _require_numbers("score", np.asarray(score))
    _require_numbers("control score", controls)
    return float((1 + np.sum(controls >= score)) / (1 + len(controls)))


def smallest_p(n_controls: int) -> float:
    """The smallest p-value that this many controls can give."""
    return 1 / (1 + n_controls)


def matched_p(scores: np.ndarray, covariate: np.ndarray, control_scores: np.ndarray, control_covariate: np.ndarray,
              is_own: np.ndarray, k: int = 40) -> np.ndarray:
    """[m] conformal p of each score against the k controls nearest in log covariate, its own cluster's left out.

    scores, covariate [m]; control_scores, control_covariate [c]; is_own [m, c] bool. A small covariate (a near neighbour) makes a high
    score by chance, and selecting targets by duplication selects small ones. Of the k, never more have a larger covariate than a
    smaller or equal one: where controls as small run out, the rest would all be larger and the p too small (of the 32 densest of
    400 null targets, against 64 controls, 26 % had p <= 0.05; so 0 %, and 35-53 % without matching). Then fewer than k are left,
    and the smallest p that they can give is larger. Raises ValueError where a score or covariate is NaN.
    """
    for what, values in (("score", scores), ("control score", control_scores), ("covariate", covariate), ("control covariate", control_covariate)):
        _require_numbers(what, values)
    log = np.log(np.maximum(covariate, 1e-6))
    control_log = np.log(np.maximum(control_covariate, 1e-6))
    out = np.empty(len(scores))
    for i, score in enumerate(scores):
        allowed = np.flatnonzero(~is_own[i])
        near = allowed[np.argsort(np.abs(control_log[allowed] - log[i]), kind="stable")]
        is_larger = control_log[near] > log[i]
        larger = near[is_larger][: min(k // 2, int((~is_larger).sum()))]
        out[i] = conformal_p(float(score), control_scores[np.concatenate([near[~is_larger][: k - len(larger)], larger])])
    return out


def simes(p: np.ndarray) -> float:
    """Simes' p of the hypothesis that all of the [n] hypotheses are null: min of n p_(i) / i."""
    return float(np.min(np.sort(p) * len(p) / np.arange(1, len(p) + 1)))


def cluster_q(p: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """[m] q-values: Simes within a cluster (its members are one observation), then Benjamini-Hochberg; p, cluster [m]."""
    if not len(p):
        return np.zeros(0)
    labels, group = np.unique(cluster, return_inverse=True)
    joint = np.array([simes(p[group == g]) for g in range(len(labels))])
    return np.asarray(false_discovery_control(np.minimum(joint, 1), method="bh"))[group]


def decoy_fdr(n_targets: int, n_found: int, n_controls: int, n_flagged: int) -> float | None:
    """Estimated false share of a list: m (1 + flagged) / ((c + 1) k), at most 1; None for an empty list."""
    if n_found == 0:
        return None
    return min(1.0, n_targets * (1 + n_flagged) / ((n_controls + 1) * n_found))


def decoy_fdr_upper(n_targets: int, n_found: int, n_controls: int, n_flagged: int, confidence: float = 0.95) -> float | None:
    """Upper bound of decoy_fdr: the controls' one-sided Clopper-Pearson bound, times m / k; None for an empty list."""
    if n_found == 0:
        return None
    return min(1.0, n_targets * upper_bound(n_flagged, n_controls, confidence) / n_found)


def n_controls_needed(n_targets: int, n_found: int, max_fdr: float, confidence: float = 0.95) -> int | None:
    """Controls, none of them flagged, with which decoy_fdr_upper would not exceed max_fdr; None for an empty list.

    Solves 1 - (1 - confidence)^(1/c) <= max_fdr k / m. None also for max_fdr = 0, which no number of controls reaches.
    """
    if n_found == 0 or max_fdr <= 0:
        return None
    rate = max_fdr * n_found / n_targets
    return 0 if rate >= 1 else int(np.ceil(np.log(1 - confidence) / np.log1p(-rate)))


def tpr_at_fpr(scores: np.ndarray, is_positive: np.ndarray, max_fpr: float) -> float:
    """Largest true-positive rate whose false-positive rate does not exceed the bound; scores [n], higher = positive.

    Published code has at least five readings of this; some exceed the bound. Raises ValueError without both classes.
    """
    is_positive = np.asarray(is_positive, bool)  # 0 and 1 would pick rows by number
    positive, negative = scores[is_positive], np.sort(scores[~is_positive])[::-1]
    if not len(positive) or not len(negative):
        raise ValueError(f"{len(positive)} positives and {len(negative)} negatives; a rate needs both")
    allowed = int(np.floor(max_fpr * len(negative) + 1e-9))
    if allowed >= len(negative):
        return 1.0
    return float((positive > negative[allowed]).mean())


def expected_distinct(rates: np.ndarray, n: int) -> float:
    """Distinct images expected among n generations of each prompt: sum of 1 - (1 - p)^n over rates [m] (Chen et al. 2024).

    In [0, m]. Raises ValueError where a rate is NaN or lies outside [0, 1].
    """
    if not np.all((rates >= 0) & (rates <= 1)):
        raise ValueError("a rate lies outside [0, 1] or is NaN; leave out the prompts without one")
    return float(np.sum(1 - (1 - rates) ** n))


def _share_of_error(n_phases: int, confidence: float) -> float:
    """Confidence of each of n intervals that are to hold together at the given one (Bonferroni)."""
    return 1 - (1 - confidence) / max(n_phases, 1)


def _expanded(seen: tuple[float, int, int], n: int, population: int, confidence: float) -> tuple[float, int, int]:
    """Point, low and high of a population of which n were drawn, where the hits among these are known up to (point, low, high)."""
    low = hypergeometric_interval(seen[1], n, population, confidence)[0]
    high = hypergeometric_interval(seen[2], n, population, confidence)[1]
    return min(max(population * seen[0] / n if n else 0.0, low), high), low, high


def _added(totals: list[tuple[float, int, int]]) -> tuple[float, int, int]:
    """Sums of the points and of both ends."""
    return sum(t[0] for t in totals), sum(t[1] for t in totals), sum(t[2] for t in totals)


def _require_numbers(what: str, values: np.ndarray) -> None:
    if np.isnan(values).any():
        raise ValueError(f"{np.isnan(values).sum()} {what} of {values.size} is NaN and has no rank; give -inf to what was not scored")


def _require_count(k: int, n: int) -> None:
    if not 0 <= k <= n:
        raise ValueError(f"{k} of {n} is no count; it must lie between 0 and {n}")
