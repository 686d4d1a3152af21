"""CAs that were made elsewhere: what is taken in, where it stands, and what is refused."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from asn1crypto import pkcs12 as asn1
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import PBES

from lamassu.kernel.errors import Conflict, Malformed, NotFound, RuleViolation, Unavailable
from lamassu.kernel.x509.pem import pem_of
from lamassu.platform.worker import run_apart
from lamassu.services.ca.rules.imported import BroughtCa, _iterations, material_of
from lamassu.services.ca.storage import CaStorage
from lamassu.services.ca.usecases.import_ca import CaImport, read_in_thread
from lamassu.services.kms.contract import Binding, KeyAlgorithm, KeyPurpose, KeySpec
from lamassu.services.kms.model import ImportedKey
from tests.support.pki import Made, make, usage

from .world import ALICE, START, YEAR, World, csr, from_wire, parsed, small_rsa_key, wire_csr

CLEAR = NoEncryption()


def a_ca(name: str = "Brought CA", *, issuer: Made | None = None, **changed: Any) -> Made:
    return make(
        name,
        issuer=issuer,
        ca=True,
        not_before=changed.pop("not_before", START - YEAR),
        not_after=changed.pop("not_after", START + 9 * YEAR),
        **changed,
    )


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def wire(made: Made | bytes) -> str:
    return b64(pem_of(made if isinstance(made, bytes) else made.der))


def key_pem(key: Any, form: PrivateFormat = PrivateFormat.PKCS8) -> str:
    return b64(key.private_bytes(Encoding.PEM, form, CLEAR))


def p12(made: Made, *, password: bytes = b"open sesame", rounds: int = 1000, key: Any = 0) -> str:
    how = (
        PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(rounds)
        .key_cert_algorithm(PBES.PBESv2SHA256AndAES256CBC)
        .hmac_hash(SHA256())
        .build(password)
    )
    shown = made.key if key == 0 else key
    return b64(pkcs12.serialize_key_and_certificates(b"x", shown, made.certificate, None, how))


def with_key(made: Made, **more: Any) -> dict[str, Any]:
    """As the original's Go SDK sends it, leftovers and all."""
    return {
        "id": "brought",
        "engine_id": "whichever",
        "parent_id": "",
        "ca_request_id": "",
        "private_key": key_pem(made.key),
        "ca": wire(made),
        "ca_chain": [],
        "ca_type": "IMPORTED_WITH_KEY",
        "profile_id": "device",
        **more,
    }


def without_key(made: Made, ca_id: str = "brought", **more: Any) -> dict[str, Any]:
    return {"id": ca_id, "private_key": "", "ca": wire(made), "profile_id": "", **more}


async def imported(world: World, body: dict[str, Any]) -> Any:
    answer = await world.api.post("/v1/cas/import", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def refused(world: World, body: dict[str, Any]) -> tuple[int, str, str | None]:
    """Status, code and field; nothing was stored, and no key kept."""
    before = await world.count()
    answer = await world.api.post("/v1/cas/import", json=body)
    assert await world.count() == before
    told = answer.json()
    assert told["err"]
    return answer.status_code, told["code"], told.get("field")


async def test_a_ca_with_its_key_is_taken_in_and_issues_as_any_other(world: World) -> None:
    await world.profile()
    made = a_ca()

    ca = await imported(world, with_key(made))

    certificate = ca["certificate"]
    assert from_wire(certificate["certificate"]) == made.certificate
    assert (ca["id"], ca["level"], ca["profile_id"]) == ("brought", 0, "device")
    assert (certificate["type"], certificate["engine_id"]) == ("IMPORTED_WITH_KEY", "software")
    assert certificate["issuer_metadata"] == {
        "id": "brought",
        "serial_number": ca["serial_number"],
        "level": 0,
    }
    assert certificate["status"] == "ACTIVE"
    assert "key_status" not in ca
    issued = await world.issue(ca_id="brought")
    parsed(issued).verify_directly_issued_by(made.certificate)
    assert issued.issuer_ca_id == "brought"
    assert await world.event_types() == [
        "profile.issuance.create",
        "ca.import",
        "ca.sign.certificate",
    ]


async def test_the_key_of_an_imported_ca_is_bound_to_its_certificate(world: World) -> None:
    await world.profile()
    made = a_ca()

    ca = await imported(world, with_key(made))

    key = await world.kms.get(made.subject_key_id, purpose=KeyPurpose.CA)
    assert key.bindings == (Binding("certificate", ca["serial_number"]),)


FORMS: dict[str, Callable[[Made], dict[str, Any]]] = {
    "PKCS #8": with_key,
    "SEC 1": lambda made: with_key(
        made, private_key=key_pem(made.key, PrivateFormat.TraditionalOpenSSL)
    ),
    "DER": lambda made: with_key(
        made,
        ca=b64(made.der),
        private_key=b64(made.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, CLEAR)),
    ),
    "PKCS #12": lambda made: {"id": "brought", "pkcs12": p12(made), "password": "open sesame"},
    "PKCS #12 beside its certificate": lambda made: {
        "id": "brought",
        "ca": wire(made),
        "pkcs12": p12(made),
        "password": "open sesame",
    },
}


