"""Make a CA's certificate anew: the same key, name and id, and a later end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Conflict, RuleViolation
from lamassu.kernel.identity import Caller
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.kernel.x509.keys import load_public_key
from lamassu.kernel.x509.names import subject_of
from lamassu.kernel.x509.serials import new_serial_number, serial_hex
from lamassu.services.ca.contract import (
    Certificate,
    CertificateStatus,
    CertificationAuthority,
    Demand,
    IssuanceProfile,
    Operation,
)
from lamassu.services.ca.model import NewCertificate
from lamassu.services.ca.ports import CaStore
from lamassu.services.ca.rules.authorities import path_length_for
from lamassu.services.ca.rules.lifecycle import check_may_be_reissued, check_prolongs
from lamassu.services.ca.rules.metadata import Reissue, rendered
from lamassu.services.ca.rules.prepared import prepared
from lamassu.services.ca.rules.profiles import check_key, check_profile
from lamassu.services.ca.rules.status import check_may_sign
from lamassu.services.ca.rules.template import (
    CertificateTemplate,
    authority_key_identifier,
    basic_constraints,
    carried_extensions,
    subject_key_identifier,
    usage_extensions,
)
from lamassu.services.ca.rules.usages import ca_key_usage
from lamassu.services.ca.rules.validity import (
    check_ends_before_issuer,
    end_of,
    is_set,
    start_for,
)
from lamassu.services.ca.usecases.approvals import ApprovalDesk
from lamassu.services.ca.usecases.approvals.clearance import basis_of, policies_of
from lamassu.services.ca.usecases.documents import ca_document, update_document
from lamassu.services.ca.usecases.enter_ca import lock_issuer
from lamassu.services.ca.usecases.issuers import (
    Issuer,
    ca_not_found,
    certificates_above,
    issuer_of,
    profile_not_found,
)
from lamassu.services.ca.usecases.lint import lint_whole
from lamassu.services.ca.usecases.trail import record
from lamassu.services.kms.contract import KeyPurpose, Keys


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a re-issue rests on; without `parent` the CA signs for itself."""

    old: CertificationAuthority
    issuer: Issuer  # the CA itself, or the one above it
    parent: Issuer | None
    profile: IssuanceProfile | None
    not_after: datetime
    basis: Mapping[str, str]


