"""The edge of a stage: one line for a mistake, one process at a time, nothing that outlives who started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT

STAGE = """
import sys
sys.path.insert(0, {root!r})
from tasks import _settings, _stage
def main(release=""):
    {body}
if __name__ == "__main__":
    _stage.run(main)
"""


def stage(folder: Path, body: str) -> list[str]:
    """The command of a stage `images` whose main does this."""
    (folder / "images.py").write_text(STAGE.format(root=str(ROOT), body=body))
    return [sys.executable, "images.py"]


def ended(folder: Path, body: str, *arguments: str) -> tuple[int, str]:
    done = subprocess.run([*stage(folder, body), *arguments], cwd=folder, text=True, capture_output=True, check=False)
    return done.returncode, done.stderr


def test_a_persons_mistake_is_one_line_and_no_traceback(tmp_path: Path) -> None:
    code, said = ended(tmp_path, "_settings.settings('images')")
    assert code == 1 and said.startswith("images: no params.yaml") and said.count("\n") == 1


def test_what_passes_by_itself_exits_with_75(tmp_path: Path) -> None:
    assert ended(tmp_path, "raise _settings.TryAgain('the Hub does not answer')") == (75, "images: the Hub does not answer\n")


def test_a_defect_of_ours_keeps_its_traceback(tmp_path: Path) -> None:
    code, said = ended(tmp_path, "1 / 0")
    assert code == 1 and "ZeroDivisionError" in said


def test_a_stage_that_holds_threads_still_ends_with_its_code(tmp_path: Path) -> None:
    assert ended(tmp_path, "import torch; raise _settings.UserError('no')")[0] == 1
    assert ended(tmp_path, "import torch; 1 / 0")[0] == 1
    assert ended(tmp_path, "import torch")[0] == 0


def waiting(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A stage that says so when it is at work, and then waits."""
    process = subprocess.Popen([*stage(folder, "print('at work', flush=True); import time; time.sleep(60)"), *arguments], cwd=folder, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == "at work\n"
    return process


def test_a_second_writer_is_told_who_the_first_is_and_another_release_is_not_in_its_way(tmp_path: Path) -> None:
    first = waiting(tmp_path, "v1")
    try:
        code, said = ended(tmp_path, "print('second')", "v1")
        assert code == 75 and f"process {first.pid}" in said and said.count("\n") == 1
        assert ended(tmp_path, "pass", "v2")[0] == 0
    finally:
        first.kill()
        first.communicate()
    assert ended(tmp_path, "pass", "v1")[0] == 0, "the lock outlived its holder"


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_stage_ends_at_once(tmp_path: Path, sign: signal.Signals) -> None:
    process = waiting(tmp_path)
    process.send_signal(sign)
    _, said = process.communicate(timeout=10)
    assert process.returncode == (130 if sign == signal.SIGINT else -sign)
    assert "Traceback" not in said


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has ended")
def test_a_stage_does_not_outlive_the_process_that_started_it(tmp_path: Path) -> None:
    command = stage(tmp_path, "print(__import__('os').getpid(), flush=True); import time; time.sleep(60)")
    parent = subprocess.Popen([sys.executable, "-c", f"import subprocess; subprocess.run({command!r})"], cwd=tmp_path, text=True, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    until = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()


def test_what_a_killed_process_left_half_written_is_swept_away(tmp_path: Path) -> None:
    (tmp_path / "work" / "images").mkdir(parents=True)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left, of_the_living, shard = (tmp_path / "work" / "images" / name for name in (f"a.{gone.pid}.tmp", f"b.{os.getpid()}.tmp", "c.parquet"))
    for file in (left, of_the_living, shard):
        file.write_bytes(b"")
    assert ended(tmp_path, "pass")[0] == 0
    assert [file.exists() for file in (left, of_the_living, shard)] == [False, True, True]