@pytest.mark.parametrize("form", FORMS)
async def test_a_key_comes_in_each_of_its_forms(world: World, form: str) -> None:
    await world.profile()
    made = a_ca()

    ca = await imported(world, FORMS[form](made))

    assert ca["certificate"]["type"] == "IMPORTED_WITH_KEY"
    assert from_wire(ca["certificate"]["certificate"]) == made.certificate
    assert await world.kms.get(made.subject_key_id, purpose=KeyPurpose.CA)


async def test_an_rsa_key_comes_in_pkcs1(world: World) -> None:
    await world.profile()
    made = a_ca(key=small_rsa_key())  # type: ignore[arg-type]

    ca = await imported(
        world, with_key(made, private_key=key_pem(made.key, PrivateFormat.TraditionalOpenSSL))
    )

    assert ca["certificate"]["key_metadata"] == {"type": "RSA", "bits": 2048, "strength": "MEDIUM"}
    parsed(await world.issue(ca_id="brought")).verify_directly_issued_by(made.certificate)


@pytest.mark.parametrize("identifier", [b"\x01" * 20, b"\x07", b""], ids=["SHA-1", "short", "none"])
async def test_an_imported_ca_keeps_its_key_identifier(world: World, identifier: bytes) -> None:
    """Bound by public key: in the original a CA like this could never sign."""
    await world.profile()
    made = strange(identifier=identifier)

    ca = await imported(world, with_key(made))

    shown = identifier.hex() or made.subject_key_id
    assert ca["certificate"]["subject_key_id"] == shown
    issued = parsed(await world.issue(ca_id="brought"))
    issued.verify_directly_issued_by(made.certificate)
    named = issued.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert named.key_identifier == bytes.fromhex(shown)
    await world.ca.key_moving.follow(made.subject_key_id, caller=ALICE)
    assert await world.ca.find_ca_by_key_id(shown) is not None


async def test_a_ca_without_its_key_is_kept_as_an_offline_one(world: World) -> None:
    made = a_ca()

    ca = await imported(world, without_key(made))

    assert (ca["certificate"]["type"], ca["key_status"]) == ("IMPORTED_WITHOUT_KEY", "OFFLINE")
    assert ca["certificate"]["engine_id"] == ""
    await world.profile()
    signed = await world.api.post(
        "/v1/cas/brought/certificates/sign", json={"csr": wire_csr(csr()), "profile_id": "device"}
    )
    assert (signed.status_code, signed.json()["code"]) == (409, "ca_key_offline")


async def test_a_cas_key_that_is_here_makes_it_managed(world: World) -> None:
    await world.profile()
    key = await world.kms.generate(
        KeySpec(KeyAlgorithm.ECDSA, 256), purpose=KeyPurpose.CA, name="adopted", caller=ALICE
    )
    der = await world.kms.use(
        key.key_id,
        lambda signer: a_ca(key=signer).der,
        purpose=KeyPurpose.CA,  # type: ignore[arg-type]
    )

    ca = await imported(
        world, {"id": "brought", "ca": wire(der), "profile_id": "device", "private_key": ""}
    )

    assert (ca["certificate"]["type"], ca["certificate"]["engine_id"]) == ("MANAGED", "software")
    issued = await world.issue(ca_id="brought")
    parsed(issued).verify_directly_issued_by(x509.load_der_x509_certificate(der))


