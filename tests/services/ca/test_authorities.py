"""CAs: how they are made, found and described."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509

from lamassu.kernel.errors import Conflict, Unavailable
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.kernel.x509.names import Subject
from lamassu.services.ca.contract import (
    CertificateStatus,
    CryptoEnforcement,
    IssuanceProfile,
    RevocationReason,
    Validity,
)
from lamassu.services.ca.model import StatusChange
from lamassu.services.kms.contract import KeyAlgorithm, KeyPurpose, KeySpec
from tests.support.judges import lint_certificate, openssl_verify

from .world import ALICE, START, YEAR, World, csr, from_wire, parsed


def body(**changes: Any) -> dict[str, Any]:
    """The original's CreateCA, with changes; `None` takes a field away."""
    fields: dict[str, Any] = {
        "id": "new",
        "subject": {"common_name": "New CA"},
        "key_metadata": {"type": "ECDSA", "bits": 256},
        "ca_expiration": {"type": "Duration", "duration": "1y"},
        "profile_id": "device",
        "metadata": {"team": "blue"},
    }
    return {key: value for key, value in {**fields, **changes}.items() if value is not None}


async def test_a_root_ca_is_made(world: World) -> None:
    await world.profile()

    answer = await world.api.post("/v1/cas", json=body())

    assert answer.status_code == 201, answer.text
    ca = answer.json()
    assert set(ca) == {
        *("id", "certificate", "serial_number", "metadata", "creation_ts", "level"),
        "profile_id",
    }
    assert (ca["id"], ca["level"], ca["profile_id"]) == ("new", 0, "device")
    assert ca["metadata"] == {"team": "blue"}
    assert ca["creation_ts"] == "2026-05-01T12:00:00Z"
    certificate = ca["certificate"]
    assert certificate["type"] == "MANAGED"
    assert certificate["is_ca"] is True
    assert certificate["engine_id"] == "software"
    assert certificate["issuer"] == certificate["subject"]
    assert certificate["issuer_metadata"] == {
        "serial_number": ca["serial_number"],
        "id": "new",
        "level": 0,
    }
    assert certificate["extensions"]["key_usage"] == ["CertSign", "CRLSign"]
    x509_certificate = from_wire(certificate["certificate"])
    assert x509_certificate.not_valid_after_utc == START + timedelta(days=364)
    assert (await world.api.get("/v1/cas/new")).json() == ca
    listed = await world.api.get("/v1/cas/new/certificates")
    assert [c["serial_number"] for c in listed.json()["list"]] == [ca["serial_number"]]
    assert await world.event_types() == ["profile.issuance.create", "ca.create"]
    assert (await world.records())[-1]["data"] == ca


async def test_the_seed_makes_a_ca(world: World) -> None:
    """The body of the seed's guide, with a profile that makes it subordinate (decision 16)."""
    await world.profile()
    await world.root()
    profile = await world.api.post(
        "/v1/issuanceprofiles",
        json={
            "id": "intermediate-ca-profile",
            "ca_id": "root",
            "sign_as_ca": True,
            "extensions": {"authority_info_access": {"ocsp_server": ["http://ocsp.acme.test"]}},
        },
    )
    assert profile.status_code == 201, profile.text
    seed = {
        "type": "MANAGED",
        "issuance_profile_id": "intermediate-ca-profile",
        "engine_id": "software",
        "subject": {
            "common_name": "Lamassu Intermediate CA",
            "organization": "YourOrg",
            "country": "US",
        },
        "key_metadata": {"type": "ECDSA", "bits": 384},
        "ca_expiration": {"type": "duration", "duration": "43800h"},
    }

    answer = await world.api.post("/v1/cas", json=seed)

    assert answer.status_code == 201, answer.text
    ca = answer.json()
    assert (ca["level"], ca["profile_id"]) == (1, "")
    assert ca["certificate"]["issuer_metadata"]["id"] == "root"
    assert ca["certificate"]["key_metadata"] == {"type": "ECDSA", "bits": 384, "strength": "HIGH"}
    certificate = from_wire(ca["certificate"]["certificate"])
    access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess)
    assert access.value[0].access_location.value == "http://ocsp.acme.test"
    refused = await world.api.post(
        f"/v1/cas/{ca['id']}/certificates/sign",
        json={"csr": base64.b64encode(_pem(csr())).decode()},
    )
    assert refused.json()["code"] == "profile_missing"


