"""What the people in the room agree on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from lamassu.kernel.x509.crls import CrlEntry
from lamassu.kernel.x509.csr import CertificateRequest
from lamassu.kernel.x509.names import Subject
from lamassu.services.ceremony.contract import Signed
from lamassu.services.kms.contract import KeySpec


@dataclass(frozen=True, slots=True)
class Publication:
    """The http addresses that a request wants in its certificate."""

    crl: Sequence[str] = ()
    ocsp: Sequence[str] = ()
    ca_issuers: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class AgreedRequest:
    """A request that passed the rules, as it will be signed."""

    kind: Signed
    csr: CertificateRequest
    key_fingerprint: str
    not_after: datetime
    path_length: int | None
    publication: Publication = field(default_factory=Publication)


@dataclass(frozen=True, slots=True)
class AgreedRoot:
    """The root as it will be made."""

    subject: Subject
    key: KeySpec
    not_after: datetime
    path_length: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a session will do, to the letter. `at` dates all that it signs."""

    at: datetime
    root: AgreedRoot | None
    requests: Sequence[AgreedRequest]
    entries: Sequence[CrlEntry]
    next_update: datetime


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """The engine that holds the root's key, for the transcript."""

    id: str
    type: str
    provider: str
    name: str
