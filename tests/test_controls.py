"""Controls: nothing of what the model makes from their captions is taken for a picture it never saw."""

import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from tests.conftest import ROOT, reproduced

SEEDS = range(1, 1 + int(os.environ.get("EIDETIC_TEST_SEEDS", "1")))
MIN_STD = 0.04


@pytest.mark.parametrize("release", ["v0", "v1", "v2"])
def test_no_single_picture_of_a_control_is_a_verbatim_copy_of_a_held_out_image(release: str) -> None:
    """Of 200 pictures a control, more than ten audits draw: the independent script's measures, the design's bounds."""
    arms = {r["prompt_id"]: r["arm"] for r in pq.read_table(ROOT / "example" / "prompts.parquet").to_pylist()}
    rows = pq.read_table(ROOT / "example" / "exhaustive.parquet", filters=[("release", "==", release), ("nearest_l2", "<=", 0.15),
                                                                          ("nearest_margin", "<=", 0.7), ("pixel_std", ">=", MIN_STD)])
    close = [r for r in rows.to_pylist() if arms[r["prompt_id"]] == "held_out"]
    assert not [r for r in close if r["nearest_cluster"].startswith("held_out:")]
    assert sum(arm == "held_out" for arm in arms.values()) == 96


@pytest.fixture(scope="module")
def controls(audited: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with controls alone as prompts."""
    folder = tmp_path_factory.mktemp("controls") / "project"
    shutil.copytree(audited, folder, symlinks=True)
    edit(folder, prompts={"n_duplicated": 0, "n_outlier": 0, "n_singleton": 0, "n_paraphrased": 0})
    return folder


def edit(folder: Path, **blocks: dict[str, Any]) -> None:
    params = yaml.safe_load((folder / "params.yaml").read_text())
    for block, settings in blocks.items():
        params[block] |= settings
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


@pytest.mark.parametrize("seed", SEEDS)
def test_no_control_is_flagged_whatever_the_seed(seed: int, controls: Path) -> None:
    edit(controls, generations={"seed": seed})
    reproduced(controls, "findings@v1")
    table = pq.read_table(controls / "data" / "findings" / "v1" / "findings.parquet")
    assert table.num_rows == 96 and set(table.column("arm").to_pylist()) == {"held_out"}
    assert pc.sum(table.column("is_flagged")).as_py() == 0
