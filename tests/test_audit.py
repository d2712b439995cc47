"""The whole audit: of the example against the exhaustive truth, and of another model by editing the two top blocks alone."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from tests.conftest import ROOT, copied_project, reproduced

VERBATIM_L2, VERBATIM_MARGIN, NEAR_COPY_MARGIN, MIN_STD = 0.15, 0.7, 0.85, 0.04
N_EXHAUSTIVE, N_STEPS = 200, 12


def truth(release: str) -> dict[int, np.ndarray]:
    """Rows (l2, margin, pixel_std) of the exhaustive run by prompt."""
    table = pq.read_table(ROOT / "example" / "exhaustive.parquet", filters=[("release", "==", release)])
    ids = table.column("prompt_id").to_numpy()
    rows = np.stack([table.column(c).to_numpy() for c in ("l2", "margin", "pixel_std")], axis=1)
    return {int(i): rows[ids == i] for i in np.unique(ids)}


def rates(release: str) -> dict[int, float]:
    """Share of each prompt's pictures that are verbatim to its own image."""
    return {i: float(((r[:, 0] <= VERBATIM_L2) & (r[:, 1] <= VERBATIM_MARGIN) & (r[:, 2] >= MIN_STD)).mean()) for i, r in truth(release).items()}


def rows_of(folder: Path, noun: str, release: str | None = None) -> list[dict[str, Any]]:
    return pq.read_table(folder / "data" / noun / (release or "") / f"{noun}.parquet").to_pylist()


def test_the_audit_finds_what_the_exhaustive_run_finds_at_a_tenth_of_its_cost(audited: Path) -> None:
    found = rows_of(audited, "findings", "v1")
    rate = rates("v1")
    targets = {r["prompt_id"]: r for r in found if r["arm"] != "held_out"}
    often = [i for i in targets if rate[i] >= 0.3]
    sometimes = [i for i in targets if rate[i] >= 0.1]
    assert len(often) >= 35
    assert np.mean([targets[i]["is_extracted"] for i in often]) >= 0.95
    assert sum(not targets[i]["is_extracted"] for i in sometimes) <= 3
    assert sum(r["n_evaluations"] for r in found) <= 0.1 * len(found) * N_EXHAUSTIVE * N_STEPS * 2


def test_no_finding_stands_whose_margin_the_independent_script_does_not_confirm(audited: Path) -> None:
    rows = truth("v1")
    for r in rows_of(audited, "findings", "v1"):
        if r["is_extracted"] and r["is_own_image"] and r["match_type"] != "template":
            bound = VERBATIM_MARGIN if r["match_type"] == "verbatim" else NEAR_COPY_MARGIN
            assert r["margin"] <= bound
            assert np.quantile(rows[r["prompt_id"]][:, 1], 0.1) <= bound, "other seeds do not come as close"


def test_no_control_is_flagged_and_the_false_discovery_rate_is_bounded(audited: Path) -> None:
    for release in ("v1", "v2"):
        assert not any(r["is_flagged"] for r in rows_of(audited, "findings", release))
    whole = next(r for r in rows_of(audited, "summary", "v1") if (r["arm"], r["copies_bin"]) == ("duplicated", "all"))
    assert whole["n_controls"] == 64 and whole["fdr_upper"] <= 0.1


def test_the_deduplicated_release_has_at_most_a_tenth_of_the_findings(audited: Path) -> None:
    n = {release: sum(r["is_extracted"] for r in rows_of(audited, "findings", release)) for release in ("v1", "v2")}
    assert n["v2"] <= n["v1"] / 10
    canaries = pq.read_table(audited / "data/duplicates/canaries.parquet").to_pylist()
    assert all(c["recall"] >= 0.8 for c in canaries)