def strange(
    *,
    identifier: bytes | None = None,
    subject: x509.Name | None = None,
    signer: Any = None,
    issuer: x509.Name | None = None,
    authority: bytes | None = None,
    serial: int = 77,
    key: Any = None,
) -> Made:
    """A CA's certificate with whatever somebody wants to have in it."""
    own = key or ec.generate_private_key(ec.SECP256R1())
    name = make("Strange CA", ca=True).name if subject is None else subject
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer or name)
        .public_key(own.public_key())
        .serial_number(serial)
        .not_valid_before(START - YEAR)
        .not_valid_after(START + 5 * YEAR)
        .add_extension(x509.BasicConstraints(True, None), True)
    )
    if identifier:
        builder = builder.add_extension(x509.SubjectKeyIdentifier(identifier), False)
    if authority:
        builder = builder.add_extension(x509.AuthorityKeyIdentifier(authority, None, None), False)
    return Made(builder.sign(signer or own, SHA256()).public_bytes(Encoding.DER), own)


# --- where it stands ---------------------------------------------------------------------------


async def test_a_ca_stands_below_the_one_that_signed_it_whatever_came_first(world: World) -> None:
    await world.profile()
    root = a_ca("Old Root")
    between = a_ca("Old Between", issuer=root)
    issuing = a_ca("Old Issuing", issuer=between)

    lowest = await imported(world, with_key(issuing, id="issuing"))
    assert lowest["certificate"]["issuer_metadata"] == {
        "id": "-",
        "serial_number": lowest["serial_number"],
        "level": -1,
    }
    middle = await imported(world, without_key(between, "between"))
    assert await levels(world) == {"between": ("-", -1, 0), "issuing": ("between", 0, 1)}
    assert middle["level"] == 0
    await imported(world, without_key(root, "root"))

    assert await levels(world) == {
        "root": ("root", 0, 0),
        "between": ("root", 0, 1),
        "issuing": ("between", 1, 2),
    }
    path = [one.id for one in await world.ca.path_of("issuing")]
    assert path == ["issuing", "between", "root"]
    issued = await world.issue(ca_id="issuing")
    assert issued.issuer_level == 2
    assert (await world.event_types()).count("ca.parent.update") == 3


async def test_no_ca_is_put_above_one_that_has_approvers(world: World) -> None:
    """A certificate of its issuer's name and key can be had of any root: no key is needed."""
    await world.profile()
    root = a_ca("Old Root")
    await imported(world, with_key(a_ca("Old Between", issuer=root), id="between"))
    policy = {"required": 1, "of": ["bob"]}
    answer = await world.api.put("/v1/cas/between/approvals", json=policy)
    assert answer.status_code == 200, answer.text
    thief = a_ca("Thief")
    across = strange(subject=root.name, key=root.key, issuer=thief.name, signer=thief.key)

    assert await refused(world, without_key(across, "across")) == (
        403,
        "approval_required",
        "ca",
    )
    assert (await world.ca.get_ca("between")).parent_id is None
    answer = await world.api.get("/v1/cas/across")
    assert answer.status_code == 404


async def levels(world: World) -> dict[str, tuple[str, int, int]]:
    """Of each CA: its issuer, the issuer's level, its own."""
    return {
        one.id: (one.certificate.issuer_ca_id, one.certificate.issuer_level, one.level)
        for one in await world.ca.list_cas()
    }


async def test_a_subordinate_of_a_ca_of_ours_is_found_below_it(world: World) -> None:
    await world.hierarchy()
    root = await world.ca.get_ca("root")
    signed = await world.kms.use(
        root.key_id,
        lambda signer: strange(identifier=b"\x05" * 20, issuer=parsed(root).subject, signer=signer),
        purpose=KeyPurpose.CA,
    )

    ca = await imported(world, with_key(signed))

    assert (ca["level"], ca["certificate"]["issuer_metadata"]["id"]) == (1, "root")
    outcome = await world.api.post(
        "/v1/cas/root/status", json={"status": "REVOKED", "revocation_reason": "CACompromise"}
    )
    assert outcome.status_code == 201
    assert (await world.ca.get_ca("brought")).revoked_by == "root"


