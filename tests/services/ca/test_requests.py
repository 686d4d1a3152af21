"""Certificate requests with their outcome: what is kept, of whom, how much and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509

from lamassu.kernel.errors import RuleViolation
from lamassu.kernel.identity import ANONYMOUS, Caller, Principal, PrincipalKind, system_caller
from lamassu.services.ca.contract import IssueRequest, RefusedRequest
from lamassu.services.ca.rules import requests as bounds
from lamassu.services.ca.rules.requests import RETENTION

from .world import ALICE, DEVICE_PROFILE, START, World, csr, wire_csr

URL = "/v1/requests"


async def listed(world: World, query: str = "") -> list[dict[str, Any]]:
    """All pages."""
    found: list[dict[str, Any]] = []
    address = f"{URL}?{query}"
    while True:
        answer = await world.api.get(address)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["list"]
        if not page["next"]:
            return found
        address = f"{URL}?bookmark={page['next']}"


def refused(number: int = 0, **changed: Any) -> RefusedRequest:
    fields = {
        "ca_id": "issuing",
        "csr_der": csr("device-1"),
        "caller": Caller(Principal(PrincipalKind.DEVICE, f"device-{number}")),
        "code": "too_early",
        "reason": "come later",
        "owner": "fleet",
        "device_id": f"device-{number}",
    }
    return RefusedRequest(**{**fields, **changed})


async def test_what_was_asked_stands_with_its_outcome(world: World) -> None:
    await world.hierarchy()
    sign = "/v1/cas/issuing/certificates/sign"
    good = csr("good")
    issued = (await world.api.post(sign, json={"csr": wire_csr(good)})).json()
    profile = replace(DEVICE_PROFILE, id="strict", honor_extensions=True)
    await world.profile(profile)
    own_name = csr("bad", extensions=[x509.SubjectAlternativeName([x509.DNSName("pki.test")])])
    body = {"csr": wire_csr(own_name), "profile_id": "strict"}
    told = await world.api.post(sign, json=body)

    assert told.status_code == 400
    [refusal] = await listed(world, "filter=status[eq]REFUSED")
    assert refusal == {
        "id": refusal["id"],
        "status": "REFUSED",
        "creation_ts": "2026-05-01T12:00:00Z",
        "ca_id": "issuing",
        "profile_id": "strict",
        "requester": "admin/alice",
        "dms_id": "",
        "device_id": "",
        "common_name": "bad",
        "serial_number": "",
        "code": told.json()["code"],
        "reason": told.json()["err"],
    }
    whole = (await world.api.get(f"{URL}/{refusal['id']}")).json()
    assert whole == {**refusal, "csr": wire_csr(own_name)}

    [success] = await listed(world, "filter=status[eq]ISSUED")
    assert (success["id"], success["serial_number"]) == (issued["serial_number"],) * 2
    assert (success["requester"], success["profile_id"]) == ("admin/alice", "device")
    assert (success["ca_id"], success["code"]) == ("issuing", "")
    whole = (await world.api.get(f"{URL}/{issued['serial_number']}")).json()
    assert whole == {**success, "csr": wire_csr(good)}
    audits = [one for one in await world.records("audit") if one["outcome"] == "failure"]
    assert [one["detail"]["request"] for one in audits] == [refusal["id"]]


async def test_a_success_is_stored_once_and_with_its_certificate(world: World) -> None:
    await world.hierarchy()
    before = await world.count()
    await world.issue()
    after = await world.count()

    assert {name for name in after if after[name] != before[name]} == {
        "ca_certificates",
        "ca_outbox",
    }
    assert len(await listed(world, "filter=status[eq]ISSUED")) == 1


async def test_pages_of_both_neither_repeat_nor_hide(world: World) -> None:
    await world.hierarchy()
    for number in range(7):
        await world.issue(f"good-{number}")
        await world.ca.keep_refused(refused(number))
    everything = await listed(world)

    assert len(everything) == 14
    for query in ("page_size=3", "page_size=3&sort_mode=desc&sort_by=id", "page_size=14"):
        paged = await listed(world, query)
        assert sorted(one["id"] for one in paged) == sorted(one["id"] for one in everything)
    mine = await listed(world, "page_size=2&filter=device_id[eq]device-3")
    assert [one["code"] for one in mine] == ["too_early"]
    assert len(await listed(world, "page_size=2&filter=dms_id[eq]fleet")) == 7
    assert len(await listed(world, "filter=status[ne]ISSUED&filter=code[eq]too_early")) == 7
    assert await listed(world, "filter=status[eq]ISSUED&filter=code[eq]too_early") == []


async def test_the_refused_go_by_time(world: World) -> None:
    for number in range(5):
        await world.ca.keep_refused(refused(number))
        world.clock.advance(timedelta(minutes=1))
    query = "filter=status[eq]REFUSED&sort_by=creation_ts&sort_mode=desc&page_size=2"

    assert [one["device_id"] for one in await listed(world, query)] == [
        f"device-{number}" for number in (4, 3, 2, 1, 0)
    ]
    answer = await world.api.get(f"{URL}?sort_by=creation_ts")
    assert (answer.status_code, answer.json()["code"]) == (400, "unsupported_sort")
    assert "status[eq]REFUSED" in answer.json()["err"]


@pytest.mark.parametrize(
    "caller", [Caller(ANONYMOUS), system_caller("job")], ids=["a stranger", "the platform"]
)
async def test_of_strangers_nothing_is_kept(world: World, caller: Caller) -> None:
    before = await world.count()
    await world.ca.keep_refused(refused(caller=caller))
    assert await listed(world) == []
    assert await world.count() == before


async def test_nobody_fills_the_database_with_refusals(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attack: one known device has requests refused without end."""
    from lamassu.services.ca.storage import requests as storage

    for _ in range(bounds.IN_AN_HOUR + 5):
        await world.ca.keep_refused(refused())
    assert len(await listed(world)) == bounds.IN_AN_HOUR
    await world.ca.keep_refused(refused(1))  # another one's room is its own
    assert len(await listed(world)) == bounds.IN_AN_HOUR + 1

    world.clock.advance(timedelta(hours=2))
    await world.ca.keep_refused(refused())
    assert len(await listed(world)) == bounds.IN_AN_HOUR + 2
    monkeypatch.setattr(storage, "FOR_ONE", bounds.IN_AN_HOUR + 1)
    await world.ca.keep_refused(refused())
    assert len(await listed(world)) == bounds.IN_AN_HOUR + 2


