"""Requests that may be repeated: the header Idempotency-Key
(draft-ietf-httpapi-idempotency-key-header).

A key is the principal's own, for one route. The same request under the same key is answered as
it was the first time, without being done again; another request under it is refused (422). Only
what succeeded is kept, for 24 hours; a refused request may be corrected and sent again. The
answer is kept by the very transaction that does the deed (`kernel/repeats.py`).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from pydantic import BaseModel
from starlette.responses import Response

from lamassu.kernel.errors import Conflict, LamassuError, Malformed, RequestKeyReused
from lamassu.kernel.records import Event, Record
from lamassu.kernel.repeats import KeptAnswer, PendingAnswer
from lamassu.platform.http.answers import json_bytes, json_bytes_answer
from lamassu.platform.http.call import Call
from lamassu.platform.http.routing import Creation

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
PATIENCE = 5.0  # seconds for the same request to end
LONGEST_KEY = 255

_QUOTED = re.compile(r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_BARE = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]+")  # no quote, comma, ; or \


class Keeper(Protocol):
    """What finds kept answers again."""

    async def find(self, service: str, answer_id: str) -> KeptAnswer | None:
        """The answer, unless it is too old to be given again."""
        ...

    async def take_room(self, service: str, principal: str) -> None:
        """Count one more. Raises `TooMany`."""
        ...


def key_of(fields: Sequence[tuple[bytes, bytes]]) -> str | None:
    """The key among header fields: a quoted string or a bare token of 1 to 255 characters.

    Raises `Malformed` (`invalid_idempotency_key`), also for more than one.
    """
    sent = [value for name, value in fields if name == b"idempotency-key"]
    if not sent:
        return None
    text = sent[0].decode("latin-1").strip()
    quoted = _QUOTED.fullmatch(text)
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else text
    if len(sent) > 1 or not (quoted or _BARE.fullmatch(text)) or not 1 <= len(key) <= LONGEST_KEY:
        raise Malformed(
            f"{HEADER} is one quoted string of 1 to {LONGEST_KEY} printable ASCII characters,"
            " such as a UUID",
            code="invalid_idempotency_key",
            field=HEADER,
        )
    return key


class Repeats:
    """Answers requests with a key, each once. One per process."""

    def __init__(self, keeper: Keeper, *, patience: float = PATIENCE) -> None:
        self._keeper = keeper
        self._patience = patience
        self._running: dict[str, asyncio.Event] = {}

    async def answer(self, call: Call, key: str) -> Response:
        """The handler's answer, or the one that the same request had before.

        Raises `RequestKeyReused`, `Conflict` (`request_in_progress`), `TooMany`, and whatever
        the handler raises.
        """
        principal, path = call.caller.principal.id, call.route.path
        answer_id = _digest([principal, call.method, path, key])
        await self._await_turn(answer_id)
        ended = self._running[answer_id] = asyncio.Event()
        try:
            return await self._answer_once(call, answer_id)
        finally:
            del self._running[answer_id]
            ended.set()

    async def _await_turn(self, answer_id: str) -> None:
        try:
            async with asyncio.timeout(self._patience):
                while (running := self._running.get(answer_id)) is not None:
                    await running.wait()
        except TimeoutError:
            raise Conflict(
                f"a request with this {HEADER} is still being worked on; ask again",
                code="request_in_progress",
                field=HEADER,
                retry_after=2,
            ) from None

    async def _answer_once(self, call: Call, answer_id: str) -> Response:
        service, digest = call.route.service, _request_digest(call)
        kept = await self._keeper.find(service, answer_id)
        if kept is not None:
            return await _replayed(call, kept, digest)
        principal = call.caller.principal.id
        await self._keeper.take_room(service, principal)
        pending = PendingAnswer(
            service=service,
            id=answer_id,
            principal=principal,
            digest=digest,
            answer=_Search(call, digest),
        )
        with pending.under_way():
            try:
                return await call.route.route.handler(call)
            except LamassuError:
                # another process may have been quicker, or this one committed before it failed
                with suppress(LamassuError):
                    kept = await self._keeper.find(service, answer_id)
                if kept is None:
                    raise
                return await _replayed(call, kept, digest)


class _Search:
    """Finds the answer of a call among what a transaction leaves."""

    def __init__(self, call: Call, digest: str) -> None:
        self._route = call.route.route
        self._caller = call.caller
        self._digest = digest

    def __call__(self, records: Sequence[Record]) -> KeptAnswer | None:
        for record in records:
            if isinstance(record, Event) and record.caller == self._caller:
                for creation in self._route.creates:
                    if creation.event_type == record.type:
                        return self._kept(record, creation)
        return None

    def _kept(self, event: Event, creation: Creation) -> KeptAnswer:
        document = event.data
        if creation.part is not None:
            assert isinstance(document, Mapping)
            document = document[creation.part]
        answer: BaseModel = creation.answer.model_validate(document)
        headers = {"etag": f'"{event.version}"'} if creation.etag else {}
        return KeptAnswer(self._digest, self._route.status, json_bytes(answer).decode(), headers)


async def _replayed(call: Call, kept: KeptAnswer, digest: str) -> Response:
    if kept.digest != digest:
        raise RequestKeyReused(
            f"this {HEADER} stands for another request; take a new one for each",
            code="idempotency_key_reused",
            field=HEADER,
        )
    body = kept.body.encode()
    for creation in call.route.route.creates:
        if creation.completed is not None:
            made = creation.answer.model_validate_json(body)
            body = json_bytes(await creation.completed(made))
    return json_bytes_answer(body, status=kept.status, headers={**kept.headers, REPLAYED: "true"})


def _request_digest(call: Call) -> str:
    """Of what is asked; whose agreement it rests on (Lamassu-Approval) is no part of that."""
    return _digest(call.document)


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()
