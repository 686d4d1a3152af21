"""CAs under a root whose key is offline: what waits, what is taken in, what is refused."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from lamassu.kernel.errors import RuleViolation, Unavailable
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.kernel.x509.pem import pem_of
from lamassu.services.ca.rules.external import parse_delivery
from lamassu.services.ceremony.storage import DirectoryLedger
from lamassu.services.ceremony.usecases import Ceremony
from lamassu.services.kms.engines.software import SoftwareEngine
from lamassu.wiring.ceremony import TokenKeys
from tests.services.ceremony.room import Room
from tests.support.pki import Made, make

from .world import START, YEAR, World, csr, parsed, wire_csr

BODY = {
    "id": "between",
    "external_root": "far-root",
    "subject": {"common_name": "Between", "organization": "Acme"},
    "key_metadata": {"type": "ECDSA", "bits": 256},
    "profile_id": "device",
    "metadata": {"site": "Ulm"},
}


@pytest.fixture(scope="module")
def root() -> Made:
    return a_root()


def a_root(name: str = "Far Root", *, path_length: int | None = 2) -> Made:
    return make(
        name, ca=True, path_length=path_length, not_before=START - YEAR, not_after=START + 9 * YEAR
    )


def answered(request: x509.CertificateSigningRequest, root: Made, **changed: Any) -> bytes:
    """What the offline root makes of a request, unless told otherwise."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(changed.get("subject", request.subject))
        .issuer_name(root.name)
        .public_key(changed.get("key", request.public_key()))
        .serial_number(changed.get("serial", 4711))
        .not_valid_before(changed.get("not_before", START - timedelta(hours=1)))
        .not_valid_after(changed.get("not_after", START + 5 * YEAR))
        .add_extension(
            x509.BasicConstraints(changed.get("ca", True), changed.get("path_length", 1)), True
        )
        .add_extension(
            changed.get("ski") or x509.SubjectKeyIdentifier.from_public_key(request.public_key()),
            False,
        )
    )
    usage = make("x", ca=changed.get("ca", True)).certificate.extensions.get_extension_for_class(
        x509.KeyUsage
    )
    builder = builder.add_extension(usage.value, True)
    signer = changed.get("signer", root)
    from cryptography.hazmat.primitives.hashes import SHA256

    return builder.sign(signer.key, SHA256()).public_bytes(Encoding.DER)


def delivery(*ders: bytes) -> str:
    return base64.b64encode(b"".join(pem_of(der) for der in ders)).decode()


async def asked(world: World, **changed: Any) -> x509.CertificateSigningRequest:
    await world.profile()
    answer = await world.api.post("/v1/cas", json={**BODY, **changed})
    assert answer.status_code == 201, answer.text
    return x509.load_pem_x509_csr(base64.b64decode(answer.json()["csr"]))


async def taken_in(world: World, root: Made, *ders: bytes, told: str | None = None) -> Any:
    return await world.api.post(
        "/v1/cas/import-signed",
        json={
            "signed": delivery(root.der, *ders),
            "root_fingerprint": certificate_facts(root.der).sha256 if told is None else told,
        },
    )


async def test_what_waits_is_no_ca(world: World) -> None:
    request = await asked(world)

    assert request.is_signature_valid
    urls = request.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert urls[0].full_name is not None
    assert urls[0].full_name[0].value == "http://pki.test:8080/ca/far-root.crl"
    waiting = (await world.api.get("/v1/ca-requests")).json()["list"]
    assert [(one["id"], one["status"]) for one in waiting] == [("between", "AWAITING_CERTIFICATE")]
    assert (await world.api.get("/v1/ca-requests/between")).json() == waiting[0]
    assert (await world.api.get("/v1/cas")).json()["list"] == []
    assert (await world.api.get("/v1/cas/between")).status_code == 404
    sign = await world.api.post(
        "/v1/cas/between/certificates/sign", json={"csr": wire_csr(csr()), "profile_id": "device"}
    )
    assert sign.status_code == 404
    assert (await world.count())["ca keys"] == 1
    assert await world.event_types() == ["profile.issuance.create", "ca.request.create"]


async def test_the_id_is_taken_while_it_waits(world: World) -> None:
    await asked(world)
    before = await world.count()
    for body in (BODY, {**BODY, "external_root": ""}, {**BODY, "external_root": "other"}):
        again = await world.api.post(
            "/v1/cas",
            json={**body, "ca_expiration": {"type": "Duration", "duration": "1y"}},
        )
        assert (again.status_code, again.json()["code"]) == (409, "ca_exists"), body
    assert await world.count() == before


async def test_a_root_whose_key_is_here_is_no_external_one(world: World) -> None:
    await world.profile()
    await world.root("far-root")
    refused = await world.api.post("/v1/cas", json=BODY)
    assert (refused.status_code, refused.json()["code"]) == (409, "root_is_online")


