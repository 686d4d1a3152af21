"""A DMS manager and a device manager on a real database, beside a CA in memory."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import text

from lamassu.kernel.identity import ANONYMOUS, Caller, Peer, Principal, PrincipalKind
from lamassu.kernel.records import StoredEvent
from lamassu.kernel.x509.names import Subject, name_of
from lamassu.platform.database import Database
from lamassu.services.ca.contract import CertificateType, RevocationReason
from lamassu.services.devices.contract import Device, NewDevice
from lamassu.services.devices.storage import DeviceStorage
from lamassu.services.devices.usecases import DeviceService
from lamassu.services.dms.contract import CsrPayload, EnrollmentRequest
from lamassu.services.dms.model.defaults import DmsDefaults
from lamassu.services.dms.model.dms import CertificateExtras, Dms, DmsDraft
from lamassu.services.dms.model.settings import (
    ClientCertificateSettings,
    DmsSettings,
    EnrollmentSettings,
    EstAuthentication,
    ReenrollmentSettings,
    RegistrationMode,
)
from lamassu.services.dms.storage import DmsStorage
from lamassu.services.dms.usecases import DmsService
from tests.services.devices.world import MovedClock
from tests.services.dms.authorities import MemoryAuthorities, ca_certificate
from tests.support.pki import CLIENT_AUTH, Made, ec_key, make

ADMIN = Caller(Principal(PrincipalKind.ADMIN, "alice"), request_id="r1")
STRANGER = Caller(ANONYMOUS, request_id="r2", address="192.0.2.9")
DEFAULTS = DmsDefaults(
    enrollment_ca="fleet-ca",
    issuance_profile_id="device-profile",
    reserved_cas=("bootstrap-ca",),
    production=True,
)


@dataclass(frozen=True)
class Identity:
    """A certificate, its key, and what came above it."""

    der: bytes
    key: ec.EllipticCurvePrivateKey
    above: tuple[bytes, ...] = ()

    @property
    def peer(self) -> Peer:
        return Peer((self.der, *self.above), "192.0.2.9")

    @property
    def certificate(self) -> x509.Certificate:
        return x509.load_der_x509_certificate(self.der)

    @property
    def serial_number(self) -> str:
        number = self.certificate.serial_number
        return number.to_bytes((number.bit_length() + 7) // 8, "big").hex()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.der).hexdigest()


def csr(
    key: ec.EllipticCurvePrivateKey,
    common_name: str | Sequence[str],
    *,
    organization: str = "YourOrg",
    dns: Sequence[str] = (),
) -> bytes:
    """A CSR, DER, signed with the key."""
    names = [common_name] if isinstance(common_name, str) else common_name
    subject = list(name_of(Subject(organization=organization)).rdns)
    for name in names:
        subject += name_of(Subject(common_name=name)).rdns
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    if dns:
        general = [x509.DNSName(each) for each in dns]
        builder = builder.add_extension(x509.SubjectAlternativeName(general), False)
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


class SpyDevices(DeviceService):
    """The device manager, dying or raising at chosen places."""

    before_bind: Any = None

    async def bind(self, binding: Any) -> Device:
        if self.before_bind is not None:
            act, self.before_bind = self.before_bind, None
            await act(binding)
        return await super().bind(binding)


@dataclass
class World:
    """Two CAs that issue, a bootstrap CA, and DMSs to enroll through."""

    database: Database
    clock: MovedClock
    authorities: MemoryAuthorities
    devices: SpyDevices
    store: DmsStorage
    service: DmsService
    made: dict[str, Made] = field(default_factory=dict)

    @classmethod
    def on(cls, database: Database) -> World:
        clock = MovedClock()
        authorities = MemoryAuthorities(clock)
        devices = SpyDevices(store=DeviceStorage(database), office=authorities, clock=clock)
        store = DmsStorage(database)
        service = DmsService(
            store=store, authorities=authorities, devices=devices, clock=clock, defaults=DEFAULTS
        )
        world = cls(database, clock, authorities, devices, store, service)
        world._found_cas()
        return world

    def restarted(self, **changes: Any) -> DmsService:
        """Another process over the same data."""
        return DmsService(
            store=self.store,
            authorities=self.authorities,
            devices=self.devices,
            clock=self.clock,
            defaults=replace(DEFAULTS, **changes),
        )

    def _found_cas(self) -> None:
        from lamassu.services.ca.contract import IssuanceProfile

        def ca(ca_id: str, parent: str | None = None, **given: Any) -> None:
            issuer = self.made[parent] if parent else None
            self.made[ca_id] = ca_certificate(ca_id, issuer=issuer, clock=self.clock)
            self.authorities.add_ca(ca_id, self.made[ca_id], parent=parent, **given)

        ca("root-ca")
        ca("fleet-ca", "root-ca")
        ca("other-ca", "root-ca")
        ca("bootstrap-root")
        ca("bootstrap-ca", "bootstrap-root")
        ca("partner-ca", kind=CertificateType.IMPORTED_WITHOUT_KEY)
        self.made["stranger-ca"] = ca_certificate("stranger-ca", issuer=None, clock=self.clock)
        self.authorities.profiles = {
            "device-profile": IssuanceProfile(id="device-profile"),
            "ca-profile": IssuanceProfile(id="ca-profile", sign_as_ca=True),
            "responder-profile": IssuanceProfile(
                id="responder-profile", extended_key_usages=("ClientAuth", "OCSPSigning")
            ),
            "other-ca-profile": IssuanceProfile(id="other-ca-profile", ca_id="other-ca"),
        }

    # --- DMSs -----------------------------------------------------------------------------

    async def dms(self, dms_id: str = "fleet", **given: Any) -> Dms:
        """Store a DMS; see `settings` for what can be given."""
        draft = DmsDraft(
            id=dms_id,
            name=dms_id,
            settings=settings(**given),
            enrollment_extras=CertificateExtras(
                single_use_bootstrap=given.get("single_use", False)
            ),
        )
        return await self.service.create(draft, caller=ADMIN)

    async def registered(self, device_id: str, dms_id: str = "fleet") -> Device:
        new = NewDevice(id=device_id, dms_id=dms_id, icon="i", icon_color="c")
        return await self.devices.create(new, caller=ADMIN)

    # --- certificates ---------------------------------------------------------------------

    def bootstrap(
        self, name: str = "factory", *, ca: str = "bootstrap-ca", stored: bool = True, **given: Any
    ) -> Identity:
        given.setdefault("not_before", self.clock.now() - timedelta(hours=1))
        given.setdefault("not_after", self.clock.now() + timedelta(days=60))
        given.setdefault("extended", CLIENT_AUTH)
        made = make(name, issuer=self.made[ca], **given)
        if stored:
            self.authorities.sign_by_hand(ca, made)
        return Identity(made.der, made.key)

    # --- enrolment ------------------------------------------------------------------------

    async def enroll(
        self,
        peer: Identity | Peer | None,
        device_id: str = "dev-1",
        *,
        key: ec.EllipticCurvePrivateKey | None = None,
        dms: str = "fleet",
        payload: CsrPayload | None = None,
    ) -> Identity:
        key = key or ec_key()
        request = _request(dms, peer, payload or CsrPayload(csr(key, device_id)))
        return Identity(await self.service.enroll(request), key)

    async def reenroll(
        self,
        peer: Identity | Peer | None,
        device_id: str = "dev-1",
        *,
        key: ec.EllipticCurvePrivateKey | None = None,
        dms: str = "fleet",
        payload: CsrPayload | None = None,
    ) -> Identity:
        if key is None:
            key = peer.key if isinstance(peer, Identity) else ec_key()
        request = _request(dms, peer, payload or CsrPayload(csr(key, device_id)))
        return Identity(await self.service.reenroll(request), key)

    def revoke(
        self, identity: Identity, reason: RevocationReason = RevocationReason.KEY_COMPROMISE
    ) -> None:
        self.authorities.revoke_now(identity.serial_number, reason)

    async def device(self, device_id: str = "dev-1") -> Device:
        device = await self.devices.find(device_id)
        assert device is not None
        return device

    async def current(self, device_id: str = "dev-1") -> str:
        slot = (await self.device(device_id)).slot
        assert slot is not None
        return slot.current.certificate_sha256

    # --- what was left behind -------------------------------------------------------------

    async def events(self, service: str = "dmsmanager") -> list[tuple[str, str, dict[str, Any]]]:
        """Type, subject and data of the events in the outbox, in order."""
        async with self.database.reading(service) as connection:
            rows = await connection.execute(
                text(
                    f"SELECT type, subject, body FROM {service}_outbox "
                    "WHERE kind = 'event' ORDER BY seq"
                )
            )
            return [(row.type, row.subject, json.loads(row.body)) for row in rows]

    async def slot_events(self) -> list[StoredEvent]:
        """The devices' events as the bus would deliver them."""
        return [
            StoredEvent("devicemanager", position, kind, subject, json.dumps(body))
            for position, (kind, subject, body) in enumerate(await self.events("devicemanager"))
            if kind == "device.identity.update"
        ]


