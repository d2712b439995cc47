"""What the report says of the remedies: in words, in order, and nothing hostile through."""

from pathlib import Path
from typing import Any

import pytest

from tasks import _pages, _remedies
from tests import tiny_audit

RATES = [{"kind": kind, "transform": transform, "n_pictures": n, "n_blocked": k, "blocked_rate": k / n if n else None, "low": 0.0, "high": 0.1, "n_prompts": 5,
          "n_prompts_blocked": 0} for kind, transform, k, n in (
    ("ordinary", "none", 0, 900), ("returned", "cropped_5pct", 127, 128), ("returned", "none", 1390, 1391), ("calibrating", "none", 0, 800),
    ("returned", "padded", 1, 128), ("bordering", "none", 0, 0))]
POLICIES = [{"policy": name, "n_rows": 10, "n_dropped": n, "n_clusters_reduced": 1, "n_clusters_dropped": 0, "n_extracted": 1, "expected_extracted": expected,
             "expected_low": 0.0, "expected_high": 4.0} for name, n, expected in (("one_per_cluster", 5, 0.5), ("all", 0, 3.0), ("cap_k", 0, None))]
SUMMARY = [{"arm": "duplicated", "copies_bin": "all", "n_images": 43, "estimated_total": 44.5, "estimated_total_low": 43, "estimated_total_high": 49},
           {"arm": "singleton", "copies_bin": "all", "n_images": 0, "estimated_total": 0.0, "estimated_total_low": 0, "estimated_total_high": 87}]


def entries(n: int) -> list[dict[str, Any]]:
    return [{"cluster_id": i % 2, "threshold": 0.793} for i in range(n)]


def test_copies_come_first_and_what_is_not_promised_or_empty_is_left_out() -> None:
    said = _remedies.remedies(RATES, POLICIES, entries(3), SUMMARY)
    assert [(r["kind"], r["transform"]) for r in said["filter"]] == [("returned", "none"), ("returned", "cropped_5pct"), ("ordinary", "none")]
    assert [r["policy"] for r in said["policies"]] == ["all", "cap_k", "one_per_cluster"] and said["n_images"] == 2
    assert said["covered"] == [{"arm": "duplicated", "n_listed": 43, "estimate": 44.5, "low": 43, "high": 49}]


@pytest.mark.parametrize("n", [3, 0])
def test_the_part_of_the_page_says_what_it_costs_beside_what_it_brings(n: int) -> None:
    page = _pages.rendered("remedies.html.jinja", {"remedies": _remedies.remedies(RATES, POLICIES, entries(n), SUMMARY)}, html=True)
    assert page.count("<section") == page.count("</section>") == 1 and 'id="remedies"' in page
    assert ("1,390 of 1,391" in page and "0 of 900" in page and "Of the 44.5 (43 to 49) images" in page) is (n > 0)
    assert ("the blocklist is empty" in page) is (n == 0) and "5 of 10" in page and "0.5 <small>(0.0 to 4.0)" in page


def test_a_releases_part_is_read_from_its_tables(in_folder: Path) -> None:
    tiny_audit.put_project()
    said = _remedies.of_release(tiny_audit.V1)
    assert said["n_entries"] == 1 and {r["policy"] for r in said["policies"]} == {"all", "one_per_cluster", "drop_extracted", "cap_k"}
    assert _remedies.of_release(tiny_audit.V2)["n_entries"] == 0
