"""What the CA needs of the world around it, beside the contracts of other slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from lamassu.kernel.listing import ListQuery, Page
from lamassu.kernel.merkle import Head, Tile
from lamassu.kernel.records import AuditRecord, Event, LogEntry
from lamassu.kernel.signed_note import VerifierKey
from lamassu.services.ca.contract import (
    Approval,
    ApprovalPolicy,
    Certificate,
    CertificateStatus,
    CertificationAuthority,
    IssuanceProfile,
    IssuedStanding,
    RevokedEntry,
    Vote,
)
from lamassu.services.ca.contract.external import AwaitedCa
from lamassu.services.ca.model import (
    CascadeJob,
    CaStats,
    CertificateScope,
    IssuerVersions,
    LockedCertificate,
    NewCertificate,
    RecordedEnrolment,
    StandingRow,
    WasBefore,
    Watermark,
)
from lamassu.services.ca.rules.issuance_log import Cosigned, LogHead, Sequenced
from lamassu.services.ca.rules.requests import KeptRequest


class CaTransaction(Protocol):
    """A write transaction: its rows, events and audit records commit together or not at all.

    Locks are taken in the order CAs (from the top down), certificates, profiles, approvals, jobs.
    """

    def emit(self, event: Event) -> None:
        """Tell other slices, once committed."""
        ...

    def audit(self, record: AuditRecord) -> None:
        """Put on record, once committed."""
        ...

    async def share_issuer(self, ca_id: str, profile_id: str) -> IssuerVersions | None:
        """Bar changes of this CA until the end, letting others issue: its version and the
        profile's (no profile for an empty id). `None` if there is no such CA."""
        ...

    async def lock_ca(self, ca_id: str) -> CertificationAuthority | None:
        """A CA that this transaction alone may change or issue under."""
        ...

    async def lock_children(self, ca_ids: Sequence[str]) -> Sequence[CertificationAuthority]:
        """The CAs directly below these, locked likewise."""
        ...

    async def lock_certificate(self, serial_number: str) -> LockedCertificate | None:
        """A certificate that this transaction alone may change."""
        ...

    async def lock_across(self, subject_key_ids: Sequence[str]) -> Sequence[Certificate]:
        """Certificates of CAs for these keys that are no CA's present one: those by which
        another generation vouches for the key."""
        ...

    async def ca_id_of_certificate(self, serial_number: str) -> str | None:
        """The CA whose present certificate this is."""
        ...

    async def insert_issued(
        self, new: NewCertificate, judged: IssuerVersions, *, profile_id: str
    ) -> bool:
        """Store a certificate, and bar changes of its CA as `share_issuer` does.

        False, and nothing stored, if its request key is taken, or if the CA or the profile
        (none for an empty id) no longer has the version that was judged.
        """
        ...

    async def find_issued(self, request_key: str) -> Certificate | None:
        """The certificate stored under a request key."""
        ...

    async def insert_ca(self, authority: CertificationAuthority, new: NewCertificate) -> None:
        """Store a CA with its certificate. Raises `Conflict` if the id is taken."""
        ...

    async def lock_orphans(self, *, limit: int) -> Sequence[CertificationAuthority]:
        """CAs whose issuer is none of ours, locked likewise, by id."""
        ...

    async def relink(self, moved: Sequence[CertificationAuthority]) -> None:
        """Write back parents, levels and issuers of locked CAs."""
        ...

    async def insert_certificate(self, new: NewCertificate) -> None:
        """Store a certificate that no request asked for: one CA's for another's key."""
        ...

    async def insert_certificates(self, new: Sequence[NewCertificate]) -> None:
        """Store certificates that CAs of ours signed elsewhere, at once. Raises `Conflict` if
        a serial number is taken."""
        ...

    async def insert_ca_of(self, authority: CertificationAuthority) -> None:
        """Make a CA of a certificate that is stored, and locked, and no CA's yet."""
        ...

    async def save_ca(self, authority: CertificationAuthority) -> None:
        """Write back what can change of a locked CA, its certificate's status included."""
        ...

    async def save_certificate(self, certificate: Certificate) -> None:
        """Write back what can change of a locked certificate."""
        ...

    async def lock_profile(self, profile_id: str) -> IssuanceProfile | None:
        """A profile that this transaction alone may change."""
        ...

    async def share_profile(self, profile_id: str) -> IssuanceProfile | None:
        """A profile that stays as it is until the end."""
        ...

    async def insert_profile(self, profile: IssuanceProfile) -> None:
        """Raises `Conflict` if the id is taken."""
        ...

    async def save_profile(self, profile: IssuanceProfile) -> None:
        """Replace a locked profile."""
        ...

    async def delete_profile(self, profile_id: str) -> None:
        """Remove a locked profile."""
        ...

    async def cas_with_profile(self, profile_id: str) -> Sequence[str]:
        """Ids of CAs whose default this profile is."""
        ...

    async def insert_job(self, job: CascadeJob) -> None:
        """Remember a cascade."""
        ...

    async def lock_pending_job(self) -> CascadeJob | None:
        """The oldest job that nobody else works on; one that only announces comes last."""
        ...

    async def save_job(self, job: CascadeJob) -> None:
        """Write back how far a locked job is."""
        ...

    async def count_for_job(self, job: CascadeJob, *, now: datetime) -> int:
        """How many certificates it has to write."""
        ...

    async def mark_revoked(
        self,
        job: CascadeJob,
        ca_id: str,
        status: CertificateStatus,
        *,
        after: str,
        now: datetime,
        limit: int,
    ) -> Sequence[str]:
        """Revoke unexpired end-entity certificates of this CA that have this status (of
        `REVOKED`, those on hold) and a serial number after the given one, the lowest first.
        Returns their serial numbers; what they were is kept where it was not `ACTIVE`.

        Fewer than `limit` need not be the last: one that others changed meanwhile is left out.
        """
        ...

    async def revoked_by_job(
        self, job: CascadeJob, ca_id: str, *, after: str, limit: int
    ) -> Sequence[tuple[WasBefore, Certificate]]:
        """What the job revoked of this CA, by serial number, and what it was before."""
        ...

    async def forget_exceptions(self, job_id: str) -> None:
        """A job's certificates were told of: forget what they were before."""
        ...

    async def delete_issued(self, ca_id: str, *, limit: int) -> Sequence[tuple[str, int]]:
        """Remove certificates that this CA issued: serial numbers and last versions."""
        ...

    async def lock_watermark(self) -> Watermark | None:
        """Up to where it was told what ended; nobody else tells until the end."""
        ...

    async def save_watermark(self, mark: Watermark) -> None:
        """It was told up to there."""
        ...

    async def ended_since(
        self, mark: Watermark, *, now: datetime, limit: int
    ) -> Sequence[Certificate]:
        """Active certificates whose end has passed since, in its order."""
        ...

    async def holders_of(
        self, serial_numbers: Sequence[str]
    ) -> Mapping[str, CertificationAuthority]:
        """The CAs whose present certificates these are."""
        ...

    async def lock_alerting(self, *, now: datetime, limit: int) -> Sequence[Certificate]:
        """Certificates of whose end somebody wants to be told now."""
        ...

    async def lock_alerting_cas(
        self, *, now: datetime, limit: int
    ) -> Sequence[CertificationAuthority]:
        """The same of CAs."""
        ...

    async def mark_reissued(self, serial_number: str, *, as_: str, at: datetime) -> None:
        """Note on a CA's certificate which one followed it."""
        ...

    async def predecessor_of(self, ca_id: str) -> str | None:
        """The generation that this CA follows."""
        ...

    async def names_issuer(self, ca_id: str) -> bool:
        """Whether a stored certificate names this CA as its issuer, there or not."""
        ...

    async def delete_cas(self, ca_ids: Sequence[str]) -> None:
        """Remove locked CAs; their certificates stay, and so do CAs below, without a parent."""
        ...

    async def delete_certificate(self, serial_number: str, *, ca_id: str) -> None:
        """Remove a locked certificate, which this CA issued."""
        ...

    async def insert_awaited(self, awaited: AwaitedCa) -> None:
        """Store a CA that waits for its certificate. Raises `Conflict` if the id is taken."""
        ...

    async def lock_awaited(self, ca_id: str) -> AwaitedCa | None:
        """A CA that waits, which this transaction alone may end; locked after CAs."""
        ...

    async def delete_awaited(self, ca_id: str) -> None:
        """It waits no longer."""
        ...

    async def insert_approval(self, approval: Approval) -> None:
        """Store a request that waits."""
        ...

    async def lock_approval(self, approval_id: str) -> Approval | None:
        """An approval that this transaction alone may vote on, spend or end; locked after CAs."""
        ...

    async def save_approval(self, approval: Approval) -> None:
        """Write back what can change of a locked approval but its votes."""
        ...

    async def put_vote(self, approval_id: str, vote: Vote) -> None:
        """Store a person's vote on a locked approval, in place of the one before."""
        ...

    async def open_approvals(self, ca_id: str, *, now: datetime) -> Sequence[Approval]:
        """What still waits, or is approved and unspent, and names this CA first."""
        ...

    async def lock_overdue_approvals(self, now: datetime, *, limit: int) -> Sequence[Approval]:
        """Those past their time that are not marked so, nor held by another transaction."""
        ...

    async def policies(self, ca_ids: Sequence[str]) -> Mapping[str, ApprovalPolicy]:
        """The policies of those of these CAs that have one, in this order."""
        ...

    async def archive_ended(self, before: datetime, *, limit: int, now: datetime) -> Sequence[str]:
        """Move certificates that ended before a time into the archive, no CA's and none that
        waits to be bound: their serial numbers."""
        ...

    async def mark_reconciled(self, serial_numbers: Sequence[str]) -> None:
        """Note that these were dealt with; unknown ones are passed over."""
        ...


