"""The routes, as the original's clients know them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest

from lamassu.kernel.identity import Peer, Principal, PrincipalKind
from lamassu.platform.http import Mount, build_app
from lamassu.services.devices.http import routes
from tests.services.devices.world import ADMIN, START, World

HOST = "pki.example:8443"
BODY = {
    "id": "dev-1",
    "dms_id": "fleet",
    "icon": "CgSmartHomeBoiler",
    "icon_color": "#25ee32",
    "tags": ["green", "A"],
    "metadata": {"room": {"floor": 3}},
    "alias": "dropped",
}


async def authenticate(peer: Peer) -> Principal | None:
    return Principal(PrincipalKind.ADMIN, "alice") if peer.chain else None


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    app = build_app(
        [Mount("/api/devmanager", "devicemanager", routes(world.service))],
        authenticate=authenticate,
        public_hosts=[HOST],
        bookmark_key=b"k" * 32,
    )

    async def as_admin(scope: Any, receive: Any, send: Any) -> None:
        peer = Peer((b"admin",), "192.0.2.1")
        await app({**scope, "extensions": {"lamassu.peer": peer}}, receive, send)

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(as_admin),
        base_url=f"https://{HOST}/api/devmanager/v1",
    ) as client:
        yield client


async def test_a_device_reads_as_clients_know_it(world: World, client: httpx.AsyncClient) -> None:
    answer = await client.post("/devices", json=BODY)
    assert answer.status_code == 201
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.json() == {
        "id": "dev-1",
        "tags": ["green", "A"],
        "status": "NO_IDENTITY",
        "icon": "CgSmartHomeBoiler",
        "icon_color": "#25ee32",
        "creation_timestamp": "2026-05-01T12:00:00.123456Z",
        "metadata": {"room": {"floor": 3}},
        "dms_owner": "fleet",
        "slots": {},
        "events": {"2026-05-01T12:00:00.123456Z": {"type": "CREATED", "description": ""}},
    }
    assert (await client.get("/devices/dev-1")).json() == answer.json()


async def test_an_identity_reads_as_clients_know_it(
    world: World, client: httpx.AsyncClient
) -> None:
    _, certificate = await world.enrolled("dev-1")
    device = (await client.get("/devices/dev-1")).json()
    assert device["status"] == "ACTIVE"
    assert device["identity"] == {
        "status": "ACTIVE",
        "active_version": 0,
        "type": "x509",
        "versions": {"0": certificate.serial_number},
        "expiration_date": "2026-05-31T12:00:00.123456Z",
        "events": {"2026-05-01T12:00:00.123456Z": {"type": "PROVISIONED", "description": ""}},
    }
    # two events of one instant, told apart by a nanosecond
    assert device["events"] == {
        "2026-05-01T12:00:00.123456Z": {"type": "CREATED", "description": ""},
        "2026-05-01T12:00:00.123456001Z": {
            "type": "STATUS-UPDATED",
            "description": "from NO_IDENTITY to ACTIVE",
        },
    }


async def test_what_a_device_needs_must_be_there(client: httpx.AsyncClient) -> None:
    for missing in ("id", "dms_id", "icon", "icon_color"):
        absent = {name: value for name, value in BODY.items() if name != missing}
        for body in (absent, {**BODY, missing: ""}, {**BODY, missing: None}):
            answer = await client.post("/devices", json=body)
            assert (answer.status_code, answer.json()["err"]) == (400, "struct validation error")
    assert (await client.get("/devices")).json() == {"next": "", "list": []}


MALFORMED = [
    {**BODY, "colour": "red"},
    {**BODY, "tags": "green"},
    {**BODY, "tags": [1]},
    {**BODY, "metadata": []},
    {**BODY, "id": 7},
    {**BODY, "id": "a\u0000b"},
    {**BODY, "id": "x" * 300},
    [],
    None,
]


async def test_a_malformed_device_is_refused(client: httpx.AsyncClient) -> None:
    for body in MALFORMED:
        answer = await client.post("/devices", json=body)
        assert answer.status_code == 400, body
        assert {"err", "code", "field"} <= answer.json().keys()
    assert (await client.get("/devices")).json()["list"] == []


async def test_a_device_exists_once(client: httpx.AsyncClient) -> None:
    await client.post("/devices", json=BODY)
    for taken in ("dev-1", "Dev-1"):
        answer = await client.post("/devices", json={**BODY, "id": taken})
        assert (answer.status_code, answer.json()["code"]) == (409, "device_exists")


async def test_a_missing_device_is_400_on_get_and_404_elsewhere(
    client: httpx.AsyncClient,
) -> None:
    answer = await client.get("/devices/nobody")
    assert (answer.status_code, answer.json()["err"]) == (400, "device not found")
    slot = {"status": "ACTIVE", "active_version": 0, "versions": {"0": "01"}}
    for method, path, body in (
        ("DELETE", "/devices/nobody", None),
        ("DELETE", "/devices/nobody/decommission", None),
        ("PUT", "/devices/nobody/metadata", {"patches": []}),
        ("PATCH", "/devices/nobody/metadata", {"patches": []}),
        ("PUT", "/devices/nobody/idslot", slot),
    ):
        answer = await client.request(method, path, json=body)
        assert (answer.status_code, answer.json()["err"]) == (404, "device not found")


async def test_a_device_retires_before_it_is_deleted(
    world: World, client: httpx.AsyncClient
) -> None:
    await world.enrolled("dev-1")
    early = await client.delete("/devices/dev-1")
    assert early.status_code == 422
    assert early.json()["err"] == "device status does not allow this operation"

    retired = await client.delete("/devices/dev-1/decommission")
    assert retired.status_code == 200
    assert retired.json()["status"] == "DECOMMISSIONED"
    assert retired.json()["identity"]["status"] == "REVOKED"
    assert "lamassu-revocation" not in retired.headers

    deleted = await client.delete("/devices/dev-1")
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert (await client.get("/devices/dev-1")).status_code == 400


async def test_a_revocation_that_does_not_show_yet_is_pending(
    world: World, client: httpx.AsyncClient
) -> None:
    world.office.published = False
    await world.enrolled("dev-1")
    slot = (await client.get("/devices/dev-1")).json()["identity"]
    answer = await client.put("/devices/dev-1/idslot", json={**slot, "status": "REVOKED"})
    assert answer.status_code == 200
    assert answer.json()["status"] == "REVOKED"
    assert answer.headers["lamassu-revocation"] == "pending"

    await world.enrolled("dev-2")
    answer = await client.delete("/devices/dev-2/decommission")
    assert answer.headers["lamassu-revocation"] == "pending"


SENSELESS_SLOTS: list[dict[str, Any]] = [
    {"status": "FINE"},
    {"status": ""},
    {"status": None},
    {"status": "EXPIRED"},
    {"active_version": -1},
    {"active_version": "0"},
    {"type": "TOKEN"},
    {"versions": {"00": "01"}},
    {"versions": {"-1": "01"}},
    {"versions": {"x": "01"}},
    {"versions": {"٣": "01"}},
    {"versions": {"9" * 400: "01"}},
    {"versions": {"0": 1}},
    {"versions": []},
    {"versions": {}},
]


async def test_a_slot_that_makes_no_sense_changes_nothing(
    world: World, client: httpx.AsyncClient
) -> None:
    await world.enrolled("dev-1")
    before = (await client.get("/devices/dev-1")).json()
    for change in SENSELESS_SLOTS:
        answer = await client.put("/devices/dev-1/idslot", json={**before["identity"], **change})
        assert answer.status_code == 400, change
    assert (await client.get("/devices/dev-1")).json() == before


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("spelling", ["patches", "Patches"])
async def test_metadata_is_patched(
    world: World, client: httpx.AsyncClient, method: str, spelling: str
) -> None:
    await client.post("/devices", json=BODY)
    patches = [
        {"op": "add", "path": "/lamassu.io~1x", "value": {"a": [1]}},
        {"op": "replace", "path": "/room/floor", "value": 4},
        {"op": "remove", "path": "/nothing"},
    ]
    answer = await client.request(method, "/devices/dev-1/metadata", json={spelling: patches})
    assert answer.status_code == 200
    assert answer.json()["metadata"] == {"room": {"floor": 4}, "lamassu.io/x": {"a": [1]}}
    assert (await world.records("event"))[-1][1] == "device.metadata.update"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"patches": None},
        {"patches": [{"op": "replace", "path": "/nothing", "value": 1}]},
        {
            "patches": [
                {"op": "add", "path": "/new", "value": 1},
                {"op": "test", "path": "/room/floor", "value": 9},
            ]
        },
        {"patches": [{"op": "add", "path": "", "value": []}]},
        {"patches": [{"op": "copy", "path": "/a", "from": "/room"}]},
    ],
)
async def test_a_patch_that_fails_changes_nothing(
    world: World, client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    await client.post("/devices", json=BODY)
    records = await world.records()
    answer = await client.patch("/devices/dev-1/metadata", json=body)
    assert answer.status_code == 400
    assert (await client.get("/devices/dev-1")).json()["metadata"] == BODY["metadata"]
    assert await world.records() == records


async def test_a_patch_of_nothing_tells_nothing(world: World, client: httpx.AsyncClient) -> None:
    await client.post("/devices", json=BODY)
    records = await world.records()
    answer = await client.patch("/devices/dev-1/metadata", json={"patches": []})
    assert answer.status_code == 200
    assert await world.records() == records


@pytest.fixture
async def fleet(world: World) -> Sequence[str]:
    """Three of one DMS in different states, one of another."""
    await world.created("a-1", tags=("Green",))
    await world.enrolled("a-2")
    await world.enrolled("a-3")
    await world.service.decommission("a-3", caller=ADMIN)
    await world.created("b-1", dms_id="other", tags=("blue", "green"))
    return ["a-1", "a-2", "a-3", "b-1"]


def ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [device["id"] for device in answer.json()["list"]]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([], ["a-1", "a-2", "a-3", "b-1"]),
        (["status[eq]ACTIVE"], ["a-2"]),
        (["status[ne]ACTIVE"], ["a-1", "a-3", "b-1"]),
        (["status[in]NO_IDENTITY,DECOMMISSIONED"], ["a-1", "a-3", "b-1"]),
        (["dms_owner[eq]other"], ["b-1"]),
        (["id[ct]-1", "dms_owner[ne]other"], ["a-1"]),
        (["tags[ct]green"], ["b-1"]),
        (["tags[ct_ic]green"], ["a-1", "b-1"]),
        (["creation_timestamp[af]2026-05-01T11:59:59Z"], ["a-1", "a-2", "a-3", "b-1"]),
        (["creation_timestamp[bf]2026-05-01T11:59:59Z"], []),
        (["id[eq]a-1' OR '1'='1"], []),
    ],
)
async def test_devices_are_filtered(
    client: httpx.AsyncClient, fleet: Sequence[str], filters: list[str], expected: list[str]
) -> None:
    assert ids(await client.get("/devices", params={"filter": filters})) == expected


async def test_an_expired_device_is_found_as_such(
    world: World, client: httpx.AsyncClient, fleet: Sequence[str]
) -> None:
    world.clock.time = START.replace(year=2027)
    assert ids(await client.get("/devices", params={"filter": "status[eq]EXPIRED"})) == ["a-2"]
    assert ids(await client.get("/devices", params={"filter": "status[eq]ACTIVE"})) == []


async def test_every_device_is_on_one_page(client: httpx.AsyncClient, fleet: Sequence[str]) -> None:
    for sort in ("id", "creation_timestamp", "status", "dms_owner", ""):
        for mode in ("asc", "desc"):
            assert await page_by_page(client, sort, mode) == list(fleet), (sort, mode)


async def page_by_page(client: httpx.AsyncClient, sort: str, mode: str) -> list[str]:
    parameters = {"page_size": "1", "sort_by": sort, "sort_mode": mode}
    seen: list[str] = []
    while parameters != {"bookmark": ""}:
        answer = await client.get("/devices", params=parameters)
        seen += ids(answer)
        parameters = {"bookmark": answer.json()["next"]}
    return sorted(seen)


async def test_the_devices_of_a_dms_are_listed(
    client: httpx.AsyncClient, fleet: Sequence[str]
) -> None:
    assert ids(await client.get("/devices/dms/fleet")) == ["a-1", "a-2", "a-3"]
    assert ids(await client.get("/devices/dms/nobody")) == []
    # a filter cannot lead out of it
    answer = await client.get("/devices/dms/fleet", params={"filter": "dms_owner[eq]other"})
    assert ids(answer) == []


SENSELESS_QUESTIONS = [
    "filter=colour[eq]red",
    "filter=status[eq]FINE",
    "filter=status[ct]ACT",
    "filter=creation_timestamp[af]yesterday",
    "filter=identity[eq]x",
    "sort_by=secret",
    "bookmark=AAAA",
]


async def test_a_question_that_makes_no_sense_is_refused(client: httpx.AsyncClient) -> None:
    for query in SENSELESS_QUESTIONS:
        assert (await client.get(f"/devices?{query}")).status_code == 400, query


async def test_devices_are_counted(client: httpx.AsyncClient, fleet: Sequence[str]) -> None:
    answer = (await client.get("/stats")).json()
    assert answer == {
        "total": 4,
        "status_distribution": {
            "NO_IDENTITY": 2,
            "ACTIVE": 1,
            "RENEWAL_PENDING": 0,
            "EXPIRING_SOON": 0,
            "EXPIRED": 0,
            "REVOKED": 0,
            "DECOMMISSIONED": 1,
        },
    }
    of_fleet = await client.get("/stats", params={"filter": "dms_owner[eq]fleet"})
    assert of_fleet.json()["total"] == 3
    by_status = await client.get("/stats", params={"filter": "status[eq]ACTIVE"})
    assert (by_status.status_code, by_status.json()["err"]) == (400, "struct validation error")


def test_every_route_names_its_right(world: World) -> None:
    for route in routes(world.service):
        assert re.fullmatch(r"device:(read|create|update|delete)", route.access.name)
