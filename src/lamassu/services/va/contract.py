"""What other slices may know of the VA: it tells relying parties what was revoked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol


@dataclass(frozen=True, slots=True)
class CrlRole:
    """How a CA's CRL is made, and how often its revocation filter (zero: none is made)."""

    ca_ski: str
    ca_id: str
    refresh_interval: timedelta
    validity: timedelta
    subject_key_id_signer: str
    regenerate_on_revoke: bool
    filter_interval: timedelta = timedelta(0)
    version: int = 0


@dataclass(frozen=True, slots=True)
class Crl:
    """A signed CRL as stored; `number` is its CRL number (RFC 5280 §5.2.3).

    `entries_digest` stands for what it lists, to be compared with what it should list now.
    """

    ca_ski: str
    number: int
    der: bytes
    this_update: datetime
    next_update: datetime
    entries_digest: str = ""


class Validation(Protocol):
    """The VA as other slices use it."""

    async def ensure_role(self, ca_id: str, subject_key_id: str) -> None:
        """Make role and first CRL of a new CA, if they are not there yet. Idempotent."""
        ...

    async def revocation_changed(self, ca_id: str, *, wait: timedelta) -> bool:
        """See `lamassu.services.ca.contract.RevocationListener`."""
        ...
