"""Rounds stop when they should, seeds belong to their picture, a kill loses no finished round."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from tasks import _pictures, _sources, generations
from tasks._settings import UserError
from tests.conftest import at_work, other_project, rows_of, running, until

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


def test_a_worker_that_outlives_an_audit_loads_what_has_changed_and_only_that(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"seed": 1, "version": 1, "batch_size": 8} | dict.fromkeys(_sources.SAMPLER)
    model = ["a" * 64]
    monkeypatch.setattr(generations._settings, "settings", lambda block: {"generations": settings, "compute": {"device": "cpu"}}[block])
    monkeypatch.setattr(_sources, "release", lambda name: _sources.Release(name, Path("m"), model[0], {"n_steps": 2}, None))
    monkeypatch.setattr(generations._pipelines, "sampler", lambda release, **asked: SimpleNamespace(settings=asked["defaults"], stack=release.digest))
    first, provenance = generations._loaded("r")
    settings["seed"] = 2
    again, of_other_seed = generations._loaded("r")
    assert again is first and (provenance[4], of_other_seed[4]) == (1, 2)
    settings["guidance_scale"] = 3.0
    other, _ = generations._loaded("r")
    assert other is not first and other.settings["guidance_scale"] == 3.0
    model[0] = "b" * 64
    newest, provenance = generations._loaded("r")
    assert newest.stack == provenance[0] == "b" * 64


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
    assert until(lambda: not running(mark), 30)
    assert {file.relative_to(made): file.read_bytes() for file in sorted(made.rglob("*.parquet"))} == alone


class FakeSampler:
    """Pictures by seed: one that is always the same for seeds below the rate, its own otherwise."""

    def __init__(self, picture: Maker, rate: float) -> None:
        self.picture, self.rate, self.n_drawn = picture, rate, 0

    def pictures(self, captions: list[str], seeds: list[int]) -> tuple[np.ndarray, int]:
        self.n_drawn += len(seeds)
        return np.stack([self.picture(0 if s % 100 < 100 * self.rate else s % 1_000_003) for s in seeds]), 4


FLAGGED = SETTINGS | {"first": 4, "budget": 40, "exhaustive": True, "keep": "flagged"}


def finished(sampler: FakeSampler | None, settings: dict[str, Any] = FLAGGED, release: str = "v1") -> generations.Judged:
    prompt = {"prompt_id": 7, "caption": "a cat", "seed_id": 7}
    return generations._judge(settings)(generations._Draw(sampler, ["a model"], prompt, 0), release, settings)


def test_of_a_prompt_that_is_not_flagged_the_pictures_of_every_prompt_and_the_medoid_are_kept(in_folder: Path, picture: Maker) -> None:
    rows, row, pictures = finished(FakeSampler(picture, 0.1))
    whole, row_of_all, _ = finished(FakeSampler(picture, 0.1), FLAGGED | {"keep": "all"})
    kept = [r["index"] for r in rows if r["status"] != "not_kept"]
    medoid = next(r["index"] for r in rows if r["generation_id"] == row["medoid_generation_id"])
    assert 3 <= row["clique_size"] < 10 and row == pytest.approx(row_of_all)
    assert kept == sorted({*range(16), medoid}) == [i for i, p in enumerate(pictures) if p is not None]
    assert [r["seed"] for r in rows] == [r["seed"] for r in whole] and [r["sha256"] for r in rows] == [r["sha256"] for r in whole]
    assert {r["reason"] for r in rows if r["index"] not in kept} == {"its prompt is not flagged; its seed makes it again"}
    placed = _pictures.GenerationWriter("v1").add(rows, pictures)
    assert [r["position"] for r in placed if r["shard"]] == list(range(len(kept))) and placed[39]["position"] is None


def test_of_a_flagged_prompt_every_picture_is_kept(in_folder: Path, picture: Maker) -> None:
    rows, row, pictures = finished(FakeSampler(picture, 0.6))
    assert row["clique_size"] >= 10 and {r["status"] for r in rows} == {"ok"} and all(p is not None for p in pictures)


def test_a_finished_prompt_is_one_shard_in_place_of_its_rounds_and_is_not_drawn_again(in_folder: Path, picture: Maker) -> None:
    sampler, shards = FakeSampler(picture, 0.1), in_folder / "work" / "generations"
    finished(sampler, FLAGGED | {"keep": "all"})
    rounds = {file.name: file.read_bytes() for file in shards.iterdir()}
    rows, row, pictures = finished(sampler)
    left = list(shards.iterdir())
    assert len(rounds) == 5 and len(left) == 1 and left[0].name not in rounds and sampler.n_drawn == 40
    assert pq.read_table(left[0]).column("png").null_count == sum(p is None for p in pictures) > 0
    for name, data in rounds.items():  # as a kill between the two leaves them
        (shards / name).write_bytes(data)
    again, row_again, pictures_again = finished(None, release="the same under another name")
    assert [r | {"release": "v1"} for r in again] == rows and row_again | {"release": "v1"} == row and list(shards.iterdir()) == left
    assert pictures_again == pictures


def test_another_way_to_keep_pictures_is_refused(in_folder: Path) -> None:
    for unknown in (FLAGGED | {"keep": "none"}, SETTINGS):
        with pytest.raises(UserError, match="generations.keep: '[Nn]one' is not known; use all or flagged"):
            finished(None, unknown)


SHARED = ("inputs", "images", "image_embeddings", "duplicates", "prompts")
Audits = tuple[Path, dict[str, dict[str, list[dict[str, Any]]]]]  # the project, and by `keep` rows of its tables
OF_RELEASE = ("generations", "generation_embeddings", "matches", "findings", "summary")


def stages(folder: Path, *nouns: str) -> None:
    """Run stages in the folder, in one process: those of the release `sd-v1.5` too."""
    code = ("import importlib, sys\nfor noun in sys.argv[2:]:\n"
            "    importlib.import_module(f'tasks.{noun}').main(*(() if noun in sys.argv[1].split() else ['sd-v1.5']))")
    done = subprocess.run([sys.executable, "-c", code, " ".join(SHARED), *nouns], cwd=folder, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def put_settings(folder: Path, **of_block: dict[str, Any]) -> None:
    """Change these settings of the folder's params.yaml."""
    params = yaml.safe_load((folder / "params.yaml").read_text())
    for block, settings in of_block.items():
        params[block] |= settings
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


