"""Audits that are killed at random moments: nothing stays behind, and the next run ends in the bytes of one that was left alone."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import other_project, running, until

N_KILLS = int(os.environ.get("EIDETIC_TEST_KILLS", "5"))
SECONDS_TO_DIE = 60.0  # that is what a loaded machine takes: a killed stage still has the flow end by itself
LONGEST_WAIT = 8.0
BEGUN = "Beginning flow run"
RESULTS = ("data", "reports", "metrics.json", "dvc.lock")
TOLD = Path("data/watch")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")


def results(folder: Path) -> dict[str, bytes]:
    """Every file an audit leaves, less the history and what was told of it (they hold the time) and the database (whose bytes differ at every build)."""
    files = [f for name in RESULTS for f in ([folder / name] if (folder / name).is_file() else sorted((folder / name).rglob("*"))) if f.is_file()]
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in files if folder / TOLD not in f.parents}


def audit(folder: Path, mark: str) -> subprocess.Popen[bytes]:
    """`eidetic audit` in the folder."""
    environment = os.environ | {"EIDETIC_TEST_MARK": mark, "PREFECT_HOME": str(folder / ".prefect"), "DO_NOT_TRACK": "1"}
    log = (folder / "audit.log").open("wb")
    return subprocess.Popen([sys.executable, "-m", "flows.cli", "audit"], cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)


def victim(flow: int, mark: str, sign: signal.Signals, dice: random.Random) -> int:
    """The flow, the dvc or the stage that is at work now. DVC by itself ignores an interrupt while a stage runs."""
    alive = {} if sign == signal.SIGINT else running(mark)
    dvc = [process for process, command in alive.items() if "dvc" in command]
    stage = [process for process, command in alive.items() if any(part.startswith("tasks.") for part in command)]
    return dice.choice([dice.choice(group) for group in ([flow], dvc, stage) if group])


def has_ended(process: subprocess.Popen[bytes], mark: str) -> bool:
    """Whether the process ends in time, and all that it started."""
    return until(lambda: process.poll() is not None and not running(mark), SECONDS_TO_DIE)


def test_killed_audits_leave_nothing_behind_and_end_in_the_same_bytes(another: Path, tmp_path: Path) -> None:
    killed = other_project(tmp_path)
    dice = random.Random(7)
    for number in range(N_KILLS):
        mark = f"{os.getpid()}-{number}"
        process = audit(killed, mark)
        if dice.random() < 0.8:  # the others are killed while the server starts
            until(lambda: BEGUN in (killed / "audit.log").read_text(), 120)
        time.sleep(dice.uniform(0.0, LONGEST_WAIT))
        sign = dice.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        if process.poll() is None:
            with suppress(ProcessLookupError):  # it may have ended by itself in the meantime
                os.kill(victim(process.pid, mark, sign, dice), sign)
        ended = has_ended(process, mark)
        left = running(mark)
        process.kill()
        process.wait()
        assert ended, f"kill {number}, {sign.name}: {left}\n{(killed / 'audit.log').read_text()[-3000:]}"
    last = audit(killed, f"{os.getpid()}-last")
    assert last.wait(600) == 0, (killed / "audit.log").read_text()[-3000:]
    assert not running(f"{os.getpid()}-last")
    assert results(killed) == results(another)
    assert len(list((killed / "audits").iterdir())) == 1
    assert not [file for place in (".", "work/**", "data/**", "reports/**", "audits/**") for file in killed.glob(f"{place}/*.tmp")]
