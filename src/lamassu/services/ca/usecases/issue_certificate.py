"""Issue an end-entity certificate: one signature, then one transaction."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Conflict, LamassuError, NotFound, Unavailable
from lamassu.kernel.records import Json, Records
from lamassu.kernel.x509.csr import CertificateRequest, parse_csr, verify_csr_signature
from lamassu.kernel.x509.names import subject_of
from lamassu.kernel.x509.serials import serial_hex
from lamassu.services.ca.contract import (
    Certificate,
    CertificateStatus,
    CertificateType,
    CertificationAuthority,
    Issued,
    IssueRequest,
    certificate_document,
)
from lamassu.services.ca.model import IssuerVersions, NewCertificate
from lamassu.services.ca.ports import CaStore, CaTransaction
from lamassu.services.ca.rules.metadata import rendered
from lamassu.services.ca.rules.profiles import check_profile
from lamassu.services.ca.rules.status import check_may_be_replaced, check_may_sign
from lamassu.services.ca.rules.template import CertificateTemplate, subject_key_id
from lamassu.services.ca.rules.usages import extended_key_usages_for, key_usage_for
from lamassu.services.ca.usecases.draft_certificate import Wish, draft
from lamassu.services.ca.usecases.issuers import IssuingContext, IssuingContexts, ca_not_found
from lamassu.services.ca.usecases.sample_lint import SampledLint
from lamassu.services.ca.usecases.trail import record
from lamassu.services.kms.contract import Key, KeyPurpose, Keys

# A CA that changes at every attempt is being worked on by many at once.
_ATTEMPTS = 5


class CertificateIssuing:
    """The hot path of the platform."""

    def __init__(
        self,
        *,
        store: CaStore,
        keys: Keys,
        clock: Clock,
        contexts: IssuingContexts,
        own_hosts: Collection[str],
        sampled: SampledLint,
    ) -> None:
        """`own_hosts` are the platform's own names, which no request is granted."""
        self._store = store
        self._keys = keys
        self._clock = clock
        self._contexts = contexts
        self._own_hosts = frozenset(own_hosts)
        self._sampled = sampled

    async def issue(self, request: IssueRequest, *, subject_key: Key | None = None) -> Issued:
        """See `Authorities.issue`. With `subject_key` the platform made the CSR, for this key of
        its own, and the certificate is told of as one that was created."""
        csr = _verified(request)
        engine_id = subject_key.engine_id if subject_key else await self._engine_of(request, csr)
        if request.profile is not None:
            check_profile(request.profile, self._clock.now())
        fresh = False
        for _ in range(_ATTEMPTS):
            context = await self._contexts.find(
                request.ca_id, inline=request.profile, profile_id=request.profile_id, fresh=fresh
            )
            fresh = True
            now = self._clock.now()
            try:
                check_may_sign(context.issuer.authority, now)
                drafted = draft(
                    context.issuer,
                    context.prepared,
                    csr,
                    _wish(request),
                    now=now,
                    own_hosts=self._own_hosts,
                )
            except LamassuError:
                if context.fresh:
                    raise
                continue
            der = await self._keys.use(
                context.issuer.authority.key_id, drafted.signed_with, purpose=KeyPurpose.CA
            )
            new = _stored_form(
                context, request, csr, drafted, der=der, engine_id=engine_id, now=now
            )
            issued = await self._store_issued(
                context, request, new, now, created=subject_key is not None
            )
            if issued is not None:
                if not issued.repeated:
                    self._sampled.offer(issued.certificate)
                return issued
        raise Unavailable("the CA is being changed; try again", code="ca_busy", retry_after=1)

    async def _engine_of(self, request: IssueRequest, csr: CertificateRequest) -> str:
        """Engine of the subject's own key; a device's key is never asked for."""
        if request.owner:
            return ""
        key = await self._keys.find_by_public_key(csr.spki)
        return key.engine_id if key is not None and key.purpose is KeyPurpose.GENERAL else ""

    async def _store_issued(
        self,
        context: IssuingContext,
        request: IssueRequest,
        new: NewCertificate,
        now: datetime,
        *,
        created: bool,
    ) -> Issued | None:
        """Commit the certificate, or `None` if CA or profile changed since it was drafted."""
        authority, certificate = context.issuer.authority, new.certificate
        profile_id = context.stored_profile_id
        judged = IssuerVersions(authority.version, context.profile.version if profile_id else None)
        records = Records()
        record(
            records,
            "ca.sign.certificate",
            f"ca/{authority.id}",
            version=authority.version,
            data=certificate_document(certificate, now),
            caller=request.caller,
            detail=_audited(context, request, certificate),
        )
        if created:
            record(
                records,
                "certificate.create",
                f"certificate/{certificate.serial_number}",
                version=certificate.version,
                data=certificate_document(certificate, now),
                caller=request.caller,
                detail={"ca_id": authority.id, "engine_id": certificate.engine_id},
            )
        if request.replaces is None:
            stored = await self._store.insert_issued(
                new, judged, profile_id=profile_id, records=records
            )
        else:
            stored = await self._store_successor(
                new, judged, profile_id, replaced=request.replaces, records=records
            )
        if stored:
            return Issued(certificate)
        return await self._answered_before(request, authority, judged, profile_id)

    async def _store_successor(
        self,
        new: NewCertificate,
        judged: IssuerVersions,
        profile_id: str,
        *,
        replaced: tuple[str, str],
        records: Records,
    ) -> bool:
        """The same for a certificate that takes the place of one that must still be in force."""
        issuer_ca_id, serial_number = replaced
        async with self._store.unit() as transaction:
            if not await transaction.insert_issued(new, judged, profile_id=profile_id):
                return False
            check_may_be_replaced(await transaction.lock_certificate(serial_number), issuer_ca_id)
            records.hand_over(transaction)
        return True

    async def _answered_before(
        self,
        request: IssueRequest,
        authority: CertificationAuthority,
        judged: IssuerVersions,
        profile_id: str,
    ) -> Issued | None:
        """What this request's key was answered with, by whichever generation of the CA; `None`
        if it was CA or profile, which changed, that kept the certificate from being stored."""
        line = {one.id for one in await self._store.generations(authority.id)}
        async with self._store.unit() as transaction:
            versions = await transaction.share_issuer(authority.id, profile_id)
            if versions is None:
                raise ca_not_found()
            return await _repeated(transaction, request, line) if versions == judged else None


