"""What other slices may know of access: who is a principal, and the internal CA behind it.

The internal CA has a root of its own, issues the certificates of the platform's TLS, of its
services and of its admins, and is out of reach of the CA and KMS APIs (decision 2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from lamassu.kernel.identity import Caller, Peer, Principal
from lamassu.services.ca.contract import Demand


class CredentialKind(StrEnum):
    """What an internal certificate is for."""

    ADMIN = "admin"  # clientAuth, URI lamassu://admin/NAME
    SERVICE = "service"  # clientAuth, URI lamassu://service/NAME; with hosts serverAuth too
    SERVER = "server"  # serverAuth, DNS and IP names


class Mode(StrEnum):
    """What is loud in development is refused in production (decision 7)."""

    PRODUCTION = "production"
    DEVELOPMENT = "development"


ADMIN_LIFETIME: Mapping[Mode, timedelta] = {
    Mode.DEVELOPMENT: timedelta(days=30),
    Mode.PRODUCTION: timedelta(hours=24),
}
"""How long an `admin.crt` lives by default (security rule 4)."""

SERVICE_LIFETIME = timedelta(days=30)
SERVER_LIFETIME = timedelta(days=397)


@dataclass(frozen=True, slots=True)
class RootKeyExport:
    """Where the internal root's key goes when it leaves the host: an encrypted PEM file."""

    path: str
    passphrase: bytes = field(repr=False)


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
    key_pem: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class HeldCertificate:
    """A certificate (DER) and the private key (PEM) that shows that one holds it."""

    der: bytes
    key_pem: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class RootKeyProof:
    """The internal root's key as it was taken away: an encrypted PEM file's content."""

    pem: bytes
    passphrase: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Grounds:
    """On what grounds a command of the host does what approvers guard (security rule 7).

    `demand` is who asks for what, with an approval if there is one. `renews` is a person's own
    certificate, which they may renew by themselves. `root_key` is the way back in when nobody
    is left who could approve.
    """

    demand: Demand | None = None
    renews: HeldCertificate | None = None
    root_key: RootKeyProof | None = None


NO_GROUNDS = Grounds()


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

    async def establish(
        self, *, caller: Caller, export_root_key_to: RootKeyExport | None = None
    ) -> None:
        """Make root and issuing CA where they are missing; else nothing.

        With an export the root's key is then written there and removed from the keystore
        (security rule 4); where that was done before, nothing. Raises `Conflict`
        (`file_exists`) rather than overwrite a file.
        """
        ...

    async def holds_root_key(self) -> bool:
        """Whether the root's key is on this host, or will be once the CA is made."""
        ...

    async def root_key_id(self) -> str | None:
        """The root's key, if it was made and not taken out. Only a new issuing CA needs it."""
        ...

    async def issue(
        self,
        kind: CredentialKind,
        name: str,
        *,
        lifetime: timedelta,
        caller: Caller,
        hosts: Sequence[str] = (),
        shares_hosts: bool = False,
        grounds: Grounds = NO_GROUNDS,
    ) -> IssuedCredential:
        """Make a P-256 key and a certificate, ending with the issuing CA at the latest.

        `hosts` (DNS names and IP addresses) are for a server, or a service that serves too.
        The two have none in common but loopback's, unless `shares_hosts`: whoever owns an
        edge could else pose as the platform. Raises `RuleViolation` for a bad name, host or
        lifetime and for shared hosts (`hosts_shared`), `NotFound` (`internal_ca_missing`)
        before `establish`. An admin whose name is an approver of a CA is made on `grounds`
        only: else `Deferred`, `Forbidden` or `Conflict` as `Approvals.require` has them.
        """
        ...

    async def own_hosts(self) -> frozenset[str]:
        """The platform's names and its edges', configured or certified, but for loopback."""
        ...

    async def list(self, kind: CredentialKind | None = None) -> Sequence[Credential]:
        """Unexpired credentials, newest first."""
        ...

    async def revoke(self, name_or_serial: str, *, caller: Caller) -> Sequence[Credential]:
        """Revoke an admin or service by name, or one certificate by serial number.

        Returns what was revoked now. Raises `NotFound` if nothing unexpired has that name.
        """
        ...

    async def trust_anchor_pem(self) -> bytes:
        """The internal root and issuing certificate, PEM: what `tls-ca.crt` holds."""
        ...


class InstallationMode(Protocol):
    """The mode that the database holds (security rule 3)."""

    async def settle_mode(self, configured: Mode, *, caller: Caller) -> Mode:
        """Compare the configured mode with the stored one, at start; returns what holds.

        The first mode is stored, a rise to production too. Raises `RuleViolation`
        (`mode_lowered`) where the configuration would lower it.
        """
        ...

    async def lower_mode(self, *, caller: Caller, grounds: Grounds = NO_GROUNDS) -> None:
        """From production to development: an act of its own, audited. The approvers of every
        CA have to agree; raises as `Approvals.require`."""
        ...

    async def leftovers_of_development(self) -> Sequence[str]:
        """What production should not have and this installation does, a text for each."""
        ...
