"""A threshold chosen on labelled descriptors, judged on others; pair precision and recall against counting pairs one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import pair_confusion_matrix

from tasks.measures.neighbours import similar_pairs
from tests.descriptor_worlds import chains_and_templates, planted_pairs
from tests.pair_quality import best_threshold, quality, stars

GRID = tuple(np.round(np.arange(0.935, 0.9601, 0.0025), 4).tolist())


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40))
@settings(deadline=None, max_examples=60)
def test_pair_precision_and_recall_are_those_of_scikit_learn(labels):
    cluster, group = np.array(labels).T
    (_, false), (missed, right) = pair_confusion_matrix(group, cluster) // 2
    found = quality(cluster, group, 0.5)
    assert (found.n_pairs, found.n_right, found.n_copies) == (right + false, right, right + missed)
    assert found.precision == (right / (right + false) if right + false else 1) and found.recall == (right / (right + missed) if right + missed else 1)


def test_planted_pairs_are_all_pairs_of_a_group():
    group = np.array([3, 1, 3, 2, 1, 3])
    assert planted_pairs(group).tolist() == [[0, 2], [0, 5], [1, 4], [2, 5]]
    assert planted_pairs(np.arange(3)).shape == (0, 2)


def test_of_precise_thresholds_the_one_that_finds_most_is_chosen():
    group = np.array([0, 0, 0, 1, 2])
    pairs, similarity = np.array([[0, 1], [0, 2], [1, 2], [3, 4]]), np.array([0.9, 0.8, 0.8, 0.7], np.float32)
    assert best_threshold(group, pairs, similarity, (0.65, 0.75, 0.79, 0.85), 0.95).threshold == 0.79  # the higher of two that find all
    assert best_threshold(group, pairs, similarity, (0.65, 0.75), 0.6).recall == 1
    with pytest.raises(ValueError, match=r"no threshold of \[0.65\] reaches a pair precision of 0.95; the best is 0.750 at 0.65"):
        best_threshold(group, pairs, similarity, (0.65,), 0.95)
    with pytest.raises(ValueError, match="the grid has no threshold"):
        best_threshold(group, pairs, similarity, (), 0.95)


def test_a_threshold_holds_where_it_is_reached_exactly():
    pairs, similarity = np.array([[0, 1]]), np.array([0.9], np.float32)
    assert stars(2, pairs, similarity, float(similarity[0])).tolist() == [0, 0]
    assert stars(2, pairs, similarity, float(np.nextafter(similarity[0], np.float32(1)))).tolist() == [0, 1]


def test_no_rows_and_no_pairs_are_perfect():
    none = quality(np.zeros(0, int), np.zeros(0, int), 0.5)
    assert (none.precision, none.recall) == (1, 1)
    assert stars(3, np.zeros((0, 2), int), np.zeros(0, np.float32), 0.5).tolist() == [0, 1, 2]


def test_stars_at_the_threshold_of_another_seed_keep_drift_chains_and_templates_apart():
    worlds = [chains_and_templates(0.1, seed) for seed in (0, 1)]
    found = [similar_pairs(world.vectors, GRID[0], 64) for world in worlds]
    for chosen_on, judged_on in ((0, 1), (1, 0)):
        threshold = best_threshold(worlds[chosen_on].group, *found[chosen_on], GRID, 0.97).threshold
        there = worlds[judged_on].group
        judged = quality(stars(len(there), *found[judged_on], threshold), there, threshold)
        assert judged.precision >= 0.95 and judged.recall >= 0.97