async def _repeated(
    transaction: CaTransaction, request: IssueRequest, line: Collection[str]
) -> Issued:
    assert request.request_key is not None  # only a request key can be taken
    earlier = await transaction.find_issued(request.request_key)
    if earlier is None:
        raise NotFound("certificate not found", code="certificate_not_found")
    if earlier.issuer_ca_id not in line:
        raise Conflict("this request was answered by another CA before", code="request_key_reused")
    return Issued(earlier, repeated=True)


def _verified(request: IssueRequest) -> CertificateRequest:
    """The CSR, its signature verified (decision 14) by the caller or here."""
    given = request.verified_csr
    if given is not None and given.der == request.csr_der:
        return given
    csr = parse_csr(request.csr_der, newer_keys=True)
    verify_csr_signature(csr)
    return csr


def _wish(request: IssueRequest) -> Wish:
    return Wish(
        owner=request.owner,
        device_id=request.device_id,
        subject_der=request.subject_der,
        san_der=request.san_der,
    )


def _stored_form(
    context: IssuingContext,
    request: IssueRequest,
    csr: CertificateRequest,
    drafted: CertificateTemplate,
    *,
    der: bytes,
    engine_id: str,
    now: datetime,
) -> NewCertificate:
    authority, profile = context.issuer.authority, context.profile
    certificate = Certificate(
        serial_number=serial_hex(drafted.serial_number),
        der=der,
        subject=subject_of(drafted.subject),
        issuer=authority.certificate.subject,
        subject_key_id=subject_key_id(csr.spki).hex(),
        authority_key_id=authority.certificate.subject_key_id,
        issuer_ca_id=authority.id,
        issuer_serial_number=authority.certificate.serial_number,
        issuer_level=authority.level,
        not_before=drafted.not_before,
        not_after=drafted.not_after,
        stored_status=CertificateStatus.ACTIVE,
        type=CertificateType.MANAGED if engine_id else CertificateType.IMPORTED_WITHOUT_KEY,
        is_ca=False,
        key_algorithm=csr.key.algorithm,
        key_size=csr.key.size,
        engine_id=engine_id,
        key_usage=key_usage_for(profile, csr.key_usage, csr.key),
        extended_key_usages=extended_key_usages_for(profile, csr.extended_key_usages),
        metadata=rendered(request.metadata, owner=request.owner, device_id=request.device_id),
        version=1,
    )
    return NewCertificate(
        certificate=certificate,
        created_at=now,
        csr_der=csr.der,
        requested_by=request.caller.principal.id,
        request_key=request.request_key,
        owner=request.owner,
        device_id=request.device_id,
        profile_id=context.stored_profile_id,
    )


def _audited(
    context: IssuingContext, request: IssueRequest, certificate: Certificate
) -> dict[str, Json]:
    detail: dict[str, Json] = {
        "serial_number": certificate.serial_number,
        "common_name": certificate.subject.common_name,
        "profile_id": context.stored_profile_id or "(inline)",
    }
    if request.owner:
        detail |= {"dms_id": request.owner, "device_id": request.device_id}
    if request.replaces is not None:
        detail["replaces"] = request.replaces[1]
    return detail