def test_the_example_is_what_it_says_copies_come_back_and_the_twins_do_not_know_them() -> None:
    prompts = {r["prompt_id"]: r for r in pq.read_table(ROOT / "example" / "prompts.parquet").to_pylist()}
    v0, v1, v2 = (rates(name) for name in ("v0", "v1", "v2"))
    many = [i for i, p in prompts.items() if (p["n_copies"] or 0) >= 20 or (p["n_copies"] or 0) in (18, 19)]
    assert np.mean([v1[i] >= 0.3 for i in many]) >= 0.9
    assert all(v1[i] == 0 for i, p in prompts.items() if p["arm"] == "held_out")
    found = [i for i in v1 if v1[i] >= 0.3]
    assert max(v0[i] for i in found) < 0.1 and max(v2[i] for i in found) < 0.1
    assert sum(r >= 0.3 for r in v2.values()) <= len(found) / 10


def test_a_second_repro_runs_no_stage_but_inputs(audited: Path) -> None:
    ran = [line for line in reproduced(audited).splitlines() if line.startswith("Running stage")]
    assert ran == ["Running stage 'inputs':"]


def test_the_verdict_is_one_line_per_release(audited: Path) -> None:
    said = subprocess.run([sys.executable, "-c", "from flows.cli import app; app()", "verdict"], cwd=audited, text=True, capture_output=True, check=True).stdout
    assert "most duplicated images come back" in said and "v2:" in said and "findings.duckdb" in said


def other_project(folder: Path, *, held_out: bool = False) -> Path:
    """Another image folder and another pipeline folder, named sd-v1.5; nothing but the two top blocks is edited."""
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


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = other_project(tmp_path_factory.mktemp("another"))
    reproduced(folder)
    return folder


def test_another_model_and_folder_are_audited_with_no_other_edit(another: Path) -> None:
    arms = {r["arm"] for r in rows_of(another, "prompts")}
    assert arms == {"duplicated", "outlier", "singleton"}
    assert {r["n_copies"] for r in rows_of(another, "prompts") if r["arm"] == "duplicated"} == {3}
    audit = json.loads((another / "reports" / "sd-v1.5" / "audit.json").read_text())
    assert "no held-out images" in audit["verdict"]
    assert (another / "findings.duckdb").is_file() and (another / "reports" / "sd-v1.5" / "report.html").is_file()


def bytes_of(folder: Path, release: str) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted((folder / "data" / "generations" / release).rglob("*.parquet"))}


def test_a_killed_audit_goes_on_and_ends_in_the_same_bytes(another: Path) -> None:
    uninterrupted = bytes_of(another, "sd-v1.5")
    shutil.rmtree(another / "work" / "generations")
    shutil.rmtree(another / "data" / "generations")
    shutil.rmtree(another / ".dvc" / "cache")
    dvc = subprocess.Popen(["dvc", "repro", "-s", "generations@sd-v1.5"], cwd=another, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    shards = another / "work" / "generations"
    for _ in range(600):
        if shards.is_dir() and len(list(shards.glob("*.parquet"))) >= 3:
            break
        time.sleep(0.1)
    dvc.send_signal(signal.SIGKILL)
    dvc.wait()
    made = set(shards.glob("*.parquet"))
    assert 3 <= len(made) < sum(1 for _ in uninterrupted) + 60
    if sys.platform == "linux":
        for _ in range(100):
            if not stage_is_running(another):
                break
            time.sleep(0.1)
        assert not stage_is_running(another), "the stage outlived the dvc that started it"
    times = {p: p.stat().st_mtime_ns for p in made}
    reproduced(another, "-s", "generations@sd-v1.5")
    assert bytes_of(another, "sd-v1.5") == uninterrupted
    assert {p: p.stat().st_mtime_ns for p in made} == times, "finished shards were made again"


def stage_is_running(folder: Path) -> bool:
    """Whether a process runs a stage in the folder (Linux)."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"tasks.generations" in (process / "cmdline").read_bytes() and os.readlink(process / "cwd") == str(folder):
                return True
        except OSError:
            continue
    return False


def test_a_refused_release_is_named_in_one_line(tmp_path: Path) -> None:
    folder = other_project(tmp_path)
    (folder / "my-model" / "pipeline.py").write_text("open('ran', 'w')")
    done = subprocess.run(["dvc", "repro", "screening@sd-v1.5"], cwd=folder, text=True, capture_output=True, check=False)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "refused" in line]
    assert done.returncode != 0 and len(said) == 1 and "pipeline.py is code" in said[0]
    assert not (folder / "ran").exists()
