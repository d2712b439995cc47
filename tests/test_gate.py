"""The gate passes what was measured within its bounds; what is not known, not current or not comparable fails, with the way out."""

import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest

from flows import cli
from tasks import _gate, warehouse
from tasks._settings import UserError
from tests.conftest import ROOT
from tests.tiny_audit import SETTINGS, V1, V2, put_model, put_params, put_project, put_release

BOUNDS = _gate.Bounds(max_rate=0.5, max_new=0)


@pytest.fixture
def project(in_folder: Path) -> Path:
    """v1 returns one image, sd-v1.5 none; the database is built."""
    shutil.copytree(ROOT / "sql", "sql")
    put_project()
    warehouse.main()
    return in_folder


def decided(release: str, bounds: _gate.Bounds = BOUNDS) -> str:
    """What is said of a release that is not passed; nothing of one that is."""
    decision, = _gate.decisions(warehouse.DATABASE, [release], bounds)
    assert decision.is_passed == str(decision).startswith(f"{release}: passes: ")
    return "" if decision.is_passed else str(decision).removeprefix(f"{release}: fails: ")


def row(**values: Any) -> dict[str, Any]:
    """A row of the view `gate`: of 64 prompts one comes back, as from the release before."""
    said = {"release": "r", "status": "current", "reason": None, "n_failed_checks": 0, "arm": "duplicated", "n_prompts": 64, "n_findings": 1,
            "extraction_rate": 1 / 64, "low": 0.0004, "high": 0.084, "n_controls": 64, "n_controls_flagged": 0, "against": "q", "outcome": "no_evidence",
            "not_comparable_reason": None, "n_new_images": 0, "n_new_undrawn": 0}
    return said | values


def test_a_release_passes_or_fails_by_what_it_returns_and_says_by_which_numbers(project: Path) -> None:
    assert decided(V1) == ("extraction rate 100 % (1 of 1 prompts of arm duplicated, 95 % interval 2.5 % to 100 %, 0 of 2 controls flagged) "
                           "is above 50 %")
    assert decided(V1, _gate.Bounds(max_rate=1, max_new=0)) == decided(V2) == "", "v1 has no release before it"
    put_release(V2, {11, 14})
    warehouse.main()
    assert decided(V2, _gate.Bounds(max_new=0)) == "1 image that 'v1' did not return, more than 0"
    assert decided(V2, _gate.Bounds(max_new=1)) == ""


def test_an_image_of_which_the_other_release_drew_no_picture_is_new_and_that_is_said(project: Path) -> None:
    put_release(V2, {14})
    warehouse.main()
    with duckdb.connect("findings.duckdb") as connection:
        connection.execute(f"update findings set n_generations = 0 where release = '{V1}' and prompt_id = 14")
    assert decided(V2, _gate.Bounds(max_new=0)) == (
        "1 image that 'v1' did not return (1 of them on prompts of which that one drew no picture), more than 0")


def test_a_stale_refused_or_unknown_release_fails_whatever_the_bounds(project: Path) -> None:
    assert decided("v9", _gate.Bounds()) == "the database does not have it yet; run `eidetic audit v9`"
    put_model(V1, "2" * 64)
    warehouse.main()
    assert "files of release 'v1' have changed since its audit; run `eidetic audit v1`" in decided(V1, _gate.Bounds())
    assert decided(V2, _gate.Bounds()) == "" and decided(V2).startswith("it cannot be compared with 'v1': the files of release 'v1' have changed")
    put_model(V2, status="refused", reason="x.bin is pickled")
    put_model(V1)
    warehouse.main()
    assert decided(V2, _gate.Bounds()) == "release 'sd-v1.5' is refused: x.bin is pickled"


def test_releases_that_cannot_be_compared_break_the_bound_on_new_images_alone(project: Path) -> None:
    put_release(V2, set(), SETTINGS | {"generations": {"seed": 1}})
    warehouse.main()
    assert decided(V2).startswith("it cannot be compared with 'v1': generations.seed was 1") and decided(V2, _gate.Bounds(max_rate=0)) == ""


