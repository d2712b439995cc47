"""The whole audit: of the example against the exhaustive truth, of another model by editing the two top blocks alone, and as a flow."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from flows import audit as flow
from flows import stages
from tasks import _database
from tests.conftest import ROOT, at_work, eidetic, other_project, reproduced, rows_of, running, until
from tests.prefect_server import Api, serving
from tests.toy_project import plant, toy_project

VERBATIM_L2, VERBATIM_MARGIN, NEAR_COPY_MARGIN, MIN_STD = 0.15, 0.7, 0.85, 0.04
N_EXHAUSTIVE, N_STEPS = 200, 12


def truth(release: str) -> dict[int, np.ndarray]:
    """Rows (l2, margin, pixel_std) of the exhaustive run by prompt."""
    table = pq.read_table(ROOT / "example" / "exhaustive.parquet", filters=[("release", "==", release)])
    ids = table.column("prompt_id").to_numpy()
    rows = np.stack([table.column(c).to_numpy() for c in ("l2", "margin", "pixel_std")], axis=1)
    return {int(i): rows[ids == i] for i in np.unique(ids)}


def rates(release: str) -> dict[int, float]:
    """Share of each prompt's pictures that are verbatim to its own image."""
    return {i: float(((r[:, 0] <= VERBATIM_L2) & (r[:, 1] <= VERBATIM_MARGIN) & (r[:, 2] >= MIN_STD)).mean()) for i, r in truth(release).items()}


def test_the_audit_finds_what_the_exhaustive_run_finds_at_a_tenth_of_its_cost(audited: Path) -> None:
    found = rows_of(audited, "findings", "v1")
    rate = rates("v1")
    targets = {r["prompt_id"]: r for r in found if r["arm"] in ("duplicated", "outlier", "singleton")}
    often = [i for i in targets if rate[i] >= 0.3]
    sometimes = [i for i in targets if rate[i] >= 0.1]
    assert len(often) >= 35
    assert sum(not targets[i]["is_extracted"] for i in often) <= 1
    # what returns often in single pictures is verbatim by the independent script's measures: so must the verdict be
    assert np.mean([targets[i]["match_type"] == "verbatim" for i in often if targets[i]["is_extracted"]]) >= 0.9
    assert sum(not targets[i]["is_extracted"] for i in sometimes) <= 3
    assert sum(r["n_evaluations"] for r in found) <= 0.1 * len(found) * N_EXHAUSTIVE * N_STEPS * 2


def test_no_finding_stands_whose_margin_the_independent_script_does_not_confirm(audited: Path) -> None:
    rows = truth("v1")
    for r in rows_of(audited, "findings", "v1"):
        if r["is_extracted"] and r["is_own_image"] and r["match_type"] != "template":
            bound = VERBATIM_MARGIN if r["match_type"] == "verbatim" else NEAR_COPY_MARGIN
            assert r["margin"] <= bound
            assert np.quantile(rows[r["prompt_id"]][:, 1], 0.1) <= bound, "other seeds do not come as close"


def test_no_control_is_flagged_and_the_false_discovery_rate_is_bounded(audited: Path) -> None:
    for release in ("v1", "v2"):
        assert not any(r["is_flagged"] for r in rows_of(audited, "findings", release))
    whole = next(r for r in rows_of(audited, "summary", "v1") if (r["arm"], r["copies_bin"]) == ("duplicated", "all"))
    assert whole["n_controls"] == 64 and whole["fdr_upper"] <= 0.1


def test_the_deduplicated_release_has_at_most_a_tenth_of_the_findings(audited: Path) -> None:
    n = {release: sum(r["is_extracted"] for r in rows_of(audited, "findings", release)) for release in ("v1", "v2")}
    assert n["v2"] <= n["v1"] / 10
    canaries = pq.read_table(audited / "data/duplicates/canaries.parquet").to_pylist()
    assert all(c["recall"] >= 0.9 for c in canaries if c["is_promised"])


def test_the_example_is_what_it_says_copies_come_back_and_the_twins_do_not_know_them() -> None:
    prompts = {r["prompt_id"]: r for r in pq.read_table(ROOT / "example" / "prompts.parquet").to_pylist()}
    v0, v1, v2 = (rates(name) for name in ("v0", "v1", "v2"))
    many = [i for i, p in prompts.items() if p["arm"] == "duplicated" and p["n_copies"] >= 18]
    assert np.mean([v1[i] >= 0.3 for i in many]) >= 0.9
    assert all(v1[i] == 0 for i, p in prompts.items() if p["arm"] == "held_out")
    found = [i for i in v1 if v1[i] >= 0.3]
    assert max(v0[i] for i in found) < 0.1 and max(v2[i] for i in found) < 0.1
    assert sum(r >= 0.3 for r in v2.values()) <= len(found) / 10


