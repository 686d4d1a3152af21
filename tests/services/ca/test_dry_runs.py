"""Previews and replays of profiles: the code that issues, and nothing signed or stored."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from cryptography import x509

from lamassu.kernel.x509 import der
from lamassu.kernel.x509.names import Subject
from lamassu.services.ca.contract import (
    AllowedNames,
    AlternativeNameRules,
    NamedValue,
    NameType,
    SubjectRules,
    Validity,
)

from .world import ALICE, DEVICE_PROFILE, World, csr, parsed, wire_csr

SAN = x509.SubjectAlternativeName([x509.DNSName("d1.devices.example")])


async def preview(world: World, profile_id: str = "device", /, **body: Any) -> httpx.Response:
    body.setdefault("csr", wire_csr(csr("device-1", extensions=[SAN])))
    return await world.api.post(f"/v1/profiles/{profile_id}/preview", json=body)


async def test_a_preview_is_what_is_issued_but_for_serial_number_and_signature(
    world: World,
) -> None:
    await world.hierarchy()
    request = csr("device-1", extensions=[SAN])
    before = await world.count()

    shown = await preview(world, csr=wire_csr(request), ca_id="issuing")

    assert shown.status_code == 200, shown.text
    assert await world.count() == before
    issued = parsed(await world.issue(csr_der=request))
    answer = shown.json()
    octets = base64.b64decode(answer["to_be_signed"])
    ours, theirs = octets, issued.tbs_certificate_bytes
    assert len(ours) - len(theirs) in range(-1, 2)  # a serial number may have 15 octets
    assert serial_removed(ours) == serial_removed(theirs)
    assert answer["subject"] == issued.subject.rfc4514_string()
    assert answer["lint"] == []
    texts = {one["name"]: (one["critical"], one["text"]) for one in answer["extensions"]}
    assert texts["subjectAltName"] == (False, "DNS:d1.devices.example")
    assert texts["keyUsage"] == (True, "DigitalSignature")
    assert texts["basicConstraints"] == (True, "CA:FALSE")


def serial_removed(tbs: bytes) -> list[bytes]:
    """The parts of a TBSCertificate but the serial number."""
    parts = [tbs[one.start : one.end] for one in der.children(tbs, der.sole_element(tbs))]
    return [parts[0], *parts[2:]]


async def test_a_preview_refuses_what_issuing_refuses(world: World) -> None:
    await world.hierarchy()
    san = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("lamassu://admin/eve")])

    bad = await preview(world, ca_id="issuing", csr=wire_csr(csr("eve", extensions=[san])))
    which = await preview(world)
    none = await preview(world, "nothing", ca_id="issuing")

    assert (bad.status_code, bad.json()["code"]) == (400, "platform_name")
    assert (which.status_code, which.json()["code"]) == (400, "ca_missing")
    assert which.json()["field"] == "ca_id"
    assert (none.status_code, none.json()["err"]) == (404, "issuance profile not found")


async def test_a_preview_takes_a_changed_profile_and_a_device(world: World) -> None:
    await world.hierarchy()
    changed = {
        "validity": {"type": "Duration", "duration": "30d"},
        "key_usage": ["DigitalSignature"],
        "subject_rules": {"template": {"common_name": "{device_id}", "organization": "Acme"}},
        "alternative_names": {
            "names": [{"type": "dns", "value": "{device_id}.devices.example"}],
        },
    }

    shown = await preview(
        world, ca_id="issuing", device_id="dev-7", dms_id="factory", profile=changed
    )

    assert shown.status_code == 200, shown.text
    answer = shown.json()
    assert answer["subject"] == "CN=dev-7,O=Acme"
    texts = {one["name"]: one["text"] for one in answer["extensions"]}
    assert texts["subjectAltName"] == "DNS:dev-7.devices.example"
    assert (await world.api.get("/v1/profiles/device")).json()["honor_subject"] is True


async def enrolled(world: World, count: int) -> list[str]:
    return [
        (await world.issue(csr_der=csr(f"device-{number}", extensions=[SAN]))).serial_number
        for number in range(count)
    ]


async def what_if(world: World, profile: dict[str, Any], **body: Any) -> dict[str, Any]:
    answer = await world.api.post("/v1/profiles/device/what-if", json={"profile": profile, **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_replay_tells_who_would_fail_and_what_would_differ(world: World) -> None:
    await world.hierarchy()
    serial_numbers = await enrolled(world, 12)
    stored = (await world.api.get("/v1/profiles/device")).json()
    before = await world.count()
    changed = {
        **stored,
        "validity": {"type": "Duration", "duration": "720h"},
        "subject_rules": {"patterns": {"common_name": "device-[0-9]"}},
    }

    found = await what_if(world, changed)

    assert await world.count() == before
    assert (found["examined"], found["next"]) == (12, "")
    assert {one["common_name"] for one in found["failures"]} == {"device-10", "device-11"}
    assert {one["code"] for one in found["failures"]} == {"subject_not_allowed"}
    assert {one["serial_number"] for one in found["failures"]} <= set(serial_numbers)
    assert found["differing"] == 10
    assert [(one["part"], one["certificates"]) for one in found["differences"]] == [
        ("not_after", 10)
    ]
    assert (await what_if(world, stored))["differing"] == 0


async def test_a_replay_goes_page_by_page_and_meets_each_enrolment_once(world: World) -> None:
    await world.hierarchy()
    serial_numbers = await enrolled(world, 7)
    changed = {"honor_subject": True, "crypto_enforcement": {"enabled": True}}
    seen: list[str] = []
    after = ""
    while True:
        page = await what_if(world, changed, limit=3, after=after)
        seen += [one["serial_number"] for one in page["failures"]]
        after = page["next"]
        if not after:
            break

    assert seen == sorted(serial_numbers)


async def test_a_replay_knows_only_what_its_profile_issued(world: World) -> None:
    await world.hierarchy()
    await world.profile(replace(DEVICE_PROFILE, id="other"))
    await enrolled(world, 2)
    await world.issue("another", profile_id="other")
    await world.issue("inline", profile=replace(DEVICE_PROFILE, id=""))

    assert (await what_if(world, {"honor_subject": True}))["examined"] == 2


async def test_a_senseless_change_is_not_replayed(world: World) -> None:
    await world.hierarchy()

    answer = await world.api.post(
        "/v1/profiles/device/what-if",
        json={"profile": {"subject_rules": {"patterns": {"common_name": "(a"}}}},
    )

    assert (answer.status_code, answer.json()["code"]) == (400, "pattern_malformed")
    assert answer.json()["field"] == "subject_rules.patterns.common_name"


@pytest.mark.parametrize("kind", ["patterns", "allowed", "names", "validity"])
async def test_replay_and_issuing_agree(world: World, kind: str) -> None:
    await world.hierarchy()
    changes: dict[str, dict[str, Any]] = {
        "patterns": {"subject_rules": SubjectRules(patterns=Subject(common_name="[a-z]+"))},
        "allowed": {
            "alternative_names": AlternativeNameRules(
                allowed=(AllowedNames(NameType.DNS, (r"[^.]+\.other\.example",)),)
            )
        },
        "names": {
            "honor_extensions": False,
            "alternative_names": AlternativeNameRules(
                names=(NamedValue(NameType.DNS, "{csr.ou}.example"),)
            ),
        },
        "validity": {
            "validity": Validity(duration=timedelta(days=900)),
            "minimum_validity": timedelta(days=800),
        },
    }
    changed = replace(DEVICE_PROFILE, **changes[kind])
    await enrolled(world, 1)
    page = await world.ca.what_if.replay("device", changed, limit=10)
    await world.ca.update_profile(changed, caller=ALICE)
    issued = await world.api.post(
        "/v1/cas/issuing/certificates/sign",
        json={"csr": wire_csr(csr("device-0", extensions=[SAN]))},
    )

    assert issued.status_code == 400
    assert [one.code for one in page.replayed.failures] == [issued.json()["code"]]
