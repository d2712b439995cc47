"""Rates against scipy and statsmodels, intervals by enumeration and in simulated worlds, and the design's own figures."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, hypergeom, kstest
from sklearn.metrics import roc_curve
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from tasks.measures import rates

quick = settings(deadline=None, max_examples=100)
seeds = st.integers(0, 100_000)


@st.composite
def counts(draw: st.DrawFn, least: int = 1, most: int = 300) -> tuple[int, int]:
    n = draw(st.integers(least, most))
    return draw(st.integers(0, n)), n


# clopper_pearson, upper_bound


@given(counts(), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
@quick
def test_clopper_pearson_is_scipys_exact_interval_and_statsmodels_beta_interval(count, confidence):
    k, n = count
    low, high = rates.clopper_pearson(k, n, confidence)
    reference = binomtest(k, n).proportion_ci(confidence, method="exact")
    assert (low, high) == pytest.approx((reference.low, reference.high), abs=1e-7)
    assert (low, high) == pytest.approx(proportion_confint(k, n, 1 - confidence, method="beta"), abs=1e-7)
    assert 0 <= low <= k / n <= high <= 1


@given(counts())
@quick
def test_clopper_pearson_mirrors_and_narrows_with_more_of_the_same(count):
    k, n = count
    low, high = rates.clopper_pearson(k, n)
    assert rates.clopper_pearson(n - k, n) == pytest.approx((1 - high, 1 - low), abs=1e-9)
    wider = rates.clopper_pearson(k, n, 0.99)
    assert wider[0] <= low and high <= wider[1]
    narrow = rates.clopper_pearson(4 * k, 4 * n)
    assert narrow[1] - narrow[0] < high - low


@pytest.mark.parametrize("n", [1, 5, 20, 50])
def test_clopper_pearson_covers_every_rate_by_enumeration(n):
    ends = np.array([rates.clopper_pearson(k, n) for k in range(n + 1)])
    for p in np.linspace(0, 1, 201):
        assert binom.pmf(np.arange(n + 1), n, p)[(ends[:, 0] <= p) & (p <= ends[:, 1])].sum() >= 0.95 - 1e-12


@given(counts(), st.sampled_from([0.8, 0.95, 0.99]))
@quick
def test_upper_bound_is_scipys_one_sided_bound_and_leaves_the_rest_below(count, confidence):
    k, n = count
    found = rates.upper_bound(k, n, confidence)
    assert found == pytest.approx(binomtest(k, n, alternative="less").proportion_ci(confidence, method="exact").high, abs=1e-7)
    if k < n:
        assert binom.cdf(k, n, found) == pytest.approx(1 - confidence, abs=1e-8)
    assert k / n <= found <= rates.clopper_pearson(k, n, confidence)[1] + 1e-12


def test_no_trial_says_nothing():
    assert rates.clopper_pearson(0, 0) == (0, 1) and rates.upper_bound(0, 0) == 1
    assert rates.upper_bound(0, 59) > 0.05 - 0.0006 > rates.upper_bound(0, 60)  # the rule of three: about 3 / n


@pytest.mark.parametrize(("k", "n"), [(-1, 3), (4, 3)])
def test_more_hits_than_trials_are_an_error(k, n):
    for interval in (rates.clopper_pearson, rates.upper_bound, lambda k, n: rates.hypergeometric_interval(k, n, 10)):
        with pytest.raises(ValueError, match=f"{k} of {n} is no count"):
            interval(k, n)


# hypergeometric_interval, estimated_total


@pytest.mark.parametrize("population", [1, 2, 7, 15, 40])
def test_hypergeometric_intervals_cover_every_total_by_enumeration(population):
    for n in sorted({1, 2, population // 3, population // 2, population - 1, population} & set(range(1, population + 1))):
        ends = np.array([rates.hypergeometric_interval(k, n, population) for k in range(n + 1)])
        for total in range(population + 1):
            chance = hypergeom.pmf(np.arange(n + 1), population, total, n)
            assert chance[(ends[:, 0] <= total) & (total <= ends[:, 1])].sum() >= 0.95 - 1e-12


@given(st.integers(1, 40).flatmap(lambda size: st.tuples(st.just(size), st.integers(1, size))), st.data())
@quick
def test_hypergeometric_interval_keeps_the_totals_that_neither_tail_rejects(sizes, data):
    population, n = sizes
    k = data.draw(st.integers(0, n))
    totals = range(k, population - n + k + 1)
    tails = [min(hypergeom.pmf(np.arange(k + 1), population, total, n).sum(),
                 hypergeom.pmf(np.arange(k, n + 1), population, total, n).sum()) for total in totals]
    kept = [total for total, tail in zip(totals, tails, strict=True) if tail > 0.025 + 1e-12]  # 1 / 40 is rejected
    low, high = rates.hypergeometric_interval(k, n, population)
    assert kept == list(range(low, high + 1))
    assert low <= population * k / n <= high


@given(counts(least=0, most=60))
@quick
def test_a_census_is_certain_and_no_sample_knows_nothing(count):
    k, n = count
    assert rates.hypergeometric_interval(k, n, n) == (k, k)
    assert rates.hypergeometric_interval(0, 0, n) == (0, n)


def test_a_small_share_of_a_large_population_is_close_to_clopper_pearson():
    low, high = rates.hypergeometric_interval(7, 100, 20_000)
    assert (low / 20_000, high / 20_000) == pytest.approx(rates.clopper_pearson(7, 100), abs=2e-3)


def test_a_sample_larger_than_its_population_is_an_error():
    with pytest.raises(ValueError, match="no larger"):
        rates.hypergeometric_interval(1, 11, 10)


def test_estimated_total_covers_in_simulated_worlds_where_a_bootstrap_would_not():
    rng = np.random.default_rng(11)
    covered, estimates, truths, zero_samples = [], [], [], 0
    for _ in range(200):
        strata, truth = [], 0
        for population, drawn, rate in ((30, 30, 0.6), (120, 40, 0.2), (1500, 60, 0.01)):
            is_hit = rng.random(population) < rate
            seen = rng.choice(population, drawn, replace=False)
            strata.append((int(is_hit[seen].sum()), drawn, population))
            truth += int(is_hit.sum())
        total, low, high = rates.estimated_total(strata)
        assert low <= total <= high
        covered.append(low <= truth <= high)
        estimates.append(total)
        truths.append(truth)
        zero_samples += strata[2][0] == 0
    assert np.mean(covered) >= 0.95
    assert zero_samples > 50  # the worlds in which a bootstrap claims that the large stratum holds none
    assert abs(np.mean(estimates) - np.mean(truths)) < 4 * np.std(np.array(estimates) - truths) / np.sqrt(200)


def test_estimated_total_expands_each_stratum_and_adds_the_exact_ends():
    strata = [(3, 10, 100), (0, 20, 50), (4, 9, 9)]
    ends = [rates.hypergeometric_interval(*stratum, 0.975) for stratum in strata[:2]]
    total, low, high = rates.estimated_total(strata)
    assert total == pytest.approx(30 + 0 + 4)
    assert (low, high) == (ends[0][0] + ends[1][0] + 4, ends[0][1] + ends[1][1] + 4)
    assert rates.estimated_total(strata[::-1])[1:] == (low, high)


def test_estimated_total_of_censuses_is_their_sum_and_of_nothing_nothing():
    assert rates.estimated_total([(3, 10, 10), (5, 8, 8)]) == (8, 8, 8)
    assert rates.estimated_total([]) == (0, 0, 0)
    assert rates.estimated_total([(0, 0, 12), (2, 3, 3)]) == (2, 2, 14)  # an unsampled stratum may hold anything



@given(st.integers(1, 400).flatmap(lambda size: st.tuples(st.just(size), st.integers(max(1, size - 6), size))), st.data())
@quick
def test_estimated_total_lies_in_its_interval_near_a_census_and_is_moved_by_less_than_one(sizes, data):
    population, n = sizes
    k = data.draw(st.integers(0, n))
    total, low, high = rates.estimated_total([(k, n, population)])
    assert low <= total <= high
    assert abs(total - population * k / n) < 1


def test_estimated_total_of_99_of_100_clusters_with_one_hit_is_one():
    assert rates.hypergeometric_interval(1, 99, 100) == (1, 1)  # to have missed the second of two has a chance of 2 %
    assert rates.estimated_total([(1, 99, 100)]) == (1, 1, 1)
    assert rates.estimated_total([(98, 99, 100)]) == (99, 99, 99)


bins = st.builds(
    lambda kept, dropped, looked, beyond, shares: rates.Bin(
        kept + dropped + beyond, kept, round(shares[0] * kept), dropped, min(looked, dropped), round(shares[1] * min(looked, dropped))),
    st.integers(1, 30), st.integers(0, 12), st.integers(0, 12), st.integers(0, 200), st.tuples(st.floats(0, 1), st.floats(0, 1)))


@given(st.lists(bins, min_size=1, max_size=4), st.sampled_from([0.8, 0.95]))
@quick
def test_frame_total_adds_up_bins_whose_phases_share_the_error(frame, confidence):
    n_phases = sum((b.n_looked < b.n_dropped) + (b.n_kept + b.n_dropped < b.population) for b in frame)
    each = 1 - (1 - confidence) / max(n_phases, 1)
    low = high = 0
    for b in frame:
        first = rates.hypergeometric_interval(b.k_looked, b.n_looked, b.n_dropped, each)
        ends = [rates.hypergeometric_interval(b.k_kept + k, b.n_kept + b.n_dropped, b.population, each) for k in first]
        low, high = low + ends[0][0], high + ends[1][1]
    total, *found = rates.frame_total(frame, confidence)
    assert found == [low, high]
    assert low <= total <= high
    assert rates.frame_total(frame[::-1], confidence)[1:] == (low, high)


@given(st.lists(bins, min_size=1, max_size=4))
@quick
def test_frame_total_without_a_screen_is_the_estimated_total_of_its_strata(frame):
    kept = [b._replace(n_kept=b.n_kept + b.n_dropped, n_dropped=0, n_looked=0, k_looked=0) for b in frame]
    assert rates.frame_total(kept) == pytest.approx(rates.estimated_total([(b.k_kept, b.n_kept, b.population) for b in kept]))


@given(bins)
@quick
def test_what_the_screen_dropped_unseen_widens_the_total_by_itself_at_most(b):
    census = b._replace(population=b.n_kept + b.n_dropped)
    total, low, high = rates.frame_total([census])
    assert b.k_kept + b.k_looked <= low <= total <= high <= b.k_kept + b.n_dropped
    assert (low == high) or b.n_looked < b.n_dropped
    unseen = census._replace(n_looked=0, k_looked=0)
    assert rates.frame_total([unseen]) == (b.k_kept, b.k_kept, b.k_kept + b.n_dropped)


def test_frame_total_of_more_hits_than_prompts_or_more_prompts_than_clusters_is_an_error():
    for wrong in (rates.Bin(10, 5, 6), rates.Bin(10, 5, 2, n_dropped=3, n_looked=4), rates.Bin(10, 5, 2, 3, 2, 3), rates.Bin(10, 8, 2, n_dropped=3)):
        with pytest.raises(ValueError):
            rates.frame_total([wrong])


# p-values and q-values


@given(st.floats(-1, 1), st.lists(st.floats(-1, 1), max_size=40))
@quick
def test_conformal_p_is_the_rank_among_the_controls_counted_against_the_score(score, controls):
    at_least = sum(control >= score for control in controls)
    p = rates.conformal_p(score, np.array(controls))
    assert p == (1 + at_least) / (1 + len(controls))
    assert rates.smallest_p(len(controls)) <= p <= 1


def test_conformal_p_counts_ties_as_at_least_as_high_and_a_dropped_prompt_never_stands_out():
    assert rates.conformal_p(0.5, np.array([0.5, 0.4, 0.6])) == 3 / 4
    assert rates.conformal_p(-np.inf, np.array([-np.inf, 0.4])) == 1
    assert rates.conformal_p(np.inf, np.array([0.1] * 19)) == rates.smallest_p(19) == 0.05


def test_a_score_that_is_not_a_number_has_no_p_and_never_the_smallest():
    for score, controls in ((np.nan, np.zeros(3)), (0.0, np.array([0.1, np.nan])), (np.nan, np.zeros(0))):
        with pytest.raises(ValueError, match="is NaN and has no rank; give -inf"):
            rates.conformal_p(score, controls)
    good = {"scores": np.zeros(2), "covariate": np.ones(2), "control_scores": np.zeros(3), "control_covariate": np.ones(3)}
    for name in good:
        wrong = good | {name: np.append(good[name][:-1], np.nan)}
        with pytest.raises(ValueError, match=name.replace("_", " ").removesuffix("s")):
            rates.matched_p(*wrong.values(), np.zeros((2, 3), bool))


@given(st.integers(1, 8), st.integers(1, 30), st.integers(1, 40), seeds)
@quick
def test_matched_p_is_a_conformal_p_against_the_nearest_controls_of_each_side(m, c, k, seed):
    rng = np.random.default_rng(seed)
    scores, control_scores = rng.random(m), rng.random(c)
    covariate, control_covariate = rng.lognormal(size=m), rng.lognormal(size=c)
    is_own = rng.random((m, c)) < 0.3
    for i, found in enumerate(rates.matched_p(scores, covariate, control_scores, control_covariate, is_own, k)):
        others = [(x, j) for j, x in enumerate(control_covariate) if not is_own[i, j]]
        smaller = sorted((covariate[i] / x, j) for x, j in others if x <= covariate[i])
        larger = sorted((x / covariate[i], j) for x, j in others if x > covariate[i])
        while len(larger) > min(len(smaller), k // 2):
            larger.pop()
        while len(smaller) + len(larger) > k:
            smaller.pop()
        near = [control_scores[j] for _, j in smaller + larger]
        assert found == (1 + sum(x >= scores[i] for x in near)) / (1 + len(near))


@given(st.integers(1, 30), st.integers(1, 40), st.floats(0.01, 100), seeds)
@quick
def test_matched_p_knows_only_the_order_of_scores_and_the_ratios_of_covariates(c, k, scale, seed):
    rng = np.random.default_rng(seed)
    scores, control_scores = rng.normal(size=4), rng.normal(size=c)
    covariate, control_covariate = rng.lognormal(size=4), rng.lognormal(size=c)
    is_own, order = rng.random((4, c)) < 0.2, rng.permutation(c)
    found = rates.matched_p(scores, covariate, control_scores, control_covariate, is_own, k)
    again = rates.matched_p(np.exp(scores), scale * covariate, np.exp(control_scores)[order], scale * control_covariate[order], is_own[:, order], k)
    assert found.tolist() == again.tolist()
    assert ((rates.smallest_p(k) <= found) & (found <= 1)).all()


def test_matched_p_has_no_evidence_where_no_control_is_as_dense():
    dense, sparse = np.array([0.05]), np.linspace(0.1, 0.3, 60)
    assert rates.matched_p(np.ones(1), dense, np.zeros(60), sparse, np.zeros((1, 60), bool)).tolist() == [1]
    one_as_dense = np.append(0.04, sparse)
    assert rates.matched_p(np.ones(1), dense, np.zeros(61), one_as_dense, np.zeros((1, 61), bool)).tolist() == [1 / 3]  # it and one sparser


def null_world(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Score and covariate of nulls: the denser its surroundings, the closer a picture comes to its image by chance."""
    covariate = np.exp(rng.uniform(-3, 0, n))
    return -np.log(covariate) + rng.normal(0, 0.3, n), covariate