def _pem(der: bytes) -> bytes:
    from lamassu.kernel.x509.pem import pem_of

    return pem_of(der, "CERTIFICATE REQUEST")


async def test_the_seeds_profile_for_devices_becomes_the_default(world: World) -> None:
    await world.profile()

    answer = await world.api.post(
        "/v1/cas", json=body(profile_id=None, issuance_profile_id="device")
    )

    assert (answer.json()["level"], answer.json()["profile_id"]) == (0, "device")


async def test_path_lengths_count_down(world: World) -> None:
    await world.profile()
    await world.root(path_length=2)
    await world.authority("one", parent="root", duration=YEAR)
    await world.authority("zero", parent="one", duration=YEAR, path_length=0)
    before = await world.count()

    for parent, path_length in (("zero", None), ("one", 1), ("root", 2)):
        with pytest.raises(Exception, match="path length") as refusal:
            await world.authority("more", parent=parent, path_length=path_length)
        assert refusal.value.code == "path_length_exceeded"  # type: ignore[attr-defined]

    lengths = [
        certificate_facts((await world.ca.get_ca(ca_id)).certificate.der).path_length
        for ca_id in ("root", "one", "zero")
    ]
    assert lengths == [2, 1, 0]
    assert await world.count() == before
    leaf = await world.issue(ca_id="zero")
    path = [member.certificate.der for member in await world.ca.path_of("zero")]
    accepted, said = openssl_verify(
        leaf.der, anchors=path[-1:], intermediates=path[:-1], at=int(START.timestamp()) + 60
    )
    assert accepted, said
    assert [lint_certificate(der) for der in path] == [[], [], []]


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"id": "root"}, 409, "ca_exists"),
    ({"id": "a/b"}, 400, "id_malformed"),
    ({"id": "cn"}, 400, "id_malformed"),
    ({"id": "x" * 200}, 400, "id_malformed"),
    ({"id": "-"}, 400, "id_malformed"),
    ({"subject": None}, 400, "missing_field"),
    ({"subject": {}}, 400, "subject_empty"),
    ({"subject": {"common_name": "x" * 65}}, 400, "subject_malformed"),
    ({"subject": {"common_name": "CA", "country": "Portugal"}}, 400, "subject_malformed"),
    ({"subject": {"common_name": 7}}, 400, "wrong_type"),
    ({"parent_id": "none"}, 404, "ca_not_found"),
    ({"profile_id": "none"}, 404, "profile_not_found"),
    ({"profile_id": None}, 400, "missing_field"),
    ({"profile_id": "for-cas"}, 400, "profile_signs_as_ca"),
    ({"ca_issuance_profile_id": "device"}, 400, "profile_not_for_cas"),
    ({"ca_issuance_profile_id": "none"}, 404, "profile_not_found"),
    ({"ca_issuance_profile": {"honor_subject": True}}, 400, "profile_not_for_cas"),
    ({"engine_id": "none"}, 400, "engine_unknown"),
    ({"key_metadata": None}, 400, "missing_field"),
    ({"key_metadata": {"type": "ECDSA", "bits": 224}}, 400, "key_not_supported"),
    ({"key_metadata": {"type": "RSA", "bits": 1024}}, 400, "key_not_supported"),
    ({"key_metadata": {"type": "ecdsa", "bits": 256}}, 400, "key_not_supported"),
    ({"key_metadata": {"type": "ECDSA", "bits": "256"}}, 400, "wrong_type"),
    ({"ca_expiration": None}, 400, "missing_field"),
    ({"ca_expiration": {"type": "Duration"}}, 400, "missing_field"),
    ({"ca_expiration": {"type": "Never", "duration": "1y"}}, 400, "invalid_value"),
    ({"ca_expiration": {"type": "Duration", "duration": "-1y"}}, 400, "validity_out_of_range"),
    ({"ca_expiration": {"type": "Duration", "duration": "999y"}}, 400, "invalid_duration"),
    ({"ca_expiration": {"type": "Duration", "duration": 5}}, 400, "invalid_duration"),
    (
        {"ca_expiration": {"type": "Time", "time": "2020-01-01T00:00:00Z"}},
        400,
        "validity_out_of_range",
    ),
    (
        {"parent_id": "root", "ca_expiration": {"type": "Duration", "duration": "20y"}},
        400,
        "validity_exceeds_issuer",
    ),
    ({"parent_id": "root", "subject": {"common_name": "ROOT  ca"}}, 400, "subject_is_issuer"),
    ({"surprise": True}, 400, "unknown_field"),
    ({"type": "IMPORTED"}, 400, "invalid_value"),
]


