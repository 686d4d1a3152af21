"""Give a CA a new key: a next generation of the same subject, and certificates across.

RFC 4210 §4.4 does so for roots: the old key certifies the new one and the new key the old one,
so that who trusts either of them verifies what is issued under both. It holds for any CA that
somebody took for a trust anchor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Conflict, Forbidden, NotFound, RuleViolation
from lamassu.kernel.identity import Caller
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.kernel.x509.keys import load_public_key
from lamassu.kernel.x509.names import subject_of
from lamassu.kernel.x509.serials import new_serial_number, serial_hex
from lamassu.services.ca.contract import (
    Certificate,
    CertificateStatus,
    CertificateType,
    CertificationAuthority,
    Demand,
    Operation,
)
from lamassu.services.ca.model import NewCertificate, RekeyPlan, RekeyRequest
from lamassu.services.ca.ports import CaStore
from lamassu.services.ca.rules.authorities import check_ca_id, check_ca_key_spec
from lamassu.services.ca.rules.generations import (
    check_has_key_here,
    check_is_newest,
    generation_id,
)
from lamassu.services.ca.rules.status import check_may_sign
from lamassu.services.ca.rules.template import (
    CertificateTemplate,
    EncodedExtension,
    authority_key_identifier,
    basic_constraints,
    carried_extensions,
    subject_key_id,
    subject_key_identifier,
    usage_extensions,
)
from lamassu.services.ca.rules.usages import as_a_cas
from lamassu.services.ca.rules.validity import start_for
from lamassu.services.ca.usecases.approvals import ApprovalDesk
from lamassu.services.ca.usecases.approvals.clearance import policies_of
from lamassu.services.ca.usecases.documents import ca_document, update_document
from lamassu.services.ca.usecases.enter_ca import insert_new_ca, lock_issuer
from lamassu.services.ca.usecases.issuers import (
    Issuer,
    ca_not_found,
    certificates_above,
    issuer_of,
    newest_generation,
)
from lamassu.services.ca.usecases.lint import lint_whole
from lamassu.services.ca.usecases.trail import record
from lamassu.services.kms.contract import Key, KeyPurpose, Keys


@dataclass(frozen=True, slots=True)
class _Rekeying:
    """What a rekey rests on: the present generation, who signs, and what was planned."""

    old: CertificationAuthority
    issuer: Issuer  # the present generation as an issuer
    parent: Issuer | None
    path_length: int | None
    plan: RekeyPlan


@dataclass(frozen=True, slots=True)
class _Made:
    """The next generation and the certificates across, signed and not stored yet."""

    authority: CertificationAuthority
    new_with_old: Certificate
    old_with_new: Certificate


class Rekeying:
    """New generations of CAs whose keys are here."""

    def __init__(
        self,
        *,
        store: CaStore,
        keys: Keys,
        clock: Clock,
        desk: ApprovalDesk,
        validation_urls: Sequence[str],
    ) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._desk = desk
        self._validation_urls = tuple(validation_urls)

    async def plan(self, ca_id: str, request: RekeyRequest) -> RekeyPlan:
        """What would be made; nothing is. Raises as `rekey` does before it makes anything."""
        return (await self._prepare(ca_id, request, self._clock.now())).plan

    async def rekey(
        self, ca_id: str, request: RekeyRequest, *, caller: Caller, demand: Demand | None = None
    ) -> CertificationAuthority:
        """The next generation of the CA, stored, and from then on what everything that names
        the CA issues under. The present one keeps answering for what it issued.

        One that a crash cut off is asked for again: a key that it made is used. Raises
        `NotFound` (also `ca_key_offline`), `RuleViolation` (engine, key, status), `Conflict`
        (`ca_changed`), and as `Clearance.admit`.
        """
        now = self._clock.now()
        work = await self._prepare(ca_id, request, now)
        clearance = await self._desk.clearance(demand)
        # the CA above signs a CA's certificate, as for a child
        concerned = [work.parent.authority, work.old] if work.parent else [work.old]
        await clearance.judge(Operation.REKEY, policies_of(concerned), basis={})
        # one at a time: who is refused deletes the key that it used, which must be nobody else's
        async with self._store.alone(f"rekey/{work.old.first_generation}"):
            return await self._make(work, caller=caller, demand=demand, now=now)

    async def _make(
        self, work: _Rekeying, *, caller: Caller, demand: Demand | None, now: datetime
    ) -> CertificationAuthority:
        check_is_newest(await self._again(work.old.id), work.old)
        # no CA's id has a slash: what somebody else makes a CA of never has this name
        name = f"ca/{work.plan.new_id}/rekey"
        key = await self._keys.find_unused(
            name, work.plan.spec, purpose=KeyPurpose.CA, engine_id=work.plan.engine_id
        ) or await self._keys.generate(
            work.plan.spec,
            purpose=KeyPurpose.CA,
            name=name,
            caller=caller,
            engine_id=work.plan.engine_id,
        )
        made = await self._certify(work, key, now)
        try:
            await self._store_all(work, made, caller=caller, demand=demand, now=now)
        except (Conflict, Forbidden, NotFound, RuleViolation):
            # refused for sure; after any other failure it may be stored, and needs its key
            holder = await self._store.find_ca_by_key_id(made.authority.certificate.subject_key_id)
            if holder is None:
                await self._keys.discard(key.key_id, purpose=KeyPurpose.CA, caller=caller)
            raise
        return made.authority

    async def _again(self, ca_id: str) -> CertificationAuthority:
        authority = await self._store.find_ca(ca_id)
        if authority is None:
            raise ca_not_found()
        return authority

    async def _new_id(self, old: CertificationAuthority) -> str:
        """The next id of the line that no other CA has, nor one that waits."""
        line = await self._store.generations(old.id)
        number = len(line) + 1
        while True:
            new_id = generation_id(line, number)
            check_ca_id(new_id)
            if not (await self._store.find_ca(new_id) or await self._store.find_awaited(new_id)):
                return new_id
            number += 1

    async def _prepare(self, ca_id: str, request: RekeyRequest, now: datetime) -> _Rekeying:
        old = await newest_generation(ca_id, self._store)
        if old is None:
            raise ca_not_found()
        check_may_sign(old, now)
        check_has_key_here(old)
        parent = None
        if old.parent_id is not None:
            authority = await newest_generation(old.parent_id, self._store)
            if authority is None:
                raise ca_not_found()
            check_may_sign(authority, now)
            check_has_key_here(authority)
            parent = await self._issuer(authority)
        certificate = old.certificate
        spec = check_ca_key_spec(
            request.engine_id,
            request.algorithm or certificate.key_algorithm,
            request.bits or certificate.key_size,
            await self._keys.engines(),
        )
        new_id = await self._new_id(old)
        not_after = now.replace(microsecond=0) + (certificate.not_after - certificate.not_before)
        if parent is not None:
            not_after = min(not_after, parent.authority.certificate.not_after)
        return _Rekeying(
            old=old,
            issuer=await self._issuer(old),
            parent=parent,
            path_length=certificate_facts(certificate.der).path_length,
            plan=RekeyPlan(
                old_id=old.id,
                new_id=new_id,
                engine_id=request.engine_id
                or next(one.id for one in await self._keys.engines() if one.default),
                spec=spec,
                signed_by=parent.authority.id if parent else new_id,
                not_after=not_after,
                cross_until=min(not_after, certificate.not_after),
            ),
        )

    async def _certify(self, work: _Rekeying, key: Key, now: datetime) -> _Made:
        old, plan = work.old, work.plan
        not_before = start_for(work.parent.authority.certificate if work.parent else None, now)
        identifier = subject_key_id(key.public_key)
        own = self._template(
            work,
            key.public_key,
            identifier,
            issuer_key=work.parent.key_identifier
            if work.parent
            else authority_key_identifier(identifier),
            publication=work.parent.publication if work.parent else (),
            period=(not_before, plan.not_after),
        )
        if work.parent is not None:
            own = replace(own, issuer=work.parent.name, issuer_path=work.parent.path)
        signer = work.parent.authority.key_id if work.parent else key.key_id
        authority = self._authority(work, key, own, await self._signed(own, signer), now)
        new_with_old = self._template(
            work,
            key.public_key,
            identifier,
            issuer_key=work.issuer.key_identifier,
            publication=work.issuer.publication,
            period=(start_for(old.certificate, now), plan.cross_until),
            issuer_path=work.issuer.path,
        )
        old_spki = certificate_facts(old.certificate.der).spki
        new_issuer = await self._issuer(authority)
        old_with_new = self._template(
            work,
            old_spki,
            bytes.fromhex(old.certificate.subject_key_id),
            issuer_key=new_issuer.key_identifier,
            publication=new_issuer.publication,
            period=(old.certificate.not_before, plan.cross_until),
            issuer_path=new_issuer.path,
        )
        return _Made(
            authority,
            _cross(new_with_old, await self._signed(new_with_old, old.key_id), old, authority),
            _cross(old_with_new, await self._signed(old_with_new, key.key_id), authority, old),
        )

    async def _issuer(self, authority: CertificationAuthority) -> Issuer:
        above = await certificates_above(authority, self._store)
        return issuer_of(authority, self._validation_urls, above=above)

    async def _signed(self, template: CertificateTemplate, key_id: str) -> bytes:
        await lint_whole(template)
        return await self._keys.use(key_id, template.signed_with, purpose=KeyPurpose.CA)

    def _template(
        self,
        work: _Rekeying,
        spki: bytes,
        identifier: bytes,
        *,
        issuer_key: EncodedExtension,
        publication: Sequence[EncodedExtension],
        period: tuple[datetime, datetime],
        issuer_path: Sequence[bytes] = (),
    ) -> CertificateTemplate:
        """A certificate of the CA's own subject, by its own name."""
        certificate = work.old.certificate
        return CertificateTemplate(
            subject=work.issuer.name,
            issuer=work.issuer.name,
            public_key=load_public_key(spki),  # type: ignore[arg-type]
            serial_number=new_serial_number(),
            not_before=period[0],
            not_after=period[1],
            extensions=(
                # self-issued certificates do not count in a path's length (RFC 5280 §6.1.4)
                basic_constraints(ca=True, path_length=work.path_length),
                *usage_extensions(as_a_cas(certificate.key_usage), certificate.extended_key_usages),
                subject_key_identifier(identifier),
                issuer_key,
                *publication,
                *carried_extensions(certificate.der),
            ),
            issuer_path=issuer_path,
        )

    def _authority(
        self, work: _Rekeying, key: Key, template: CertificateTemplate, der: bytes, now: datetime
    ) -> CertificationAuthority:
        old = work.old
        parent = work.parent.authority if work.parent else None
        serial_number = serial_hex(template.serial_number)
        ski = subject_key_id(key.public_key).hex()
        certificate = replace(
            old.certificate,
            serial_number=serial_number,
            der=der,
            issuer=subject_of(template.issuer),
            subject_key_id=ski,
            authority_key_id=parent.certificate.subject_key_id if parent else ski,
            issuer_ca_id=parent.id if parent else work.plan.new_id,
            issuer_serial_number=parent.certificate.serial_number if parent else serial_number,
            not_before=template.not_before,
            not_after=template.not_after,
            stored_status=CertificateStatus.ACTIVE,
            type=CertificateType.MANAGED,
            key_usage=as_a_cas(old.certificate.key_usage),
            key_algorithm=key.spec.algorithm.value,
            key_size=key.spec.size,
            engine_id=key.engine_id,
            metadata={},
            version=1,
        )
        return CertificationAuthority(
            id=work.plan.new_id,
            certificate=certificate,
            key_id=key.key_id,
            level=old.level,
            parent_id=parent.id if parent else None,
            profile_id=old.profile_id,
            created_at=now,
            metadata=old.metadata,
            approvals=old.approvals,
            lineage_id=old.first_generation,
            version=1,
        )

    async def _store_all(
        self,
        work: _Rekeying,
        made: _Made,
        *,
        caller: Caller,
        demand: Demand | None,
        now: datetime,
    ) -> None:
        clearance = await self._desk.clearance(demand)
        concerned: list[CertificationAuthority] = []
        async with self._store.unit() as transaction:
            if work.parent is not None:
                concerned = [await lock_issuer(transaction, work.parent.authority, now)]
            old = await transaction.lock_ca(work.old.id)
            if old is None:
                raise ca_not_found()
            check_may_sign(old, now)
            check_is_newest(old, work.old)
            guarding = policies_of([*concerned, old])
            await clearance.admit(transaction, Operation.REKEY, guarding, basis={})
            await insert_new_ca(
                transaction,
                made.authority,
                now,
                taken=Conflict("another CA took the next id; ask again", code="ca_changed"),
            )
            for certificate in (made.new_with_old, made.old_with_new):
                await transaction.insert_certificate(NewCertificate(certificate, created_at=now))
            followed = replace(old, successor_id=made.authority.id, version=old.version + 1)
            await transaction.save_ca(followed)
            data = ca_document(made.authority, now)
            detail = {
                "follows": old.id,
                "serial_number": made.authority.certificate.serial_number,
                "key_id": made.authority.key_id,
                "engine_id": made.authority.certificate.engine_id,
                "new_with_old": made.new_with_old.serial_number,
                "old_with_new": made.old_with_new.serial_number,
            }
            subject = f"ca/{made.authority.id}"
            record(
                transaction, "ca.create", subject, version=1, data=data, caller=caller,
                detail=detail,
            )  # fmt: skip
            record(
                transaction,
                "ca.rekey",
                f"ca/{old.id}",
                version=followed.version,
                data=update_document(ca_document(old, now), ca_document(followed, now)),
                caller=caller,
                detail=detail,
            )


def _cross(
    template: CertificateTemplate,
    der: bytes,
    issuer: CertificationAuthority,
    subject: CertificationAuthority,
) -> Certificate:
    """The row of a certificate by which `issuer` vouches for the key of `subject`."""
    return replace(
        subject.certificate,
        serial_number=serial_hex(template.serial_number),
        der=der,
        issuer=subject_of(template.issuer),
        authority_key_id=issuer.certificate.subject_key_id,
        issuer_ca_id=issuer.id,
        issuer_serial_number=issuer.certificate.serial_number,
        issuer_level=issuer.level,
        not_before=template.not_before,
        not_after=template.not_after,
        stored_status=CertificateStatus.ACTIVE,
        key_usage=as_a_cas(subject.certificate.key_usage),
        metadata={},
        version=1,
    )
