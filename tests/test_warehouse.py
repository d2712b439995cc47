"""The warehouse: a real database from tiny tables, its checks and queries, its history and its readers."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks import _database, _tables, findings, prompts, warehouse
from tasks._settings import UserError
from tests.tiny_audit import IMAGES, PROMPTS, SETTINGS, V1, V2, finding_row, put, put_model, put_params, put_project, put_protocol, put_release

SQL = Path(__file__).resolve().parents[1] / "sql"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two audited releases, and the SQL; the warehouse is not built."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(SQL, "sql")
    put_project()
    return tmp_path


@pytest.fixture
def built(project: Path) -> Path:
    warehouse.main()
    return project


def asked(query: str) -> list[tuple[Any, ...]]:
    return [tuple(r.values()) for r in _database.rows(warehouse.DATABASE, query).to_pylist()]


def content() -> dict[str, list[dict[str, Any]]]:
    """Everything in the database."""
    names = [name for name, in asked("select table_name from information_schema.tables order by all")]
    return {name: _database.rows(warehouse.DATABASE, f"from {name} order by all").to_pylist() for name in names}


def history() -> dict[str, bytes]:
    return {str(f): f.read_bytes() for f in sorted(Path("audits").rglob("*")) if f.is_file()}


def client(query: str) -> str:
    """What the DuckDB 1.5 command line says, as CSV without header: another process, and an older DuckDB."""
    found = Path(sys.executable).with_name("duckdb")
    program = str(found) if found.is_file() else shutil.which("duckdb")
    if program is None:
        pytest.skip("no duckdb command line; pip install duckdb-cli")
    command = [program, "-readonly", "-csv", "-noheader", "findings.duckdb", query]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_every_sql_file_is_built_or_asked(project: Path) -> None:
    assert {f.stem for f in Path("sql").glob("*.sql")} == set(warehouse.SCRIPTS)
    for file in Path("sql").rglob("*.sql"):
        first = file.read_text().splitlines()[0]
        assert first.startswith("-- ") and ("One row per" in first or file.parent.name != "sql"), file


def test_a_duckdb_1_5_client_reads_the_file(built: Path) -> None:
    counts = client("select release, count(*) filter (is_extracted) from findings group by release order by all")
    assert counts.split() == ["sd-v1.5,0", "v1,1"]
    for view, in asked("select view_name from duckdb_views() where not internal"):
        client(f"from {view}")


def test_every_table_view_and_column_has_a_comment(built: Path) -> None:
    assert asked("select table_name from duckdb_tables() where comment is null or comment not like '%One row per%'") == []
    views = "select view_name from duckdb_views() where not internal"
    assert asked(f"{views} and (comment is null or comment not like '%One row per%')") == []
    assert asked("select table_name, column_name from duckdb_columns() where not internal and comment is null") == []


def test_a_column_that_may_be_null_says_what_null_means_and_the_others_cannot_be(built: Path) -> None:
    of_tables = "from duckdb_columns() as c inner join duckdb_tables() using (table_name) where not c.internal"
    assert asked(f"select table_name, column_name {of_tables} and is_nullable and c.comment not like '%NULL%'") == []
    assert asked(f"select count(*) > 100 {of_tables} and not is_nullable") == [(True,)]
    silent = "comment not like '%NULL%' and table_name in (select view_name from duckdb_views() where not internal)"
    for view, column in asked(f"select table_name, column_name from duckdb_columns() where {silent}"):
        assert asked(f"select count(*) from {view} where {column} is null") == [(0,)], f"{view}.{column}"


def test_every_table_has_a_key_or_a_check_that_it_is_unique(built: Path) -> None:
    keyed = {name for name, in asked("select table_name from duckdb_constraints() where constraint_type = 'PRIMARY KEY'")}
    looked_at = {"generations", "matches", "images", "duplicates", "pairs", "checks", "keep_list"}
    assert not keyed & looked_at and keyed | looked_at == {name for name, in asked("select table_name from duckdb_tables()")}


def test_the_views_hold_no_path_and_the_file_no_folder_of_this_machine(built: Path) -> None:
    views = "select view_name from duckdb_views() where not internal"
    assert asked(f"{views} and (sql like '%parquet%' or sql like '%source.%')") == []
    assert str(built).encode() not in Path("findings.duckdb").read_bytes()


def test_images_hold_only_what_something_refers_to(built: Path) -> None:
    assert asked("select image_id from images order by all") == [(i,) for i in IMAGES]


def test_a_release_is_compared_to_the_one_above_it(built: Path) -> None:
    assert asked("select release, against, outcome, count(*) from release_comparison group by all order by all") == [
        (V2, V1, "gone", 1), (V2, V1, "never", 4)]


def test_a_release_is_compared_to_the_one_it_names(project: Path) -> None:
    put_params({V1: {"compare_to": V2}, V2: {"compare_to": None}})
    warehouse.main()
    assert asked("select release, against, outcome from release_comparison where outcome != 'never'") == [(V1, V2, "new")]


def test_a_release_cannot_be_compared_to_one_that_is_not_listed() -> None:
    with pytest.raises(UserError, match="releases.v1.compare_to 'v7' is not another of v1, nor null"):
        warehouse.release_rows({V1: {"compare_to": "v7"}})
    for other in ("v7", V1):
        with pytest.raises(UserError, match=f"releases.v1.base '{other}' is not another of v1, {V2}, nor null"):
            warehouse.release_rows({V1: {"base": other}, V2: None})
    with pytest.raises(UserError, match="lists none"):
        warehouse.release_rows({})


def test_a_release_and_the_one_above_it_are_compared_arm_by_arm(built: Path) -> None:
    counts = "n_clusters, n_unpaired, n_both, n_only_later, n_only_earlier"
    assert asked(f"select kind, against, arm, outcome, {counts} from comparisons where release = '{V2}' order by arm") == [
        ("previous", V1, "all", "no_evidence", 3, 1, 0, 0, 1), ("previous", V1, "duplicated", "no_evidence", 1, 0, 0, 0, 1),
        ("previous", V1, "held_out", "no_evidence", 2, 1, 0, 0, 0), ("previous", V1, "outlier", "no_evidence", 1, 1, 0, 0, 0),
        ("previous", V1, "singleton", "no_evidence", 1, 0, 0, 0, 0)]
    assert asked(f"select count(*) from comparisons where release = '{V1}'") == [(0,)]
    assert asked("select difference, low < difference, difference < high, p_value, reason from comparisons where arm = 'all'") == [
        (-1 / 3, True, True, 1.0, None)]


def test_what_a_fine_tune_adds_to_its_base_is_named_and_what_got_worse_listed_by_image(project: Path) -> None:
    put_params({V1: {"model": "a"}, V2: {"model": "b", "base": V1}})
    put_release(V2, {11, 14})
    warehouse.main()
    assert asked(f"select kind, against, n_both, n_only_later from comparisons where release = '{V2}' and arm = 'all' order by kind") == [
        ("base", V1, 1, 1), ("previous", V1, 1, 1)]
    for query, other in (("new_in_the_fine_tune", "base"), ("what_got_worse", "against")):
        answer = _database.rows(warehouse.DATABASE, (SQL / f"queries/{query}.sql").read_text()).to_pylist()
        assert [(r["release"], r[other], r["key"], r["caption"], r["was_drawn"], r["is_new_image"]) for r in answer] == [
            (V2, V1, "4.png", "picture 4", True, True)]
        assert answer[0]["l2"] == pytest.approx(0.05)


def test_audits_with_other_seeds_are_not_compared_and_stale_ones_say_why(project: Path) -> None:
    put_release(V2, {11, 14}, SETTINGS | {"generations": {"seed": 1}})
    columns = "select arm, outcome, reason, n_clusters from comparisons"
    warehouse.main()
    said = f"generations.seed was 1 for '{V2}' and None for '{V1}'; run `eidetic audit` to audit both alike"
    assert asked(columns) == [("all", "not_comparable", said, None)] and asked("select count(*) from regressions") == [(0,)]
    assert json.loads(Path("metrics.json").read_text())[V2]["compared_outcome"] == "not_comparable"
    put_model(V1, "2" * 64)
    warehouse.main()
    assert asked(columns)[0][:3] == ("all", "not_comparable", f"the files of release '{V1}' have changed since its audit; run `eidetic audit {V1}`")


def test_the_precision_curve_counts_controls_beside_targets(built: Path) -> None:
    columns = "arm, n_target_hits, n_control_hits, fdr_estimate"
    curve = asked(f"select {columns} from precision_curve where release = '{V1}' order by list_length")
    assert curve[0] == ("duplicated", 1, 0, 1.0)  # 3 targets (1 + 0) / ((2 controls + 1) 1 hit)
    assert sorted(curve[-1][1:3]) == [1, 2]


BREACHES = {
    "findings_have_prompts": "update findings set prompt_id = 77 where prompt_id = 11",
    "prompts_have_findings": "delete from sampling where prompt_id = 15",
    "findings_have_generations": "update findings set generation_id = 5 where prompt_id = 11",
    "findings_have_images": "update findings set cluster_id = 4 where prompt_id = 11",
    "matches_have_generations": "delete from generations where generation_id = 1101",
    "matches_have_images": "update matches set image_id = 99 where generation_id = 1101 and split = 'member'",
    "matches_are_ranked": "update matches set rank = 1 where generation_id = 1101",
    "held_out_is_never_extracted": "update findings set is_flagged = true where is_extracted",
    "verdicts_are_consistent": "update findings set match_type = 'undecided' where is_extracted",
    "extractions_are_measured": "update findings set code_bytes = null where is_extracted",
    "extractions_keep_their_bounds": "update findings set margin = 0.71 where is_extracted",
    "tiles_bound_pixels": "update matches set l2 = 0.2, tiled_l2 = 0.1 where generation_id = 1101",
    "clusters_sum_to_images": "update duplicates set cluster_size = 4 where image_id = 1",
    "pairs_have_images": "update pairs set image_id_b = 77 where image_id_b = 3",
    "controls_are_clean": "update duplicates set is_leaked = true where image_id = 9",
    "sampling_counts_generations": "update sampling set n_generations = 3 where prompt_id = 11",
    "kept_pictures_have_a_place": "update generations set status = 'not_kept' where prompt_id = 11",
    "sampled_is_generated": "update screening set is_sampled = false where prompt_id = 11",
    "rates_and_chances_are_in_range": "update findings set p_value = 0.0, q_value = 0.5 where prompt_id = 11",
    "summary_counts_findings": "update summary set n_findings = 2 where arm = 'duplicated'",
    "comparisons_count_findings": "update comparisons set n_only_earlier = 0, n_both = 1 where arm = 'all'",
    "comparisons_say_what_they_measured": "update comparisons set outcome = 'better' where arm = 'all'",
    "further_captions_stand_apart": "update findings set caption_rank = 1 where prompt_id = 11",
    "nothing_is_confirmed_uncompared": "update findings set is_compared = false where is_extracted",
    "keys_are_unique": "insert into generations from generations where generation_id = 1101",
    "history_holds_the_current_audits": "delete from all_findings where is_extracted",
}


def test_every_check_holds_and_finds_its_breach(built: Path) -> None:
    files = {f.stem: f for f in Path("sql/checks").glob("*.sql")}
    assert set(files) == set(BREACHES)
    with duckdb.connect("findings.duckdb") as connection:
        for name, breach in BREACHES.items():
            connection.execute("begin")
            _database.require_no_row(connection, files[name])
            connection.execute(breach)
            with pytest.raises(UserError, match=name):
                _database.require_no_row(connection, files[name])
            connection.execute("rollback")


def test_a_violated_check_leaves_the_database_and_the_history_as_they_were(built: Path) -> None:
    before = Path("findings.duckdb").read_bytes(), history(), Path("metrics.json").read_bytes()
    put([finding_row(V1, p, p == 11) | ({"margin": 0.8} if p == 11 else {}) for p in PROMPTS], findings.SCHEMA, "findings", V1)
    with pytest.raises(UserError, match="extractions_keep_their_bounds.* as release=v1, .*margin=0.8"):
        warehouse.main()
    assert (Path("findings.duckdb").read_bytes(), history(), Path("metrics.json").read_bytes()) == before
    assert not Path("findings.duckdb.tmp").exists()


def test_the_same_audit_is_kept_once_and_never_written_again(built: Path) -> None:
    first, said, numbers = history(), content(), Path("metrics.json").read_bytes()
    warehouse.main()
    assert history() == first
    Path("findings.duckdb").unlink()
    warehouse.main()
    assert (content(), Path("metrics.json").read_bytes()) == (said, numbers)


def test_an_audit_with_other_settings_is_another_audit(built: Path) -> None:
    first = history()
    put_release(V1, {11}, SETTINGS | {"sampler": {"guidance_scale": 4.0}})
    warehouse.main()
    assert first.items() < history().items()
    assert asked("select release, count(*) from audits group by release order by all") == [(V2, 1), (V1, 2)]
    differing = asked((SQL / "queries/what_set_two_audits_apart.sql").read_text())
    assert differing == [(V1, "sampler.guidance_scale", 2, ["3.0", "4.0"])]
    assert asked("select count(*) from settings where name = 'sampler.guidance_scale'") == [(2,)]


def test_an_audit_that_found_something_else_is_another_audit(built: Path) -> None:
    put_release(V1, {11, 14})
    warehouse.main()
    found = "select count(*) filter (where is_extracted) from all_findings where release = 'v1' group by audit_id order by all"
    assert asked(found) == [(1,), (2,)]


def test_a_retired_release_lives_on_in_the_history_only(built: Path) -> None:
    put_params({V2: {"model": "b"}})
    shutil.rmtree("data/findings/v1")
    warehouse.main()
    assert asked("select distinct release from findings") == [(V2,)]
    assert asked("select distinct release from checks where release is not null") == [(V2,)]
    assert asked("select count(*) from checks where table_name like 'inputs.%'") == [(1,)]
    counted = "select release, count(*) filter (where is_extracted) from all_findings group by release order by all"
    assert asked(counted) == [(V2, 0), (V1, 1)]
    assert list(json.loads(Path("metrics.json").read_text())) == [V2]


def test_an_audit_from_before_a_column_existed_is_still_read(built: Path) -> None:
    folder = next(Path("audits").glob("v1-*"))
    pq.write_table(pq.read_table(folder / "findings.parquet").drop_columns(["search_bits"]), folder / "findings.parquet")
    warehouse.main()
    assert asked("select count(*) from all_findings where release = 'v1'") == [(len(PROMPTS),)]
    commented = "select comment from duckdb_columns() where table_name = 'all_findings' and column_name = 'search_bits'"
    assert "Bits" in asked(commented)[0][0]


def test_readers_keep_what_they_opened_and_new_ones_see_what_was_published(built: Path) -> None:
    with _database.connect(warehouse.DATABASE) as reader:
        put_release(V1, {11, 14})
        warehouse.main()
        assert reader.execute("select count(*) from findings where is_extracted").fetchone() == (1,)
        assert client("select count(*) from findings where is_extracted").strip() == "2"


def test_a_reader_can_neither_write_nor_see_other_files(built: Path) -> None:
    for query in ("create table x as select 1", "select * from read_csv('params.yaml')", "select nothing from findings"):
        with pytest.raises(UserError, match="cannot be answered"):
            _database.rows(warehouse.DATABASE, query)


def test_a_release_that_is_not_audited_keeps_no_other_out(project: Path) -> None:
    _tables.path("matches", V2).unlink()
    warehouse.main()
    assert asked("select release, status, reason, audit_id is null from releases order by position") == [
        (V1, "current", None, False), (V2, "not_audited", "release 'sd-v1.5' is not audited yet; run `eidetic audit sd-v1.5`", True)]
    assert asked("select distinct release from findings") == [(V1,)]


def test_without_a_current_audit_nothing_is_built_and_the_way_out_is_named(project: Path) -> None:
    for release in (V1, V2):
        _tables.path("matches", release).unlink()
    with pytest.raises(UserError, match="'v1' is not audited yet; run `eidetic audit v1`; release 'sd-v1.5' is not"):
        warehouse.main()
    assert history() == {} and not Path("findings.duckdb").exists()
    with pytest.raises(UserError, match="dvc repro warehouse"):
        _database.connect(warehouse.DATABASE)


def test_a_missing_shared_table_is_named_with_the_command_that_makes_it(project: Path) -> None:
    _tables.path("duplicates", side="pairs").unlink()
    with pytest.raises(UserError, match="pairs.parquet is missing; make it with `dvc repro duplicates`"):
        warehouse.main()


def standing(release: str) -> tuple[str, str]:
    warehouse.main()
    return asked(f"select status, reason from releases where release = '{release}'")[0]


def test_a_release_audited_with_other_prompts_is_stale(project: Path) -> None:
    made = _tables.read("prompts").to_pylist()
    put([r | {"caption": r["caption"] + "!"} for r in made], prompts.SCHEMA, "prompts")
    put_release(V1, {11})
    status, reason = standing(V2)
    assert status == "stale" and "with other prompts than there are now; run `eidetic audit sd-v1.5`" in reason


def test_a_release_whose_files_changed_is_stale_and_a_refused_one_says_why(project: Path) -> None:
    put_model(V2, "2" * 64)
    status, reason = standing(V2)
    assert status == "stale" and "files of release 'sd-v1.5' have changed" in reason
    put_model(V2, status="refused", reason="x.bin is pickled")
    assert standing(V2) == ("refused", "release 'sd-v1.5' is refused: x.bin is pickled")


def test_an_audit_that_stopped_halfway_is_stale(project: Path) -> None:
    put_protocol(V2, SETTINGS | {"sampler": {"guidance_scale": 9.0}})
    status, reason = standing(V2)
    assert status == "stale" and "has not come to its end" in reason
    assert asked("select count(*) from all_findings where release = 'sd-v1.5'") == [(0,)]


def test_metrics_count_all_arms_and_rate_the_duplicated_one(built: Path) -> None:
    said = json.loads(Path("metrics.json").read_text())
    assert list(said) == sorted([V1, V2])
    assert (said[V1]["n_prompts"], said[V1]["n_findings"], said[V1]["n_evaluations"]) == (5, 1, 3 * 56 + 2 * 8)
    assert (said[V1]["extraction_rate"], said[V1]["extraction_rate_low"], said[V1]["n_controls"]) == (1.0, 0.025, 2)
    assert (said[V2]["extraction_rate"], said[V2]["fdr_upper"]) == (0.0, None)
    assert (said[V2]["compared_to"], said[V2]["compared_outcome"], said[V2]["compared_difference"]) == (V1, "no_evidence", -0.333333)
    assert said[V2]["compared_low"] < 0 < said[V2]["compared_high"] and "compared_to" not in said[V1]
    assert warehouse.metrics([], []) == {}


def test_settings_are_rows_with_dotted_names_and_json_values() -> None:
    made = warehouse.settings_rows("r", {"b": {"y": [1, 2], "x": None}, "a": "t"})
    assert made == [{"release": "r", "name": "a", "value": '"t"'}, {"release": "r", "name": "b.x", "value": "null"},
                    {"release": "r", "name": "b.y", "value": "[1, 2]"}]


def test_an_audit_id_follows_from_what_the_audit_was_made_with() -> None:
    bound, settings, outcome = {"release": "sd-v1.5", "model_digest": "m"}, [{"name": "a", "value": "1"}], [pa.table({"x": [1]})]
    identity = warehouse.audit_id(bound, settings, outcome)
    assert identity == warehouse.audit_id(dict(bound), list(settings), [pa.table({"x": [1]})])
    assert identity.startswith("sd-v1.5-") and len(identity) == len("sd-v1.5-") + 8
    others = {warehouse.audit_id(bound | {"model_digest": "n"}, settings, outcome), warehouse.audit_id(bound, [], outcome),
              warehouse.audit_id(bound, settings, [pa.table({"x": [2]})])}
    assert len(others | {identity}) == 4
