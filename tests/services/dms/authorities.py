"""A CA service in memory that signs with real keys and does as it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Conflict, NotFound, RuleViolation, Unavailable
from lamassu.kernel.identity import Caller
from lamassu.kernel.records import Json
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.kernel.x509.serials import new_serial_number
from lamassu.services.ca.contract import (
    Certificate,
    CertificateStanding,
    CertificateStatus,
    CertificateType,
    CertificationAuthority,
    IssuanceProfile,
    Issued,
    IssueRequest,
    RefusedRequest,
    RevocationReason,
    RevokedEntry,
)
from lamassu.services.ca.rules.profiles import check_for_devices, check_for_end_entities
from tests.support.pki import Made, make

LIFETIME = timedelta(days=90)


@dataclass
class MemoryAuthorities:
    """`Authorities`, and how to set the stage. `issue_faults` are raised one per issue, after
    the certificate was stored if they say so by `stored_first`."""

    clock: Clock
    keys: dict[str, Made] = field(default_factory=dict)
    cas: dict[str, CertificationAuthority] = field(default_factory=dict)
    profiles: dict[str, IssuanceProfile] = field(default_factory=dict)
    certificates: dict[str, Certificate] = field(default_factory=dict)
    by_request: dict[str, str] = field(default_factory=dict)
    requests: list[IssueRequest] = field(default_factory=list)
    refused: list[RefusedRequest] = field(default_factory=list)
    reconciled: set[str] = field(default_factory=set)
    standings_asked: int = 0
    unavailable: bool = False
    lifetime: timedelta = LIFETIME

    # --- the stage ------------------------------------------------------------------------

    def add_ca(
        self,
        ca_id: str,
        made: Made,
        *,
        parent: str | None = None,
        kind: CertificateType = CertificateType.MANAGED,
    ) -> None:
        certificate = replace(self._stored(made.der, issuer=parent or ca_id, kind=kind), is_ca=True)
        self.keys[ca_id] = made
        self.cas[ca_id] = CertificationAuthority(
            id=ca_id,
            certificate=certificate,
            key_id=made.subject_key_id,
            level=0,
            parent_id=parent,
            profile_id="",
            created_at=self.clock.now(),
        )

    def rekey_ca(self, ca_id: str) -> Made:
        """A next generation of a root."""
        following = f"{ca_id}.2"
        made = ca_certificate(ca_id, issuer=None, clock=self.clock)
        self.add_ca(following, made)
        self.cas[following] = replace(self.cas[following], lineage_id=ca_id)
        self.cas[ca_id] = replace(self.cas[ca_id], successor_id=following)
        return made

    def sign_by_hand(self, ca_id: str, made: Made) -> Made:
        """Store a certificate that was signed with the CA's key."""
        certificate = self._stored(made.der, issuer=ca_id)
        self.certificates[certificate.serial_number] = certificate
        return made

    def revoke_ca(self, ca_id: str) -> None:
        for ca in self.cas.values():
            if ca_id in self._path_ids(ca.id):
                self.cas[ca.id] = replace(ca, revoked_by=ca_id)

    def revoke_now(
        self, serial_number: str, reason: RevocationReason = RevocationReason.KEY_COMPROMISE
    ) -> None:
        self.certificates[serial_number] = replace(
            self.certificates[serial_number],
            stored_status=CertificateStatus.REVOKED,
            revocation_reason=reason,
            revocation_time=self.clock.now(),
        )

    def issued_to(self, device_id: str) -> list[Certificate]:
        return [c for c in self.certificates.values() if c.subject.common_name == device_id]

    def status_of(self, der: bytes) -> tuple[CertificateStatus, RevocationReason]:
        certificate = self.certificates[certificate_facts(der).serial_number]
        return certificate.stored_status, certificate.revocation_reason

    def _stored(
        self,
        der: bytes,
        *,
        issuer: str,
        kind: CertificateType = CertificateType.IMPORTED_WITHOUT_KEY,
        metadata: dict[str, Json] | None = None,
    ) -> Certificate:
        facts = certificate_facts(der)
        return Certificate(
            serial_number=facts.serial_number,
            der=der,
            subject=facts.subject,
            issuer=facts.issuer,
            subject_key_id=facts.ski,
            authority_key_id=facts.aki,
            issuer_ca_id=issuer,
            issuer_serial_number="01",
            issuer_level=0,
            not_before=facts.not_before,
            not_after=facts.not_after,
            stored_status=CertificateStatus.ACTIVE,
            type=kind,
            is_ca=facts.is_ca,
            key_algorithm=facts.key.algorithm,
            key_size=facts.key.size,
            metadata=metadata or {},
        )

    def _path_ids(self, ca_id: str) -> list[str]:
        ids = [ca_id]
        while (parent := self.cas[ids[-1]].parent_id) is not None:
            ids.append(parent)
        return ids

    # --- Authorities ----------------------------------------------------------------------

    async def get_ca(self, ca_id: str) -> CertificationAuthority:
        if ca_id not in self.cas:
            raise NotFound("CA not found", code="ca_not_found")
        return self.cas[ca_id]

    async def find_ca_by_key_id(self, subject_key_id: str) -> CertificationAuthority | None:
        for ca in self.cas.values():
            if ca.certificate.subject_key_id == subject_key_id:
                return ca
        return None

    async def list_cas(self) -> Sequence[CertificationAuthority]:
        return list(self.cas.values())

    async def generations_of(self, ca_id: str) -> Sequence[CertificationAuthority]:
        first = (await self.get_ca(ca_id)).first_generation
        return [ca for ca in self.cas.values() if ca.first_generation == first]

    async def cross_certificates_of(self, ca_id: str) -> Sequence[bytes]:
        return ()

    async def path_of(self, ca_id: str) -> Sequence[CertificationAuthority]:
        newest = (await self.generations_of(ca_id))[-1]
        return [self.cas[each] for each in self._path_ids(newest.id)]

    async def get_profile(self, profile_id: str) -> IssuanceProfile:
        if profile_id not in self.profiles:
            raise NotFound("issuance profile not found", code="profile_not_found")
        return self.profiles[profile_id]

    async def keep_refused(self, refused: RefusedRequest) -> None:
        if self.unavailable:
            raise Unavailable("the CA is away")
        self.refused.append(refused)

    async def issue(self, request: IssueRequest) -> Issued:
        if self.unavailable:
            raise Unavailable("the engine does not answer", retry_after=5)
        self.requests.append(request)
        ca = await self.get_ca(request.ca_id)
        if request.request_key in self.by_request:
            serial_number = self.by_request[request.request_key]
            return Issued(self.certificates[serial_number], repeated=True)
        if request.profile_id is not None:
            profile = await self.get_profile(request.profile_id)
            check_for_end_entities(profile, request.ca_id)
            check_for_devices(profile)
        if ca.revoked_by is not None:
            raise RuleViolation("CA Status inconsistent", code="ca_not_active")
        if request.replaces is not None:
            replaced = self.certificates[request.replaces[1]]
            if replaced.stored_status is not CertificateStatus.ACTIVE:
                raise Conflict("superseded", code="certificate_superseded")
        certificate = self._stored(
            self._signed(request),
            issuer=request.ca_id,
            metadata={
                **request.metadata,
                "lamassu.io/ra/attached-to": {
                    "device_id": request.device_id,
                    "authorized_by": {"ra_id": request.owner},
                },
            },
        )
        self.certificates[certificate.serial_number] = certificate
        if request.request_key is not None:
            self.by_request[request.request_key] = certificate.serial_number
        return Issued(certificate)

    def _signed(self, request: IssueRequest) -> bytes:
        csr = x509.load_der_x509_csr(request.csr_der)
        subject, san = csr.subject, _san(csr.extensions)
        if request.subject_der is not None:
            assert request.replaces is not None
            held = x509.load_der_x509_certificate(self.certificates[request.replaces[1]].der)
            assert held.subject.public_bytes() == request.subject_der
            subject, san = held.subject, _san(held.extensions)
        issuer = self.keys[request.ca_id]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.name)
            .public_key(csr.public_key())
            .serial_number(new_serial_number())
            .not_valid_before(self.clock.now())
            .not_valid_after(self.clock.now() + self.lifetime)
            .add_extension(x509.BasicConstraints(False, None), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(csr.public_key()), False)
            .add_extension(
                x509.AuthorityKeyIdentifier(bytes.fromhex(issuer.subject_key_id), None, None),
                False,
            )
        )
        if san is not None:
            builder = builder.add_extension(san, False)
        return builder.sign(issuer.key, SHA256()).public_bytes(Encoding.DER)

    async def find_issued(self, request_key: str) -> Certificate | None:
        serial_number = self.by_request.get(request_key)
        return self.certificates[serial_number] if serial_number else None

    async def find_certificate(self, serial_number: str) -> Certificate | None:
        return self.certificates.get(serial_number)

    async def find_certificates(self, serial_numbers: Sequence[str]) -> Mapping[str, Certificate]:
        return {n: self.certificates[n] for n in serial_numbers if n in self.certificates}

    async def find_certificate_by_der(self, der: bytes) -> Certificate | None:
        return next((c for c in self.certificates.values() if c.der == der), None)

    async def standing(self, ca_id: str, serial_number: str) -> CertificateStanding:
        self.standings_asked += 1
        certificate = self.certificates.get(serial_number)
        if certificate is None or certificate.issuer_ca_id != ca_id:
            return CertificateStanding(False, False, self.clock.now())
        own = certificate.stored_status is CertificateStatus.REVOKED
        above = self.cas[ca_id].revoked_by is not None
        return CertificateStanding(
            known=True,
            revoked=own or above,
            read_at=self.clock.now(),
            revocation_time=certificate.revocation_time,
            reason=certificate.revocation_reason
            if own
            else RevocationReason.CESSATION_OF_OPERATION,
            not_after=certificate.not_after,
            der=certificate.der,
        )

    async def revoked_under(self, ca_id: str) -> Sequence[RevokedEntry]:
        return []

    async def revoke(self, serial_number: str, reason: RevocationReason, *, caller: Caller) -> bool:
        if serial_number not in self.certificates:
            raise NotFound("certificate not found", code="certificate_not_found")
        if self.certificates[serial_number].stored_status is not CertificateStatus.REVOKED:
            self.revoke_now(serial_number, reason)
        return True

    async def unreconciled(self, *, older_than: datetime, limit: int) -> Sequence[Certificate]:
        found = [
            c
            for c in self.certificates.values()
            if "lamassu.io/ra/attached-to" in c.metadata
            and c.not_before < older_than
            and c.serial_number not in self.reconciled
        ]
        return found[:limit]

    async def reconcile(self, serial_numbers: Sequence[str]) -> None:
        self.reconciled.update(serial_numbers)


def _san(extensions: x509.Extensions) -> x509.SubjectAlternativeName | None:
    try:
        return extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def ca_certificate(common_name: str, *, issuer: Made | None, clock: Clock) -> Made:
    now = clock.now()
    return make(
        common_name,
        issuer=issuer,
        ca=True,
        not_before=now - timedelta(days=1),
        not_after=now + timedelta(days=3650),
    )
