"""What the VA does on hearing of others' changes: repair, should a call have been lost.

Events are hints (security rule 30): each handler reads the CA's state anew.
"""

from __future__ import annotations

from collections.abc import Sequence

from lamassu.kernel.errors import NotFound
from lamassu.kernel.records import StoredEvent
from lamassu.platform.messaging import EventBus
from lamassu.services.ca.contract import Authorities
from lamassu.services.va.usecases import VaService

CONSUMER = "va"
TYPES = (
    "ca.create",
    "ca.import",
    "ca.reissue",
    "ca.delete",
    "ca.status.update",
    "certificate.status.update",
)


class CaFollower:
    """Handles the CA service's events. Idempotent: what is right already is left alone."""

    def __init__(self, *, service: VaService, authorities: Authorities) -> None:
        self._service = service
        self._authorities = authorities

    async def handle(self, event: StoredEvent) -> None:
        """Raises `Unavailable` when the event should come again."""
        kind, _, name = event.subject.partition("/")
        affected = await (
            self._of_certificate(name) if kind == "certificate" else self._of_ca(name)
        )
        for ca_id in affected:
            await self._service.repair(ca_id, told_at=event.time)

    async def _of_certificate(self, serial_number: str) -> Sequence[str]:
        certificate = await self._authorities.find_certificate(serial_number)
        return () if certificate is None else (certificate.issuer_ca_id,)

    async def _of_ca(self, ca_id: str) -> Sequence[str]:
        """The CA, and the one above it, whose CRL lists it."""
        self._service.forget_issuers()
        try:
            authority = await self._authorities.get_ca(ca_id)
        except NotFound:
            return ()
        return (ca_id,) if authority.parent_id is None else (ca_id, authority.parent_id)


def subscribe(bus: EventBus, service: VaService, *, authorities: Authorities) -> None:
    """Listen to the CA service."""
    follower = CaFollower(service=service, authorities=authorities)
    bus.subscribe(
        consumer=CONSUMER, service="va", sources=["ca"], types=TYPES, handler=follower.handle
    )
