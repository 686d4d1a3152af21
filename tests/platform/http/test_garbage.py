"""Garbage into every route: a refusal or an answer, never a 500."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lamassu.platform.http import Application, build_app
from tests.platform.http.conftest import ADMIN, HOST, KEY, Seen, authenticate, sample_mounts

APP = build_app(
    sample_mounts(Seen()),
    authenticate=authenticate,
    public_hosts=[HOST],
    bookmark_key=KEY,
    checks={},
    documented=True,
)
ROUTES = [
    (route.method, route.path)
    for route in APP.routes
    if not route.path.endswith(("/broken", "/unavailable", "/va/ocsp"))
]
SEGMENT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(
    ["..", "%00", "\0", "//", "{id}"]
)
BODY = st.binary(max_size=40) | st.sampled_from(
    [
        b"{}",
        b"null",
        b"[]",
        b'{"id": "x"}',
        b'{"patches": [{"op": "add", "path": "/a", "value": 1}]}',
        b'{"patches": [null]}',
        b'{"id": {"id": []}, "metadata": {"": {}}}',
        json.dumps({"id": "x", "part": [[]], "by_name": {"": None}}).encode(),
    ]
)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            [b"origin", b"content-length", b"x-request-id", b"sec-fetch-site", b"content-type"]
        ),
        st.binary(max_size=12) | st.sampled_from([b"0", b"same-origin", b"99999999999"]),
    ),
    max_size=3,
)
QUERY = st.binary(max_size=20) | st.sampled_from(
    [b"filter=id[eq]x", b"page_size=-1&sort_by=size", b"bookmark=AAAA", b"filter=size[in]1"]
)


async def status_of(app: Application, scope: dict[str, Any], body: bytes) -> int:
    statuses: list[int] = []

    unsent = [body]

    async def receive() -> Any:
        if not unsent:
            await asyncio.Event().wait()  # the client stays and says no more
        unsent.clear()
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app(scope, receive, send)
    return statuses[0]


@settings(max_examples=300)
@given(st.sampled_from(ROUTES), st.lists(SEGMENT, min_size=2, max_size=2), HEADERS, QUERY, BODY)
def test_garbage_is_answered_or_refused(
    route: tuple[str, str],
    segments: list[str],
    headers: list[tuple[bytes, bytes]],
    query: bytes,
    body: bytes,
) -> None:
    method, path = route
    for segment in segments:
        head, _, tail = path.partition("{")
        if tail:
            path = head + segment + tail.partition("}")[2]
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": headers,
        "query_string": query,
        "scheme": "https",
        "extensions": {"lamassu.peer": ADMIN},
    }

    assert asyncio.run(status_of(APP, scope, body)) < 500
