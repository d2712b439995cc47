"""Tiny data made in the test; the example audited once for those tests that hold it to the truth."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
os.environ.update({
    "DVC_NO_ANALYTICS": "true", "GX_ANALYTICS_ENABLED": "false", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
    "OMP_WAIT_POLICY": "PASSIVE", "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
})


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
    names = ["tasks", "flows", "sql", ".dvc/config", ".dvcignore", ".gitignore", "dvc.yaml", "params.yaml", "pyproject.toml"]
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


@pytest.fixture(scope="session")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded example, audited from nothing by `dvc repro` in a folder of its own."""
    folder = copied_project(tmp_path_factory.mktemp("example"), with_example=True)
    (folder / "dvc.lock").unlink(missing_ok=True)
    (folder / "printed.txt").write_text(reproduced(folder))
    return folder
