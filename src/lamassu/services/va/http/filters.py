"""Revocation filters, for everybody."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from starlette.responses import Response

from lamassu.platform.http.call import Call
from lamassu.platform.http.routing import Access, Route
from lamassu.services.va import rules
from lamassu.services.va.http.caching import NOT_MODIFIED, cacheable
from lamassu.services.va.model import StoredFilter
from lamassu.services.va.usecases import VaService

FILTER_TYPE = "application/vnd.lamassu.revocation-filter"


class _Find(Protocol):
    def __call__(self, name: str, /, *, delta: bool) -> Awaitable[StoredFilter]: ...


def filter_routes(service: VaService) -> list[Route]:
    """Under `/api/va`, by the CA's subject key identifier."""
    return [
        _route("/filter/{ski}", service, service.filter_of_key, "ski", delta=False),
        _route("/filter/{ski}/delta", service, service.filter_of_key, "ski", delta=True),
    ]


def public_filter_routes(service: VaService) -> list[Route]:
    """On the plain HTTP listener, by the CA's id."""
    return [
        _route("/ca/{ca_id}.filter", service, service.filter_of_ca, "ca_id", delta=False),
        _route("/ca/{ca_id}.filter-delta", service, service.filter_of_ca, "ca_id", delta=True),
    ]


def _route(path: str, service: VaService, find: _Find, name: str, *, delta: bool) -> Route:
    what = "What changed since a CA's revocation filter" if delta else "A CA's revocation filter"
    return Route(
        method="GET",
        path=path,
        access=Access.PUBLIC,
        handler=_handler(service, find, name, delta=delta),
        summary=f"{what}, signed by the CA",
        media_types=(FILTER_TYPE,),
        other_statuses=NOT_MODIFIED,
    )


def _handler(
    service: VaService, find: _Find, name: str, *, delta: bool
) -> Callable[[Call], Awaitable[Response]]:
    async def get_filter(call: Call) -> Response:
        asked = call.path[name]
        held = await find(asked.lower() if name == "ski" else asked, delta=delta)
        return cacheable(
            call,
            held.content,
            FILTER_TYPE,
            etag=f'"{held.ca_ski}-f{held.edition.number}"',
            since=held.edition.this_update,
            until=held.edition.next_update,
            now=service.now(),
            at_most=rules.CRL_CACHE_SECONDS,
        )

    return get_filter
