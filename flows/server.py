"""Prefect's server for one run on this machine, where no PREFECT_API_URL names another; it ends with the process that asked for it.

Prefect starts such a server by itself, but leaves it running when the flow is killed.
"""

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows import stages
from tasks._settings import UserError

SECONDS_TO_START = 300.0  # of a machine that is busy with something else; one that ends before is noticed at once
SECONDS_BETWEEN_LOOKS = 1.0  # at the worker and the API of a deployed run
N_REFUSALS = 2  # looks in a row at which nobody listens at the API's address
HOST = "127.0.0.1"
TEMPORARY_FAILURE = 75  # EX_TEMPFAIL: try again


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
    is_over = threading.Event()
    atexit.register(_stop, process, is_over)
    _wait(process, url)
    threading.Thread(target=_end_without, args=(process, is_over), name="end-without-server", daemon=True).start()
    with temporary_settings({PREFECT_API_URL: url}):
        yield url


def silence() -> str | None:
    """Why the API that Prefect's settings name does not answer, or None."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        error = client.api_healthcheck()
    return None if error is None else str(error) or type(error).__name__


def end_with_worker() -> None:
    """For a deployed run: end it and its stage when the worker that started it is no more, or nobody listens at the API's address.

    Prefect leaves such a run at work: nobody would see it, nobody could cancel it, and another would start beside it. An API that is
    only slow, or that cannot be reached, ends nothing. Not for a run from the command line, which may outlive its shell.
    """
    from prefect.runtime import deployment
    from prefect.settings import PREFECT_API_URL

    if deployment.id is None:
        return
    where = urllib.parse.urlsplit(str(PREFECT_API_URL.value()))
    address = (str(where.hostname), where.port or (443 if where.scheme == "https" else 80))
    threading.Thread(target=_watch, args=(os.getppid(), address), name="end-with-worker", daemon=True).start()


def _watch(worker: int, address: tuple[str, int]) -> None:
    n_refusals = 0
    while os.getppid() == worker and _may_be_worker(worker) and n_refusals < N_REFUSALS:
        time.sleep(SECONDS_BETWEEN_LOOKS)
        n_refusals = n_refusals + 1 if _is_refused(address) else 0
    _end(1)


def _end_without(process: subprocess.Popen[bytes], is_over: threading.Event) -> None:
    """End this process and its stage when a server of our own is killed: Prefect would go on trying to reach it for minutes."""
    while process.poll() is None:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    if not is_over.is_set():
        print("eidetic: Prefect's server was killed; what is finished is kept and the next run goes on from there", file=sys.stderr, flush=True)
        _end(TEMPORARY_FAILURE)


def _end(code: int) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(stages.SECONDS_TO_STOP)  # the stage ends in the meantime; Prefect goes on trying to report it
    os._exit(code)


def _may_be_worker(process: int) -> bool:
    """Whether a process can have started a run, or is the init that a run was handed to whose worker ended before it could look."""
    try:
        command = Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return process != 1
    return b"python" in command or b"prefect" in command


def _is_refused(address: tuple[str, int]) -> bool:
    """Whether the host is there and nobody listens."""
    try:
        socket.create_connection(address, timeout=5).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        pass
    return False


def _stop(process: subprocess.Popen[bytes], is_over: threading.Event) -> None:
    is_over.set()
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