@pytest.fixture(scope="module")
def audits(tmp_path_factory: pytest.TempPathFactory) -> Audits:
    """A project whose prompts were drawn to the budget, and the tables of its audits by `keep`: first all, then flagged."""
    folder = other_project(tmp_path_factory.mktemp("keep"), held_out=True)
    put_settings(folder, prompts={"n_duplicated": 4, "n_outlier": 2, "n_singleton": 4, "n_held_out": 8, "n_calibrating": 4, "n_paraphrased": 0},
                 generations={"first": 4, "budget": 40, "exhaustive": True, "edge_l2": 0.2})
    stages(folder, *SHARED, "screening")
    told = {}
    for keep in ("all", "flagged"):
        put_settings(folder, generations={"keep": keep})
        shutil.rmtree(folder / "data" / "generations", ignore_errors=True)
        stages(folder, *OF_RELEASE)
        told[keep] = {noun: rows_of(folder, noun, "sd-v1.5") for noun in ("generations", "matches", "findings", "summary")}
    return folder, told


def test_the_verdicts_are_those_of_an_audit_that_keeps_every_picture(audits: Audits) -> None:
    _, told = audits
    differing = {"closest_l2", "n_judged", "hit_rate_low", "hit_rate_high"}
    whole, thin = ({noun: [{k: v for k, v in row.items() if k not in differing} for row in of[noun]] for noun in ("findings", "summary")}
                   for of in (told["all"], told["flagged"]))
    assert thin == whole and sum(r["p_value"] is not None for r in thin["findings"]) == 10
    is_flagged = {r["prompt_id"]: r["clique_size"] >= 10 for r in thin["findings"]}
    assert set(is_flagged.values()) == {True, False}
    assert all(r["n_judged"] == (40 if is_flagged[r["prompt_id"]] else 16) for r in told["flagged"]["findings"])


