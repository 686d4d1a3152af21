"""Values of the CA that only its own rooms see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from lamassu.kernel.identity import Caller
from lamassu.kernel.records import Json
from lamassu.kernel.x509.names import Subject
from lamassu.services.ca.contract import (
    ApprovalPolicy,
    Certificate,
    CertificateStatus,
    CertificationAuthority,
    IssuanceProfile,
    RevocationReason,
    Validity,
)
from lamassu.services.kms.contract import KeySpec

NO_CA = "-"  # issuer of a certificate that no CA of ours signed

ATTACHED_TO = "lamassu.io/ra/attached-to"
REISSUED_AS = "lamassu.io/ca/reissued-as"
REISSUED_AT = "lamassu.io/ca/reissued-at"
REISSUED_FROM = "lamassu.io/ca/reissued-from"
REISSUE_REASON = "lamassu.io/ca/reissue-reason"
SYSTEM_METADATA = frozenset({ATTACHED_TO, REISSUED_AS, REISSUED_AT, REISSUED_FROM, REISSUE_REASON})


@dataclass(frozen=True, slots=True)
class NewCertificate:
    """A certificate that is about to be stored, with what only its row keeps.

    `csr_der` is empty where there was no CSR (a CA's own certificate), and so is `requested_by`,
    the principal who brought it. `awaits_binding` is
    true for a device's certificate until somebody saw it in its slot; `seen_bound` is of one
    that was in its slot before it came here. `reissued_from` is the serial number of the CA's
    certificate that it follows. `profile_id` names the stored profile that decided what it
    contains, if one did.
    """

    certificate: Certificate
    created_at: datetime
    csr_der: bytes = b""
    requested_by: str = ""
    request_key: str | None = None
    owner: str = ""
    device_id: str = ""
    seen_bound: bool = False
    reissued_from: str | None = None
    profile_id: str = ""

    @property
    def awaits_binding(self) -> bool:
        return bool(self.owner and self.device_id) and not self.seen_bound


@dataclass(frozen=True, slots=True)
class RecordedEnrolment:
    """What was asked for when a certificate was issued; `csr` is DER, `owner` a DMS's id."""

    serial_number: str
    common_name: str
    issuer_ca_id: str
    owner: str
    device_id: str
    csr: bytes


@dataclass(frozen=True, slots=True)
class IssuerVersions:
    """What the issuing transaction sees under lock; `None` for a profile that is gone."""

    authority: int
    profile: int | None


@dataclass(frozen=True, slots=True)
class LockedCertificate:
    """A certificate under lock, and whether its CA stands revoked."""

    certificate: Certificate
    issuer_revoked: bool


@dataclass(frozen=True, slots=True)
class CertificateScope:
    """Which certificates a list route shows, before the caller's own filters.

    `expires_after` and `expires_before` are strict bounds on `not_after`; with them, revoked
    and expired certificates are left out.
    """

    issuer_ca_id: str | None = None
    status: CertificateStatus | None = None
    expires_after: datetime | None = None
    expires_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """The key that a new CA is to have; `size` in bits. `key_id` names an existing key."""

    algorithm: str = ""
    size: int = 0
    key_id: str = ""


@dataclass(frozen=True, slots=True)
class CaRequest:
    """Ask for a new CA.

    `own_profile` (inline) or `own_profile_id` shapes the CA's own certificate; `profile_id` is
    the default for what it issues. `any_profile_id` is the seed's one field for either, told
    apart by `sign_as_ca` (decision 16).
    """

    subject: Subject
    key: KeyRequest
    validity: Validity
    id: str = ""
    parent_id: str = ""
    profile_id: str = ""
    any_profile_id: str = ""
    own_profile: IssuanceProfile | None = None
    own_profile_id: str = ""
    engine_id: str = ""
    metadata: Mapping[str, Json] = field(default_factory=dict)
    approvals: ApprovalPolicy | None = None


@dataclass(frozen=True, slots=True)
class RekeyRequest:
    """Ask for a CA's next generation; without an algorithm its key is of the present kind, and
    without an engine it is made in the default one."""

    engine_id: str = ""
    algorithm: str = ""
    bits: int = 0


@dataclass(frozen=True, slots=True)
class RekeyPlan:
    """What a rekey makes: the CA `new_id`, signed by `signed_by` (itself, for a root) and valid
    until `not_after`, and two certificates across, valid until `cross_until`."""

    old_id: str
    new_id: str
    engine_id: str
    spec: KeySpec
    signed_by: str
    not_after: datetime
    cross_until: datetime


@dataclass(frozen=True, slots=True)
class StatusChange:
    """What is asked of a CA or certificate; the reason counts only when revoking."""

    status: CertificateStatus
    reason: RevocationReason = RevocationReason.UNSPECIFIED


class JobKind(StrEnum):
    """What a job does to the certificates of its CAs."""

    REVOKE = "REVOKE"
    DELETE = "DELETE"


class JobStatus(StrEnum):
    """`RUNNING`: rows are being written. `ANNOUNCING`: they all are, and whoever follows single
    certificates is being told, at a pace that they can keep."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    ANNOUNCING = "ANNOUNCING"
    DONE = "DONE"


@dataclass(frozen=True, slots=True)
class JobPlace:
    """How far a job has come: which of its CAs, at which of its steps, after which serial
    number; `found` is what this pass over all of them has changed so far."""

    ca: int = 0
    step: int = 0
    after: str = ""
    found: int = 0


@dataclass(frozen=True, slots=True)
class CascadeJob:
    """Revoke, or delete, what the CAs of a revoked subtree issued. Its progress is committed
    with the rows, so that a restart goes on where it was.

    `total` is `None` until it was counted, `done` counts certificates written, `announced`
    those of which others were told.
    """

    id: str
    ca_ids: Sequence[str]
    revoked_at: datetime
    caller: Caller
    created_at: datetime
    kind: JobKind = JobKind.REVOKE
    status: JobStatus = JobStatus.PENDING
    done_at: datetime | None = None
    total: int | None = None
    done: int = 0
    announced: int = 0
    place: JobPlace | None = None


@dataclass(frozen=True, slots=True)
class Watermark:
    """Of what ended until then, this serial number being the last of that instant, all was told."""

    reached: datetime
    serial_number: str = ""


@dataclass(frozen=True, slots=True)
class WasBefore:
    """What a certificate was before a job revoked it."""

    status: CertificateStatus
    revocation_time: datetime | None
    revocation_reason: RevocationReason


@dataclass(frozen=True, slots=True)
class CaRevocation:
    """What a change of a CA's status leads to.

    `job_id` names the cascade, if there is one; `shown` is whether OCSP and CRL show it.
    """

    authority: CertificationAuthority
    job_id: str | None
    shown: bool


@dataclass(frozen=True, slots=True)
class CertificateRevocation:
    """A certificate after a change of status, and whether OCSP and CRL show it already."""

    certificate: Certificate
    shown: bool
    job_id: str | None = None


@dataclass(frozen=True, slots=True)
class StandingRow:
    """What one query tells of a serial number under a CA; see `rules.status.standing_of`.

    `status` is the stored one, `None` for a serial number that this CA never issued.
    """

    status: CertificateStatus | None
    revocation_time: datetime | None
    reason: RevocationReason
    not_after: datetime | None
    der: bytes | None
    ca_revoked: bool
    ca_revocation_time: datetime | None
    ca_reason: RevocationReason


@dataclass(frozen=True, slots=True)
class CaStats:
    """Counts for the statistics route, by engine and by status."""

    cas_by_engine: Mapping[str, int]
    cas_by_status: Mapping[CertificateStatus, int]
    cas: int
    certificates_by_status: Mapping[CertificateStatus, int]
    certificates: int
