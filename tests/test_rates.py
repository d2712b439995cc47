"""Intervals, p-values and false-discovery rates against scipy, statsmodels-style references and simulation."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, false_discovery_control, hypergeom, kstest
from sklearn.metrics import roc_curve

from tasks.measures import rates

counts = st.integers(0, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts, st.sampled_from([0.5, 0.8, 0.95, 0.99]))
def test_clopper_pearson_is_scipys_exact_interval_and_holds_the_rate(count, confidence):
    k, n = count
    assume(n > 0)
    expected = binomtest(k, n).proportion_ci(confidence, method="exact")
    low, high = rates.clopper_pearson(k, n, confidence)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= low <= k / n <= high <= 1


def test_nothing_drawn_says_nothing():
    assert rates.clopper_pearson(0, 0) == (0, 1)
    assert rates.upper_bound(0, 0) == 1
    assert rates.hypergeometric_interval(0, 0, 17) == (0, 17)


def test_the_intervals_that_methods_quotes():
    assert rates.clopper_pearson(5, 500) == pytest.approx((0.0033, 0.0232), abs=5e-5)
    assert rates.clopper_pearson(491, 500) == pytest.approx((0.966, 0.992), abs=5e-4)
    assert rates.clopper_pearson(0, 500)[1] == pytest.approx(0.0074, abs=5e-5)


@given(counts, st.floats(0.5, 0.99))
def test_the_one_sided_bound_leaves_just_the_error_to_a_rate_above_it(count, confidence):
    k, n = count
    assume(k < n)
    bound = rates.upper_bound(k, n, confidence)
    assert binom.cdf(k, n, bound) == pytest.approx(1 - confidence, abs=1e-9)
    assert bound == pytest.approx(binomtest(k, n, alternative="less").proportion_ci(confidence, method="exact").high, abs=1e-9)


@pytest.mark.parametrize("measure", [rates.clopper_pearson, rates.upper_bound, lambda k, n: rates.hypergeometric_interval(k, n, 99)])
def test_counts_that_cannot_be_are_refused(measure):
    for k, n in ((3, 2), (-1, 2)):
        with pytest.raises(ValueError, match=f"{k} of {n} is no count"):
            measure(k, n)
    with pytest.raises(ValueError, match="9 drawn from a population of 8"):
        rates.hypergeometric_interval(1, 9, 8)


def _reference_totals(k, n, population, confidence):
    """Every total that neither tail rejects, by trying all of them."""
    tail = (1 - confidence) / 2
    totals = range(k, population - (n - k) + 1)
    kept = [t for t in totals if hypergeom.cdf(k, population, t, n) > tail and hypergeom.sf(k - 1, population, t, n) > tail]
    return kept[0], kept[-1], len(kept)


@pytest.mark.parametrize("population", [1, 2, 7, 16])
@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_the_hypergeometric_interval_holds_exactly_the_totals_that_neither_tail_rejects(population, confidence):
    for n in range(1, population + 1):
        for k in range(n + 1):
            low, high, n_kept = _reference_totals(k, n, population, confidence)
            assert rates.hypergeometric_interval(k, n, population, confidence) == (low, high)
            assert high - low + 1 == n_kept
            assert low - 1 < population * k / n < high + 1  # a total is whole, the expanded rate is not


@pytest.mark.parametrize("population", [5, 20, 41])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_hypergeometric_interval_covers_every_truth_as_often_as_it_says(population, confidence):
    for n in {1, population // 3, population - 1, population}:
        ends = {k: rates.hypergeometric_interval(k, n, population, confidence) for k in range(n + 1)}
        for total in range(population + 1):
            covered = sum(hypergeom.pmf(k, population, total, n) for k, (low, high) in ends.items() if low <= total <= high)
            assert covered >= confidence - 1e-9


def test_a_census_is_certain_and_a_sample_without_a_hit_is_not():
    assert rates.hypergeometric_interval(3, 40, 40) == (3, 3)
    low, high = rates.hypergeometric_interval(0, 40, 400)
    assert low == 0
    assert high > 0


def test_a_sample_of_a_huge_population_agrees_with_clopper_pearson():
    low, high = rates.hypergeometric_interval(3, 300, 10**8)
    assert (low / 10**8, high / 10**8) == pytest.approx(rates.clopper_pearson(3, 300), rel=1e-3)


def test_the_total_expands_each_stratum_and_adds_a_census_as_it_is():
    total, low, high = rates.estimated_total([(7, 10, 10), (2, 20, 100)])
    assert total == 7 + 10
    assert (low, high) == tuple(7 + end for end in rates.hypergeometric_interval(2, 20, 100, 0.95))  # one sampled stratum: no split
    assert rates.estimated_total([(7, 10, 10), (3, 5, 5)]) == (10, 10, 10)
    assert rates.estimated_total([]) == (0, 0, 0)


def test_the_error_is_split_over_the_sampled_strata_and_an_unseen_one_may_hold_anything():
    made = rates.estimated_total([(2, 20, 100), (0, 30, 90), (4, 4, 4), (0, 0, 50)], confidence=0.94)
    ends = [rates.hypergeometric_interval(*s, 0.98) for s in ((2, 20, 100), (0, 30, 90))]
    assert made == (14, ends[0][0] + ends[1][0] + 4, ends[0][1] + ends[1][1] + 4 + 50)


@pytest.mark.parametrize("truths", [(0, 0), (1, 3), (10, 0), (30, 25)])
def test_the_total_is_covered_as_often_as_it_says_where_a_bootstrap_is_not(truths):
    rng = np.random.default_rng(0)
    drawn = [rng.hypergeometric(truth, 100 - truth, 15, 1500) for truth in truths]
    ends = {pair: rates.estimated_total([(int(pair[0]), 15, 100), (int(pair[1]), 15, 100)])[1:] for pair in set(zip(*drawn, strict=True))}
    covered = np.mean([ends[pair][0] <= sum(truths) <= ends[pair][1] for pair in zip(*drawn, strict=True)])
    assert covered >= 0.95 - 4 * np.sqrt(0.05 * 0.95 / 1500)


def test_conformal_p_counts_ties_against_the_finding():
    controls = np.array([0.1, 0.5, 0.5, 0.9])
    assert [rates.conformal_p(s, controls) for s in (1.0, 0.9, 0.5, 0.0)] == [1 / 5, 2 / 5, 4 / 5, 1]
    assert rates.conformal_p(3.0, np.zeros(0)) == 1
    assert rates.conformal_p(-np.inf, np.array([-np.inf, 0.0])) == 1
    assert rates.conformal_p(2.0, np.array([-np.inf, -np.inf])) == pytest.approx(1 / 3)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30), st.floats(-1, 1), st.floats(-1, 1))
def test_a_higher_score_never_has_a_larger_p_and_none_is_below_the_smallest(controls, a, b):
    low, high = sorted((a, b))
    assert rates.smallest_p(len(controls)) <= rates.conformal_p(high, np.array(controls)) <= rates.conformal_p(low, np.array(controls)) <= 1


def test_the_smallest_p_is_reached_above_all_controls():
    assert rates.smallest_p(40) == rates.conformal_p(9.0, np.zeros(40)) == pytest.approx(1 / 41)


def _reference_matched_p(score, covariate, controls, k):
    """controls: (score, covariate) of those allowed; by sorting in plain Python."""
    near = sorted(controls, key=lambda c: abs(np.log(max(c[1], 1e-6)) - np.log(max(covariate, 1e-6))))[:k]
    return (1 + sum(c[0] >= score for c in near)) / (1 + len(near))


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(1, 30), st.integers(1, 12), st.integers(0, 10**6))
def test_matched_p_takes_the_controls_nearest_in_log_covariate_without_the_own(m, c, k, seed):
    rng = np.random.default_rng(seed)
    scores, control_scores = rng.normal(size=m).round(1), rng.normal(size=c).round(1)
    covariate, control_covariate = rng.lognormal(size=m), rng.lognormal(size=c)
    scores[0], covariate[-1] = -np.inf, 0
    own = rng.random((m, c)) < 0.3
    made = rates.matched_p(scores, covariate, control_scores, control_covariate, own, k)
    for i in range(m):
        allowed = [(control_scores[j], control_covariate[j]) for j in range(c) if not own[i, j]]
        assert made[i] == pytest.approx(_reference_matched_p(scores[i], covariate[i], allowed, k))
    assert made[0] == 1  # dropped by the screen: no evidence at all


def test_matching_is_on_ratios_and_not_on_differences():
    made = rates.matched_p(np.array([0.5]), np.array([0.1]), np.array([0.0, 1.0]), np.array([0.02, 0.3]), np.zeros((1, 2), bool), k=1)
    assert made[0] == 1  # 0.3 is nearer to 0.1 by ratio (3 against 5), 0.02 by difference


def test_matching_keeps_p_values_honest_where_the_covariate_drives_the_score():
    rng = np.random.default_rng(0)
    draw = lambda n, shift: (d := rng.lognormal(shift, 0.7, n), -d + 0.3 * rng.standard_normal(n))
    control_d, control_s = draw(4000, 0.0)
    d, s = draw(3000, -1.0)  # null targets, but denser than the controls: nearer to everything
    none = np.zeros((3000, 4000), bool)
    matched = rates.matched_p(s, d, control_s, control_d, none)
    unmatched = rates.matched_p(s, d, control_s, control_d, none, k=4000)
    assert (matched <= 0.05).mean() <= 0.065
    assert (unmatched <= 0.05).mean() > 0.15


def test_conformal_p_values_of_nulls_are_uniform():
    rng = np.random.default_rng(1)
    p = [rates.conformal_p(rng.normal(), rng.normal(size=199)) for _ in range(4000)]
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.012)
    assert kstest(p, "uniform").statistic < 0.03


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_simes_is_the_smallest_benjamini_hochberg_value_and_lies_between_the_minimum_and_bonferroni(p):
    made = rates.simes(np.array(p))
    assert made == pytest.approx(false_discovery_control(p).min())
    assert min(p) - 1e-12 <= made <= min(1.0, len(p) * min(p)) + 1e-12 or made == pytest.approx(max(p))


def _reference_bh(p):
    """Benjamini and Hochberg 1995 by its definition: the smallest level at which a hypothesis is rejected."""
    m, ranked = len(p), sorted(p)
    return [min(min(1.0, m * ranked[j] / (j + 1)) for j in range(m) if ranked[j] >= x) for x in p]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=15))
def test_q_values_of_lone_images_are_those_of_benjamini_and_hochberg(p):
    np.testing.assert_allclose(rates.cluster_q(np.array(p), np.arange(len(p))), _reference_bh(p), atol=1e-12)


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 4)), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_members_of_a_cluster_share_one_q_whatever_the_order(rows, random):
    p, cluster = np.array([r[0] for r in rows]), np.array([r[1] * 10**15 for r in rows])
    q = rates.cluster_q(p, cluster)
    joint = {c: rates.simes(p[cluster == c]) for c in np.unique(cluster)}
    expected = dict(zip(joint, _reference_bh(list(joint.values())), strict=True))
    np.testing.assert_allclose(q, [expected[c] for c in cluster], atol=1e-12)
    order = list(range(len(rows)))
    random.shuffle(order)
    np.testing.assert_allclose(rates.cluster_q(p[order], cluster[order]), q[order])


def test_copies_of_a_prompt_are_one_observation():
    once = rates.cluster_q(np.array([0.01, 0.4, 0.9]), np.array([1, 2, 3]))
    often = rates.cluster_q(np.array([0.01] * 50 + [0.4, 0.9]), np.array([1] * 50 + [2, 3]))
    assert often[0] == pytest.approx(once[0])
    assert often[0] == pytest.approx(0.03)
    assert rates.cluster_q(np.zeros(0), np.zeros(0, int)).shape == (0,)


def test_the_false_discovery_rate_stays_below_the_level_with_clusters_of_the_same_image():
    rng = np.random.default_rng(2)
    false_shares = []
    for _ in range(400):
        null = rng.random(80).repeat(3)  # three prompts of one image are right or wrong together
        p, cluster = np.r_[null, rng.beta(0.05, 5, 20)], np.r_[np.arange(80).repeat(3), np.arange(80, 100)]
        found = np.unique(cluster[rates.cluster_q(p, cluster) <= 0.1])
        false_shares.append((found < 80).mean() if len(found) else 0)
    assert 0.02 < np.mean(false_shares) <= 0.1 + 0.015


def test_the_decoy_estimate_and_its_bound_are_the_designs_4_and_13_percent():
    assert rates.decoy_fdr(96, 34, 64, 0) == pytest.approx(0.0434, abs=5e-5)
    assert rates.decoy_fdr_upper(96, 34, 64, 0) == pytest.approx(0.1291, abs=5e-5)
    two_sided = 96 / 34 * rates.clopper_pearson(0, 64)[1]
    assert two_sided == pytest.approx(0.158, abs=5e-4)  # would print 16 %: the design's bound is one-sided


def test_an_empty_list_has_no_false_share_and_a_hopeless_one_is_all_false():
    assert rates.decoy_fdr(96, 0, 64, 3) is rates.decoy_fdr_upper(96, 0, 64, 3) is rates.n_controls_needed(96, 0, 0.1) is None
    assert rates.decoy_fdr(96, 4, 64, 64) == rates.decoy_fdr_upper(96, 4, 64, 64) == rates.decoy_fdr(96, 4, 0, 0) == 1


@given(st.integers(1, 200), st.data(), st.integers(1, 200))
def test_the_bound_lies_above_the_rate_and_grows_with_flags_and_shrinks_with_controls(m, data, c):
    k, flagged = data.draw(st.integers(1, m)), data.draw(st.integers(0, c - 1))
    upper = rates.decoy_fdr_upper(m, k, c, flagged)
    assert min(1, m * flagged / (c * k)) <= upper <= 1
    assert upper <= rates.decoy_fdr_upper(m, k, c, flagged + 1)
    assert rates.decoy_fdr_upper(m, k, c + 1, flagged) <= upper
    assert rates.decoy_fdr(m, k, c, flagged) <= rates.decoy_fdr(m, k, c, flagged + 1)


@given(st.integers(1, 100), st.data(), st.sampled_from([0.05, 0.1, 0.3]))
def test_the_controls_needed_are_the_fewest_that_bring_the_bound_down(m, data, max_fdr):
    k = data.draw(st.integers(1, m))
    needed = rates.n_controls_needed(m, k, max_fdr)
    assert rates.decoy_fdr_upper(m, k, needed, 0) <= max_fdr + 1e-9
    assert rates.decoy_fdr_upper(m, k, needed - 1, 0) > max_fdr - 1e-9


def test_a_false_share_of_nothing_is_out_of_reach():
    assert rates.n_controls_needed(96, 34, 0.0) is None
    assert rates.n_controls_needed(96, 34, 0.1) == 84


def _reference_roc(scores, is_positive, max_fpr):
    """The highest point of scikit-learn's ROC curve at or left of the bound."""
    fpr, tpr, _ = roc_curve(is_positive, scores, drop_intermediate=False)
    return tpr[fpr <= max_fpr + 1e-12].max()


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40), st.sampled_from([0, 0.01, 0.1, 0.25, 0.5, 1]))
def test_tpr_at_fpr_is_the_best_point_of_the_roc_curve_within_the_bound_with_ties(rows, max_fpr):
    scores, is_positive = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows])
    assume(0 < is_positive.sum() < len(rows))
    made = rates.tpr_at_fpr(scores, is_positive, max_fpr)
    assert made == pytest.approx(_reference_roc(scores, is_positive, max_fpr))
    assert rates.tpr_at_fpr(scores, is_positive.astype(int), max_fpr) == made  # labels of 0 and 1


def test_tpr_at_fpr_never_exceeds_the_bound_where_the_nearest_point_does():
    negatives, positives = np.arange(50.0), np.full(10, 48.5)  # one negative above the positives: an FPR of 2 %
    scores, is_positive = np.r_[negatives, positives], np.r_[np.zeros(50, bool), np.ones(10, bool)]
    assert rates.tpr_at_fpr(scores, is_positive, 0.019) == 0  # the nearest point to 1.9 % has a TPR of 1
    assert rates.tpr_at_fpr(scores, is_positive, 0.02) == 1


def test_one_class_has_no_rate():
    with pytest.raises(ValueError, match="3 positives and 0 negatives"):
        rates.tpr_at_fpr(np.arange(3.0), np.ones(3, bool), 0.01)


def test_expected_distinct_is_what_a_simulation_counts():
    p = np.array([0.0, 0.01, 0.1, 0.5, 1.0])
    hits = np.random.default_rng(0).random((20_000, 12, 5)) < p
    assert rates.expected_distinct(p, 12) == pytest.approx(hits.any(axis=1).sum(axis=1).mean(), abs=0.02)
    assert rates.expected_distinct(p, 0) == 0
    assert rates.expected_distinct(p, 1) == pytest.approx(p.sum())
