"""A CA under an offline root, second half: what the ceremony signed comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Conflict, RuleViolation
from lamassu.kernel.identity import Caller
from lamassu.kernel.x509.csr import CertificateRequest, parse_csr
from lamassu.kernel.x509.facts import CertificateFacts, certificate_facts
from lamassu.services.ca.contract import (
    Certificate,
    CertificateType,
    CertificationAuthority,
)
from lamassu.services.ca.contract.external import AwaitedCa
from lamassu.services.ca.model import NewCertificate
from lamassu.services.ca.ports import CaStore, CaTransaction
from lamassu.services.ca.rules.adoption import certificate_row
from lamassu.services.ca.rules.external import (
    Delivery,
    check_answers,
    check_root,
    check_root_is_known,
    parse_delivery,
)
from lamassu.services.ca.usecases.documents import ca_document
from lamassu.services.ca.usecases.issuers import ca_exists
from lamassu.services.ca.usecases.trail import record
from lamassu.services.kms.contract import KeyPurpose, Keys


@dataclass(frozen=True, slots=True)
class Imported:
    """The root, the CAs that have their certificate now, and whether any of it is new."""

    root: CertificationAuthority
    authorities: Sequence[CertificationAuthority]
    is_new: bool


@dataclass(frozen=True, slots=True)
class _Answered:
    """A CA that waited, with its certificate; all rules hold."""

    awaited: AwaitedCa
    csr: CertificateRequest
    der: bytes
    facts: CertificateFacts


class SignedImport:
    """Takes in bundles of ceremonies, and certificates of other offline roots."""

    def __init__(self, *, store: CaStore, keys: Keys, clock: Clock, production: bool) -> None:
        """In `production` no rehearsal's bundle is taken in, and no CA comes to be whose key
        development made where production makes none."""
        self._production = production
        self._store = store
        self._keys = keys
        self._clock = clock

    async def take_in(self, content: bytes, root_fingerprint: str, *, caller: Caller) -> Imported:
        """Store the root, without a key, and the CAs of this delivery that wait for it; all or
        nothing. A repeated delivery changes nothing.

        Raises `Malformed`, `RuleViolation` (`bundle_tampered`, `root_unconfirmed`,
        `certificate_refused`, `nothing_waits`, `engine_not_for_ca_keys`), `Conflict`
        (`root_differs`, `key_id_in_use`).
        """
        delivery = parse_delivery(content, production=self._production)
        now = self._clock.now()
        waiting = await self._waiting_for(delivery)
        known = await self._known(delivery)
        if not waiting:
            return await self._repeated(delivery, known)
        root_id = waiting[0][0].root_id
        stored_root = await self._store.find_ca(root_id)
        root = delivery.root or (stored_root.certificate.der if stored_root else None)
        if root is None:
            raise RuleViolation(
                f"the root {root_id} is not known here: add its certificate to the file",
                code="root_missing",
                field="signed",
            )
        check_root(root, now)
        check_root_is_known(root, stored_root, root_fingerprint)
        answered = [
            _Answered(awaited, csr, der, check_answers(der, csr, root, delivery, now))
            for awaited, der, csr in waiting
        ]
        if self._production:
            for one in answered:
                await self._check_key_is_kept(one.awaited)
        await self._check_key_ids_free(
            {root_id: certificate_facts(root), **{one.awaited.id: one.facts for one in answered}}
        )
        return await self._store_all(
            root_id,
            root,
            answered,
            known=known,
            caller=caller,
            now=now,
            source=delivery.sha256,
        )

    async def _waiting_for(
        self, delivery: Delivery
    ) -> list[tuple[AwaitedCa, bytes, CertificateRequest]]:
        """The CAs that wait for one of these certificates, by their keys."""
        by_key = {
            csr.spki: (awaited, csr)
            for awaited in await self._store.all_awaited()
            for csr in (parse_csr(awaited.csr),)
        }
        found: dict[str, tuple[AwaitedCa, bytes, CertificateRequest]] = {}
        for der in delivery.certificates:  # the last one signed counts
            match = by_key.get(certificate_facts(der).spki)
            if match is not None:
                found[match[0].id] = (match[0], der, match[1])
        waiting = list(found.values())
        if len({awaited.root_id for awaited, _, _ in waiting}) > 1:
            raise RuleViolation(
                "the CAs of this delivery wait for different roots: "
                + ", ".join(f"{awaited.id} for {awaited.root_id}" for awaited, _, _ in waiting),
                code="root_ambiguous",
                field="signed",
            )
        return waiting

    async def _known(self, delivery: Delivery) -> list[CertificationAuthority]:
        """The CAs that have one of these certificates already."""
        ders = set(delivery.certificates)
        return [ca for ca in await self._store.all_cas() if ca.certificate.der in ders]

    async def _repeated(
        self, delivery: Delivery, known: Sequence[CertificationAuthority]
    ) -> Imported:
        for authority in known:
            root = await self._store.find_ca(authority.parent_id or authority.id)
            if root is not None and delivery.root in (None, root.certificate.der):
                return Imported(root, known, is_new=False)
        raise RuleViolation(
            "no CA here waits for a certificate of this delivery: each carries the key of a"
            " request made by lamassu ca create ID --external-root ROOT",
            code="nothing_waits",
            field="signed",
        )

    async def _check_key_is_kept(self, awaited: AwaitedCa) -> None:
        """Security rule 11: what waits may have begun in development."""
        key = await self._keys.get(awaited.key_id, purpose=KeyPurpose.CA)
        if any(
            one.id == key.engine_id and not one.for_ca_keys for one in await self._keys.engines()
        ):
            raise RuleViolation(
                f"the key of {awaited.id} was made by engine {key.engine_id}, which in production"
                f" gets no keys of CAs; lamassu ca withdraw {awaited.id}, and make a new request"
                " with an engine that would do",
                code="engine_not_for_ca_keys",
                field="signed",
            )

    async def _check_key_ids_free(self, arriving: Mapping[str, CertificateFacts]) -> None:
        """Security rule 14: a subject key identifier means one key; by it CRLs are found."""
        for ca_id, facts in arriving.items():
            other = await self._store.find_ca_by_key_id(facts.ski)
            twins = [twin for twin, its in arriving.items() if its.ski == facts.ski]
            if len(twins) > 1 or (other is not None and other.id != ca_id):
                holder = other.id if other is not None and other.id != ca_id else twins[0]
                raise Conflict(
                    f"the subject key identifier of {ca_id} is that of {holder} already",
                    code="key_id_in_use",
                    field="signed",
                )

    async def _store_all(
        self,
        root_id: str,
        der: bytes,
        answered: Sequence[_Answered],
        *,
        known: Sequence[CertificationAuthority],
        caller: Caller,
        now: datetime,
        source: str,
    ) -> Imported:
        async with self._store.unit() as transaction:
            root = await transaction.lock_ca(root_id)
            if root is None:
                root = _root(root_id, der, now)
                await self._insert(transaction, root, caller=caller, now=now, source=source)
            elif root.certificate.der != der or root.revoked_by is not None:
                raise Conflict(f"the root {root_id} was revoked or replaced", code="ca_changed")
            made = []
            for one in answered:
                if await transaction.lock_awaited(one.awaited.id) is None:
                    continue  # another request was quicker
                authority = _authority(one, root, now)
                profile = await transaction.share_profile(authority.profile_id)
                if profile is None or profile.sign_as_ca:
                    authority = replace(authority, profile_id="")  # changed while it waited
                await transaction.delete_awaited(one.awaited.id)
                await self._insert(transaction, authority, caller=caller, now=now, source=source)
                made.append(authority)
        return Imported(root, [*known, *made], is_new=True)

    async def _insert(
        self,
        transaction: CaTransaction,
        authority: CertificationAuthority,
        *,
        caller: Caller,
        now: datetime,
        source: str,
    ) -> None:
        try:
            await transaction.insert_ca(
                authority, NewCertificate(authority.certificate, created_at=now)
            )
        except Conflict:
            raise ca_exists() from None
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
                "sha256": certificate_facts(authority.certificate.der).sha256,
                "delivery_sha256": source,
            },
        )


def _root(root_id: str, der: bytes, now: datetime) -> CertificationAuthority:
    facts = certificate_facts(der)
    certificate = _certificate(
        facts, der, issuer=(root_id, facts.serial_number, 0), engine_id="",
        kind=CertificateType.IMPORTED_WITHOUT_KEY,
    )  # fmt: skip
    return CertificationAuthority(
        id=root_id,
        certificate=certificate,
        key_id="",
        level=0,
        parent_id=None,
        profile_id="",
        created_at=now,
        version=1,
    )


def _authority(
    one: _Answered, root: CertificationAuthority, now: datetime
) -> CertificationAuthority:
    awaited = one.awaited
    issuer = (root.id, root.certificate.serial_number, root.level)
    certificate = _certificate(
        one.facts, one.der, issuer=issuer, engine_id=awaited.engine_id,
        kind=CertificateType.MANAGED,
    )  # fmt: skip
    return CertificationAuthority(
        id=awaited.id,
        certificate=certificate,
        key_id=awaited.key_id,
        level=root.level + 1,
        parent_id=root.id,
        profile_id=awaited.profile_id,
        created_at=now,
        metadata=awaited.metadata,
        version=1,
    )


def _certificate(
    facts: CertificateFacts,
    der: bytes,
    *,
    issuer: tuple[str, str, int],
    engine_id: str,
    kind: CertificateType,
) -> Certificate:
    return replace(
        certificate_row(facts, der, issuer=issuer, metadata={}),
        authority_key_id=facts.aki or facts.ski,
        type=kind,
        engine_id=engine_id,
    )
