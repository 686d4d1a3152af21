"""What alerts need of a database."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from lamassu.kernel.records import AuditRecord
from lamassu.services.alerts.model import LatestEvent


class AlertsUnit(Protocol):
    """One transaction."""

    async def lock_position(self, source: str) -> int:
        """The journal position of a service up to which events were counted; 0 at first.

        Nobody else counts this service's events until the unit ends.
        """
        ...

    async def set_position(self, source: str, position: int) -> None:
        """Remember how far events were counted."""
        ...

    async def count_earlier(self, seen: LatestEvent) -> None:
        """Add `seen.counter` to the count of a type, whose event here is the newer one if there
        is one."""
        ...

    def audit(self, record: AuditRecord) -> None:
        """Have the record committed with the rows."""
        ...

    async def count(self, seen: LatestEvent) -> None:
        """Put the event in place of the one before it and add `seen.counter` to its count."""
        ...


class AlertsStore(Protocol):
    """The latest events."""

    def unit(self) -> AbstractAsyncContextManager[AlertsUnit]:
        """A transaction that commits at its end and rolls back on an error."""
        ...

    async def latest(self) -> Sequence[LatestEvent]:
        """One per type, by type."""
        ...
