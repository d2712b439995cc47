"""Comparisons against statsmodels, scipy and enumeration; called better or worse only where something changed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binom, bootstrap, norm
from statsmodels.stats.contingency_tables import mcnemar

from tasks import _comparisons
from tasks import findings as findings_stage
from tasks.measures import comparisons
from tests.conftest import ROOT
from tests.test_audit import MIN_STD, VERBATIM_L2, VERBATIM_MARGIN, truth
from tests.tiny_audit import row

quick = settings(deadline=None, max_examples=100)
N_PAIRS = 200  # of audits that differ by their seeds alone


@st.composite
def changes(draw: st.DrawFn, most: int = 200) -> tuple[int, int, int]:
    """Clusters that only the later one hands back, only the earlier one, and all."""
    n = draw(st.integers(1, most))
    later = draw(st.integers(0, n))
    return later, draw(st.integers(0, n - later)), n


# mcnemar_p


@given(st.integers(0, 300), st.integers(0, 300))
@quick
def test_p_is_statsmodels_exact_mcnemar(later, earlier):
    p = comparisons.mcnemar_p(later, earlier)
    assert p == pytest.approx(float(mcnemar([[7, later], [earlier, 5]], exact=True).pvalue), rel=1e-9)
    assert p == comparisons.mcnemar_p(earlier, later) and 0 < p <= 1


def test_p_counts_the_coins_that_fall_no_more_evenly():
    for later in range(12):
        for earlier in range(12 - later):
            tosses = [bin(way).count("1") for way in range(2 ** (later + earlier))]
            lopsided = abs(later - earlier)
            assert comparisons.mcnemar_p(later, earlier) == pytest.approx(np.mean([abs(2 * k - later - earlier) >= lopsided for k in tosses]))


# difference_interval


def corrected_score(difference: float, later: int, earlier: int, n: int) -> float:
    """Standard errors between what was seen and this difference, one change forgiven, the rest of the likelihood at its maximum."""
    same = n - later - earlier

    def loss(rate: float) -> float:
        chances = np.array([rate + difference, rate, 1 - 2 * rate - difference])
        return -float(np.array([later, earlier, same]) @ np.log(np.maximum(chances, 1e-300)))

    low, high = max(0.0, -difference), (1 - difference) / 2
    rate = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    rate = min((low, high, rate), key=loss)
    return (abs(later - earlier - n * difference) - 1) / np.sqrt(n * (2 * rate + difference * (1 - difference)))


@given(changes(), st.sampled_from([0.8, 0.95, 0.99]))
@quick
def test_the_interval_ends_where_the_score_of_the_likeliest_rest_does(case, confidence):
    later, earlier, n = case
    low, high = comparisons.difference_interval(*case, confidence)
    assert -1 <= low <= (later - earlier) / n <= high <= 1
    for end in (low, high):
        if later + earlier and abs(end) < 1 - 1e-9:
            assert corrected_score(end, *case) == pytest.approx(norm.ppf((1 + confidence) / 2), abs=2e-3)


def test_without_its_correction_it_is_the_published_interval():
    ends = comparisons._lower_end(1, 7, 21, norm.ppf(0.975), 0), -comparisons._lower_end(7, 1, 21, norm.ppf(0.975), 0)
    assert ends == pytest.approx((-0.517, -0.026), abs=5e-4)  # Fagerland, Lydersen & Laake 2014, airway hyper-responsiveness


@given(changes())
@quick
def test_to_swap_the_releases_mirrors_the_interval_and_the_outcome(case):
    later, earlier, n = case
    low, high = comparisons.difference_interval(later, earlier, n)
    assert comparisons.difference_interval(earlier, later, n) == (-high, -low)
    said = [comparisons.comparison(comparisons.Pairs(n, 0, 0, *counts), np.random.default_rng(1)) for counts in ((later, earlier), (earlier, later))]
    mirrored = {"better": "worse", "worse": "better", "no_evidence": "no_evidence"}
    assert said[1]["outcome"] == mirrored[said[0]["outcome"]] and said[1]["difference"] == -said[0]["difference"]
    assert said[1]["p_value"] == said[0]["p_value"]


@given(changes(most=60))
@quick
def test_more_of_the_same_is_known_more_closely(case):
    later, earlier, n = case
    few, many = (comparisons.difference_interval(k * later, k * earlier, k * n) for k in (1, 4))
    wide = comparisons.difference_interval(later, earlier, n, 0.99)
    assert many[1] - many[0] < few[1] - few[0] < wide[1] - wide[0] + 1e-12


@given(changes(most=2000))
@quick
def test_the_interval_leaves_0_out_only_where_the_exact_test_does(case):
    low, high = comparisons.difference_interval(*case)
    assert low <= 0 <= high or comparisons.mcnemar_p(*case[:2]) <= 0.05


def interval_ends(interval: Callable[..., tuple[float, float]], n: int) -> np.ndarray:
    """[n + 1, n + 1, 2] the interval of every pair of counts; where they exceed n, one that holds nothing."""
    return np.array([[interval(b, c, n) if b + c <= n else (2, -2) for c in range(n + 1)] for b in range(n + 1)])


def coverage(ends: np.ndarray, later: float, earlier: float) -> float:
    """Chance that the interval holds later - earlier, were these the chances of a cluster to change either way."""
    n = len(ends) - 1
    counts = np.arange(n + 1)
    of_rest = min(earlier / (1 - later), 1.0) if later < 1 else 0.0
    chance = binom.pmf(counts, n, later)[:, None] * binom.pmf(counts, n - counts[:, None], of_rest)
    return float(chance[(ends[..., 0] - 1e-9 <= later - earlier) & (later - earlier <= ends[..., 1] + 1e-9)].sum())


@pytest.mark.parametrize("n", [1, 2, 5, 16, 40])
def test_the_interval_covers_every_pair_of_rates_by_enumeration(n):
    ends = interval_ends(comparisons.difference_interval, n)
    rates = np.unique(np.r_[np.linspace(0, 1, 21), np.array([0.3, 1, 2, 3, 3.7, 5, 8]) / n])
    least = min(coverage(ends, a, b) for a in rates for b in rates if a + b <= 1 + 1e-12)
    assert least >= 0.95


def test_the_interval_covers_in_a_simulated_world_of_unlike_clusters():
    rng = np.random.default_rng(31)
    n, held = 96, []
    for _ in range(1000):
        then = rng.beta(0.3, 1, n) * (rng.random(n) < 0.5)  # half of them never come back, the others at all rates
        now = np.where(rng.random(n) < 0.03, rng.random(n), then)
        first, second = rng.random(n) < then, rng.random(n) < now
        low, high = comparisons.difference_interval(int((second & ~first).sum()), int((first & ~second).sum()), n)
        held.append(low <= 0.03 * (0.5 - 0.5 * 0.3 / 1.3) <= high)
    assert np.mean(held) >= 0.94


# bootstrap_interval


@pytest.mark.parametrize("case", [(20, 9, 64), (1, 30, 96), (0, 4, 30)])
def test_the_bootstrap_is_scipys_over_clusters(case):
    later, earlier, n = case
    change = np.repeat([1, -1, 0], [later, earlier, n - later - earlier])
    reference = bootstrap((change,), np.mean, n_resamples=20_000, method="percentile", random_state=np.random.default_rng(2)).confidence_interval
    assert comparisons.bootstrap_interval(*case, np.random.default_rng(3)) == pytest.approx(tuple(reference), abs=1.5 / n)
    assert comparisons.bootstrap_interval(*case, np.random.default_rng(3)) == comparisons.bootstrap_interval(*case, np.random.default_rng(3))


def test_what_a_bootstrap_cannot_do_and_the_interval_beside_it_does():
    rng = np.random.default_rng(4)
    assert comparisons.bootstrap_interval(0, 0, 64, rng) == (0, 0)
    assert comparisons.difference_interval(0, 0, 64) == pytest.approx((-0.056, 0.056), abs=1e-3)  # 1 - 0.025 ** (1 / 64)
    ends = interval_ends(lambda *case: comparisons.bootstrap_interval(*case, rng), 30)
    assert coverage(ends, 1 / 30, 0) < 0.7 and coverage(interval_ends(comparisons.difference_interval, 30), 1 / 30, 0) >= 0.95


@pytest.mark.parametrize("case", [(-1, 0, 3), (0, -1, 3), (2, 2, 3)])
def test_more_changes_than_clusters_are_an_error(case):
    for measure in (comparisons.difference_interval, lambda *c: comparisons.bootstrap_interval(*c, np.random.default_rng(0))):
        with pytest.raises(ValueError, match="clusters changed"):
            measure(*case)
    with pytest.raises(ValueError, match="clusters changed"):
        comparisons.mcnemar_p(-1, 2)


def test_no_cluster_says_nothing():
    nothing = comparisons.comparison(comparisons.Pairs(0, 0, 0, 0, 0), np.random.default_rng(0))
    assert nothing == {"difference": 0.0, "low": -1.0, "high": 1.0, "bootstrap_low": -1.0, "bootstrap_high": 1.0, "p_value": 1.0,
                       "outcome": "no_evidence"}


# outcome, comparison


def test_an_outcome_wants_both_the_test_and_the_interval():
    assert comparisons.outcome(-0.3, -0.1, 0.01) == "better" and comparisons.outcome(0.1, 0.3, 0.01) == "worse"
    for low, high, p in ((-0.3, -0.1, 0.06), (-0.3, 0.0, 0.01), (0.0, 0.3, 0.01), (-0.1, 0.1, 0.01)):
        assert comparisons.outcome(low, high, p) == "no_evidence"


def test_six_changes_one_way_are_the_fewest_that_say_something():
    said = [comparisons.comparison(comparisons.Pairs(64, 0, 40, 0, n), np.random.default_rng(0))["outcome"] for n in range(8)]
    assert said == ["no_evidence"] * 6 + ["better"] * 2


# paired_counts


@st.composite
def verdicts(draw: st.DrawFn) -> tuple[np.ndarray, ...]:
    """Clusters of prompts, with three flags of each."""
    rng = np.random.default_rng(draw(st.integers(0, 100_000)))
    n = draw(st.integers(0, 40))
    return rng.integers(0, draw(st.integers(1, 40)), n), *(rng.random(n) < draw(st.floats(0, 1)) for _ in range(3))


@given(verdicts(), st.integers(0, 1000))
@quick
def test_clusters_are_counted_as_by_sets_in_any_order(case, seed):
    cluster, later, earlier, is_paired = case
    of = lambda mask: set(cluster[mask].tolist())
    now, then = of(later & is_paired), of(earlier & is_paired)
    counts = comparisons.paired_counts(*case)
    assert vars(counts) == {"n_clusters": len(set(cluster.tolist())), "n_unpaired": len(set(cluster.tolist()) - of(is_paired)),
                            "n_both": len(now & then), "n_only_later": len(now - then), "n_only_earlier": len(then - now)}
    order = np.random.default_rng(seed).permutation(len(cluster))
    assert comparisons.paired_counts(*(values[order] for values in case)) == counts
    swapped = comparisons.paired_counts(cluster, earlier, later, is_paired)
    assert (swapped.n_only_later, swapped.n_only_earlier) == (counts.n_only_earlier, counts.n_only_later)


def test_members_of_a_cluster_are_one_observation():
    cluster, yes = np.array([5, 5, 5, 7]), np.ones(4, bool)
    counts = comparisons.paired_counts(cluster, np.array([True, True, False, False]), np.array([False, False, True, True]), yes)
    assert counts == comparisons.Pairs(n_clusters=2, n_unpaired=0, n_both=1, n_only_later=0, n_only_earlier=1)


def test_what_one_release_did_not_look_at_is_no_change():
    counts = comparisons.paired_counts(np.arange(2), np.zeros(2, bool), np.ones(2, bool), np.array([True, False]))
    assert counts == comparisons.Pairs(n_clusters=2, n_unpaired=1, n_both=0, n_only_later=0, n_only_earlier=1)
    with pytest.raises(ValueError, match="one of each per prompt"):
        comparisons.paired_counts(np.arange(2), np.zeros(2, bool), np.zeros(3, bool), np.zeros(2, bool))


# false calls


def verbatim(release: str) -> np.ndarray:
    """[prompt, picture] whether each picture of the exhaustive run is a verbatim copy, of the targets."""
    listed = pq.read_table(ROOT / "example" / "prompts.parquet").to_pylist()
    rows = truth(release)
    return np.array([(rows[i][:, 0] <= VERBATIM_L2) & (rows[i][:, 1] <= VERBATIM_MARGIN) & (rows[i][:, 2] >= MIN_STD)
                     for i in sorted(p["prompt_id"] for p in listed if p["arm"] != "held_out")])


def found(pictures: np.ndarray, n: int, least: int, rng: np.random.Generator) -> np.ndarray:
    """[prompt] whether among n fresh pictures of each at least this many are copies."""
    order = np.argsort(rng.random(pictures.shape), axis=1)[:, :n]
    return np.take_along_axis(pictures, order, axis=1).sum(axis=1) >= least


def outcomes(later: Callable[[], np.ndarray], earlier: Callable[[], np.ndarray], rng: np.random.Generator) -> list[Any]:
    """What is said of each of N_PAIRS pairs of audits, their clusters one prompt each."""
    made = []
    for _ in range(N_PAIRS):
        now, then = later(), earlier()
        counts = comparisons.paired_counts(np.arange(len(now)), now, then, np.ones(len(now), bool))
        made.append(comparisons.comparison(counts, rng)["outcome"])
    return made


@pytest.mark.parametrize(("n", "least"), [(1, 1), (8, 4), (14, 2)])  # one picture; the typical of eight; what an audit does not give up on
def test_audits_that_differ_by_their_seeds_are_not_called_better_or_worse_and_v2_is_better(n, least):
    rng = np.random.default_rng(5)
    first, second = verbatim("v1"), verbatim("v2")
    again = outcomes(lambda: found(first, n, least, rng), lambda: found(first, n, least, rng), rng)
    assert N_PAIRS - again.count("no_evidence") <= 16
    assert outcomes(lambda: found(second, n, least, rng), lambda: found(first, n, least, rng), rng) == ["better"] * N_PAIRS


def test_audits_that_are_all_chance_are_called_no_more_often_than_the_test_allows():
    rng = np.random.default_rng(6)
    tossed = lambda: rng.random(300) < 0.5
    assert N_PAIRS - outcomes(tossed, tossed, rng).count("no_evidence") <= 16


# the table


RELEASES = [{"release": name, "compare_to": above, "base": base, "reason": reason}
            for name, above, base, reason in (("a", None, None, None), ("b", "a", "c", None), ("c", None, None, "'c' is not audited yet"))]
PROMPTS = [{"prompt_id": i, "cluster_id": cluster, "arm": arm, "is_calibrating": i == 9} for i, cluster, arm in (
    (1, 10, "duplicated"), (2, 11, "duplicated"), (3, 10, "paraphrased"), (4, None, "custom"), (5, None, "custom"), (8, 12, "held_out"),
    (9, 13, "held_out"))]


def audit(extracted: set[int], unsampled: set[int] = frozenset(), **settings: str) -> dict[str, pa.Table]:
    """The two tables of an audit of PROMPTS that a comparison reads."""
    rows = [row(findings_stage.SCHEMA, prompt_id=p["prompt_id"], n_generations=8 * (p["prompt_id"] not in unsampled),
                is_extracted=p["prompt_id"] in extracted) for p in PROMPTS]
    said = {"generations.seed": "0", "sampler.guidance_scale": "3.0", **{k.replace("__", "."): v for k, v in settings.items()}}
    return {"findings": pa.Table.from_pylist(rows, findings_stage.SCHEMA), "settings": pa.table({"name": list(said), "value": list(said.values())})}


def compared(later: dict[str, pa.Table], earlier: dict[str, pa.Table]) -> dict[tuple[str, str, str], dict[str, Any]]:
    made = _comparisons.comparisons(RELEASES, PROMPTS, {"a": earlier, "b": later}).to_pylist()
    return {(r["release"], r["kind"], r["arm"]): r for r in made}


def counts_of(r: dict[str, Any]) -> tuple[int, ...]:
    return tuple(r[f"n_{name}"] for name in ("clusters", "unpaired", "both", "only_later", "only_earlier"))


def test_the_table_has_every_arm_all_targets_once_a_cluster_and_the_controls_that_judge():
    made = compared(audit({3, 4, 8, 9}), audit({1, 4, 5}, unsampled={2}))
    assert {key: counts_of(r) for key, r in made.items() if key[1] == "previous"} == {
        ("b", "previous", "all"): (4, 1, 2, 0, 1), ("b", "previous", "duplicated"): (2, 1, 0, 0, 1), ("b", "previous", "paraphrased"): (1, 0, 0, 1, 0),
        ("b", "previous", "custom"): (2, 0, 1, 0, 1), ("b", "previous", "held_out"): (1, 0, 0, 1, 0)}
    assert all(r["against"] == "a" and r["outcome"] == "no_evidence" and r["reason"] is None for key, r in made.items() if key[1] == "previous")
    assert made == compared(audit({3, 4, 8, 9}), audit({1, 4, 5}, unsampled={2}))


def test_a_base_that_is_not_audited_is_one_row_with_the_reason():
    row_of_base = compared(audit(set()), audit(set()))["b", "base", "all"]
    assert (row_of_base["against"], row_of_base["outcome"], row_of_base["reason"]) == ("c", "not_comparable", "'c' is not audited yet")
    assert all(row_of_base[name] is None for name in _comparisons.SCHEMA.names[6:])


def test_audits_of_other_prompts_seeds_or_thresholds_are_not_compared():
    fewer = audit(set())
    fewer["findings"] = fewer["findings"].slice(2)
    for later, said in ((fewer, "2 prompts were put to only one of 'b' and 'a'"), (audit(set(), generations__seed="1"), "generations.seed was 1 for 'b' and 0"),
                        (audit(set(), findings__verbatim_l2="0.1"), "findings.verbatim_l2 was 0.1 for 'b' and None for 'a'; run `eidetic audit` to")):
        made = compared(later, audit(set()))
        assert len(made) == 2 and made["b", "previous", "all"]["outcome"] == "not_comparable"
        assert said in made["b", "previous", "all"]["reason"]


def test_how_people_sample_a_release_may_differ():
    other = audit(set(), sampler__guidance_scale="7.5", generations__n_steps="50", generations__batch_size="4")
    assert compared(other, audit(set()))["b", "previous", "all"]["outcome"] == "no_evidence"


def test_the_example_is_better_after_deduplication_and_says_by_how_much(audited: Path) -> None:
    made = {(r["release"], r["kind"], r["arm"]): r for r in pq.read_table(audited / "data" / "warehouse" / "comparisons.parquet").to_pylist()}
    assert {key[:2] for key in made} == {("v2", "previous")}
    whole, controls = made["v2", "previous", "all"], made["v2", "previous", "held_out"]
    assert whole["outcome"] == "better" and whole["against"] == "v1" and -1 <= whole["low"] <= whole["difference"] <= whole["high"] < 0
    assert controls["outcome"] == "no_evidence"
