"""What is amiss is said with the way out; what is well is only named."""

from pathlib import Path

import pytest
import yaml

from flows import doctor
from tests.conftest import ROOT


@pytest.fixture
def project(in_folder: Path) -> Path:
    (in_folder / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    return in_folder


def edit(block: str, **settings: object) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    params[block] |= settings
    Path("params.yaml").write_text(yaml.safe_dump(params))


def test_one_flavour_of_faiss_is_well_two_or_none_are_not() -> None:
    assert doctor.faiss(["faiss-cpu"])[2] is None
    assert doctor.faiss(["faiss-cpu", "faiss-gpu"])[1:] == ("faiss-cpu and faiss-gpu", "keep one: `pip uninstall faiss-gpu`, then install the other again")
    assert "pip install" in str(doctor.faiss([])[2])


def test_a_gpu_that_params_ask_for_and_torch_does_not_see_is_amiss(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert doctor.gpu() == ("gpu", "none that torch sees; compute.device is cpu", None)
    edit("compute", device="cuda")
    assert "set it to cpu" in str(doctor.gpu()[2])


def test_a_descriptor_without_its_weights_is_amiss(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.descriptor() == ("descriptor", "sscd_distilled", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert "make sscd" in str(doctor.descriptor()[2])
    edit("image_embeddings", path="sscd.torchscript.pt")
    assert doctor.descriptor() == ("descriptor", "sscd.torchscript.pt", "the file does not exist")


def test_a_package_that_is_missing_is_named_with_the_command_that_brings_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("no-such-package",))
    found = {name: (value, way_out) for name, value, way_out in doctor.findings()}
    assert found["no-such-package"] == ("missing", "install Eidetic again: `pip install -e .[cpu]`")
    assert {"python", "gpu", "faiss", "descriptor", "disk", "dvc remote", "prefect API"} <= set(found)
    assert "GB free" in found["disk"][0]
