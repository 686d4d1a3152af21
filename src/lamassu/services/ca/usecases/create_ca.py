"""Make a CA: everything is checked before its key is, and a refused one leaves no key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from cryptography import x509

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Conflict, Forbidden, NotFound, RuleViolation
from lamassu.kernel.identity import Caller
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.kernel.x509.keys import KeyFacts, load_public_key
from lamassu.kernel.x509.names import name_of, subject_of
from lamassu.kernel.x509.serials import new_serial_number, serial_hex
from lamassu.services.ca.contract import (
    ApprovalPolicy,
    Certificate,
    CertificateStatus,
    CertificateType,
    CertificationAuthority,
    Demand,
    IssuanceProfile,
    Operation,
)
from lamassu.services.ca.model import CaRequest
from lamassu.services.ca.ports import CaStore
from lamassu.services.ca.rules.authorities import (
    ProfileRoles,
    check_ca_id,
    check_key_spec,
    check_subject,
    path_length_for,
    roles_of_profiles,
)
from lamassu.services.ca.rules.metadata import users_own
from lamassu.services.ca.rules.prepared import PreparedProfile, prepared
from lamassu.services.ca.rules.profiles import check_key, check_profile
from lamassu.services.ca.rules.status import check_may_sign
from lamassu.services.ca.rules.template import (
    CertificateTemplate,
    EncodedExtension,
    authority_key_identifier,
    basic_constraints,
    subject_key_id,
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
from lamassu.services.ca.usecases.documents import ca_document
from lamassu.services.ca.usecases.enter_ca import insert_new_ca, lock_issuer
from lamassu.services.ca.usecases.issuers import (
    Issuer,
    ca_exists,
    certificates_above,
    issuer_of,
    newest_generation,
    profile_not_found,
)
from lamassu.services.ca.usecases.lint import lint_whole
from lamassu.services.ca.usecases.trail import record
from lamassu.services.kms.contract import Key, KeyPurpose, Keys, KeySpec


@dataclass(frozen=True, slots=True)
class _Plan:
    """A CA that may be made; only its key is missing."""

    id: str
    subject: x509.Name
    spec: KeySpec
    parent: Issuer | None
    roles: ProfileRoles
    path_length: int | None
    not_before: datetime
    not_after: datetime
    extensions: Sequence[EncodedExtension]  # what its own profile adds
    request: CaRequest
    basis: Mapping[str, str]  # digests of the stored profiles that this rests on


class CaCreation:
    """Roots and subordinate CAs with keys of the platform."""

    def __init__(
        self,
        *,
        store: CaStore,
        keys: Keys,
        clock: Clock,
        desk: ApprovalDesk,
        validation_urls: Sequence[str],
        default_profile_id: str,
    ) -> None:
        """`default_profile_id` is for CAs whose request names none in the seed's spelling."""
        self._store = store
        self._desk = desk
        self._keys = keys
        self._clock = clock
        self._validation_urls = validation_urls
        self._default_profile_id = default_profile_id

    async def create(
        self, request: CaRequest, *, caller: Caller, demand: Demand | None = None
    ) -> CertificationAuthority:
        """A new CA, stored. Raises `RuleViolation`, `NotFound` (parent, profile, key),
        `Conflict` (`CA already exists`), `Forbidden` for a key that it may not have, and as
        `Clearance.admit` where the parent's approvers have to agree."""
        now = self._clock.now()
        plan = await self._plan(request, now)
        if plan.parent is not None:
            # no key is made for a request that waits, nor for a wrong approval
            clearance = await self._desk.clearance(demand)
            guarding = policies_of([plan.parent.authority])
            await clearance.judge(Operation.CREATE_CHILD, guarding, basis=plan.basis)
        key = await self._keys.generate(
            plan.spec,
            purpose=KeyPurpose.CA,
            name=f"ca/{plan.id}",
            caller=caller,
            engine_id=request.engine_id or None,
        )
        try:
            authority = await self._certify(plan, key, now)
        except BaseException:
            await self._keys.discard(key.key_id, purpose=KeyPurpose.CA, caller=caller)
            raise
        try:
            await self._store_ca(plan, authority, caller, now, demand)
        except (Conflict, Forbidden, NotFound, RuleViolation):
            # refused for sure; after any other failure the CA may be stored, and needs its key
            await self._keys.discard(key.key_id, purpose=KeyPurpose.CA, caller=caller)
            raise
        return authority

    async def _plan(self, request: CaRequest, now: datetime) -> _Plan:
        ca_id = request.id or str(uuid4())
        check_ca_id(ca_id)
        if await self._store.find_ca(ca_id) or await self._store.find_awaited(ca_id):
            raise ca_exists()
        if request.approvals is not None:
            await self._desk.check_policy(request.approvals, at="approvals.")
        basis: dict[str, str] = {}
        roles = await self._roles(request, now, basis)
        own = prepared(roles.own) if roles.own is not None else None
        parent = await self._parent(roles.parent_id, now)
        subject = _subject(request, own, parent)
        if request.key.key_id:
            await self._refuse_existing_key(request.key.key_id)
        spec = check_key_spec(request, await self._keys.engines())
        if roles.own is not None:
            check_key(roles.own, KeyFacts(spec.algorithm.value, spec.size), field="key_metadata")
        validity = request.validity
        if roles.own is not None and is_set(roles.own.validity):
            validity = roles.own.validity
        if not is_set(validity):
            raise RuleViolation(
                "struct validation error", code="missing_field", field="ca_expiration"
            )
        not_after = end_of(validity, now, field="ca_expiration")
        if parent is not None:
            check_ends_before_issuer(not_after, parent.authority.certificate, field="ca_expiration")
        return _Plan(
            id=ca_id,
            subject=subject,
            spec=spec,
            parent=parent,
            roles=roles,
            path_length=path_length_for(
                roles.own,
                has_parent=parent is not None,
                parent_path_length=_path_length_of(parent),
            ),
            not_before=start_for(parent.authority.certificate if parent else None, now, roles.own),
            not_after=not_after,
            extensions=own.extensions if own is not None else (),
            request=request,
            basis=basis,
        )

    async def _roles(
        self, request: CaRequest, now: datetime, basis: dict[str, str]
    ) -> ProfileRoles:
        """What the request's profiles mean; the digest of each that is read goes to `basis`."""
        own = request.own_profile
        if own is not None:
            check_profile(own, now)
        elif request.own_profile_id:
            own = await self._profile(request.own_profile_id, basis)
        return roles_of_profiles(
            request,
            own=own,
            either=await self._optional_profile(request.any_profile_id, basis),
            default=await self._optional_profile(request.profile_id, basis),
            fallback_profile_id=self._default_profile_id,
        )

    async def _optional_profile(
        self, profile_id: str, basis: dict[str, str]
    ) -> IssuanceProfile | None:
        return await self._profile(profile_id, basis) if profile_id else None

    async def _profile(self, profile_id: str, basis: dict[str, str]) -> IssuanceProfile:
        profile = await self._store.find_profile(profile_id)
        if profile is None:
            raise profile_not_found()
        basis |= basis_of(profile)
        return profile

    async def _parent(self, parent_id: str | None, now: datetime) -> Issuer | None:
        if parent_id is None:
            return None
        authority = await newest_generation(parent_id, self._store)
        if authority is None:
            raise NotFound("CA not found", code="ca_not_found", field="parent_id")
        check_may_sign(authority, now)
        above = await certificates_above(authority, self._store)
        return issuer_of(authority, self._validation_urls, above=above)

    async def _refuse_existing_key(self, key_id: str) -> None:
        """A CA's key is made for it alone (security rule 9). Raises `NotFound`, also for the
        platform's own keys, which nobody learns of (decision 2), and `Forbidden`."""
        key = await self._keys.find(key_id)
        if key is None or key.purpose not in (KeyPurpose.CA, KeyPurpose.GENERAL):
            raise NotFound("key not found", code="key_not_found", field="key_metadata.key_id")
        raise Forbidden(
            "a CA's key is made for it alone; leave key_id out",
            code="key_not_usable",
            field="key_metadata.key_id",
        )

    async def _certify(self, plan: _Plan, key: Key, now: datetime) -> CertificationAuthority:
        template = _template(plan, key)
        await lint_whole(template)
        signer = plan.parent.authority.key_id if plan.parent else key.key_id
        der = await self._keys.use(signer, template.signed_with, purpose=KeyPurpose.CA)
        return _authority(plan, key, template, der, now)

    async def _store_ca(
        self,
        plan: _Plan,
        authority: CertificationAuthority,
        caller: Caller,
        now: datetime,
        demand: Demand | None,
    ) -> None:
        clearance = await self._desk.clearance(demand)
        guarding: Mapping[str, ApprovalPolicy] = {}
        async with self._store.unit() as transaction:
            if plan.parent is not None:
                parent = await lock_issuer(
                    transaction, plan.parent.authority, now, field="parent_id"
                )
                guarding = policies_of([parent])
            if authority.profile_id:
                profile = await transaction.share_profile(authority.profile_id)
                if profile is None or profile.sign_as_ca:
                    raise profile_not_found()
            if plan.parent is not None:
                await clearance.admit(
                    transaction, Operation.CREATE_CHILD, guarding, basis=plan.basis
                )
            await insert_new_ca(transaction, authority, now, taken=ca_exists())
            record(
                transaction,
                "ca.create",
                f"ca/{authority.id}",
                version=authority.version,
                data=ca_document(authority, now),
                caller=caller,
                detail={
                    "serial_number": authority.certificate.serial_number,
                    "parent_id": authority.parent_id,
                    "key_id": authority.key_id,
                    "profile_id": authority.profile_id,
                },
            )


