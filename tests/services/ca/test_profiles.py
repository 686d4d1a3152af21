"""Issuance profiles, by both of their routes."""

from __future__ import annotations

from typing import Any

import httpx

from .world import World

ORIGINAL: dict[str, Any] = {
    "name": "Devices",
    "description": "For devices",
    "validity": {"type": "Duration", "duration": "365d"},
    "sign_as_ca": False,
    "honor_key_usage": False,
    "key_usage": ["DigitalSignature"],
    "honor_extended_key_usages": False,
    "extended_key_usages": ["clientauth"],
    "honor_subject": True,
    "subject": {},
    "honor_extensions": True,
    "crypto_enforcement": {
        "enabled": True,
        "allow_rsa_keys": True,
        "allowed_rsa_key_sizes": [2048],
        "allow_ecdsa_keys": True,
        "allowed_ecdsa_key_sizes": None,
    },
}


def without_warnings(answer: httpx.Response) -> dict[str, Any]:
    """The profile of an answer to a write; what GET shows."""
    profile: dict[str, Any] = answer.json()
    profile.pop("warnings", None)
    return profile


async def test_a_profile_is_created_read_replaced_and_deleted(world: World) -> None:
    created = await world.api.post("/v1/profiles", json=ORIGINAL)

    assert created.status_code == 201, created.text
    profile = without_warnings(created)
    assert profile == ORIGINAL | {
        "id": profile["id"],
        "validity": {"type": "Duration", "duration": "1y1d", "time": "0001-01-01T00:00:00Z"},
        "extended_key_usages": ["ClientAuth"],
        "subject": dict.fromkeys(
            (
                *("common_name", "organization", "organization_unit"),
                *("country", "state", "locality"),
            ),
            "",
        ),
    }
    path = f"/v1/profiles/{profile['id']}"
    assert (await world.api.get(path)).json() == profile

    replaced = await world.api.put(path, json={**profile, "name": "Other"})

    assert without_warnings(replaced) == profile | {"name": "Other"}
    listed = (await world.api.get("/v1/profiles?filter=name[ct]the")).json()
    assert listed == {"next": "", "list": [without_warnings(replaced)]}
    assert (await world.api.delete(path)).status_code == 204
    for answer in (
        await world.api.get(path),
        await world.api.put(path, json=ORIGINAL),
        await world.api.delete(path),
    ):
        assert (answer.status_code, answer.json()["err"]) == (404, "issuance profile not found")
    assert await world.event_types() == [
        *("profile.issuance.create", "profile.issuance.update", "profile.issuance.delete"),
    ]
    assert (await world.records())[-1]["data"] == {"ProfileID": profile["id"]}


async def test_the_seeds_profile_is_taken(world: World) -> None:
    seed = {
        "id": "iot-profile",
        "ca_id": "production-ca",
        "extensions": {"authority_info_access": {"ocsp_server": ["http://ocsp.yourorg.com"]}},
        "crl_distribution_points": ["http://crl.yourorg.com/ca/production-ca.crl"],
    }

    created = await world.api.post("/v1/issuanceprofiles", json=seed)

    assert created.status_code == 201, created.text
    profile = without_warnings(created)
    assert (profile["id"], profile["ca_id"]) == ("iot-profile", "production-ca")
    assert profile["crl_distribution_points"] == seed["crl_distribution_points"]
    assert profile["extensions"]["authority_info_access"]["ocsp_server"] == [
        "http://ocsp.yourorg.com"
    ]
    assert (await world.api.get("/v1/profiles/iot-profile")).json() == profile
    put = await world.api.put("/v1/profiles/iot-profile", json=profile)
    assert without_warnings(put) == profile
    again = await world.api.post("/v1/issuanceprofiles", json=seed)
    assert (again.status_code, again.json()["code"]) == (409, "profile_exists")


async def test_what_the_originals_profile_lacks_survives_its_clients(world: World) -> None:
    ours: dict[str, Any] = {
        "minimum_validity": "1d",
        "path_length": 1,
        "ca_id": "production-ca",
        "extensions": {
            "authority_info_access": {
                "ocsp_server": ["http://ocsp.example"],
                "ca_issuers": ["http://ca.example"],
            }
        },
        "crl_distribution_points": ["http://crl.example"],
    }
    created = without_warnings(await world.api.post("/v1/profiles", json={**ORIGINAL, **ours}))
    path = f"/v1/profiles/{created['id']}"

    kept = await world.api.put(path, json={**ORIGINAL, "name": "Other"})

    assert kept.status_code == 200, kept.text
    assert without_warnings(kept) == created | {"name": "Other"}
    nothing = {"minimum_validity": None, "path_length": None, "ca_id": "", "extensions": {}}
    cleared = await world.api.put(
        path,
        json={
            **ORIGINAL,
            **nothing,
            "extensions": {"authority_info_access": {}},
            "crl_distribution_points": [],
        },
    )
    assert not set(ours) & set(cleared.json()), cleared.text


async def test_a_profile_in_use_stays(world: World) -> None:
    await world.hierarchy()
    before = await world.count()

    deleted = await world.api.delete("/v1/profiles/device")
    turned = await world.api.put("/v1/profiles/device", json={"sign_as_ca": True})

    assert (deleted.status_code, deleted.json()["code"]) == (409, "profile_in_use")
    assert (turned.status_code, turned.json()["code"]) == (409, "profile_in_use")
    assert await world.count() == before


SENSELESS: list[dict[str, Any]] = [
    {"id": "a b\n"},
    {"name": "x" * 2000},
    {"validity": {"type": "Duration", "duration": "-1h"}},
    {"validity": {"type": "Duration", "duration": "forever"}},
    {"validity": {"type": "Time", "time": "2001-01-01"}},
    {"validity": {"type": "Sometimes"}},
    {"minimum_validity": "-1h"},
    {"path_length": -1},
    {"key_usage": ["Everything"]},
    {"key_usage": ["EncipherOnly"]},
    {"extended_key_usages": ["FlySwatting"]},
    {"subject": {"country": "Nowhere"}},
    {"sign_as_ca": "yes"},
    {"crl_distribution_points": ["javascript:alert(1)"]},
    {"extensions": {"authority_info_access": {"ocsp_server": ["http://a b"]}}},
    {"crypto_enforcement": {"allowed_rsa_key_sizes": ["2048"]}},
    {"colour": "red"},
]


async def test_a_profile_that_makes_no_sense_is_refused(world: World) -> None:
    before = await world.count()

    for change in SENSELESS:
        answer = await world.api.post("/v1/profiles", json={**ORIGINAL, **change})

        assert answer.status_code == 400, f"{change}: {answer.text}"
        assert {"err", "code"} <= set(answer.json())
    assert await world.count() == before
