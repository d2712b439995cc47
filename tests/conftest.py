"""Tiny data made in the test; the example and another model audited once for those tests that hold them to the truth."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import settings

hypothesis.settings.register_profile("no deadline", deadline=None)  # a busy machine is no mistake; time is measured in bench/
hypothesis.settings.load_profile("no deadline")
ROOT = Path(__file__).resolve().parents[1]
PREFECT_HOME = tempfile.TemporaryDirectory(prefix="eidetic-", ignore_cleanup_errors=True)  # nothing of the developer's own is touched
os.environ.pop("PREFECT_API_URL", None)
os.environ.update({
    "PREFECT_HOME": PREFECT_HOME.name, "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "true", "GX_ANALYTICS_ENABLED": "false", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
    "OMP_WAIT_POLICY": "PASSIVE", "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
})
settings.register_profile("untimed", deadline=None)  # time is measured in bench/, never asserted: a busy machine fails nothing
settings.load_profile("untimed")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def picture() -> Callable[[int], np.ndarray]:
    """[32, 32, 3] uint8, smooth and unlike that of any other number."""

    def make(number: int, side: int = 32) -> np.ndarray:
        from PIL import Image

        coarse = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))

    return make


def copied_project(folder: Path, *, with_example: bool = False) -> Path:
    """The project's committed kind of files in a new folder, less the tests, as a git repository that dvc accepts."""
    names = ["tasks", "flows", "sql", ".dvc/config", ".dvcignore", ".gitignore", "dvc.yaml", "params.yaml", "prefect.yaml", "pyproject.toml"]
    for name in names + (["example", "dvc.lock"] if with_example else []):
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "work"))
        elif source.is_file():
            shutil.copy(source, target)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def reproduced(folder: Path, *targets: str) -> str:
    """What `dvc repro` printed in the folder; the test fails with it where dvc does."""
    done = subprocess.run(["dvc", "repro", *targets], cwd=folder, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def other_project(folder: Path, *, held_out: bool = False) -> Path:
    """Another image folder and another pipeline folder, named sd-v1.5; nothing but the two top blocks is edited."""
    from PIL import Image

    copied_project(folder)
    rng = np.random.default_rng(3)
    for name, n in (("pictures", 24), ("unseen", 12)):
        (folder / name).mkdir()
        lines = ["file_name,caption"]
        for i in range(n):
            coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            for copy in range(3 if name == "pictures" and i < 4 else 1):
                Image.fromarray(coarse).resize((48, 48), Image.Resampling.BICUBIC).save(folder / name / f"{i}-{copy}.png")
                lines.append(f"{i}-{copy}.png,{name} number {i}")
        (folder / name / "metadata.csv").write_text("\n".join(lines) + "\n")
    shutil.copytree(ROOT / "example" / "releases" / "v0", folder / "my-model")
    params = yaml.safe_load((folder / "params.yaml").read_text())
    form = {"format": "image_folder"}
    params["training_set"] = {"members": form | {"path": "pictures"}, "held_out": form | {"path": "unseen"} if held_out else None}
    params["releases"] = {"sd-v1.5": {"model": "my-model", "revision": None, "n_steps": 2}}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return folder


def eidetic(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command line in the folder, in a process of its own."""
    return subprocess.run([sys.executable, "-m", "flows.cli", *words], cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
                          text=True, capture_output=True, timeout=600, check=False)


def rows_of(folder: Path, noun: str, release: str = "", side: str = "") -> list[dict[str, Any]]:
    """The rows of a stage's table in a project's folder, or of the table beside it."""
    return pq.read_table(folder / "data" / noun / release / f"{side or noun}.parquet").to_pylist()


@contextmanager
def at_work(command: list[str], folder: Path, *, says: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has said so much in <folder>/said.txt, where all that it says goes; it and what it started are ended in the end."""
    said = folder / "said.txt"
    with said.open("w") as out:
        process = subprocess.Popen(command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)} | variables, text=True, stdout=out,
                                   stderr=subprocess.STDOUT, start_new_session=True)
    try:
        assert until(lambda: says in said.read_text() or process.poll() is not None, 400) and says in said.read_text(), said.read_text()
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until(is_so: Callable[[], bool], seconds: float, every: float = 0.05) -> bool:
    """Whether it comes to be so in this time; every = seconds between looks, of which some cost a server its time."""
    end = time.monotonic() + seconds
    while not is_so() and time.monotonic() < end:
        time.sleep(every)
    return is_so()


def running(mark: str) -> dict[int, list[str]]:
    """Command lines of the living processes that carry EIDETIC_TEST_MARK=mark in their environment, by process id (Linux)."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"EIDETIC_TEST_MARK={mark}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found[int(process.name)] = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
    return {number: command for number, command in found.items() if command != [""]}  # a zombie has no command line


@pytest.fixture(scope="session")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded example, audited from nothing by `dvc repro` in a folder of its own."""
    folder = copied_project(tmp_path_factory.mktemp("example"), with_example=True)
    (folder / "dvc.lock").unlink(missing_ok=True)
    (folder / "printed.txt").write_text(reproduced(folder))
    return folder


@pytest.fixture(scope="session")
def another(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model, audited from nothing by `dvc repro`. Tests that change it take a copy."""
    folder = other_project(tmp_path_factory.mktemp("another"))
    reproduced(folder)
    return folder


@pytest.fixture
def copy_of_another(another: Path, tmp_path: Path) -> Path:
    """The other model's audit in a folder of the test's own."""
    return Path(shutil.copytree(another, tmp_path / "copy", symlinks=True))