async def test_a_forged_issuer_puts_a_ca_below_nobody(world: World) -> None:
    """Security rule 14: names and key identifiers are anybody's, a signature is not."""
    await world.hierarchy()
    root = await world.ca.get_ca("root")
    thief = ec.generate_private_key(ec.SECP256R1())
    forged = strange(
        identifier=b"\x05" * 20,
        issuer=parsed(root).subject,
        authority=bytes.fromhex(root.certificate.subject_key_id),
        signer=thief,
    )

    ca = await imported(world, with_key(forged))

    assert (ca["level"], ca["certificate"]["issuer_metadata"]["id"]) == (0, "-")
    standing = await world.ca.standing("root", ca["serial_number"])
    assert not standing.known
    listed = await world.api.get("/v1/cas/root/certificates", params={"page_size": 100})
    serials = [one["serial_number"] for one in listed.json()["list"]]
    assert root.certificate.serial_number in serials
    assert ca["serial_number"] not in serials


async def test_a_ca_that_only_has_the_name_of_anothers_issuer_takes_no_child(
    world: World,
) -> None:
    await world.profile()
    root, namesake = a_ca("Old Root"), a_ca("Old Root")
    await imported(world, with_key(a_ca("Below", issuer=root), id="below"))

    await imported(world, without_key(namesake, "namesake"))

    assert (await levels(world))["below"] == ("-", -1, 0)


async def test_cas_that_certify_each_other_make_no_ring(world: World) -> None:
    """X signed Y, Y signed P, P signed X: the hierarchy stays a tree."""
    key_x, key_y, key_p = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    name = {letter: make(f"Ring {letter}", ca=True).name for letter in "XYP"}
    x_by_p = strange(subject=name["X"], key=key_x, issuer=name["P"], signer=key_p, serial=1)
    y_by_x = strange(subject=name["Y"], key=key_y, issuer=name["X"], signer=key_x, serial=2)
    p_by_y = strange(subject=name["P"], key=key_p, issuer=name["Y"], signer=key_y, serial=3)

    for ca_id, made in (("x", x_by_p), ("y", y_by_x), ("p", p_by_y)):
        await imported(world, without_key(made, ca_id))

    assert await levels(world) == {"x": ("-", -1, 0), "y": ("x", 0, 1), "p": ("y", 1, 2)}


# --- what is refused ---------------------------------------------------------------------------

