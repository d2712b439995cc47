"""The notebook opens on a database, answers its questions, and makes neither links nor pictures of hostile text."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks import _tables, prompts, warehouse
from tests.conftest import ROOT
from tests.tiny_audit import V1, V2, put, put_project, put_release

NOTEBOOK = ROOT / "docs" / "explore.py"
HOSTILE = "<img src=x onerror=alert(1)> [a](javascript:alert(1)) http://a.example/x.png"


@pytest.fixture
def project(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two tiny audits with hostile captions; the database is built."""
    shutil.copytree(ROOT / "sql", "sql")
    shutil.copy(NOTEBOOK, "explore.py")  # marimo writes beside it
    put_project()
    put([r | {"caption": HOSTILE} for r in _tables.read("prompts").to_pylist()], prompts.SCHEMA, "prompts")
    put_release(V1, {11})
    put_release(V2, set())
    warehouse.main()
    monkeypatch.setattr("sys.argv", ["explore.py"])
    return in_folder


def ran() -> tuple[list[Any], dict[str, Any]]:
    """What the cells show, and what they define."""
    spec = importlib.util.spec_from_file_location("explore", "explore.py")
    assert spec and spec.loader
    notebook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(notebook)
    shown, defined = notebook.app.run()
    return list(shown), dict(defined)


def test_every_cell_runs_and_the_figures_are_those_of_the_database(project: Path) -> None:
    _, defined = ran()
    assert set(defined["queries"]) == {file.stem for file in (ROOT / "sql" / "queries").glob("*.sql")}
    assert defined["release"].value in (V1, V2) and set(defined["releases"]["release"]) == {V1, V2}
    assert len(defined["answer"]) and list(defined["own_answer"].columns) == ["release", "arm", "match_type", "n"]
    assert len(defined["by_copies"]) and len(defined["judged"]) and len(defined["curve"])


def test_hostile_text_is_shown_as_text(project: Path) -> None:
    _, defined = ran()
    shown = defined["table"](defined["frame"]("select caption from prompts")).text
    assert "&lt;img src=x onerror=alert(1)&gt;" in shown and "<img" not in shown and "<a " not in shown


def test_it_is_exported_without_an_error(project: Path) -> None:
    command = [sys.executable, "-m", "marimo", "export", "html", "explore.py", "-o", "explore.html", "--no-include-code"]
    done = subprocess.run(command, text=True, capture_output=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    page = Path("explore.html").read_text(encoding="utf-8")
    assert "What came back" in page and "marimo-error" not in page and V2 in page