class RequestStore(Protocol):
    """Certificate requests: the refused, and those of issued certificates."""

    async def keep(self, kept: KeptRequest, audit: AuditRecord) -> bool:
        """Store a refused request with its record, unless its requester's room is full."""
        ...

    async def page(self, query: ListQuery) -> Page[KeptRequest]:
        """Without CSRs. Raises `RuleViolation` (`unsupported_sort`)."""
        ...

    async def find(self, request_id: str) -> KeptRequest | None: ...

    async def forget(self, *, before: datetime, beyond: int) -> int:
        """Remove refused requests from before a time, and all but the newest so many."""
        ...


class CaStore(Protocol):
    """The CA's rows; what is read is what was committed."""

    @property
    def requests(self) -> RequestStore:
        """Certificate requests and their outcome."""
        ...

    def unit(self) -> AbstractAsyncContextManager[CaTransaction]:
        """A transaction that commits at the end, or not at all if an error passes."""
        ...

    def alone(self, deed: str) -> AbstractAsyncContextManager[None]:
        """Wait for one's turn in this process at the deed of this name. Raises `Conflict`
        (`done_elsewhere`) where another process is at it."""
        ...

    async def insert_issued(
        self,
        new: NewCertificate,
        judged: IssuerVersions,
        *,
        profile_id: str,
        records: Sequence[Event | AuditRecord],
    ) -> bool:
        """A whole transaction: the certificate, as `CaTransaction.insert_issued` stores it, and
        the records."""
        ...

    async def find_ca(self, ca_id: str) -> CertificationAuthority | None: ...

    async def find_ca_by_key_id(self, subject_key_id: str) -> CertificationAuthority | None: ...

    async def find_ca_with_key(self, key_id: str) -> CertificationAuthority | None:
        """The CA that signs with this key of the KMS."""
        ...

    async def generations(self, ca_id: str) -> Sequence[CertificationAuthority]:
        """The line of this CA, each followed by its successor; empty if there is no such CA."""
        ...

    async def certificates_between(
        self, ca_ids: Sequence[str], subject_key_ids: Sequence[str]
    ) -> Sequence[Certificate]:
        """CA certificates that any of these CAs issued for any of these keys."""
        ...

    async def all_cas(self) -> Sequence[CertificationAuthority]:
        """Roots first, then by level and age."""
        ...

    async def page_cas(
        self, query: ListQuery, *, now: datetime, common_name: str | None = None
    ) -> Page[CertificationAuthority]: ...

    async def find_profile(self, profile_id: str) -> IssuanceProfile | None: ...

    async def page_profiles(self, query: ListQuery) -> Page[IssuanceProfile]: ...

    async def enrolments_under(
        self, profile_id: str, *, after: str, limit: int
    ) -> Sequence[RecordedEnrolment]:
        """What was issued for CSRs under a profile, in order of serial numbers, from past
        `after`."""
        ...

    async def find_certificate(self, serial_number: str) -> Certificate | None: ...

    async def find_certificates(
        self, serial_numbers: Sequence[str]
    ) -> Mapping[str, Certificate]: ...

    async def find_certificate_by_der(self, der: bytes) -> Certificate | None: ...

    async def find_issued(self, request_key: str) -> Certificate | None: ...

    async def page_certificates(
        self, query: ListQuery, *, now: datetime, scope: CertificateScope
    ) -> Page[Certificate]: ...

    async def standing(self, ca_id: str, serial_number: str) -> StandingRow | None:
        """`None` if there is no such CA."""
        ...

    async def revoked_under(self, ca_id: str, *, now: datetime) -> Sequence[RevokedEntry]: ...

    async def issued_under(
        self, ca_id: str, *, after: str, limit: int, now: datetime
    ) -> Sequence[IssuedStanding]: ...

    async def unreconciled(self, *, older_than: datetime, limit: int) -> Sequence[Certificate]: ...

    async def find_job(self, job_id: str) -> CascadeJob | None: ...

    async def unfinished_jobs(self) -> Sequence[CascadeJob]: ...

    async def has_key(self, key_id: str) -> bool:
        """Whether any CA's key is this one."""
        ...

    async def find_awaited(self, ca_id: str) -> AwaitedCa | None: ...

    async def all_awaited(self) -> Sequence[AwaitedCa]:
        """CAs that wait for their certificate, the oldest first."""
        ...

    async def find_approval(self, approval_id: str) -> Approval | None: ...

    async def page_approvals(self, query: ListQuery, *, now: datetime) -> Page[Approval]: ...

    async def all_policies(self) -> Mapping[str, ApprovalPolicy]:
        """By id of the CA, for each CA that has one."""
        ...

    async def fold_counts(self) -> int:
        """Add up the changes of kept counts: how many there were. Counts stay the same."""
        ...

    async def stats(
        self,
        *,
        now: datetime,
        ca_query: ListQuery | None = None,
        certificate_query: ListQuery | None = None,
        issuer_ca_id: str | None = None,
    ) -> CaStats: ...