async def test_a_refused_ca_leaves_nothing(world: World) -> None:
    await world.profile()
    await world.profile(IssuanceProfile(id="for-cas", sign_as_ca=True))
    made = await world.api.post(
        "/v1/cas",
        json=body(
            id="root",
            subject={"common_name": "Root CA"},
            ca_expiration={"type": "Duration", "duration": "10y"},
        ),
    )
    assert made.status_code == 201
    before = await world.count()

    for changes, status, code in REFUSED:
        answer = await world.api.post("/v1/cas", json=body(**changes))

        found = (answer.status_code, answer.json()["code"])
        assert found == (status, code), f"{changes}: {answer.text}"
        assert await world.count() == before, changes
        # the texts that the original's clients compare
        text = {"profile_not_for_cas": "struct validation error", "ca_not_found": "CA not found"}
        assert answer.json()["err"] == text.get(code, answer.json()["err"])


async def test_a_parent_that_may_not_sign_makes_no_ca(world: World) -> None:
    await world.hierarchy()
    await world.ca.change_ca_status(
        "between", StatusChange(CertificateStatus.INACTIVE), caller=ALICE
    )
    before = await world.count()

    answer = await world.api.post("/v1/cas", json=body(parent_id="between"))

    assert (answer.status_code, answer.json()["err"]) == (400, "CA Status inconsistent")
    assert await world.count() == before


async def test_no_existing_key_becomes_a_cas(world: World) -> None:
    """Attack on security rule 9."""
    await world.profile()
    root = await world.root()
    general = await world.kms.generate(
        KeySpec(KeyAlgorithm.ECDSA, 256),
        purpose=KeyPurpose.GENERAL,
        name="mine",
        caller=ALICE,
    )
    platforms = await world.kms.generate(
        KeySpec(KeyAlgorithm.ECDSA, 256),
        purpose=KeyPurpose.PLATFORM,
        name="ours",
        caller=ALICE,
    )
    before = await world.count()

    keys = ((root.key_id, 403), (general.key_id, 403), (platforms.key_id, 404), ("none", 404))
    for key_id, status in keys:
        key = {"key_id": key_id, "type": "ECDSA", "bits": 256}
        answer = await world.api.post("/v1/cas", json=body(key_metadata=key))
        assert answer.status_code == status, answer.text

    assert await world.count() == before


async def test_two_at_once_make_one_ca_and_keep_one_key(world: World) -> None:
    await world.profile()

    answers = await asyncio.gather(*(world.api.post("/v1/cas", json=body()) for _ in range(3)))

    assert sorted(answer.status_code for answer in answers) == [201, 409, 409]
    assert {a.json()["err"] for a in answers if a.status_code == 409} == {"CA already exists"}
    counted = await world.count()
    assert (counted["ca_cas"], counted["ca_certificates"], counted["ca keys"]) == (1, 1, 1)


async def test_a_signature_that_fails_leaves_no_key(world: World) -> None:
    await world.profile()
    before = await world.count()

    async def out_of_reach(*arguments: object, **named: object) -> object:
        raise Unavailable("the engine does not answer")

    world.kms.use = out_of_reach  # type: ignore[method-assign, assignment]
    answer = await world.api.post("/v1/cas", json=body())

    assert answer.status_code == 503
    assert await world.count() == before


async def test_a_profile_shapes_the_cas_own_certificate(world: World) -> None:
    await world.profile()
    own = {
        "sign_as_ca": True,
        "validity": {"type": "Time", "time": "2030-01-01T00:00:00Z"},
        "path_length": 3,
        "key_usage": ["DigitalSignature"],
    }

    ca = (await world.api.post("/v1/cas", json=body(ca_issuance_profile=own))).json()

    facts = certificate_facts((await world.ca.get_ca("new")).certificate.der)
    assert ca["certificate"]["valid_to"] == "2030-01-01T00:00:00Z"
    assert facts.path_length == 3
    assert facts.key_usage == ("DigitalSignature", "CertSign", "CRLSign")


