"""Rounds stop when they should, seeds belong to their picture, a kill loses no finished round."""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from tasks import generations
from tests.conftest import at_work, running, until

Maker = Callable[..., np.ndarray]
SETTINGS: dict[str, Any] = {"first": 8, "budget": 64, "clique_size": 10, "edge_l2": 0.1, "min_rate": 0.3, "miss_probability": 0.05,
                            "n_fresh": 8, "exhaustive": False}


def drawn_from(rate: float, picture: Maker, seed: int = 0) -> Callable[[int, int], np.ndarray]:
    """A model that returns picture 0 at this rate and another picture each time otherwise."""
    hits = np.random.default_rng(seed).random(1000) < rate
    return lambda start, stop: np.stack([picture(0 if hits[i] else 1000 + i) for i in range(start, stop)])


def test_a_prompt_that_always_returns_its_picture_stops_at_a_clique_and_draws_fresh_ones(picture: Maker) -> None:
    pictures, reason, n_stopped = generations.sampled(drawn_from(1, picture), SETTINGS)
    assert (reason, n_stopped, len(pictures)) == ("clique", 16, 24)


def test_a_prompt_without_any_pair_is_given_up_at_the_second_round(picture: Maker) -> None:
    pictures, reason, n_stopped = generations.sampled(drawn_from(0, picture), SETTINGS)
    assert (reason, n_stopped, len(pictures)) == ("futile", 16, 16)


def test_the_published_attack_draws_the_whole_budget(picture: Maker) -> None:
    pictures, reason, _ = generations.sampled(drawn_from(1, picture), SETTINGS | {"exhaustive": True})
    assert (reason, len(pictures)) == ("budget", 64)


def test_the_medoid_is_one_of_the_pictures_that_agree(picture: Maker) -> None:
    draw = drawn_from(0.5, picture)
    pictures, reason, n_stopped = generations.sampled(draw, SETTINGS)
    rows = generations.generations(7, pictures, n_stopped, release="v1", seeds=list(range(100)), n_evaluations=24)
    row = generations.sampling(rows, pictures, reason, n_stopped, SETTINGS["edge_l2"])
    medoid = next(r for r in rows if r["generation_id"] == row["medoid_generation_id"])
    assert row["clique_size"] >= 3 and (pictures[medoid["index"]] == picture(0)).all()


def test_blank_pictures_agree_with_nothing() -> None:
    blank = np.full((12, 32, 32, 3), 1.0, np.float32)
    members, is_exact, _ = generations.clique_of(blank, 0.1)
    assert len(members) == 1 and is_exact
    rows = generations.generations(7, np.full((2, 32, 32, 3), 255, np.uint8), 2, release="v1", seeds=list(range(100)), n_evaluations=24)
    assert {r["status"] for r in rows} == {"degenerate"}


def test_a_seed_depends_on_prompt_and_index_alone() -> None:
    assert generations.seed_of(0, 5, 3) == generations.seed_of(0, 5, 3)
    assert len({generations.seed_of(s, p, i) for s in range(3) for p in range(5) for i in range(50)}) == 750


def test_pictures_are_gathered_in_shards_that_find_them_again(in_folder: Any, picture: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generations, "PICTURES_PER_SHARD", 4)
    pictures = np.stack([picture(i) for i in range(6)])
    writer = generations._PictureShards(in_folder / "pictures")
    rows = writer.add(generations.generations(7, pictures, 6, release="v1", seeds=list(range(100)), n_evaluations=24), pictures)
    writer.close()
    assert [(r["shard"], r["position"]) for r in rows[3:5]] == [("pictures_00000.parquet", 3), ("pictures_00001.parquet", 0)]
    stored = pq.read_table(in_folder / "pictures" / rows[5]["shard"])
    assert stored.column("generation_id")[rows[5]["position"]].as_py() == rows[5]["generation_id"]


def test_two_workers_of_a_cluster_of_which_one_is_killed_draw_the_same_bytes(copy_of_another: Path) -> None:
    made = copy_of_another / "data" / "generations"
    alone = {file.relative_to(made): file.read_bytes() for file in sorted(made.rglob("*.parquet"))}
    shutil.rmtree(made)
    shutil.rmtree(copy_of_another / "work")
    params = yaml.safe_load((copy_of_another / "params.yaml").read_text())
    params["compute"]["dask"] = "local:2"
    (copy_of_another / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    mark = f"{os.getpid()}-dask"
    with at_work([sys.executable, "-m", "tasks.generations", "sd-v1.5"], copy_of_another, says="", EIDETIC_TEST_MARK=mark) as stage:
        shards = copy_of_another / "work" / "generations"
        assert until(lambda: len(list(shards.glob("*.parquet"))) >= 3 or stage.poll() is not None, 120)
        workers = [process for process, command in running(mark).items() if any("spawn_main" in part for part in command)]
        os.kill(workers[0], signal.SIGKILL)
        assert stage.wait(300) == 0
    assert not running(mark)
    assert {file.relative_to(made): file.read_bytes() for file in sorted(made.rglob("*.parquet"))} == alone
