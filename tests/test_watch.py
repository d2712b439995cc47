"""New releases audited by themselves: the commands of docs/operations.md, a real server, a worker, a webhook's receiver.

One run of it all, with real audits: a release appears that returns its training images, which the one before it does not; then several at
once, of which one is broken, one hostile and one not whole.
"""

import json
import re
import shlex
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from flows import alerts, audits
from tasks import _database
from tests.conftest import ROOT, at_work, copied_project, eidetic, reproduced, until
from tests.prefect_server import Api, commands, serving
from tests.test_audit import copy_with_one_value_changed, rates

EXAMPLE_HOOK = "https://hooks.example.com/services/T0/B0/secret"
EXAMPLE = ROOT / "example"
SAMPLED = {"n_steps": 6, "guidance_scale": 3.0}
SECONDS = 2000  # of an audit on a machine that has little time for it
pytestmark = pytest.mark.timeout(2 * SECONDS)


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


def of_the_example(folder: Path) -> Path:
    """A project of 12 clusters of the example that v1 returns and v2 does not, of 3 copies each, and of 8 single images; v2 is audited."""
    copied_project(folder)
    rate, listed = rates("v1"), pq.read_table(EXAMPLE / "prompts.parquet", filters=[("arm", "==", "duplicated"), ("caption_rank", "==", 0)]).to_pylist()
    returned = [prompt["caption"] for prompt in sorted(listed, key=lambda prompt: -rate[prompt["prompt_id"]])[:12]]
    assert min(rate[prompt["prompt_id"]] for prompt in listed if prompt["caption"] in returned) > 0.9
    wanted = dict.fromkeys(returned, 3)
    lines = ["file_name,caption"]
    (folder / "pictures").mkdir()
    for i, row in enumerate(pq.read_table(EXAMPLE / "training_set" / "members.parquet").to_pylist()):
        if row["caption"] not in wanted and len(wanted) < 20:
            wanted[row["caption"]] = 1
        if wanted.get(row["caption"], 0):
            wanted[row["caption"]] -= 1
            (folder / "pictures" / f"{i}.png").write_bytes(row["image"]["bytes"])
            lines.append(f'{i}.png,"{row["caption"]}"')
    (folder / "pictures" / "metadata.csv").write_text("\n".join(lines) + "\n")
    shutil.copytree(EXAMPLE / "releases" / "v2", folder / "my-model")
    params = yaml.safe_load((folder / "params.yaml").read_text()) | {"watch": {"folders": ["releases"], "hub": [], "settings": SAMPLED}}
    params["training_set"] = {"members": {"format": "image_folder", "path": "pictures"}, "held_out": None}
    params["releases"] = {"v2": {"model": "my-model", "revision": None} | SAMPLED}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False) + "# the end\n")
    reproduced(folder)
    return folder


