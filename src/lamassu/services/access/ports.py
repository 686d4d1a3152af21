"""What access needs: its rows, and files of the host that nobody else may read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from lamassu.kernel.records import AuditRecord, Event
from lamassu.services.access.contract import Credential, CredentialKind, Mode
from lamassu.services.access.model import Authority, AuthorityRole
from lamassu.services.ca.contract import AdminStanding


class AccessUnit(Protocol):
    """One transaction, with its audit records."""

    def emit(self, event: Event) -> None:
        """Publish this once the transaction has committed."""
        ...

    def audit(self, record: AuditRecord) -> None:
        """Record this with the transaction."""
        ...

    async def add_authority(self, authority: Authority) -> None:
        """Raises `Conflict` if that role and generation is there."""
        ...

    async def forget_key(self, role: AuthorityRole, generation: int) -> None:
        """Note that an authority's key has left the host."""
        ...

    async def add_credential(self, credential: Credential) -> None:
        """Raises `Conflict` if its serial number is there."""
        ...

    async def revoke(self, serial_number: str, at: datetime) -> Credential | None:
        """Mark a credential; returns it so, or `None` if it was revoked before."""
        ...

    async def use_approval(self, approval_id: str, subject: str) -> None:
        """Note that an approval was used for this; raises `Conflict` if it was before."""
        ...

    async def lock_mode(self) -> Mode | None:
        """The stored mode, held still until the transaction ends."""
        ...

    async def put_mode(self, mode: Mode) -> None:
        """Store the mode."""
        ...


class CredentialStore(Protocol):
    """Credentials and authorities; never a private key."""

    def unit(self) -> AbstractAsyncContextManager[AccessUnit]:
        """A write transaction: commits at exit, rolls back on an error."""
        ...

    async def authorities(self) -> Sequence[Authority]:
        """All there are, the newest generation first."""
        ...

    async def admin_standings(self, now: datetime) -> Mapping[str, AdminStanding]:
        """Everybody who ever was an admin, by name."""
        ...

    async def find_credential(self, serial_number: str) -> Credential | None:
        """By serial number (hex)."""
        ...

    async def unexpired(
        self, now: datetime, *, kind: CredentialKind | None = None
    ) -> Sequence[Credential]:
        """Credentials that end after `now`, revoked ones too, newest first."""
        ...


class PrivateFiles(Protocol):
    """Files of mode 0600 on the host."""

    async def create(self, path: str, content: bytes) -> None:
        """Write a new file, durably. Raises `Conflict` (`file_exists`), `Unavailable`."""
        ...
