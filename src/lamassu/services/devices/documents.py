"""A device as a JSON document: the same in answers and in events (contract/devices.md §2)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from lamassu.kernel.records import Json
from lamassu.services.devices.contract import Device, IdentitySlot, TimelineEvent

SLOT_TYPE = "x509"


def device_document(device: Device) -> dict[str, Json]:
    """The device in the wire's names; `identity` is absent while it has none."""
    document: dict[str, Json] = {
        "id": device.id,
        "tags": list(device.tags),
        "status": device.status.value,
        "icon": device.icon,
        "icon_color": device.icon_color,
        "creation_timestamp": rfc3339_nano(device.created_at),
        "metadata": device.metadata,
        "dms_owner": device.dms_id,
        "slots": {},
        "events": history_document(device.events),
    }
    if device.slot is not None:
        document["identity"] = slot_document(device.slot)
    return document


def slot_document(slot: IdentitySlot) -> dict[str, Json]:
    """The identity slot; version numbers are keys, therefore strings."""
    document: dict[str, Json] = {
        "status": slot.status.value,
        "active_version": slot.active_version,
        "type": SLOT_TYPE,
        "versions": {str(v.number): v.serial_number for v in slot.versions},
        "events": history_document(slot.events),
    }
    if slot.expires_at is not None:
        document["expiration_date"] = rfc3339_nano(slot.expires_at)
    return document


def history_document(events: Sequence[TimelineEvent]) -> dict[str, Json]:
    """Events keyed by time. Two of one instant are told apart by a nanosecond."""
    document: dict[str, Json] = {}
    for event in events:
        nanoseconds = 0
        while (key := rfc3339_nano(event.at, nanoseconds)) in document:
            nanoseconds += 1
        document[key] = {"type": event.type, "description": event.description}
    return document


def rfc3339_nano(at: datetime, nanoseconds: int = 0) -> str:
    """RFC 3339 in UTC with as many decimals as it takes, at most nine.

    `nanoseconds` (below 1000) are added to what a `datetime` can hold.
    """
    moment = at.astimezone(UTC)
    fraction = f"{moment.microsecond * 1000 + nanoseconds:09d}".rstrip("0")
    return f"{moment:%Y-%m-%dT%H:%M:%S}{'.' + fraction if fraction else ''}Z"
