"""Take over the CAs of another system, as they stand: also those that are revoked or ended."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from cryptography import x509

from lamassu.kernel.adoption import Outcome, Verdict
from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Conflict, Forbidden, Malformed, NotFound, RuleViolation
from lamassu.kernel.identity import Caller
from lamassu.kernel.x509.facts import CertificateFacts, certificate_facts
from lamassu.kernel.x509.keys import key_id
from lamassu.services.ca.contract import CertificateStatus, CertificationAuthority
from lamassu.services.ca.ports import CaStore
from lamassu.services.ca.rules.adoption import (
    FoundAuthority,
    IssuerTable,
    check_authority,
    check_same,
    is_signed_by,
    new_authority,
    of_stored,
    revoked_at_source,
)
from lamassu.services.ca.rules.authorities import check_ca_id
from lamassu.services.ca.usecases.documents import ca_document
from lamassu.services.ca.usecases.enter_ca import (
    ids_above,
    insert_new_ca,
    moved_below,
    record_moves,
)
from lamassu.services.ca.usecases.hold_keys import KeyHolds
from lamassu.services.ca.usecases.import_ca import PlatformCas, check_not_the_platforms
from lamassu.services.ca.usecases.trail import record


class AuthorityAdoption:
    """One transaction for each CA; one that is here already stays as it is."""

    def __init__(
        self, *, store: CaStore, holds: KeyHolds, clock: Clock, platform_cas: PlatformCas | None
    ) -> None:
        """`platform_cas` tells the platform's own CA, which is none of those here."""
        self._platform_cas = platform_cas
        self._store = store
        self._holds = holds
        self._clock = clock

    async def adopt(
        self,
        found: FoundAuthority,
        *,
        issuers: IssuerTable,
        source: str,
        caller: Caller,
        dry_run: bool,
        promised_profiles: Collection[str] = (),
    ) -> Verdict:
        """Judge a CA and store it; `issuers` learns of it. Its issuer comes before it.

        Profiles that are `promised` a dry run would have brought. Raises `Unavailable`.
        """
        try:
            return await self._adopt(
                found, issuers, source, caller, None if not dry_run else promised_profiles
            )
        except (Malformed, RuleViolation, Conflict, Forbidden, NotFound) as error:
            return Verdict(found.id, Outcome.SKIPPED, error.code, error.text)

    async def _adopt(
        self,
        found: FoundAuthority,
        issuers: IssuerTable,
        source: str,
        caller: Caller,
        promised_profiles: Collection[str] | None,
    ) -> Verdict:
        facts = certificate_facts(found.der)
        check_ca_id(found.id)
        check_authority(facts)
        if found.key_id and found.key_id != key_id(facts.spki):
            raise RuleViolation("its key is not its certificate's", code="key_mismatch")
        await check_not_the_platforms(facts, self._platform_cas)
        stored = await self._store.find_ca(found.id)
        if stored is not None:
            return self._present(stored, found)
        authority = self._judged(found, facts, issuers)
        await self._check_free(authority, facts)
        authority, remark = await self._with_profile(authority, promised_profiles or ())
        if promised_profiles is None:
            await self._save(authority, source, caller)
            await self._holds.hold(authority, caller=caller)
        issuers.add(authority)
        return Verdict(found.id, Outcome.ADOPTED, *remark)

    def _present(self, stored: CertificationAuthority, found: FoundAuthority) -> Verdict:
        if stored.certificate.der != found.der:
            raise Conflict("a CA of this id is here and has another certificate", code="ca_exists")
        unrevoked = stored.certificate.stored_status is not CertificateStatus.REVOKED
        if found.status.revoked and unrevoked:
            return revoked_at_source(found.id)
        code = text = ""
        if found.key_id and not stored.key_id:
            code, text = "key_not_adopted", "it was taken in without its key, and stays so"
        return Verdict(found.id, Outcome.PRESENT, code, text)

    def _judged(
        self, found: FoundAuthority, facts: CertificateFacts, issuers: IssuerTable
    ) -> CertificationAuthority:
        """Security rule 14: below whom it stands is a matter of signatures alone."""
        certificate = x509.load_der_x509_certificate(found.der)
        self_signed = facts.subject_der == facts.issuer_der
        parent = None
        if self_signed:
            if not is_signed_by(certificate, certificate):
                raise RuleViolation(
                    "its certificate is self-issued, but not signed by its own key",
                    code="signature_invalid",
                )
        else:
            try:
                parent = issuers.issuer_of(found.der, facts)
            except RuleViolation as error:
                if error.code != "issuer_unknown":
                    raise
        now = self._clock.now()
        return new_authority(found, facts, parent, self_signed=self_signed, now=now)

    async def _check_free(self, authority: CertificationAuthority, facts: CertificateFacts) -> None:
        """Security rule 14: a subject key identifier means one key, and one CA."""
        identifier = authority.certificate.subject_key_id
        other = await self._store.find_ca_by_key_id(identifier)
        if other is not None:
            raise Conflict(
                f"its subject key identifier is that of {other.id} already", code="key_id_in_use"
            )
        holder = await self._store.find_ca_with_key(key_id(facts.spki))
        if holder is not None:
            raise Conflict(
                f"its key is that of {holder.id} already; a CA's key is its alone",
                code="key_in_use",
            )
        taken = await self._store.find_certificate(facts.serial_number)
        if taken is not None:
            check_same(taken, authority.certificate.der)
        if await self._store.find_awaited(authority.id) is not None:
            raise Conflict("a CA of this id waits for its certificate", code="ca_exists")

    async def _with_profile(
        self, authority: CertificationAuthority, promised: Collection[str]
    ) -> tuple[CertificationAuthority, tuple[str, str]]:
        """Without a profile that it cannot have, and what is to be said of that: for its history
        alone a CA is worth taking over."""
        profile_id = authority.profile_id
        if profile_id and profile_id not in promised:
            profile = await self._store.find_profile(profile_id)
            if profile is None or profile.sign_as_ca:
                text = f"its issuance profile {profile_id} is not here, or is one for CAs"
                return replace(authority, profile_id=""), ("profile_not_found", text)
        if authority.key_id and not profile_id:
            text = "it issues nothing by default: give it a profile"
            return authority, ("no_profile", text)
        return authority, ("", "")

    async def _save(self, authority: CertificationAuthority, source: str, caller: Caller) -> None:
        certificate = authority.certificate
        now = self._clock.now()
        parent = await self._store.find_ca(authority.parent_id) if authority.parent_id else None
        above = await ids_above(parent, self._store)
        # it may have come before, among what its issuer's CA had signed, and be revoked here
        kept = await self._store.find_certificate(certificate.serial_number)
        placed = of_stored(authority, kept) if kept else authority
        async with self._store.unit() as transaction:
            moved = await moved_below(transaction, placed, above=above)
            locked = await transaction.lock_certificate(certificate.serial_number)
            if locked is None:
                await insert_new_ca(transaction, authority, authority.created_at, taken=_taken())
            else:
                authority = of_stored(authority, locked.certificate)
                await transaction.insert_ca_of(authority)
                moved = [(authority, authority), *moved]  # whoever signed it may be known only now
            await transaction.relink([after for _, after in moved])
            record(
                transaction,
                "ca.import",
                f"ca/{authority.id}",
                version=authority.version,
                data=ca_document(authority, now),
                caller=caller,
                detail={
                    "serial_number": certificate.serial_number,
                    "parent_id": authority.parent_id,
                    "key_id": authority.key_id,
                    "status": authority.certificate.stored_status.value,
                    "sha256": certificate_facts(certificate.der).sha256,
                    "source": source,
                    "moved_below": [after.id for _, after in moved if after.id != authority.id],
                },
            )
            changed = [pair for pair in moved if pair[0] != pair[1]]
            record_moves(transaction, changed, caller=caller, now=now)


def _taken() -> Conflict:
    return Conflict(
        "its id was that of a CA that is gone, and certificates of that one are here yet",
        code="ca_exists",
    )