def test_matched_p_is_uniform_on_nulls():
    rng = np.random.default_rng(12)
    p = []
    for _ in range(500):
        (score, covariate), (control_scores, control_covariate) = null_world(rng, 1), null_world(rng, 400)
        p.append(rates.matched_p(score, covariate, control_scores, control_covariate, np.zeros((1, 400), bool))[0])
    randomized = np.array(p) - rng.random(len(p)) / 41  # spread within the steps of 1 / 41
    assert kstest(randomized, "uniform").pvalue > 0.01
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 500)


def test_matched_p_stays_valid_where_dense_pictures_were_selected_and_unmatched_controls_mislead():
    rng = np.random.default_rng(13)
    matched, unmatched = [], []
    for _ in range(60):
        scores, covariate = null_world(rng, 400)
        dense = np.argsort(covariate)[20:40]  # targets of the dense quarter, all of them nulls
        control_scores, control_covariate = null_world(rng, 400)
        is_own = np.zeros((20, 400), bool)
        matched += rates.matched_p(scores[dense], covariate[dense], control_scores, control_covariate, is_own).tolist()
        unmatched += [rates.conformal_p(score, control_scores) for score in scores[dense]]
    assert np.mean(np.array(unmatched) <= 0.05) > 0.25
    assert np.mean(np.array(matched) <= 0.05) < 0.08


