"""What other slices may know of access: who is a principal, and the internal CA behind it.

The internal CA has a root of its own, issues the certificates of the platform's TLS, of its
services and of its admins, and is out of reach of the CA and KMS APIs (decision 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from lamassu.kernel.identity import Caller, Peer, Principal


class CredentialKind(StrEnum):
    """What an internal certificate is for."""

    ADMIN = "admin"  # clientAuth, URI lamassu://admin/NAME
    SERVICE = "service"  # clientAuth, URI lamassu://service/NAME
    SERVER = "server"  # serverAuth, DNS and IP names


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate of the internal CA."""

    serial_number: str
    kind: CredentialKind
    name: str
    der: bytes
    not_before: datetime
    not_after: datetime
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class IssuedCredential:
    """A fresh credential with what its holder needs, all PEM; the key is stored nowhere else."""

    credential: Credential
    chain_pem: bytes  # its certificate, then the internal issuing CA
    key_pem: bytes


class Principals(Protocol):
    """Authentication for the HTTP layer."""

    async def authenticate(self, peer: Peer) -> Principal | None:
        """The principal whose certificate this is, judged now (cached at most 5 s).

        `None` when the peer shows no certificate, or one that the internal CA did not issue.
        Raises `Unauthenticated` for one that it did issue and that is expired, revoked or not
        for clients.
        """
        ...


class InternalCa(Protocol):
    """The internal CA, for init, the host's own commands and the platform's start."""

    async def issue(
        self,
        kind: CredentialKind,
        name: str,
        *,
        lifetime: timedelta,
        caller: Caller,
        hosts: Sequence[str] = (),
    ) -> IssuedCredential:
        """Make a key and a certificate. Raises `RuleViolation` for a bad name."""
        ...

    async def list(self, kind: CredentialKind | None = None) -> Sequence[Credential]:
        """Unexpired credentials, newest first."""
        ...

    async def revoke(self, name_or_serial: str, *, caller: Caller) -> Sequence[Credential]:
        """Revoke an admin or service by name, or one certificate by serial number."""
        ...

    async def trust_anchor_pem(self) -> bytes:
        """The internal root and issuing certificate, PEM: what `tls-ca.crt` holds."""
        ...
