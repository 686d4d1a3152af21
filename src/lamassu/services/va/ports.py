"""What the VA needs of its store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from lamassu.kernel.records import AuditRecord, Event
from lamassu.services.va.contract import Crl, CrlRole
from lamassu.services.va.model import FilterState, Responder, RoleState, StoredFilter

Pause = Callable[[float], Awaitable[None]]
"""Waits for so many seconds."""


class VaUnit(Protocol):
    """One transaction over roles and CRLs, with its events and audit records."""

    def emit(self, event: Event) -> None:
        """Publish this once the transaction has committed."""
        ...

    def audit(self, record: AuditRecord) -> None:
        """Record this with the transaction."""
        ...

    async def add_role(self, role: CrlRole) -> None:
        """Raises `Conflict` if the CA has one already."""
        ...

    async def lock_role(self, ca_ski: str) -> CrlRole | None:
        """The role, unchanged by others until this transaction ends."""
        ...

    async def save_role(self, role: CrlRole) -> None:
        """Write a locked role."""
        ...

    async def take_number(self, ca_ski: str) -> int:
        """The next CRL number of a locked role; it is never given again."""
        ...

    async def latest_crl(self, ca_ski: str) -> Crl | None:
        """The newest CRL of a locked role."""
        ...

    async def skip_numbers(self, ca_ski: str, following: int) -> bool:
        """The next CRL number of a locked role is at least this one; whether it was less."""
        ...

    async def add_responder(self, responder: Responder) -> None:
        """Store a responder that waits for its certificate."""
        ...

    async def certify_responder(self, responder: Responder) -> None:
        """Store a responder's certificate, in place of one that it had."""
        ...

    async def take_filter_number(self, ca_ski: str) -> int:
        """The next number of a locked role's filters; it is never given again."""
        ...

    async def has_filter(self, ca_ski: str, number: int) -> bool:
        """Whether this is the newest full filter of a locked role."""
        ...

    async def add_filter(self, made: StoredFilter) -> None:
        """Store a filter in place of those before it, a delta in place of other deltas."""
        ...

    async def add_crl(self, crl: Crl, *, keep: int) -> None:
        """Store a CRL and forget all but the `keep` newest of its CA."""
        ...


class VaStorage(Protocol):
    """Roles and CRLs."""

    def unit(self) -> AbstractAsyncContextManager[VaUnit]:
        """A write transaction: commits at exit, rolls back on an error."""
        ...

    async def find_role(self, ca_ski: str) -> RoleState | None:
        """The role of the CA with this subject key identifier, and its newest CRL."""
        ...

    async def find_role_of_ca(self, ca_id: str) -> RoleState | None:
        """The same by the CA's id."""
        ...

    async def find_crl(self, ca_ski: str, number: int) -> Crl | None:
        """A stored CRL with its bytes."""
        ...

    async def responders(self, ca_id: str | None = None) -> Sequence[Responder]:
        """The responders of an offline CA, or of all, the oldest first."""
        ...

    async def filters(self, ca_ski: str) -> FilterState:
        """The filters of a CA that are kept."""
        ...

    async def find_filter(self, ca_ski: str, number: int) -> StoredFilter | None:
        """A stored filter with its octets."""
        ...

    async def roles(self) -> Sequence[RoleState]:
        """Every role with its newest CRL."""
        ...
