"""Releases as they appear in a folder and on a Hub of our own: what is one, what it is called, what tells that it has changed."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tasks import _new_releases, _sources
from tasks._settings import UserError
from tests.conftest import ROOT

SHA = "0123456789" * 4
ASK = "import json, sys\nfrom tasks import _new_releases\nprint(json.dumps([vars(one) for one in _new_releases.on_hub(sys.argv[1])]))"
MODELS = {"acme/kettle-xl": ["model_index.json", "unet/config.json"], "acme/words": ["config.json"]}


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as is asked: /api/models?author=… and /api/models/<owner>/<name>."""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        said = [{"id": name, "sha": SHA, "siblings": [{"rfilename": file} for file in files]} for name, files in MODELS.items()]
        listed = [one for one in said if "author=acme" in query] if path == "/api/models" else None
        body: Any = next((one for one in said if path == f"/api/models/{one['id']}"), None) if listed is None else listed
        data = json.dumps({"error": "Repository not found"} if body is None else body).encode()
        self.send_response(404 if body is None else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        if body is None:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    http = HTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    thread.join()
    http.server_close()


def asked(hub: str, source: str) -> subprocess.CompletedProcess[str]:
    """The Hub's addresses are read once in a process, so that another is asked in one of its own."""
    environment = os.environ | {"HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0", "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", ASK, source], env=environment, text=True, capture_output=True, check=False)


def release(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / "unet").mkdir()
    (folder / "unet" / "weights.safetensors").write_bytes(b"one")
    return folder


def test_each_folder_with_an_index_is_a_release_called_after_it(in_folder: Path) -> None:
    for name in ("v2", "sd v1.5 (final)", "..."):
        release(in_folder / "releases" / name)
    (in_folder / "releases" / "notes").mkdir()
    (in_folder / "releases" / "latest").symlink_to("v2")
    found = _new_releases.in_folder("releases")
    assert [one.name for one in found] == ["sd-v1.5-final", "v2"] and all(_sources.NAME.fullmatch(one.name) for one in found)
    assert found[1].entry == {"model": "releases/v2", "revision": None} and not found[1].is_whole


def test_whatever_changes_in_a_folder_changes_its_mark_hidden_files_too(in_folder: Path) -> None:
    folder = release(in_folder / "v2")
    mark = lambda: _new_releases.in_folder(".")[0].mark
    marks = [mark(), mark()]
    assert marks[0] == marks[1]
    for change in (lambda: (folder / "unet" / "weights.safetensors").write_bytes(b"two!"), lambda: os.utime(folder / "model_index.json", (1, 1)),
                   lambda: (folder / ".incomplete").write_bytes(b""), lambda: (folder / ".incomplete").write_bytes(b"x"),
                   lambda: (folder / ".incomplete").unlink(), lambda: os.mkfifo(folder / "pipe"), lambda: (folder / "link").symlink_to("/nowhere")):
        change()
        marks.append(mark())
    assert len(set(marks[1:])) == len(marks) - 2 and marks[6] == marks[3], "without the hidden file it is as it was before it"


def test_a_folder_that_is_not_there_is_named(in_folder: Path) -> None:
    with pytest.raises(UserError, match=r"^watch.folders: nowhere does not exist; name a folder of releases$"):
        _new_releases.in_folder("nowhere")


def test_a_folder_that_may_not_be_read_is_named_and_one_within_it_is_no_release(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Path, **_: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(self))

    release(in_folder / "releases" / "v2")
    monkeypatch.setattr(Path, "is_dir", refused)  # as of lost+found: os.path's answer is no instead
    monkeypatch.setattr(Path, "is_file", refused)
    assert [one.name for one in _new_releases.in_folder("releases")] == ["v2"]
    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(UserError, match=r"^watch.folders: releases cannot be read: Permission denied$"):
        _new_releases.in_folder("releases")


def test_the_hub_is_asked_for_a_repositorys_commit_and_for_an_owners_pipelines(hub: str) -> None:
    expected = {"place": "acme/kettle-xl", "name": "kettle-xl-01234567", "entry": {"model": "acme/kettle-xl", "revision": SHA}, "mark": SHA, "is_whole": True}
    for source in ("acme/kettle-xl", "acme"):
        done = asked(hub, source)
        assert done.returncode == 0 and json.loads(done.stdout) == [expected], done.stderr
    assert json.loads(asked(hub, "nobody").stdout) == []


def test_a_hub_that_does_not_know_it_and_one_that_does_not_answer_are_told_apart(hub: str) -> None:
    unknown, silent = asked(hub, "acme/gone"), asked("http://127.0.0.1:9", "acme/kettle-xl")
    assert "UserError: watch.hub: acme/gone is not found" in unknown.stderr
    assert "TryAgain: watch.hub: acme/kettle-xl cannot be asked for now" in silent.stderr
