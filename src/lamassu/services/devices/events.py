"""What the device manager hears from the CA. An event is a hint; the CA is asked (rule 30)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamassu.kernel.records import StoredEvent
from lamassu.services.devices.usecases import DeviceService

if TYPE_CHECKING:
    from lamassu.platform.messaging import EventBus

CERTIFICATE_STATUS = "certificate.status.update"
CA_STATUS = "ca.status.update"


def subscribe(bus: EventBus, service: DeviceService) -> None:
    """Follow the status of certificates and of the CAs above them."""
    handlers = DeviceEvents(service)
    bus.subscribe(
        consumer="devices",
        service="devicemanager",
        sources=["ca"],
        types=[CERTIFICATE_STATUS, CA_STATUS],
        handler=handlers.handle,
    )


class DeviceEvents:
    """Handlers, idempotent and free of any order."""

    def __init__(self, service: DeviceService) -> None:
        self._service = service

    async def handle(self, event: StoredEvent) -> None:
        """Only the subject is believed: which certificate or CA it is about."""
        kind, _, name = event.subject.partition("/")
        if not name:
            return
        if event.type == CERTIFICATE_STATUS and kind == "certificate":
            await self._service.follow_certificate(name)
        elif event.type == CA_STATUS and kind == "ca":
            await self._service.follow_authority(name)