class IssuanceLogUnit(Protocol):
    """A transaction on the issuance log."""

    def audit(self, record: AuditRecord) -> None: ...

    def log(self, entry: LogEntry) -> None:
        """Have an entry about the log itself, once committed."""
        ...

    async def lock_head(self) -> LogHead:
        """The log, which this transaction alone may let grow. Raises `Unavailable`."""
        ...

    async def save_head(self, head: LogHead) -> None: ...

    async def sequenced(self, after: int, *, limit: int) -> Sequence[Sequenced]:
        """What the journal holds for the log after this position, in order."""
        ...

    async def tiles(self, wanted: set[Tile]) -> Mapping[Tile, Sequence[bytes]]: ...

    async def append(self, first: int, entries: Sequence[Sequenced]) -> None:
        """Store entries from position `first` on."""
        ...

    async def save_tiles(self, changed: Mapping[Tile, Sequence[bytes]]) -> None: ...

    async def adopt_page(self, after: str, *, before: datetime, limit: int) -> Sequence[str]:
        """Log certificates that were stored before the log was: their serial numbers."""
        ...

    async def save_cosignature(self, cosigned: Cosigned) -> None: ...

    async def lock_witnessed(self, origin: str) -> Head | None:
        """The newest head of another log that was signed here."""
        ...

    async def save_witnessed(self, origin: str, head: Head, *, seen_at: datetime) -> None: ...


class IssuanceLogStore(Protocol):
    """The issuance log's rows; what is read is what was committed."""

    def unit(self) -> AbstractAsyncContextManager[IssuanceLogUnit]: ...

    async def head(self) -> LogHead:
        """Raises `Unavailable`."""
        ...

    async def last_sequenced(self) -> int:
        """The journal's last position."""
        ...

    async def tiles(self, wanted: set[Tile]) -> Mapping[Tile, Sequence[bytes]]:
        """Those of them that there are."""
        ...

    async def entries(self, begin: int, end: int) -> Sequence[bytes]:
        """From `begin` up to, and without, `end`."""
        ...

    async def entries_of(self, serial_number: str, *, limit: int) -> Sequence[tuple[int, bytes]]:
        """A certificate's newest entries with their positions, the oldest of them first."""
        ...

    async def cosignatures(self) -> Sequence[Cosigned]: ...


class Witness(Protocol):
    """Another installation that signs this log's heads."""

    @property
    def key(self) -> VerifierKey: ...

    async def add_checkpoint(self, old: int, proof: Sequence[bytes], note: str) -> str | int:
        """Its signature lines, or the size that it saw last where `old` is another. Raises
        `Unavailable`, and what it refuses with."""
        ...
