"""Groups of generations that all agree with each other: cliques, never connected components, which chain."""

import networkx as nx
import numpy as np
from scipy.sparse.csgraph import connected_components

N_STARTS = 8  # greedy cliques tried before the proof; 32 cost four times the time for at most one member more


def largest_clique(is_edge: np.ndarray, step_limit: int = 1_000_000) -> tuple[np.ndarray, bool]:
    """Sorted members [k] of the largest clique and whether it is proven to be the largest (Carlini et al. 2023, 4.2.1).

    is_edge [n, n] bool, symmetric; its diagonal is ignored. A lone vertex is a clique of 1; of several largest, the
    lexicographically smallest one found. A step is one member of one enumerated clique; step_limit bounds those of each part of
    the graph that no shortcut settles (a million take 0.6 s). Raises ValueError when is_edge is not square and symmetric.
    """
    if is_edge.ndim != 2 or is_edge.shape != is_edge.T.shape or not np.array_equal(is_edge, is_edge.T):
        raise ValueError(f"is_edge {is_edge.shape} is not a symmetric square matrix; compare each pair once and mirror it")
    edges = is_edge.astype(bool)
    np.fill_diagonal(edges, False)
    members: list[int] = []
    is_exact = True
    # vertices without a missing edge between them never compete: the parts of the complement are solved one by one
    n_parts, part = connected_components(~edges, directed=False)
    for rows in (np.flatnonzero(part == label) for label in range(n_parts)):
        found, is_proven = _clique_of_part(edges[np.ix_(rows, rows)], step_limit)
        members += rows[found].tolist()
        is_exact &= is_proven
    return np.array(sorted(members), np.int64), is_exact


def clique_mean_distance(distances: np.ndarray, members: np.ndarray) -> float:
    """Mean distance over the pairs of members, by which flagged prompts are ranked (lower first); nan for fewer than two.

    distances [n, n] symmetric; members [k] rows of it.
    """
    if len(members) < 2:
        return float("nan")
    return float(distances[np.ix_(members, members)][np.triu_indices(len(members), 1)].mean(dtype=np.float64))


def medoid(distances: np.ndarray, members: np.ndarray) -> int:
    """Member with the smallest mean distance to the other members, the first in order of index among equals.

    distances [n, n] symmetric; members [k] rows of it. A lone member of several rows is no choice: then the medoid of all n
    rows. Raises ValueError without members.
    """
    if not len(members):
        raise ValueError("medoid of no members; pass at least one row (np.arange(n) for all of them)")
    rows = np.sort(members) if len(members) > 1 else np.arange(len(distances))
    among = distances[np.ix_(rows, rows)].astype(np.float64)
    np.fill_diagonal(among, 0)
    return int(rows[among.sum(axis=1).argmin()])


def _clique_of_part(edges: np.ndarray, step_limit: int) -> tuple[list[int], bool]:
    """Largest clique of a graph [n, n] and whether that is proven: greedy, then bounds, then enumeration."""
    best = _greedy_clique(edges)
    rows = _core(edges, len(best) - 1)
    graph = nx.Graph(rows[np.argwhere(np.triu(edges[np.ix_(rows, rows)]))].tolist())
    if len(set(nx.greedy_color(graph).values())) <= len(best):
        return best, True
    n_steps = 0
    for clique in nx.find_cliques(graph):
        n_steps += len(clique)
        if n_steps > step_limit:
            return best, False
        best = min(best, sorted(clique), key=_largest_then_first)
    return best, True


def _core(edges: np.ndarray, min_degree: int) -> np.ndarray:
    """Vertices [k] left when those with fewer than min_degree neighbours left are taken out, over and over.

    Every clique of min_degree + 1 lies in it: noise around a clique is gone before anything is enumerated.
    """
    rows = np.arange(len(edges))
    while (is_weak := edges[np.ix_(rows, rows)].sum(axis=1) < min_degree).any():
        rows = rows[~is_weak]
    return rows


def _greedy_clique(edges: np.ndarray) -> list[int]:
    """Sorted largest of the cliques grown from the N_STARTS vertices of highest degree."""
    starts = np.argsort(-edges.sum(axis=1), kind="stable")[:N_STARTS]
    return min((sorted(_grown(edges, start)) for start in starts.tolist()), key=_largest_then_first)


def _grown(edges: np.ndarray, start: int) -> list[int]:
    """Clique from start on, always adding the vertex joined to all so far that leaves most others to choose from."""
    members, is_open = [start], edges[start].copy()
    degree = edges[:, is_open].sum(axis=1)
    while is_open.any():
        members.append(int(np.where(is_open, degree, -1).argmax()))
        lost = is_open & ~edges[members[-1]]
        degree -= edges[:, lost].sum(axis=1)
        is_open &= ~lost
    return members


def _largest_then_first(members: list[int]) -> tuple[int, list[int]]:
    """Sort key: more members first, then in order of their indices."""
    return -len(members), members