def test_matched_p_leaves_the_own_cluster_out():
    is_own = np.array([[True, False, False]])
    arguments = np.array([1.0]), np.array([1.0]), np.array([5.0, 0.0, 0.0]), np.array([1.0, 1.0, 1.0])
    assert rates.matched_p(*arguments, is_own).tolist() == [1 / 3]
    assert rates.matched_p(*arguments, ~is_own | is_own).tolist() == [1]  # no control left: no evidence
    assert rates.matched_p(*arguments, np.zeros((1, 3), bool)).tolist() == [2 / 4]


@pytest.mark.parametrize("n_controls", [20, 64])
def test_matched_p_stays_valid_where_the_densest_of_all_meet_few_controls(n_controls):
    rng = np.random.default_rng(17)
    matched, nearest = [], []
    for _ in range(40):
        scores, covariate = null_world(rng, 400)
        dense = np.argsort(covariate)[:32]
        control_scores, control_covariate = null_world(rng, n_controls)
        is_own = np.zeros((32, n_controls), bool)
        matched += rates.matched_p(scores[dense], covariate[dense], control_scores, control_covariate, is_own).tolist()
        for i in dense:  # the nearest 40, whichever side they lie on: mostly sparser ones, which score lower by chance
            near = np.argsort(np.abs(np.log(control_covariate / covariate[i])))[:40]
            nearest.append(rates.conformal_p(scores[i], control_scores[near]))
    assert np.mean(np.array(nearest) <= 0.05) > 0.15
    assert np.mean(np.array(matched) <= 0.05) <= 0.05


