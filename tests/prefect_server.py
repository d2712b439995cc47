"""A real Prefect server on loopback, for tests of what a user meets: the server, its deployments, a worker."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows import server
from tests.conftest import ROOT, running


@dataclass(frozen=True)
class Api:
    """A real Prefect server on loopback, as a client sees it."""

    url: str
    environment: dict[str, str]

    def asked(self, question: str, *arguments: Any, **named: Any) -> Any:
        from prefect.client.orchestration import get_client
        from prefect.settings import PREFECT_API_URL, temporary_settings

        with temporary_settings({PREFECT_API_URL: self.url}), get_client(sync_client=True) as client:
            return getattr(client, question)(*arguments, **named)

    def artifact(self, key: str) -> str | None:
        """The newest artifact of this key."""
        found = self.asked("read_artifacts")
        return next((str(a.data) for a in sorted(found, key=lambda a: a.created, reverse=True) if a.key == key), None)

    def lines(self, run_id: Any) -> list[str]:
        """What a run of the flow, and its tasks, have logged."""
        from prefect.client.schemas.filters import LogFilter

        chosen, found = LogFilter(flow_run_id={"any_": [run_id]}), []
        while page := self.asked("read_logs", log_filter=chosen, limit=200, offset=len(found)):
            found += page
        return [log.message for log in sorted(found, key=lambda log: log.timestamp)]

    def run(self, deployment: str, **parameters: Any) -> Any:
        """A run of a deployment, asked for now; its id."""
        found = self.asked("read_deployment_by_name", deployment)
        return self.asked("create_flow_run_from_deployment", found.id, parameters=parameters).id

    def state(self, run_id: Any) -> Any:
        return self.asked("read_flow_run", run_id).state

    def runs(self, flow: str) -> list[Any]:
        """The runs of a flow that have begun, in order."""
        from prefect.client.schemas.filters import FlowFilter

        found = self.asked("read_flow_runs", flow_filter=FlowFilter(name={"any_": [flow]}), limit=200)
        return sorted((run for run in found if run.start_time), key=lambda run: run.start_time)

    def shell(self, text: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Commands of a page, with this server's address instead of the page's, stopped at the first that fails."""
        return subprocess.run(["sh", "-e"], input=self.here(text), cwd=folder, env=os.environ | self.environment | {"PYTHONPATH": str(ROOT)}, text=True,
                              capture_output=True, timeout=600, check=False)

    def here(self, text: str) -> str:
        return text.replace("http://127.0.0.1:4200/api", self.url).replace("--port 4200", f"--port {self.port}")

    @property
    def port(self) -> int:
        return int(self.url.split(":")[2].partition("/")[0])


@contextmanager
def serving(home: Path) -> Iterator[Api]:
    """A server; whatever runs with its environment is ended in the end."""
    mark, port = f"{os.getpid()}-{home.name}-api", server._free_port()
    environment = {"PREFECT_HOME": str(home), "PREFECT_API_URL": f"http://{server.HOST}:{port}/api", "EIDETIC_TEST_MARK": mark,
                   "PREFECT_WORKER_QUERY_SECONDS": "1"}
    api = Api(environment["PREFECT_API_URL"], environment)
    started(api)
    try:
        yield api
    finally:
        ended(mark)


def started(api: Api) -> subprocess.Popen[bytes]:
    """A server process that answers, at the address and with the database of the one before it."""
    command = [sys.executable, "-m", *shlex.split(api.here(commands("operations.md", "prefect server start"))), "--no-ui", "--log-level", "ERROR"]
    process = subprocess.Popen(command, env=os.environ | api.environment, start_new_session=True)
    server._wait(process, api.url)
    return process


def ended(mark: str) -> None:
    """End what carries the mark: asked first, then killed."""
    for sign, seconds in ((signal.SIGTERM, 15), (signal.SIGKILL, 5)):
        for left in running(mark):
            with suppress(ProcessLookupError):
                os.kill(left, sign)
        end = time.monotonic() + seconds
        while running(mark) and time.monotonic() < end:
            time.sleep(0.1)


def commands(page: str, beginning: str) -> str:
    """The block of commands of a page that holds this."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return next(block for block in re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S) if beginning in block)
