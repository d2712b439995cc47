"""How far people and verdicts agree, and how precise a list is by people's labels."""

import numpy as np

from tasks.measures.rates import clopper_pearson


def kappa(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """Cohen's kappa of two judges of the same n things (Cohen 1960, eq. 1), with a 95 % interval; a, b [n] bool.

    1: they agree on all, 0: as often as chance with each judge's own shares, below 0: less. The interval is Cohen's own, with the exact
    ends of Clopper and Pearson for the share of agreement where he has a normal approximation: unlike the asymptotic one (Fleiss, Cohen &
    Everitt 1969) it does not shrink to a point where a few judgements all agree, and it covers at least as often. All NaN where kappa is not
    defined: n = 0, or both judges say the same of all things. Raises ValueError where a and b are not of one length.
    """
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"judgements of shape {a.shape} and {b.shape}; give one of each judge for each thing")
    n = len(a)
    by_chance = float(a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())) if n else 1.0
    if by_chance == 1:
        return (float("nan"),) * 3
    n_agreed = int((a == b).sum())
    value, low, high = ((share - by_chance) / (1 - by_chance) for share in (n_agreed / n, *clopper_pearson(n_agreed, n)))
    return value, max(low, -1.0), high


def precision_at(labels: np.ndarray) -> np.ndarray:
    """[n, 3] precision of the list cut after each item, best first, with the ends of its 95 % Clopper-Pearson interval; labels [n] bool.

    Each row is the interval of one cut: they do not hold all together.
    """
    n_true = np.cumsum(np.asarray(labels, bool))
    rows = [(int(k) / n, *clopper_pearson(int(k), n)) for n, k in enumerate(n_true, 1)]
    return np.array(rows, np.float64).reshape(-1, 3)