def test_matched_p_takes_a_covariate_of_zero_as_the_densest():
    control_scores, control_covariate = np.array([2.0, 0.0]), np.array([1e-9, 1.0])
    p = rates.matched_p(np.ones(1), np.zeros(1), control_scores, control_covariate, np.zeros((1, 2), bool), k=1)
    assert p.tolist() == [1]


probabilities = st.lists(st.floats(1e-6, 1), min_size=1, max_size=30)


@given(probabilities, seeds)
@quick
def test_simes_is_the_smallest_q_of_benjamini_and_hochberg(p, seed):
    found = rates.simes(np.array(p))
    assert found == pytest.approx(multipletests(p, method="fdr_bh")[1].min())
    assert found == rates.simes(np.random.default_rng(seed).permutation(p))
    assert min(p) - 1e-12 <= found <= min(1.0, min(p) * len(p)) + 1e-12


@given(probabilities, seeds)
@quick
def test_cluster_q_of_singletons_is_statsmodels_benjamini_hochberg(p, seed):
    cluster = np.random.default_rng(seed).permutation(len(p)) - 5
    np.testing.assert_allclose(rates.cluster_q(np.array(p), cluster), multipletests(p, method="fdr_bh")[1], rtol=1e-9)


@given(probabilities, seeds)
@quick
def test_cluster_q_is_benjamini_hochberg_over_each_clusters_simes_p(p, seed):
    rng = np.random.default_rng(seed)
    cluster = rng.integers(0, 6, len(p)) * 10**15
    labels = sorted(set(cluster.tolist()))
    joint = [multipletests(np.array(p)[cluster == label], method="fdr_bh")[1].min() for label in labels]
    q = dict(zip(labels, multipletests(joint, method="fdr_bh")[1], strict=True))
    found = rates.cluster_q(np.array(p), cluster)
    np.testing.assert_allclose(found, [q[c] for c in cluster.tolist()], rtol=1e-9)
    order = rng.permutation(len(p))
    np.testing.assert_allclose(rates.cluster_q(np.array(p)[order], cluster[order]), found[order], rtol=1e-12)


