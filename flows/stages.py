"""The stages of dvc.yaml as DVC runs them: one process group each, nothing left behind, what DVC itself cannot mend mended first."""

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from tasks._settings import TryAgain, UserError

MAP = Path("dvc.yaml")
LOCK = Path("dvc.lock")
BUSY_PATHS = Path(".dvc") / "tmp" / "rwlock"
DATABASE = Path("findings.duckdb")
TEMPORARY_FAILURE = 75  # EX_TEMPFAIL: nothing to mend, try again
DIGEST = re.compile(r"[0-9a-f]{32}(\.dir)?")
HINTS = re.compile(r"(Generating|Updating) lock file|To track the changes with git|\tgit add|To enable auto staging|\tdvc config|Use `dvc push`")
HOLDER = re.compile(r"\s*\(PID (\d+)\): \S+(.*)")
SECONDS_TO_STOP = 4.0
SECONDS_TO_WRITE = 0.5  # more than DVC takes for a file of its own
N_LINES_KEPT = 40


class Killed(UserError):
    """A stage that was killed from outside: by whoever may, or for want of memory. What is finished is kept."""


def stages() -> dict[str, dict[str, Any]]:
    """The stages of dvc.yaml in run order; those of each release once, with `foreach`."""
    read: dict[str, dict[str, Any]] = yaml.safe_load(MAP.read_text(encoding="utf-8"))["stages"]
    return read


def targets(releases: list[str]) -> list[str]:
    """DVC's names of the stages of an audit of these releases, in run order."""
    of_releases = (target for release in releases for target in release_targets(release))
    return [*shared_targets(), *of_releases, "warehouse", *(target for release in releases for target in last_targets(release))]


def shared_targets() -> list[str]:
    """Stages that all releases share and that come before them."""
    return [noun for noun, stage in stages().items() if "foreach" not in stage and noun != "warehouse"]


def release_targets(release: str) -> list[str]:
    """Stages of one release that come before the warehouse, in run order."""
    return [target for target in _of_release(release) if target not in last_targets(release)]


def last_targets(release: str) -> list[str]:
    """Stages of one release that come after the warehouse: they read what it says of releases beside each other."""
    nouns = list(stages())
    return [target for target in _of_release(release) if nouns.index(target.partition("@")[0]) > nouns.index("warehouse")]


def _of_release(release: str) -> list[str]:
    return [f"{noun}@{release}" for noun, stage in stages().items() if "foreach" in stage]


def reproduced(target: str, say: Callable[[str], None]) -> bool:
    """Run `dvc repro` for one stage alone, each line it prints given to say; whether the stage ran.

    DVC gets a session of its own, so that it and the stage can be ended together, and dies with this process (Linux).
    Raises UserError with the stage's complaint, TryAgain where it exited with 75 or another process is at work.
    """
    forced = ["--force"] if target == "warehouse" and not DATABASE.is_file() else []  # the database is no out of DVC's
    lines: deque[str] = deque(maxlen=N_LINES_KEPT)
    has_run = False
    process = _dvc("repro", "--single-item", *forced, target)
    try:
        for line in _lines(process):
            lines.append(line)
            has_run |= line.startswith("Running stage ")
            say(line)
        code = process.wait()
    finally:
        _end(process)
    if code:
        raise _failure(target, list(lines))
    return has_run


def status() -> dict[str, list[str]]:
    """Stages whose outputs are not what dvc.lock says, with reasons; downstream stages are not followed. `inputs` is left out."""
    process = _dvc("status", "--json")
    try:
        printed, _ = process.communicate()
    finally:
        _end(process)
    found = next((line for line in reversed(printed.splitlines()) if line.startswith("{")), None)
    if process.returncode or found is None:
        raise _failure("status", printed.splitlines())
    known = (yaml.safe_load(LOCK.read_text(encoding="utf-8")) or {}).get("stages", {}) if LOCK.is_file() else {}
    return {target: _reasons(changes) if target in known else ["never run"] for target, changes in json.loads(found).items() if target != "inputs"}


def stale(changed: dict[str, list[str]], releases: list[str]) -> dict[str, list[str]]:
    """What an audit of these releases would run, in order, with reasons: what changed, and all that reads what they make.

    Only `inputs`, which always runs, is left out.
    """
    made: dict[str, list[str]] = {}
    for target in targets(releases):
        noun, _, release = target.partition("@")
        stage = stages()[noun]
        reads = {dep.split("/")[1] for dep in stage.get("do", stage).get("deps", []) if dep.startswith("data/")}
        above = [t for t in made if t.partition("@")[0] in reads and (not release or t.partition("@")[2] in ("", release))]
        if target in changed or above:
            made[target] = changed.get(target) or [f"after {above[0]}"]
    return made


