"""Prefect's server for one run on this machine, where no PREFECT_API_URL names another; it ends with the process that asked for it.

Prefect starts such a server by itself, but leaves it running when the flow is killed.
"""

import atexit
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from flows import stages
from tasks._settings import UserError

SECONDS_TO_START = 120.0
HOST = "127.0.0.1"


@contextmanager
def api() -> Iterator[str]:
    """The address of Prefect's API, in force within the block: the one that Prefect's settings name, else that of a server of our own.

    Raises UserError where our own does not start or the other does not answer.
    """
    from prefect.settings import PREFECT_API_URL, temporary_settings

    named = PREFECT_API_URL.value()
    if named:
        why = silence()
        if why:
            raise UserError(f"Prefect's API at {named} does not answer ({why}); start it, or unset PREFECT_API_URL")
        yield named
        return
    process, url = _started()
    # at exit, not at the end of the block: Prefect sends its last logs and events when the interpreter ends, and waits for an answer
    atexit.register(_stop, process)
    _wait(process, url)
    with temporary_settings({PREFECT_API_URL: url}):
        yield url


def silence() -> str | None:
    """Why the API that Prefect's settings name does not answer, or None."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        error = client.api_healthcheck()
    return None if error is None else str(error) or type(error).__name__


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(stages.SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _started() -> tuple[subprocess.Popen[bytes], str]:
    port = _free_port()
    command = ["prefect", "server", "start", "--host", HOST, "--port", str(port), "--no-ui", "--no-scheduler", "--no-late-runs",
               "--analytics-off", "--log-level", "ERROR"]
    process = subprocess.Popen([sys.executable, "-m", *command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               start_new_session=True, env=stages.environment() | {"DO_NOT_TRACK": "1"}, preexec_fn=stages.die_with_parent())
    return process, f"http://{HOST}:{port}/api"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], url: str) -> None:
    """Return when the server answers."""
    until = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    why = f"exited with {process.returncode}" if process.poll() is not None else f"did not answer within {SECONDS_TO_START:.0f} s"
    raise UserError(f"Prefect's server {why}; see `prefect server start`, or run the audit without Prefect by `dvc repro`")
