"""Descriptors with a planted truth, for tests and bench: who is a copy of whom is known before anything is searched."""

from dataclasses import dataclass

import numpy as np

N_SINGLES, N_GROUPS, N_CHAINS, N_FAMILIES = 60_000, 4_000, 100, 100  # of the simulation at full scale


@dataclass(frozen=True)
class World:
    """vectors [n, d] float16 of unit length and the number [n] of the planted group, one of its own for each row without copies."""

    vectors: np.ndarray
    group: np.ndarray


def unit(rows: np.ndarray) -> np.ndarray:
    """[n, d] float32, each row divided by its length."""
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def near(centres: np.ndarray, cosine: np.ndarray | float, rng: np.random.Generator) -> np.ndarray:
    """[n, d] rows around centres [n, d], such that two rows of one centre have about this cosine [n] with each other."""
    share = np.broadcast_to(np.asarray(cosine, np.float32), len(centres))[:, None]
    noise = rng.standard_normal(centres.shape, np.float32) / np.float32(np.sqrt(centres.shape[1]))
    return unit(np.sqrt(share) * centres + np.sqrt(1 - share) * noise)


def directions(n: int, d: int, rng: np.random.Generator) -> np.ndarray:
    """[n, d] unit rows in random directions."""
    return unit(rng.standard_normal((n, d), np.float32))


def chains_and_templates(scale: float, seed: int, d: int = 512) -> World:
    """The simulation behind the choice of stars (97,000 rows at scale 1): singles; groups of 2 to 40 copies at cosine .95 to .996;
    drift chains of 100 rows, each at cosine .97 to the one before; template families of 60 at cosine .93. Only the groups are copies."""
    rng = np.random.default_rng(seed)
    n_singles, n_groups, n_chains, n_families = (max(round(scale * n), 1) for n in (N_SINGLES, N_GROUPS, N_CHAINS, N_FAMILIES))
    weight = 1 / np.arange(2, 41) ** 2  # most copies come in twos and threes
    sizes = rng.choice(np.arange(2, 41), n_groups, p=weight / weight.sum())
    groups = near(np.repeat(directions(n_groups, d, rng), sizes, axis=0), np.repeat(rng.uniform(0.95, 0.996, n_groups), sizes), rng)
    steps = [directions(n_chains, d, rng)]
    for _ in range(99):
        across = rng.standard_normal((n_chains, d), np.float32)
        across = unit(across - (across * steps[-1]).sum(axis=1, keepdims=True) * steps[-1])
        steps.append(unit(0.97 * steps[-1] + np.sqrt(1 - 0.97**2) * across))
    families = near(np.repeat(directions(n_families, d, rng), 60, axis=0), 0.93, rng)
    vectors = np.concatenate([directions(n_singles, d, rng), groups, *steps, families])
    group = np.arange(n_groups, n_groups + len(vectors))
    group[n_singles:n_singles + len(groups)] = np.repeat(np.arange(n_groups), sizes)
    order = rng.permutation(len(vectors))
    return World(vectors[order].astype(np.float16), group[order])


def clustered(n: int, seed: int, d: int = 512, out: np.ndarray | None = None, closest: float = 0.34) -> World:
    """n descriptors as a training set has them: four in five in loose topics, a few of them large, where strangers have cosines of up to
    .5 (in the closest topic `closest` on average); the others in groups of 2 to 40 copies at cosine .6 to .99. Written to out [n, d]
    float16 (may be memory-mapped) if given."""
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.uniform(np.log(2), np.log(41), n // 10)).astype(np.int64)
    sizes = sizes[np.cumsum(sizes) <= n // 5]
    n_copies = int(sizes.sum())
    n_topics = max(n // 400, 1)
    topics = near(directions(max(n_topics // 30, 1), d, rng)[rng.integers(0, max(n_topics // 30, 1), n_topics)], 0.2, rng)
    closeness = rng.uniform(0.1, closest, n_topics)
    share = 1 / np.arange(1, n_topics + 1)  # Zipf's law
    share /= share.sum()
    of_group = near(topics[topic := rng.choice(n_topics, len(sizes), p=share)], closeness[topic], rng)
    similarity = rng.uniform(0.6, 0.99, len(sizes))
    group = np.concatenate([np.repeat(np.arange(len(sizes)), sizes), np.arange(len(sizes), len(sizes) + n - n_copies)])[rng.permutation(n)]
    vectors = np.empty((n, d), np.float16) if out is None else out
    for start in range(0, n, 65_536):
        mine = group[start:start + 65_536]
        is_copy = mine < len(sizes)
        topic = rng.choice(n_topics, len(mine), p=share)
        centres = topics[topic]
        centres[is_copy] = of_group[mine[is_copy]]
        cosine = closeness[topic]
        cosine[is_copy] = similarity[mine[is_copy]]
        vectors[start:start + 65_536] = near(centres, cosine, rng)
    return World(vectors, group)


def planted_pairs(group: np.ndarray) -> np.ndarray:
    """[p, 2] all pairs of rows a < b of one group, in order."""
    order = np.argsort(group, kind="stable")
    runs = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    pairs = [np.stack(np.triu_indices(len(run), 1), axis=1) for run in runs if len(run) > 1]
    made = np.concatenate([run[pair] for run, pair in zip((r for r in runs if len(r) > 1), pairs, strict=True)]) if pairs else np.zeros((0, 2), np.int64)
    return made[np.lexsort((made[:, 1], made[:, 0]))]
