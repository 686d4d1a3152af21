"""A device manager on a real database, beside a CA that lives in memory and does as it is told."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from lamassu.kernel.errors import NotFound, Unavailable
from lamassu.kernel.identity import Caller, Principal, PrincipalKind
from lamassu.kernel.records import Json
from lamassu.kernel.x509.names import Subject
from lamassu.platform.database import Database
from lamassu.services.ca.contract import (
    Certificate,
    CertificateStanding,
    CertificateStatus,
    CertificateType,
    CertificationAuthority,
    RevocationReason,
)
from lamassu.services.devices.contract import Binding, BindMode, Device, NewDevice
from lamassu.services.devices.rules import ATTACHED_TO
from lamassu.services.devices.storage import DeviceStorage
from lamassu.services.devices.usecases import DeviceService

START = datetime(2026, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)
ADMIN = Caller(Principal(PrincipalKind.ADMIN, "alice"), request_id="r1")


class MovedClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.time = START

    def now(self) -> datetime:
        return self.time

    def advance(self, by: timedelta) -> None:
        self.time += by


@dataclass
class Office:
    """The CA in memory. `failing` makes revocations fail; `published` is what they answer."""

    clock: MovedClock
    certificates: dict[str, Certificate] = field(default_factory=dict)
    revoked_cas: set[str] = field(default_factory=set)
    reasons: list[tuple[str, RevocationReason]] = field(default_factory=list)
    failing: int = 0
    published: bool = True
    before_revoking: list[object] = field(default_factory=list)

    def add(
        self,
        device_id: str,
        *,
        ca_id: str = "issuing-ca",
        lifetime: timedelta = timedelta(days=30),
        attached: bool = True,
    ) -> Certificate:
        serial_number = f"{len(self.certificates) + 1:032x}"
        attached_to: Json = {"device_id": device_id, "authorized_by": {"ra_id": "fleet"}}
        certificate = Certificate(
            serial_number=serial_number,
            der=f"{ca_id}/{serial_number}".encode(),
            subject=Subject(common_name=device_id),
            issuer=Subject(common_name=ca_id),
            subject_key_id="",
            authority_key_id="",
            issuer_ca_id=ca_id,
            issuer_serial_number="01",
            issuer_level=1,
            not_before=self.clock.now(),
            not_after=self.clock.now() + lifetime,
            stored_status=CertificateStatus.ACTIVE,
            type=CertificateType.MANAGED,
            is_ca=False,
            key_algorithm="ECDSA",
            key_size=256,
            metadata={ATTACHED_TO: attached_to} if attached else {},
        )
        self.certificates[serial_number] = certificate
        return certificate

    def set_status(self, serial_number: str, status: CertificateStatus) -> None:
        self.certificates[serial_number] = replace(
            self.certificates[serial_number], stored_status=status
        )

    async def find_certificate(self, serial_number: str) -> Certificate | None:
        return self.certificates.get(serial_number)

    async def find_certificates(self, serial_numbers: Sequence[str]) -> Mapping[str, Certificate]:
        return {one: self.certificates[one] for one in serial_numbers if one in self.certificates}

    async def standing(self, ca_id: str, serial_number: str) -> CertificateStanding:
        certificate = self.certificates.get(serial_number)
        revoked = certificate is not None and (
            certificate.stored_status is CertificateStatus.REVOKED or ca_id in self.revoked_cas
        )
        return CertificateStanding(certificate is not None, revoked, self.clock.now())

    async def get_ca(self, ca_id: str) -> CertificationAuthority:
        if ca_id not in ("issuing-ca", "other-ca"):
            raise NotFound("CA not found")
        return CertificationAuthority(
            id=ca_id,
            certificate=_no_certificate(),
            key_id="",
            level=0,
            parent_id="root-ca",
            profile_id="",
            created_at=START,
            revoked_by="root-ca" if ca_id in self.revoked_cas else None,
        )

    async def revoke(self, serial_number: str, reason: RevocationReason, *, caller: Caller) -> bool:
        for happen in self.before_revoking:
            await happen()  # type: ignore[operator]
        self.before_revoking.clear()
        if self.failing:
            self.failing -= 1
            raise Unavailable("engine does not answer")
        self.reasons.append((serial_number, reason))
        self.set_status(serial_number, CertificateStatus.REVOKED)
        return self.published


def _no_certificate() -> Certificate:
    return Certificate(
        serial_number="",
        der=b"",
        subject=Subject(),
        issuer=Subject(),
        subject_key_id="",
        authority_key_id="",
        issuer_ca_id="",
        issuer_serial_number="",
        issuer_level=0,
        not_before=START,
        not_after=START,
        stored_status=CertificateStatus.ACTIVE,
        type=CertificateType.MANAGED,
        is_ca=True,
        key_algorithm="",
        key_size=0,
    )


@dataclass
class World:
    """The device manager and what stands around it."""

    database: Database
    clock: MovedClock
    office: Office
    service: DeviceService
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @classmethod
    def on(cls, database: Database) -> World:
        clock = MovedClock()
        office = Office(clock)
        service = DeviceService(store=DeviceStorage(database), office=office, clock=clock)
        return cls(database, clock, office, service)

    async def created(self, device_id: str = "dev-1", **given: object) -> Device:
        return await self.service.create(new(device_id, **given), caller=ADMIN)

    def binding(
        self,
        device_id: str,
        certificate: Certificate,
        *,
        judged: int | None,
        mode: BindMode = BindMode.PROVISIONED,
        create: bool = False,
        dms_id: str = "fleet",
    ) -> Binding:
        return Binding(
            device_id=device_id,
            dms_id=dms_id,
            mode=mode,
            ca_id=certificate.issuer_ca_id,
            serial_number=certificate.serial_number,
            certificate_sha256=sha256(certificate),
            not_after=certificate.not_after,
            judged_version=judged,
            caller=ADMIN,
            create=new(device_id, dms_id=dms_id) if create else None,
        )

    async def enrolled(
        self, device_id: str = "dev-1", **given: object
    ) -> tuple[Device, Certificate]:
        """A device made just in time, with its first certificate."""
        certificate = self.office.add(device_id, **given)  # type: ignore[arg-type]
        binding = self.binding(device_id, certificate, judged=None, create=True)
        return await self.service.bind(binding), certificate

    async def renewed(self, device: Device) -> tuple[Device, Certificate]:
        certificate = self.office.add(device.id)
        binding = self.binding(device.id, certificate, judged=device.version, mode=BindMode.RENEWED)
        return await self.service.bind(binding), certificate

    async def records(self, kind: str | None = None) -> list[tuple[str, str, str]]:
        """What the transactions left behind, in order: kind, type, subject."""
        async with self.database.reading("devicemanager") as connection:
            rows = await connection.execute(
                text("SELECT kind, type, subject FROM devicemanager_outbox ORDER BY seq")
            )
            return [tuple(row) for row in rows if kind in (None, row.kind)]  # type: ignore[misc]

    async def bodies(self, event_type: str) -> list[str]:
        async with self.database.reading("devicemanager") as connection:
            rows = await connection.execute(
                text("SELECT body FROM devicemanager_outbox WHERE type = :t ORDER BY seq"),
                {"t": event_type},
            )
            return [row.body for row in rows]


def new(device_id: str, *, dms_id: str = "fleet", **given: object) -> NewDevice:
    return NewDevice(
        id=device_id,
        dms_id=dms_id,
        icon="CgSmartHomeBoiler",
        icon_color="#25ee32",
        **given,  # type: ignore[arg-type]
    )


def sha256(certificate: Certificate) -> str:
    return hashlib.sha256(certificate.der).hexdigest()