@pytest.fixture(scope="module")
def project(api: Api, hook: Hook, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An audited project, deployed, its worker at work, an empty folder of releases watched; a look every 90 seconds instead of 10 minutes."""
    folder = of_the_example(tmp_path_factory.mktemp("watched") / "project")
    (folder / "releases").mkdir()
    (folder / "prefect.yaml").write_text((folder / "prefect.yaml").read_text().replace("interval: 600", "interval: 90"))
    done = api.shell(commands("operations.md", "prefect --no-prompt deploy").replace(EXAMPLE_HOOK, hook.url), folder)
    assert done.returncode == 0, done.stdout + done.stderr
    *_, start = commands("operations.md", "prefect worker start").splitlines()
    with at_work(shlex.split(start), folder, says="started!", **api.environment):
        yield folder


def said(folder: Path) -> str:
    return (folder / "said.txt").read_text()[-4000:]


def current(folder: Path) -> set[str]:
    return {row["release"] for row in _database.rows(folder / "findings.duckdb", "from releases where status = 'current'").to_pylist()}


def compared(project: Path, release: str) -> dict[str, Any]:
    """What became of all targets since the release before it."""
    query = f"from comparisons where release = '{release}' and kind = 'previous' and arm = 'all'"
    return dict(_database.rows(project / "findings.duckdb", query).to_pylist()[0])


def test_a_third_release_is_audited_compared_and_told_of(api: Api, hook: Hook, project: Path) -> None:
    before = (project / "params.yaml").read_text()
    copy_with_one_value_changed(EXAMPLE / "releases" / "v1", project / "releases" / "v3")
    assert until(lambda: bool(hook.of(audits.REGRESSED, "v3")), SECONDS), said(project)
    row = compared(project, "v3")
    assert (row["against"], row["outcome"]) == ("v2", "worse") and row["low"] > 0 and row["n_only_later"] >= 10 and "v3" in current(project)
    verdict = json.loads((project / "reports" / "v3" / "audit.json").read_text())["verdict"]
    assert hook.of(audits.FINISHED, "v3") == [f"{verdict}; compared to v2: {audits._in_words(row)}"]
    text = hook.of(audits.REGRESSED, "v3")[0]
    assert text.startswith(f"v3 is worse than v2: {audits._in_words(row)}; duplicated: worse, +") and "95 % interval +" in text
    assert re.search(r"; came back only now: \d+\.png, ", text), text
    entry = "  v3: {model: releases/v3, revision: null, n_steps: 6, guidance_scale: 3.0}\n"
    assert (project / "params.yaml").read_text() == before.replace("images:\n", f"{entry}images:\n", 1)
    assert any(not run.auto_scheduled for run in api.runs("watch")), "what was noted is looked at again soon, not at the next scheduled look"
    done = api.shell(commands("operations.md", "deployment run watch/watch").replace("v1", "v3"), project)
    assert done.returncode == 0, done.stdout + done.stderr


def test_of_several_at_once_each_is_audited_alone_and_the_broken_and_the_hostile_are_told_of_once(api: Api, hook: Hook, project: Path) -> None:
    models = project / "releases"
    for name in ("1e3", "w1", "x-broken", "y-hostile", "z-half"):
        copy_with_one_value_changed(project / "my-model", models / name)
    for name, place, value in (("1e3", -8, 1), ("w1", -12, 1)):
        file = sorted((models / name / "unet").glob("*.safetensors"))[0]
        weights = bytearray(file.read_bytes())
        weights[place] ^= value
        file.write_bytes(weights)
    file = sorted((models / "x-broken" / "unet").glob("*.safetensors"))[0]
    file.write_bytes(file.read_bytes()[:1000])
    (models / "y-hostile" / "unet" / "weights.bin").write_bytes(b"\x80\x02")
    shutil.rmtree(models / "z-half" / "vae")
    assert until(lambda: bool(hook.of(audits.FINISHED, "1e3") and hook.of(audits.FINISHED, "w1")), SECONDS), said(project)
    assert {"1e3", "w1"} <= current(project)
    assert (compared(project, "1e3")["against"], compared(project, "1e3")["outcome"]) == ("v3", "better")
    assert "compared to v3: better, -" in hook.of(audits.FINISHED, "1e3")[0]
    assert "compared to 1e3: " in hook.of(audits.FINISHED, "w1")[0], "which has been audited by then"
    for _ in range(2):
        look = api.run("watch/watch")
        assert until(lambda look=look: api.state(look).is_final(), 240, every=1)
    refused = [hook.of(audits.REFUSED, f"releases/{name}") for name in ("x-broken", "y-hostile", "z-half")]
    assert list(map(len, refused)) == [1, 1, 1] and not hook.of(audits.FAILED), hook.got
    assert "unet/weights.bin is a pickled" in refused[1][0] and "vae of model_index.json has no folder; the folder is not whole" in refused[2][0]
    assert [len(hook.of(audits.FINISHED, name)) for name in ("v3", "1e3", "w1")] == [1, 1, 1] and len(hook.of(audits.REGRESSED)) == 1
    runs = [run for run in api.runs("audit") if run.state.is_completed()]
    assert [run.parameters["releases"] for run in runs].count(["1e3"]) == 1 == [run.parameters["releases"] for run in runs].count(["w1"])
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
    assert until(lambda: bool(hook.of(audits.REGRESSED, "v9")), 60)
    assert hook.of(audits.REGRESSED, "v9") == [text], "what a text holds is never a template"
    assert not hook.of(audits.FINISHED, "v9")
