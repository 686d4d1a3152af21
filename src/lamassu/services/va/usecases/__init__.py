"""What the VA does, one module per verb; `VaService` is its face."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import NotFound, Unavailable
from lamassu.kernel.identity import Caller
from lamassu.services.ca.contract import Authorities, CertificationAuthority
from lamassu.services.kms.contract import Keys
from lamassu.services.va import rules
from lamassu.services.va.contract import Crl
from lamassu.services.va.model import RoleChange, RoleState, StatusAnswer
from lamassu.services.va.ports import Pause, VaStorage
from lamassu.services.va.usecases.answer_status import StatusAnswers
from lamassu.services.va.usecases.change_role import change_role, get_role
from lamassu.services.va.usecases.crl_queue import CrlQueue, ended_well, log_fault, retried
from lamassu.services.va.usecases.ensure_role import ensure_role
from lamassu.services.va.usecases.issuers import IssuerTable
from lamassu.services.va.usecases.make_crl import make_crl
from lamassu.services.va.usecases.serve_crl import ServedCrls

_FIRST_CRL_PATIENCE = 5.0
_REFRESH_PATIENCE = 30.0
# A CRL read this long after an event was written has seen what the event tells.
_LONGEST_UNIT = timedelta(seconds=60)
_LEAST_BETWEEN_LOOKS = timedelta(seconds=10)


class VaService:
    """The `Validation` contract, and the verbs of the public routes."""

    def __init__(
        self,
        *,
        storage: VaStorage,
        authorities: Authorities,
        keys: Keys,
        clock: Clock,
        pause: Pause = asyncio.sleep,
    ) -> None:
        """`pause` waits between tries of a CRL that cannot be made."""
        self._storage = storage
        self._authorities = authorities
        self._clock = clock
        self._pause = pause
        self._showing: set[asyncio.Task[bool]] = set()
        self._suspects: set[str] = set()
        self._compared_at: dict[str, datetime] = {}
        self._all_compared = False
        self._issuers = IssuerTable(authorities=authorities, clock=clock)
        self._answers = StatusAnswers(
            authorities=authorities, keys=keys, issuers=self._issuers, clock=clock
        )

        async def make(ca_ski: str) -> Crl:
            return await make_crl(
                ca_ski, storage=storage, authorities=authorities, keys=keys, clock=clock
            )

        self._queue = CrlQueue(make, pause=pause)
        self._crls = ServedCrls(storage=storage, queue=self._queue, clock=clock)

    async def close(self) -> None:
        """Stop the CRLs that are being made."""
        for task in self._showing:
            task.cancel()
        await asyncio.gather(*self._showing, return_exceptions=True)
        await self._queue.close()

    # --- the contract ---------------------------------------------------------------------

    async def ensure_role(self, ca_id: str, subject_key_id: str) -> None:
        """Role and first CRL of a CA. A CRL that takes longer is made in the background."""
        self._issuers.forget()
        state = await self._ensure_role(ca_id, subject_key_id)
        if state.latest is None:
            await ended_well(self._queue.ask(state.role.ca_ski), _FIRST_CRL_PATIENCE)

    async def revocation_changed(self, ca_id: str, *, wait: timedelta) -> bool:
        """Show a revocation or release. OCSP reads the CA's rows and shows it already.

        True when the CRL needs no new edition by its role, or one begun after this call is
        stored. Otherwise it goes on being made after `wait`; trouble is no error here, for
        the revocation itself stands.
        """
        task = asyncio.create_task(self._show_change(ca_id), name=f"revocation under {ca_id}")
        self._showing.add(task)
        task.add_done_callback(self._showing.discard)
        task.add_done_callback(log_fault)
        return bool(await ended_well(task, max(wait.total_seconds(), 0)))

    async def _show_change(self, ca_id: str) -> bool:
        """Whether it is shown at last; goes on until it is, or there is nothing to show it in."""
        state = await retried(
            lambda: self._state_of_ca(ca_id), what=f"the role of CA {ca_id}", pause=self._pause
        )
        if state is None or not state.role.regenerate_on_revoke:
            return True
        return await ended_well(self._queue.ask(state.role.ca_ski), None) is not None

    async def _state_of_ca(self, ca_id: str) -> RoleState | None:
        """The CA's role; `None` for a CA that has no key here and so no CRL."""
        state = await self._storage.find_role_of_ca(ca_id)
        if state is not None:
            return state
        authority = await self._find_ca(ca_id)
        if authority is None or not authority.key_id:
            return None
        subject_key_id = authority.certificate.subject_key_id
        return await self._ensure_role(ca_id, subject_key_id)

    async def _ensure_role(self, ca_id: str, subject_key_id: str) -> RoleState:
        return await ensure_role(
            ca_id, subject_key_id, storage=self._storage, authorities=self._authorities
        )

    async def _find_ca(self, ca_id: str) -> CertificationAuthority | None:
        try:
            return await self._authorities.get_ca(ca_id)
        except NotFound:
            return None

    # --- what the public asks -------------------------------------------------------------

    async def answer_status(self, request_der: bytes) -> StatusAnswer:
        """See `StatusAnswers.answer`."""
        return await self._answers.answer(request_der)

    async def crl(self, ca_ski: str) -> Crl:
        """See `ServedCrls.serve`."""
        return await self._crls.serve(await self._storage.find_role(ca_ski))

    async def crl_of_ca(self, ca_id: str) -> Crl:
        """The same by the CA's id."""
        return await self._crls.serve(await self._storage.find_role_of_ca(ca_id))

    async def ca_certificate(self, ca_id: str) -> bytes:
        """The CA's certificate (DER), for caIssuers. Raises `NotFound`."""
        return (await self._authorities.get_ca(ca_id)).certificate.der

    def now(self) -> datetime:
        """The instant by which answers are judged."""
        return self._clock.now()

    # --- roles ----------------------------------------------------------------------------

    async def role(self, ca_ski: str) -> RoleState:
        """Raises `NotFound` (`VA role not found`)."""
        return await get_role(ca_ski, storage=self._storage)

    async def change_role(self, ca_ski: str, change: RoleChange, *, caller: Caller) -> RoleState:
        """Raises `NotFound` (`VA role not found`), `RuleViolation` (`invalid_value`)."""
        await change_role(ca_ski, change, caller=caller, storage=self._storage)
        return await self.role(ca_ski)

    # --- upkeep ---------------------------------------------------------------------------

    def forget_issuers(self) -> None:
        """A CA appeared or changed: read them anew before the next answer."""
        self._issuers.forget()

    async def refresh_due(self, now: datetime) -> int:
        """Make the CRLs whose time has come, or that list other than they should, and roles
        that are missing; each minute. The first time every CRL is compared with the CA's rows:
        who knows what this process missed.

        Returns how many CRLs were stored in time; slower ones go on in the background.
        """
        for authority in await self._authorities.list_cas():
            ski = authority.certificate.subject_key_id
            if authority.key_id and ski and authority.certificate.not_after > now:
                await self._ensure_role(authority.id, ski)
        tasks = [
            self._queue.ask(state.role.ca_ski)
            for state in await self._storage.roles()
            if await self._lives(state, now) and await self._needs_crl(state, now)
        ]
        self._all_compared = True
        made = await asyncio.gather(*(ended_well(task, _REFRESH_PATIENCE) for task in tasks))
        return sum(crl is not None for crl in made)

    async def _lives(self, state: RoleState, now: datetime) -> bool:
        """Whether the CA is still there and in force: nobody asks for others' next CRL."""
        authority = await self._find_ca(state.role.ca_id)
        return authority is not None and authority.certificate.not_after > now

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
        state = await self._state_of_ca(ca_id)
        if state is None or not self._may_be_stale(state, told_at):
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
