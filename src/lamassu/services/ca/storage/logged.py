"""Whatever a transaction does to certificates, the issuance log is told in the same transaction.

It happens here, beneath the use cases, so that none of them can forget it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from lamassu.platform.database import Unit
from lamassu.services.ca.contract import Certificate, CertificationAuthority
from lamassu.services.ca.model import (
    CascadeJob,
    IssuerVersions,
    LockedCertificate,
    NewCertificate,
    WasBefore,
)
from lamassu.services.ca.rules.issuance_log import EntryType, Logged, deletion, entry_of, state_of
from lamassu.services.ca.storage.transaction import SqlCaTransaction


class LoggedTransaction(SqlCaTransaction):
    """The `CaTransaction` port, with the log's entries."""

    def __init__(self, unit: Unit) -> None:
        super().__init__(unit)
        self._known: dict[str, Logged] = {}  # as the rows are
        self._present: dict[str, str] = {}  # CAs' present certificates

    # --- what is locked, to tell a change of status from another change ----------------------

    async def lock_ca(self, ca_id: str) -> CertificationAuthority | None:
        authority = await super().lock_ca(ca_id)
        if authority is not None:
            self._know_authorities([authority])
        return authority

    async def lock_children(self, ca_ids: Sequence[str]) -> Sequence[CertificationAuthority]:
        found = await super().lock_children(ca_ids)
        self._know_authorities(found)
        return found

    async def lock_across(self, subject_key_ids: Sequence[str]) -> Sequence[Certificate]:
        found = await super().lock_across(subject_key_ids)
        self._know(found)
        return found

    async def lock_certificate(self, serial_number: str) -> LockedCertificate | None:
        locked = await super().lock_certificate(serial_number)
        if locked is not None:
            self._know([locked.certificate])
        return locked

    async def lock_alerting(self, *, now: datetime, limit: int) -> Sequence[Certificate]:
        found = await super().lock_alerting(now=now, limit=limit)
        self._know(found)
        return found

    async def lock_alerting_cas(
        self, *, now: datetime, limit: int
    ) -> Sequence[CertificationAuthority]:
        found = await super().lock_alerting_cas(now=now, limit=limit)
        self._know_authorities(found)
        return found

    def _know(self, certificates: Iterable[Certificate]) -> None:
        for certificate in certificates:
            self._known[certificate.serial_number] = state_of(certificate)

    def _know_authorities(self, authorities: Sequence[CertificationAuthority]) -> None:
        self._know(one.certificate for one in authorities)
        self._present |= {one.id: one.certificate.serial_number for one in authorities}

    # --- what is new ------------------------------------------------------------------------

    async def insert_ca(self, authority: CertificationAuthority, new: NewCertificate) -> None:
        await super().insert_ca(authority, new)
        self._tell(EntryType.ISSUED, new.certificate, authority.id)

    async def insert_ca_of(self, authority: CertificationAuthority) -> None:
        await super().insert_ca_of(authority)
        self._tell(EntryType.STATUS, authority.certificate, authority.id)

    async def insert_certificate(self, new: NewCertificate) -> None:
        await super().insert_certificate(new)
        self._tell(EntryType.ISSUED, new.certificate)

    async def insert_certificates(self, new: Sequence[NewCertificate]) -> None:
        await super().insert_certificates(new)
        for one in new:
            self._tell(EntryType.IMPORTED, one.certificate)

    async def insert_issued(
        self, new: NewCertificate, judged: IssuerVersions, *, profile_id: str
    ) -> bool:
        stored = await super().insert_issued(new, judged, profile_id=profile_id)
        if stored:
            self._tell(EntryType.ISSUED, new.certificate)
        return stored

    # --- what changes -----------------------------------------------------------------------

    async def relink(self, moved: Sequence[CertificationAuthority]) -> None:
        await super().relink(moved)
        for one in moved:
            self._tell(EntryType.STATUS, one.certificate, one.id)

    async def save_ca(self, authority: CertificationAuthority) -> None:
        await super().save_ca(authority)
        serial_number = authority.certificate.serial_number
        if self._present.get(authority.id) != serial_number:
            self._tell(EntryType.STATUS, authority.certificate, authority.id)
            self._present[authority.id] = serial_number

    async def save_certificate(self, certificate: Certificate) -> None:
        await super().save_certificate(certificate)
        if self._known.get(certificate.serial_number) != state_of(certificate):
            self._tell(EntryType.STATUS, certificate)

    async def revoked_by_job(
        self, job: CascadeJob, ca_id: str, *, after: str, limit: int
    ) -> Sequence[tuple[WasBefore, Certificate]]:
        """The log hears of each when the others do: at a steady pace. Until then the entry of
        their CA's revocation stands for them all."""
        told = await super().revoked_by_job(job, ca_id, after=after, limit=limit)
        for _, certificate in told:
            self._tell(EntryType.STATUS, certificate)
        return told

    async def delete_issued(self, ca_id: str, *, limit: int) -> Sequence[tuple[str, int]]:
        deleted = await super().delete_issued(ca_id, limit=limit)
        for serial_number, _ in deleted:
            self._unit.log(deletion(serial_number, ca_id))
        return deleted

    async def delete_certificate(self, serial_number: str, *, ca_id: str) -> None:
        await super().delete_certificate(serial_number, ca_id=ca_id)
        self._unit.log(deletion(serial_number, ca_id))

    def _tell(self, type_: EntryType, certificate: Certificate, authority_id: str = "") -> None:
        self._unit.log(entry_of(type_, certificate, authority_id=authority_id))
        self._known[certificate.serial_number] = state_of(certificate)