SHORT = {"ca": None, "private_key": ""}
BAD: dict[str, tuple[Callable[[Made], dict[str, Any]], int, str, str | None]] = {
    "no certificate": (lambda made: {"id": "brought"}, 400, "missing_field", "ca"),
    "no base64": (lambda made: with_key(made, ca="%%"), 400, "invalid_pem", "ca"),
    "no certificate in it": (lambda made: with_key(made, ca="aGk="), 400, "invalid_pem", "ca"),
    "a broken certificate": (
        lambda made: with_key(made, ca=b64(made.der[:-9])),
        400,
        "certificate_malformed",
        "ca",
    ),
    "two certificates": (
        lambda made: with_key(made, ca=b64(pem_of(made.der) * 2)),
        400,
        "invalid_pem",
        "ca",
    ),
    "an end entity": (
        lambda made: with_key(make("x", not_after=START + YEAR)),
        400,
        "not_a_ca",
        "ca",
    ),
    "a CA that may not sign": (
        lambda made: with_key(a_ca(key_usage=usage(crl_sign=True))),
        400,
        "not_a_ca",
        "ca",
    ),
    "an expired CA": (
        lambda made: with_key(a_ca(not_after=START - timedelta(seconds=1))),
        400,
        "certificate_expired",
        "ca",
    ),
    "another key": (
        lambda made: with_key(made, private_key=key_pem(a_ca().key)),
        400,
        "key_mismatch",
        "private_key",
    ),
    "a key of another kind": (
        lambda made: with_key(made, private_key=key_pem(small_rsa_key())),
        400,
        "key_mismatch",
        "private_key",
    ),
    "a certificate as the key": (
        lambda made: with_key(made, private_key=wire(made)),
        400,
        "private_key_malformed",
        "private_key",
    ),
    "an encrypted key": (
        lambda made: with_key(
            made,
            private_key=b64(
                made.key.private_bytes(
                    Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
                )
            ),
        ),
        400,
        "private_key_encrypted",
        "private_key",
    ),
    "no profile of that id": (
        lambda made: with_key(made, profile_id="nowhere"),
        404,
        "profile_not_found",
        None,
    ),
    "an id that is none": (lambda made: with_key(made, id="a/b"), 400, "id_malformed", "id"),
    "a word of the routes": (lambda made: with_key(made, id="import"), 400, "id_malformed", "id"),
    "an id that is taken": (lambda made: with_key(made, id="root"), 409, "ca_exists", "id"),
    "an unknown field": (lambda made: with_key(made, chain=["x"]), 400, "unknown_field", "chain"),
    "key and PKCS #12": (
        lambda made: with_key(made, pkcs12=p12(made), password="open sesame"),
        400,
        "key_twice",
        "pkcs12",
    ),
    "a password for nothing": (
        lambda made: with_key(made, password="x"),
        400,
        "missing_field",
        "pkcs12",
    ),
    "a wrong password": (
        lambda made: {"pkcs12": p12(made), "password": "close sesame"},
        400,
        "pkcs12_not_opened",
        "password",
    ),
    "no PKCS #12": (
        lambda made: {"pkcs12": b64(b"0\x03\x02\x01\x03"), "password": "x"},
        400,
        "pkcs12_malformed",
        "pkcs12",
    ),
    "a PKCS #12 of endless work": (
        lambda made: {"pkcs12": p12(made, rounds=1_000_001), "password": "open sesame"},
        400,
        "pkcs12_malformed",
        "pkcs12",
    ),
    "another certificate beside PKCS #12": (
        lambda made: {"ca": wire(a_ca()), "pkcs12": p12(made), "password": "open sesame"},
        400,
        "certificate_differs",
        "ca",
    ),
    "only named as a root": (
        lambda made: with_key(strange(signer=a_ca().key)),
        400,
        "signature_invalid",
        "ca",
    ),
    "no subject": (
        lambda made: with_key(strange(subject=x509.Name([]), issuer=made.name)),
        400,
        "subject_empty",
        "ca",
    ),
    "an endless key identifier": (
        lambda made: with_key(strange(identifier=b"x" * 65)),
        400,
        "key_id_malformed",
        "ca",
    ),
    "a weak key": (
        lambda made: with_key(
            strange(key=rsa.generate_private_key(public_exponent=65537, key_size=1024))
        ),
        400,
        "key_not_allowed",
        "ca",
    ),
}


@pytest.mark.parametrize("case", BAD)
async def test_a_bad_import_is_refused_and_leaves_nothing(world: World, case: str) -> None:
    await world.profile()
    await world.root()
    body, status, code, field = BAD[case]

    assert await refused(world, body(a_ca())) == (status, code, field)


def with_hidden_work(made: Made, rounds: int) -> bytes:
    """A PKCS #12 file whose key's iterations stand within a bag of bags, where no count of what
    is in the open finds them."""
    pfx = asn1.Pfx.load(base64.b64decode(p12(made, rounds=1000)))
    (shrouded,) = (
        info["content"].native
        for info in pfx.authenticated_safe
        if info["content_type"].native == "data"
    )
    bags = asn1.SafeContents.load(shrouded)
    derivation = bags[0]["bag_value"]["encryption_algorithm"]["parameters"]["key_derivation_func"]
    derivation["parameters"]["iteration_count"] = rounds
    inner = bags.dump(force=True)
    nested = tagged(0x30, tagged(0x30, bytes.fromhex(SAFE_BAG) + tagged(0xA0, inner)))
    safes = tagged(0x30, tagged(0x30, data(nested)))
    return tagged(0x30, b"\x02\x01\x03" + tagged(0x30, data(safes)))


