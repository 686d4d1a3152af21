"""Replay recorded enrolments against a changed profile: who would fail, and what would differ.

Page by page: each call reads so many certificates in order of serial numbers, drafts each under
the stored profile and under the changed one by the code that issues, and compares. Nothing is
signed or stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import LamassuError
from lamassu.kernel.x509.csr import CertificateRequest, parse_csr
from lamassu.services.ca.contract import CertificationAuthority, IssuanceProfile
from lamassu.services.ca.model import RecordedEnrolment
from lamassu.services.ca.ports import CaStore
from lamassu.services.ca.rules.prepared import PreparedProfile, prepared
from lamassu.services.ca.rules.profiles import check_profile, keeping
from lamassu.services.ca.rules.shown import differing_parts
from lamassu.services.ca.rules.template import CertificateTemplate
from lamassu.services.ca.usecases.draft_certificate import Wish, draft
from lamassu.services.ca.usecases.issuers import Issuer, issuer_of, profile_not_found

MOST_AT_ONCE = 5000
_CHUNK = 500  # enrolments that a worker gets at a time: some tenths of a second


@dataclass(frozen=True, slots=True)
class Failure:
    """An enrolment that the changed profile would refuse, and why."""

    enrolment: RecordedEnrolment
    code: str
    field: str
    text: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A part of the certificates that would differ: in how many, and how in one of them."""

    part: str
    certificates: int
    serial_number: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of some enrolments. `refused_before` would be refused by the stored profile as
    well, `accepted_now` by that alone; `unreadable` cannot be replayed."""

    examined: int = 0
    failures: Sequence[Failure] = ()
    differing: int = 0
    differences: Mapping[str, Difference] = field(default_factory=dict)
    refused_before: int = 0
    accepted_now: int = 0
    unreadable: int = 0

    def with_(self, other: Replayed) -> Replayed:
        """Both together."""
        differences = dict(self.differences)
        for part, found in other.differences.items():
            known = differences.get(part)
            differences[part] = (
                found
                if known is None
                else replace(known, certificates=known.certificates + found.certificates)
            )
        return Replayed(
            examined=self.examined + other.examined,
            failures=(*self.failures, *other.failures),
            differing=self.differing + other.differing,
            differences=differences,
            refused_before=self.refused_before + other.refused_before,
            accepted_now=self.accepted_now + other.accepted_now,
            unreadable=self.unreadable + other.unreadable,
        )


@dataclass(frozen=True, slots=True)
class ReplayBatch:
    """Enrolments with all that a worker elsewhere needs. `issuers` has by CA id the newest
    generation and the certificates (DER) above it."""

    enrolments: Sequence[RecordedEnrolment]
    issuers: Mapping[str, tuple[CertificationAuthority, tuple[bytes, ...]]]
    before: IssuanceProfile
    after: IssuanceProfile
    validation_urls: Sequence[str]
    own_hosts: frozenset[str]
    now: datetime


ReplayWorker = Callable[[ReplayBatch], Awaitable[Replayed]]


async def replay_in_thread(batch: ReplayBatch) -> Replayed:
    """A worker where there are no processes for it."""
    return await asyncio.to_thread(replay, batch)


@dataclass(frozen=True, slots=True)
class WhatIfPage:
    """One page; `after` is the serial number to go on from, empty at the end."""

    replayed: Replayed
    after: str


class WhatIf:
    """Dry runs of a changed profile over what was enrolled under the stored one."""

    def __init__(
        self,
        *,
        store: CaStore,
        clock: Clock,
        validation_urls: Sequence[str],
        own_hosts: Collection[str],
        worker: ReplayWorker,
    ) -> None:
        self._store = store
        self._clock = clock
        self._validation_urls = tuple(validation_urls)
        self._own_hosts = frozenset(own_hosts)
        self._worker = worker
        self._turn = asyncio.Lock()

    async def replay(
        self,
        profile_id: str,
        changed: IssuanceProfile,
        *,
        kept: Collection[str] = (),
        after: str = "",
        limit: int,
    ) -> WhatIfPage:
        """The next page of enrolments, at most `limit`, from past the serial number `after`.
        `kept` are fields of which the changed profile says nothing, as where it is written.

        Raises `NotFound` (profile), `RuleViolation` for a changed profile that makes no sense.
        """
        now = self._clock.now()
        stored = await self._store.find_profile(profile_id)
        if stored is None:
            raise profile_not_found()
        changed = keeping(replace(changed, id=profile_id), stored, kept)
        check_profile(changed, now)
        limit = min(limit, MOST_AT_ONCE)
        async with self._turn:  # one page of somebody at a time: this is nobody's emergency
            found = await self._store.enrolments_under(profile_id, after=after, limit=limit)
            issuers = await self._issuers({one.issuer_ca_id for one in found})
            batch = ReplayBatch(
                enrolments=(),
                issuers=issuers,
                before=stored,
                after=changed,
                validation_urls=self._validation_urls,
                own_hosts=self._own_hosts,
                now=now,
            )
            replayed = Replayed()
            for part in await asyncio.gather(
                *(
                    self._worker(replace(batch, enrolments=found[start : start + _CHUNK]))
                    for start in range(0, len(found), _CHUNK)
                )
            ):
                replayed = replayed.with_(part)
        return WhatIfPage(replayed, found[-1].serial_number if len(found) == limit else "")

    async def _issuers(
        self, ca_ids: Collection[str]
    ) -> dict[str, tuple[CertificationAuthority, tuple[bytes, ...]]]:
        """By id, whoever issues in its name now."""
        by_id = {one.id: one for one in await self._store.all_cas()}
        newest = {one.first_generation: one for one in by_id.values() if one.successor_id is None}
        found: dict[str, tuple[CertificationAuthority, tuple[bytes, ...]]] = {}
        for ca_id in by_id.keys() & ca_ids:
            authority = newest.get(by_id[ca_id].first_generation, by_id[ca_id])
            above: list[bytes] = []
            parent = by_id.get(authority.parent_id or "")
            while parent is not None and len(above) < len(by_id):
                above.append(parent.certificate.der)
                parent = by_id.get(parent.parent_id or "")
            found[ca_id] = (authority, tuple(above))
        return found


# --- in the worker --------------------------------------------------------------------------


def replay(batch: ReplayBatch) -> Replayed:
    """Each enrolment under both profiles."""
    before, after = prepared(batch.before), prepared(batch.after)
    issuers = {
        ca_id: issuer_of(authority, batch.validation_urls, above=above)
        for ca_id, (authority, above) in batch.issuers.items()
    }
    tally = _Tally()
    for enrolment in batch.enrolments:
        issuer = issuers.get(enrolment.issuer_ca_id)
        try:
            csr = parse_csr(enrolment.csr, newer_keys=True)
        except LamassuError:
            csr = None
        if issuer is None or csr is None:
            tally.unreadable += 1
            continue
        wish = Wish(owner=enrolment.owner, device_id=enrolment.device_id)
        tally.count(
            enrolment,
            _draft(batch, issuer, before, csr, wish),
            _draft(batch, issuer, after, csr, wish),
        )
    return tally.replayed(len(batch.enrolments))


def _draft(
    batch: ReplayBatch,
    issuer: Issuer,
    profile: PreparedProfile,
    csr: CertificateRequest,
    wish: Wish,
) -> CertificateTemplate | LamassuError:
    """What issuing would make of it, or its refusal."""
    try:
        return draft(issuer, profile, csr, wish, now=batch.now, own_hosts=batch.own_hosts)
    except LamassuError as refusal:
        return refusal


class _Tally:
    """What is counted on the way."""

    def __init__(self) -> None:
        self.unreadable = 0
        self._failures: list[Failure] = []
        self._refused_before = 0
        self._accepted_now = 0
        self._differing = 0
        self._differences: dict[str, Difference] = {}

    def count(
        self,
        enrolment: RecordedEnrolment,
        old: CertificateTemplate | LamassuError,
        new: CertificateTemplate | LamassuError,
    ) -> None:
        """Take one enrolment in."""
        if isinstance(old, LamassuError):
            if isinstance(new, LamassuError):
                self._refused_before += 1
            else:
                self._accepted_now += 1
        elif isinstance(new, LamassuError):
            told = replace(enrolment, csr=b"")
            self._failures.append(Failure(told, new.code, new.field or "", new.text))
        else:
            self._compare(enrolment, old, new)

    def _compare(
        self, enrolment: RecordedEnrolment, old: CertificateTemplate, new: CertificateTemplate
    ) -> None:
        parts = differing_parts(old, new)
        for part in parts:
            known = self._differences.get(part.name)
            self._differences[part.name] = (
                replace(known, certificates=known.certificates + 1)
                if known is not None
                else Difference(part.name, 1, enrolment.serial_number, part.before(), part.after())
            )
        self._differing += bool(parts)

    def replayed(self, examined: int) -> Replayed:
        return Replayed(
            examined=examined,
            failures=tuple(self._failures),
            differing=self._differing,
            differences=self._differences,
            refused_before=self._refused_before,
            accepted_now=self._accepted_now,
            unreadable=self.unreadable,
        )
