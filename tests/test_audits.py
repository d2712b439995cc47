"""What people are told of audits: the words of a comparison with its interval, each event once, on two tiny audits."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from flows import audits
from tasks import _database, _tables, warehouse
from tests.conftest import ROOT
from tests.tiny_audit import V1, V2, put_project

ROW = {"release": "v3", "kind": "previous", "arm": "all", "against": "v2", "outcome": "worse", "reason": None, "n_clusters": 96, "n_unpaired": 0,
       "n_both": 3, "n_only_later": 13, "n_only_earlier": 1, "difference": 0.125, "low": 0.0412, "high": 0.2068, "p_value": 0.002}
WORDS = "worse, +12.5 percentage points (95 % interval +4.1 to +20.7; of 96 clusters 13 come back only now, 1 only then)"


@pytest.fixture
def told(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """Events, releases and texts that were emitted, in a project with two tiny audits."""
    shutil.copytree(ROOT / "sql", "sql")
    put_project()
    warehouse.main()
    for release in (V1, V2):
        _tables.put_text(json.dumps({"verdict": f"{release}: nothing"}), Path("reports") / release / "audit.json")
    found: list[tuple[str, str, str]] = []

    def emit(event: str, resource: dict[str, str], payload: dict[str, Any]) -> None:
        assert resource["prefect.resource.id"] == f"eidetic.release.{payload['release']}"
        found.append((event, payload["release"], payload["text"]))

    monkeypatch.setattr(audits, "emit_event", emit)
    return found


def test_a_comparison_is_said_with_its_interval_and_its_counts() -> None:
    assert audits.finished_text("v3: 4 come back", [ROW, ROW | {"arm": "duplicated"}]) == f"v3: 4 come back; compared to v2: {WORDS}"
    open_ = audits.finished_text("v3", [ROW | {"outcome": "no_evidence", "difference": -0.01, "low": -0.05, "high": 0.03}])
    assert "no evidence of a change, -1.0 percentage points (95 % interval -5.0 to +3.0" in open_
    assert audits.finished_text("v3", [ROW | {"outcome": "not_comparable", "reason": "other prompts"}]) == "v3; compared to v2: not comparable: other prompts"


def test_a_regression_names_the_arms_that_are_worse_and_the_images_that_came_back() -> None:
    rows = [ROW, ROW | {"arm": "duplicated", "difference": 0.2}, ROW | {"arm": "singleton", "outcome": "better"},
            ROW | {"kind": "base", "against": "v0", "outcome": "no_evidence"}]
    returned = [{"kind": "previous", "against": "v2", "key": f"{i}.png"} for i in range(7)]
    said = audits.regressed_text("v3", rows, returned)
    assert said == (f"v3 is worse than v2: {WORDS}; duplicated: {WORDS.replace('12.5', '20.0')}; "
                    "came back only now: 0.png, 1.png, 2.png, 3.png, 4.png and 2 more")


def test_an_audit_is_told_of_once_and_another_audit_of_the_release_again(told: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    texts = audits.tell([V1, V2], {})
    assert [event[:2] for event in told] == [("audit.finished", V1), ("audit.finished", V2)] and texts == [event[2] for event in told]
    assert f"compared to {V1}: " in told[1][2]
    assert audits.tell([V1, V2], {}) == [] and audits.tell([V1], {}) == []
    monkeypatch.setattr(audits, "_current", lambda _: [(V1, "another", [])])
    assert len(audits.tell([V1], {})) == 1


def test_a_release_that_is_worse_is_told_of_as_such_once_and_again_when_only_the_comparison_has_moved(told: list[Any],
                                                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [ROW | {"release": V2, "against": V1}]
    monkeypatch.setattr(audits, "_current", lambda _: [(V2, "one", rows)])
    audits.tell([V2], {}), audits.tell([V2], {})
    assert [event[0] for event in told] == ["audit.finished", "audit.regressed"] and told[1][2].startswith(f"{V2} is worse than {V1}: worse, +12.5")
    rows[0] = rows[0] | {"outcome": "no_evidence"}
    audits.tell([V2], {})
    rows[0] = rows[0] | {"outcome": "worse"}
    audits.tell([V2], {})
    assert [event[0] for event in told[2:]] == ["audit.regressed"]


def test_a_failure_is_told_of_once_for_its_reason_and_is_forgotten_when_the_audit_succeeds(told: list[Any]) -> None:
    for _ in range(2):
        audits.tell([], {V1: "report@v1: it is broken"})
    assert told == [("audit.failed", V1, f"{V1}: the audit failed: report@v1: it is broken")]
    assert audits.failures() == {V1: "report@v1: it is broken"} and set(audits.failed()) == {V1}
    audits.tell([], {V1: "report@v1: it is gone"})
    assert len(told) == 2
    audits.tell([V1], {})
    assert audits.failures() == {} == audits.failed()
    audits.tell([], {V1: "report@v1: it is gone"})
    assert len(told) == 4


def test_a_release_of_which_a_stage_was_killed_is_told_of_once_and_left_alone_from_the_second_time_on(told: list[Any]) -> None:
    reason = {V1: "screening@v1: the stage was killed"}
    audits.tell([], reason, killed={V1})
    assert audits.failed() == {} and audits.failures() == reason
    audits.tell([], reason, killed={V1})
    assert set(audits.failed()) == {V1} and len(told) == 1
    audits.tell([V1], {})
    audits.tell([], reason, killed={V1})
    assert audits.failed() == {}, "an audit that succeeds in between lets it be tried again"


def test_what_fails_for_all_releases_leaves_none_of_them_alone(told: list[Any]) -> None:
    audits.tell([], {V1: "images: no such folder", V2: "images: no such folder"}, is_shared=True)
    assert len(told) == 2 and audits.failed() == {} and set(audits.failures()) == {V1, V2}


def test_what_came_back_is_read_from_the_database_with_new_images_first(told: list[Any]) -> None:
    counted = _database.rows(Path("findings.duckdb"), f"select count(*) as n from regressions where release = '{V2}'").to_pylist()[0]["n"]
    assert len(audits._returned(V2)) == counted and all(set(row) == {"release", "kind", "against", "key"} for row in audits._returned(V2))