def _subject(request: CaRequest, own: PreparedProfile | None, parent: Issuer | None) -> x509.Name:
    subject = request.subject
    if own is not None:
        parent_id = parent.authority.first_generation if parent else ""
        subject = own.subject_of_ca(subject, parent_id=parent_id)
    name = name_of(subject)
    if own is not None:
        own.check_subject(name, field="subject")
    check_subject(name, parent.name if parent else None)
    return name


def _template(plan: _Plan, key: Key) -> CertificateTemplate:
    own, parent = plan.roles.own, plan.parent
    identifier = subject_key_id(key.public_key)
    return CertificateTemplate(
        subject=plan.subject,
        issuer=parent.name if parent else plan.subject,
        public_key=load_public_key(key.public_key),  # type: ignore[arg-type]
        serial_number=new_serial_number(),
        not_before=plan.not_before,
        not_after=plan.not_after,
        extensions=(
            basic_constraints(ca=True, path_length=plan.path_length),
            *usage_extensions(ca_key_usage(own), own.extended_key_usages if own else ()),
            subject_key_identifier(identifier),
            parent.key_identifier if parent else authority_key_identifier(identifier),
            *(parent.publication_under(own) if parent else ()),
            *plan.extensions,
        ),
        issuer_path=parent.path if parent else (),
    )