def test_ten_prompts_of_one_cluster_are_one_observation():
    p, cluster = np.array([0.02] * 10 + [0.5, 0.9]), np.array([1] * 10 + [2, 3])
    assert rates.cluster_q(p, cluster)[0] == pytest.approx(0.06)
    assert multipletests(p, method="fdr_bh")[1][0] < 0.03  # what counting them ten times would claim
    assert rates.cluster_q(np.zeros(0), np.zeros(0, int)).shape == (0,)


def test_cluster_q_keeps_the_false_discovery_rate_with_alike_members():
    rng = np.random.default_rng(14)
    cluster = np.repeat(np.arange(40), 3)
    false_share = []
    for _ in range(300):
        is_null = np.arange(40) >= 10
        p = np.where(is_null, rng.random(40), rng.random(40) * 1e-3)
        listed = rates.cluster_q(np.repeat(p, 3), cluster)[::3] <= 0.2
        false_share.append((listed & is_null).sum() / max(listed.sum(), 1))
        assert listed[:10].all()
    assert np.mean(false_share) <= 0.2


# the share of a list that is false


def test_the_designs_list_of_34_in_96_with_64_clean_controls_is_4_percent_false_at_most_13():
    assert round(100 * rates.decoy_fdr(96, 34, 64, 0)) == 4
    assert round(100 * rates.decoy_fdr_upper(96, 34, 64, 0)) == 13
    assert rates.decoy_fdr(96, 34, 64, 0) == 96 * 1 / (65 * 34)


