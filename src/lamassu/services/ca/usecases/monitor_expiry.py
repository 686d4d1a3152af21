"""Tell of certificates that end, and before they do.

Nothing is decided here: that a certificate is expired follows from its end (security rule 29).
This only tells whoever listens, each thing once: the place that was reached commits with the
events.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

from lamassu.kernel.clock import Clock
from lamassu.kernel.identity import system_caller
from lamassu.kernel.records import Event, Json
from lamassu.services.ca.contract import Certificate, CertificationAuthority, certificate_document
from lamassu.services.ca.model import Watermark
from lamassu.services.ca.ports import CaStore, CaTransaction
from lamassu.services.ca.rules.expiry import Delta, with_triggered
from lamassu.services.ca.usecases.documents import ca_document, update_document
from lamassu.services.ca.usecases.run_cascades import ANNOUNCED, ANNOUNCING_PAUSE, Pause
from lamassu.services.ca.usecases.trail import record

_CALLER = system_caller("ca/expiry")
_INSTANT = timedelta(microseconds=1)


class ExpiryMonitor:
    """The periodic look at what ended and what is due. Safe in several processes."""

    def __init__(self, *, store: CaStore, clock: Clock, pause: Pause = asyncio.sleep) -> None:
        self._store = store
        self._clock = clock
        self._pause = pause

    async def run(self) -> int:
        """Tell of all that is due now, at a pace that consumers keep; of how much."""
        total = 0
        for batch in (self._alert_cas, self._alert_certificates, self._tell_ended):
            while True:
                async with self._store.unit() as transaction:
                    told = await batch(transaction, self._clock.now())
                total += told
                if told < ANNOUNCED:
                    break
                await self._pause(ANNOUNCING_PAUSE)
        return total

    async def _tell_ended(self, transaction: CaTransaction, now: datetime) -> int:
        """Of certificates that were active to their end, in order of these ends."""
        mark = await transaction.lock_watermark()
        if mark is None:
            # what ended before anybody looked is no news
            await transaction.save_watermark(Watermark(now))
            return 0
        ended = await transaction.ended_since(mark, now=now, limit=ANNOUNCED)
        holders = await transaction.holders_of([one.serial_number for one in ended if one.is_ca])
        for certificate in ended:
            _tell_end(transaction, certificate, holders.get(certificate.serial_number), now)
        if ended:
            last = ended[-1]
            await transaction.save_watermark(Watermark(last.not_after, last.serial_number))
        return len(ended)

    async def _alert_certificates(self, transaction: CaTransaction, now: datetime) -> int:
        due = await transaction.lock_alerting(now=now, limit=ANNOUNCED)
        for previous in due:
            metadata, deltas = with_triggered(previous.metadata, previous.not_after, now)
            updated = replace(previous, metadata=metadata, version=previous.version + 1)
            await transaction.save_certificate(updated)
            subject = f"certificate/{updated.serial_number}"
            after = certificate_document(updated, now)
            record(
                transaction,
                "certificate.metadata.update",
                subject,
                version=updated.version,
                data=update_document(certificate_document(previous, now), after),
                caller=_CALLER,
                detail={"triggered": [delta.name for delta in deltas]},
            )
            for delta in deltas:
                data = _expiring("certificate", after, delta)
                transaction.emit(
                    Event("certificate.expiring", subject, updated.version, data, _CALLER)
                )
        return len(due)

    async def _alert_cas(self, transaction: CaTransaction, now: datetime) -> int:
        due = await transaction.lock_alerting_cas(now=now, limit=ANNOUNCED)
        for previous in due:
            end = previous.certificate.not_after
            metadata, deltas = with_triggered(previous.metadata, end, now)
            updated = replace(previous, metadata=metadata, version=previous.version + 1)
            await transaction.save_ca(updated)
            subject, after = f"ca/{updated.id}", ca_document(updated, now)
            record(
                transaction,
                "ca.metadata.update",
                subject,
                version=updated.version,
                data=update_document(ca_document(previous, now), after),
                caller=_CALLER,
                detail={"triggered": [delta.name for delta in deltas]},
            )
            for delta in deltas:
                data = _expiring("ca", after, delta)
                transaction.emit(Event("ca.expiring", subject, updated.version, data, _CALLER))
        return len(due)


def _expiring(kind: str, document: Json, delta: Delta) -> Json:
    return {kind: document, "delta": delta.entry.get("delta"), "name": delta.name}


def _tell_end(
    transaction: CaTransaction,
    certificate: Certificate,
    holder: CertificationAuthority | None,
    now: datetime,
) -> None:
    """The original's events, of a change of status that nobody made."""
    before = certificate.not_after - _INSTANT
    transaction.emit(
        Event(
            "certificate.status.update",
            f"certificate/{certificate.serial_number}",
            certificate.version,
            update_document(
                certificate_document(certificate, before), certificate_document(certificate, now)
            ),
            _CALLER,
        )
    )
    if holder is not None:
        data = update_document(ca_document(holder, before), ca_document(holder, now))
        transaction.emit(
            Event("ca.status.update", f"ca/{holder.id}", holder.version, data, _CALLER)
        )