class Reissuing:
    """New certificates of CAs whose keys are here, and whose issuers' are."""

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

    async def reissue(
        self,
        ca_id: str,
        *,
        profile: IssuanceProfile | None,
        profile_id: str,
        caller: Caller,
        demand: Demand | None = None,
    ) -> CertificationAuthority:
        """The CA with its next certificate; without a profile of the shape and length of the
        present one, which stays in force until it ends, so that no chain that holds it breaks.

        Raises `NotFound`, `RuleViolation` (`ca_revoked`, `ca_expired`, `validity_exceeds_issuer`
        and what a profile breaks), `Conflict` (`ca_key_offline`, `ca_changed`), and as
        `Clearance.admit`.
        """
        now = self._clock.now()
        plan = await self._plan(ca_id, profile, profile_id, now)
        clearance = await self._desk.clearance(demand)
        guarding = policies_of([*([plan.parent.authority] if plan.parent else []), plan.old])
        await clearance.judge(Operation.REISSUE, guarding, basis=plan.basis)
        template = self._template(plan, now)
        await lint_whole(template)
        der = await self._keys.use(
            plan.issuer.authority.key_id, template.signed_with, purpose=KeyPurpose.CA
        )
        return await self._store_it(plan, template, der, caller=caller, demand=demand, now=now)

    async def _plan(
        self, ca_id: str, profile: IssuanceProfile | None, profile_id: str, now: datetime
    ) -> _Plan:
        old = await self._store.find_ca(ca_id)
        if old is None:
            raise ca_not_found()
        check_may_be_reissued(old, now)
        check_may_sign(old, now)
        basis: dict[str, str] = {}
        profile = await self._profile(profile, profile_id, now, basis)
        parent = await self._parent(old, now)
        certificate = old.certificate
        if profile is not None:
            _check_profile_of(profile, old)
        if profile is not None and is_set(profile.validity):
            not_after = end_of(profile.validity, now, field="validity")
        else:
            length = certificate.not_after - certificate.not_before
            not_after = now.replace(microsecond=0) + length
        check_prolongs(not_after, certificate)
        if parent is not None:
            check_ends_before_issuer(not_after, parent.authority.certificate, field="validity")
        issuer = parent or issuer_of(old, self._validation_urls)
        return _Plan(old, issuer, parent, profile, not_after, basis)

    async def _profile(
        self,
        inline: IssuanceProfile | None,
        profile_id: str,
        now: datetime,
        basis: dict[str, str],
    ) -> IssuanceProfile | None:
        if inline is not None:
            check_profile(inline, now)
            return inline
        if not profile_id:
            return None
        profile = await self._store.find_profile(profile_id)
        if profile is None:
            raise profile_not_found()
        basis |= basis_of(profile)
        return profile

    async def _parent(self, old: CertificationAuthority, now: datetime) -> Issuer | None:
        if old.parent_id is None:
            return None
        authority = await self._store.find_ca(old.parent_id)
        if authority is None:
            raise ca_not_found()
        if authority.successor_id is not None:
            raise Conflict(
                f"the CA above, {authority.id}, has got a new key; give this one a new key too, and"
                f" it comes under the new one: lamassu ca rekey {old.id}",
                code="ca_above_rekeyed",
            )
        check_may_sign(authority, now)
        above = await certificates_above(authority, self._store)
        return issuer_of(authority, self._validation_urls, above=above)

    def _template(self, plan: _Plan, now: datetime) -> CertificateTemplate:
        old, parent, profile = plan.old.certificate, plan.parent, plan.profile
        facts = certificate_facts(old.der)
        identifier = bytes.fromhex(old.subject_key_id)
        if profile is None:
            path_length, key_usage = facts.path_length, old.key_usage
            extended, more = old.extended_key_usages, carried_extensions(old.der)
        else:
            above = certificate_facts(parent.authority.certificate.der) if parent else None
            path_length = path_length_for(
                profile,
                has_parent=parent is not None,
                parent_path_length=above.path_length if above else None,
            )
            key_usage, extended = ca_key_usage(profile), profile.extended_key_usages
            more = list(prepared(profile).extensions)
        own_name = issuer_of(plan.old, self._validation_urls).name
        return CertificateTemplate(
            subject=own_name,
            issuer=parent.name if parent else own_name,
            public_key=load_public_key(facts.spki),  # type: ignore[arg-type]
            serial_number=new_serial_number(),
            not_before=start_for(parent.authority.certificate if parent else None, now, profile),
            not_after=plan.not_after,
            extensions=(
                basic_constraints(ca=True, path_length=path_length),
                *usage_extensions(key_usage, extended),
                subject_key_identifier(identifier),
                parent.key_identifier if parent else authority_key_identifier(identifier),
                *(parent.publication_under(profile) if parent else ()),
                *more,
            ),
            issuer_path=parent.path if parent else (),
        )

    async def _store_it(
        self,
        plan: _Plan,
        template: CertificateTemplate,
        der: bytes,
        *,
        caller: Caller,
        demand: Demand | None,
        now: datetime,
    ) -> CertificationAuthority:
        clearance = await self._desk.clearance(demand)
        certificate = _certificate(plan, template, der)
        old_serial = plan.old.certificate.serial_number
        async with self._store.unit() as transaction:
            concerned = []
            if plan.parent is not None:
                concerned.append(await lock_issuer(transaction, plan.parent.authority, now))
            old = await transaction.lock_ca(plan.old.id)
            if old is None:
                raise ca_not_found()
            check_may_be_reissued(old, now)
            check_may_sign(old, now)
            if old.version != plan.old.version:
                raise Conflict(
                    "the CA was changed meanwhile; look at it and ask again", code="ca_changed"
                )
            guarding = policies_of([*concerned, old])
            await clearance.admit(transaction, Operation.REISSUE, guarding, basis=plan.basis)
            await transaction.insert_certificate(
                NewCertificate(certificate, created_at=now, reissued_from=old_serial)
            )
            await transaction.mark_reissued(old_serial, as_=certificate.serial_number, at=now)
            came_from = Reissue(came_from=old_serial)
            updated = replace(
                old,
                certificate=replace(certificate, metadata=rendered({}, reissue=came_from)),
                metadata=rendered(old.metadata, reissue=came_from),
                version=old.version + 1,
            )
            await transaction.save_ca(updated)
            record(
                transaction,
                "ca.reissue",
                f"ca/{old.id}",
                version=updated.version,
                data=update_document(ca_document(old, now), ca_document(updated, now)),
                caller=caller,
                detail={
                    "serial_number": certificate.serial_number,
                    "reissued_from": old_serial,
                    "not_after": certificate.not_after.isoformat(),
                    "key_id": old.key_id,
                },
            )
        return updated


def _check_profile_of(profile: IssuanceProfile, old: CertificationAuthority) -> None:
    """A profile for CAs, for a CA of this parent and with a key of this kind."""
    if not profile.sign_as_ca:
        raise RuleViolation(
            "struct validation error",  # as the original says it; its clients compare the text
            code="profile_not_for_cas",
            field="profile",
        )
    if profile.ca_id is not None and profile.ca_id != (old.parent_id or ""):
        raise RuleViolation(
            f"the profile names {profile.ca_id} as the parent",
            code="parent_contradicts_profile",
            field="profile",
        )
    check_key(profile, certificate_facts(old.certificate.der).key, field="profile")


def _certificate(plan: _Plan, template: CertificateTemplate, der: bytes) -> Certificate:
    """The row of the next certificate."""
    facts = certificate_facts(der)
    serial_number = serial_hex(template.serial_number)
    parent = plan.parent.authority.certificate if plan.parent else None
    return replace(
        plan.old.certificate,
        serial_number=serial_number,
        der=der,
        issuer=subject_of(template.issuer),
        authority_key_id=facts.aki,
        issuer_serial_number=parent.serial_number if parent else serial_number,
        issuer_ca_id=plan.issuer.authority.id,
        issuer_level=plan.issuer.authority.level,
        not_before=template.not_before,
        not_after=template.not_after,
        stored_status=CertificateStatus.ACTIVE,
        key_usage=facts.key_usage,
        extended_key_usages=facts.extended_key_usages,
        revocation_time=None,
        metadata={},
        version=1,
    )