async def test_what_no_longer_waits_leaves_no_key(world: World) -> None:
    await asked(world)
    assert (await world.api.delete("/v1/ca-requests/between")).status_code == 204
    assert (await world.api.get("/v1/ca-requests")).json()["list"] == []
    assert (await world.count())["ca keys"] == 0
    assert (await world.api.delete("/v1/ca-requests/between")).status_code == 404
    assert (await world.event_types())[-1] == "ca.request.delete"


async def test_a_signed_ca_issues_and_its_root_shows_that_it_is_offline(
    world: World, root: Made
) -> None:
    der = answered(await asked(world), root)

    answer = await taken_in(world, root, der)

    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert body["root"]["key_status"] == "OFFLINE"
    assert body["root"]["certificate"]["type"] == "IMPORTED_WITHOUT_KEY"
    [between] = body["imported"]
    assert (between["level"], between["profile_id"]) == (1, "device")
    assert between["metadata"] == {"site": "Ulm"}
    assert between["certificate"]["issuer_metadata"]["id"] == "far-root"
    assert between["certificate"]["type"] == "MANAGED"
    assert "key_status" not in between
    assert (await world.api.get("/v1/ca-requests")).json()["list"] == []
    leaf = await world.issue(ca_id="between")
    parsed(leaf).verify_directly_issued_by(x509.load_der_x509_certificate(der))
    kinds = await world.event_types()
    assert kinds.count("ca.import") == 2
    audited = [
        record["detail"] for record in await world.records("audit") if record["type"] == "ca.import"
    ]
    sent = base64.b64decode(delivery(root.der, der))
    assert {one["delivery_sha256"] for one in audited} == {hashlib.sha256(sent).hexdigest()}
    [key] = [key for key in (await world.ca.list_cas()) if key.id == "between"]
    held = await world.kms.find(key.key_id)
    assert held is not None
    assert [one.resource_id for one in held.bindings] == [between["serial_number"]]


async def test_the_same_delivery_again_changes_nothing(world: World, root: Made) -> None:
    der = answered(await asked(world), root)
    assert (await taken_in(world, root, der)).status_code == 201
    before = await world.count()
    again = await taken_in(world, root, der, told="")
    assert again.status_code == 200
    assert [ca["id"] for ca in again.json()["imported"]] == ["between"]
    assert await world.count() == before


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"key": make("x").certificate.public_key()}, None),
        ({"subject": make("Another").name}, "another subject"),
        ({"signer": make("Far Root", ca=True)}, "did not sign it"),
        ({"ca": False, "path_length": None}, "no CA certificate"),
        ({"path_length": 2}, "path length"),
        ({"path_length": None}, "path length"),
        ({"not_after": START + 10 * YEAR}, "outlives"),
        ({"not_after": START - timedelta(minutes=1)}, "expired"),
        ({"not_before": START + timedelta(days=1)}, "not valid before"),
    ],
)
async def test_a_certificate_that_was_not_asked_for_is_refused(
    world: World, root: Made, changed: dict[str, Any], fault: str | None
) -> None:
    der = answered(await asked(world), root, **changed)
    before = await world.count()

    answer = await taken_in(world, root, der)

    assert answer.status_code == 400, answer.text
    if fault is None:  # nobody waits for that key
        assert answer.json()["code"] == "nothing_waits"
    else:
        assert answer.json()["code"] == "certificate_refused"
        assert fault in answer.json()["err"]
    assert await world.count() == before


async def test_an_unknown_root_is_believed_only_as_somebody_compared_it(
    world: World, root: Made
) -> None:
    der = answered(await asked(world), root)
    before = await world.count()
    for told in ("", "ab" * 32):
        answer = await taken_in(world, root, der, told=told)
        assert (answer.status_code, answer.json()["code"]) == (400, "root_unconfirmed")
        assert ("forged" in answer.json()["err"]) == bool(told)
    assert await world.count() == before


async def test_another_root_cannot_take_the_place_of_the_first(world: World, root: Made) -> None:
    await taken_in(world, root, answered(await asked(world), root))
    answer = await world.api.post(
        "/v1/cas", json={**BODY, "id": "second", "subject": {"common_name": "Second"}}
    )
    request = x509.load_pem_x509_csr(base64.b64decode(answer.json()["csr"]))
    impostor = a_root()
    before = await world.count()
    refused = await taken_in(world, impostor, answered(request, impostor))
    assert (refused.status_code, refused.json()["code"]) == (409, "root_differs")
    assert await world.count() == before
    # without its certificate in the file the known root is meant
    alone = await world.api.post(
        "/v1/cas/import-signed",
        json={"signed": delivery(answered(request, root, serial=4712))},
    )
    assert alone.status_code == 201, alone.text


async def test_what_is_no_root_is_no_anchor(world: World) -> None:
    weak = make("Far Root", ca=True, not_before=START - YEAR, not_after=START - timedelta(days=1))
    request = await asked(world)
    refused = await taken_in(world, weak, answered(request, weak, not_after=START + YEAR))
    assert (refused.status_code, refused.json()["code"]) == (400, "root_refused")


