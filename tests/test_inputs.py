"""Every file the audit reads is a row; a release that may not be loaded is a row with its reason, and keeps no other out."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from tasks import _tables, inputs
from tasks._settings import TryAgain, UserError
from tests.conftest import ROOT


@pytest.fixture
def project(in_folder: Path) -> Path:
    """Two pictures with captions, one release that may be loaded."""
    for number in range(2):
        (in_folder / "pictures").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (number * 90, 10, 10)).save(in_folder / "pictures" / f"{number}.png")
        (in_folder / "pictures" / f"{number}.txt").write_text(f"picture {number}")
    shutil.copytree(ROOT / "example" / "releases" / "v0", in_folder / "model")
    put({"good": {"model": "model", "n_steps": 2}})
    return in_folder


def put(releases: dict[str, dict[str, Any]], **blocks: Any) -> None:
    params = {"training_set": {"members": {"format": "image_folder", "path": "pictures"}, "held_out": None}, "releases": releases,
              "prompts": {"custom": None}, "report": {"reviews": None}} | blocks
    Path("params.yaml").write_text(yaml.safe_dump(params))


def rows_of(side: str) -> list[dict[str, Any]]:
    return _tables.read("inputs", side=side).to_pylist()


def test_every_file_is_a_row_with_its_digest_and_the_same_bytes_every_time(project: Path) -> None:
    inputs.main()
    first = {p.name: p.read_bytes() for p in Path("data/inputs").rglob("*.parquet")}
    assert [r["path"] for r in rows_of("members")] == ["0.png", "0.txt", "1.png", "1.txt"]
    assert all(len(r["sha256"]) == 64 and r["status"] == "ok" for r in rows_of("members") + rows_of("releases/good"))
    assert json.loads(rows_of("releases/good")[0]["settings"]) == {"n_steps": 2}
    inputs.main()
    assert {p.name: p.read_bytes() for p in Path("data/inputs").rglob("*.parquet")} == first


@pytest.mark.parametrize(
    ("spec", "said"),
    [({"model": "nowhere"}, "model folder nowhere does not exist"), ({"model": "model", "dtyp": "fp16"}, "unknown setting 'dtyp'"),
     ({"model": "model", "n_steps": "many"}, "n_steps is 'many'; give a number"), ({"model": "model", "kept": "no.csv"}, "kept: no.csv does not exist"),
     ({}, "no model is named")],
)
def test_a_refused_release_is_a_row_with_its_reason_and_keeps_no_other_out(project: Path, spec: dict[str, Any], said: str) -> None:
    put({"bad": spec, "good": {"model": "model"}})
    inputs.main()
    assert [r["status"] for r in rows_of("releases/bad")] == ["refused"] and said in rows_of("releases/bad")[0]["reason"]
    assert {r["status"] for r in rows_of("releases/good")} == {"ok"}


def test_a_hub_that_does_not_answer_is_no_refusal(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: object, **__: object) -> str:
        raise OSError("connection timed out")

    monkeypatch.setattr("huggingface_hub.snapshot_download", silent)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    put({"far": {"model": "owner/name", "revision": "0" * 40}})
    with pytest.raises(TryAgain, match="owner/name@00000000 cannot be fetched now: connection timed out"):
        inputs.main()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    inputs.main()
    assert "HF_HUB_OFFLINE forbids" in rows_of("releases/far")[0]["reason"]


def test_a_training_set_that_is_not_there_is_named_with_the_way_out(project: Path) -> None:
    put({}, training_set={"members": {"format": "image_folder", "path": "away"}, "held_out": None})
    with pytest.raises(UserError, match="training_set.members.path away does not exist"):
        inputs.main()
    put({}, training_set={"members": {"format": "tar", "path": "pictures"}, "held_out": None})
    with pytest.raises(UserError, match="format 'tar' is not known; use image_folder, webdataset, parquet, clip_embeddings"):
        inputs.main()


def test_pictures_are_compared_at_the_smallest_side_that_a_release_makes() -> None:
    assert inputs.resolution([64, None, 32]) == 32
    assert inputs.resolution([512]) == inputs.LARGEST_PX
    assert inputs.resolution([]) == inputs.LARGEST_PX


@pytest.mark.parametrize(("training_set", "custom", "said"), [
    ({"held_out": None}, None, "training_set.members is missing; name the format and path of the training set, or null for none"),
    ({"members": None, "held_out": None}, None, "training_set.members is null and so is prompts.custom: name a training set, or a text file"),
    ({"members": None, "held_out": {"format": "image_folder", "path": "pictures"}}, "mine.txt", "training_set.held_out is named without members"),
])
def test_with_nothing_to_ask_or_to_hold_against_the_way_out_is_named(project: Path, training_set: dict[str, Any], custom: str | None, said: str) -> None:
    Path("mine.txt").write_text("a prompt")
    put({}, training_set=training_set, prompts={"custom": custom})
    with pytest.raises(UserError, match=said):
        inputs.main()


def test_without_a_training_set_a_custom_list_will_do(project: Path) -> None:
    Path("mine.txt").write_text("a prompt")
    put({}, training_set={"members": None, "held_out": None}, prompts={"custom": "mine.txt"})
    inputs.main()
    assert rows_of("members") == rows_of("held_out") == [] and [r["path"] for r in rows_of("prompts")] == ["mine.txt"]


def test_the_files_of_a_filter_are_rows_of_the_release_and_change_what_it_is(project: Path) -> None:
    from tasks import _sources

    Path("list").mkdir()
    Path("list/blocklist.json").write_text("{}")
    digests = []
    for spec in ({}, {"filter": "list"}, {"filter": "list", "n_resamples": 2}):
        put({"good": {"model": "model"} | spec})
        inputs.main()
        digests.append(_sources.release("good").digest)
    found = _sources.release("good")
    assert (found.filter, found.n_resamples) == (Path("list"), 2) and len(set(digests)) == 3
    Path("list/blocklist.json").write_text("[]")
    inputs.main()
    assert _sources.release("good").digest != digests[2], "another list is another release"


@pytest.mark.parametrize(("spec", "said"), [
    ({"filter": "nowhere"}, "filter: nowhere holds no blocklist.json; name the export of a blocklist"),
    ({"n_resamples": 2}, "n_resamples is 2; it is how often a filter may draw a picture again: a number, beside `filter`")])
def test_a_filter_that_is_none_refuses_the_release(project: Path, spec: dict[str, Any], said: str) -> None:
    put({"bad": {"model": "model"} | spec})
    inputs.main()
    assert said in rows_of("releases/bad")[0]["reason"]
