"""What the flow adds to DVC where nothing is to be done: `dvc repro` against `eidetic audit`, in turns in one run; five minutes on two cores.

    python -m bench.flow [--rounds 7]

The project is one of its own: the map of dvc.yaml for two releases, every stage of which writes its files in no time, so that what
is timed is DVC and Prefect alone. Each round times, in changing order, `dvc repro`, the flow at a server that is there already, and
the flow with a server of its own; each from the start of the process to its end.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from flows import server, stages

ROOT = Path(__file__).resolve().parents[1]
RELEASES = ("v1", "v2")
DVC, FLOW = [sys.executable, "-m", "dvc", "repro"], [sys.executable, "-m", "flows.cli", "audit"]
STAGE = "import json, sys\nfrom pathlib import Path\nfor name, text in json.load(open('files.json'))[sys.argv[1]].items():\n" \
        "    Path(name).parent.mkdir(parents=True, exist_ok=True)\n    Path(name).write_text(text)\n"


def of_releases(stage: dict[str, Any], kind: str) -> list[tuple[str, str]]:
    """Release, or nothing, and path, of the deps or outs of a stage of the map."""
    listed = [path if isinstance(path, str) else next(iter(path)) for path in stage.get("do", stage).get(kind, [])]
    return [(release, path.replace("${key}", release)) for release in (RELEASES if "foreach" in stage else ("",)) for path in listed]


def files_of(read: dict[str, dict[str, Any]]) -> dict[str, dict[str, str]]:
    """What each stage writes: a file in every folder that it makes, and those in them that later stages read."""
    wanted = {path for stage in read.values() for _, path in of_releases(stage, "deps")}
    made: dict[str, dict[str, str]] = {}
    for noun, stage in read.items():
        for release, path in [*of_releases(stage, "outs"), *of_releases(stage, "metrics")]:
            inside = [other for other in wanted if other.startswith(f"{path}/")]
            names = [path] if Path(path).suffix == ".json" else [f"{other}/x" if not Path(other).suffix else other for other in [*inside, path]]
            made.setdefault(f"{noun}@{release}" if release else noun, {}).update(dict.fromkeys(names, noun))
    for release in RELEASES:
        made[f"report@{release}"][f"reports/{release}/audit.json"] = json.dumps({"verdict": f"{release}: nothing"})
    made["warehouse"][str(stages.DATABASE)] = "a database"
    return made


def project(folder: Path) -> Path:
    """The map with stages that do nothing, run once."""
    for name in ("tasks", "sql"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".dvc/config", ".gitignore", "params.yaml"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    read = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    (folder / "files.json").write_text(json.dumps(files_of(read["stages"])), encoding="utf-8")
    (folder / "stage.py").write_text(STAGE, encoding="utf-8")
    for noun, stage in read["stages"].items():
        stage.get("do", stage)["cmd"] = f"python stage.py {noun}{'@${key}' if 'foreach' in stage else ''}"
    (folder / "dvc.yaml").write_text(yaml.safe_dump(read, sort_keys=False), encoding="utf-8")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    run(DVC, folder)
    idle = run(DVC, folder).stdout
    if re.findall(r"Running stage '(.+)':", idle) != ["inputs"]:
        raise RuntimeError(f"a second run finds work to do: {idle}")
    return folder


def run(command: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command in the folder, in a process of its own; raises CalledProcessError where it fails."""
    environment = stages.environment() | {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.run(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)


def timed(command: list[str], folder: Path, **variables: str) -> float:
    """Seconds from the start of the command to its end."""
    start = time.perf_counter()
    run(command, folder, **variables)
    return time.perf_counter() - start


def measured(folder: Path, url: str, home: str, n_rounds: int) -> dict[str, list[float]]:
    """Seconds of each way, round by round; the first round is not counted: Prefect makes its database, Python its bytecode."""
    ways: dict[str, tuple[list[str], dict[str, str]]] = {
        "dvc repro": (DVC, {}), "the flow": (FLOW, {"PREFECT_API_URL": url}), "... with its own server": (FLOW, {"PREFECT_HOME": home})}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(n_rounds + 1):
        for way in list(ways) if number % 2 else reversed(ways):
            command, variables = ways[way]
            took = timed(command, folder, **variables)
            seconds[way] += [took] if number else []
    return seconds


def main() -> None:
    """Time the three in turns and print medians, and what the flow adds to each stage."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    n_rounds = parser.parse_args().rounds
    os.environ.pop("PREFECT_API_URL", None)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        os.environ["PREFECT_HOME"] = str(Path(scratch) / "prefect")
        folder = project(Path(scratch) / "project")
        n_stages = len(json.loads((folder / "files.json").read_text(encoding="utf-8")))
        with server.api() as url:
            seconds = measured(folder, url, str(Path(scratch) / "own"), n_rounds)
    without, there, own = seconds.values()
    seconds["added to each stage"] = [(a - b) / n_stages for a, b in zip(there, without, strict=True)]
    seconds["start of its own server"] = [a - b for a, b in zip(own, there, strict=True)]
    for name, values in seconds.items():
        print(f"{name:<24} median {statistics.median(values):6.2f} s, {min(values):.2f} to {max(values):.2f}; {n_rounds} rounds, {n_stages} stages")


if __name__ == "__main__":
    main()
