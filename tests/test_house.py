"""The house notices: each rule of `make check` is broken once, in a copy, and the tool that holds it says where."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

BIN = Path(sys.executable).parent
KEPT = ("tasks", "flows", "sql", "docs", "tests", "dvc.yaml", "params.yaml", "pyproject.toml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile",
        "metrics.json", "prefect.yaml", "bench", ".dvc/config")
LAYOUT = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_layout.py")
DOCS = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_docs.py", "-k")


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the project, less the example."""
    for name in KEPT:
        source, target = ROOT / name, tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.is_file():
            shutil.copy(source, target)
    return tmp_path


def said(house: Path, *command: str) -> tuple[int, str]:
    done = subprocess.run(command, cwd=house, text=True, capture_output=True, check=False)
    return done.returncode, done.stdout + done.stderr


def edited(file: str, edit: Callable[[str], str]) -> Callable[[Path], None]:
    """A change of one file, which must change it."""

    def change(house: Path) -> None:
        before = (house / file).read_text(encoding="utf-8")
        after = edit(before)
        assert after != before
        (house / file).write_text(after, encoding="utf-8")

    return change


LONG = "\n\ndef endless() -> int:\n    \"\"\"Fifty-one lines.\"\"\"\n    n = 0\n" + "    n += 1\n" * 47 + "    return n\n"


def replaced(file: str, old: str, new: str) -> Callable[[Path], None]:
    return edited(file, lambda text: text.replace(old, new, 1))


def longer(file: str, text: str) -> Callable[[Path], None]:
    return edited(file, lambda there: there + text)


def removed(file: str) -> Callable[[Path], None]:
    return lambda house: (house / file).unlink()


IMPORTS, RUFF, MYPY, SQL = (
    (str(BIN / "lint-imports"), "--no-cache"), (str(BIN / "ruff"), "check", "--no-cache", "."), (str(BIN / "mypy"), "--cache-dir", "mypy-cache"),
    (str(BIN / "sqlfluff"), "lint", "sql/matches.sql"))
NOISE, PROMPTS = "tasks/measures/noise.py", "tasks/prompts.py"
BREACHES = {  # what is broken: how, the command that must notice, and what it must say, a pattern
    "a stage imports a stage": (replaced("tasks/matches.py", "from tasks import ", "from tasks import findings, "), IMPORTS, "tasks.matches -> tasks.findings"),
    "a measure imports pandas": (replaced(NOISE, "import numpy as np", "import numpy as np\nimport pandas"), IMPORTS, "tasks.measures.noise -> pandas"),
    "a flow imports a stage": (longer("flows/doctor.py", "\n\nfrom tasks import images\n"), IMPORTS, "flows.doctor -> tasks.images"),
    "a second file imports a heavy library": (longer("tasks/images.py", "\n\nfrom PIL import Image\n"), IMPORTS, "tasks.images -> PIL"),
    "a measure imports what no room has": (longer(NOISE, "\n\nimport sklearn\n"), LAYOUT, f"{NOISE} imports sklearn"),
    "I/O outside main": (replaced(PROMPTS, "-> str:\n", "-> str:\n    open('x')\n"), LAYOUT, rf"{PROMPTS}:\d+: normalized calls open; that is for main"),
    "a missing test file": (removed("tests/test_rates.py"), LAYOUT, "tasks/measures/rates.py has no tests/test_rates.py"),
    "a missing SQL file": (removed("sql/matches.sql"), LAYOUT, "sql/matches.sql"),
    "a column without a comment": (replaced(PROMPTS, '"Text given to the model"', '""'), LAYOUT, "column 'caption' has the comment ''"),
    "a function of 51 lines": (longer(NOISE, LONG), LAYOUT, "noise.py: endless has 51 lines"),
    "seven arguments": (longer(NOISE, "\n\ndef seven(a, b, c, d, e, f, g):\n    return a\n"), RUFF, f"PLR0913.*{NOISE}"),
    "a to-do": (longer(NOISE, "# TODO: think\n"), RUFF, f"FIX002.*{NOISE}"),
    "a type error in a measure": (longer(NOISE, "\n\ndef wrong() -> int:\n    return 'x'\n"), MYPY, NOISE),
    "SQL in upper case": (replaced("sql/matches.sql", "select", "SELECT"), SQL, "sql/matches.sql.*CP01"),
    "a setting that is not documented": (replaced("params.yaml", "  k: 5 ", "  k: 5\n  undocumented: 1 "), (*DOCS, "setting"), "undocumented"),
}


@pytest.mark.parametrize("breach", BREACHES)
def test_the_house_notices(breach: str, house: Path) -> None:
    change, command, expected = BREACHES[breach]
    change(house)
    code, told = said(house, *command)
    assert code != 0 and re.search(expected, told, re.S), told[-2000:]


def test_the_house_is_in_order(house: Path) -> None:
    """Else the breaches above would prove nothing."""
    for command in (RUFF, MYPY, IMPORTS, SQL, LAYOUT):
        code, told = said(house, *command)
        assert code == 0, told[-2000:]


def test_make_check_runs_every_tool_and_commits_run_the_same_ones_from_this_machine() -> None:
    recipe = (ROOT / "Makefile").read_text().split("\ncheck:")[1].split("\n\n")[0]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert {repo["repo"] for repo in hooks} == {"local"}
    entries = " ".join(hook["entry"] for repo in hooks for hook in repo["hooks"])
    assert all(hook["language"] == "system" for repo in hooks for hook in repo["hooks"])
    for tool in ("ruff check", "mypy", "lint-imports", "sqlfluff lint", "tests/test_layout.py"):
        assert tool in recipe and tool in entries
    assert "tests/test_docs.py" in recipe