@pytest.mark.parametrize("content", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----", b"\x30\x00"])
async def test_a_delivery_that_is_none_is_malformed(world: World, content: bytes) -> None:
    await asked(world)
    signed = base64.b64encode(content).decode()
    answer = await world.api.post("/v1/cas/import-signed", json={"signed": signed})
    assert answer.status_code == 400


async def imported(world: World, root: Made) -> None:
    await taken_in(world, root, answered(await asked(world), root))


def child_of_root(world: World) -> Any:
    body = {
        **BODY, "id": "child", "external_root": "", "parent_id": "far-root",
        "ca_expiration": {"type": "Duration", "duration": "1y"},
    }  # fmt: skip
    return world.api.post("/v1/cas", json=body)


def signed_by_root(world: World) -> Any:
    return world.api.post(
        "/v1/cas/far-root/certificates/sign", json={"csr": wire_csr(csr()), "profile_id": "device"}
    )


def message_of_root(world: World) -> Any:
    body = {
        "message": base64.b64encode(b"hello").decode(),
        "message_type": "raw",
        "signature_algorithm": "ECDSA_SHA_256",
    }
    return world.api.post("/v1/cas/far-root/signature/sign", json=body)


@pytest.mark.parametrize("deed", [child_of_root, signed_by_root, message_of_root])
async def test_what_needs_the_offline_key_says_where_it_is_done(
    world: World, root: Made, deed: Callable[[World], Any]
) -> None:
    await imported(world, root)
    before = await world.count()
    refused = await deed(world)
    assert (refused.status_code, refused.json()["code"]) == (409, "ca_key_offline")
    assert "lamassu ceremony run" in refused.json()["err"]
    assert await world.count() == before


async def test_a_revocation_below_an_offline_root_names_its_ceremony(
    world: World, root: Made
) -> None:
    await imported(world, root)
    world.va.shows = False
    answer = await world.api.post(
        "/v1/cas/between/status", json={"status": "REVOKED", "revocation_reason": "CACompromise"}
    )
    assert answer.status_code == 201
    assert answer.headers["lamassu-revocation"] == "pending"
    assert answer.headers["lamassu-ceremony"] == "far-root"
    assert answer.json()["certificate"]["status"] == "REVOKED"
    # a CA whose key is here says nothing of a ceremony
    await world.root("near-root")
    near = await world.api.post("/v1/cas/near-root/status", json={"status": "REVOKED"})
    assert "lamassu-ceremony" not in near.headers


async def test_a_key_identifier_that_is_anothers_is_refused(world: World, root: Made) -> None:
    """By it a CRL is found, and a CRL tells who is revoked."""
    request = await asked(world)
    own = await world.root("own-root")
    taken = x509.SubjectKeyIdentifier(bytes.fromhex(own.certificate.subject_key_id))
    before = await world.count()
    refused = await taken_in(world, root, answered(request, root, ski=taken))
    assert (refused.status_code, refused.json()["code"]) == (409, "key_id_in_use")
    roots = x509.SubjectKeyIdentifier(bytes.fromhex(root.subject_key_id))
    refused = await taken_in(world, root, answered(request, root, ski=roots))
    assert (refused.status_code, refused.json()["code"]) == (409, "key_id_in_use")
    assert await world.count() == before


async def test_production_makes_no_ca_of_a_key_that_development_made_in_software(
    world: World, root: Made
) -> None:
    """Security rule 11: what waits may have begun before the installation became one."""
    request = await asked(world)
    world.ca._signed._production = True
    before = await world.count()

    refused = await taken_in(world, root, answered(request, root))

    assert (refused.status_code, refused.json()["code"]) == (400, "engine_not_for_ca_keys")
    assert "between" in refused.json()["err"]
    assert await world.count() == before
    assert len((await world.api.get("/v1/ca-requests")).json()["list"]) == 1


async def test_production_takes_in_no_root_of_a_rehearsal(
    tmp_path: Path, engine: SoftwareEngine
) -> None:
    room = Room(tmp_path / "rehearsal", engine)
    ledger = DirectoryLedger(room.directory)
    held = Ceremony(
        ledger=ledger, keys=TokenKeys(engine), clock=room.clock, rehearsal=True
    )  # as with mode: development
    answers = room.answers()
    await held.agree(answers, await held.propose(answers))
    await held.perform(room.said.append)
    ledger.close()
    with pytest.raises(RuleViolation) as refused:
        parse_delivery(room.bundle(), production=True)
    assert refused.value.code == "bundle_of_rehearsal"
    assert parse_delivery(room.bundle(), production=False).root is not None


async def test_a_request_that_cannot_be_signed_leaves_no_key(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.profile()

    async def gone(*arguments: object, **named: object) -> None:
        raise Unavailable("the engine is away", retry_after=5)

    monkeypatch.setattr(world.kms, "use", gone)
    answer = await world.api.post("/v1/cas", json=BODY)
    assert answer.status_code == 503
    assert (await world.count())["ca keys"] == 0
    assert (await world.api.get("/v1/ca-requests")).json()["list"] == []
