"""What alerts hear: every event of every service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lamassu.kernel.records import StoredEvent
from lamassu.services.alerts.usecases import AlertsService

if TYPE_CHECKING:
    from lamassu.platform.messaging import EventBus

SOURCES: Sequence[str] = ("ca", "kms", "va", "dmsmanager", "devicemanager", "access")
"""All services that have something to tell; alerts itself changes nothing that others see."""


def subscribe(bus: EventBus, service: AlertsService) -> None:
    """Hear everything."""

    async def handle(event: StoredEvent) -> None:
        await service.count([event])

    bus.subscribe(
        consumer="alerts",
        service="alerts",
        sources=SOURCES,
        types=None,
        handler=handle,
        batch_handler=service.count,  # one transaction for many: this one hears everything
    )
