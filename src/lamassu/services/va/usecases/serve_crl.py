"""The CRL to hand out."""

from __future__ import annotations

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import NotFound, Unavailable
from lamassu.services.va.contract import Crl
from lamassu.services.va.model import RoleState
from lamassu.services.va.ports import VaStorage
from lamassu.services.va.usecases.crl_queue import CrlQueue, ended_well
from lamassu.services.va.usecases.offline import OfflineCas, crl_ended

_PATIENCE = 5.0


class ServedCrls:
    """Hands out the newest CRL of a CA.

    Which one that is, the database says each time; its bytes, which never change, are kept,
    one CRL per CA.
    """

    def __init__(
        self, *, storage: VaStorage, queue: CrlQueue, offline: OfflineCas, clock: Clock
    ) -> None:
        self._storage = storage
        self._queue = queue
        self._offline = offline
        self._clock = clock
        self._kept: dict[str, Crl] = {}

    async def serve(self, state: RoleState | None) -> Crl:
        """The newest CRL, made now when the newest has ended or there is none yet.

        One past its next update is never served: to those who take it, nothing that was
        revoked since is. Raises `NotFound` (`VA role not found`), `Unavailable`
        (`crl_unavailable`, `crl_ended` for an offline CA).
        """
        if state is None:
            raise NotFound("VA role not found")
        ca_ski, latest = state.role.ca_ski, state.latest
        if latest is not None and latest.next_update > self._clock.now():
            stored = await self._stored(ca_ski, latest.number)
            if stored is not None:
                return stored
        if await self._offline.find(state.role.ca_id) is not None:
            raise crl_ended(state.role.ca_id)
        fresh = await ended_well(self._queue.ask(ca_ski), _PATIENCE)
        if fresh is None:
            raise Unavailable(
                "the CRL has ended and the next one could not be made yet; try again",
                code="crl_unavailable",
                retry_after=30,
            )
        return fresh

    async def _stored(self, ca_ski: str, number: int) -> Crl | None:
        kept = self._kept.get(ca_ski)
        if kept is None or kept.number != number:
            kept = await self._storage.find_crl(ca_ski, number)
            if kept is not None:
                self._kept[ca_ski] = kept
        return kept
