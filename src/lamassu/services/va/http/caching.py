"""Answers that others may keep for a while."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from email.utils import format_datetime

from starlette.responses import Response

from lamassu.platform.http.call import Call
from lamassu.services.va import rules

NOT_MODIFIED = {304: "The asker has it already, as If-None-Match says"}


def cacheable(
    call: Call,
    content: bytes,
    media_type: str,
    *,
    etag: str,
    since: datetime,
    until: datetime,
    now: datetime,
    at_most: int | None = None,
) -> Response:
    """The content, or 304 where the asker has it; to be kept for half of its life at most, and
    for `at_most` seconds if that is less."""
    headers = _headers(etag, since, until, now, at_most=at_most)
    if is_held(call, etag):
        return Response(None, 304, headers)
    return Response(content, 200, {"content-type": media_type, **headers})


def etag_of(content: bytes) -> str:
    """A strong tag, for content without a number of its own."""
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def is_held(call: Call, etag: str) -> bool:
    """Whether the asker holds this body already (RFC 9110 §13.1.2)."""
    asked = call.headers.get("if-none-match", "")
    return any(tag.strip().removeprefix("W/") in (etag, "*") for tag in asked.split(","))


def _headers(
    etag: str, since: datetime, until: datetime, now: datetime, *, at_most: int | None
) -> dict[str, str]:
    seconds = rules.cache_seconds(until, now)
    if at_most is not None:
        seconds = min(seconds, at_most)
    ends = (now + timedelta(seconds=seconds)).replace(microsecond=0)
    return {
        "etag": etag,
        "last-modified": format_datetime(since, usegmt=True),
        "expires": format_datetime(ends, usegmt=True),
        "cache-control": f"public, no-transform, must-revalidate, max-age={seconds}",
    }