def test_what_is_not_kept_has_a_row_and_neither_picture_nor_matches(audits: Audits) -> None:
    folder, told = audits
    thin, whole = told["flagged"]["generations"], told["all"]["generations"]
    is_flagged = {r["prompt_id"]: r["clique_size"] >= 10 for r in told["flagged"]["findings"]}
    medoids = {r["generation_id"] for r in told["flagged"]["findings"]}
    stays = [is_flagged[r["prompt_id"]] or r["index"] < 16 or r["generation_id"] in medoids for r in thin]
    assert [r["status"] != "not_kept" for r in thin] == stays and not all(stays)
    assert [(r["seed"], r["sha256"]) for r in thin] == [(r["seed"], r["sha256"]) for r in whole] and len(thin) == 18 * 40
    pictures = folder / "data" / "generations" / "sd-v1.5" / "pictures"
    assert sum(pq.read_metadata(file).num_rows for file in pictures.iterdir()) == sum(stays)
    kept = {r["generation_id"] for r in thin if r["status"] == "ok"}
    assert told["flagged"]["matches"] == [r for r in told["all"]["matches"] if r["generation_id"] in kept], "vectors belong to their rows"
    assert len(list((folder / "work" / "generations").iterdir())) == 18, "no shard of a round is left"


def test_a_run_that_is_resumed_draws_nothing_and_makes_the_same_bytes_as_do_workers(audits: Audits) -> None:
    folder, _ = audits
    made, shards = folder / "data" / "generations", folder / "work" / "generations"
    bytes_of = lambda place: {file.relative_to(place): file.read_bytes() for file in place.rglob("*.parquet")}
    before, finished_at = bytes_of(made), {file: file.stat().st_mtime_ns for file in shards.iterdir()}
    shutil.rmtree(made)
    stages(folder, "generations")
    assert bytes_of(made) == before and {file: file.stat().st_mtime_ns for file in shards.iterdir()} == finished_at
    finished_shards = bytes_of(shards)
    shutil.rmtree(made)
    shutil.rmtree(shards)
    put_settings(folder, compute={"dask": "local:2"})
    stages(folder, "generations")
    put_settings(folder, compute={"dask": None})
    assert bytes_of(made) == before and bytes_of(shards) == finished_shards


def test_a_picture_that_is_not_kept_is_made_again_from_its_seed(audits: Audits, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, told = audits
    monkeypatch.chdir(folder)
    row = next(r for r in told["flagged"]["generations"] if r["status"] == "not_kept")
    caption = next(r["caption"] for r in rows_of(folder, "prompts") if r["prompt_id"] == row["prompt_id"])
    sampler, _ = generations._loaded("sd-v1.5")
    assert _pictures.pixel_digest(sampler.pictures([caption], [row["seed"]])[0][0]) == row["sha256"]


def test_a_picture_that_a_filter_blocked_in_every_draw_is_a_row_with_its_reason_and_in_no_clique(picture: Maker) -> None:
    dark = np.zeros((24, 32, 32, 3), np.uint8)
    pictures = np.concatenate([dark, np.stack([picture(i) for i in range(40)])])

    class Draw:
        prompt_id, is_filtered = 7, True

        def __call__(self, start: int, stop: int) -> np.ndarray:
            self.n_evaluations, self.png = [72] * stop, [b"png"] * stop
            return pictures[start:stop]

        def seeds(self, stop: int) -> list[int]:
            return list(range(stop))

    rows, row, _ = generations._judged(Draw(), "v1", SETTINGS | {"keep": "all"})
    assert {(r["status"], r["reason"]) for r in rows} == {("degenerate", "blocked by the release's filter, in every draw")}
    assert row["clique_size"] == 1 and row["stop_reason"] == "futile" and row["n_evaluations"] == 72 * len(rows), "blocked draws are counted"
