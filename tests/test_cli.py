"""The command line: a person's mistake is one line with the way out, answers go to standard output alone, nothing is written by asking."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flows import cli, stages
from tasks import _shards, _tables, findings, warehouse
from tests.conftest import ROOT, at_work, reproduced
from tests.tiny_audit import PROMPTS, V1, V2, finding_row, put, put_project
from tests.toy_project import plant, toy_project

Run = Callable[..., tuple[int, str, str]]
HOLD = "from tasks import _shards\nwith _shards.lock('generations-v1'):\n    print('held', flush=True)\n    import time; time.sleep(60)"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in the working directory: exit code, what it prints, what it complains of."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["eidetic", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def tiny_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny audits with their database; the first has its audit.json."""
    folder = tmp_path_factory.mktemp("tiny")
    shutil.copytree(ROOT / "sql", folder / "sql")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        put_project()
        warehouse.main()
        _tables.put_text(json.dumps({"verdict": f"{V1}: one image comes back"}), Path("reports") / V1 / "audit.json")
    return folder


@pytest.fixture
def tiny(tiny_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tiny project, as the working directory."""
    folder = Path(shutil.copytree(tiny_project, tmp_path / "tiny"))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def audited_toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy project, audited."""
    folder = toy_project(tmp_path_factory.mktemp("toy"))
    reproduced(folder)
    return folder


@pytest.fixture
def toy(audited_toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the toy project, as the working directory."""
    folder = Path(shutil.copytree(audited_toy, tmp_path / "toy", symlinks=True))
    monkeypatch.chdir(folder)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_help_names_every_command(run: Run) -> None:
    code, said, _ = run("--help")
    assert code == 0
    for command in ("audit", "plan", "status", "verdict", "sql", "gate", "checks", "clean", "doctor", "releases"):
        assert f" {command} " in said
    assert all(f" {command} " in run("releases", "--help")[1] for command in ("list", "show", "add", "remove"))


@pytest.mark.parametrize(("words", "told"), [
    (["audit"], "no params.yaml in "), (["plan"], "no params.yaml in "), (["status"], "no params.yaml in "), (["verdict"], "no params.yaml in "),
    (["releases", "list"], "no params.yaml in "), (["releases", "add", "v1", "x"], "no params.yaml in "),
    (["gate"], "no params.yaml in "),
    (["sql", "from summary"], "findings.duckdb does not exist; make it with `dvc repro warehouse`"),
    (["sql"], "no sql/queries in "), (["sql", "--query", "undecided"], "no query 'undecided'; there are none"),
    (["checks"], "no stage has been run yet; run `eidetic audit`"),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_outside_of_a_project_every_command_says_so_in_one_line(in_folder: Path, run: Run, words: list[str], told: str) -> None:
    code, said, complaint = run(*words)
    assert (code, said) == (1, "") and complaint.startswith(f"eidetic: {told}") and complaint.count("\n") == 1
    assert list(in_folder.iterdir()) == []


@pytest.mark.parametrize(("params", "words", "told"), [
    ("releases: {one: {model: m}}", ["audit", "two"], "no release 'two' in params.yaml; it lists one"),
    ("releases: {}", ["audit"], "params.yaml lists no release; add one with `eidetic releases add NAME MODEL`"),
    ("releases: {one: [", ["audit"], "params.yaml is not valid YAML: while parsing"),
    ("releases: {one: [", ["status"], "params.yaml is not valid YAML: while parsing"),
    ("releases: {one: [", ["releases", "list"], "params.yaml is not valid YAML: while parsing"),
])
def test_what_is_wrong_with_params_yaml_is_said_before_anything_starts(in_folder: Path, run: Run, params: str, words: list[str], told: str) -> None:
    Path("params.yaml").write_text(params)
    code, said, complaint = run(*words)
    assert (code, said) == (1, "") and complaint.startswith(f"eidetic: {told}") and complaint.count("\n") == 1
    assert [file.name for file in in_folder.iterdir()] == ["params.yaml"]


def test_an_interrupt_says_that_what_is_finished_is_kept(in_folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tasks._tables.checked", interrupted)
    assert run("checks") == (130, "", "eidetic: stopped; what is finished is kept and the next run goes on from there\n")


def test_the_verdict_is_a_line_for_each_audited_release_and_where_the_rest_is(tiny: Path, run: Run) -> None:
    code, said, complaint = run("verdict")
    assert code == 0 and said.splitlines()[:2] == [f"{V1}: one image comes back", f"    report: reports/{V1}/report.html"]
    assert said.splitlines()[2].startswith("database: findings.duckdb") and complaint == f"{V2}: not audited yet; run `eidetic audit {V2}`\n"
    stages.DATABASE.unlink()
    code, said, complaint = run("verdict", V1)
    assert code == 1 and said.startswith(f"{V1}: one") and complaint == (
        "eidetic: findings.duckdb is missing; make it with `eidetic audit` or `dvc repro -f -s warehouse`\n")


def test_sql_without_a_query_lists_the_questions_there_are_and_each_is_answered_by_name(tiny: Path, run: Run) -> None:
    code, said, _ = run("sql")
    listed = {line.split()[0]: line.split(maxsplit=1)[1] for line in said.splitlines()}
    assert code == 0 and set(listed) == {file.stem for file in (ROOT / "sql" / "queries").glob("*.sql")}
    assert all(question.endswith("?") for question in listed.values())
    for name in listed:
        assert run("sql", "--query", name)[0] == 0
    assert run("sql", "--query", "nothing") == (1, "", f"eidetic: no query 'nothing'; there are {', '.join(listed)}\n")
    assert run("sql", "from summary", "--query", "undecided") == (1, "", "eidetic: give a query or --query NAME, not both\n")


def test_sql_answers_as_a_table_as_csv_and_as_json(tiny: Path, run: Run) -> None:
    query = "select release, count(*) filter (is_extracted) as n, null as nothing, 'a,\"b' as text from findings group by release order by n"
    assert run("sql", query, "--format", "csv") == (0, f'"release","n","nothing","text"\n"{V2}",0,,"a,""b"\n"{V1}",1,,"a,""b"\n', "")
    code, said, _ = run("sql", query, "--format", "json")
    assert code == 0 and json.loads(said) == [{"release": r, "n": n, "nothing": None, "text": 'a,"b'} for r, n in ((V2, 0), (V1, 1))]
    code, said, _ = run("sql", query)
    assert code == 0 and all(word in said for word in (V1, V2, "release", "int64"))
    assert run("sql", "select audited_at from audits limit 1", "--format", "json")[0] == 0


HOSTILE = [
    "create table x as select 1", "drop table findings", "select 1; delete from findings", "insert into findings select * from findings",
    "copy findings to 'out.csv'", "export database 'out'", "attach 'other.duckdb'", "select * from read_csv('params.yaml')",
    "from 'params.yaml'", "select * from read_text('params.yaml')", "set enable_external_access = true", "install httpfs", "load httpfs",
    "select * from glob('*')", "select getenv('HOME')", "selec 1",
]


def test_a_query_can_neither_write_nor_see_other_files(tiny: Path, run: Run) -> None:
    before = content(tiny)
    for query in HOSTILE:
        code, said, complaint = run("sql", query)
        assert (code, said) == (1, "") and complaint.startswith("eidetic: the query cannot be answered: ") and complaint.count("\n") == 1, query
    assert content(tiny) == before


def test_checks_counts_what_every_table_was_asked_and_is_content(tiny: Path, run: Run) -> None:
    code, said, complaint = run("checks")
    assert (code, complaint) == (0, "") and "failed" in said
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in said.splitlines() if not line.startswith("warehouse")}
    assert set(lines) == {"inputs.releases/v1", "inputs.releases/sd-v1.5", "images", "image_embeddings", "duplicates", "prompts", "reviews",
                          *(f"{noun}@{release}" for noun in warehouse.RELEASE_STAGES for release in (V1, V2))}
    assert set(lines.values()) == {"1 checks, none failed"}


def test_a_check_that_failed_is_named_and_so_is_a_table_that_was_rejected(tiny: Path, run: Run) -> None:
    file = _tables.path("matches", V1, "checks")
    rows = pq.read_table(file).to_pylist()
    _tables.put(_tables.table([rows[0] | {"is_passed": False, "message": "matches: rank is not unique"}], pq.read_schema(file)), file)
    code, said, _ = run("checks")
    assert code == 1 and "    matches: rank is not unique" in said.splitlines()
    assert [line.split()[-2:] for line in said.splitlines() if line.startswith(f"matches@{V1}")] == [["1", "failed"]]
    file.unlink()
    rejected = _tables.path("matches", V1).with_suffix(".rejected.parquet")
    put([], findings.SCHEMA, "matches", V1, "matches.rejected")
    code, said, _ = run("checks")
    assert code == 1 and f"{rejected} was rejected: the stage's own message says why" in said.splitlines()
    assert run("clean")[0] == 0 and not rejected.exists() and run("checks")[0] == 0


def test_data_docs_are_built_of_what_was_checked(tiny: Path, run: Run) -> None:
    shutil.rmtree("data")
    made = _tables.table([finding_row(V1, prompt, False) for prompt in PROMPTS], findings.SCHEMA)
    _tables.write(made, findings.CHECKS, "findings", V1)
    code, said, _ = run("checks", "--docs")
    page = Path("reports/data_docs/index.html")
    assert code == 0 and f"Data Docs: {page}" in said.splitlines() and f"findings@{V1}" in page.read_text()
    assert list(page.parent.glob(f"validations/findings@{V1}/**/*.html"))


def test_clean_removes_finished_pieces_and_leaves_results(tiny: Path, run: Run) -> None:
    (_shards.WORK / "generations").mkdir(parents=True, exist_ok=True)
    (_shards.WORK / "generations" / "a.parquet").write_bytes(b"0" * 2_500_000)
    others = {name: data for name, data in content(tiny).items() if not name.startswith("work/")}
    code, said, _ = run("clean")
    assert code == 0 and said.startswith("2.5 MB removed from work/;") and content(tiny) == others


def test_clean_is_refused_while_a_stage_is_at_work(tiny: Path, run: Run) -> None:
    with at_work([sys.executable, "-c", HOLD], tiny, says="held") as stage:
        assert run("clean") == (75, "", f"eidetic: process {stage.pid} is at work on generations-v1; wait for it, or stop it with `kill {stage.pid}`\n")
        assert (_shards.WORK / "generations-v1.lock").is_file()
    assert run("clean")[0] == 0


def test_status_says_of_every_stage_whether_it_is_stale_and_why(toy: Path, run: Run) -> None:
    code, said, complaint = run("status")
    states = {line.split()[0]: line.split(maxsplit=1)[1] for line in said.splitlines()}
    assert (code, complaint) == (0, "") and states == dict.fromkeys(["images", "report@good", "report@bad", "warehouse"], "up to date")
    shutil.rmtree("reports/bad")
    stages.DATABASE.unlink()
    code, said, _ = run("status")
    assert code == 0 and "report@bad                       stale: reports/bad deleted" in said.splitlines()
    assert said.splitlines()[-1] == "findings.duckdb is missing; `eidetic audit` builds it again"


def test_status_before_the_first_audit_finds_every_stage_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.chdir(toy_project(tmp_path))
    code, said, _ = run("status")
    assert code == 0 and [line.split(maxsplit=1)[1] for line in said.splitlines()[:4]] == ["stale: never run"] * 4


def test_a_cut_lock_file_is_mended_and_said_to_be_and_the_answer_is_as_before(toy: Path, run: Run) -> None:
    whole = stages.LOCK.read_text()
    stages.LOCK.write_text(whole[: len(whole) // 2])
    code, said, complaint = run("plan")
    assert code == 0 and complaint.startswith("eidetic: dvc.lock was cut short; it is kept as dvc.lock.broken") and complaint.count("\n") == 1
    assert "images                           never run" in said.splitlines()


def test_plan_looks_at_the_inputs_and_runs_nothing_else(toy: Path, run: Run) -> None:
    assert run("plan") == (0, "nothing to run: every stage is up to date\ngood: no evaluations\nbad: no evaluations\n", "")
    params = Path("params.yaml")
    params.write_text(params.read_text().replace("model: two", "model: three"))
    code, said, _ = run("plan")
    planned = {line.split()[0] for line in said.splitlines()[:2]}
    assert code == 0 and planned == {"report@bad", "warehouse"} and "report@good" not in said
    assert json.loads(Path("data/inputs/releases/bad.txt").read_text())["model"] == "three"
    assert json.loads(Path("reports/bad/audit.json").read_text())["verdict"] == "bad: nothing comes back"
    assert [line.split()[0] for line in run("plan", "good")[1].splitlines()] == ["warehouse", "good:", "finished"]


def test_plan_passes_on_what_inputs_complains_of(toy: Path, run: Run) -> None:
    plant(toy, "inputs", "print('inputs: training_set.members.path x does not exist', file=sys.stderr); sys.exit(1)")
    assert run("plan") == (1, "", "eidetic: inputs: training_set.members.path x does not exist\n")


def test_plan_tells_what_an_audit_will_cost_beside_what_it_has(copy_of_another: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.chdir(copy_of_another)
    assert run("plan")[1].splitlines()[-1] == "sd-v1.5: no evaluations"
    params = Path("params.yaml")
    params.write_text(params.read_text().replace("budget: 512", "budget: 256"))
    code, said, complaint = run("plan")
    assert (code, complaint) == (0, "")
    cost = next(line for line in said.splitlines() if line.startswith("sd-v1.5: "))
    n, spent = pq.read_metadata("data/prompts/prompts.parquet").num_rows, sum(pq.read_table(_tables.path("findings", V2))["n_evaluations"].to_pylist())
    assert cost.startswith(f"sd-v1.5: {n} prompts; evaluations: {8 * n:,} to screen, ") and f"; the published attack: {n * 50_000:,}" in cost
    assert cost.endswith(f"; its last audit took {spent:,}")


def test_screen_says_of_each_picture_whether_it_is_blocked_and_exits_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    from tasks import _filter

    answers = {"a.png": _filter.Screened(True, 0.9, 0.8, 5, 7), "b.png": _filter.Screened(False, 0.2, float("nan"), 5, 7), "c.txt": "not checked: no picture"}
    monkeypatch.setattr(_filter, "of_files", lambda files, folder, path: [answers[file.name] for file in files])
    code, said, _ = run("screen", "a.png", "b.png", "--blocklist", str(tmp_path))
    assert code == 2 and said.splitlines() == ["a.png: blocked by likeness 0.800, similarity 0.900 to entry 5 (image 7)",
                                               "b.png: passes, similarity 0.200 to entry 5 (image 7)"]
    assert run("screen", "b.png", "--blocklist", str(tmp_path))[0] == 0 and run("screen", "a.png", "c.txt", "--blocklist", str(tmp_path))[0] == 1


def test_screen_refuses_what_is_no_blocklist_in_one_line(tmp_path: Path, run: Run) -> None:
    code, _, complaint = run("screen", "a.png", "--blocklist", str(tmp_path / "none"))
    assert code == 1 and "is no folder; give one that the stage `blocklist` has written" in complaint
