"""Take in a CA that was made elsewhere: with its key, with one that is here, or without."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Conflict, Forbidden, NotFound, RuleViolation, Unavailable
from lamassu.kernel.identity import Caller
from lamassu.kernel.x509.facts import CertificateFacts, certificate_facts
from lamassu.kernel.x509.keys import key_id
from lamassu.kernel.x509.pem import ders_of
from lamassu.services.ca.contract import (
    Certificate,
    CertificateStatus,
    CertificateType,
    CertificationAuthority,
)
from lamassu.services.ca.ports import CaStore, CaTransaction
from lamassu.services.ca.rules.adoption import (
    FoundAuthority,
    IssuerTable,
    check_same,
    new_authority,
    of_stored,
    subject_key_id_of,
)
from lamassu.services.ca.rules.authorities import check_ca_id
from lamassu.services.ca.rules.external import is_signed_by
from lamassu.services.ca.rules.imported import (
    BroughtCa,
    Material,
    canonical_key,
    check_brought_ca,
    check_can_issue,
    check_key_usable,
    endless_work,
    is_self_signed,
    issuer_among,
    material_of,
    platform_ca,
)
from lamassu.services.ca.usecases.documents import ca_document
from lamassu.services.ca.usecases.enter_ca import (
    ids_above,
    insert_new_ca,
    moved_below,
    record_moves,
)
from lamassu.services.ca.usecases.issuers import ca_exists, profile_not_found
from lamassu.services.ca.usecases.trail import record
from lamassu.services.kms.contract import Key, KeyOrigin, KeyPurpose, Keys

# The platform's own CA for admins and services, as certificates in PEM.
PlatformCas = Callable[[], Awaitable[bytes]]
# Reads what was brought where that holds up nobody, for so long; then it raises `TimeoutError`.
MaterialReader = Callable[[BroughtCa], Awaitable[Material]]


async def read_in_thread(brought: BroughtCa) -> Material:
    """A reader where there are no processes for it."""
    return await asyncio.to_thread(material_of, brought)


@dataclass(frozen=True, slots=True)
class _Judged:
    """A CA that may be taken in; only its key is to be seen to."""

    id: str
    profile_id: str
    material: Material
    facts: CertificateFacts
    public_key: bytes
    parent: CertificationAuthority | None
    self_signed: bool


class CaImport:
    """One at a time: who is refused deletes the key that it brought, which must be nobody
    else's."""

    def __init__(
        self,
        *,
        store: CaStore,
        keys: Keys,
        clock: Clock,
        platform_cas: PlatformCas | None,
        reader: MaterialReader,
    ) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._platform_cas = platform_cas
        self._reader = reader
        self._turn = asyncio.Lock()

    async def take(self, brought: BroughtCa, *, caller: Caller) -> CertificationAuthority:
        """Judge everything, keep the key, store the CA and put it into the hierarchy: below the
        CA whose key signed it, above those that it signed itself (security rule 14).

        Raises `Malformed`, `RuleViolation`, `NotFound` (profile), `Forbidden`
        (`key_not_usable`, `platform_ca`) and `Conflict` (`ca_exists`, `serial_number_taken`,
        `key_id_in_use`, `key_is_general`, ...), with nothing stored.
        """
        async with self._turn:
            material = await self._material_of(brought)
            now = self._clock.now()
            judged = await self._judge(brought, material, now)
            key = await self._key_of(judged, caller)
            authority = _authority(judged, key, now)
            try:
                return await self._store_all(judged, authority, caller=caller, now=now)
            except Unavailable:
                raise  # it may be stored, and needs its key then
            except (Conflict, Forbidden, NotFound, RuleViolation):
                await self._discard(judged, key, caller)
                raise

    async def _material_of(self, brought: BroughtCa) -> Material:
        """A file's key derivation takes a processor for a while, or for ever."""
        if not brought.pkcs12:
            return material_of(brought)
        try:
            return await self._reader(brought)
        except TimeoutError:
            raise endless_work() from None

    async def _judge(self, brought: BroughtCa, material: Material, now: datetime) -> _Judged:
        der = material.certificate
        facts = check_brought_ca(der, now)
        ca_id = brought.id or str(uuid4())
        check_ca_id(ca_id)
        if await self._store.find_ca(ca_id) or await self._store.find_awaited(ca_id):
            raise ca_exists()
        await self._check_profile(brought.profile_id)
        await check_not_the_platforms(facts, self._platform_cas)
        public_key = canonical_key(facts)
        await self._check_free(der, facts, public_key)
        self_signed = is_self_signed(der, facts)
        parent = None
        if not self_signed:
            parent = issuer_among(IssuerTable(await self._store.all_cas()), der, facts)
        if parent is not None:
            _check_unrevoked(parent)
        if material.private_key is not None:
            check_can_issue(der, facts)
        return _Judged(ca_id, brought.profile_id, material, facts, public_key, parent, self_signed)

    async def _check_profile(self, profile_id: str) -> None:
        if not profile_id:
            return
        profile = await self._store.find_profile(profile_id)
        if profile is None:
            raise profile_not_found()
        if profile.sign_as_ca:
            raise RuleViolation(
                "the default profile is for what the CA issues and cannot have sign_as_ca",
                code="profile_signs_as_ca",
                field="profile_id",
            )

    async def _check_free(self, der: bytes, facts: CertificateFacts, public_key: bytes) -> None:
        """Neither certificate, nor key, nor key identifier is another CA's (security rules 9
        and 14): by the identifier CRLs are found."""
        stored = await self._store.find_certificate(facts.serial_number)
        if stored is not None:
            check_same(stored, der)
            _check_in_force(stored)
        identifier, key = subject_key_id_of(facts), key_id(public_key)
        other = await self._store.find_ca_by_key_id(identifier)
        if other is not None and other.certificate.der == der:
            raise _certificate_exists(f"as that of the CA {other.id}")
        if other is not None:
            raise Conflict(
                f"the subject key identifier of this CA is that of {other.id} already",
                code="key_id_in_use",
                field="ca",
            )
        holder = await self._store.find_ca_with_key(key)
        if holder is not None:
            raise Conflict(
                f"the key of this CA is that of {holder.id} already; a CA's key is its alone",
                code="key_in_use",
                field="ca",
            )
        for awaited in await self._store.all_awaited():
            if awaited.key_id in (identifier, key):
                raise Conflict(
                    f"{awaited.id} waits for a certificate of this key: take it in by"
                    " lamassu ca import-signed",
                    code="key_waits",
                    field="ca",
                )

    async def _key_of(self, judged: _Judged, caller: Caller) -> Key | None:
        if judged.material.private_key is not None:
            return await self._keys.take_in(
                judged.material.private_key,
                public_key=judged.public_key,
                purpose=KeyPurpose.CA,
                name=f"ca/{judged.id}",
                caller=caller,
            )
        key = check_key_usable(await self._keys.find_by_public_key(judged.public_key))
        if key is not None:
            check_can_issue(judged.material.certificate, judged.facts)
        return key

    async def _discard(self, judged: _Judged, key: Key | None, caller: Caller) -> None:
        """Keep no key of a refused CA; one that was here before stays."""
        if (
            judged.material.private_key is None
            or key is None
            or key.origin is not KeyOrigin.IMPORTED
        ):
            return
        if await self._store.find_ca_with_key(key.key_id) is None:
            await self._keys.discard(key.key_id, purpose=KeyPurpose.CA, caller=caller)

    async def _store_all(
        self, judged: _Judged, authority: CertificationAuthority, *, caller: Caller, now: datetime
    ) -> CertificationAuthority:
        above = await ids_above(judged.parent, self._store)
        async with self._store.unit() as transaction:
            if judged.parent is not None:
                await _lock_parent(transaction, judged.parent, judged.material.certificate)
            moved = await moved_below(transaction, authority, above=above)
            locked = await transaction.lock_certificate(authority.certificate.serial_number)
            profile_id = authority.profile_id
            if profile_id and await transaction.share_profile(profile_id) is None:
                raise profile_not_found()
            if locked is None:
                await insert_new_ca(transaction, authority, now, taken=ca_exists())
            else:
                authority = await _insert_ca_of(transaction, authority, locked.certificate)
            await transaction.relink([after for _, after in moved])
            record(
                transaction,
                "ca.import",
                f"ca/{authority.id}",
                version=authority.version,
                data=ca_document(authority, now),
                caller=caller,
                detail={
                    "serial_number": authority.certificate.serial_number,
                    "parent_id": authority.parent_id,
                    "key_id": authority.key_id,
                    "type": authority.certificate.type.value,
                    "sha256": judged.facts.sha256,
                    "moved_below": [after.id for _, after in moved],
                },
            )
            record_moves(transaction, moved, caller=caller, now=now)
        return authority


