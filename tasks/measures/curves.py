"""Curves over a list of findings: how close, how false, how dear. Arrays in, arrays out, one point per step."""

import numpy as np

from tasks.measures import rates


def share_at_least(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct scores [m], rising, and the share [m] of all scores [n] at or above each: 1 at the first, falling. Empty for none."""
    values, counts = np.unique(np.asarray(scores, float), return_counts=True)
    return values, np.cumsum(counts[::-1])[::-1] / max(counts.sum(), 1)


def false_shares(is_target: np.ndarray, n_targets: int, n_controls: int) -> tuple[np.ndarray, np.ndarray]:
    """Estimated false share [k] of the list cut after its 1st to k-th target, and its 95 % upper bound [k].

    is_target [n] bool: what matched, closest first: a target its training image (True) or a control a held-out image (False). The rule is
    decoy_fdr's at each cut, m (1 + flagged) / ((c + 1) k), with the controls that come before the cut as flagged (the target-decoy
    competition of Elias & Gygi 2007). Raises ValueError without controls, or with more matches than prompts.
    """
    is_target = np.asarray(is_target, bool)
    if n_controls < 1 or is_target.sum() > n_targets or (~is_target).sum() > n_controls:
        raise ValueError(f"{is_target.sum()} of {n_targets} targets and {(~is_target).sum()} of {n_controls} controls")
    flagged = np.cumsum(~is_target)[is_target]
    k = np.arange(1, len(flagged) + 1)
    bounds = {int(f): rates.upper_bound(int(f), n_controls, 0.95) for f in np.unique(flagged)}
    upper = np.array([bounds[int(f)] for f in flagged]) if len(flagged) else np.empty(0)
    return np.minimum(1.0, n_targets * (1 + flagged) / ((n_controls + 1) * k)), np.minimum(1.0, n_targets * upper / k)


def found_by_cost(costs: np.ndarray, is_found: np.ndarray, before: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Cost spent [n] and findings made [n] after each prompt in turn; costs [n] and is_found [n] in the order in which they are asked.

    before = what is spent before the first one. Both rise.
    """
    return before + np.cumsum(np.asarray(costs, float)), np.cumsum(np.asarray(is_found, bool))
