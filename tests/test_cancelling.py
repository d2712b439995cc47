"""Deployed runs that are cancelled or killed, with what they depend on: nothing stays at work, nothing computed is lost, the next run completes."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flows import alerts
from tests.conftest import ROOT, at_work, running, until
from tests.prefect_server import Api, commands, serving, started
from tests.toy_project import plant, toy_project

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc, and only Linux tells of a parent's end")
COUNT = "n = Path('count.txt'); n.write_text(str(int(n.read_text()) + 1) if n.is_file() else '1')\n"
LONG = f"sys.path.insert(0, {str(ROOT)!r})\nfrom tasks import _stage\n_stage._die_with_parent()\nprint('held', flush=True)\ntime.sleep(300)"
SECONDS_TO_DIE = 10.0  # the promise
SECONDS = 600  # to come to a state, on a busy machine: no promise
DEPLOY = [line.partition(" https:")[0] for line in commands("operations.md", "prefect --no-prompt deploy").splitlines() if not line.startswith("export")]
RUN = ("prefect.engine", "dvc", "stage.py")  # what a run of the audit consists of


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The server, with the work pool and the automations that the page puts on it."""
    with serving(tmp_path_factory.mktemp("cancelling")) as served:
        once = [line for line in DEPLOY if "deploy --all" not in line]
        done = served.shell("\n".join(once), ROOT)
        assert done.returncode == 0, done.stdout + done.stderr
        yield served


