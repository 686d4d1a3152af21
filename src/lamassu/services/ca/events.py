"""What the CA does on its own events: repair what stands in another slice's tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lamassu.kernel.identity import system_caller
from lamassu.kernel.records import StoredEvent
from lamassu.services.ca.usecases import CaService

if TYPE_CHECKING:
    from lamassu.platform.messaging import EventBus

CALLER = system_caller("ca")
TYPES = ("ca.create", "ca.import", "ca.reissue", "certificate.create")


class KeyKeeper:
    """Binds the keys of CAs and of created certificates in the KMS, should a crash have come
    between the two commits.

    Idempotent. As a consumer begins with the first event ever, CAs made before bindings were
    kept get theirs too.
    """

    def __init__(self, service: CaService) -> None:
        self._service = service

    async def handle(self, event: StoredEvent) -> None:
        """Only the subject is believed. Raises `Unavailable` when the event should come again."""
        kind, _, name = event.subject.partition("/")
        if kind == "ca":
            await self._service.hold_key_of(name, caller=CALLER)
        elif kind == "certificate":
            await self._service.hold_key_of_certificate(name, caller=CALLER)


class KeyRemover:
    """Removes the keys of deleted CAs, should a crash have come between the two commits.
    Idempotent."""

    def __init__(self, service: CaService) -> None:
        self._service = service

    async def handle(self, event: StoredEvent) -> None:
        """A key that any CA has stays, whatever the event says."""
        data = event.data
        key_id = data.get("KeyID") if isinstance(data, Mapping) else None
        if isinstance(key_id, str):
            await self._service.deletions.release_key(key_id, caller=CALLER)


class KeyFollower:
    """Shows a CA's engine as it is, should a crash have come between the KMS's commit of a move
    and the CA's. Idempotent."""

    def __init__(self, service: CaService) -> None:
        self._service = service

    async def handle(self, event: StoredEvent) -> None:
        """Only the subject is believed."""
        kind, _, key_id = event.subject.partition("/")
        if kind == "kms":
            await self._service.key_moving.follow(key_id, caller=CALLER)


def subscribe(bus: EventBus, service: CaService) -> None:
    """Follow the CA's own making of CAs, and moves of keys."""
    keeper = KeyKeeper(service)
    bus.subscribe(
        consumer="ca-keys", service="ca", sources=["ca"], types=TYPES, handler=keeper.handle
    )
    bus.subscribe(
        consumer="ca-deleted-keys",
        service="ca",
        sources=["ca"],
        types=["ca.delete"],
        handler=KeyRemover(service).handle,
    )
    bus.subscribe(
        consumer="ca-key-moves",
        service="ca",
        sources=["kms"],
        types=["kms.move"],
        handler=KeyFollower(service).handle,
    )
