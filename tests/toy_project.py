"""A project whose stages do nothing, on a map of the real one's shape: for what the flows make of stages, quickly and without torch.

Python in on/<target> is run by that stage before it writes its output: the place to plant a failure, or a long wait.
"""

import shutil
import subprocess
from pathlib import Path

from tests.conftest import ROOT

MAP = """
stages:
  inputs:
    cmd: python stage.py inputs
    always_changed: true
    outs:
    - data/inputs
  images:
    cmd: python stage.py images
    deps:
    - data/inputs/members.txt
    params:
    - images
    outs:
    - data/images
  report:
    foreach: ${releases}
    do:
      cmd: python stage.py report ${key}
      deps:
      - data/images
      - data/inputs/releases/${key}.txt
      outs:
      - reports/${key}
  warehouse:
    cmd: python stage.py warehouse
    deps:
    - data/images
    params:
    - releases
    outs:
    - data/warehouse:
        cache: false
        persist: true
"""
STAGE = """
import json, os, signal, sys, time
from pathlib import Path
import yaml

noun, *release = sys.argv[1:]
target = "@".join(sys.argv[1:])
print(f"{noun}: at work on {target}", flush=True)
hook = Path("on", target)
if hook.is_file():
    exec(hook.read_text())

def put(path, text):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)

if noun == "inputs":
    put("data/inputs/members.txt", "one")
    for name, spec in yaml.safe_load(open("params.yaml"))["releases"].items():
        put(f"data/inputs/releases/{name}.txt", json.dumps(spec))
elif noun == "report":
    put(f"reports/{release[0]}/audit.json", json.dumps({"verdict": f"{release[0]}: nothing comes back"}))
elif noun == "warehouse":
    put("findings.duckdb", "a database")
    put("data/warehouse/warehouse.txt", "current")
else:
    put(f"data/{noun}/{noun}.txt", noun)
"""
PARAMS = """releases:
  good: {model: one, revision: null}   # stands
  bad: {model: two, revision: null}
images:
  size: 3
"""


def toy_project(folder: Path) -> Path:
    """The project, not yet audited."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("dvc.yaml", MAP), ("stage.py", STAGE), ("params.yaml", PARAMS)):
        (folder / name).write_text(text)
    for name in (".dvc/config", ".gitignore"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def plant(folder: Path, target: str, code: str) -> None:
    """Have a stage do this before it writes its output."""
    (folder / "on").mkdir(exist_ok=True)
    (folder / "on" / target).write_text(code)
