"""Take over what another system knows of certificates that a CA of ours signed.

In batches: a batch is one transaction, with one event and one audit record for all of it. What
is here already stays, so that a repetition finishes what a crash cut off.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lamassu.kernel.adoption import Batch, Outcome, Verdict, count_outcomes
from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Conflict, LamassuError, Malformed, RuleViolation
from lamassu.kernel.identity import Caller
from lamassu.kernel.records import Json
from lamassu.kernel.x509.facts import CertificateFacts, certificate_facts
from lamassu.services.ca.contract import Certificate
from lamassu.services.ca.model import NewCertificate
from lamassu.services.ca.ports import CaStore, CaTransaction
from lamassu.services.ca.rules.adoption import (
    FoundCertificate,
    IssuerTable,
    check_same,
    check_storable,
    learns_revocation,
    new_certificate,
    revoked_at_source,
    with_status,
)
from lamassu.services.ca.usecases.change_status import record_certificate
from lamassu.services.ca.usecases.trail import record

_BATCH = "certificate.adopt"
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class _Read:
    """A certificate that could be read, and which of the batch it is."""

    at: int
    found: FoundCertificate
    facts: CertificateFacts


class CertificateAdoption:
    """Verifies, then stores: a certificate counts only under the CA whose key signed it."""

    def __init__(self, *, store: CaStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def issuers(self) -> IssuerTable:
        """The CAs that there are, read once for many batches."""
        return IssuerTable(await self._store.all_cas())

    async def adopt(
        self,
        batch: Batch,
        found: Sequence[FoundCertificate],
        *,
        issuers: IssuerTable,
        caller: Caller,
    ) -> Sequence[Verdict]:
        """A verdict on each, in their order; a certificate that cannot be ours stops no other.

        What the source knows to be revoked is revoked here too; what it does not is never
        released. Raises `Unavailable`.
        """
        for attempt in range(_ATTEMPTS):
            try:
                return await self._adopt(batch, found, issuers, caller)
            except Conflict:
                # somebody stored one of these meanwhile: it is present the next time
                if attempt + 1 == _ATTEMPTS:
                    raise
        raise AssertionError

    def preview(
        self, found: Sequence[FoundCertificate], *, issuers: IssuerTable
    ) -> Mapping[str, Certificate]:
        """Those that `adopt` would take, by serial number, as they would be."""
        verdicts: dict[int, Verdict] = {}
        new = self._judge_all(_read_all(found, verdicts), issuers, verdicts)
        return {one.certificate.serial_number: one.certificate for one in new}

    async def _adopt(
        self,
        batch: Batch,
        found: Sequence[FoundCertificate],
        issuers: IssuerTable,
        caller: Caller,
    ) -> Sequence[Verdict]:
        verdicts: dict[int, Verdict] = {}
        read = await asyncio.to_thread(_read_all, found, verdicts)
        stored = await self._store.find_certificates([one.facts.serial_number for one in read])
        fresh: list[_Read] = []
        revoked: list[tuple[_Read, Certificate]] = []
        seen: dict[str, bytes] = {}
        for one in read:
            serial_number, label = one.facts.serial_number, one.found.label
            known = stored.get(serial_number)
            try:
                if known is not None:
                    check_same(known, one.found.der)
                elif seen.setdefault(serial_number, one.found.der) != one.found.der:
                    raise Conflict(
                        "another certificate before it has its serial number",
                        code="serial_number_taken",
                    )
            except Conflict as error:
                verdicts[one.at] = _skipped(label, error)
                continue
            if known is None and issuers.has(one.found.der):
                verdicts[one.at] = Verdict(label, Outcome.PRESENT)  # as a CA's, in a dry run
            elif known is None:
                fresh.append(one)
            elif learns_revocation(known, one.found.status) and issuers.has(known.der):
                verdicts[one.at] = revoked_at_source(label)
            elif learns_revocation(known, one.found.status):
                revoked.append((one, known))
                verdicts[one.at] = Verdict(label, Outcome.UPDATED)
            else:
                verdicts[one.at] = Verdict(label, Outcome.PRESENT)
        new = await asyncio.to_thread(self._judge_all, fresh, issuers, verdicts)
        if not batch.dry_run and (new or revoked):
            await self._save(batch, new, revoked, verdicts, caller)
        return [verdicts[at] for at in range(len(found))]

    def _judge_all(
        self, fresh: Sequence[_Read], issuers: IssuerTable, verdicts: dict[int, Verdict]
    ) -> list[NewCertificate]:
        """In a thread: a signature is verified for each."""
        now = self._clock.now()
        new: dict[str, NewCertificate] = {}
        for one in fresh:
            label, facts = one.found.label, one.facts
            if facts.serial_number in new:
                verdicts[one.at] = Verdict(label, Outcome.PRESENT)  # twice in the source
                continue
            try:
                issuer = issuers.issuer_of(one.found.der, facts)
                new[facts.serial_number] = new_certificate(one.found, facts, issuer, now)
            except RuleViolation as error:
                verdicts[one.at] = _skipped(label, error)
            else:
                verdicts[one.at] = Verdict(label, Outcome.ADOPTED)
        return list(new.values())

    async def _save(
        self,
        batch: Batch,
        new: Sequence[NewCertificate],
        revoked: Sequence[tuple[_Read, Certificate]],
        verdicts: dict[int, Verdict],
        caller: Caller,
    ) -> None:
        now = self._clock.now()
        counts = count_outcomes(list(verdicts.values()))
        async with self._store.unit() as transaction:
            await self._revoke(transaction, revoked, caller)
            await transaction.insert_certificates(new)
            data: dict[str, Json] = {"source": batch.source, "batch": batch.number, **counts}
            record(
                transaction,
                _BATCH,
                f"adoption/{batch.source}",
                version=batch.number,
                data=data,
                caller=caller,
                detail={**data, "sha256": _digest(new), "at": now.isoformat()},
            )

    async def _revoke(
        self,
        transaction: CaTransaction,
        revoked: Sequence[tuple[_Read, Certificate]],
        caller: Caller,
    ) -> None:
        """What was revoked at its source since it was taken over: told of one by one, as every
        revocation is."""
        now = self._clock.now()
        for one, known in sorted(revoked, key=lambda pair: pair[1].serial_number):
            locked = await transaction.lock_certificate(known.serial_number)
            if locked is None or not learns_revocation(locked.certificate, one.found.status):
                continue
            before = locked.certificate
            after = with_status(before, one.found.status, now)
            after = replace(after, version=before.version + 1)
            await transaction.save_certificate(after)
            record_certificate(transaction, before, after, caller=caller, now=now)


def _read_all(found: Sequence[FoundCertificate], verdicts: dict[int, Verdict]) -> Sequence[_Read]:
    read = []
    for at, one in enumerate(found):
        try:
            facts = certificate_facts(one.der)
            check_storable(facts)
        except (Malformed, RuleViolation) as error:
            verdicts[at] = _skipped(one.label, error)
        else:
            read.append(_Read(at, one, facts))
    return read


def _skipped(label: str, error: LamassuError) -> Verdict:
    return Verdict(label, Outcome.SKIPPED, error.code, error.text)


def _digest(new: Sequence[NewCertificate]) -> str:
    """Stands in the trail for what was stored: serial numbers, certificates and statuses."""
    digest = hashlib.sha256()
    for one in new:
        certificate = one.certificate
        digest.update(
            f"{certificate.serial_number} {hashlib.sha256(certificate.der).hexdigest()}"
            f" {certificate.stored_status.value}\n".encode()
        )
    return digest.hexdigest()