SAFE_BAG = "060b2a864886f70d010c0a0106"  # OID


def data(content: bytes) -> bytes:
    oid = bytes.fromhex("06092a864886f70d010701")
    return oid + tagged(0xA0, tagged(0x04, content))


def tagged(tag: int, content: bytes) -> bytes:
    return bytes((tag, 0x82)) + len(content).to_bytes(2, "big") + content


async def test_a_file_that_hides_endless_work_is_given_up_and_holds_up_nobody(
    world: World,
) -> None:
    content = with_hidden_work(a_ca(), 2_000_000_000)
    assert [*_iterations(content)] == []
    apart = CaImport(
        store=CaStorage(world.database),
        keys=world.kms,
        clock=world.clock,
        platform_cas=None,
        reader=partial(run_apart, material_of, seconds=1),
    )

    async with asyncio.timeout(60):
        with pytest.raises(Malformed) as caught:
            await apart.take(BroughtCa(pkcs12=content, password="open sesame"), caller=ALICE)

    assert (caught.value.code, caught.value.field) == ("pkcs12_malformed", "pkcs12")
    made = a_ca()
    file = BroughtCa(pkcs12=base64.b64decode(p12(made)), password="open sesame")
    assert (await apart.take(file, caller=ALICE)).certificate.der == made.der
    with pytest.raises(RuleViolation) as refusal:
        await apart.take(replace(file, password="wrong"), caller=ALICE)
    assert (refusal.value.code, refusal.value.field) == ("pkcs12_not_opened", "password")


async def test_a_ca_is_imported_once(world: World) -> None:
    await world.profile()
    made = a_ca()
    await imported(world, with_key(made))

    assert await refused(world, with_key(made)) == (409, "ca_exists", "id")
    assert await refused(world, with_key(made, id="again")) == (409, "certificate_exists", "ca")
    renewed = a_ca(key=made.key)
    assert await refused(world, with_key(renewed, id="again")) == (409, "key_id_in_use", "ca")
    other = strange(key=made.key, identifier=b"\x09" * 20)
    assert await refused(world, with_key(other, id="again")) == (409, "key_in_use", "ca")


async def test_a_certificate_that_was_kept_becomes_a_cas(world: World) -> None:
    """Also where its issuer came after it, and was not known when it was kept."""
    await world.profile()
    root = a_ca("Old Root")
    made = a_ca("Old Issuing", issuer=root)
    kept = await world.api.post("/v1/certificates/import", json={"certificate": wire(made)})
    assert (kept.status_code, kept.json()["issuer_metadata"]["id"]) == (201, "-")
    await imported(world, without_key(root, "root"))

    ca = await imported(world, with_key(made))

    assert ca["serial_number"] == kept.json()["serial_number"]
    assert (await levels(world))["brought"] == ("root", 0, 1)
    stored = await world.ca.get_ca("brought")
    assert (stored.certificate.type.value, stored.certificate.engine_id) == (
        "IMPORTED_WITH_KEY",
        "software",
    )
    assert (await world.issue(ca_id="brought")).issuer_level == 1


async def test_a_revoked_certificate_comes_back_as_no_ca(world: World) -> None:
    await world.profile()
    made = a_ca()
    kept = await world.api.post("/v1/certificates/import", json={"certificate": wire(made)})
    serial = kept.json()["serial_number"]
    await world.api.post(f"/v1/certificates/{serial}/revoke", json={"reason": "KeyCompromise"})

    assert await refused(world, with_key(made)) == (409, "certificate_exists", "ca")


async def test_a_key_identifier_of_another_ca_is_refused(world: World) -> None:
    """Security rule 14: by the identifier CRLs and roles are found."""
    await world.profile()
    root = await world.root()
    sly = strange(identifier=bytes.fromhex(root.certificate.subject_key_id))

    assert await refused(world, with_key(sly)) == (409, "key_id_in_use", "ca")


async def test_a_serial_number_of_another_certificate_is_refused(world: World) -> None:
    await world.profile()
    await imported(world, without_key(strange(serial=1, identifier=b"\x01" * 20), "first"))
    second = strange(serial=1, identifier=b"\x02" * 20)

    assert await refused(world, with_key(second)) == (409, "serial_number_taken", None)


