"""Where copies end and natural neighbours begin, of this very training set."""

import numpy as np

SURE, MOST = 0.95, 0.99  # of the canaries of each kind, at least found; of all, at most
LOOSE = 1.5  # room: of neighbours that count though they lie beyond, and of what only guards against another texture of the same colours
COST_OF_A_FALSE_PAIR = 10.0  # per image, in canaries missed: counts are sums over many images, a miss is one


def copy_threshold(canaries: list[np.ndarray], natural: np.ndarray, n_sources: int) -> float:
    """The difference up to which a pair counts as copies, in [0, 1].

    canaries: for each kind of known copies, altered as far as a copy may be, their differences [c] to their sources; natural [m]
    differences between n_sources random images and their nearest neighbours, each pair once, true copies among them. At least 95 of
    100 canaries of every kind are found: an average would hide the kind that is hardest to tell. Between that and the 99th percentile of
    all, where it is larger, that value is taken at which canaries missed, and ten times the natural neighbours per image that copies do
    not explain, are fewest: as many copies are expected between two differences as the canaries have there. Neighbours up to half as
    far again count: a sample of some hundred images sees one in several of the false pairs that all of them make, and where neighbours begin
    just beyond, the next one is within. Raises ValueError without canaries.
    """
    if not canaries or not all(len(kind) for kind in canaries):
        raise ValueError("no canary sets the threshold; plant some, or name the threshold in params.yaml")
    every = np.sort(np.concatenate(canaries))
    least = max(float(np.quantile(kind, SURE, method="higher")) for kind in canaries)
    steps = np.linspace(least, max(least, float(np.quantile(every, MOST))), 41)
    found = np.searchsorted(every, steps, side="right") / len(every)
    near = np.searchsorted(np.sort(natural), LOOSE * steps, side="right")
    unexplained = np.maximum(near - near[0] * found / found[0], 0) / max(n_sources, 1)
    loss = (1 - found) + COST_OF_A_FALSE_PAIR * unexplained
    return float(steps[len(steps) - 1 - np.argmin(loss[::-1])])  # of equal ones the largest


def outer(canaries: np.ndarray) -> float:
    """The value that 99 of 100 canaries [c] do not exceed, with half of room."""
    return float(LOOSE * np.quantile(canaries, MOST))


def similarity_reached(canaries: np.ndarray, share: float) -> float:
    """Similarity that this share of the canaries [c] reach, down to a twentieth: so that a canary more or less does not search all anew.

    Raises ValueError without canaries.
    """
    if not len(canaries):
        raise ValueError("no canary says how similar copies are; plant some")
    return float(np.floor(20 * np.quantile(canaries, 1 - share)) / 20)
