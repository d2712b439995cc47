"""The command line: what it prints of two tiny audits, and one line with the way out for every mistake."""

import csv
import io
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from tasks import _checks, _shards, _tables, findings, warehouse
from tests.conftest import ROOT, eidetic
from tests.tiny_audit import V1, V2, put, put_project, row


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two tiny audits with their database; as a git repository with the real map."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "sql", "sql")
    put_project()
    warehouse.main()
    for release in (V1, V2):
        _tables.put_text(json.dumps({"verdict": f"{release}: nothing"}), Path("reports") / release / "audit.json")
    return tmp_path


def test_help_names_every_command_with_one_sentence(tmp_path: Path) -> None:
    said = eidetic(tmp_path, "--help").stdout
    for command in ("audit", "plan", "status", "releases", "sql", "checks", "clean", "doctor", "verdict"):
        assert f" {command} " in said


def test_the_verdict_is_one_line_per_release_and_where_the_rest_is(project: Path) -> None:
    done = eidetic(project, "verdict")
    assert done.returncode == 0 and done.stdout.splitlines()[:2] == ["v1: nothing", f"    report: {Path('reports/v1/report.html')}"]
    assert eidetic(project, "verdict", V2).stdout.startswith("sd-v1.5: nothing")
    Path("findings.duckdb").unlink()
    lost = eidetic(project, "verdict")
    assert lost.returncode == 1 and "findings.duckdb is missing; make it with `eidetic audit`" in lost.stderr


def test_a_question_is_answered_as_table_csv_or_json(project: Path) -> None:
    question = "select release, count(*) filter (is_extracted) as n from findings group by release order by all"
    assert "sd-v1.5" in eidetic(project, "sql", question).stdout
    assert list(csv.reader(io.StringIO(eidetic(project, "sql", question, "--format", "csv").stdout))) == [["release", "n"], [V2, "0"], [V1, "1"]]
    assert json.loads(eidetic(project, "sql", question, "--format", "json").stdout) == [{"release": V2, "n": 0}, {"release": V1, "n": 1}]


def test_every_query_that_ships_is_listed_and_answers(project: Path) -> None:
    listed = {line.split()[0] for line in eidetic(project, "sql").stdout.splitlines()}
    assert listed == {file.stem for file in (ROOT / "sql" / "queries").glob("*.sql")}
    answer = json.loads(eidetic(project, "sql", "--query", "which_images_came_back", "--format", "json").stdout)
    assert [r["release"] for r in answer] == [V1]


MISTAKES = {  # words: what is said
    ("sql", "drop table findings"): "the query cannot be answered",
    ("sql", "from read_csv('params.yaml')"): "the query cannot be answered",
    ("sql", "--query", "no_such"): "no query 'no_such'; there are ",
    ("sql", "select 1", "--query", "undecided"): "give a query or --query NAME, not both",
    ("audit", "v9"): "no release 'v9' in params.yaml; it lists v1, sd-v1.5",
    ("plan", "v9"): "no release 'v9' in params.yaml",
    ("verdict", "v9"): "no release 'v9' in params.yaml",
    ("releases", "remove", "v9"): "no release 'v9' in params.yaml",
}


@pytest.mark.parametrize("words", MISTAKES, ids=" ".join)
def test_a_mistake_is_one_line_with_the_way_out(words: tuple[str, ...], project: Path) -> None:
    before = Path("findings.duckdb").read_bytes()
    done = eidetic(project, *words)
    assert done.returncode == 1 and done.stderr.startswith("eidetic: ") and MISTAKES[words] in done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("\n") == 1 and done.stdout == ""
    assert Path("findings.duckdb").read_bytes() == before


@pytest.mark.parametrize(("text", "said"), [(None, "no params.yaml in"), ("a: [1", "params.yaml is not valid YAML"), ("releases: {}", "lists no release")])
def test_a_params_yaml_that_is_not_one_is_one_line(tmp_path: Path, text: str | None, said: str) -> None:
    if text:
        (tmp_path / "params.yaml").write_text(text)
    done = eidetic(tmp_path, "audit")
    assert done.returncode == 1 and said in done.stderr and done.stderr.count("\n") == 1


def test_checks_are_counted_and_a_failed_one_is_shown_and_exits_with_1(project: Path) -> None:
    done = eidetic(project, "checks")
    assert done.returncode == 0 and "findings@v1" in done.stdout and "1 checks, none failed" in done.stdout
    failed = row(_checks.SCHEMA, table_name="findings", release=V1, is_passed=False, message="findings: l2 beyond 1")
    put([failed], _checks.SCHEMA, "findings", V1, "checks")
    done = eidetic(project, "checks")
    assert done.returncode == 1 and "1 checks, 1 failed" in done.stdout and "findings: l2 beyond 1" in done.stdout


def test_data_docs_are_built_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = _tables.table([row(findings.SCHEMA, finding_id=1, match_type="none", arm="duplicated")], findings.SCHEMA)
    _tables.write(table, findings.CHECKS, "findings", V1)
    done = eidetic(tmp_path, "checks", "--docs")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "findings@v1" in (tmp_path / "reports" / "data_docs" / "index.html").read_text()


def test_clean_frees_what_only_saves_time_and_waits_for_who_is_at_work(project: Path) -> None:
    _shards.shard("generations", "key", lambda: pq.read_table(_tables.path("prompts")))
    with _shards.lock("generations-v1"):
        done = eidetic(project, "clean")
        assert done.returncode == 75 and "is at work on generations-v1" in done.stderr
    assert "removed from work/" in eidetic(project, "clean").stdout and not Path("work").exists()
    assert _tables.path("findings", V1).is_file()


def test_a_second_audit_is_told_who_the_first_is_before_anything_starts(project: Path) -> None:
    with _shards.lock("audit"):
        done = eidetic(project, "audit")
    assert done.returncode == 75 and "is at work on audit" in done.stderr and done.stderr.count("\n") == 1


def test_plan_and_status_say_what_is_stale_and_what_it_costs(another: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(another, folder, symlinks=True)
    assert "nothing to run" in eidetic(folder, "plan").stdout
    assert all(line.endswith("up to date") for line in eidetic(folder, "status").stdout.splitlines())
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["generations"]["first"] = 4
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    said = eidetic(folder, "plan").stdout
    assert "generations@sd-v1.5" in said and "matches@sd-v1.5" in said and "prompts" in said and "to generate; the published attack" in said
    stale = [line.split()[0] for line in eidetic(folder, "status").stdout.splitlines() if "stale" in line]
    assert stale[0] == "screening@sd-v1.5" and stale[-1] == "warehouse", "the protocol covers the setting, so the screen states it anew"
    assert yaml.safe_load((folder / "dvc.lock").read_text()) == yaml.safe_load((another / "dvc.lock").read_text()), "looking changes nothing"