fdr_cases = st.tuples(st.integers(1, 200), st.integers(0, 200), counts())


@given(fdr_cases)
@quick
def test_the_upper_bound_is_above_the_plain_estimate_and_both_are_shares(case):
    n_targets, n_found, (n_flagged, n_controls) = case
    plain, upper = (f(n_targets, n_found, n_controls, n_flagged) for f in (rates.decoy_fdr, rates.decoy_fdr_upper))
    if n_found == 0:
        assert plain is None and upper is None
        return
    assert 0 < upper <= 1 and 0 < plain <= 1
    assert upper >= min(1, n_targets * n_flagged / (n_controls * n_found))
    rate = binomtest(n_flagged, n_controls, alternative="less").proportion_ci(0.95, method="exact").high
    assert upper == pytest.approx(min(1, rate * n_targets / n_found), abs=1e-6)


@given(st.integers(1, 100), st.integers(1, 100), counts(most=60))
@quick
def test_the_false_share_grows_with_each_flagged_control_and_falls_with_each_clean_one(n_targets, n_found, count):
    n_flagged, n_controls = count
    for f in (rates.decoy_fdr, rates.decoy_fdr_upper):
        here = f(n_targets, n_found, n_controls, n_flagged)
        cleaner, dirtier = (f(n_targets, n_found, n_controls + 1, flagged) for flagged in (n_flagged, n_flagged + 1))
        assert cleaner <= here <= dirtier + 1e-12


def test_decoy_fdr_upper_holds_in_simulated_lists():
    rng = np.random.default_rng(15)
    n_nulls, n_true, n_controls, rate = 80, 20, 60, 0.1
    held = []
    for _ in range(2000):
        n_false = rng.binomial(n_nulls, rate)
        upper = rates.decoy_fdr_upper(n_nulls + n_true, n_true + n_false, n_controls, rng.binomial(n_controls, rate))
        expected_false = (n_nulls + n_true) * rate / (n_true + n_false)
        held.append(min(1, expected_false) <= upper)
    assert np.mean(held) >= 0.95 - 2 * np.sqrt(0.05 * 0.95 / 2000)


@given(st.integers(1, 100), st.integers(1, 100), st.floats(0.01, 0.5))
@quick
def test_n_controls_needed_is_the_least_number_whose_bound_is_low_enough(n_targets, n_found, max_fdr):
    needed = rates.n_controls_needed(n_targets, n_found, max_fdr)
    assert rates.decoy_fdr_upper(n_targets, n_found, needed, 0) <= max_fdr + 1e-9
    if needed:
        assert rates.decoy_fdr_upper(n_targets, n_found, needed - 1, 0) > max_fdr - 1e-9


def test_n_controls_needed_by_hand():
    assert rates.n_controls_needed(1, 1, 0.05) == 59  # 0.95 ** 59 < 0.05
    assert rates.n_controls_needed(10, 10, 1.0) == 0
    assert rates.n_controls_needed(10, 0, 0.05) is None


# tpr_at_fpr, expected_distinct


def tpr_by_brute_force(scores: np.ndarray, is_positive: np.ndarray, max_fpr: float) -> float:
    """Best true-positive rate over every rule "score >= threshold"."""
    best = 0.0
    for threshold in [*scores.tolist(), np.inf]:
        called = scores >= threshold
        if called[~is_positive].mean() <= max_fpr:
            best = max(best, called[is_positive].mean())
    return best


