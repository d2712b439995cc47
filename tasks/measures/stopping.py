"""When to stop drawing pictures of a prompt: rounds that double, and a bound on what giving up may miss."""

from functools import lru_cache
from itertools import count

import numpy as np
from scipy.stats import binom

SETTINGS = ("first", "budget", "clique_size", "min_rate", "miss_probability")  # of params.yaml, in the order of the rules' arguments


def cumulative_rounds(first: int, budget: int) -> list[int]:
    """Pictures drawn after each round: first, twice as many, four times as many, ..., and the budget last.

    Raises ValueError when first or budget is below 1.
    """
    if first < 1 or budget < 1:
        raise ValueError(f"a first round of {first} within a budget of {budget} draws nothing; both must be at least 1")
    rounds: list[int] = []
    while first < budget:
        rounds.append(first)
        first *= 2
    return [*rounds, budget]


def is_futile(largest: int, n: int, min_rate: float, miss_probability: float, looks: int) -> bool:
    """Whether a prompt returning its image at min_rate would by now show more than a clique of `largest` in n pictures.

    True when BinomCDF(c; n, min_rate) <= miss_probability / looks, c = largest, and 1 where there is no pair. With looks = the
    number of times the prompt is looked at, a prompt of rate min_rate or more is given up with at most miss_probability in all
    (Bonferroni); with looks = 1 the bound holds for each look alone. Raises ValueError for settings outside their range.
    """
    if not (0 < min_rate < 1 and 0 < miss_probability < 1 and looks >= 1):
        settings = f"min_rate {min_rate}, miss_probability {miss_probability}, looks {looks}"
        raise ValueError(f"{settings} are no stopping rule; pass two probabilities between 0 and 1, and at least 1 look")
    return bool(binom.cdf(max(largest, 1), n, min_rate) <= miss_probability / looks)


def first_futile_n(min_rate: float, miss_probability: float, looks: int) -> int:
    """Smallest number of pictures without any pair that is futile.

    With miss_probability 0.05 and looks = 1: 14 at a rate of 0.3, 46 at 0.1, 236 at 0.02; with looks = 7, the doubling rounds
    8 to 512: 21, 68 and 349. Raises ValueError as is_futile does.
    """
    return next(n for n in count(1) if is_futile(1, n, min_rate, miss_probability, looks))


@lru_cache(maxsize=32)
def futile_cliques(first: int, budget: int, clique_size: int, min_rate: float, miss_probability: float) -> dict[int, int]:
    """By round, the largest clique with which a prompt is given up there; 0 where none is.

    The largest that is_futile allows at a single look with which, too, a prompt of rate min_rate is given up with at most
    miss_probability over all rounds together. That total is enumerated: hits agree with each other, and clique_size of them
    stop the prompt before. Raises ValueError as cumulative_rounds and is_futile do.
    """
    going, drawn, left, found = np.eye(1, clique_size)[0], 0, miss_probability, {}  # going [hits]: chance to be drawn on with so many
    for n in cumulative_rounds(first, budget):
        going = np.convolve(going, binom.pmf(np.arange(clique_size), n - drawn, min_rate))[:clique_size]
        missed, drawn = np.cumsum(going), n
        found[n] = max((c for c in range(1, clique_size) if missed[c] <= left and is_futile(c, n, min_rate, miss_probability, 1)), default=0)
        if found[n]:
            left -= missed[found[n]]
            going[: found[n] + 1] = 0
    return found


def n_always_drawn(first: int, budget: int, clique_size: int, min_rate: float, miss_probability: float) -> int:
    """Pictures that every prompt gets: those of the first round at which a rule could stop it. Their hits are not biased by stopping.

    A clique of clique_size needs as many pictures; fewer than first_futile_n are never futile. Raises ValueError as they do.
    """
    enough = min(clique_size, first_futile_n(min_rate, miss_probability, 1))
    return next((n for n in cumulative_rounds(first, budget) if n >= enough), budget)
