"""What other slices may know of the CA: authorities, profiles, certificates, their status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from lamassu.kernel.identity import Caller
from lamassu.kernel.records import Json
from lamassu.kernel.x509.csr import CertificateRequest
from lamassu.kernel.x509.names import Subject
from lamassu.services.ca.contract.approvals import ApprovalPolicy
from lamassu.services.ca.contract.profiles import IssuanceProfile
from lamassu.services.ca.contract.requests import RefusedRequest


class CertificateStatus(StrEnum):
    """As the wire spells them. `EXPIRED` is derived from `not_after`, never stored."""

    ACTIVE = "ACTIVE"
    EXPIRED = "EXPIRED"
    REVOKED = "REVOKED"
    INACTIVE = "INACTIVE"


class RevocationReason(StrEnum):
    """RFC 5280 §5.3.1, in the wire's spelling; `number` is the CRLReason."""

    UNSPECIFIED = "Unspecified"
    KEY_COMPROMISE = "KeyCompromise"
    CA_COMPROMISE = "CACompromise"
    AFFILIATION_CHANGED = "AffiliationChanged"
    SUPERSEDED = "Superseded"
    CESSATION_OF_OPERATION = "CessationOfOperation"
    CERTIFICATE_HOLD = "CertificateHold"
    REMOVE_FROM_CRL = "RemoveFromCRL"
    PRIVILEGE_WITHDRAWN = "PrivilegeWithdrawn"
    AA_COMPROMISE = "AACompromise"

    @property
    def number(self) -> int:
        """The CRLReason code (7 is not used by the standard)."""
        return {reason: n for n, reason in _BY_NUMBER.items()}[self]


_BY_NUMBER = dict(
    zip((0, 1, 2, 3, 4, 5, 6, 8, 9, 10), RevocationReason, strict=True),
)