def test_a_failed_check_fails_its_release_and_one_of_a_shared_table_fails_all(project: Path) -> None:
    with duckdb.connect("findings.duckdb") as connection:
        connection.execute(f"update checks set is_passed = false where release = '{V1}' and table_name = 'findings'")
    assert decided(V1, _gate.Bounds()) == "1 check failed; see `eidetic checks`" and decided(V2, _gate.Bounds()) == ""
    with duckdb.connect("findings.duckdb") as connection:
        connection.execute("update checks set is_passed = false where table_name = 'duplicates'")
    assert decided(V2, _gate.Bounds()) == "1 check failed; see `eidetic checks`"


def test_the_rate_is_that_of_the_arm_the_verdict_is_about(project: Path) -> None:
    with duckdb.connect("findings.duckdb") as connection:
        arms = dict(connection.execute("select release, arm from gate").fetchall())
        connection.execute("delete from summary where arm = 'duplicated'")
        others = dict(connection.execute("select release, arm from gate").fetchall())
        connection.execute("delete from summary where arm != 'held_out'")
        assert connection.execute("select distinct arm, extraction_rate from gate").fetchall() == [(None, None)]
    assert (set(arms.values()), set(others.values())) == ({"duplicated"}, {"singleton"})
    assert decided(V1, _gate.Bounds(max_rate=1)) == "no extraction rate was measured: no target was prompted"


@pytest.mark.parametrize(("by", "max_rate", "is_passed"), [
    ("measured", 1 / 64, True), ("measured", 0.015, False), ("low", 0.001, True), ("low", 0.0, False), ("high", 0.084, True), ("high", 0.08, False)])
def test_the_bound_is_held_against_the_rate_or_an_end_of_its_interval(by: str, max_rate: float, is_passed: bool) -> None:
    assert _gate.decision("r", row(), _gate.Bounds(max_rate, by)).is_passed is is_passed


@pytest.mark.parametrize(("values", "said"), [
    ({"extraction_rate": None}, "no extraction rate was measured: no training picture was there to compare with"),
    ({"n_controls": 0, "extraction_rate": 0.6}, "no controls) is above 50 %"),
    ({"n_new_images": None, "not_comparable_reason": "why"}, "it cannot be compared with 'q': why"),
    ({"extraction_rate": 0.6, "n_new_images": 2}, "is above 50 %; 2 images that 'q' did not return, more than 0"),
])
def test_every_bound_that_is_broken_is_named_and_no_other(values: dict[str, Any], said: str) -> None:
    decision = _gate.decision("r", row(**values), BOUNDS)
    assert not decision.is_passed and str(decision).endswith(said) and "at most" not in str(decision)


def test_the_command_line_exits_with_1_where_one_release_fails(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: str) -> tuple[int, list[str], str]:
        monkeypatch.setattr("sys.argv", ["eidetic", "gate", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, complaint = capsys.readouterr()
        return int(ended.value.code or 0), out.splitlines(), complaint

    code, said, complaint = run("--max-rate", "0.01", "--max-new", "0")
    assert (code, complaint) == (1, "") and [line.split(": ")[:2] for line in said] == [[V1, "fails"], [V2, "passes"]]
    code, said, _ = run(V2, "--max-rate", "0.01", "--max-new", "0")
    assert code == 0 and said[0].endswith("is at most 1 %; 0 images that 'v1' did not return, at most 0")
    assert run(V2, "--max-rate", "0.01", "--by", "high")[0] == 1
    assert run("--max-rate", "2")[0] == 2 and run("v9")[2].startswith("eidetic: no release 'v9' in params.yaml")
    put_params({V1: {}, "v3": {}})
    assert run("v3")[:2] == (1, ["v3: fails: the database does not have it yet; run `eidetic audit v3`"])
    warehouse.DATABASE.unlink()
    assert run(V1) == (1, [], "eidetic: findings.duckdb does not exist; make it with `dvc repro warehouse`\n")


def test_without_a_database_there_is_no_decision(in_folder: Path) -> None:
    with pytest.raises(UserError, match="dvc repro warehouse"):
        _gate.decisions(warehouse.DATABASE, [V1], BOUNDS)
