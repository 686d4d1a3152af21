"""Values of the VA beside its contract's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from lamassu.services.ca.contract import CertificationAuthority
from lamassu.services.va.contract import CrlRole


@dataclass(frozen=True, slots=True)
class CrlFacts:
    """A stored CRL without its bytes, which may be millions."""

    number: int
    this_update: datetime
    next_update: datetime
    entries_digest: str


@dataclass(frozen=True, slots=True)
class RoleState:
    """A role and the newest CRL made under it, if there is one yet."""

    role: CrlRole
    latest: CrlFacts | None


@dataclass(frozen=True, slots=True)
class FilterEdition:
    """A revocation filter without its octets, which may be millions; or a delta to the full one
    numbered `base` (0 for a full)."""

    number: int
    base: int
    this_update: datetime
    next_update: datetime


@dataclass(frozen=True, slots=True)
class StoredFilter:
    """A signed revocation filter or delta."""

    ca_ski: str
    edition: FilterEdition
    content: bytes


@dataclass(frozen=True, slots=True)
class FilterState:
    """The newest full filter of a CA, and the newest delta to it."""

    full: FilterEdition | None = None
    delta: FilterEdition | None = None


@dataclass(frozen=True, slots=True)
class RoleChange:
    """What to change in a role; `None` leaves a value as it is."""

    refresh_interval: timedelta | None = None
    validity: timedelta | None = None
    subject_key_id_signer: str | None = None
    regenerate_on_revoke: bool | None = None
    filter_interval: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Issuer:
    """A CA as the answering of status queries needs it."""

    authority: CertificationAuthority
    subject_der: bytes
    spki: bytes
    algorithm: bytes  # AlgorithmIdentifier of its signatures, DER


@dataclass(frozen=True, slots=True)
class Responder:
    """A key here that answers status queries for an offline CA; `certificate` (DER) is absent
    until the CA's ceremony signed `csr` (DER)."""

    key_id: str
    ca_id: str
    engine_id: str
    csr: bytes
    certificate: bytes | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class StatusAnswer:
    """An encoded OCSP answer. The times are set on answers that may be cached."""

    der: bytes
    produced_at: datetime | None = None
    next_update: datetime | None = None


@dataclass(frozen=True, slots=True)
class StatusClaim:
    """What an answer says of a certificate, without when: two equal claims are one answer."""

    known: bool
    revoked_at: datetime | None
    reason: int


@dataclass(frozen=True, slots=True)
class SignedAnswer:
    """A signed answer kept for the next asker, and the claim that it makes."""

    claim: StatusClaim
    answer: StatusAnswer