def test_a_second_repro_runs_no_stage_but_inputs(audited: Path) -> None:
    ran = [line for line in reproduced(audited).splitlines() if line.startswith("Running stage")]
    assert ran == ["Running stage 'inputs':"]


def test_the_verdict_is_one_line_per_release(audited: Path) -> None:
    said = subprocess.run([sys.executable, "-c", "from flows.cli import app; app()", "verdict"], cwd=audited, text=True, capture_output=True, check=True).stdout
    assert "most duplicated images come back" in said and "v2:" in said and "findings.duckdb" in said


def test_another_model_and_folder_are_audited_with_no_other_edit(another: Path) -> None:
    arms = {r["arm"] for r in rows_of(another, "prompts")}
    assert arms == {"duplicated", "outlier", "singleton", "paraphrased"}
    assert {r["n_copies"] for r in rows_of(another, "prompts") if r["arm"] == "duplicated"} == {3}
    audit = json.loads((another / "reports" / "sd-v1.5" / "audit.json").read_text())
    assert "no held-out images" in audit["verdict"]
    assert (another / "findings.duckdb").is_file() and (another / "reports" / "sd-v1.5" / "report.html").is_file()


def test_without_a_training_set_a_custom_list_is_audited_to_the_end(tmp_path: Path) -> None:
    folder = other_project(tmp_path)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["training_set"] = {"members": None, "held_out": None}
    params["prompts"]["custom"], params["generations"]["budget"] = "mine.txt", 16
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    (folder / "mine.txt").write_text("a red kettle\n\nFlag of Palau\n")
    reproduced(folder)
    assert {r["caption"] for r in rows_of(folder, "prompts")} == {"a red kettle", "Flag of Palau"}
    assert rows_of(folder, "matches", "sd-v1.5") == []
    found = rows_of(folder, "findings", "sd-v1.5")
    assert {r["match_type"] for r in found} <= {"undecided", "none"} and not any(r["is_compared"] or r["image_id"] or r["hit_rate"] for r in found)
    said = eidetic(folder, "verdict")
    assert "no training picture was there to compare with, so no copy is confirmed or ruled out" in said.stdout
    assert eidetic(folder, "sql", "--query", "undecided").returncode == 0


def bytes_of(folder: Path, release: str) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted((folder / "data" / "generations" / release).rglob("*.parquet"))}