async def test_no_key_of_another_purpose_becomes_a_cas(world: World) -> None:
    """Security rules 8 and 9: a purpose is for good, and a key that signed for callers may have
    signed anything."""
    await world.profile()
    general = a_ca()
    sent = general.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, CLEAR)
    await world.kms.import_named(ImportedKey(sent), caller=ALICE)
    assert await refused(world, without_key(general)) == (409, "key_is_general", "ca")
    assert await refused(world, with_key(general)) == (409, "key_exists", "private_key")

    for purpose in (KeyPurpose.PLATFORM, KeyPurpose.RESPONDER):
        key = await world.kms.generate(
            KeySpec(KeyAlgorithm.ECDSA, 256), purpose=purpose, name="own", caller=ALICE
        )
        der = await world.kms.use(
            key.key_id,
            lambda signer: a_ca(key=signer).der,
            purpose=purpose,  # type: ignore[arg-type]
        )
        answer = await refused(world, {"ca": wire(der)})
        assert answer == (403, "platform_ca", "ca")


async def test_the_key_of_a_ca_that_waits_is_not_taken_from_it(world: World) -> None:
    await world.profile()
    body = {
        "id": "waiting",
        "external_root": "far-root",
        "subject": {"common_name": "Waiting"},
        "key_metadata": {"type": "ECDSA", "bits": 256},
        "profile_id": "device",
    }
    assert (await world.api.post("/v1/cas", json=body)).status_code == 201
    [waiting] = await world.ca.awaited()
    der = await world.kms.use(
        waiting.key_id,
        lambda signer: a_ca(key=signer).der,
        purpose=KeyPurpose.CA,  # type: ignore[arg-type]
    )

    assert await refused(world, {"ca": wire(der)}) == (409, "key_waits", "ca")


async def test_nothing_is_imported_below_a_revoked_ca(world: World) -> None:
    await world.profile()
    root = a_ca("Old Root")
    await imported(world, with_key(root, id="old"))
    await world.api.post(
        "/v1/cas/old/status", json={"status": "REVOKED", "revocation_reason": "CACompromise"}
    )

    below = with_key(a_ca("Below", issuer=root))

    assert await refused(world, below) == (400, "issuer_revoked", "ca")


