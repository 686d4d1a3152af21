"""What the DMS manager needs from the outside beside other slices' contracts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from lamassu.kernel.listing import ListQuery, Page
from lamassu.kernel.records import AuditRecord, Event
from lamassu.services.dms.model.dms import BootstrapUse, Dms


class DmsUnit(Protocol):
    """A write transaction: commits at the end of its block, or nothing of it stays."""

    async def insert(self, dms: Dms) -> None:
        """Raises `Conflict` (`DMS already exists`)."""
        ...

    async def find_locked(self, dms_id: str) -> Dms | None:
        """The DMS, its row locked until the unit ends."""
        ...

    async def update(self, dms: Dms) -> None:
        """Write a DMS that was read by `find_locked`."""
        ...

    async def delete(self, dms_id: str) -> None:
        """Remove a DMS that was read by `find_locked`."""
        ...

    async def claim_bootstrap(self, use: BootstrapUse) -> BootstrapUse:
        """Record the use, unless there is one: returns the use that stands."""
        ...

    async def release_bootstrap(self, use: BootstrapUse) -> bool:
        """Take back a use whose device got no certificate after all.

        It stays (false) if another request met it meanwhile, which may have issued under it.
        """
        ...

    async def announce(self, versions: Mapping[str, int]) -> Collection[str]:
        """Note up to which version these devices were told of; the ids of those of whom no such
        version, nor a later one, had been."""
        ...

    def emit(self, event: Event) -> None:
        """Have the event commit with this unit."""
        ...

    def audit(self, record: AuditRecord) -> None:
        """Have the audit record commit with this unit."""
        ...


class DmsStore(Protocol):
    """DMSs and what goes with them, as stored."""

    def unit(self) -> AbstractAsyncContextManager[DmsUnit]:
        """Begin a write transaction."""
        ...

    async def find(self, dms_id: str) -> Dms | None:
        """A DMS by its exact id."""
        ...

    async def list(self, query: ListQuery) -> Page[Dms]:
        """A page of DMSs."""
        ...

    async def count(self, query: ListQuery) -> int:
        """How many DMSs meet the query's filters."""
        ...

    async def find_bootstrap_use(self, issuer_sha256: str, serial: str) -> BootstrapUse | None:
        """The first use of a single-use bootstrap certificate."""
        ...
