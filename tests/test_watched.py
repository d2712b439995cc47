"""Looks at a folder of releases: what is half copied waits, what is new is one line of params.yaml, what is refused is told of once."""

import difflib
import json
import shutil
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from flows import audits, releases, watch, watched
from tasks import _new_releases, _shards, _sources, _tables
from tasks._settings import TryAgain, UserError
from tests.conftest import ROOT

MODEL = ROOT / "example" / "releases" / "v0"
PARAMS = "releases:\n  # the first\n  v1: {model: my-model, revision: null}   # ours\n\nwatch: {folders: [releases], hub: [], settings: {n_steps: 3}}\n"


@pytest.fixture
def project(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a release under audit, and an empty folder of releases that is watched."""
    Path("params.yaml").write_text(PARAMS)
    shutil.copytree(MODEL, "my-model")
    Path("releases").mkdir()
    monkeypatch.setattr(watched, "_audited", dict)
    return in_folder


def copied(name: str) -> Path:
    return Path(shutil.copytree(MODEL, Path("releases") / name))


def changed(folder: Path) -> None:
    file = folder / "model_index.json"
    file.write_text(file.read_text() + "\n")


def statuses() -> dict[str, str]:
    return {place: entry["status"] for place, entry in watched.remembered()["places"].items()}


def test_a_release_is_taken_at_the_second_look_at_the_same_files_and_is_one_line_of_params_yaml(project: Path) -> None:
    folder = copied("v2")
    found = watched.look()
    assert (found.due, found.noted, statuses()) == ([], ["releases/v2"], {"releases/v2": "seen"})
    changed(folder)  # it was still being copied
    assert (watched.look().due, statuses()) == ([], {"releases/v2": "seen"}) and Path("params.yaml").read_text() == PARAMS
    assert watched.look().due == ["v2"]
    diff = [line for line in difflib.ndiff(PARAMS.splitlines(), Path("params.yaml").read_text().splitlines()) if line[0] in "+-"]
    assert diff == ["+   v2: {model: releases/v2, revision: null, n_steps: 3}"]
    assert watched.look().due == ["v2"], "it stays due until it has an audit"
    entry = watched.remembered()["places"]["releases/v2"]
    assert entry["digest"] == _sources.digest_of(folder, None) and entry["name"] == "v2"


def test_what_has_an_audit_is_not_due_and_the_same_files_elsewhere_are_known(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = _sources.digest_of(copied("v2"), None)
    watched.look(), watched.look()
    monkeypatch.setattr(watched, "_audited", lambda: {"v2": {digest}})
    shutil.copytree("releases/v2", "releases/copy")
    watched.look()
    assert watched.look().due == [] and statuses() == {"releases/v2": "listed", "releases/copy": "known"}
    assert watched.remembered()["places"]["releases/copy"]["reason"] == "the same files as v2, which has been audited"


def test_a_listed_release_whose_files_change_is_due_again_under_its_name(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = _sources.digest_of(copied("v2"), None)
    watched.look(), watched.look()
    monkeypatch.setattr(watched, "_audited", lambda: {"v2": {digest}})
    before = Path("params.yaml").read_text()
    changed(Path("releases/v2"))
    assert watched.look().due == [] and watched.look().due == ["v2"] and Path("params.yaml").read_text() == before


def test_broken_and_hostile_releases_are_refused_told_of_once_and_keep_nothing_back(project: Path) -> None:
    hostile, broken, _ = copied("a-hostile"), copied("b-broken"), copied("good")
    (hostile / "unet" / "weights.bin").write_bytes(b"\x80\x02")
    weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    watched.look()
    found = watched.look()
    assert found.due == ["good"] and [entry["place"] for entry in found.refused] == ["releases/a-hostile", "releases/b-broken"]
    assert "unet/weights.bin is a pickled" in found.refused[0]["reason"] and list(releases.listed(releases.text_of())) == ["v1", "good"]
    assert len(watched.look().refused) == 2, "nobody was told yet"
    for entry in found.refused:
        watched.told(entry["place"])
    assert watched.look().refused == []
    (hostile / "unet" / "weights.bin").unlink()
    watched.look()
    assert watched.look().due == ["good", "a-hostile"]


def test_a_release_that_is_copied_by_half_and_stands_still_is_refused_and_taken_when_it_is_whole(project: Path) -> None:
    folder = copied("v2")
    shutil.move(folder / "vae", "vae")
    watched.look()
    found = watched.look()
    assert found.due == [] and [entry["reason"] for entry in found.refused] == ["component vae of model_index.json has no folder; the folder is not whole"]
    shutil.move("vae", folder / "vae")
    watched.look()
    assert watched.look().due == ["v2"]


def test_a_release_that_changes_while_it_is_read_waits_too(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, read = copied("v2"), _sources.digest_of
    monkeypatch.setattr(_sources, "digest_of", lambda root, lora: (changed(folder), read(root, lora))[1])
    watched.look()
    found = watched.look()
    assert (found.due, found.noted, statuses()) == ([], ["releases/v2"], {"releases/v2": "seen"}) and Path("params.yaml").read_text() == PARAMS
    monkeypatch.setattr(_sources, "digest_of", read)
    assert watched.look().due == [] and watched.look().due == ["v2"]


def test_a_release_that_cannot_be_read_is_refused_and_keeps_no_other_back(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accepted = _sources.accepted

    def forbidden(spec: dict[str, Any]) -> Path:
        if spec["model"] == "releases/a":
            raise PermissionError(13, "Permission denied", "releases/a/model_index.json")
        return accepted(spec)

    monkeypatch.setattr(_sources, "accepted", forbidden)
    copied("a"), copied("b")
    watched.look()
    found = watched.look()
    assert found.due == ["b"] and found.refused[0]["reason"] == "cannot be read: Permission denied: releases/a/model_index.json"


def test_a_pipe_in_a_release_holds_up_no_look(project: Path) -> None:
    import os

    os.mkfifo(copied("v2") / "unet" / "pipe")
    watched.look()
    assert "unet/pipe is no ordinary file" in watched.look().refused[0]["reason"]


def test_a_name_that_is_taken_gets_digits_and_a_retired_release_does_not_come_back(project: Path) -> None:
    digest = _sources.digest_of(copied("v1"), None)
    watched.look()
    name = f"v1-{digest[:8]}"
    assert watched.look().due == [name]
    Path("params.yaml").write_text(releases.without_release(releases.text_of(), name))
    assert watched.look().due == [] and watched.look().due == [] and Path("params.yaml").read_text() == PARAMS


def test_a_release_that_failed_with_these_files_is_left_alone(project: Path) -> None:
    digest = _sources.digest_of(copied("v2"), None)
    watched.look(), watched.look()
    _tables.put_text(json.dumps({"v2": {"failure": {"digest": digest, "reason": "it cannot be loaded"}}}), audits.MEMORY)
    assert watched.look().due == []
    changed(Path("releases/v2"))
    watched.look()
    assert watched.look().due == ["v2"]


def test_of_an_owner_on_the_hub_what_is_there_at_first_is_noted_and_the_next_commit_is_taken(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = {"acme/kettle": "a" * 40}
    monkeypatch.setattr(_new_releases, "on_hub", lambda source: [_new_releases._commit(name, sha) for name, sha in commits.items()])
    monkeypatch.setattr(_sources, "accepted", lambda spec: Path("my-model"))
    Path("params.yaml").write_text(PARAMS.replace("hub: []", "hub: [acme]"))
    assert watched.look().due == [] and statuses() == {"acme/kettle": "there before"} and watched.look().due == []
    commits["acme/kettle"] = "b" * 40
    assert watched.look().due == ["kettle-bbbbbbbb"]
    assert releases.listed(releases.text_of())["kettle-bbbbbbbb"] == {"model": "acme/kettle", "revision": "b" * 40, "n_steps": 3}


def test_a_source_that_is_not_there_and_a_hub_that_does_not_answer_keep_no_other_back(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(_: str) -> Any:
        raise TryAgain("watch.hub: acme cannot be asked for now: no route")

    monkeypatch.setattr(_new_releases, "on_hub", silent)
    Path("params.yaml").write_text(PARAMS.replace("hub: []", "hub: [acme]").replace("[releases]", "[nowhere, releases]"))
    copied("v2")
    found, missing = watched.look(), "watch.folders: nowhere does not exist; name a folder of releases"
    assert found.said[:2] == [missing, "watch.hub: acme cannot be asked for now: no route"]
    assert found.wrong == [missing], "a Hub that does not answer passes by itself"
    assert watched.look().due == ["v2"]


@pytest.mark.parametrize(("was", "now", "told"), [
    ("[releases]", "releases", "watch.folders is releases; give a list such as [releases]"),
    ("n_steps: 3", "lora: x", "watch.settings.lora is no setting that new releases can be given; they are n_steps"),
    ("watch:", "watched:", "params.yaml has no block 'watch'; copy it"),
])
def test_settings_that_cannot_be_used_are_said_in_one_line(project: Path, was: str, now: str, told: str) -> None:
    Path("params.yaml").write_text(PARAMS.replace(was, now))
    with pytest.raises(UserError) as caught:
        watched.look()
    assert str(caught.value).startswith(told)


def test_of_several_that_are_due_the_first_is_asked_for_and_one_that_was_cancelled_keeps_no_other_back(project: Path) -> None:
    from prefect.client.schemas.objects import FlowRun
    from prefect.states import Cancelled, Running

    at_work, cancelled = (FlowRun(flow_id=uuid4(), state=state) for state in (Running(), Cancelled()))
    assert watch._next(["a", "b"], {}) == ["a"] and watch._next([], {"a": at_work}) == []
    assert watch._next(["a", "b"], {"a": at_work}) == [], "b is compared to a, which has no audit yet"
    assert watch._next(["b"], {"a": at_work}) == ["b"], "a is in the history, its run is about to end"
    assert watch._next(["a", "b"], {"a": cancelled}) == ["b"]


def test_two_looks_at_once_are_one(project: Path) -> None:
    with _shards.lock("watch"), pytest.raises(TryAgain, match="is at work on watch"):
        watched.look()