def test_a_killed_audit_goes_on_and_ends_in_the_same_bytes(copy_of_another: Path) -> None:
    uninterrupted = bytes_of(copy_of_another, "sd-v1.5")
    shutil.rmtree(copy_of_another / "work" / "generations")
    shutil.rmtree(copy_of_another / "data" / "generations")
    shutil.rmtree(copy_of_another / ".dvc" / "cache")
    dvc = subprocess.Popen(["dvc", "repro", "-s", "generations@sd-v1.5"], cwd=copy_of_another, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    shards = copy_of_another / "work" / "generations"
    for _ in range(600):
        if shards.is_dir() and len(list(shards.glob("*.parquet"))) >= 3:
            break
        time.sleep(0.1)
    dvc.send_signal(signal.SIGKILL)
    dvc.wait()
    made = set(shards.glob("*.parquet"))
    assert 3 <= len(made) < sum(1 for _ in uninterrupted) + 60
    if sys.platform == "linux":
        for _ in range(100):
            if not stage_is_running(copy_of_another):
                break
            time.sleep(0.1)
        assert not stage_is_running(copy_of_another), "the stage outlived the dvc that started it"
    times = {p: p.stat().st_mtime_ns for p in made}
    reproduced(copy_of_another, "-s", "generations@sd-v1.5")
    assert bytes_of(copy_of_another, "sd-v1.5") == uninterrupted
    assert {p: p.stat().st_mtime_ns for p in made} == times, "finished shards were made again"


def stage_is_running(folder: Path) -> bool:
    """Whether a process runs a stage in the folder (Linux)."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"tasks.generations" in (process / "cmdline").read_bytes() and os.readlink(process / "cwd") == str(folder):
                return True
        except OSError:
            continue
    return False


def test_a_refused_release_is_named_in_one_line(tmp_path: Path) -> None:
    folder = other_project(tmp_path)
    (folder / "my-model" / "pipeline.py").write_text("open('ran', 'w')")
    done = subprocess.run(["dvc", "repro", "screening@sd-v1.5"], cwd=folder, text=True, capture_output=True, check=False)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "refused" in line]
    assert done.returncode != 0 and len(said) == 1 and "pipeline.py is code" in said[0]
    assert not (folder / "ran").exists()


FAIL = "report: the model cannot be loaded; give another"
COUNT = "n = Path('count.txt'); n.write_text(str(int(n.read_text()) + 1) if n.is_file() else '1')\n"
AT_ONCE = """
import sys
from flows import audit, cli
audit.reproduce = audit.reproduce.with_options(retry_delay_seconds=[0, 0])  # what is tried again is tried at once
sys.argv = ["eidetic", "audit", "good"]
cli.main()
"""


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A real server on loopback; whatever runs with its environment is ended in the end."""
    with serving(tmp_path_factory.mktemp("prefect")) as served:
        yield served


def ran(lines: list[str]) -> list[str]:
    """Stages that DVC says it runs."""
    return [found[1] for line in lines if (found := re.search(r"Running stage '(.+)':", line))]


def test_a_release_that_fails_is_named_and_keeps_no_other_from_being_audited(api: Api, tmp_path: Path) -> None:
    toy = toy_project(tmp_path)
    plant(toy, "report@bad", f"{COUNT}print({FAIL!r}, file=sys.stderr); sys.exit(1)")
    done = eidetic(toy, "audit", **api.environment)
    assert done.returncode == 1 and done.stdout == "" and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == f"eidetic: report@bad: {FAIL.removeprefix('report: ')}"
    assert (toy / "count.txt").read_text() == "1", "a mistake is not tried again"
    assert ran(done.stderr.splitlines()) == ["inputs", "images", "report@good", "report@bad", "warehouse"]
    told = api.artifact("audit-good")
    assert told and told.startswith("**good: nothing comes back**") and f"({(toy / 'reports/good/report.html').as_uri()})" in told
    assert (toy / "findings.duckdb").as_uri() in told and api.artifact("audit-bad") is None


def test_what_passes_by_itself_is_tried_again_and_then_goes_on(api: Api, tmp_path: Path) -> None:
    toy = toy_project(tmp_path)
    plant(toy, "images", f"{COUNT}if int(n.read_text()) < 3: print('images: the Hub does not answer', file=sys.stderr); sys.exit(75)")
    done = subprocess.run([sys.executable, "-c", AT_ONCE], cwd=toy, env=os.environ | api.environment | {"PYTHONPATH": str(ROOT)}, text=True,
                          capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (toy / "count.txt").read_text() == "3" and done.stdout.startswith("good: nothing comes back\n")


def test_what_does_not_pass_after_all_ends_with_75_and_without_the_stages_that_need_it(api: Api, tmp_path: Path) -> None:
    toy = toy_project(tmp_path)
    plant(toy, "images", f"{COUNT}print('images: the Hub does not answer', file=sys.stderr); sys.exit(75)")
    done = subprocess.run([sys.executable, "-c", AT_ONCE], cwd=toy, env=os.environ | api.environment | {"PYTHONPATH": str(ROOT)}, text=True,
                          capture_output=True, check=False)
    assert done.returncode == 75 and done.stderr.splitlines()[-1] == "eidetic: images: the Hub does not answer", done.stderr
    assert (toy / "count.txt").read_text() == "3" and ran(done.stderr.splitlines()) == ["inputs", *["images"] * 3]


def test_a_second_audit_and_a_clean_are_told_who_is_at_work_and_an_interrupt_ends_the_first(api: Api, tmp_path: Path) -> None:
    toy = toy_project(tmp_path)
    plant(toy, "report@good", "time.sleep(300)")
    mark = f"{os.getpid()}-first"
    deaf = ["sh", "-c", f"trap '' INT; exec {sys.executable} -m flows.cli audit"]  # as shells start what runs in the background
    with at_work(deaf, toy, says="at work on report@good", **api.environment | {"EIDETIC_TEST_MARK": mark}) as first:
        for words in (["audit"], ["audit", "bad"], ["clean"]):
            second = eidetic(toy, *words, **api.environment)
            assert (second.returncode, second.stdout) == (75, "")
            assert second.stderr == f"eidetic: process {first.pid} is at work on audit; wait for it, or stop it with `kill {first.pid}`\n"
        by_hand = subprocess.run([sys.executable, "-m", "dvc", "repro"], cwd=toy, text=True, capture_output=True, check=False)
        assert by_hand.returncode != 0 and "is busy" in by_hand.stderr
        first.send_signal(signal.SIGINT)
        assert first.wait(60) == 130
        assert (toy / "said.txt").read_text().splitlines()[-1] == "eidetic: stopped; what is finished is kept and the next run goes on from there"
        assert until(lambda: not running(mark), 10), running(mark)
    plant(toy, "report@good", "")
    assert eidetic(toy, "audit", "good", **api.environment).returncode == 0


def test_with_a_server_of_its_own_an_audit_needs_no_activated_environment_and_prints_verdicts_alone(tmp_path: Path) -> None:
    toy, mark = toy_project(tmp_path), f"{os.getpid()}-own"
    done = eidetic(toy, "audit", "good", PATH="/usr/bin:/bin", EIDETIC_TEST_MARK=mark)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("good: nothing comes back\n    report: reports/good/report.html\n"
                           "database: findings.duckdb (for example: eidetic sql \"from summary\")\n")
    assert ran(done.stderr.splitlines()) == ["inputs", "images", "report@good", "warehouse"] and not (toy / "reports" / "bad").exists()
    assert "git add" not in done.stderr and not running(mark)


def test_a_run_that_cannot_start_says_why_in_its_state(api: Api, tmp_path: Path) -> None:
    params = ["releases: {one: {model: m}}", "releases: {}", "releases: ["]
    script = ("from pathlib import Path\nfrom flows import audit\n"
              f"for params in {params}:\n    Path('params.yaml').write_text(params)\n    print(audit.audit(['other'], return_state=True).message)")
    done = subprocess.run([sys.executable, "-c", script], cwd=toy_project(tmp_path), env=os.environ | api.environment | {"PYTHONPATH": str(ROOT)},
                          text=True, capture_output=True, check=True)
    unknown, none, broken = done.stdout.splitlines()
    assert unknown == "no release 'other' in params.yaml; it lists one" and none == "no release 'other' in params.yaml; it lists none"
    assert broken.startswith("params.yaml is not valid YAML: ") and "Traceback" not in done.stderr


def test_a_releases_name_becomes_a_key_of_prefects() -> None:
    assert [flow.slug(name) for name in ("v1", "SD_v1.5", "-x-")] == ["v1", "sd-v1-5", "x"]


@dataclass(frozen=True)
class Scheduled:
    """A project to which a release was added, and the run of its deployment that audited it."""

    folder: Path
    deployment: Any
    run: Any
    lines: list[str]


def copy_with_one_value_changed(model: Path, target: Path) -> None:
    """A release like another, but for the lowest bit of one weight."""
    shutil.copytree(model, target)
    file = sorted((target / "unet").glob("*.safetensors"))[0]
    weights = bytearray(file.read_bytes())
    weights[-4] ^= 1
    file.write_bytes(weights)


@pytest.fixture(scope="module")
def scheduled(api: Api, another: Path, tmp_path_factory: pytest.TempPathFactory) -> Scheduled:
    """The commands that prefect.yaml names, then one run of what they deploy."""
    folder = Path(shutil.copytree(another, tmp_path_factory.mktemp("scheduled") / "project", symlinks=True))
    copy_with_one_value_changed(folder / "my-model", folder / "my-model-2")
    added = eidetic(folder, "releases", "add", "sd-v2", "my-model-2", "--n-steps", "1", "--guidance-scale", "1")
    assert added.returncode == 0, added.stderr
    commands = re.findall(r"^#   (prefect .+)$", (folder / "prefect.yaml").read_text(), re.M)
    *first, worker = [[sys.executable, "-m", *shlex.split(command)] for command in commands]
    for command in first:
        subprocess.run(command, cwd=folder, env=os.environ | api.environment, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    deployment = api.asked("read_deployment_by_name", "audit/weekly")
    assert [list(step.values()) for step in deployment.pull_steps] == [[{"directory": str(folder)}]], "it would audit another project"
    with at_work(worker, folder, says="started!", **api.environment):
        run = api.asked("create_flow_run_from_deployment", deployment.id)
        ended = until(lambda: api.asked("read_flow_run", run.id).state.is_final(), 600)
        assert ended, (folder / "said.txt").read_text()[-3000:]
        until(lambda: any("Finished in state" in line for line in api.lines(run.id)[-1:]), 10)
    return Scheduled(folder, deployment, api.asked("read_flow_run", run.id), api.lines(run.id))


def test_what_prefect_yaml_deploys_audits_once_a_week_and_one_at_a_time(scheduled: Scheduled) -> None:
    assert [(s.schedule.cron, s.schedule.timezone, s.active) for s in scheduled.deployment.schedules] == [("0 3 * * 1", "UTC", True)]
    assert scheduled.deployment.global_concurrency_limit.limit == 1


def test_the_run_of_a_worker_leaves_its_lines_and_the_verdict_with_links(api: Api, scheduled: Scheduled) -> None:
    assert scheduled.run.state.is_completed(), "\n".join(scheduled.lines[-40:])
    verdict = json.loads((scheduled.folder / "reports/sd-v2/audit.json").read_text())["verdict"]
    assert verdict in scheduled.run.state.message and verdict.startswith("sd-v2: ")
    told = api.artifact("audit-sd-v2")
    assert told and told.startswith(f"**{verdict}**") and api.artifact("audit-sd-v1-5")
    files = [Path(url.removeprefix("file://")) for url in re.findall(r"\((file://[^)]+)\)", told)]
    assert len(files) == 4 and all(file.is_file() for file in files)
    assert any(line.startswith("findings: 'sd-v2': ") for line in scheduled.lines)


def test_a_new_release_runs_its_own_stages_and_the_warehouse_and_no_other(another: Path, scheduled: Scheduled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert ran(scheduled.lines) == ["inputs", *stages.release_targets("sd-v2"), "warehouse", *stages.last_targets("sd-v2")]
    assert bytes_of(scheduled.folder, "sd-v1.5") == bytes_of(another, "sd-v1.5")
    assert rows_in(scheduled.folder, "select release, position from releases where status = 'current' order by all") == [("sd-v1.5", 0), ("sd-v2", 1)]


def test_removing_it_again_runs_the_warehouse_alone_and_leaves_its_audit_in_the_history(another: Path, scheduled: Scheduled, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(scheduled.folder, tmp_path / "copy", symlinks=True))
    kept = audits_of(folder)
    assert eidetic(folder, "releases", "remove", "sd-v2").returncode == 0
    assert (folder / "params.yaml").read_bytes() == (another / "params.yaml").read_bytes()
    assert ran(reproduced(folder).splitlines()) == ["inputs", "warehouse"]
    assert audits_of(folder) == kept and len({Path(name).parts[1] for name in kept}) == 2
    assert rows_in(folder, "select distinct release from findings") == [("sd-v1.5",)]
    assert rows_in(folder, "select distinct release from all_findings order by all") == [("sd-v1.5",), ("sd-v2",)]


def test_auditing_again_with_other_settings_adds_an_audit_and_overwrites_none(copy_of_another: Path) -> None:
    first = audits_of(copy_of_another)
    params = copy_of_another / "params.yaml"
    params.write_text(params.read_text().replace("confidence: 0.95", "confidence: 0.9"))
    assert "generations@sd-v1.5" not in ran(reproduced(copy_of_another).splitlines())
    second = audits_of(copy_of_another)
    assert first.items() < second.items() and len({Path(name).parts[1] for name in second}) == 2
    asked = "select s.value, r.release is not null from all_settings s left join releases r using (audit_id) where s.name like '%confidence' order by all"
    assert rows_in(copy_of_another, asked) == [("0.9", True), ("0.95", False)]


def test_a_release_whose_model_is_gone_is_named_and_the_others_stay_current(api: Api, copy_of_another: Path) -> None:
    params = copy_of_another / "params.yaml"
    params.write_text(params.read_text().replace("releases:\n", "releases:\n  gone:\n    model: nowhere/\n", 1))
    why = "release 'gone' is refused: model folder nowhere/ does not exist; give a diffusers folder or a Hub id with a revision"
    planned = eidetic(copy_of_another, "plan")
    assert planned.returncode == 1 and planned.stderr == f"eidetic: {why}\n" and "sd-v1.5: no evaluations" in planned.stdout.splitlines()
    done = eidetic(copy_of_another, "audit", "gone", **api.environment)
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == f"eidetic: screening@gone: {why}"
    assert ran(done.stderr.splitlines()) == ["inputs", "screening@gone", "warehouse"]
    assert rows_in(copy_of_another, "select release, status from releases order by position") == [("gone", "refused"), ("sd-v1.5", "current")]


def audits_of(folder: Path) -> dict[str, bytes]:
    """The files of the history."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted((folder / "audits").rglob("*.parquet"))}


def rows_in(folder: Path, query: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in _database.rows(folder / "findings.duckdb", query).to_pylist()]