async def test_a_ca_that_could_not_be_stored_leaves_no_key(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.profile()
    made = a_ca()
    before = await world.count()

    async def gone(*_: object, **__: object) -> None:
        raise NotFound("issuance profile not found", code="profile_not_found")

    with monkeypatch.context() as fault:
        fault.setattr("lamassu.services.ca.usecases.import_ca.insert_new_ca", gone)
        answer = await world.api.post("/v1/cas/import", json=with_key(made))

    assert answer.status_code == 404
    assert await world.count() == before
    assert (await imported(world, with_key(made)))["id"] == "brought"


async def test_an_import_that_was_cut_off_is_asked_for_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is kept, as the CA may be stored; if it is not, the key is used again."""
    await world.profile()
    made = a_ca()

    async def gone(*_: object, **__: object) -> None:
        raise Unavailable("the database is gone")

    with monkeypatch.context() as fault:
        fault.setattr("lamassu.services.ca.usecases.import_ca.insert_new_ca", gone)
        answer = await world.api.post("/v1/cas/import", json=with_key(made))
    assert answer.status_code == 503
    assert (await world.count())["ca keys"] == 1

    assert (await imported(world, with_key(made)))["certificate"]["type"] == "IMPORTED_WITH_KEY"
    assert (await world.count())["ca keys"] == 1


async def test_of_many_imports_of_one_ca_at_once_one_is_stored_with_its_key(world: World) -> None:
    await world.profile()
    made = a_ca()

    answers = await asyncio.gather(
        *(world.api.post("/v1/cas/import", json=with_key(made, id=f"b{n}")) for n in range(4))
    )

    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    [ca] = await world.ca.list_cas()
    assert parsed(await world.issue(ca_id=ca.id)).issuer == made.name


async def test_production_takes_no_cas_key_into_software(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.profile()
    monkeypatch.setattr(world.kms, "production", True)

    told = await refused(world, with_key(a_ca()))

    assert told == (400, "no_engine_for_key", "private_key")


async def test_the_platforms_own_ca_is_no_ca_of_the_api(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decision 2: also where its root's key left the host, so that the KMS knows it no more."""
    internal = a_ca("Internal Root")

    async def anchors() -> bytes:
        return pem_of(internal.der)

    monkeypatch.setattr(world.ca._imports, "_platform_cas", anchors)

    assert await refused(world, without_key(internal)) == (403, "platform_ca", "ca")
    assert await refused(world, without_key(a_ca(key=internal.key))) == (403, "platform_ca", "ca")


async def test_a_brought_key_is_told_to_nobody(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await world.profile()
    made = a_ca()
    sent = with_key(made)
    answers = [
        await world.api.post("/v1/cas/import", json=sent),
        await world.api.post("/v1/cas/import", json=sent),
        await world.api.post("/v1/cas/import", json={**sent, "id": 7}),
        await world.api.post(
            "/v1/cas/import", json={"pkcs12": p12(a_ca()), "password": "my secret word"}
        ),
    ]

    told = "\n".join(
        [
            caplog.text,
            *(answer.text for answer in answers),
            *map(str, await world.records()),
            *map(str, await world.records("audit")),
        ]
    )
    secret = made.key.private_numbers().private_value
    for clue in (sent["private_key"][40:80], f"{secret:x}", str(secret), "my secret word"):
        assert clue not in told


# --- generations and offline roots -------------------------------------------------------------


async def test_an_imported_ca_gets_a_new_key_as_any_other(world: World) -> None:
    await world.profile()
    made = strange(identifier=b"\x01" * 20)
    await imported(world, with_key(made))

    answer = await world.api.post("/v1/cas/brought/rekey", json={})

    assert answer.status_code == 201, answer.text
    issued = await world.issue(ca_id="brought")
    assert issued.issuer_ca_id == "brought.2"


async def test_a_ca_is_asked_for_under_an_imported_root_without_key(world: World) -> None:
    await world.profile()
    root = a_ca("Far Root")
    await imported(world, without_key(root, "far-root"))
    body = {
        "id": "between",
        "external_root": "far-root",
        "subject": {"common_name": "Between"},
        "key_metadata": {"type": "ECDSA", "bits": 256},
        "profile_id": "device",
    }
    asked = await world.api.post("/v1/cas", json=body)
    request = x509.load_pem_x509_csr(base64.b64decode(asked.json()["csr"]))
    public = request.public_key()
    signed = (
        x509.CertificateBuilder()
        .subject_name(request.subject)
        .issuer_name(root.name)
        .public_key(public)
        .serial_number(4711)
        .not_valid_before(START - timedelta(hours=1))
        .not_valid_after(START + YEAR)
        .add_extension(x509.BasicConstraints(True, 0), True)
        .add_extension(usage(key_cert_sign=True, crl_sign=True), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
        .sign(root.key, SHA256())
    )

    answer = await world.api.post(
        "/v1/cas/import-signed", json={"signed": b64(signed.public_bytes(Encoding.PEM))}
    )

    assert answer.status_code == 201, answer.text
    assert (await levels(world))["between"] == ("far-root", 0, 1)


async def test_two_processes_that_import_at_once_leave_one_ca_of_a_key_identifier(
    world: World,
) -> None:
    """Neither sees the other's row when it judges: the database decides."""
    await world.profile()
    first, second = (strange(identifier=b"\x0a" * 20, serial=n) for n in (1, 2))
    other = CaImport(
        store=CaStorage(world.database),
        keys=world.kms,
        clock=world.clock,
        platform_cas=None,
        reader=read_in_thread,
    )
    brought = BroughtCa(id="second", certificate=second.der)

    outcomes = await asyncio.gather(
        world.api.post("/v1/cas/import", json=without_key(first, "first")),
        other.take(brought, caller=ALICE),
        return_exceptions=True,
    )

    assert len(await world.ca.list_cas()) == 1
    assert any(
        isinstance(one, Conflict) or getattr(one, "status_code", 0) == 409 for one in outcomes
    )
