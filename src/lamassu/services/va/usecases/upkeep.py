"""See that every CA's CRL is young enough and lists what it should."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Unavailable
from lamassu.services.ca.contract import (
    Authorities,
    CertificateStatus,
    CertificationAuthority,
    RevocationReason,
)
from lamassu.services.va import rules
from lamassu.services.va.model import RoleState
from lamassu.services.va.ports import VaStorage
from lamassu.services.va.usecases.crl_queue import CrlQueue, ended_well
from lamassu.services.va.usecases.roles import Roles

_log = logging.getLogger(__name__)

_REFRESH_PATIENCE = 30.0
# A CRL read this long after an event was written has seen what the event tells.
_LONGEST_UNIT = timedelta(seconds=60)
# So long before its end a CRL that only a ceremony can renew is spoken of.
_PLANNING = timedelta(days=30)
_LEAST_BETWEEN_LOOKS = timedelta(seconds=10)


class Upkeep:
    """What keeps CRLs right when nobody calls: the minute's round, and others' events."""

    def __init__(
        self,
        *,
        storage: VaStorage,
        authorities: Authorities,
        roles: Roles,
        queue: CrlQueue,
        clock: Clock,
    ) -> None:
        self._storage = storage
        self._authorities = authorities
        self._roles = roles
        self._queue = queue
        self._clock = clock
        self._suspects: set[str] = set()
        self._compared_at: dict[str, datetime] = {}
        self._all_compared = False
        self._reminded_at: dict[str, datetime] = {}

    async def refresh_due(self, now: datetime) -> int:
        """Make the CRLs whose time has come, or that list other than they should, and roles
        that are missing; each minute. The first time every CRL is compared with the CA's rows:
        who knows what this process missed.

        Returns how many CRLs were stored in time; slower ones go on in the background.
        """
        for authority in await self._authorities.list_cas():
            ski = authority.certificate.subject_key_id
            if authority.key_id and ski and authority.certificate.not_after > now:
                await self._roles.ensure(authority.id, ski)
        tasks = [
            self._queue.ask(state.role.ca_ski)
            for state in await self._storage.roles()
            if await self._lives(state, now) and await self._needs_crl(state, now)
        ]
        self._all_compared = True
        made = await asyncio.gather(*(ended_well(task, _REFRESH_PATIENCE) for task in tasks))
        return sum(crl is not None for crl in made)

    async def _lives(self, state: RoleState, now: datetime) -> bool:
        """Whether the CA is still there, with its key, and in force: nobody asks for others'
        next CRL, and an offline CA's is made at its ceremony."""
        authority = await self._roles.find_ca(state.role.ca_id)
        if authority is None or authority.certificate.not_after <= now:
            return False
        if not authority.key_id:
            self._remind(state, now)
        return bool(authority.key_id)

    def _remind(self, state: RoleState, now: datetime) -> None:
        """Once a day while the CRL of an offline CA nears its end: a ceremony takes planning."""
        latest, ca_ski = state.latest, state.role.ca_ski
        if latest is None or latest.next_update - now > _PLANNING:
            return
        reminded_at = self._reminded_at.get(ca_ski)
        if reminded_at is None or now - reminded_at >= timedelta(days=1):
            self._reminded_at[ca_ski] = now
            _log.warning(
                "the CRL of the offline CA %s ends on %s: hold a ceremony before that",
                state.role.ca_id,
                f"{latest.next_update:%Y-%m-%d}",
            )

    async def _needs_crl(self, state: RoleState, now: datetime) -> bool:
        ca_ski = state.role.ca_ski
        suspect = ca_ski in self._suspects or not self._all_compared
        self._suspects.discard(ca_ski)
        if rules.is_due(state.role, state.latest, now):
            return True
        return suspect and state.role.regenerate_on_revoke and await self._is_stale(state)

    async def _is_stale(self, state: RoleState) -> bool:
        """Whether the newest CRL lists other than what is revoked now."""
        if state.latest is None:
            return True
        entries = await self._authorities.revoked_under(state.role.ca_id)
        return rules.entries_digest(entries) != state.latest.entries_digest

    async def repair(self, ca_id: str, *, told_at: datetime) -> None:
        """After an event of that time about the CA: see that its CRL lists what it should.

        Events only repair: mostly the revoking call has done it before. Of many events at
        once the first is looked into, the others are left to `refresh_due`. Raises
        `Unavailable` when it cannot be done now, so that the event comes again.
        """
        state = await self._roles.of_ca(ca_id)
        if state is None or not self._may_be_stale(state, told_at):
            return
        authority = await self._roles.find_ca(ca_id)
        if authority is None or not authority.key_id or _is_over(authority):
            return
        if not await self._is_stale(state):
            return
        task = self._queue.ask(state.role.ca_ski)
        if await ended_well(task, _REFRESH_PATIENCE) is None and not task.done():
            raise Unavailable("the CRL could not be made yet", code="crl_unavailable")

    def _may_be_stale(self, state: RoleState, told_at: datetime) -> bool:
        """Whether to look closer now."""
        role, latest = state.role, state.latest
        if latest is None:
            return True
        if not role.regenerate_on_revoke or latest.this_update > told_at + _LONGEST_UNIT:
            return False
        now = self._clock.now()
        compared_at = self._compared_at.get(role.ca_ski)
        if compared_at is not None and timedelta() <= now - compared_at < _LEAST_BETWEEN_LOOKS:
            self._suspects.add(role.ca_ski)
            return False
        self._compared_at[role.ca_ski] = now
        return True


def _is_over(authority: CertificationAuthority) -> bool:
    """Whether it is revoked for good: its CRL is made when the last of its certificates is marked,
    and by schedule. The events of a million of them need not have it compared each time."""
    certificate = authority.certificate
    return (
        certificate.stored_status is CertificateStatus.REVOKED
        and certificate.revocation_reason is not RevocationReason.CERTIFICATE_HOLD
    )
