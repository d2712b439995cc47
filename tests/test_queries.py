"""Every question of sql/queries on two tiny audits with a planted truth: the rows of each answer, by this DuckDB and by its 1.5 client."""

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tasks import _database, _tables, reviews, warehouse
from tests.conftest import ROOT
from tests.tiny_audit import V1, V2, finding_row, put, put_params, put_project, put_release, row

QUERIES = {file.stem: file for file in sorted((ROOT / "sql" / "queries").glob("*.sql"))}
CLIENT = shutil.which("duckdb", path=Path(sys.executable).parent) or shutil.which("duckdb")
CHAINED = "update duplicates set is_chained = true, component_size = 9, min_similarity = 0.75 where cluster_id = 1"
REPEATED = f"update findings set match_type = 'undecided', clique_size = 12 where release = '{V1}' and prompt_id = 14"
FLAGGED = f"update findings set match_type = 'verbatim', is_flagged = true, l2 = 0.1, margin = 0.625 where release = '{V1}' and prompt_id = 18"
SCREENED = f"""update screening set text_noise_norm = if(release = '{V1}' and prompt_id = 15, 30, prompt_id),
    stratum = if(release = '{V2}' and prompt_id = 14, 'dropped', 'kept')"""
SURE = "update findings set hit_rate_low = 0.75 where prompt_id = 11 and is_extracted"
PLANTED = (CHAINED, REPEATED, FLAGGED, SCREENED, SURE)
HIT = {"l2": 0.05, "margin": 0.3}
ANSWERS: dict[str, list[dict[str, Any]]] = {  # columns that matter, of all rows in their order
    "can_the_counts_be_trusted": [{"transform": "half_size", "n_planted": 4, "n_found": 4, "recall": 1}],
    "did_the_screen_pay": [
        {"release": V2, "arm": "duplicated", "stratum": "kept", "n_prompts": 1, "n_findings": 1, "median_noise_norm": 11},
        {"release": V2, "arm": "held_out", "stratum": "kept", "n_prompts": 2, "n_findings": 0, "median_noise_norm": 18.5},
        {"release": V2, "arm": "outlier", "stratum": "kept", "n_prompts": 1, "n_findings": 0},
        {"release": V2, "arm": "singleton", "stratum": "dropped", "n_prompts": 1, "n_findings": 1},
        {"release": V1, "arm": "duplicated", "n_findings": 1}, {"release": V1, "arm": "held_out", "n_findings": 0},
        {"release": V1, "arm": "outlier", "n_findings": 0}, {"release": V1, "arm": "singleton", "stratum": "kept", "n_findings": 0}],
    "has_it_got_better": [
        {"arm": arm, "n_findings": n, "n_prompts": m} for singletons in (1, 0)
        for arm, n, m in (("duplicated", 1, 1), ("held_out", 0, 2), ("outlier", 0, 1), ("singleton", singletons, 1))],
    "how_many_copies_are_safe": [
        {"release": V2, "copies_bin": "1", "n_findings": 1}, {"release": V2, "copies_bin": "2-3", "n_findings": 1},
        {"release": V1, "copies_bin": "1", "n_findings": 0, "extraction_rate": 0, "low": 0, "high": 0.975},
        {"release": V1, "copies_bin": "2-3", "n_findings": 1, "extraction_rate": 1, "low": 0.025, "high": 1}],
    "how_sure_are_we": [
        {"release": V2, "arm": "duplicated", "n_controls": 2, "n_controls_flagged": 0, "fdr_estimate": 1 / 3}, {"release": V2, "arm": "outlier"},
        {"release": V2, "arm": "singleton", "fdr_estimate": 1 / 3}, {"release": V1, "arm": "duplicated", "fdr_estimate": 1 / 3},
        {"release": V1, "arm": "outlier", "fdr_estimate": None}, {"release": V1, "arm": "singleton", "n_findings": 0, "fdr_estimate": None}],
    "images_any_release_returns": [
        {"key": "1.png", "n_releases": 2, "release_names": [V2, V1], "closest_l2": 0.05, "fewest_copies": 3, "most_copies": 3, "n_copies_in_set": 3},
        {"key": "4.png", "n_releases": 1, "release_names": [V2], "fewest_copies": 1, "n_copies_in_set": 1}],
    "new_in_the_fine_tune": [{"release": V2, "base": V1, "key": "4.png", "was_drawn": True, "is_new_image": True}],
    "regenerate_a_finding": [{"release": V2, "caption": "picture 1", "seed": 7}, {"release": V2, "caption": "picture 4"}, {"release": V1, "finding_id": 112}],
    "release_comparison": [{"release": V2, "against": V1, "outcome": "new", "caption": "picture 4", "earlier_match_type": "undecided"},
                           {"release": V2, "against": V1, "outcome": "still", "caption": "picture 1", "margin": 0.3, "earlier_margin": 0.3}],
    "undecided": [{"release": V1, "caption": "picture 4", "clique_size": 12, "nearest_key": "4.png", "key_of_the_caption": "4.png"}],
    "what_changed": [{"arm": arm, "outcome": outcome, "n_prompts": n} for arm, outcome, n in (
        ("duplicated", "still", 1), ("held_out", "never", 2), ("outlier", "never", 1), ("singleton", "new", 1))],
    "what_did_the_controls_do": [
        {"release": V2, "n_controls": 2, "n_sampled": 1, "n_flagged": 0, "n_returning_a_training_image": 0, "smallest_margin": 0.95},
        {"release": V1, "n_controls": 2, "n_sampled": 1, "n_flagged": 1, "n_returning_a_training_image": 0, "smallest_margin": 0.625}],
    "what_does_a_finding_cost": [
        {"release": release, "arm": arm, "n_evaluations": spent, "evaluations_per_finding": each, "savings_factor": 50_000 * n / spent}
        for release, each_single in ((V2, 56), (V1, None))
        for arm, n, spent, each in (("duplicated", 1, 56, 56), ("held_out", 2, 64, None), ("outlier", 1, 8, None), ("singleton", 1, 56, each_single))],
    "what_does_a_remedy_cost": [
        {"release": release, "remedy": remedy, "n_rows_dropped": dropped, "n_ordinary_blocked": 0, "n_images_stopped": stopped, "stopped_rate": share,
         "expected_extracted_before": before, "expected_extracted": expected}
        for release, rows in ((V2, (("cap_k", 1, None, None, 3, 3), ("drop_extracted", 4, None, None, 3, 1), ("filter", 0, 2, 1, None, None),
                                    ("one_per_cluster", 2, None, None, 3, 3))),
                              (V1, (("cap_k", 1, None, None, 1, 1), ("drop_extracted", 3, None, None, 1, 0), ("filter", 0, 1, 0.5, None, None),
                                    ("one_per_cluster", 2, None, None, 1, 0))))
        for remedy, dropped, stopped, share, before, expected in rows],
    "what_got_worse": [{"release": V2, "against": V1, "key": "4.png", "l2": 0.05, "earlier_l2": 0.2, "n_copies_in_set": 1}],
    "what_set_two_audits_apart": [],
    "what_to_remove": [{"cluster_id": 1, "image_id": image, "n_copies": 3, "n_releases": 2} for image in (1, 2, 3)] + [
        {"cluster_id": 4, "image_id": 4, "n_copies": 1, "n_releases": 1}],
    "what_to_drop_before_training_again": [
        {"release": release, "policy": policy, "n_dropped": dropped, "n_rows": 5, "n_clusters_dropped": gone, "n_extracted": left}
        for release, rows in ((V2, (("all", 0, 0, 2), ("cap_k", 1, 0, 2), ("one_per_cluster", 2, 0, 2), ("drop_extracted", 4, 2, 0))),
                              (V1, (("all", 0, 0, 1), ("cap_k", 1, 0, 1), ("one_per_cluster", 2, 0, 1), ("drop_extracted", 3, 1, 0))))
        for policy, dropped, gone, left in rows],
    "what_would_a_filter_block": [
        {"release": release, "kind": kind, "transform": "none", "n_blocked": n, "n_pictures": 4, "blocked_rate": n / 4}
        for release, kind, n in ((V2, "returned", 4), (V2, "ordinary", 0), (V1, "returned", 2), (V1, "ordinary", 0))],
    "what_would_another_threshold_say": [
        {"release": release, "max_l2": l2, "max_margin": margin, "n_targets": 3, "n_controls": 2,
         "n_target_hits": hits + (release == V1 and (l2, margin) == (0.2, 1)),
         "n_control_hits": int(margin == 1 and l2 == 0.2 if release == V2 else l2 >= 0.1 and margin >= 0.7)}
        for release, hits in ((V2, 2), (V1, 1)) for l2 in (0.05, 0.1, 0.15, 0.2) for margin in (0.5, 0.6, 0.7, 0.85, 1)],
    "where_did_the_budget_go": [
        {"release": release, "arm": arm, "stop_reason": reason, "n_prompts": 1, "n_generations": n, "n_evaluations": 24 * n, "n_findings": found}
        for release, singletons in ((V2, 1), (V1, 0)) for arm, reason, n, found in (
            ("duplicated", "futile", 2, 1), ("held_out", "futile", 2, 0), ("held_out", "not_sampled", 0, 0), ("outlier", "not_sampled", 0, 0),
            ("singleton", "futile", 2, singletons))],
    "where_people_disagree": [{"release": V2, "key": "4.png", "reviewer": "ada", "label": "not_a_copy", "match_type": "verbatim", "is_person": True}],
    "where_screen_and_verdict_disagree": [{"release": V2, "disagreement": "dropped, and comes back", "caption": "picture 4", "text_noise_norm": 14},
                                          {"release": V1, "disagreement": "in the top tenth, and does not", "caption": "picture 5", "share_below": 1}],
    "which_clusters_are_chained": [
        {"cluster_id": 1, "key": "1.png", "n_images": 3, "component_size": 9, "n_copies": 3, "min_similarity": 0.75, "n_releases": 2}],
    "which_findings_rest_on_few_pictures": [{"release": V2, "caption": "picture 4", "n_hits": 2, "n_judged": 2, "hit_rate_low": 0, "hit_rate_high": 1}],
    "which_images_came_back": [{"release": V2, "key": "1.png", **HIT}, {"release": V2, "key": "4.png", **HIT}, {"release": V1, "key": "1.png", **HIT}],
}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """v1 returns the image of prompt 11; sd-v1.5, made from it, that of 14 too, which ada says is no copy. PLANTED are the rest."""
    folder = tmp_path_factory.mktemp("queries")
    shutil.copytree(ROOT / "sql", folder / "sql")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        put_project()
        put_params({V1: {"model": "a"}, V2: {"model": "b", "base": V1}})
        put_release(V2, {11, 14})
        digest = _tables.read("screening", V2, side="protocol").column("protocol_digest")[0].as_py()
        label = row(reviews.SCHEMA, release=V2, finding_id=finding_row(V2, 14, True)["finding_id"], reviewer="ada", label="not_a_copy", is_person=True,
                    protocol_digest=digest, line=2, status="ok")
        put([label, label | {"protocol_digest": "older", "reviewer": "bob", "line": 3}], reviews.SCHEMA, "reviews")
        warehouse.main()
        with duckdb.connect("findings.duckdb") as connection:
            for plant in PLANTED:
                connection.execute(plant)
            connection.execute("update findings set n_copies = (select n_copies from duplicates where duplicates.image_id = findings.image_id)")
            connection.execute("update audits set audited_at = if(release = 'v1', timestamp '2026-02-01', timestamp '2026-01-01')")
    return folder / "findings.duckdb"


