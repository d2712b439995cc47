"""Prefect's automations that the project ships: alerts on its events, and runs marked as crashed whose process is no more."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import CallWebhook, ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound

from flows import audits
from tasks._settings import UserError

ALERTS, ZOMBIES = "eidetic: alerts", "eidetic: runs without a heartbeat"
BLOCK = "eidetic-alerts"
EVENTS = (audits.FINISHED, audits.REGRESSED, audits.FAILED, audits.REFUSED)
# `text` is what Slack, Mattermost and others show of a webhook's JSON
PAYLOAD = """{"text": {{ event.payload.text | tojson }}, "event": {{ event.event | tojson }}, "release": {{ event.payload.release | tojson }}}"""
ENDS = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed", "TryAgain")}
HEARTBEAT = "prefect.flow-run.heartbeat"
POOL = "eidetic"  # of prefect.yaml: runs of others, with heartbeats of their own, are not judged
SECONDS_WITHOUT = 120  # of four heartbeats, as prefect.yaml has them


def put(to: str | None, events: list[str]) -> list[str]:
    """Put the automations on the server, in place of those of the same name; what each does, a line each.

    to = a webhook's address, or a notification block as `type/name`; None: no alerts. Raises UserError where it is neither.
    """
    unknown = sorted(set(events) - set(EVENTS))
    if unknown:
        raise UserError(f"no event '{unknown[0]}'; there are {', '.join(EVENTS)}")
    with get_client(sync_client=True) as client:
        made = [zombies()]
        if to is not None:
            made.append(alerts(_action(client, to), events))
        for automation in made:
            _put(client, automation)
    return [f"{automation.name}: {automation.description}" for automation in made]


def alerts(action: CallWebhook | SendNotification, events: list[str]) -> AutomationCore:
    """Each of these events of a release's, at once."""
    trigger = EventTrigger(expect=set(events), match={"prefect.resource.id": f"{audits.RESOURCE}.*"}, posture=Posture.Reactive, threshold=1)
    return AutomationCore(name=ALERTS, description=f"tells of {', '.join(sorted(events))}", trigger=trigger, actions=[action])


def zombies() -> AutomationCore:
    """A run that was killed with its machine stays `Running` for Prefect, and holds its place in the queue: it is marked as crashed."""
    related: dict[str, str | list[str]] = {"prefect.resource.role": "work-pool", "prefect.resource.name": POOL}
    trigger = EventTrigger(after={HEARTBEAT}, expect={HEARTBEAT, *ENDS}, match={"prefect.resource.id": "prefect.flow-run.*"}, match_related=related,
                           for_each={"prefect.resource.id"}, posture=Posture.Proactive, threshold=1, within=timedelta(seconds=SECONDS_WITHOUT))
    crashed = ChangeFlowRunState(name=None, state=StateType.CRASHED, force=False, message=f"no heartbeat for {SECONDS_WITHOUT} s: its process is no more")
    return AutomationCore(name=ZOMBIES, description=f"marks runs as crashed that gave no heartbeat for {SECONDS_WITHOUT} s", trigger=trigger,
                          actions=[crashed])


def _action(client: SyncPrefectClient, to: str) -> CallWebhook | SendNotification:
    if "://" in to:
        block: Any = Webhook.model_validate({"url": to, "headers": {"content-type": "application/json"}})
        return CallWebhook(block_document_id=UUID(str(block.save(BLOCK, overwrite=True, _sync=True))), payload=PAYLOAD)
    kind, _, name = to.partition("/")
    try:
        document = client.read_block_document_by_name(name, kind)
    except ObjectNotFound:
        raise UserError(f"'{to}' is no webhook's address, nor a block of Prefect's as `prefect block ls` lists them (type/name)") from None
    return SendNotification(block_document_id=document.id, subject="Eidetic: {{ event.payload.release }}", body="{{ event.payload.text }}")


def _put(client: SyncPrefectClient, automation: AutomationCore) -> None:
    there = client.read_automations_by_name(automation.name)
    for extra in there[1:]:
        client.delete_automation(extra.id)
    if there:
        client.update_automation(there[0].id, automation)
    else:
        client.create_automation(automation)
