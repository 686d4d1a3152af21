"""All linters over a sample of what is issued: an alarm, where the rules before each signature
were kinder than pkilint is."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import Protocol

import structlog

from lamassu.kernel.clock import Clock
from lamassu.kernel.identity import system_caller
from lamassu.kernel.records import Json
from lamassu.kernel.x509.lint.pkix import linter_findings
from lamassu.services.ca.contract import Certificate, certificate_document
from lamassu.services.ca.ports import CaStore
from lamassu.services.ca.usecases.trail import record

FINDING_EVENT = "certificate.lint"
_LINTER = system_caller("lint")
# What waits: when more is issued than a linter can read, the oldest go unread.
_MOST_WAITING = 64

log = structlog.get_logger(__name__)


class LintMeter(Protocol):
    """Counts."""

    def sampled(self, *, clean: bool) -> None:
        """A certificate was read by all linters."""
        ...


class SampledLint:
    """Reads one certificate at a time, in a thread, after its issuance was answered."""

    def __init__(
        self, *, store: CaStore, clock: Clock, rate: float, meter: LintMeter | None = None
    ) -> None:
        """`rate` is the share of certificates that is read, from 0 to 1."""
        self._store = store
        self._clock = clock
        self._rate = rate
        self._meter = meter
        self._waiting: deque[Certificate] = deque(maxlen=_MOST_WAITING)
        self._some = asyncio.Event()

    def offer(self, certificate: Certificate) -> None:
        """Take an issued certificate into the sample, or not: by chance, and at no cost."""
        if self._rate and random.random() < self._rate:  # noqa: S311 - a sample, no secret
            self._waiting.append(certificate)
            self._some.set()

    async def wait(self) -> None:
        """Until there is something to read."""
        await self._some.wait()

    async def read_all(self) -> None:
        """Read what waits. A finding is an event with an audit record, a log entry and a count;
        the certificate was issued and stays so, until somebody decides otherwise."""
        self._some.clear()
        while self._waiting:
            certificate = self._waiting.popleft()
            findings = await asyncio.to_thread(linter_findings, certificate.der)
            if self._meter is not None:
                self._meter.sampled(clean=not findings)
            if findings:
                await self._alarm(certificate, list(findings))

    async def _alarm(self, certificate: Certificate, findings: list[Json]) -> None:
        log.error(
            "issued_certificate_has_findings",
            serial_number=certificate.serial_number,
            ca_id=certificate.issuer_ca_id,
            findings=findings,
        )
        async with self._store.unit() as transaction:
            record(
                transaction,
                FINDING_EVENT,
                f"certificate/{certificate.serial_number}",
                version=certificate.version,
                data={
                    "Certificate": certificate_document(certificate, self._clock.now()),
                    "Findings": findings,
                },
                caller=_LINTER,
                detail={"ca_id": certificate.issuer_ca_id, "findings": findings},
            )
