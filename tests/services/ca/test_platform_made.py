"""Certificates that come from elsewhere, and those whose key the platform makes."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lamassu.kernel.errors import Conflict, Unavailable
from lamassu.platform.messaging import EventBus
from lamassu.services.ca import events
from lamassu.services.kms.contract import Binding, Key, KeyAlgorithm, KeyPurpose, KeySpec
from lamassu.services.kms.model import NewKey
from lamassu.services.kms.usecases.sign_message import Message, MessageType
from tests.support.pki import make

from .test_imports import a_ca, b64, imported, strange, wire, with_key, without_key
from .world import ALICE, START, YEAR, World, csr, from_wire, parsed

P256 = KeySpec(KeyAlgorithm.ECDSA, 256)
ORDER = {
    "ca_id": "issuing",
    "key_spec": {"type": "ECDSA", "bits": 256, "engine_id": "", "key_identifier": ""},
    "subject": {"common_name": "server-1", "organization": "Acme"},
    "issuance_profile_id": "",
    "metadata": {"site": "Ulm"},
}


async def general_keys(world: World) -> int:
    counts = await world.kms.count_keys()
    return counts.total - (await world.count())["ca keys"]


async def refused(world: World, path: str, body: Any) -> tuple[int, str, str | None]:
    """Status, code and field; nothing was stored, and no key kept."""
    before = (await world.count(), await general_keys(world))
    answer = await world.api.post(path, json=body)
    assert (await world.count(), await general_keys(world)) == before
    return answer.status_code, answer.json()["code"], answer.json().get("field")


# --- imported certificates ---------------------------------------------------------------------


async def test_a_certificate_of_an_imported_ca_is_known_by_ocsp_and_crl(world: World) -> None:
    ca = a_ca()
    await imported(world, without_key(ca))
    leaf = make("server-1", issuer=ca, not_after=START + YEAR)

    answer = await world.api.post(
        "/v1/certificates/import", json={"certificate": wire(leaf), "metadata": {"site": "Ulm"}}
    )

    assert answer.status_code == 201, answer.text
    shown = answer.json()
    assert from_wire(shown["certificate"]) == leaf.certificate
    assert (shown["type"], shown["status"]) == ("IMPORTED_WITHOUT_KEY", "ACTIVE")
    assert (shown["metadata"], shown["engine_id"]) == ({"site": "Ulm"}, "")
    assert shown["issuer_metadata"]["id"] == "brought"
    assert (await world.ca.standing("brought", shown["serial_number"])).known
    revoked = await world.api.put(
        f"/v1/certificates/{shown['serial_number']}/status",
        json={"status": "REVOKED", "revocation_reason": "KeyCompromise"},
    )
    assert revoked.status_code == 200
    [entry] = await world.ca.revoked_under("brought")
    assert entry.serial_number == shown["serial_number"]
    assert "certificate.import" in await world.event_types()


async def test_a_certificate_that_no_ca_here_signed_is_never_ours(world: World) -> None:
    """Security rule 14: whatever issuer and key identifier it shows."""
    await world.hierarchy()
    root = await world.ca.get_ca("root")
    thief = a_ca("The root CA")
    forged = (
        x509.CertificateBuilder()
        .subject_name(make("device-1").name)
        .issuer_name(parsed(root).subject)
        .public_key(make("x").key.public_key())
        .serial_number(0x5117)
        .not_valid_before(START - YEAR)
        .not_valid_after(START + YEAR)
        .add_extension(
            x509.AuthorityKeyIdentifier(bytes.fromhex(root.certificate.subject_key_id), None, None),
            False,
        )
        .sign(thief.key, SHA256())
    )

    answer = await world.api.post(
        "/v1/certificates/import",
        json={"certificate": b64(forged.public_bytes(Encoding.PEM))},
    )

    assert answer.status_code == 201
    assert answer.json()["issuer_metadata"] == {"id": "-", "serial_number": "-", "level": -1}
    assert not (await world.ca.standing("root", "5117")).known
    revoke = {"status": "REVOKED", "revocation_reason": "KeyCompromise"}
    assert (await world.api.put("/v1/certificates/5117/status", json=revoke)).status_code == 200
    assert await world.ca.revoked_under("root") == []
    assert "root" not in world.va.told


async def test_an_expired_certificate_can_be_kept(world: World) -> None:
    ca = a_ca()
    await imported(world, without_key(ca))
    leaf = make("old", issuer=ca, not_before=START - 2 * YEAR, not_after=START - YEAR)

    answer = await world.api.post("/v1/certificates/import", json={"certificate": b64(leaf.der)})

    assert (answer.status_code, answer.json()["status"]) == (201, "EXPIRED")


async def test_a_bad_certificate_is_not_kept(world: World) -> None:
    path = "/v1/certificates/import"
    ca = a_ca()
    await imported(world, with_key(ca, profile_id=""))
    leaf = make("server-1", issuer=ca, not_after=START + YEAR, serial_number=7)
    good = {"certificate": wire(leaf)}
    assert (await world.api.post(path, json=good)).status_code == 201
    namesake = make("server-2", issuer=ca, not_after=START + YEAR, serial_number=7)

    assert await refused(world, path, {}) == (400, "missing_field", "certificate")
    assert await refused(world, path, {"certificate": "aGk="}) == (
        400,
        "invalid_pem",
        "certificate",
    )
    assert await refused(world, path, {"certificate": b64(leaf.der[:-5])}) == (
        400,
        "certificate_malformed",
        "certificate",
    )
    assert await refused(world, path, good) == (409, "certificate_exists", "certificate")
    taken = await refused(world, path, {"certificate": wire(namesake)})
    assert taken[:2] == (409, "serial_number_taken")
    await world.api.post(
        "/v1/cas/brought/status", json={"status": "REVOKED", "revocation_reason": "CACompromise"}
    )
    late = {"certificate": wire(make("late", issuer=ca, not_after=START + YEAR))}
    assert await refused(world, path, late) == (400, "issuer_revoked", "certificate")


# --- certificates that the platform makes ------------------------------------------------------


async def created(world: World, **changed: Any) -> Any:
    answer = await world.api.post("/v1/certificates", json=ORDER | changed)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_the_platform_makes_a_key_and_its_certificate(world: World) -> None:
    await world.hierarchy()

    shown = await created(world)

    certificate = from_wire(shown["certificate"])
    certificate.verify_directly_issued_by(parsed(await world.ca.get_ca("issuing")))
    assert (shown["type"], shown["engine_id"]) == ("MANAGED", "software")
    assert shown["subject"]["common_name"] == "server-1"
    assert shown["metadata"] == {"site": "Ulm"}
    key = await world.kms.get(shown["subject_key_id"], purpose=KeyPurpose.GENERAL)
    assert key.public_key == certificate.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    assert (key.name, key.spec) == ("Key For Cert CN=server-1", P256)
    assert key.bindings == (Binding("certificate", shown["serial_number"]),)
    with pytest.raises(Conflict, match=shown["serial_number"]):
        await world.kms.delete_named(key.key_id, caller=ALICE)
    assert (await world.event_types())[-2:] == ["ca.sign.certificate", "certificate.create"]


async def test_an_rsa_key_is_made_as_asked(world: World) -> None:
    await world.hierarchy()

    shown = await created(world, key_spec={"type": "RSA", "bits": 2048})

    public = from_wire(shown["certificate"]).public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    assert public.key_size == 2048


@pytest.mark.parametrize(("kind", "size"), [("Ed25519", 256), ("ML-DSA", 44)])
async def test_a_newer_key_is_made_where_the_profile_allows_it(
    world: World, kind: str, size: int
) -> None:
    await world.hierarchy()
    order = ORDER | {"key_spec": {"type": kind, "bits": size}}
    assert await refused(world, "/v1/certificates", order) == (400, "key_not_allowed", "key_spec")
    enforcement = {"enabled": True, "allow_ed25519_keys": True, "allow_ml_dsa_keys": True}
    profile = {"name": "newer", "honor_subject": True, "crypto_enforcement": enforcement}

    shown = await created(world, key_spec=order["key_spec"], issuance_profile=profile)

    assert (shown["key_metadata"]["type"], shown["type"]) == (kind, "MANAGED")


async def a_general_key(world: World) -> Key:
    return await world.kms.create_named(NewKey(P256, "mine"), caller=ALICE)


@pytest.mark.parametrize("by", ["id", "URI"])
async def test_a_general_key_that_is_here_gets_a_certificate(world: World, by: str) -> None:
    await world.hierarchy()
    key = await a_general_key(world)
    uri = f"pkcs11:token-id=software;id={key.key_id};type=private"
    named = key.key_id if by == "id" else uri

    shown = await created(world, key_spec={"key_identifier": named})

    assert shown["subject_key_id"] == key.key_id
    bound = await world.kms.get(key.key_id, purpose=KeyPurpose.GENERAL)
    assert bound.bindings == (Binding("certificate", shown["serial_number"]),)


async def test_an_inline_profile_decides_the_usages(world: World) -> None:
    await world.hierarchy()
    profile = {
        "name": "servers",
        "validity": {"type": "Duration", "duration": "90d"},
        "honor_key_usage": True,
        "honor_extended_key_usages": True,
        "key_usage": ["DigitalSignature"],
        "extended_key_usages": ["ServerAuth"],
        "honor_subject": True,
    }

    shown = await created(world, issuance_profile=profile)

    assert shown["extensions"] == {
        "key_usage": ["DigitalSignature"],
        "extended_key_usage": ["ServerAuth"],
    }


async def test_a_csr_of_a_key_of_the_kms_binds_it_too(world: World) -> None:
    await world.hierarchy()
    key = await a_general_key(world)
    der = await world.kms.use(
        key.key_id, lambda signer: csr("mine", key=signer), purpose=KeyPurpose.GENERAL
    )

    certificate = await world.issue(csr_der=der)

    bound = await world.kms.get(key.key_id, purpose=KeyPurpose.GENERAL)
    assert bound.bindings == (Binding("certificate", certificate.serial_number),)


INVALID = "invalid key spec: exactly one of (Type+Bits) or KeyIdentifier must be provided"


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"type": "ECDSA"},
        {"bits": 256},
        {"type": "ECDSA", "bits": 256, "key_identifier": "x"},
    ],
)
async def test_a_key_is_named_in_one_way(world: World, spec: dict[str, Any]) -> None:
    await world.hierarchy()

    answer = await world.api.post("/v1/certificates", json=ORDER | {"key_spec": spec})

    assert (answer.status_code, answer.json()["err"]) == (400, INVALID)
    assert await general_keys(world) == 0


async def test_no_key_of_a_ca_or_of_the_platform_is_certified(world: World) -> None:
    """Security rule 9, by id, alias or URI."""
    await world.hierarchy()
    root = await world.ca.get_ca("root")
    own = [
        await world.kms.generate(P256, purpose=purpose, name="own", caller=ALICE)
        for purpose in (KeyPurpose.PLATFORM, KeyPurpose.RESPONDER)
    ]
    used = await a_general_key(world)
    message = Message(b"anything", MessageType.RAW, "ECDSA_SHA_256")
    await world.kms.sign_named(used.key_id, message, caller=ALICE)

    def named(key_id: str) -> dict[str, Any]:
        return ORDER | {"key_spec": {"key_identifier": key_id}}

    field = "key_spec.key_identifier"
    for key_id in (*(key.key_id for key in own), "nowhere"):
        told = await refused(world, "/v1/certificates", named(key_id))
        assert told == (404, "key_not_found", field)
    for key_id in (root.key_id, used.key_id):
        told = await refused(world, "/v1/certificates", named(key_id))
        assert told == (403, "key_not_usable", field)


BAD: dict[str, tuple[dict[str, Any], int, str]] = {
    "no CA named": ({"ca_id": None}, 400, "missing_field"),
    "no subject": ({"subject": None}, 400, "missing_field"),
    "no key": ({"key_spec": None}, 400, "missing_field"),
    "an unknown CA": ({"ca_id": "nowhere"}, 404, "ca_not_found"),
    "an unknown profile": ({"issuance_profile_id": "nowhere"}, 404, "profile_not_found"),
    "an unknown engine": (
        {"key_spec": {"type": "ECDSA", "bits": 256, "engine_id": "hsm"}},
        400,
        "engine_unknown",
    ),
    "a key that nobody makes": (
        {"key_spec": {"type": "ECDSA", "bits": 7}},
        400,
        "key_not_supported",
    ),
    "a kind that nobody makes": (
        {"key_spec": {"type": "DSA", "bits": 1024}},
        400,
        "key_not_supported",
    ),
    "a broken URI": ({"key_spec": {"key_identifier": "pkcs11:x"}}, 400, "bad_key_uri"),
    "a CA's profile": (
        {"issuance_profile": {"name": "x", "sign_as_ca": True}},
        400,
        "profile_signs_as_ca",
    ),
    "nobody named": ({"subject": {}}, 400, "subject_empty"),
    "a country of three letters": ({"subject": {"country": "PRT"}}, 400, ""),
    "a key that the profile refuses": (
        {
            "issuance_profile": {
                "name": "x",
                "honor_subject": True,
                "crypto_enforcement": {"enabled": True, "allow_rsa_keys": True},
            }
        },
        400,
        "crypto_enforcement",
    ),
    "an unknown field": ({"key": "x"}, 400, "unknown_field"),
}


@pytest.mark.parametrize("case", BAD)
async def test_a_bad_order_leaves_neither_certificate_nor_key(world: World, case: str) -> None:
    await world.hierarchy()
    changed, status, code = BAD[case]

    told = await refused(world, "/v1/certificates", ORDER | changed)

    assert told[0] == status
    assert code in ("", told[1])


async def test_a_revoked_ca_makes_nothing(world: World) -> None:
    await world.hierarchy()
    await world.api.post(
        "/v1/cas/issuing/status", json={"status": "REVOKED", "revocation_reason": "CACompromise"}
    )

    answer = await world.api.post("/v1/certificates", json=ORDER)

    assert (answer.status_code, answer.json()["err"]) == (400, "CA Status inconsistent")
    assert await general_keys(world) == 0


async def test_a_key_whose_binding_was_lost_gets_it_by_the_event(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(*_: object, **__: object) -> None:
        raise Unavailable("the KMS is gone")

    await world.hierarchy()
    with monkeypatch.context() as fault:
        fault.setattr(world.kms, "bind", gone)
        shown = await created(world)
    bus = EventBus(world.database)
    events.subscribe(bus, world.ca)
    await bus.start()
    try:
        await bus.drained()
        key = await world.kms.get(shown["subject_key_id"], purpose=KeyPurpose.GENERAL)
        assert key.bindings == (Binding("certificate", shown["serial_number"]),)
    finally:
        await bus.stop()


async def test_a_forged_key_identifier_shares_no_cas_fate(world: World) -> None:
    """Security rule 14: revoking a CA revokes what other CAs here signed for its key, and
    nothing that only says so."""
    await world.profile()
    root = await world.root()
    sly = strange(identifier=bytes.fromhex(root.certificate.subject_key_id), issuer=a_ca().name)
    kept = await world.api.post("/v1/certificates/import", json={"certificate": wire(sly)})
    assert kept.status_code == 201

    await world.api.post(
        "/v1/cas/root/status", json={"status": "REVOKED", "revocation_reason": "CACompromise"}
    )

    shown = await world.api.get(f"/v1/certificates/{kept.json()['serial_number']}")
    assert shown.json()["status"] == "ACTIVE"
