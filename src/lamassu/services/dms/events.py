"""What the DMS manager hears from the device manager. An event is a hint (rule 30)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamassu.services.dms.usecases import DmsService

if TYPE_CHECKING:
    from lamassu.platform.messaging import EventBus

DEVICE_IDENTITY = "device.identity.update"


def subscribe(bus: EventBus, service: DmsService) -> None:
    """Tell of enrolments, and make up for revocations that a crash left undone."""
    bus.subscribe(
        consumer="dms",
        service="dmsmanager",
        sources=["devicemanager"],
        types=[DEVICE_IDENTITY],
        handler=service.announce,
        batch_handler=service.announce_all,
    )