def _authority(
    plan: _Plan, key: Key, template: CertificateTemplate, der: bytes, now: datetime
) -> CertificationAuthority:
    own, request = plan.roles.own, plan.request
    parent = plan.parent.authority if plan.parent else None
    serial_number = serial_hex(template.serial_number)
    level = parent.level + 1 if parent else 0
    certificate = Certificate(
        serial_number=serial_number,
        der=der,
        subject=subject_of(template.subject),
        issuer=subject_of(template.issuer),
        subject_key_id=subject_key_id(key.public_key).hex(),
        authority_key_id=(
            parent.certificate.subject_key_id if parent else subject_key_id(key.public_key).hex()
        ),
        issuer_ca_id=parent.id if parent else plan.id,
        issuer_serial_number=parent.certificate.serial_number if parent else serial_number,
        issuer_level=parent.level if parent else 0,
        not_before=template.not_before,
        not_after=template.not_after,
        stored_status=CertificateStatus.ACTIVE,
        type=CertificateType.MANAGED,
        is_ca=True,
        key_algorithm=key.spec.algorithm.value,
        key_size=key.spec.size,
        engine_id=key.engine_id,
        key_usage=ca_key_usage(own),
        extended_key_usages=tuple(own.extended_key_usages) if own else (),
        version=1,
    )
    return CertificationAuthority(
        id=plan.id,
        certificate=certificate,
        key_id=key.key_id,
        level=level,
        parent_id=parent.id if parent else None,
        profile_id=plan.roles.profile_id,
        created_at=now,
        metadata=users_own(request.metadata),
        approvals=request.approvals,
        version=1,
    )


def _path_length_of(parent: Issuer | None) -> int | None:
    if parent is None:
        return None
    return certificate_facts(parent.authority.certificate.der).path_length
