"""docs/operations.md: every block of commands that needs no Prefect server, run on another model's audit."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import server
from tasks import _database
from tests.conftest import ROOT, at_work, eidetic, reproduced, until
from tests.prefect_server import commands
from tests.test_audit import copy_with_one_value_changed, ran

PAGE = "operations.md"


def shell(text: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Commands of the page, stopped at the first that fails."""
    return subprocess.run(["sh", "-e"], input=text, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)} | variables, text=True, capture_output=True,
                          timeout=900, check=False)


def set_params(folder: Path, **blocks: Any) -> None:
    file = folder / "params.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | blocks, sort_keys=False))


CURRENT = "select release from releases where status = 'current' order by position"


def releases_in(folder: Path, query: str = CURRENT) -> list[str]:
    return [row["release"] for row in _database.rows(folder / "findings.duckdb", query).to_pylist()]


@pytest.fixture(scope="module")
def one_machine(another: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has looked twice, by the page's commands, at a folder with a new release and a hostile one."""
    project = Path(shutil.copytree(another, tmp_path_factory.mktemp("one") / "project", symlinks=True))
    set_params(project, watch={"folders": ["releases"], "hub": [], "settings": {"n_steps": 1, "guidance_scale": 1}})
    for name in ("v2", "hostile"):
        copy_with_one_value_changed(project / "my-model", project / "releases" / name)
    (project / "releases" / "hostile" / "unet" / "weights.bin").write_bytes(b"\x80\x02")
    first = shell(commands(PAGE, "eidetic watch  "), project)
    assert first.returncode == 0 and first.stdout.count("seen") == 4, first.stdout + first.stderr
    loop = [sys.executable, "-m", "flows.cli", *commands(PAGE, "watch --every").split()[1:]]
    with at_work(loop, project, says="refused") as process:
        assert until(lambda: "Completed('v2: " in (project / "said.txt").read_text(), 600), (project / "said.txt").read_text()[-3000:]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    return project


def test_one_machine_needs_no_server(one_machine: Path) -> None:
    said = (one_machine / "said.txt").read_text()
    assert "releases/hostile: refused: unet/weights.bin is a pickled" in said and "v2: 0 of the 4 most duplicated images come back" in said
    assert "compared to sd-v1.5: " in said and releases_in(one_machine) == ["sd-v1.5", "v2"]
    last = shell(commands(PAGE, "eidetic watch  "), one_machine)
    assert last.returncode == 0 and "refused" in last.stdout and "listed       v2" in last.stdout, "what was told once is no failure again"


def report_of(folder: Path) -> dict[Path, bytes]:
    """The files of a release's report, its figures among them, by their place."""
    report = folder / "reports" / "sd-v1.5"
    return {file.relative_to(report): file.read_bytes() for file in sorted(report.rglob("*")) if file.is_file()}


@pytest.fixture
def remote(copy_of_another: Path, tmp_path: Path) -> Path:
    """The project in git, its audit pushed, with the page's commands."""
    project, store = copy_of_another, tmp_path / "store"
    identity = "git config user.name Someone\ngit config user.email someone@example.com\n"
    shell(identity + "git add -A .\ngit reset -q my-model pictures unseen\ngit commit -qm 'The project'\n", project)
    for block in ("dvc remote add", "dvc push"):
        done = shell(commands(PAGE, block).replace("/mnt/store/eidetic", str(store)), project)
        assert done.returncode == 0, done.stdout + done.stderr
    return project


def test_a_colleague_gets_the_same_report_without_computing_anything(remote: Path, tmp_path: Path) -> None:
    there = tmp_path / "colleague"
    subprocess.run(["git", "clone", "-q", str(remote), str(there)], check=True)
    assert not (there / "my-model").exists() and not (there / "pictures").exists() and not (there / "data").exists()
    done = shell(commands(PAGE, "dvc pull "), there)
    assert done.returncode == 0 and "sd-v1.5: 0 of the 4 most duplicated images" in done.stdout, done.stdout + done.stderr
    assert re.findall(r"Running stage '(.+)'", done.stdout) == ["warehouse"]
    assert report_of(there) == report_of(remote)
    assert releases_in(there) == releases_in(remote) and (there / "dvc.lock").read_bytes() == (remote / "dvc.lock").read_bytes()
    query = "from findings order by all"
    assert _database.rows(there / "findings.duckdb", query).equals(_database.rows(remote / "findings.duckdb", query))
    for name in ("my-model", "pictures", "unseen"):
        shutil.copytree(remote / name, there / name)
    assert ran(reproduced(there).splitlines()) == ["inputs"], "with the models at hand nothing is computed either"


def test_a_backup_brings_the_history_back(copy_of_another: Path, tmp_path: Path) -> None:
    done = shell(commands(PAGE, "tar -czf"), copy_of_another)
    assert done.returncode == 0, done.stderr
    lost = shutil.ignore_patterns("audits", "*.duckdb", "data", "reports", "work", "dvc.lock", "params.yaml")
    folder = Path(shutil.copytree(copy_of_another, tmp_path / "new", symlinks=True, ignore=lost))
    done = shell(commands(PAGE, "tar -xzf"), folder)
    assert done.returncode == 0, done.stdout + done.stderr
    history = "select distinct audit_id as release from audits order by all"
    assert releases_in(folder, history) == releases_in(copy_of_another, history)


def test_what_an_upgrade_would_run_is_said_before(copy_of_another: Path) -> None:
    done = shell(commands(PAGE, "eidetic plan"), copy_of_another)
    assert done.returncode == 0 and "nothing to run: every stage is up to date" in done.stdout, done.stdout + done.stderr


def test_disk_is_given_back(copy_of_another: Path) -> None:
    set_params(copy_of_another, summary={"confidence": 0.9})
    reproduced(copy_of_another)
    cache = lambda: sum(file.stat().st_size for file in (copy_of_another / ".dvc" / "cache").rglob("*") if file.is_file())
    before = cache()
    done = shell(commands(PAGE, "dvc gc"), copy_of_another)
    assert done.returncode == 0 and "MB removed from work/" in done.stdout, done.stdout + done.stderr
    assert cache() < before and not (copy_of_another / "work" / "generations").exists()
    assert ran(reproduced(copy_of_another).splitlines()) == ["inputs"]


def test_a_retired_release_stays_in_the_history_and_does_not_come_back(one_machine: Path, tmp_path: Path) -> None:
    project = Path(shutil.copytree(one_machine, tmp_path / "project", symlinks=True))
    done = shell(commands(PAGE, "eidetic releases remove").replace("v1", "v2"), project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert releases_in(project) == ["sd-v1.5"]
    assert releases_in(project, "select distinct release from all_findings order by all") == ["sd-v1.5", "v2"]
    assert eidetic(project, "watch").returncode == 0
    shutil.rmtree(project / "data" / "watch")  # not even where nobody remembers it
    assert eidetic(project, "watch").returncode == 0
    assert "refused" in eidetic(project, "watch").stderr
    assert list(yaml.safe_load((project / "params.yaml").read_text())["releases"]) == ["sd-v1.5"]
    assert "the same files as v2, which has been audited" in eidetic(project, "watch", "--status").stdout


def test_a_failure_is_found_by_what_the_page_says(copy_of_another: Path) -> None:
    project = copy_of_another
    weights = project / "my-model" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    failed = eidetic(project, "audit")
    assert failed.returncode == 1 and "release 'sd-v1.5' is refused" in failed.stderr
    done = shell(commands(PAGE, "eidetic checks || true"), project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sd-v1.5" in done.stdout and "failed       screening@sd-v1.5: release 'sd-v1.5' is refused" in done.stdout
    assert re.search(r"screening@sd-v1.5 +stale", done.stdout) and re.search(r"checks, none failed", done.stdout)


def test_a_cluster_of_dask_draws(copy_of_another: Path) -> None:
    pytest.importorskip("distributed")
    address = f"{server.HOST}:{server._free_port()}"
    here = lambda text: text.replace("127.0.0.1:8786", address).replace("--port 8786", f"--port {address.split(':')[1]}").split()
    scheduler, worker = here(commands(PAGE, "dask scheduler")), here(commands(PAGE, "dask worker"))
    logs = [copy_of_another / name for name in ("scheduler", "worker")]
    for log in logs:
        log.mkdir()
    with at_work([*scheduler, "--no-dashboard"], logs[0], says="Scheduler at"):
        started = ["sh", "-c", f"cd {copy_of_another} && exec {' '.join(worker)}"]
        with at_work(started, logs[1], says="Registered to"):
            set_params(copy_of_another, compute={"device": "cpu", "dask": f"tcp://{address}"}, images={"version": 2, "jpeg_quality": 75})
            assert ran(reproduced(copy_of_another, "-s", "images").splitlines()) == ["images"]
            assert "tasks" in (logs[0] / "said.txt").read_text() or until(lambda: "Receive client connection" in (logs[0] / "said.txt").read_text(), 10)
