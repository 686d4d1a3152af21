"""Idempotency-Key (security rule 32): done once, answered the same, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pydantic import JsonValue
from sqlalchemy import func, select
from starlette.responses import Response

from lamassu.kernel.errors import Conflict, Unavailable
from lamassu.kernel.identity import Peer, Principal, PrincipalKind
from lamassu.kernel.records import Event
from lamassu.platform.database import Database
from lamassu.platform.database.answer_keeper import RETENTION, AnswerKeeper
from lamassu.platform.database.journal_tables import tables
from lamassu.platform.database.kept_answers import answers_table
from lamassu.platform.http import (
    Access,
    Application,
    Call,
    Creation,
    Mount,
    Route,
    WireModel,
    build_app,
    json_answer,
    repeats,
)
from tests.support.databases import DatabaseFactory

SERVICE = "kms"
ALICE, BOB = Peer((b"alice",)), Peer((b"bob",))
URL = "/api/kms/v1/things"


class Thing(WireModel):
    name: str
    secret: str = ""


class ThingAnswer(WireModel):
    id: int
    name: str
    notes: dict[str, JsonValue]


class Clock:
    time = datetime(2027, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time


async def authenticate(peer: Peer) -> Principal:
    assert peer.certificate is not None
    return Principal(PrincipalKind.ADMIN, peer.certificate.decode())


async def nothing() -> None:
    return


@dataclass
class World:
    """A process: an application over its own connections. What it makes are events."""

    database: Database
    clock: Clock
    most: int = 100
    at_once: bool = False
    before: Callable[[], Awaitable[None]] = nothing
    after: Callable[[], Awaitable[None]] = nothing
    done: int = 0
    app: Application = field(init=False)

    def __post_init__(self) -> None:
        keeper = AnswerKeeper(self.database, self.clock, most=self.most)
        routes = [
            Route(
                method="POST",
                path=path,
                access=Access.action("thing:create"),
                handler=self.create,
                summary="Make a thing",
                body=Thing,
                answer=ThingAnswer,
                status=201,
                creates=[Creation("thing.create", ThingAnswer, etag=True)],
            )
            for path in ("/v1/things", "/v1/others", "/v1/of/{owner}/things")
        ]
        self.app = build_app(
            [Mount("/api/kms", SERVICE, routes)],
            authenticate=authenticate,
            public_hosts=["pki.example"],
            bookmark_key=b"k" * 32,
            keeper=keeper,
        )
        self.keeper = keeper

    async def create(self, call: Call) -> Response:
        self.done += 1
        name = call.decoded(Thing).name
        await self.before()
        answer: dict[str, Any] = {"id": self.done, "name": name, "notes": {"ü": [1, None]}}
        event = Event("thing.create", f"thing/{self.done}", 7, answer, call.caller)
        other = Event("thing.mention", f"thing/{self.done}", 1, {}, call.caller)
        if self.at_once:
            await self.database.write(SERVICE, [], [other, event])
        else:
            async with self.database.unit(SERVICE) as unit:
                unit.emit(other)
                unit.emit(event)
        await self.after()
        return json_answer(ThingAnswer(**answer), status=201, headers={"etag": '"7"'})

    async def post(
        self, body: object, key: str | None, *, url: str = URL, peer: Peer = ALICE
    ) -> httpx.Response:
        async def with_peer(scope: Any, receive: Any, send: Any) -> None:
            await self.app({**scope, "extensions": {"lamassu.peer": peer}}, receive, send)

        headers = {} if key is None else {"Idempotency-Key": key.encode()}
        transport = httpx.ASGITransport(with_peer)
        async with httpx.AsyncClient(transport=transport, base_url="https://pki.example") as client:
            if isinstance(body, str):
                return await client.post(url, content=body, headers=headers)
            return await client.post(url, json=body, headers=headers)

    async def made(self) -> int:
        """How many things were made, by the record of it."""
        outbox = tables(SERVICE).outbox
        query = select(func.count()).where(outbox.c.type == "thing.create")
        async with self.database.reading(SERVICE) as connection:
            return int((await connection.execute(query)).scalar_one())

    async def kept(self) -> int:
        query = select(func.count()).select_from(answers_table(SERVICE))
        async with self.database.reading(SERVICE) as connection:
            return int((await connection.execute(query)).scalar_one())


@pytest.fixture(params=[False, True], ids=["unit", "at once"])
async def world(request: pytest.FixtureRequest, database_factory: DatabaseFactory) -> World:
    clock = Clock()
    database = await database_factory(services=[SERVICE], clock=clock)
    return World(database, clock, at_once=request.param)


def essence(answer: httpx.Response) -> tuple[int, bytes, str, str]:
    return (
        answer.status_code,
        answer.content,
        answer.headers["content-type"],
        answer.headers["etag"],
    )


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_the_same_request_is_done_once_and_answered_the_same(world: World) -> None:
    first = await world.post({"name": "a"}, '"8e03978e-40d5"')
    again = await world.post('{ "name" : "a" }', "8e03978e-40d5")  # written otherwise, and bare

    assert first.status_code == 201
    assert "idempotency-replayed" not in first.headers
    assert essence(again) == essence(first)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert (await world.made(), await world.kept()) == (1, 1)


async def test_another_request_under_the_key_is_refused(world: World) -> None:
    await world.post({"name": "a"}, '"k"', url="/api/kms/v1/of/x/things")

    for body, url in (({"name": "b"}, "x"), ({"name": "a"}, "y"), ({"name": "a"}, "x/things?q=1")):
        whole = f"/api/kms/v1/of/{url}" + ("" if "?" in url else "/things")
        assert code(await world.post(body, "k", url=whole)) == (422, "idempotency_key_reused")
    assert await world.made() == 1


async def test_a_key_is_one_principals_for_one_route(world: World) -> None:
    """Nobody is shown, or kept from anything, by a key that somebody else took."""
    answers = [
        await world.post({"name": "a"}, "k"),
        await world.post({"name": "a"}, "k", peer=BOB),
        await world.post({"name": "a"}, "k", url="/api/kms/v1/others"),
        await world.post({"name": "a"}, "l"),
        await world.post({"name": "a"}, None),
    ]

    assert [answer.status_code for answer in answers] == [201] * 5
    assert [answer.json()["id"] for answer in answers] == [1, 2, 3, 4, 5]
    assert (await world.made(), await world.kept()) == (5, 4)


async def test_what_was_refused_may_be_asked_again(world: World) -> None:
    async def refuse() -> None:
        raise Conflict("not now")

    world.before = refuse
    assert (await world.post({"name": "a"}, "k")).status_code == 409
    world.before = nothing
    assert (await world.post({"nom": "a"}, "k")).status_code == 400
    assert await world.kept() == 0

    assert (await world.post({"name": "b"}, "k")).status_code == 201
    assert await world.made() == 1


@pytest.mark.parametrize("fault", [Unavailable("gone"), RuntimeError("our bug")])
async def test_what_fails_after_its_commit_was_done(world: World, fault: Exception) -> None:
    async def fail() -> None:
        raise fault

    world.after = fail
    first = await world.post({"name": "a"}, "k")
    world.after = nothing
    again = await world.post({"name": "a"}, "k")

    assert first.status_code == (201 if isinstance(fault, Unavailable) else 500)
    assert (again.status_code, again.json()["id"]) == (201, 1)
    assert await world.made() == 1


async def test_many_at_once_are_one(world: World) -> None:
    answers = await asyncio.gather(*(world.post({"name": "a"}, "k") for _ in range(5)))

    assert {answer.content for answer in answers} == {answers[0].content}
    assert sorted("idempotency-replayed" in answer.headers for answer in answers) == [
        False,
        *[True] * 4,
    ]
    assert await world.made() == 1


async def test_who_would_wait_too_long_is_told_to_ask_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.app._repeats = repeats.Repeats(world.keeper, patience=0.05)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        begun.set()
        await go_on.wait()

    world.before = wait
    first = asyncio.create_task(world.post({"name": "a"}, "k"))
    await begun.wait()
    second = await world.post({"name": "a"}, "k")

    assert code(second) == (409, "request_in_progress")
    assert int(second.headers["retry-after"]) > 0
    go_on.set()
    assert (await first).status_code == 201
    assert essence(await world.post({"name": "a"}, "k")) == essence(await first)
    assert await world.made() == 1


async def test_of_two_processes_one_does_it_and_both_say_so(
    world: World, database_factory: DatabaseFactory
) -> None:
    other = World(
        await database_factory.open(
            database_factory.made[0], services=[SERVICE], clock=world.clock
        ),
        world.clock,
        at_once=world.at_once,
        done=10,
    )
    meeting = asyncio.Barrier(2)

    async def meet() -> None:
        await meeting.wait()  # neither found an answer: both go for the commit

    world.before = other.before = meet
    answers = await asyncio.gather(world.post({"name": "a"}, "k"), other.post({"name": "a"}, "k"))

    assert {answer.status_code for answer in answers} == {201}
    assert answers[0].content == answers[1].content
    assert (await world.made(), await world.kept()) == (1, 1)


async def test_an_answer_is_kept_for_a_day(world: World) -> None:
    await world.post({"name": "a"}, "k")
    world.clock.time += RETENTION - timedelta(seconds=1)
    assert (await world.post({"name": "a"}, "k")).json()["id"] == 1
    assert await world.keeper.purge() == 0

    world.clock.time += timedelta(seconds=1)
    assert (await world.post({"name": "b"}, "k")).json()["id"] == 2, "nobody purged it yet"
    world.clock.time += RETENTION
    assert await world.keeper.purge() == 1
    assert await world.kept() == 0


async def test_nobody_fills_the_database_with_keys(database_factory: DatabaseFactory) -> None:
    clock = Clock()
    world = World(await database_factory(services=[SERVICE], clock=clock), clock, most=3)
    for number in range(3):
        assert (await world.post({"name": "a"}, f"k{number}")).status_code == 201

    refused = await world.post({"name": "a"}, "k3")

    assert code(refused) == (429, "idempotency_keys_exhausted")
    assert (await world.post({"name": "a"}, "k3", peer=BOB)).status_code == 201
    assert (await world.post({"name": "a"}, "k0")).json()["id"] == 1
    assert (await world.post({"name": "a"}, None)).status_code == 201
    world.clock.time += RETENTION
    await world.keeper.purge()
    assert (await world.post({"name": "a"}, "k3")).status_code == 201


@pytest.mark.parametrize(
    "key", ["", '""', '"', 'a"b', '"a"b"', "a b", "a,b", "a;b", '"ü"', "x" * 256, f'"{"x" * 256}"']
)
async def test_a_key_that_is_none_is_refused(world: World, key: str) -> None:
    assert code(await world.post({"name": "a"}, key)) == (
        400,
        "invalid_idempotency_key",
    )
    assert await world.made() == 0


async def test_what_is_kept_is_what_the_event_says(world: World) -> None:
    """The request's own secrets are not in it, and neither is the key."""
    await world.post({"name": "a", "secret": "topsecret"}, "my-key")

    async with world.database.reading(SERVICE) as connection:
        [row] = (await connection.execute(select(answers_table(SERVICE)))).all()
    assert "topsecret" not in str(row)
    assert "my-key" not in str(row)