async def test_enforcement_of_the_own_profile_holds_for_the_cas_key(world: World) -> None:
    await world.profile()
    own = IssuanceProfile(
        id="strict",
        sign_as_ca=True,
        validity=Validity(duration=YEAR),
        crypto_enforcement=CryptoEnforcement(enabled=True, allow_rsa_keys=True),
    )
    await world.profile(own)
    before = await world.count()

    answer = await world.api.post("/v1/cas", json=body(ca_issuance_profile_id="strict"))

    assert answer.json()["code"] == "crypto_enforcement"
    assert await world.count() == before


async def test_cas_are_listed_filtered_sorted_and_paged(world: World) -> None:
    await world.hierarchy()
    await world.ca.change_ca_status(
        "other",
        StatusChange(CertificateStatus.REVOKED, RevocationReason.SUPERSEDED),
        caller=ALICE,
    )

    async def ids(query: str) -> list[str]:
        answer = await world.api.get(f"/v1/cas?{query}")
        assert answer.status_code == 200, answer.text
        return [ca["id"] for ca in answer.json()["list"]]

    assert await ids("sort_by=id&sort_mode=desc") == ["root", "other", "issuing", "between"]
    assert await ids("filter=subject.common_name[ct_ic]ISSUING") == ["issuing"]
    assert await ids("filter=status[eq]REVOKED") == ["other"]
    assert await ids("filter=status[eq]ACTIVE&filter=issuer_meta.id[eq]between") == ["issuing"]
    assert await ids("filter=valid_to[af]2033-01-01&sort_by=valid_to") == ["root"]
    assert await ids("filter=id[in]root,issuing&sort_by=valid_to") == ["issuing", "root"]
    assert await ids("filter=extensions.key_usage[ct]CertSign&page_size=1") == ["between"]
    first = (await world.api.get("/v1/cas?page_size=3&sort_by=id")).json()
    rest = (await world.api.get("/v1/cas", params={"bookmark": first["next"]})).json()
    assert [ca["id"] for ca in first["list"] + rest["list"]] == [
        *("between", "issuing", "other", "root"),
    ]
    assert rest["next"] == ""
    assert (await world.api.get("/v1/cas?filter=colour[eq]red")).status_code == 400
    by_name = (await world.api.get("/v1/cas/cn/The%20issuing%20CA")).json()
    assert [ca["id"] for ca in by_name["list"]] == ["issuing"]
    assert (await world.api.get("/v1/cas/cn/nobody")).json() == {"next": "", "list": []}
    world.clock.advance(3 * YEAR)
    assert await ids("filter=status[eq]EXPIRED") == ["issuing"]


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_metadata_is_patched_but_for_the_systems_own(world: World, method: str) -> None:
    await world.hierarchy()
    issued = await world.issue(owner="line", device_id="d")
    patches = {
        "Patches": [
            {"op": "add", "path": "/colour", "value": "red"},
            {"op": "remove", "path": "/lamassu.io~1ra~1attached-to"},
            {"op": "add", "path": "/lamassu.io~1ca~1reissued-as", "value": "00"},
        ]
    }

    ca = await world.api.request(method, "/v1/cas/root/metadata", json=patches)
    certificate = await world.api.request(
        method, f"/v1/certificates/{issued.serial_number}/metadata", json=patches
    )

    attached = {"authorized_by": {"ra_id": "line"}, "device_id": "d"}
    assert ca.json()["metadata"] == {"colour": "red"}
    assert certificate.json()["metadata"] == {
        "colour": "red",
        "lamassu.io/ra/attached-to": attached,
    }
    stored = await world.ca.find_certificate(issued.serial_number)
    assert stored is not None
    assert stored.metadata == certificate.json()["metadata"]
    assert (await world.event_types())[-2:] == [
        "ca.metadata.update",
        "certificate.metadata.update",
    ]
    before = await world.count()
    for path in ("/v1/cas/root/metadata", f"/v1/certificates/{issued.serial_number}/metadata"):
        bad = {"patches": [{"op": "replace", "path": "/none", "value": 1}]}
        assert (await world.api.request(method, path, json=bad)).status_code == 400
        missing = await world.api.request(method, path, json={})
        assert (missing.status_code, missing.json()["err"]) == (400, "struct validation error")
    unknown = await world.api.request(method, "/v1/cas/none/metadata", json={"patches": []})
    assert (unknown.status_code, unknown.json()["err"]) == (404, "CA not found")
    assert await world.count() == before
    assert await world.issue(), "a CA whose row changed goes on issuing"


