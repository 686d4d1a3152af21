"""What is found in another system, whatever that system is; and who finds it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeAlias

from lamassu.kernel.errors import LamassuError
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.services.alerts.model import LatestEvent
from lamassu.services.ca.contract import IssuanceProfile
from lamassu.services.ca.rules.adoption import FoundAuthority, FoundCertificate
from lamassu.services.devices.usecases.adopt_devices import FoundDevice
from lamassu.services.dms.model.dms import DmsDraft
from lamassu.services.va.model import RoleChange

PAGE = 500
"""Things that are read, judged and stored together."""


@dataclass(frozen=True, slots=True)
class Damaged:
    """What could not be read; `revoked` if it is known of it that it was revoked."""

    label: str
    code: str
    text: str
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class SourceKey:
    """A CA's key: as unencrypted PKCS#8 (PEM) in `pem`, or in an engine that both systems use."""

    pem: bytes = field(default=b"", repr=False)
    engine_id: str = ""


@dataclass(frozen=True, slots=True)
class SourceAuthority:
    """A CA, where its key is, and how far its CRLs are numbered (0: not known to the source)."""

    found: FoundAuthority
    key: SourceKey | None = None
    last_crl_number: int = 0
    role: RoleChange = RoleChange()  # noqa: RUF009 - frozen, without members of its own


Certificates: TypeAlias = AsyncIterator[Sequence[FoundCertificate | Damaged]]


class Source(Protocol):
    """Another system's CAs and certificates. A reader writes nothing."""

    @property
    def name(self) -> str:
        """Which one: `openssl`, `step-ca`, …; stands in events and records."""
        ...

    async def authorities(self) -> Sequence[SourceAuthority | Damaged]:
        """Its CAs. Raises a `LamassuError` that says what to do, if there is nothing to read."""
        ...

    async def count_certificates(self) -> int | None:
        """How many there are, if that is quickly told."""
        ...

    def certificates(self) -> Certificates:
        """All of them, in pages."""
        ...


@dataclass(frozen=True, slots=True)
class FoundDms:
    """A DMS as its settings say it."""

    draft: DmsDraft
    created_at: datetime


@dataclass(frozen=True, slots=True)
class FoundKey:
    """A key that is no CA's, in an engine that both systems use."""

    key_id: str
    engine_id: str
    name: str = ""
    tags: Sequence[str] = ()


class Installation(Source, Protocol):
    """A source that has devices too: another installation of the platform."""

    async def profiles(self) -> Sequence[IssuanceProfile | Damaged]: ...

    async def keys(self) -> Sequence[FoundKey]: ...

    async def dms(self) -> Sequence[FoundDms | Damaged]: ...

    async def count_devices(self) -> int: ...

    def devices(self) -> AsyncIterator[Sequence[FoundDevice | Damaged]]: ...

    async def certificates_by_serial(
        self, serial_numbers: Sequence[str]
    ) -> Sequence[FoundCertificate]:
        """Those of the source; a dry run judges slots by them."""
        ...

    async def events(self) -> Sequence[LatestEvent]: ...

    async def left_behind(self) -> Sequence[Damaged]:
        """What there is and has no place here."""
        ...


def damaged(label: str, error: LamassuError, *, revoked: bool = False) -> Damaged:
    """Of what a parser refused."""
    return Damaged(label, error.code, error.text, revoked)


def id_of_ca(der: bytes) -> str:
    """An id for a CA whose system gives it none: its name, as an id may be."""
    facts = certificate_facts(der)
    words = re.sub(r"[^a-z0-9]+", "-", facts.subject.common_name.casefold()).strip("-")
    return words[:64] or f"ca-{facts.sha256[:12]}"
