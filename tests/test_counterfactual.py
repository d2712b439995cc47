"""v0, the twin that never saw a planted picture, audited with v1's prompts: what the statistics say of it is what they say of nothing."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tasks import findings
from tasks.measures import rates
from tests.conftest import reproduced, rows_of

N_DENSE = 24  # held-out targets with the nearest neighbours


@pytest.fixture(scope="module")
def twin(audited: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with v0 audited beside v1 and v2."""
    folder = tmp_path_factory.mktemp("twin") / "project"
    shutil.copytree(audited, folder, symlinks=True)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["releases"]["v0"] = {"model": "example/releases/v0", "revision": None, "n_steps": 12, "guidance_scale": 3.0}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    reproduced(folder, "summary@v0")
    return folder


def test_the_twin_returns_no_planted_picture(twin: Path) -> None:
    found = rows_of(twin, "findings", "v0")
    assert not [r for r in found if r["arm"] == "duplicated" and r["is_extracted"] and r["is_own_image"]]
    assert not [r for r in found if r["is_flagged"]]


def test_pictures_the_twin_never_saw_seldom_have_a_small_p(twin: Path) -> None:
    """Planted pictures are chosen by their copies: dense ones. Unmatched controls would give a quarter of them p <= 0.05."""
    p = [r["p_value"] for r in rows_of(twin, "findings", "v0") if r["arm"] == "duplicated"]
    assert len(p) == 64 and np.mean([x <= 0.05 for x in p]) <= 5 / 40
    assert min(p) >= rates.smallest_p(40)


@pytest.mark.parametrize("release", ["v0", "v1", "v2"])
def test_held_out_targets_chosen_for_their_near_neighbours_seldom_have_a_small_p(twin: Path, release: str) -> None:
    """The densest held-out pictures against the others: a random split would prove nothing."""
    density = {r["image_id"]: r["nearest_other_l2"] for r in rows_of(twin, "duplicates")}
    prompts = {r["prompt_id"]: r for r in rows_of(twin, "prompts") if r["arm"] == "held_out"}
    closest = scores(twin, release, prompts)
    ordered = sorted(prompts, key=lambda i: density[prompts[i]["image_id"]])
    targets, controls = ordered[:N_DENSE], ordered[N_DENSE:]
    pick = lambda ids: (np.array([closest[i] for i in ids]), np.array([density[prompts[i]["image_id"]] for i in ids]))  # noqa: E731
    own = np.array([[prompts[i]["cluster_id"] == prompts[j]["cluster_id"] for j in controls] for i in targets])
    p = rates.matched_p(*pick(targets), *pick(controls), own, 40)
    assert (p <= 0.05).mean() <= 0.08


def scores(folder: Path, release: str, prompts: dict[int, dict[str, Any]]) -> dict[int, float]:
    """What the audit scores, by prompt_id; -inf where the screen dropped the prompt."""
    made: dict[int, list[dict[str, Any]]] = {}
    for row in rows_of(folder, "generations", release):
        made.setdefault(row["prompt_id"], []).append(row)
    matches: dict[int, dict[int, list[dict[str, Any]]]] = {}
    for row in rows_of(folder, "matches", release):
        matches.setdefault(row["prompt_id"], {}).setdefault(row["generation_id"], []).append(row)
    return {i: findings.score(findings.Evidence(p, {}, made.get(i, []), matches.get(i, {}))) for i, p in prompts.items()}
