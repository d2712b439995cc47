"""Prefect's server for a run: one of our own that ends with the run, or the one that Prefect's settings name."""

import os
import signal
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from flows import server
from tasks._settings import UserError
from tests.conftest import at_work, eidetic, running, until
from tests.toy_project import plant, toy_project

SERVE = "from flows import server\nwith server.api() as url:\n    print('at', url, flush=True)\n    import time; time.sleep(60)"


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"true")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def healthy() -> Iterator[str]:
    """The address of an API that says it is well."""
    http = HTTPServer(("127.0.0.1", 0), Healthy)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}/api"
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def silent() -> str:
    """The address of an API that nobody answers at."""
    return f"http://127.0.0.1:{server._free_port()}/api"


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
def test_a_server_of_our_own_answers_and_does_not_outlive_a_killed_run(tmp_path: Path) -> None:
    mark = f"{os.getpid()}-server"
    with at_work([sys.executable, "-c", SERVE], tmp_path, says="at http", EIDETIC_TEST_MARK=mark) as process:
        url = (tmp_path / "said.txt").read_text().split()[-1]
        with urllib.request.urlopen(f"{url}/health", timeout=10) as answer:
            assert url.startswith("http://127.0.0.1:") and answer.read() == b"true"
        assert len(running(mark)) >= 2
        process.send_signal(signal.SIGKILL)
        assert until(lambda: not running(mark), 15), running(mark)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
def test_an_audit_whose_own_server_is_killed_ends_with_its_stage_and_says_so(tmp_path: Path) -> None:
    mark, folder = f"{os.getpid()}-killed", toy_project(tmp_path)
    plant(folder, "images", "print('held', flush=True); time.sleep(300)")
    with at_work([sys.executable, "-m", "flows.cli", "audit"], folder, says="held", EIDETIC_TEST_MARK=mark) as process:
        servers = [number for number, words in running(mark).items() if "server" in words]
        for number in servers:
            os.kill(number, signal.SIGKILL)
        assert servers and until(lambda: process.poll() is not None and not running(mark), 10), running(mark)
        assert "\neidetic: Prefect's server was killed; what is finished is kept" in (folder / "said.txt").read_text()


def test_a_server_that_answers_is_used_and_none_is_started_beside_it(healthy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.setattr(server, "_started", lambda: pytest.fail("a server was started"))
    with temporary_settings({PREFECT_API_URL: healthy}), server.api() as url:
        assert url == healthy


def test_an_audit_that_cannot_reach_its_server_says_so_in_one_line(silent: str, tmp_path: Path) -> None:
    done = eidetic(toy_project(tmp_path), "audit", PREFECT_API_URL=silent)
    assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"eidetic: Prefect's API at {silent} does not answer (") and "start it, or unset PREFECT_API_URL" in done.stderr
    assert not (tmp_path / "dvc.lock").exists()


def test_a_server_of_our_own_that_does_not_start_is_said_to_and_the_way_without_it_named(monkeypatch: pytest.MonkeyPatch, silent: str) -> None:
    monkeypatch.setattr(server, "_started", lambda: (subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"]), silent))
    with pytest.raises(UserError, match="^Prefect's server exited with 3; .* run the audit without Prefect by `dvc repro`$"), server.api():
        pass


def test_a_server_of_our_own_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch, silent: str) -> None:
    monkeypatch.setattr(server, "SECONDS_TO_START", 0.3)
    with subprocess.Popen(["sleep", "60"]) as process, pytest.raises(UserError, match="did not answer within 0 s"):
        try:
            server._wait(process, silent)
        finally:
            process.kill()


def test_a_run_that_was_handed_to_init_before_it_could_look_has_no_worker() -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        assert server._may_be_worker(os.getpid()) and (sys.platform != "linux" or not server._may_be_worker(other.pid))
        other.kill()


def test_nobody_listening_is_told_from_an_api_that_answers(healthy: str, silent: str) -> None:
    for url, is_refused in ((healthy, False), (silent, True)):
        where = urllib.parse.urlsplit(url)
        assert server._is_refused((str(where.hostname), int(where.port or 0))) is is_refused


def test_a_run_from_the_command_line_is_bound_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", lambda self: pytest.fail("it would end with its shell"))
    server.end_with_worker()