def answer(database: Path, name: str) -> list[dict[str, Any]]:
    return list(json.loads(_database.shown(database, QUERIES[name].read_text(encoding="utf-8"), "json")))


def test_there_are_at_least_twelve_questions_and_an_answer_is_known_to_each() -> None:
    assert len(QUERIES) >= 12 and set(QUERIES) == set(ANSWERS)
    assert all(_database.statement(file)[0].endswith("?") for file in QUERIES.values())


@pytest.mark.parametrize("name", QUERIES)
def test_a_question_has_the_answer_that_was_planted(database: Path, name: str) -> None:
    found = answer(database, name)
    assert len(found) == len(ANSWERS[name]), found
    for number, (got, expected) in enumerate(zip(found, ANSWERS[name], strict=True)):
        assert set(expected) <= set(got)
        told = {column: got[column] for column in expected}
        assert {c: pytest.approx(v, rel=1e-4) if isinstance(v, float) else v for c, v in expected.items()} == told, f"row {number}"
    as_csv = _database.shown(database, QUERIES[name].read_text(encoding="utf-8"), "csv")
    assert len(list(csv.DictReader(io.StringIO(as_csv)))) == len(found)


@pytest.mark.parametrize("name", QUERIES)
def test_the_client_of_duckdb_1_5_gives_the_same_answer(database: Path, name: str) -> None:
    if CLIENT is None:
        pytest.skip("no duckdb command line; pip install duckdb-cli")
    done = subprocess.run([CLIENT, "-readonly", "-json", str(database)], input=QUERIES[name].read_text(encoding="utf-8"), capture_output=True, text=True,
                          check=True)
    assert not done.stderr
    theirs, ours = json.loads(done.stdout or "[]"), answer(database, name)
    assert len(theirs) == len(ours)
    for one, other in zip(theirs, ours, strict=True):
        assert list(one) == list(other)
        assert {c: pytest.approx(v, rel=1e-6) if isinstance(v, float) else v for c, v in other.items()} == one
