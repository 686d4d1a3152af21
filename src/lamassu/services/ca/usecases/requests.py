"""Keep certificate requests that were refused, and show all with their outcome."""

from __future__ import annotations

from contextlib import suppress
from uuid import uuid4

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import (
    Conflict,
    Forbidden,
    LamassuError,
    Malformed,
    NotFound,
    RuleViolation,
    Unavailable,
    WrongState,
)
from lamassu.kernel.listing import ListQuery, Page
from lamassu.kernel.records import AuditRecord
from lamassu.services.ca.contract import IssueRequest, RefusedRequest
from lamassu.services.ca.ports import RequestStore
from lamassu.services.ca.rules.requests import (
    FOR_ALL,
    RETENTION,
    KeptRequest,
    is_of_somebody,
    kept_form,
)

REFUSALS = (Malformed, RuleViolation, Forbidden, NotFound, Conflict, WrongState)


class Requests:
    """What was asked for, whatever became of it. CSRs of issued certificates stand with these."""

    def __init__(self, *, store: RequestStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def keep_refused(self, refused: RefusedRequest) -> None:
        """Keep it with its audit record, within the bounds of `rules/requests.py`."""
        if not is_of_somebody(refused):
            return
        now = self._clock.now()
        kept = kept_form(refused, uuid4().hex, now)
        audit = AuditRecord(
            "certificate.request.refuse",
            f"ca/{kept.ca_id}",
            refused.caller,
            outcome="failure",
            detail={
                "request": kept.id,
                "code": kept.code,
                "common_name": kept.common_name,
                "profile_id": kept.profile_id,
                "dms_id": kept.owner,
                "device_id": kept.device_id,
            },
        )
        await self._store.keep(kept, audit)

    async def keep_refusal(self, request: IssueRequest, refusal: LamassuError) -> None:
        """The same for what the CA itself refused. The refusal is told in any case."""
        if request.owner or not isinstance(refusal, REFUSALS):
            return  # a DMS keeps its own
        with suppress(Unavailable):
            await self.keep_refused(
                RefusedRequest(
                    ca_id=request.ca_id,
                    csr_der=request.csr_der,
                    caller=request.caller,
                    code=refusal.code,
                    reason=refusal.text,
                    profile_id=request.profile_id or "",
                )
            )

    async def page(self, query: ListQuery) -> Page[KeptRequest]:
        """Raises `RuleViolation` for an order that nothing serves."""
        return await self._store.page(query)

    async def get(self, request_id: str) -> KeptRequest:
        """Raises `NotFound`."""
        found = await self._store.find(request_id)
        if found is None:
            raise NotFound("certificate request not found", code="request_not_found")
        return found

    async def forget_old(self) -> int:
        """Let go of refused requests that are too old or too many; says how many."""
        return await self._store.forget(before=self._clock.now() - RETENTION, beyond=FOR_ALL)
