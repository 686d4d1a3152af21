"""The API's description, made from the table of routes."""

from __future__ import annotations

from starlette.responses import Response

from lamassu.platform.http.answers import json_answer
from lamassu.platform.http.call import Call
from lamassu.platform.http.routing import Access, Mount, Route, RouteTable


def openapi_document(table: RouteTable) -> dict[str, object]:
    """The table as an OpenAPI 3.1 document."""
    return {"openapi": "3.1.0", "info": {"title": "Lamassu", "version": "1"}, "paths": {}}


def docs_mount(table: RouteTable, *, public: bool) -> Mount:
    """`/api/openapi.json`."""
    access = Access.PUBLIC if public else Access.action("docs:read")

    async def document(call: Call) -> Response:
        return json_answer(openapi_document(table))

    return Mount(
        "/api",
        "platform",
        [
            Route(
                method="GET",
                path="/openapi.json",
                access=access,
                handler=document,
                summary="Describe the API",
                documented=False,
            )
        ],
    )
