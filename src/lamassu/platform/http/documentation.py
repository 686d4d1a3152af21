"""The routes that describe the API."""

from __future__ import annotations

from functools import cache

from starlette.responses import Response

from lamassu.platform.http.answers import json_answer
from lamassu.platform.http.call import Call
from lamassu.platform.http.docs_page import CONTENT_SECURITY_POLICY, docs_page
from lamassu.platform.http.openapi import openapi_document
from lamassu.platform.http.routing import Access, Mount, Route, RouteTable


def documentation_mount(table: RouteTable, *, public: bool) -> Mount:
    """`/api/openapi.json` and `/api/docs`, for everybody or for who has `docs:read`.

    Both are made at the first request, when the table is complete.
    """
    access = Access.PUBLIC if public else Access.action("docs:read")

    @cache
    def page() -> str:
        return docs_page(openapi_document(table))

    async def describe(call: Call) -> Response:
        return json_answer(openapi_document(table))

    async def show(call: Call) -> Response:
        headers = {"content-security-policy": CONTENT_SECURITY_POLICY}
        return Response(page(), 200, headers, media_type="text/html")

    return Mount(
        "/api",
        "platform",
        [
            Route(
                method="GET",
                path="/openapi.json",
                access=access,
                handler=describe,
                summary="Describe the API for programs",
                documented=False,
            ),
            Route(
                method="GET",
                path="/docs",
                access=access,
                handler=show,
                summary="Describe the API for people",
                documented=False,
            ),
        ],
    )
