"""The CRL to hand out."""

from __future__ import annotations

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import NotFound, Unavailable
from lamassu.services.va.contract import Crl
from lamassu.services.va.model import RoleState
from lamassu.services.va.usecases.crl_queue import CrlQueue, made_within

_PATIENCE = 5.0


async def serve_crl(state: RoleState | None, *, queue: CrlQueue, clock: Clock) -> Crl:
    """The newest CRL, made now when the newest has ended or there is none yet.

    One past its next update is never served: to those who take it, nothing that was revoked
    since is. Raises `NotFound` (`VA role not found`), `Unavailable` (`crl_unavailable`).
    """
    if state is None:
        raise NotFound("VA role not found")
    latest = state.latest
    if latest is not None and latest.next_update > clock.now():
        return latest
    fresh = await made_within(queue.ask(state.role.ca_ski), _PATIENCE)
    if fresh is None:
        raise Unavailable(
            "the CRL has ended and the next one could not be made yet; try again",
            code="crl_unavailable",
            retry_after=30,
        )
    return fresh