def settings(
    *,
    mode: RegistrationMode = RegistrationMode.JITP,
    enrollment_ca: str = "fleet-ca",
    validation_cas: Sequence[str] = ("bootstrap-ca",),
    replaceable: bool = False,
    single_use: bool = False,
    authentication: dict[str, Any] | None = None,
    auth_mode: Any = None,
    reenrollment: dict[str, Any] | None = None,
    **given: Any,
) -> DmsSettings:
    certificate = ClientCertificateSettings(
        validation_cas=tuple(validation_cas),
        single_use_bootstrap=single_use,
        **(authentication or {}),
    )
    return DmsSettings(
        enrollment=EnrollmentSettings(
            authentication=EstAuthentication(mode=auth_mode, client_certificate=certificate),
            enrollment_ca=enrollment_ca,
            enable_replaceable_enrollment=replaceable,
            registration_mode=mode,
        ),
        reenrollment=ReenrollmentSettings(
            **({"reenrollment_delta": timedelta(days=3000)} | (reenrollment or {}))
        ),
        **given,
    )


def _request(dms: str, peer: Identity | Peer | None, payload: CsrPayload) -> EnrollmentRequest:
    shown = peer.peer if isinstance(peer, Identity) else peer or Peer()
    return EnrollmentRequest(dms_id=dms, peer=shown, payload=payload, caller=STRANGER)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