async def test_the_default_profile_is_changed(world: World) -> None:
    await world.hierarchy()
    short = IssuanceProfile(id="short", validity=Validity(duration=timedelta(days=29)))
    await world.profile(short)
    await world.profile(replace(short, id="for-cas", sign_as_ca=True))

    changed = await world.api.post("/v1/cas/issuing/profile", json={"profile_id": "short"})

    assert (changed.status_code, changed.json()["profile_id"]) == (200, "short")
    assert (await world.issue()).not_after == START + timedelta(days=29)
    for profile_id, status in (("none", 404), ("", 400), ("for-cas", 400)):
        answer = await world.api.post("/v1/cas/issuing/profile", json={"profile_id": profile_id})
        assert answer.status_code == status


async def test_a_ca_key_signs_only_what_could_be_no_certificate(world: World) -> None:
    """Attack on security rule 8, by the CA's own route."""
    await world.hierarchy()
    leaf = parsed(await world.issue())

    async def sign(message: bytes, message_type: str = "raw") -> Any:
        return await world.api.post(
            "/v1/cas/issuing/signature/sign",
            json={
                "message": base64.b64encode(message).decode(),
                "message_type": message_type,
                "signature_algorithm": "ECDSA_SHA_256",
            },
        )

    assert (await sign(leaf.tbs_certificate_bytes)).status_code == 403
    assert (await sign(b"\x30\x80\x00\x00")).status_code == 403
    assert (await sign(b"d" * 32, "hash")).status_code == 403
    good = await sign(b"a message")
    assert good.status_code == 200, good.text
    assert (await world.event_types())[-1] == "ca.sign.signature"
    verified = await world.api.post(
        "/v1/cas/issuing/signature/verify",
        json={
            "message": base64.b64encode(b"a message").decode(),
            "message_type": "raw",
            "signature_algorithm": "ECDSA_SHA_256",
            "signature": good.json()["signed_data"],
        },
    )
    assert verified.json() == {"valid": True}
    empty = await world.api.post("/v1/cas/issuing/signature/sign", json={})
    assert (empty.status_code, empty.json()["err"]) == (400, "struct validation error")


async def test_engines_and_counts(world: World) -> None:
    await world.hierarchy()
    await world.issue()
    revoked = await world.issue("device-2")
    await world.ca.revoke(revoked.serial_number, RevocationReason.UNSPECIFIED, caller=ALICE)

    [engine] = (await world.api.get("/v1/engines")).json()
    stats = (await world.api.get("/v1/stats")).json()
    issuing = (await world.api.get("/v1/stats/issuing")).json()
    some = (await world.api.get("/v1/stats?cert_filter=is_ca[eq]true")).json()

    assert (engine["id"], engine["default"]) == ("software", True)
    assert stats["cas"] == {
        "total": 4,
        "engine_distribution": {"software": 4},
        "status_distribution": {"ACTIVE": 4, "EXPIRED": 0, "REVOKED": 0},
    }
    assert stats["certificates"] == {
        "total": 6,
        "ca_distribution": {},
        "status_distribution": {"ACTIVE": 5, "EXPIRED": 0, "REVOKED": 1},
    }
    assert issuing == {"ACTIVE": 1, "EXPIRED": 0, "REVOKED": 1}
    assert some["certificates"]["total"] == 4
    assert (await world.api.get("/v1/stats/none")).json()["ACTIVE"] == 0
    assert (await world.api.get("/v1/stats?ca_filter=status[eq]ACTIVE")).status_code == 400


async def test_a_ca_is_found_by_its_key_identifier_and_has_a_path(world: World) -> None:
    await world.hierarchy()
    issuing = await world.ca.get_ca("issuing")

    assert await world.ca.find_ca_by_key_id(issuing.certificate.subject_key_id) == issuing
    assert await world.ca.find_ca_by_key_id("00") is None
    assert [ca.id for ca in await world.ca.path_of("issuing")] == ["issuing", "between", "root"]
    assert [ca.id for ca in await world.ca.list_cas()] == ["root", "between", "issuing", "other"]


async def test_a_ca_made_by_code_keeps_the_rules(world: World) -> None:
    await world.profile()
    root = await world.root()

    with pytest.raises(Conflict, match="CA already exists"):
        await world.root()

    assert root.certificate.subject == Subject(
        common_name="The root CA", organization="Acme", country="PT"
    )
