"""audit.json is what docs/audit.schema.json says, and what is missing, of another type or unknown where all is known is not."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tasks import _comparisons, _labels, _tables, duplicates, report
from tests import audit_schema
from tests.conftest import ROOT
from tests.tiny_audit import V1, V2, put_project, row

SCHEMA = json.loads((ROOT / "docs" / "audit.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
SETTINGS = {"findings": {"n_matched_controls": 40}}


@pytest.fixture
def audits(in_folder: Path) -> dict[str, dict[str, Any]]:
    """audit.json of two tiny audits: v1 returns an image, sd-v1.5 none."""
    put_project()
    return {release: json.loads(json.dumps(made(release))) for release in (V1, V2)}


def made(release: str) -> dict[str, Any]:
    place = dict.fromkeys(audit_schema.PLACE) | {"caption": "a picture"}
    found = [r | place for r in _tables.read("findings", release).to_pylist()]
    protocol = _tables.read("screening", release, side="protocol").to_pylist()[0] | {"settings": json.dumps(SETTINGS)}
    label = {"status": "ok", "protocol_digest": protocol["protocol_digest"], "reviewer": "ada", "label": "copy", "is_person": False, "is_trademark": True}
    facts = {"n_training_images": 5, "checks": [], "canaries": [row(duplicates.CANARIES)], "packages": {"torch": "2"}, "model_bytes": 10,
             "compared_at_px": 32, "sampler": {}, "descriptor": "sscd", "comparisons": [row(_comparisons.SCHEMA, release=release, arm="all")],
             "reviews": _labels.reviewed([label | {"finding_id": r["finding_id"]} for r in found if r["is_extracted"]], found, protocol["protocol_digest"]),
             "strata": {r["prompt_id"]: r["stratum"] for r in _tables.read("screening", release).to_pylist()}}
    return report.report(release, _tables.read("summary", release).to_pylist(), found, protocol, facts)


def test_the_schema_is_one_and_is_what_the_tables_say() -> None:
    VALIDATOR.check_schema(SCHEMA)
    assert (ROOT / "docs" / "audit.schema.json").read_text(encoding="utf-8") == audit_schema.page(), (
        "write it anew: python -m tests.audit_schema > docs/audit.schema.json")
    assert SCHEMA["properties"]["schema_version"]["const"] == report.SCHEMA_VERSION


def test_every_field_says_what_it_is() -> None:
    def silent(place: str, node: dict[str, Any]) -> list[str]:
        inner = [*node.get("properties", {}).items()] + ([("items", node["items"])] if "items" in node else [])
        return ([] if node.get("description") else [place]) + [found for name, held in inner for found in silent(f"{place}.{name}", held)]

    assert silent("audit", SCHEMA) == []


def test_a_real_audit_with_findings_and_one_without_are_valid(audits: dict[str, dict[str, Any]]) -> None:
    for audit in audits.values():
        VALIDATOR.validate(audit)
    assert audits[V1]["findings"] and not audits[V2]["findings"]


@pytest.mark.parametrize("release", ["v1", "v2"])
def test_the_examples_audit_is_valid(audited: Path, release: str) -> None:
    VALIDATOR.validate(json.loads((audited / "reports" / release / "audit.json").read_text(encoding="utf-8")))


def changed(audit: dict[str, Any], change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    made = copy.deepcopy(audit)
    change(made)
    return made


@pytest.mark.parametrize("change", [
    lambda a: a["findings"][0].update(l3=1), lambda a: a["findings"][0].pop("margin"), lambda a: a["findings"][0].update(seed="7"),
    lambda a: a["arms"][0].update(extraction_rate="0.5"), lambda a: a["arms"][0].update(n_prompts=None), lambda a: a["controls"].update(n=-1),
    lambda a: a["totals"].pop("evaluations"), lambda a: a["limits"].update(smallest_p=1.5), lambda a: a["checks"].update(passed=1),
    lambda a: a.update(schema_version=2), lambda a: a.update(verdict=None), lambda a: a.update(model_digest="no digest"),
    lambda a: a.update(findings={}),
], ids=["unknown column", "missing column", "text for a number", "text for a rate", "null for a count", "negative count", "missing total", "p above 1",
        "unknown in checks", "another version", "no verdict", "no digest", "no list"])
def test_what_is_not_as_said_is_not_valid(audits: dict[str, dict[str, Any]], change: Callable[[dict[str, Any]], Any]) -> None:
    assert not VALIDATOR.is_valid(changed(audits[V1], change))


def test_a_missing_field_is_noticed_and_a_further_one_at_the_top_is_no_matter(audits: dict[str, dict[str, Any]]) -> None:
    for name in SCHEMA["required"]:
        assert not VALIDATOR.is_valid(changed(audits[V1], lambda a, name=name: a.pop(name))), name
    assert VALIDATOR.is_valid(audits[V1] | {"something_new": 1})
