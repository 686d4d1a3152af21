"""CAs that were made elsewhere: what is taken in, where it stands, and what is refused."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
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

from lamassu.kernel.errors import NotFound, Unavailable
from lamassu.kernel.x509.pem import pem_of
from lamassu.services.ca.contract import CertificationAuthority
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
