"""How stages are run, on a toy project: what failed is said in one line, nothing outlives who started it, cut files are mended."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from flows import stages
from tasks._settings import TryAgain, UserError
from tests.conftest import ROOT, at_work, reproduced, running, until
from tests.toy_project import plant, toy_project

ONLY_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has ended")
DVC = [sys.executable, "-m", "dvc"]
HOLD_LOCK = "from dvc.repo import Repo\nrepo = Repo()\nrepo.lock.lock()\nprint('held', flush=True)\nimport time; time.sleep(60)"
RUN = "from flows import stages\nstages.reproduced('images', print)"
AUDITED = ["inputs", "images", "report@good", "report@bad", "warehouse"]


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The toy project with its inputs listed, and audited."""
    folder = toy_project(tmp_path_factory.mktemp("toys") / "listed")
    reproduced(folder, "inputs")
    audited = Path(shutil.copytree(folder, folder.with_name("audited"), symlinks=True))
    reproduced(audited)
    return folder, audited


@pytest.fixture
def toy(toys: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy project as the working directory, its inputs listed."""
    folder = Path(shutil.copytree(toys[0], tmp_path / "toy", symlinks=True))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def audited_toy(toys: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy project as the working directory, audited."""
    folder = Path(shutil.copytree(toys[1], tmp_path / "toy", symlinks=True))
    monkeypatch.chdir(folder)
    return folder


def test_the_stages_of_an_audit_are_the_maps_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    first, last = stages.shared_targets(), stages.release_targets("x")
    assert first == ["inputs", "images", "image_embeddings", "duplicates", "prompts", "reviews"]
    assert last[0] == "screening@x" and last[-1] == "keep_list@x" and "warehouse" not in [*first, *last]
    assert stages.last_targets("x") == ["report@x"], "it says how the release compares"
    assert stages.targets(["x", "y"]) == [*first, *last, *stages.release_targets("y"), "warehouse", "report@x", "report@y"]


def test_a_stage_runs_once_and_all_that_it_says_is_passed_on_without_dvcs_hints(toy: Path) -> None:
    lines: list[str] = []
    assert stages.reproduced("images", lines.append)
    assert lines == ["Running stage 'images':", "> python stage.py images", "images: at work on images"]
    assert not stages.reproduced("images", lines.append)
    assert "Stage 'images' didn't change, skipping" in lines


FAILURES = {  # what the stage does: which kind of error it is, and all that a person is told
    "print('images: picture 7 of 9'); print('images: no folder x; name one', file=sys.stderr); sys.exit(1)": (UserError, "no folder x; name one"),
    "print('images: the Hub does not answer', file=sys.stderr); sys.exit(75)": (TryAgain, "the Hub does not answer"),
    "print('images: picture 7 of 9'); 1 / 0": (UserError, "ZeroDivisionError: division by zero; what led to it is in the lines above"),
    "print('images: picture 7 of 9', flush=True); os.kill(os.getpid(), 9)": (
        stages.Killed, "the stage was killed, as systems do when memory runs out; run it again, what is finished is kept"),
    "print('images: picture 7 of 9'); sys.exit(0)": (UserError, "failed to reproduce 'images': output 'data/images' does not exist"),
}


@pytest.mark.parametrize(("code", "kind", "told"), [(code, *rest) for code, rest in FAILURES.items()])
def test_what_went_wrong_in_a_stage_is_said_in_one_line_and_never_mistaken_for_its_progress(toy: Path, code: str, kind: type, told: str) -> None:
    plant(toy, "images", code)
    with pytest.raises(UserError) as caught:
        stages.reproduced("images", lambda _line: None)
    assert type(caught.value) is kind and str(caught.value) == f"images: {told}"


def test_a_failure_of_one_release_names_it(toy: Path) -> None:
    stages.reproduced("images", lambda _line: None)
    plant(toy, "report@bad", "print('report: it is refused', file=sys.stderr); sys.exit(1)")
    with pytest.raises(UserError, match="^report@bad: it is refused$"):
        stages.reproduced("report@bad", lambda _line: None)


def test_a_map_that_cannot_be_read_is_dvcs_own_line(toy: Path) -> None:
    (toy / "dvc.yaml").write_text("stages:\n  images:\n    comand: x\n")
    with pytest.raises(UserError, match="^images: .*dvc.yaml.* validation failed") as caught:
        stages.reproduced("images", lambda _line: None)
    assert "\n" not in str(caught.value)


def test_a_stage_that_another_dvc_runs_is_not_run_twice_and_its_holder_is_named(toy: Path) -> None:
    plant(toy, "images", "time.sleep(60)")
    with at_work([*DVC, "repro", "-s", "images"], toy, says="at work on images") as other:
        for told, call in (("images", lambda: stages.reproduced("images", print)), ("status", stages.status)):
            with pytest.raises(TryAgain) as caught:
                call()
            assert str(caught.value) == f"{told}: process {other.pid} (dvc repro -s images) is at work; wait for it or stop it"


def test_a_repository_that_another_dvc_command_has_locked_is_said_to_be(toy: Path) -> None:
    with at_work([sys.executable, "-c", HOLD_LOCK], toy, says="held"), pytest.raises(TryAgain, match="holds the repository's lock"):
        stages.reproduced("images", lambda _line: None)


@ONLY_LINUX
@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])  # dash waits between dvc and the stage, bash becomes the stage
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_whatever_ends_the_process_that_runs_a_stage_ends_dvc_and_the_stage(toy: Path, sign: signal.Signals, shell: str) -> None:
    plant(toy, "images", f"sys.path.insert(0, {str(ROOT)!r})\nfrom tasks import _stage\n_stage._die_with_parent()\ntime.sleep(60)")
    mark = f"{os.getpid()}-{sign.name}-{Path(shell).name}"
    with at_work([sys.executable, "-uc", RUN], toy, says="at work on images", EIDETIC_TEST_MARK=mark, SHELL=shell) as process:
        assert until(lambda: len(running(mark)) >= 3, 10)
        time.sleep(0.5)  # the stage has told the kernel
        process.send_signal(sign)
        assert until(lambda: not running(mark), 10), running(mark)
    plant(toy, "images", "")
    stages.mended()
    assert stages.reproduced("images", lambda _line: None), "a lock or half an output was left"


