"""The commands for running unattended; tests/test_operations.py runs them on an audit, tests/test_watch.py with a server."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows import audits, cli, unattended, watched
from tasks import _tables
from tasks._settings import UserError
from tests.conftest import eidetic

PLACES = {"organisations": [], "places": {
    "releases/v2": {"status": "listed", "name": "v2", "digest": "0", "reason": None, "mark": "1", "at": "2026-01-01T00:00:00.000+00:00"},
    "releases/bad": {"status": "refused", "name": None, "digest": None, "reason": "a.bin is a pickle", "mark": "2", "at": "2026-01-01T00:00:00.000+00:00"}}}


def test_what_is_known_is_said_in_a_line_each_without_a_look(in_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _tables.put_text(json.dumps(PLACES), watched.MEMORY)
    _tables.put_text(json.dumps({"v2": {"failure": {"digest": "0", "reason": "screening@v2: it cannot be loaded"}}}), audits.MEMORY)
    monkeypatch.setattr("sys.argv", ["eidetic", "watch", "--status"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    assert not ended.value.code and said == [["releases/bad", "refused", "a.bin is a pickle"], ["releases/v2", "listed", "v2"],
                                             ["v2", "failed", "screening@v2: it cannot be loaded"]]


def test_a_look_that_cannot_be_is_said_and_the_next_one_follows_and_what_is_noted_is_looked_at_soon(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(_: Any) -> watched.Look:
        raise UserError("params.yaml is not valid YAML")

    assert unattended._look(broken, 600, 60) == 600 and capsys.readouterr().err == "eidetic: params.yaml is not valid YAML\n"
    assert unattended._look(lambda say: watched.Look(noted=["releases/v2"], wrong=["nowhere"]), 600, 60) == 60
    assert capsys.readouterr().err == "eidetic: nowhere\n"
    assert unattended._look(lambda say: watched.Look(noted=["releases/v2"]), 30, 60) == 30
    assert unattended._look(lambda say: watched.Look(), 600, 60) == 600


def test_without_settings_to_watch_by_it_is_said_in_one_line(in_folder: Path) -> None:
    Path("params.yaml").write_text("releases:\n  v1: {model: m}\n")
    done = eidetic(in_folder, "watch")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == "eidetic: params.yaml has no block 'watch'; copy it from the project's own params.yaml"