async def test_what_is_kept_is_bounded_in_size(world: World) -> None:
    huge = refused(
        csr_der=b"\x30" * (bounds.LARGEST_CSR + 1), reason="x" * 9000, device_id="d\0" * 900
    )
    await world.ca.keep_refused(huge)
    await world.ca.keep_refused(refused(csr_der=b"no CSR at all"))

    [one, other] = await listed(world, "filter=status[eq]REFUSED&sort_by=creation_ts")
    by_name = sorted([one, other], key=lambda each: len(each["reason"]))
    assert [len(each["reason"]) for each in by_name] == [len("come later"), 500]
    assert len(by_name[1]["device_id"]) == 500
    whole = [(await world.api.get(f"{URL}/{each['id']}")).json()["csr"] for each in by_name]
    assert whole[0]
    assert whole[1] == ""


async def test_refusals_are_forgotten_in_time_and_beyond_a_number(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.hierarchy()
    await world.issue()
    for number in range(4):
        await world.ca.keep_refused(refused(number))
        world.clock.advance(timedelta(hours=1))
    assert await world.ca.requests.forget_old() == 0

    from lamassu.services.ca.usecases import requests as usecase

    monkeypatch.setattr(usecase, "FOR_ALL", 3)
    assert await world.ca.requests.forget_old() == 1
    left = await listed(world, "filter=status[eq]REFUSED")
    assert {one["device_id"] for one in left} == {"device-1", "device-2", "device-3"}

    world.clock.time = START + RETENTION + timedelta(hours=2)
    assert await world.ca.requests.forget_old() == 1
    assert len(await listed(world, "filter=status[eq]ISSUED")) == 1


async def test_a_dms_keeps_its_own_refusals(world: World) -> None:
    """What the CA refuses a DMS is kept once: by the DMS, which knows the device."""
    await world.hierarchy()
    own_name = csr("bad", extensions=[x509.SubjectAlternativeName([x509.DNSName("pki.test")])])
    request = IssueRequest(ca_id="issuing", csr_der=own_name, caller=ALICE, owner="fleet")
    with pytest.raises(RuleViolation):
        await world.ca.issue(request)
    assert await listed(world, "filter=status[eq]REFUSED") == []


async def test_an_unknown_one_is_not_found(world: World) -> None:
    await world.hierarchy()
    root = (await world.ca.get_ca("root")).certificate.serial_number
    names: Sequence[str] = ("0" * 32, "nobody", root)  # a CA's own certificate had no CSR
    for name in names:
        answer = await world.api.get(f"{URL}/{name}")
        assert (answer.status_code, answer.json()["code"]) == (404, "request_not_found")
