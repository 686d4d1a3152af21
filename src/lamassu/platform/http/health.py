"""Health: what load balancers ask, and the original's own route."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

import structlog
from pydantic import BaseModel
from starlette.responses import Response

from lamassu.kernel.errors import LamassuError
from lamassu.kernel.identity import Peer, Principal
from lamassu.platform.http.answers import json_answer
from lamassu.platform.http.call import Call
from lamassu.platform.http.routing import Access, Mount, Route

Check = Callable[[], Awaitable[None]]
"""Returns when all is well; raises when it is not."""

PATIENCE = 4.0  # seconds for each check: who asks gives up soon, and slow is not well

INTERVAL = 2.0
"""Seconds between two looks at what is costly to look at."""

SLOW = "it does not end"

_log = structlog.get_logger(__name__)


class OriginalHealth(BaseModel):
    """As the original says it."""

    health: bool
    version: str
    build: str
    build_time: str


class Health(BaseModel):
    """`failing` and `reasons`, by the name of the check, for principals only."""

    status: Literal["live", "ready", "unready"]
    failing: list[str] = []
    reasons: dict[str, str] = {}


def original_health_route() -> Route:
    """`GET /health` of a service; the versions are nobody's business on an open route."""

    async def health(call: Call) -> Response:
        return json_answer({"health": True, "version": "-", "build": "-", "build_time": "-"})

    return Route(
        method="GET",
        path="/health",
        access=Access.PUBLIC,
        handler=health,
        summary="Say that the service answers",
        answer=OriginalHealth,
    )


def health_mount(
    checks: Mapping[str, Check],
    authenticate: Callable[[Peer], Awaitable[Principal | None]],
    *,
    lesser: Mapping[str, Check] | None = None,
) -> Mount:
    """`/health/live` and `/health/ready`; a principal is told which checks fail, and why.

    `lesser` checks are told too, but what they watch does not keep the rest from being served.
    """
    watches = [_Watch(name, check) for name, check in checks.items()]
    lesser_watches = [_Watch(name, check) for name, check in (lesser or {}).items()]

    async def live(call: Call) -> Response:
        return json_answer({"status": "live"})

    async def ready(call: Call) -> Response:
        watched = [*watches, *lesser_watches]
        reasons = await asyncio.gather(*(watch.fault() for watch in watched))
        faults = {one.name: why for one, why in zip(watched, reasons, strict=True) if why}
        failing = [one.name for one in watches if one.name in faults]
        answer: dict[str, object] = {"status": "unready" if failing else "ready"}
        if faults and await _is_principal(call.peer, authenticate):
            answer["failing"] = failing
            answer["reasons"] = faults
        return json_answer(answer, status=503 if failing else 200)

    return Mount(
        "/health",
        "platform",
        [
            Route(
                method="GET",
                path="/live",
                access=Access.PUBLIC,
                handler=live,
                summary="Say that the process runs",
                answer=Health,
            ),
            Route(
                method="GET",
                path="/ready",
                access=Access.PUBLIC,
                handler=ready,
                summary="Say whether everything needed to serve is there",
                answer=Health,
                other_statuses={503: "Something that is needed is not there"},
            ),
        ],
    )


class Spaced:
    """A check that is made at most once in `interval` seconds; who asks sooner is told what was
    found then, which is never older. For what costs somebody work: anybody may ask."""

    def __init__(self, check: Check, *, interval: float = INTERVAL) -> None:
        self._check = check
        self._interval = interval
        self._begun: float | None = None  # by the loop's clock
        self._fault: LamassuError | None = None

    async def __call__(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._begun is None or now - self._begun >= self._interval:
            self._fault = None
            try:
                await self._check()
            except LamassuError as error:
                self._fault = error
            self._begun = now
        if self._fault is not None:
            raise self._fault


class _Watch:
    """A check that is run once at a time, however many ask and however long it takes."""

    def __init__(self, name: str, check: Check) -> None:
        self.name = name
        self._check = check
        self._run: asyncio.Task[str] | None = None

    async def fault(self) -> str:
        """Why it does not pass, or not within `PATIENCE`; empty if it does."""
        if self._run is None or self._run.done():
            self._run = asyncio.create_task(_fault(self.name, self._check))
        # not cancelled when time is up: a database's driver would make us wait for that
        ended, _ = await asyncio.wait({self._run}, timeout=PATIENCE)
        if not ended:
            _log.warning("readiness_check_failed", check=self.name, reason=SLOW)
            return SLOW
        return self._run.result()


async def _fault(name: str, check: Check) -> str:
    try:
        await check()
    except LamassuError as error:
        _log.warning("readiness_check_failed", check=name, reason=error.text)
        return error.text
    except Exception:  # noqa: BLE001 - whatever breaks a check, the answer is "unready"
        _log.error("readiness_check_failed", check=name, traceback=traceback.format_exc())
        return "it failed; the log says how"
    return ""


async def _is_principal(
    peer: Peer, authenticate: Callable[[Peer], Awaitable[Principal | None]]
) -> bool:
    try:
        return await authenticate(peer) is not None
    except LamassuError:
        return False
