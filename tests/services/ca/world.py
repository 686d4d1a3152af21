"""A CA with real keys, its clock in hand and its VA a listener that counts."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from sqlalchemy import func, select

from lamassu.kernel.identity import Caller, Principal, PrincipalKind
from lamassu.kernel.x509.names import Subject
from lamassu.platform.database import Database
from lamassu.platform.database.journal_tables import tables as journal_tables
from lamassu.services.ca.contract import (
    AdminStanding,
    Certificate,
    CertificationAuthority,
    IssuanceProfile,
    IssueRequest,
    Validity,
)
from lamassu.services.ca.model import CaRequest, KeyRequest
from lamassu.services.ca.storage import tables
from lamassu.services.ca.usecases import CaService
from lamassu.services.kms.contract import KeyPurpose
from lamassu.services.kms.usecases import KmsService

ALICE = Caller(Principal(PrincipalKind.ADMIN, "alice"), "request-1")
START = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
YEAR = timedelta(hours=8760)

DEVICE_PROFILE = IssuanceProfile(
    id="device",
    name="Devices",
    validity=Validity(duration=YEAR),
    honor_subject=True,
    honor_extensions=True,
    key_usage=("DigitalSignature",),
    extended_key_usages=("ClientAuth",),
)


class MovedClock:
    """Stands still until it is moved."""

    def __init__(self, now: datetime = START) -> None:
        self.time = now

    def now(self) -> datetime:
        return self.time

    def advance(self, by: timedelta) -> None:
        self.time += by


@dataclass
class Listener:
    """A VA that shows everything at once, unless told otherwise."""

    shows: bool = True
    told: list[str] = field(default_factory=list)

    async def revocation_changed(self, ca_id: str, *, wait: timedelta) -> bool:
        self.told.append(ca_id)
        return self.shows


@dataclass
class Crowd:
    """Admins, as access knows them."""

    clock: MovedClock
    known: dict[str, AdminStanding] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("alice", "bob", "carol", "dave"):
            self.certify(name)

    async def admins(self) -> dict[str, AdminStanding]:
        return dict(self.known)

    def certify(self, name: str) -> None:
        before = self.known.get(name, AdminStanding(False))
        self.known[name] = replace(before, holds_certificate=True)

    def revoke(self, name: str) -> None:
        self.known[name] = AdminStanding(False, self.clock.now())

    def let_expire(self, name: str) -> None:
        self.known[name] = replace(self.known[name], holds_certificate=False)


@cache
def device_key(number: int = 0) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@cache
def small_rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def named(common_name: str, **more: str) -> x509.Name:
    oids = {
        "organization": NameOID.ORGANIZATION_NAME,
        "country": NameOID.COUNTRY_NAME,
        "email": NameOID.EMAIL_ADDRESS,
        "serial": NameOID.SERIAL_NUMBER,
    }
    attributes = [x509.NameAttribute(oids[key], value) for key, value in more.items()]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def csr(
    name: x509.Name | str = "device-1",
    *,
    key: Any = None,
    extensions: Sequence[x509.ExtensionType] = (),
) -> bytes:
    subject = named(name) if isinstance(name, str) else name
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key or device_key(), SHA256()).public_bytes(Encoding.DER)


def wire_csr(der: bytes) -> str:
    pem = x509.load_der_x509_csr(der).public_bytes(Encoding.PEM)
    return base64.b64encode(pem).decode()


def parsed(certificate: Certificate | CertificationAuthority) -> x509.Certificate:
    if isinstance(certificate, CertificationAuthority):
        certificate = certificate.certificate
    return x509.load_der_x509_certificate(certificate.der)


def from_wire(text: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(base64.b64decode(text))


@dataclass
class World:
    """What a test works with."""

    ca: CaService
    kms: KmsService
    api: httpx.AsyncClient
    clock: MovedClock
    database: Database
    va: Listener
    people: Crowd

    async def profile(self, profile: IssuanceProfile = DEVICE_PROFILE) -> IssuanceProfile:
        return await self.ca.create_profile(profile, caller=ALICE)

    async def root(self, ca_id: str = "root", **more: Any) -> CertificationAuthority:
        return await self.authority(ca_id, duration=10 * YEAR, **more)

    async def authority(
        self,
        ca_id: str,
        *,
        parent: str = "",
        duration: timedelta = YEAR,
        path_length: int | None = None,
        profile_id: str = "device",
    ) -> CertificationAuthority:
        own = None
        if path_length is not None:
            own = IssuanceProfile(id="", sign_as_ca=True, path_length=path_length)
        request = CaRequest(
            id=ca_id,
            subject=Subject(common_name=f"The {ca_id} CA", organization="Acme", country="PT"),
            key=KeyRequest("ECDSA", 256),
            validity=Validity(duration=duration),
            parent_id=parent,
            profile_id=profile_id,
            own_profile=own,
        )
        return await self.ca.create_ca(request, caller=ALICE)

    async def hierarchy(self) -> None:
        """Profile `device`; CAs `root` over `between` over `issuing` and `other`."""
        await self.profile()
        await self.root()
        await self.authority("between", parent="root", duration=5 * YEAR)
        await self.authority("issuing", parent="between", duration=2 * YEAR)
        await self.authority("other", parent="between", duration=2 * YEAR)

    async def issue(
        self, name: str = "device-1", *, ca_id: str = "issuing", **more: Any
    ) -> Certificate:
        der = more.pop("csr_der", None) or csr(name)
        request = IssueRequest(ca_id=ca_id, csr_der=der, caller=ALICE, **more)
        return (await self.ca.issue(request)).certificate

    async def count(self) -> dict[str, int]:
        """Rows of each table, records, and CA keys: what a refusal must leave as it was."""
        counted = {}
        async with self.database.reading("ca") as connection:
            for table in (
                tables.certificates,
                tables.cas,
                tables.profiles,
                tables.jobs,
                journal_tables("ca").outbox,
            ):
                query = select(func.count()).select_from(table)
                if table is journal_tables("ca").outbox:  # that a CSR was refused is on record
                    query = query.where(table.c.type != "certificate.request.refuse")
                rows = await connection.execute(query)
                counted[table.name] = rows.scalar_one()
        from lamassu.services.kms.storage import keys

        async with self.database.reading("kms") as connection:
            query = select(func.count()).where(keys.c.purpose == KeyPurpose.CA.value)
            counted["ca keys"] = (await connection.execute(query)).scalar_one()
        return counted

    async def records(self, kind: str = "event") -> list[dict[str, Any]]:
        """Events or audit records so far, in order."""
        outbox = journal_tables("ca").outbox
        query = select(outbox.c.body).where(outbox.c.kind == kind).order_by(outbox.c.seq)
        async with self.database.reading("ca") as connection:
            return [json.loads(row.body) for row in await connection.execute(query)]

    async def event_types(self) -> list[str]:
        return [event["type"] for event in await self.records()]
