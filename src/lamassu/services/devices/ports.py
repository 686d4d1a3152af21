"""What the device manager needs of a database, and of the CA."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from lamassu.kernel.identity import Caller
from lamassu.kernel.listing import Filter, ListQuery, Page
from lamassu.kernel.records import AuditRecord, Event
from lamassu.services.ca.contract import (
    Certificate,
    CertificateStanding,
    CertificationAuthority,
    RevocationReason,
)
from lamassu.services.devices.contract import DeviceStatus
from lamassu.services.devices.model import BoundCertificate, StoredDevice


@dataclass(frozen=True, slots=True)
class Claim:
    """What became of a certificate: a place in a slot, or barred from all.

    `number` is its version in the slot of `device_id`; `None` when it was refused, or when the
    device whose slot it was in was deleted.
    """

    device_id: str
    number: int | None
    refused: bool


@dataclass(frozen=True, slots=True)
class Related:
    """Devices, or their tombstones, that an enrolment has to do with. `lookalike` is the id of
    another one than `device` that is equal but for case or spacing."""

    device: StoredDevice | None
    lookalike: str | None
    holder: StoredDevice | None


@dataclass(frozen=True, slots=True)
class Taken:
    """Which of some ids, likenesses and certificates are somebody's already.

    `devices` (tombstones too) by id, `lookalikes` the id that has a likeness, `claims` the id
    of the device that a serial number belongs or belonged to.
    """

    devices: Mapping[str, StoredDevice]
    lookalikes: Mapping[str, str]
    claims: Mapping[str, str]


class DeviceUnit(Protocol):
    """One transaction on devices."""

    def emit(self, event: Event) -> None:
        """Have the event committed with the rows."""
        ...

    def audit(self, record: AuditRecord) -> None:
        """Have the record committed with the rows."""
        ...

    async def read(self, device_id: str) -> StoredDevice | None:
        """The device or its tombstone, in one statement and without a lock.

        What is decided on it must be saved with `update`, which notices other writers.
        """
        ...

    async def lock(self, device_id: str) -> StoredDevice | None:
        """The device or its tombstone; nobody else changes it until the unit ends."""
        ...

    async def insert(self, device: StoredDevice) -> None:
        """A new device, without its slot's certificates.

        Raises `Conflict` when the id, or one that looks like it, is taken.
        """
        ...

    async def update(self, device: StoredDevice, *, read_version: int) -> None:
        """Save a device that was read at `read_version`.

        Raises `Conflict` (`device_changed`) when it has another version by now.
        """
        ...

    async def insert_all(self, new: Sequence[StoredDevice]) -> None:
        """New devices with their slots' certificates, at once. Raises `Conflict`."""
        ...

    async def extend(
        self, device: StoredDevice, added: Sequence[BoundCertificate], *, read_version: int
    ) -> None:
        """Save a device whose slot took these. Raises `Conflict`, as `update` and `insert_all`."""
        ...

    async def bar(self, serial_number: str, device_id: str, *, at: datetime) -> None:
        """Refuse a certificate for ever.

        Raises `Conflict` (`certificate_claimed`) when it was refused or bound before.
        """
        ...

    async def release_claims(self, device_id: str) -> None:
        """Take the certificates of a deleted device out of its slot; they stay claimed."""
        ...

    async def mark_used(self, device_id: str, certificate_sha256: str, *, at: datetime) -> None:
        """Note the first use of a certificate that has none yet."""
        ...


class DeviceStore(Protocol):
    """The devices that there are. Reads see committed state only; tombstones are named so."""

    def unit(self) -> AbstractAsyncContextManager[DeviceUnit]:
        """A transaction that commits at its end and rolls back on an error."""
        ...

    async def bind(
        self,
        device: StoredDevice,
        certificate: BoundCertificate,
        *,
        read_version: int | None,
        records: Sequence[Event | AuditRecord],
    ) -> None:
        """A whole transaction: save a device that has taken a certificate into its slot, and
        claim the certificate for it. `read_version` is `None` for a new device.

        Raises `Conflict`: `device_exists` and `device_changed` as `DeviceUnit.insert` and `update`
        have it, `certificate_refused` when it was refused or is in another slot.
        """
        ...

    async def find(self, device_id: str) -> StoredDevice | None:
        """A device or a tombstone, by exact id."""
        ...

    async def find_by_certificate(self, certificate_sha256: str) -> StoredDevice | None:
        """The device, or its tombstone, that this certificate belongs or belonged to."""
        ...

    async def find_claim(self, serial_number: str) -> Claim | None:
        """What became of a certificate."""
        ...

    async def find_taken(self, ids: Sequence[str], serial_numbers: Sequence[str]) -> Taken:
        """Who has these already."""
        ...

    async def find_related(self, device_id: str, certificate_sha256: str) -> Related:
        """The device of this id, who has its likeness, and whose the certificate is or was."""
        ...

    async def list(
        self, query: ListQuery, *, now: datetime, dms_id: str | None = None
    ) -> Page[StoredDevice]:
        """A page of devices."""
        ...

    async def count_by_status(
        self, filters: Sequence[Filter], *, now: datetime
    ) -> Mapping[DeviceStatus, int]:
        """How many devices there are of each status that occurs."""
        ...

    def astray(self, ca_id: str, *, revoked: bool) -> AsyncIterator[str]:
        """Ids of the devices whose active certificate is of this CA and whose slot does not
        say `revoked` yet (or still, when that is false)."""
        ...


class CertificateOffice(Protocol):
    """What the device manager asks of the CA; the CA's contract satisfies it."""

    async def find_certificate(self, serial_number: str) -> Certificate | None:
        """A stored certificate."""
        ...

    async def find_certificates(self, serial_numbers: Sequence[str]) -> Mapping[str, Certificate]:
        """Those that are stored, by serial number."""
        ...

    async def standing(self, ca_id: str, serial_number: str) -> CertificateStanding:
        """Whether it is revoked, by itself or by a CA above it."""
        ...

    async def get_ca(self, ca_id: str) -> CertificationAuthority:
        """Raises `NotFound`."""
        ...

    async def revoke(self, serial_number: str, reason: RevocationReason, *, caller: Caller) -> bool:
        """Revoke it; whether OCSP and CRL show that already."""
        ...
