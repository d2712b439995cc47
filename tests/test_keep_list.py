"""Policies on planted clusters: which rows stay, what is expected of it, and that a check fails."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tasks import _tables, keep_list
from tasks._settings import UserError
from tests import tiny_audit
from tests.conftest import ROOT

FOUND = {"1": (0, 10), "2-3": (3, 10), "4-9": (5, 10)}  # bin: findings of prompts


def summary() -> list[dict[str, object]]:
    return [{"arm": "singleton" if b == "1" else "duplicated", "copies_bin": b, "n_findings": k, "n_prompts": n, "extraction_rate": k / n}
            for b, (k, n) in FOUND.items()] + [{"arm": "duplicated", "copies_bin": "all", "n_findings": 8, "n_prompts": 30, "extraction_rate": 0.3},
                                               {"arm": "outlier", "copies_bin": "1", "n_findings": 9, "n_prompts": 9, "extraction_rate": 1.0}]


def planted(cap: int = 2) -> pa.Table:
    """Clusters of 4 (extracted), 2 and 1 rows, and a row that could not be read."""
    trained = pa.table({"image_id": pa.array([12, 10, 11, 13, 21, 20, 30, 40], pa.int64()), "key": ["c", "z", "a", "b", "e", "d", "f", "g"],
                        "cluster_id": pa.array([10, 10, 10, 10, 20, 20, 30, None], pa.int64())})
    return keep_list.keep_list(trained, {10}, "v1", cap)


def kept(policy: str, cap: int = 2) -> list[str]:
    made = planted(cap)
    return sorted(made.filter(made[f"is_kept_{policy}"])["key"].to_pylist())


def test_one_of_each_cluster_is_its_centre() -> None:
    assert kept("one_per_cluster") == sorted(["z", "d", "f", "g"])


def test_a_cap_keeps_the_centre_and_the_first_by_name() -> None:
    assert kept("cap_k") == sorted(["z", "a", "d", "e", "f", "g"]) and kept("cap_k", 3) == sorted(["z", "a", "b", "d", "e", "f", "g"])
    assert kept("cap_k", 1) == kept("one_per_cluster")


def test_of_an_extracted_cluster_nothing_is_kept_where_that_is_the_policy() -> None:
    assert kept("drop_extracted") == sorted(["d", "e", "f", "g"])


def test_weights_make_each_cluster_one_image() -> None:
    made = planted()
    assert sum(made["weight"].to_pylist()) == pytest.approx(4) and made["n_in_cluster"].to_pylist() == [4, 4, 4, 4, 2, 2, 1, 1]


def test_what_a_policy_removes_is_counted_and_what_it_is_expected_to_do_follows_from_the_rates() -> None:
    rate = keep_list.rate_by_copies(summary(), 0.95)
    told = {r["policy"]: r for r in keep_list.policies(planted(), rate, "v1").to_pylist()}
    counted = {p: tuple(r[k] for k in ("n_dropped", "n_clusters_reduced", "n_clusters_dropped", "n_extracted")) for p, r in told.items()}
    assert counted == {"all": (0, 0, 0, 1), "one_per_cluster": (4, 2, 0, 1), "drop_extracted": (4, 0, 1, 0), "cap_k": (2, 1, 0, 1)}
    expected = {p: r["expected_extracted"] for p, r in told.items()}
    assert expected == pytest.approx({"all": 0.5 + 0.3, "one_per_cluster": 0, "drop_extracted": 0.3, "cap_k": 0.6})
    assert all(r["expected_low"] <= r["expected_extracted"] <= r["expected_high"] for r in told.values())
    assert told["one_per_cluster"]["expected_high"] > 1, "none of ten is no proof of none"


def test_rates_are_those_of_randomly_drawn_arms_and_their_intervals_hold_together() -> None:
    from scipy.stats import binomtest

    rate = keep_list.rate_by_copies(summary(), 0.95)
    theirs = binomtest(3, 10).proportion_ci(1 - 0.05 / 3)
    assert rate["rate"][:3].tolist() == [0, 0.3, 0.5] and np.isnan(rate["rate"][3:]).all()
    assert (rate["low"][1], rate["high"][1]) == pytest.approx((theirs.low, theirs.high))


def test_of_a_bin_that_was_never_asked_nothing_is_expected() -> None:
    told = keep_list.policies(planted(), keep_list.rate_by_copies(summary()[:1], 0.95), "v1").to_pylist()
    assert {r["policy"]: r["expected_extracted"] is None for r in told} == {"all": True, "one_per_cluster": False, "drop_extracted": True, "cap_k": True}


def test_the_stage_writes_the_table_and_the_keys_of_each_policy(in_folder: Path) -> None:
    tiny_audit.put_project()
    Path("params.yaml").write_text(json.dumps({"releases": {"v1": {"model": "a"}}, "keep_list": {"cap": 2}, "summary": {"confidence": 0.95}}))
    keep_list.main("v1")
    keys = {p.stem: [r["key"] for r in csv.DictReader(p.open())] for p in Path("data/keep_list/v1/keys").iterdir()}
    assert keys["one_per_cluster"] == ["1.png", "4.png", "5.png", "99.png"] and keys["drop_extracted"] == ["4.png", "5.png", "99.png"]
    assert _tables.read("keep_list", "v1").num_rows == 6
    Path("params.yaml").write_text(json.dumps({"releases": {"v1": {"model": "a"}}, "keep_list": {"cap": 0}, "summary": {"confidence": 0.95}}))
    with pytest.raises(UserError, match="keep_list.cap is 0; give a number of rows, at least 1"):
        keep_list.main("v1")


def test_a_weight_of_zero_is_rejected(in_folder: Path) -> None:
    made = planted()
    wrong = made.set_column(made.schema.get_field_index("weight"), made.schema.field("weight"), pa.array([0.0] * made.num_rows))
    with pytest.raises(UserError, match="weight"):
        _tables.write(wrong, keep_list.CHECKS, "keep_list", "v1")


def test_the_bins_are_those_of_the_prompts() -> None:
    from tasks import prompts

    assert tuple(zip(keep_list.LEAST, keep_list.BINS, strict=True)) == prompts.BINS and (ROOT / "sql" / "keep_list.sql").is_file()