class CertificateType(StrEnum):
    """Where the private key is, as far as the platform knows."""

    MANAGED = "MANAGED"
    IMPORTED_WITH_KEY = "IMPORTED_WITH_KEY"
    IMPORTED_WITHOUT_KEY = "IMPORTED_WITHOUT_KEY"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate as the CA service stores it.

    Hex fields are lower case. `issuer_ca_id` names the CA that signed it, `-` if none of ours.
    `stored_status` is the row's; `status_at` gives what holds at an instant.
    """

    serial_number: str
    der: bytes
    subject: Subject
    issuer: Subject
    subject_key_id: str
    authority_key_id: str
    issuer_ca_id: str
    issuer_serial_number: str
    issuer_level: int
    not_before: datetime
    not_after: datetime
    stored_status: CertificateStatus
    type: CertificateType
    is_ca: bool
    key_algorithm: str
    key_size: int
    engine_id: str = ""
    key_usage: Sequence[str] = ()
    extended_key_usages: Sequence[str] = ()
    revocation_time: datetime | None = None
    revocation_reason: RevocationReason = RevocationReason.UNSPECIFIED
    metadata: Mapping[str, Json] = field(default_factory=dict)
    version: int = 0

    def status_at(self, now: datetime) -> CertificateStatus:
        """The status at `now`: an active certificate past its end is expired (rule 29)."""
        if self.stored_status is CertificateStatus.ACTIVE and now > self.not_after:
            return CertificateStatus.EXPIRED
        return self.stored_status


@dataclass(frozen=True, slots=True)
class CertificationAuthority:
    """A CA: its present certificate, its key, and the profile of what it issues by default.

    `revoked_by` is the id of the CA (itself or an ancestor) whose revocation revoked it.
    `approvals` says who has to agree to what is dangerous for it; nobody, if there is none.

    A CA that got a new key is followed by another of the same subject, its next generation
    (`successor_id`), under which everything that names it issues. `first_generation` is the id
    that the whole line goes by.
    """

    id: str
    certificate: Certificate
    key_id: str
    level: int
    parent_id: str | None
    profile_id: str
    created_at: datetime
    metadata: Mapping[str, Json] = field(default_factory=dict)
    revoked_by: str | None = None
    approvals: ApprovalPolicy | None = None
    successor_id: str | None = None
    lineage_id: str | None = None
    version: int = 0

    @property
    def first_generation(self) -> str:
        """Its own id, if it has no predecessor."""
        return self.lineage_id or self.id


@dataclass(frozen=True, slots=True)
class IssueRequest:
    """Ask for an end-entity certificate under a CA.

    `request_key` makes the call idempotent: a second request with the same key returns the
    certificate that the first one stored. Exactly one of `profile` (inline) and `profile_id`
    wins over the CA's own default profile; neither may have `sign_as_ca`.
    `replaces` is (issuer CA id, serial number) of the certificate being renewed: it must still
    be active when the new one is stored. `subject_der` overrides the CSR's subject (a renewal
    carries the current subject as it stands, rule 15); `san_der` likewise gives the DER value
    of the subjectAltName extension, `None` leaves the SAN to the profile and the CSR.
    `purpose` is `device`: stored beside the certificate with `owner` (a DMS id) and `device_id`,
    so that an unbound one can be found after a crash.
    `verified_csr` is `csr_der` as the caller parsed it and after it verified its signature:
    it is then not done again.
    """

    ca_id: str
    csr_der: bytes
    caller: Caller
    request_key: str | None = None
    profile: IssuanceProfile | None = None
    profile_id: str | None = None
    replaces: tuple[str, str] | None = None
    subject_der: bytes | None = None
    san_der: bytes | None = None
    owner: str = ""
    device_id: str = ""
    metadata: Mapping[str, Json] = field(default_factory=dict)
    verified_csr: CertificateRequest | None = None


@dataclass(frozen=True, slots=True)
class Issued:
    """An issued certificate; `repeated` when an earlier call with the same key made it."""

    certificate: Certificate
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class CertificateStanding:
    """What a status query learns: of the certificate and of the chain above it.

    `known` is false when the CA never issued that serial number, or when the certificate was
    made inactive: nothing is then said of it. `revoked` is true when the
    certificate or a CA above it is revoked; time and reason are then set. `read_at` is when.
    `der` is the certificate as it was issued: whoever holds another one of that serial number
    holds an imitation, or the same with another encoding of its signature.
    """

    known: bool
    revoked: bool
    read_at: datetime
    revocation_time: datetime | None = None
    reason: RevocationReason = RevocationReason.UNSPECIFIED
    not_after: datetime | None = None
    der: bytes = b""


@dataclass(frozen=True, slots=True)
class RevokedEntry:
    """A line of a CRL."""

    serial_number: str
    revocation_time: datetime
    reason: RevocationReason


@dataclass(frozen=True, slots=True)
class IssuedStanding:
    """A certificate of a CA, and whether it must not be relied upon: revoked or inactive."""

    serial_number: str
    not_before: datetime
    revoked: bool


LONGEST_BACKDATING = timedelta(days=1)
"""A certificate with a notBefore at least so long ago is there already, if it ever will be."""


class Authorities(Protocol):
    """The CA service as other slices use it."""

    async def get_ca(self, ca_id: str) -> CertificationAuthority:
        """Raises `NotFound` (`CA not found`)."""
        ...

    async def find_ca_by_key_id(self, subject_key_id: str) -> CertificationAuthority | None:
        """The CA whose certificate carries this subject key identifier (lower-case hex)."""
        ...

    async def list_cas(self) -> Sequence[CertificationAuthority]:
        """Every CA, roots first. A hierarchy is small: this is not paged."""
        ...

    async def path_of(self, ca_id: str) -> Sequence[CertificationAuthority]:
        """The CA's newest generation and those above it, up to its root. Raises `NotFound`."""
        ...

    async def generations_of(self, ca_id: str) -> Sequence[CertificationAuthority]:
        """The CA's whole line, the first generation first; itself alone for most.

        Raises `NotFound`.
        """
        ...

    async def cross_certificates_of(self, ca_id: str) -> Sequence[bytes]:
        """Unrevoked, unexpired certificates (DER) by which generations of this CA's line vouch
        for each other (RFC 4210 §4.4)."""
        ...

    async def get_profile(self, profile_id: str) -> IssuanceProfile:
        """Raises `NotFound` (`issuance profile not found`)."""
        ...

    async def issue(self, request: IssueRequest) -> Issued:
        """Check, sign and store in one transaction with event and audit record.

        Raises `RuleViolation` or `Malformed` (nothing stored), `Conflict`
        (`certificate_superseded`) when what it replaces is no longer active,
        `RuleViolation` (`CA Status inconsistent`) when the CA may not sign.
        """
        ...

    async def find_issued(self, request_key: str) -> Certificate | None:
        """The certificate that `issue` stored under this key."""
        ...

    async def find_certificate(self, serial_number: str) -> Certificate | None:
        """A stored certificate by serial number."""
        ...

    async def find_certificates(self, serial_numbers: Sequence[str]) -> Mapping[str, Certificate]:
        """Those that are stored, by serial number, read at once."""
        ...

    async def find_certificate_by_der(self, der: bytes) -> Certificate | None:
        """The stored certificate that is byte for byte this one."""
        ...

    async def standing(self, ca_id: str, serial_number: str) -> CertificateStanding:
        """Status of a serial number under exactly this CA, read from committed rows."""
        ...

    async def revoked_under(self, ca_id: str) -> Sequence[RevokedEntry]:
        """All unexpired revoked certificates of this CA (for its CRL), by serial number."""
        ...

    async def issued_under(self, ca_id: str, *, after: str, limit: int) -> Sequence[IssuedStanding]:
        """Unexpired certificates of this CA with serial numbers after that one, in order."""
        ...

    async def revoke(
        self,
        serial_number: str,
        reason: RevocationReason,
        *,
        caller: Caller,
    ) -> bool:
        """Revoke a certificate, then tell the VA. Already revoked: nothing changes.

        Returns whether OCSP and, if the role says so, the CRL show it already.
        Raises `NotFound` (`certificate not found`).
        """
        ...

    async def unreconciled(self, *, older_than: datetime, limit: int) -> Sequence[Certificate]:
        """Device certificates issued before `older_than` that nobody reconciled yet.

        The metadata key `lamassu.io/ra/attached-to` names device and DMS.
        """
        ...

    async def reconcile(self, serial_numbers: Sequence[str]) -> None:
        """Mark device certificates as seen bound (or dealt with)."""
        ...

    async def keep_refused(self, refused: RefusedRequest) -> None:
        """Keep a request that a DMS refused, within bounds: some are passed over."""
        ...


class RevocationListener(Protocol):
    """What the CA asks of the VA after a commit; the VA's contract satisfies it."""

    async def revocation_changed(self, ca_id: str, *, wait: timedelta) -> bool:
        """A certificate of this CA was revoked or released: show it, waiting at most `wait`.

        Returns whether both OCSP and, where the role says so, the CRL show it now.
        """
        ...