def test_a_stage_that_is_deaf_to_interrupts_is_killed(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(toy, "images", "signal.signal(signal.SIGINT, signal.SIG_IGN); print(os.getpid(), flush=True); time.sleep(60)")
    monkeypatch.setattr(stages, "SECONDS_TO_STOP", 0.5)
    found = []

    def stop(line: str) -> None:
        if line.isdigit():
            found.append(int(line))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stages.reproduced("images", stop)
    assert until(lambda: not is_alive(found[0]), 10)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    return not state.is_file() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def test_stages_find_this_python_where_no_environment_is_activated(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    plant(toy, "images", "print(sys.prefix)")
    lines: list[str] = []
    stages.reproduced("images", lines.append)
    assert sys.prefix in lines


def test_nothing_is_stale_after_an_audit_and_a_change_is_told_with_all_that_follows_from_it(audited_toy: Path) -> None:
    assert stages.stale(stages.status(), ["good", "bad"]) == {}
    params = Path("params.yaml")
    params.write_text(params.read_text().replace("size: 3", "size: 4"))
    said = stages.status()
    assert said == {"images": ["params.yaml: images changed"]}
    told = stages.stale(said, ["good"])
    assert list(told) == ["images", "report@good", "warehouse"] and told["report@good"] == ["after images"]


def test_a_stage_that_was_never_run_and_an_output_deleted_by_hand_are_told_apart(audited_toy: Path) -> None:
    (audited_toy / "reports" / "good" / "audit.json").unlink()
    params = Path("params.yaml")
    params.write_text(params.read_text().replace("images:", "  new: {model: three}\nimages:"))
    said = stages.status()
    assert said["report@new"] == ["never run"]
    assert "reports/good" in said["report@good"][0] and "warehouse" in said and "report@bad" not in said


def test_an_output_deleted_by_hand_is_taken_from_the_cache(audited_toy: Path) -> None:
    for file in ("reports/good/audit.json", "data/images/images.txt"):
        Path(file).unlink()
    assert not any(stages.reproduced(target, lambda _line: None) for target in ("images", "report@good"))
    assert Path("reports/good/audit.json").is_file() and Path("data/images/images.txt").is_file()


def test_a_database_deleted_by_hand_is_built_again(audited_toy: Path) -> None:
    assert not stages.reproduced("warehouse", lambda _line: None)
    stages.DATABASE.unlink()
    assert stages.reproduced("warehouse", lambda _line: None) and stages.DATABASE.is_file()


def test_a_lock_file_cut_at_any_place_is_set_aside_or_holds_only_what_was_so(audited_toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA

    monkeypatch.setattr(stages, "SECONDS_TO_WRITE", 0.0)
    whole = stages.LOCK.read_text()
    entries = {(name, kind, entry["path"], entry.get("md5")) for name, stage in yaml.safe_load(whole)["stages"].items()
               for kind in ("deps", "outs") for entry in stage.get(kind, [])}
    assert stages.mended() == []
    for end in range(len(whole)):
        stages.LOCK.write_text(whole[:end])
        if stages.mended():
            assert not stages.LOCK.exists()
            continue
        kept = yaml.safe_load(stages.LOCK.read_text())
        COMPILED_LOCKFILE_SCHEMA(kept)
        found = {(name, kind, entry["path"], entry.get("md5")) for name, stage in (kept.get("stages") or {}).items()
                 for kind in ("deps", "outs") for entry in stage.get(kind) or []}
        assert found <= entries, whole[:end][-200:]


@pytest.mark.parametrize("left", [0, 40, -60])
def test_after_a_cut_lock_file_nothing_is_computed_again(audited_toy: Path, left: int) -> None:
    whole = stages.LOCK.read_bytes()
    stages.LOCK.write_bytes(whole[:left])
    assert [line.split(";")[0] for line in stages.mended()] == ["dvc.lock was cut short"]
    assert (audited_toy / "dvc.lock.broken").read_bytes() == whole[:left]
    ran = [target for target in AUDITED if stages.reproduced(target, lambda _line: None)]
    assert ran == ["inputs", "warehouse"]  # warehouse is no work of DVC's cache
    assert yaml.safe_load(stages.LOCK.read_text()) == yaml.safe_load(whole)


def test_dvcs_list_of_busy_paths_is_removed_where_it_was_cut_and_kept_where_it_is_whole(toy: Path) -> None:
    stages.BUSY_PATHS.write_text('{"data/images": {"wri')
    assert stages.mended() == [f"{stages.BUSY_PATHS} was cut short and is removed"]
    assert stages.reproduced("images", lambda _line: None)
    assert stages.BUSY_PATHS.is_file() and stages.mended() == []


@ONLY_LINUX
def test_a_process_that_ended_and_that_nobody_waited_for_does_not_keep_paths_busy(toy: Path) -> None:
    ended, alive = subprocess.Popen(["true"]), subprocess.Popen(["sleep", "60"])
    try:
        entries = [{"pid": process.pid, "cmd": "dvc repro -s images"} for process in (ended, alive)]
        paths = {str(toy / "data" / "images"): {"write": entries[0]}, str(toy / "data" / "inputs"): {"read": [entries[1]]}}
        assert until(lambda: stages._state(ended.pid) == "Z", 10)
        stages.BUSY_PATHS.write_text(json.dumps(paths))
        assert stages.mended() == [] and stages.BUSY_PATHS.is_file()
        alive.kill()
        assert until(lambda: stages._state(alive.pid) == "Z", 10)
        assert stages.mended() == [f"{stages.BUSY_PATHS} named only processes that have ended, and is removed"]
        assert stages.reproduced("images", lambda _line: None)
    finally:
        alive.kill()
        ended.wait()
        alive.wait()


def test_a_lock_file_that_another_dvc_is_just_writing_is_left_alone(audited_toy: Path) -> None:
    whole = stages.LOCK.read_text()
    stages.LOCK.write_text(whole[:100])
    writer = threading.Timer(0.1, lambda: stages.LOCK.write_text(whole))
    writer.start()
    assert stages.mended() == [] and stages.LOCK.read_text() == whole
    writer.join()
