"""The automations that the project ships, as Prefect's server will read them; tests/test_watch.py has them act, tests/test_cancelling.py too."""

import json
from pathlib import Path
from uuid import uuid4

import jinja2
import pytest
import yaml
from prefect.events.actions import CallWebhook

from flows import alerts
from tasks._settings import UserError
from tests.conftest import ROOT, eidetic

HOSTILE = 'v9: "}, {{ 7 * 7 }}\n</script> “more”'


def test_an_alert_is_json_whatever_its_text_holds() -> None:
    event = {"event": "audit.finished", "payload": {"text": HOSTILE, "release": "v9"}}
    rendered = jinja2.Environment(autoescape=False).from_string(alerts.PAYLOAD).render(event=event)
    assert json.loads(rendered) == {"text": HOSTILE, "event": "audit.finished", "release": "v9"}


def test_an_alert_is_of_our_releases_alone() -> None:
    made = alerts.alerts(CallWebhook(block_document_id=uuid4(), payload=alerts.PAYLOAD), list(alerts.EVENTS))
    assert made.trigger.match.root == {"prefect.resource.id": "eidetic.release.*"} and made.trigger.expect == set(alerts.EVENTS)


def test_only_runs_of_our_pool_are_judged_by_their_heartbeat_and_several_may_be_late() -> None:
    deployed = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert {d["work_pool"]["name"] for d in deployed} == {alerts.POOL} == set(alerts.zombies().trigger.match_related.root.values()) - {"work-pool"}
    seconds = {int(d["work_pool"]["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]) for d in deployed}
    assert all(4 * each <= alerts.SECONDS_WITHOUT for each in seconds)


def test_an_event_that_there_is_not_is_refused_beside_those_there_are() -> None:
    with pytest.raises(UserError, match=r"^no event 'audit.lost'; there are audit.finished, audit.regressed, audit.failed, release.refused$"):
        alerts.put(None, ["audit.lost"])


def test_a_block_that_there_is_not_is_one_line(in_folder: Path) -> None:
    done = eidetic(in_folder, "alerts", "slack-webhook/ours")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("eidetic: 'slack-webhook/ours' is no webhook's address, nor a block of Prefect's")
