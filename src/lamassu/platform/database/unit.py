"""One transaction and what it leaves behind."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from lamassu.kernel.records import AuditRecord, Event


class Unit:
    """A write transaction of one service.

    `connection` is for the service's storage and is not to be committed, rolled back or kept.
    What is emitted and audited is written to the outbox at the end, in the same transaction.
    """

    __slots__ = ("connection", "records", "service")

    def __init__(self, service: str, connection: AsyncConnection) -> None:
        self.service = service
        self.connection = connection
        self.records: list[Event | AuditRecord] = []

    def emit(self, event: Event) -> None:
        """Tell the others, once this transaction has committed."""
        self.records.append(event)

    def audit(self, record: AuditRecord) -> None:
        """Keep who did what, if and only if it commits."""
        self.records.append(record)