@pytest.fixture
def toy(api: Api, tmp_path: Path) -> Path:
    """A toy project, deployed; its stage report@good takes long, and images counts how often it runs."""
    folder = toy_project(tmp_path / "toy")
    shutil.copytree(ROOT / "flows", folder / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "prefect.yaml", folder / "prefect.yaml")
    plant(folder, "images", COUNT)
    plant(folder, "report@good", LONG)
    done = api.shell("\n".join(line for line in DEPLOY if "deploy --all" in line), folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@contextmanager
def worker(api: Api, folder: Path) -> Iterator[Any]:
    *_, start = commands("operations.md", "prefect worker start").splitlines()
    with at_work(shlex.split(start), folder, says="started!", **api.environment) as process:
        yield process


def of_the_run(api: Api) -> dict[int, list[str]]:
    """The processes of a run of the audit."""
    return {number: words for number, words in running(api.environment["EIDETIC_TEST_MARK"]).items() if any(part in words for part in RUN)}


def begun(api: Api, folder: Path) -> Any:
    """A run in mid-audit; its id."""
    run = api.run("audit/weekly")
    at_stage = lambda: any("report" in words for words in of_the_run(api).values()) and "held" in (folder / "said.txt").read_text()
    assert until(at_stage, SECONDS, every=0.5), (folder / "said.txt").read_text()[-3000:]
    return run


def has_gone(api: Api) -> bool:
    return until(lambda: not of_the_run(api), SECONDS_TO_DIE)


def completes(api: Api, folder: Path) -> bool:
    """Whether the next run does, with nothing computed again."""
    plant(folder, "report@good", "")
    run = api.run("audit/weekly")
    assert until(lambda: api.state(run).is_final(), SECONDS, every=1), (folder / "said.txt").read_text()[-3000:]
    return api.state(run).is_completed() and (folder / "count.txt").read_text() == "1" and (folder / "reports" / "good" / "audit.json").is_file()


def test_a_cancelled_run_leaves_no_process_no_lock_and_no_half_output(api: Api, toy: Path) -> None:
    with worker(api, toy):
        run = begun(api, toy)
        listed = commands("operations.md", "flow-run cancel")
        done = api.shell(listed.replace("01a21042-372c-7128-a785-730a873fd0ed", str(run)), toy)
        assert done.returncode == 0 and str(run)[:8] in done.stdout.replace("\n", ""), done.stdout + done.stderr
        assert has_gone(api), of_the_run(api)
        assert until(lambda: api.state(run).is_cancelled(), SECONDS, every=1), api.state(run)
        assert not (toy / "reports" / "good").exists() and not list(toy.rglob("*.tmp"))
        assert (toy / ".dvc" / "tmp" / "rwlock").read_text() == "{}"
        assert completes(api, toy)


def of_words(part: str) -> Callable[[Api], int]:
    return lambda api: next(number for number, words in of_the_run(api).items() if part in words)


@pytest.mark.parametrize("victim", ["stage.py", "prefect.engine"])
def test_a_run_of_which_a_part_is_killed_ends_whole_and_the_next_completes(api: Api, toy: Path, victim: str) -> None:
    with worker(api, toy):
        run = begun(api, toy)
        os.kill(of_words(victim)(api), signal.SIGKILL)
        gone = lambda: not any("stage.py" in words for words in of_the_run(api).values())
        assert until(gone, SECONDS_TO_DIE), of_the_run(api)
        assert until(lambda: api.state(run).is_final(), SECONDS, every=1) and not api.state(run).is_completed(), api.state(run)
        assert until(lambda: not of_the_run(api), SECONDS_TO_DIE), of_the_run(api)
        assert completes(api, toy)


def test_a_killed_worker_takes_its_run_with_it_and_the_next_worker_completes(api: Api, toy: Path) -> None:
    with worker(api, toy) as process:
        run = begun(api, toy)
        process.send_signal(signal.SIGKILL)
        assert has_gone(api), of_the_run(api)
    assert until(lambda: api.state(run).is_crashed(), 240, every=1), api.state(run)
    with worker(api, toy):
        assert completes(api, toy)


def test_a_killed_server_takes_the_run_with_it_and_a_new_one_completes(api: Api, toy: Path) -> None:
    mark = api.environment["EIDETIC_TEST_MARK"]
    with worker(api, toy):
        run = begun(api, toy)
        servers = [number for number, words in running(mark).items() if "server" in words and "prefect" in words]
        for number in servers:
            os.kill(number, signal.SIGKILL)
        assert servers and has_gone(api), of_the_run(api)
        started(api)
        assert until(lambda: api.state(run).is_crashed(), 240, every=1), "the worker, or the automation, tells the new server"
        assert completes(api, toy)


def test_a_run_that_went_down_with_its_machine_is_marked_as_crashed_and_holds_no_place(api: Api, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.setattr(alerts, "SECONDS_WITHOUT", 40)  # a heartbeat comes every 30 s
    with temporary_settings({PREFECT_API_URL: api.url}):
        alerts.put(None, list(alerts.EVENTS))
    with worker(api, toy) as process:
        run = begun(api, toy)
        for number in [process.pid, *of_the_run(api)]:
            os.kill(number, signal.SIGKILL)
    assert has_gone(api) and api.state(run).is_running()
    assert until(lambda: api.state(run).is_crashed(), 150, every=1), api.state(run)
    assert "no heartbeat" in str(api.state(run).message)
    monkeypatch.undo()
    with temporary_settings({PREFECT_API_URL: api.url}):
        alerts.put(None, list(alerts.EVENTS))  # as it is shipped
    with worker(api, toy):
        assert completes(api, toy)


def test_a_run_waits_while_another_is_at_work_in_the_folder(api: Api, toy: Path) -> None:
    held = "import time\nfrom tasks import _shards\nwith _shards.lock('audit'):\n    print('locked', flush=True)\n    time.sleep(300)"
    with subprocess.Popen([sys.executable, "-c", held], cwd=toy, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline() == b"locked\n"
        try:
            with worker(api, toy):
                plant(toy, "report@good", "")
                run = api.run("audit/weekly")
                assert until(lambda: any("waiting: process" in line for line in api.lines(run)), SECONDS, every=1) and api.state(run).is_running()
                other.kill()
                assert until(lambda: api.state(run).is_final(), SECONDS, every=1) and api.state(run).is_completed(), api.lines(run)
        finally:
            other.kill()