@st.composite
def score_lists(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(draw(seeds))
    n = draw(st.integers(2, 60))
    levels = draw(st.sampled_from([2, 5, 1000]))  # few levels make many ties
    is_positive = rng.permutation(np.arange(n) < draw(st.integers(1, n - 1)))
    scores = rng.integers(0, levels, n) + is_positive * draw(st.integers(0, levels // 2))
    return np.where(rng.random(n) < 0.1, -np.inf, scores.astype(float)), is_positive


@given(score_lists(), st.one_of(st.sampled_from([0, 0.001, 0.01, 0.05, 0.1, 0.29, 0.3, 0.5, 1.0]), st.floats(0, 1)))
@quick
def test_tpr_at_fpr_is_the_best_threshold_of_all_and_never_exceeds_the_bound(case, max_fpr):
    assert rates.tpr_at_fpr(*case, max_fpr) == pytest.approx(tpr_by_brute_force(*case, max_fpr + 1e-12))


@given(score_lists(), st.sampled_from([0.0, 0.01, 0.1, 0.3, 1.0]))
@quick
def test_tpr_at_fpr_is_a_point_of_scikit_learns_curve(case, max_fpr):
    scores, is_positive = case
    finite = np.where(np.isinf(scores), -1e6, scores)
    fpr, tpr, _ = roc_curve(is_positive, finite, drop_intermediate=False)
    assert rates.tpr_at_fpr(scores, is_positive, max_fpr) == pytest.approx(tpr[fpr <= max_fpr + 1e-12].max())


@given(score_lists(), st.floats(0, 1), seeds)
@quick
def test_tpr_at_fpr_knows_only_the_order_of_the_scores(case, max_fpr, seed):
    scores, is_positive = case
    order = np.random.default_rng(seed).permutation(len(scores))
    found = rates.tpr_at_fpr(scores, is_positive, max_fpr)
    assert rates.tpr_at_fpr(np.arctan(scores)[order], is_positive[order], max_fpr) == found
    assert rates.tpr_at_fpr(scores, is_positive, max_fpr / 2) <= found


def test_tpr_at_fpr_by_hand():
    scores, is_positive = np.array([9, 8, 7, 6, 5, 4.0]), np.array([True, False, True, False, True, False])
    found = [rates.tpr_at_fpr(scores, is_positive, max_fpr) for max_fpr in (0, 0.33, 1 / 3, 0.66, 2 / 3, 1)]
    assert found == [1 / 3, 1 / 3, 2 / 3, 2 / 3, 1, 1]
    assert rates.tpr_at_fpr(np.ones(6), is_positive, 0.99) == 0  # all tied: to call one is to call all
    hundred = np.append(np.arange(100.0), 70.5)  # 29 negatives above the one positive, and 0.29 * 100 is 28.999...
    assert rates.tpr_at_fpr(hundred, hundred == 70.5, 0.29) == 1
    assert rates.tpr_at_fpr(hundred, hundred == 70.5, 0.28) == 0


def test_tpr_at_fpr_needs_both_classes():
    for is_positive in (np.ones(3, bool), np.zeros(3, bool)):
        with pytest.raises(ValueError, match="a rate needs both"):
            rates.tpr_at_fpr(np.arange(3.0), is_positive, 0.1)


@given(st.lists(st.floats(0, 1), max_size=20), st.integers(0, 500))
@quick
def test_expected_distinct_grows_with_each_generation_to_the_number_of_prompts_that_ever_show_any(p, n):
    rate = np.array(p, float)
    found = rates.expected_distinct(rate, n)
    assert 0 <= found <= min((rate > 0).sum(), n * rate.sum()) + 1e-9
    assert found <= rates.expected_distinct(rate, n + 1) + 1e-9
    assert found == pytest.approx(sum(binom.sf(0, n, x) for x in p), abs=1e-9)


def test_expected_distinct_of_what_is_no_rate_is_an_error():
    for wrong in ([0.5, np.nan], [1.2], [-0.1]):
        with pytest.raises(ValueError, match="outside"):
            rates.expected_distinct(np.array(wrong), 10)
    assert rates.expected_distinct(np.zeros(0), 10) == 0


def test_expected_distinct_is_what_simulated_generations_show():
    rng = np.random.default_rng(16)
    p, n = np.array([0, 0.01, 0.1, 0.5, 1.0]), 12
    seen = (rng.random((4000, n, len(p))) < p).any(axis=1).sum(axis=1)
    assert rates.expected_distinct(p, n) == pytest.approx(seen.mean(), abs=4 * seen.std() / np.sqrt(4000))
    assert rates.expected_distinct(p, 0) == 0
    assert rates.expected_distinct(p, 1) == pytest.approx(p.sum())
