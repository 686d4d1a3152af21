"""A VA over a real database, with a CA and a KMS that are a few lines each and real keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeVar, cast

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

from lamassu.kernel.errors import NotFound
from lamassu.kernel.identity import Caller, Peer, Principal, PrincipalKind
from lamassu.kernel.x509.keys import key_id as key_id_of
from lamassu.kernel.x509.serials import serial_hex
from lamassu.platform.database import Database
from lamassu.platform.http import Mount, build_app
from lamassu.services.ca.contract import (
    Authorities,
    Certificate,
    CertificateStanding,
    CertificateStatus,
    CertificateType,
    CertificationAuthority,
    IssuedStanding,
    RevocationReason,
    RevokedEntry,
)
from lamassu.services.kms.contract import Key, KeyPurpose, Keys, KeySpec
from lamassu.services.va.http import public_routes, routes
from lamassu.services.va.storage import VaStorage
from lamassu.services.va.usecases import VaService
from tests.support.pki import NOW, Made, ec_key, make, spki_of

T = TypeVar("T")
HOST = "pki.example:8443"


@dataclass
class FrozenClock:
    time: datetime = NOW + timedelta(milliseconds=250)

    def now(self) -> datetime:
        return self.time

    def forward(self, **by: float) -> None:
        self.time += timedelta(**by)


@dataclass
class FakeKeys:
    """Keys by id; `failure` is raised in place of a signature, `gate` holds it up."""

    keys: dict[str, CertificateIssuerPrivateKeyTypes] = field(default_factory=dict)
    failure: Exception | None = None
    gate: asyncio.Event | None = None
    uses: int = 0
    purposes: dict[str, KeyPurpose] = field(default_factory=dict)

    async def generate(
        self, spec: KeySpec, *, purpose: KeyPurpose, name: str, caller: Caller, **more: object
    ) -> Key:
        made = ec_key()
        key_id = key_id_of(spki_of(made))
        self.keys[key_id], self.purposes[key_id] = made, purpose
        return Key(key_id, name, "software", spec, purpose, spki_of(made), NOW)

    async def use(
        self,
        key_id: str,
        build: Callable[[CertificateIssuerPrivateKeyTypes], T],
        *,
        purpose: KeyPurpose,
    ) -> T:
        assert purpose is self.purposes.get(key_id, KeyPurpose.CA)
        self.uses += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return build(self.keys[key_id])


@dataclass
class FakeAuthorities:
    """CAs, what they issued, and what of it is revoked."""

    clock: FrozenClock
    cas: dict[str, CertificationAuthority] = field(default_factory=dict)
    issued: dict[str, dict[str, datetime]] = field(default_factory=dict)
    revoked: dict[str, dict[str, RevokedEntry]] = field(default_factory=dict)
    gate: asyncio.Event | None = None
    lists_read: int = 0
    cas_listed: int = 0

    async def list_cas(self) -> Sequence[CertificationAuthority]:
        self.cas_listed += 1
        return list(self.cas.values())

    async def get_ca(self, ca_id: str) -> CertificationAuthority:
        if ca_id not in self.cas:
            raise NotFound("CA not found")
        return self.cas[ca_id]

    async def find_ca_by_key_id(self, subject_key_id: str) -> CertificationAuthority | None:
        for authority in self.cas.values():
            if authority.certificate.subject_key_id == subject_key_id:
                return authority
        return None

    async def find_certificate(self, serial_number: str) -> Certificate | None:
        for ca_id, issued in self.issued.items():
            if serial_number in issued:
                return replace(
                    self.cas[ca_id].certificate, serial_number=serial_number, issuer_ca_id=ca_id
                )
        return None

    async def standing(self, ca_id: str, serial_number: str) -> CertificateStanding:
        now = self.clock.now()
        if serial_number not in self.issued[ca_id]:
            return CertificateStanding(known=False, revoked=False, read_at=now)
        entry = self.revoked[ca_id].get(serial_number)
        return CertificateStanding(
            known=True,
            revoked=entry is not None,
            read_at=now,
            revocation_time=entry.revocation_time if entry else None,
            reason=entry.reason if entry else RevocationReason.UNSPECIFIED,
            not_after=self.issued[ca_id][serial_number],
        )

    async def revoked_under(self, ca_id: str) -> Sequence[RevokedEntry]:
        self.lists_read += 1
        entries = [self.revoked[ca_id][serial] for serial in sorted(self.revoked[ca_id])]
        if self.gate is not None:
            await self.gate.wait()
        return entries

    async def issued_under(self, ca_id: str, *, after: str, limit: int) -> Sequence[IssuedStanding]:
        rows = [serial for serial in sorted(self.issued[ca_id]) if serial > after]
        begun = NOW - timedelta(days=1)  # as the makers of certificates have it
        return [
            IssuedStanding(serial, begun, serial in self.revoked[ca_id]) for serial in rows[:limit]
        ]


@dataclass
class World:
    """A VA with a root CA named `root`, and what a test does to it."""

    clock: FrozenClock
    keys: FakeKeys
    authorities: FakeAuthorities
    service: VaService
    database: Database
    root: Made
    pauses: list[float] = field(default_factory=list)
    made: dict[str, Made] = field(default_factory=dict)

    def add_ca(self, ca_id: str, made: Made, *, parent_id: str | None = None) -> None:
        serial = serial_hex(made.certificate.serial_number)
        ski = made.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        self.authorities.cas[ca_id] = CertificationAuthority(
            id=ca_id,
            certificate=_certificate(made, ski.value.digest.hex(), issuer=parent_id or ca_id),
            key_id=made.subject_key_id,
            level=0 if parent_id is None else 1,
            parent_id=parent_id,
            profile_id="",
            created_at=NOW,
        )
        self.authorities.issued[ca_id] = {serial: made.certificate.not_valid_after_utc}
        self.authorities.revoked[ca_id] = {}
        self.keys.keys[made.subject_key_id] = made.key
        self.made[ca_id] = made

    def issue(self, common_name: str = "device-1", *, ca_id: str = "root") -> Made:
        made = make(common_name, issuer=self.made[ca_id])
        serial = serial_hex(made.certificate.serial_number)
        self.authorities.issued[ca_id][serial] = made.certificate.not_valid_after_utc
        return made

    def revoke(
        self,
        made: Made,
        reason: RevocationReason = RevocationReason.KEY_COMPROMISE,
        *,
        ca_id: str = "root",
    ) -> None:
        serial = serial_hex(made.certificate.serial_number)
        entry = RevokedEntry(serial, self.clock.now(), reason)
        self.authorities.revoked[ca_id][serial] = entry

    def release(self, made: Made, *, ca_id: str = "root") -> None:
        del self.authorities.revoked[ca_id][serial_hex(made.certificate.serial_number)]

    @property
    def ski(self) -> str:
        return self.root.subject_key_id

    async def served(self) -> x509.CertificateRevocationList:
        return x509.load_der_x509_crl((await self.service.crl(self.ski)).der)

    async def listed(self) -> set[int]:
        return {entry.serial_number for entry in await self.served()}

    def another_process(self) -> VaService:
        """A VA beside the first, on the same database."""
        return self._service()

    def _service(self) -> VaService:
        async def pause(seconds: float) -> None:
            self.pauses.append(seconds)
            await asyncio.sleep(0)

        return VaService(
            storage=VaStorage(self.database),
            authorities=cast(Authorities, self.authorities),
            keys=cast(Keys, self.keys),
            clock=self.clock,
            validation_urls=["http://pki.example:8080"],
            pause=pause,
        )


def _certificate(made: Made, ski: str, *, issuer: str) -> Certificate:
    from lamassu.kernel.x509.names import subject_of

    return Certificate(
        serial_number=serial_hex(made.certificate.serial_number),
        der=made.der,
        subject=subject_of(made.name),
        issuer=subject_of(made.certificate.issuer),
        subject_key_id=ski,
        authority_key_id=ski,
        issuer_ca_id=issuer,
        issuer_serial_number="00",
        issuer_level=0,
        not_before=made.certificate.not_valid_before_utc,
        not_after=made.certificate.not_valid_after_utc,
        stored_status=CertificateStatus.ACTIVE,
        type=CertificateType.MANAGED,
        is_ca=True,
        key_algorithm="ECDSA",
        key_size=256,
    )


@pytest.fixture(scope="package")
def root() -> Made:
    return make("Root", ca=True, not_after=NOW + timedelta(days=3650))


@pytest.fixture
def database_services() -> Sequence[str]:
    return ("va",)


@pytest.fixture
async def world(database: Database, root: Made) -> AsyncIterator[World]:
    clock = FrozenClock()
    world = World(
        clock=clock,
        keys=FakeKeys(),
        authorities=FakeAuthorities(clock),
        service=cast(VaService, None),
        database=database,
        root=root,
    )
    world.service = world._service()
    world.add_ca("root", root)
    yield world
    await world.service.close()


@dataclass
class Clients:
    """`public` on the plain listener; `admin` on HTTPS; `stranger` there without certificate."""

    public: httpx.AsyncClient
    admin: httpx.AsyncClient
    stranger: httpx.AsyncClient


async def _authenticate(peer: Peer) -> Principal | None:
    return Principal(PrincipalKind.ADMIN, "alice") if peer.chain else None


@pytest.fixture
async def clients(world: World) -> AsyncIterator[Clients]:
    common = {"authenticate": _authenticate, "public_hosts": [HOST], "bookmark_key": b"k" * 32}
    public = build_app([Mount("", "va", public_routes(world.service))], **common)  # type: ignore[arg-type]
    private = build_app([Mount("/api/va", "va", routes(world.service))], **common)  # type: ignore[arg-type]

    def client(app: object, peer: Peer) -> httpx.AsyncClient:
        async def with_peer(scope: dict[str, object], receive: object, send: object) -> None:
            scope["extensions"] = {"lamassu.peer": peer}
            await app(scope, receive, send)  # type: ignore[operator]

        return httpx.AsyncClient(
            transport=httpx.ASGITransport(with_peer, raise_app_exceptions=False),  # type: ignore[arg-type]
            base_url=f"https://{HOST}",
        )

    made = Clients(
        client(public, Peer()), client(private, Peer((b"admin",))), client(private, Peer())
    )
    yield made
    for each in (made.public, made.admin, made.stranger):
        await each.aclose()