def mended() -> list[str]:
    """Mend what a kill in mid-write leaves of DVC's own files; one line for each that was mended.

    Without dvc.lock nothing is lost: DVC knows by its run cache what has been computed and checks it out.
    """
    said = []
    if _is_cut(LOCK, _is_whole_lock):
        os.replace(LOCK, LOCK.with_suffix(".lock.broken"))
        said.append(f"{LOCK} was cut short; it is kept as {LOCK}.broken, and what was computed is taken from DVC's cache")
    if _is_cut(BUSY_PATHS, _is_json):
        BUSY_PATHS.unlink()
        said.append(f"{BUSY_PATHS} was cut short and is removed")
    elif BUSY_PATHS.is_file() and {_state(int(number)) for number in re.findall(r'"pid": (\d+)', BUSY_PATHS.read_text())} in ({"Z"}, {"Z", ""}):
        BUSY_PATHS.unlink()  # for DVC, a process that nobody has waited for is alive: in a container that may be so for ever
        said.append(f"{BUSY_PATHS} named only processes that have ended, and is removed")
    return said


def _state(process: int) -> str:
    """The letter of a process's state in /proc, Z for one that has ended and that nobody has waited for; nothing where there is none."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _is_cut(path: Path, is_whole: Callable[[str], bool]) -> bool:
    """Whether a file is there, is not whole and stays so: another DVC may be writing it now."""
    for seconds in (SECONDS_TO_WRITE, 0.0):
        if not path.is_file() or is_whole(path.read_text(encoding="utf-8", errors="replace")):
            return False
        time.sleep(seconds)
    return True


def die_with_parent() -> Callable[[], None] | None:
    """For a child process before it starts: the kernel ends it when this one ends, however that happens (Linux)."""
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def bind() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # shells start background jobs deaf to it
        prctl(1, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)  # the parent was gone before the kernel knew

    return bind


def environment() -> dict[str, str]:
    """This process's, with this Python first in PATH: the stages' `python` must be the one that has Eidetic."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "true", "PYTHONUNBUFFERED": "1"}


def _dvc(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "dvc", *arguments], text=True, errors="replace", stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, env=environment(),
                            preexec_fn=die_with_parent())


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    yield from (line.rstrip() for line in process.stdout if line.strip() and not HINTS.match(line))


def _end(process: subprocess.Popen[str]) -> None:
    """End what is left of the process and its group: asked first, so that DVC gives up its locks, then killed."""
    if process.poll() is None:
        for sign in (signal.SIGINT, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, sign)
            with suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS_TO_STOP)
                break
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _failure(target: str, lines: list[str]) -> UserError:
    """What went wrong, from what was printed: the stage's own complaint where it is the last it said, else its exception or DVC's error."""
    at = next((i for i in reversed(range(len(lines))) if lines[i].startswith("ERROR: ")), len(lines))
    said = lines[at].removeprefix("ERROR: ") if at < len(lines) else lines[0] if lines else "no output"
    if "is busy" in said:
        holder = next(filter(None, map(HOLDER.match, lines[at:])), None)
        return TryAgain(f"{target}: {f'process {holder[1]} (dvc{holder[2]})' if holder else 'another process'} is at work; wait for it or stop it")
    if "Unable to acquire lock" in said:
        return TryAgain(f"{target}: another DVC command holds the repository's lock; try again when it has ended")
    exited = re.search(r"exited with (-?\d+)$", said)
    code, noun, last = int(exited[1]) if exited else 0, target.partition("@")[0], lines[at - 1] if at else ""
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return Killed(f"{target}: the stage was killed, as systems do when memory runs out; run it again, what is finished is kept")
    if code > 0 and last.startswith(f"{noun}: "):
        said = last.removeprefix(f"{noun}: ")
    elif code == 1:
        said = f"{last or said}; what led to it is in the lines above"
    return (TryAgain if code == TEMPORARY_FAILURE else UserError)(f"{target}: {said}")


def _reasons(changes: list[Any]) -> list[str]:
    """DVC's status of one stage in words."""
    said = []
    for change in changes:
        if isinstance(change, str):
            said.append(change)
            continue
        for kind, paths in change.items():
            said += [f"{path} {how}" if isinstance(how, str) else f"{path}: {', '.join(how)} changed" for path, how in paths.items()
                     ] if isinstance(paths, dict) else [kind]
    return said


def _is_whole_lock(text: str) -> bool:
    """Whether dvc.lock can be what DVC wrote: it is not written beside its place, so a kill may leave its first half."""
    if not text.endswith("\n"):
        return False
    try:
        read = yaml.safe_load(text)
    except yaml.YAMLError:
        return False
    return isinstance(read, dict) and "schema" in read and isinstance(read.get("stages", {}), dict) and all(
        map(_is_whole_stage, read.get("stages", {}).values()))


def _is_whole_stage(stage: object) -> bool:
    """Whether a stage of dvc.lock has its command, and files and settings where it has a place for them."""
    if not isinstance(stage, dict) or not isinstance(stage.get("cmd"), str):
        return False
    files, settings = [stage.get(kind, []) for kind in ("deps", "outs")], stage.get("params", {})
    return all(isinstance(listed, list) and all(map(_is_whole_entry, listed)) for listed in files) and isinstance(settings, dict) and all(
        isinstance(block, dict) for block in settings.values())


def _is_whole_entry(entry: object) -> bool:
    """Whether a file of dvc.lock has its path and the whole of its digest."""
    return isinstance(entry, dict) and isinstance(entry.get("path"), str) and bool(DIGEST.fullmatch(str(entry.get("md5"))))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
