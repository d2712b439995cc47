"""New releases audited by themselves: the commands of docs/operations.md, a real server, a worker, a webhook's receiver.

One run of it all: a third release appears, then three at once, of which one is broken and one hostile.
"""

import json
import shlex
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import alerts, audits
from tasks import _database
from tests.conftest import at_work, eidetic, until
from tests.prefect_server import Api, commands, serving
from tests.test_audit import copy_with_one_value_changed

EXAMPLE_HOOK = "https://hooks.example.com/services/T0/B0/secret"
SECONDS = 900  # of an audit on a busy machine


@dataclass
class Hook:
    """A receiver of webhooks, and what it got."""

    url: str = ""
    got: list[dict[str, Any]] = field(default_factory=list)

    def of(self, event: str, release: str = "") -> list[str]:
        return [said["text"] for said in self.got if said["event"] == event and release in ("", said["release"])]


@pytest.fixture(scope="module")
def hook() -> Iterator[Hook]:
    made = Hook()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            made.got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    made.url = f"http://127.0.0.1:{http.server_port}/services"
    yield made
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The server, started as the page says; its port is a free one."""
    with serving(tmp_path_factory.mktemp("watch")) as served:
        yield served


@pytest.fixture(scope="module")
def project(another: Path, api: Api, hook: Hook, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An audited project, deployed, its worker at work, an empty folder of releases watched; a look every 40 seconds instead of 10 minutes."""
    folder = Path(shutil.copytree(another, tmp_path_factory.mktemp("watched") / "project", symlinks=True))
    (folder / "releases").mkdir()
    watch = {"folders": ["releases"], "hub": [], "settings": {"n_steps": 1, "guidance_scale": 1}}
    params = yaml.safe_load((folder / "params.yaml").read_text()) | {"watch": watch}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False) + "# the end\n")
    (folder / "prefect.yaml").write_text((folder / "prefect.yaml").read_text().replace("interval: 600", "interval: 40"))
    done = api.shell(commands("operations.md", "prefect --no-prompt deploy").replace(EXAMPLE_HOOK, hook.url), folder)
    assert done.returncode == 0, done.stdout + done.stderr
    *_, start = commands("operations.md", "prefect worker start").splitlines()
    with at_work(shlex.split(start), folder, says="started!", **api.environment):
        yield folder


def said(folder: Path) -> str:
    return (folder / "said.txt").read_text()[-4000:]


def current(folder: Path) -> set[str]:
    return {row["release"] for row in _database.rows(folder / "findings.duckdb", "from releases where status = 'current'").to_pylist()}


def test_a_third_release_is_audited_compared_and_told_of(api: Api, hook: Hook, project: Path) -> None:
    before = (project / "params.yaml").read_text()
    copy_with_one_value_changed(project / "my-model", project / "releases" / "v2")
    assert until(lambda: bool(hook.of(audits.FINISHED, "v2")), SECONDS), said(project)
    text = hook.of(audits.FINISHED, "v2")[0]
    verdict = json.loads((project / "reports" / "v2" / "audit.json").read_text())["verdict"]
    row = _database.rows(project / "findings.duckdb", "from comparisons where release = 'v2' and kind = 'previous' and arm = 'all'").to_pylist()[0]
    assert row["against"] == "sd-v1.5" and row["outcome"] in ("better", "worse", "no_evidence") and "v2" in current(project)
    assert text == f"{verdict}; compared to sd-v1.5: {audits._in_words(row)}" and "95 % interval" in text
    assert (project / "params.yaml").read_text() == before.replace(
        "    n_steps: 2\n", "    n_steps: 2\n  v2: {model: releases/v2, revision: null, n_steps: 1, guidance_scale: 1}\n", 1)
    done = api.shell(commands("operations.md", "deployment run watch/watch").replace("v1", "v2"), project)
    assert done.returncode == 0, done.stdout + done.stderr


def test_of_several_at_once_each_is_audited_alone_and_the_broken_and_the_hostile_are_told_of_once(api: Api, hook: Hook, project: Path) -> None:
    models = project / "releases"
    for name in ("w1", "w2", "x-broken", "y-hostile"):
        copy_with_one_value_changed(project / "my-model", models / name)
    for name, place, value in (("w1", -8, 1), ("w2", -12, 1)):
        file = sorted((models / name / "unet").glob("*.safetensors"))[0]
        weights = bytearray(file.read_bytes())
        weights[place] ^= value
        file.write_bytes(weights)
    file = sorted((models / "x-broken" / "unet").glob("*.safetensors"))[0]
    file.write_bytes(file.read_bytes()[:1000])
    (models / "y-hostile" / "unet" / "weights.bin").write_bytes(b"\x80\x02")
    assert until(lambda: bool(hook.of(audits.FINISHED, "w1") and hook.of(audits.FINISHED, "w2")), SECONDS), said(project)
    assert {"w1", "w2"} <= current(project)
    looks = len(api.runs("watch"))
    assert until(lambda: len(api.runs("watch")) > looks + 1, 240, every=2)
    assert [len(hook.of(audits.REFUSED, f"releases/{name}")) for name in ("x-broken", "y-hostile")] == [1, 1], hook.got
    assert "unet/weights.bin is a pickled" in hook.of(audits.REFUSED, "releases/y-hostile")[0] and not hook.of(audits.FAILED)
    assert [len(hook.of(audits.FINISHED, name)) for name in ("v2", "w1", "w2")] == [1, 1, 1]
    runs = [run for run in api.runs("audit") if run.state.is_completed()]
    assert [run.parameters["releases"] for run in runs].count(["w1"]) == 1 == [run.parameters["releases"] for run in runs].count(["w2"])
    turns = [at_work_of(api, run) for run in runs]
    assert all(earlier[1] <= later[0] for earlier, later in zip(turns, turns[1:], strict=False)), turns
    status = eidetic(project, "watch", "--status").stdout
    assert "refused" in status and "x-broken" in status and "y-hostile" in status


def at_work_of(api: Api, run: Any) -> tuple[Any, Any]:
    """When a run of the audit began with its first stage, and ended."""
    from prefect.client.schemas.filters import FlowRunFilter

    tasks = api.asked("read_task_runs", flow_run_filter=FlowRunFilter(id={"any_": [run.id]}))
    return min(task.start_time for task in tasks), run.end_time


def test_alerts_are_put_again_and_only_of_some_events(api: Api, hook: Hook, project: Path) -> None:
    done = api.shell(commands("operations.md", "--on audit.regressed").replace(EXAMPLE_HOOK, hook.url), project)
    assert done.returncode == 0 and "tells of audit.failed, audit.regressed" in done.stdout, done.stdout + done.stderr
    found = api.asked("read_automations_by_name", alerts.ALERTS)
    assert len(found) == 1 and found[0].trigger.expect == {"audit.failed", "audit.regressed"}
    assert len(api.asked("read_automations_by_name", alerts.ZOMBIES)) == 1
    text = "v9 is worse than v2: “much”, {{ 7 * 7 }}"
    script = f"from flows import audits\naudits.emit(audits.REGRESSED, 'v9', {text!r})\naudits.emit(audits.FINISHED, 'v9', 'x')"
    assert api.shell(f"python -c {shlex.quote(script)}", project).returncode == 0
    assert until(lambda: bool(hook.of(audits.REGRESSED)), 60)
    assert hook.of(audits.REGRESSED) == [text], "what a text holds is never a template"
    assert not hook.of(audits.FINISHED, "v9")
