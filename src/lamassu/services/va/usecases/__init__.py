"""What the VA does, one module per verb; `VaService` is its face."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from lamassu.kernel.adoption import Verdict
from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Conflict, NotFound
from lamassu.kernel.identity import Caller
from lamassu.kernel.x509.crls import CrlEntry
from lamassu.kernel.x509.serials import serial_int
from lamassu.services.ca.contract import Authorities
from lamassu.services.ceremony.contract import RevocationOrder
from lamassu.services.kms.contract import Keys, KeySpec
from lamassu.services.va.contract import Crl
from lamassu.services.va.model import (
    Responder,
    RoleChange,
    RoleState,
    StatusAnswer,
    StoredFilter,
)
from lamassu.services.va.ports import Pause, VaStorage
from lamassu.services.va.usecases.adopt_role import FoundRole, adopt_role
from lamassu.services.va.usecases.answer_status import StatusAnswers
from lamassu.services.va.usecases.change_role import change_role
from lamassu.services.va.usecases.crl_queue import CrlQueue, ended_well, log_fault, retried
from lamassu.services.va.usecases.filters import BuildWorker, Filters, build_in_thread
from lamassu.services.va.usecases.import_crl import CrlImport, CrlImports
from lamassu.services.va.usecases.issuers import IssuerTable
from lamassu.services.va.usecases.make_crl import make_crl
from lamassu.services.va.usecases.offline import OfflineCas
from lamassu.services.va.usecases.request_responder import ResponderRequests
from lamassu.services.va.usecases.roles import Roles
from lamassu.services.va.usecases.serve_crl import ServedCrls
from lamassu.services.va.usecases.upkeep import Upkeep

_FIRST_CRL_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class PendingOrder:
    """What a ceremony has to revoke; `pending` are the serial numbers that no CRL lists yet."""

    order: RevocationOrder
    pending: Sequence[str]


class VaService:
    """The `Validation` contract, and the verbs of the public routes."""

    def __init__(
        self,
        *,
        storage: VaStorage,
        authorities: Authorities,
        keys: Keys,
        clock: Clock,
        validation_urls: Sequence[str] = (),
        pause: Pause = asyncio.sleep,
        filter_worker: BuildWorker = build_in_thread,
    ) -> None:
        """`filter_worker` builds revocation filters, which takes seconds for a million
        certificates. `validation_urls` are the bases under which relying parties find CRLs.
        `pause` waits between tries of a CRL that cannot be made."""
        self._storage = storage
        self._authorities = authorities
        self._clock = clock
        self._pause = pause
        self._showing: set[asyncio.Task[bool]] = set()
        self._beginning: set[asyncio.Task[None]] = set()
        self._roles = Roles(storage=storage, authorities=authorities)
        self._issuers = IssuerTable(authorities=authorities, clock=clock)
        self._offline = OfflineCas(storage=storage, authorities=authorities, clock=clock)
        self._answers = StatusAnswers(
            authorities=authorities,
            keys=keys,
            issuers=self._issuers,
            offline=self._offline,
            clock=clock,
        )
        self._imports = CrlImports(
            storage=storage, authorities=authorities, roles=self._roles, clock=clock
        )
        self._requests = ResponderRequests(
            storage=storage,
            authorities=authorities,
            keys=keys,
            clock=clock,
            validation_urls=validation_urls,
        )

        async def make(ca_ski: str) -> Crl:
            return await make_crl(
                ca_ski, storage=storage, authorities=authorities, keys=keys, clock=clock
            )

        self._queue = CrlQueue(make, pause=pause)
        self._upkeep = Upkeep(
            storage=storage,
            authorities=authorities,
            roles=self._roles,
            queue=self._queue,
            clock=clock,
        )
        self._filters = Filters(
            storage=storage,
            authorities=authorities,
            keys=keys,
            clock=clock,
            worker=filter_worker,
        )
        self._crls = ServedCrls(
            storage=storage, queue=self._queue, offline=self._offline, clock=clock
        )

    async def close(self) -> None:
        """Stop the CRLs that are being made."""
        tasks = [*self._showing, *self._beginning]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._queue.close()

    # --- the contract ---------------------------------------------------------------------

    async def ensure_role(self, ca_id: str, subject_key_id: str) -> None:
        """Role and first CRL of a CA. A CRL that takes longer is made in the background."""
        self._issuers.forget()
        state = await self._roles.ensure(ca_id, subject_key_id)
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
        """Whether it is shown at last; goes on until it is, or there is nothing to show it in.
        An offline CA shows it when the CRL of its next ceremony is here."""
        offline = await retried(
            lambda: self._offline.find(ca_id), what=f"the CA {ca_id}", pause=self._pause
        )
        if offline is not None:
            return await self._offline.shows(offline)
        state = await retried(
            lambda: self._roles.of_ca(ca_id), what=f"the role of CA {ca_id}", pause=self._pause
        )
        if state is None or not state.role.regenerate_on_revoke:
            return True
        return await ended_well(self._queue.ask(state.role.ca_ski), None) is not None

    # --- what the public asks -------------------------------------------------------------

    async def answer_status(self, request_der: bytes) -> StatusAnswer:
        """See `StatusAnswers.answer`."""
        return await self._answers.answer(request_der)

    async def crl(self, ca_ski: str) -> Crl:
        """See `ServedCrls.serve`."""
        return await self._crls.serve(await self._roles.of_key(ca_ski))

    async def crl_of_ca(self, ca_id: str) -> Crl:
        """The same by the CA's id."""
        return await self._crls.serve(await self._roles.of_ca(ca_id))

    async def filter_of_key(self, ca_ski: str, *, delta: bool) -> StoredFilter:
        """See `Filters.serve`."""
        return await self._filters.serve(await self._roles.of_key(ca_ski), delta=delta)

    async def filter_of_ca(self, ca_id: str, *, delta: bool) -> StoredFilter:
        """The same by the CA's id."""
        return await self._filters.serve(await self._roles.of_ca(ca_id), delta=delta)

    async def ca_certificate(self, ca_id: str) -> bytes:
        """The CA's certificate (DER), for caIssuers. Raises `NotFound`."""
        return (await self._authorities.get_ca(ca_id)).certificate.der

    def now(self) -> datetime:
        """The instant by which answers are judged."""
        return self._clock.now()

    # --- roles ----------------------------------------------------------------------------

    async def role(self, ca_ski: str) -> RoleState:
        """Raises `NotFound` (`VA role not found`)."""
        state = await self._roles.of_key(ca_ski)
        if state is None:
            raise NotFound("VA role not found")
        return state

    async def change_role(self, ca_ski: str, change: RoleChange, *, caller: Caller) -> RoleState:
        """Raises `NotFound` (`VA role not found`), `RuleViolation` (`invalid_value`)."""
        role = await change_role(ca_ski, change, caller=caller, storage=self._storage)
        if change.filter_interval:
            task = asyncio.create_task(self._filters.begin(role), name=f"first filter of {ca_ski}")
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)
        return await self.role(ca_ski)

    async def adopt_role(self, found: FoundRole, *, caller: Caller, dry_run: bool) -> Verdict:
        """See `adopt_role.adopt_role`."""
        return await adopt_role(found, caller=caller, storage=self._storage, dry_run=dry_run)

    # --- CAs whose key is offline -----------------------------------------------------------

    async def import_crl(self, content: bytes, *, caller: Caller) -> CrlImport:
        """See `CrlImports.take_in`."""
        imported = await self._imports.take_in(content, caller=caller)
        self._issuers.forget()
        return imported

    async def request_responder(
        self, ca_id: str, spec: KeySpec, *, engine_id: str | None, caller: Caller
    ) -> Responder:
        """See `ResponderRequests.ask`."""
        return await self._requests.ask(ca_id, spec, engine_id=engine_id, caller=caller)

    async def responders(self) -> Sequence[Responder]:
        """Those of all offline CAs."""
        return await self._storage.responders()

    async def revocation_order(self, ca_id: str) -> PendingOrder:
        """What the next CRL of an offline CA must list.

        Raises `NotFound`, `Conflict` (`ca_key_online`).
        """
        authority = await self._authorities.get_ca(ca_id)
        if authority.key_id:
            raise Conflict(
                f"the key of {ca_id} is here: its CRLs are made here", code="ca_key_online"
            )
        own = authority.certificate.serial_number
        entries = tuple(
            CrlEntry(serial_int(entry.serial_number), entry.revocation_time, entry.reason.number)
            for entry in await self._authorities.revoked_under(ca_id)
            if entry.serial_number != own
        )
        order = RevocationOrder(ca_id, authority.certificate.subject_key_id, entries)
        return PendingOrder(order, await self._offline.pending(authority))

    # --- upkeep ---------------------------------------------------------------------------

    def forget_issuers(self) -> None:
        """A CA appeared or changed: read them anew before the next answer."""
        self._issuers.forget()

    async def refresh_due(self, now: datetime) -> int:
        """See `Upkeep.refresh_due`."""
        return await self._upkeep.refresh_due(now)

    async def refresh_filters(self, now: datetime) -> int:
        """See `Filters.refresh_due`."""
        return await self._filters.refresh_due(await self._storage.roles(), now)

    async def repair(self, ca_id: str, *, told_at: datetime) -> None:
        """See `Upkeep.repair`."""
        await self._upkeep.repair(ca_id, told_at=told_at)