async def check_not_the_platforms(
    facts: CertificateFacts, platform_cas: PlatformCas | None
) -> None:
    """Raises `Forbidden` (`platform_ca`) for a certificate of the platform's own CA's key."""
    if platform_cas is None:
        return
    own = ders_of(await platform_cas())
    if any(certificate_facts(der).spki == facts.spki for der in own):
        raise platform_ca()


async def _lock_parent(
    transaction: CaTransaction, signed_by_: CertificationAuthority, der: bytes
) -> None:
    parent = await transaction.lock_ca(signed_by_.id)
    if parent is None or not is_signed_by(der, parent.certificate.der):
        raise Conflict(
            f"the CA {signed_by_.id}, which signed it, was changed meanwhile; ask again",
            code="ca_changed",
        )
    _check_unrevoked(parent)


async def _insert_ca_of(
    transaction: CaTransaction, authority: CertificationAuthority, stored: Certificate
) -> CertificationAuthority:
    """Make it the CA of a certificate that was here before, without a CA; whoever signed it may
    be known only now."""
    check_same(stored, authority.certificate.der)
    _check_in_force(stored)
    if await transaction.lock_awaited(authority.id) is not None:
        raise ca_exists()
    authority = of_stored(authority, stored)
    await transaction.insert_ca_of(authority)
    await transaction.relink([authority])
    return authority


def _check_in_force(stored: Certificate) -> None:
    """What was revoked or made inactive as a certificate does not come back as a CA."""
    if stored.stored_status is not CertificateStatus.ACTIVE:
        raise _certificate_exists(f"and is {stored.stored_status}")


def _certificate_exists(how: str) -> Conflict:
    return Conflict(
        f"this certificate is here already, {how}", code="certificate_exists", field="ca"
    )


def _check_unrevoked(parent: CertificationAuthority) -> None:
    if parent.revoked_by is not None:
        raise RuleViolation(
            f"the CA {parent.id}, which signed it, is revoked, and all below it with it",
            code="issuer_revoked",
            field="ca",
        )


def _authority(judged: _Judged, key: Key | None, now: datetime) -> CertificationAuthority:
    kind = CertificateType.IMPORTED_WITHOUT_KEY
    if key is not None:
        sent = judged.material.private_key is not None
        kind = CertificateType.IMPORTED_WITH_KEY if sent else CertificateType.MANAGED
    found = FoundAuthority(
        id=judged.id,
        der=judged.material.certificate,
        key_id=key.key_id if key else "",
        engine_id=key.engine_id if key else "",
        type=kind,
        profile_id=judged.profile_id,
    )
    return new_authority(
        found, judged.facts, judged.parent, self_signed=judged.self_signed, now=now
    )
