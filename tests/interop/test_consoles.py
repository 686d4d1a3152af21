"""The requests of the original's two web consoles, byte for byte in what matters: fields, spellings
and query strings as they send them, over real TLS. What a console does not show is not sent."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support import csrs, pki
from tests.support.server import make_installation, serving

CAS = "/api/ca/v1/cas"
CERTIFICATES = "/api/ca/v1/certificates"
PROFILES = "/api/ca/v1/profiles"


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    directory = make_installation(
        tmp_path_factory.mktemp("consoles") / "var", key_type="ecdsa-p256"
    )
    with serving(directory) as server, server.admin() as client:
        yield client


def done(answer: httpx.Response, status: int) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json()


def b64(text: bytes) -> str:
    return base64.b64encode(text).decode()


def csr_of(common_name: str) -> str:
    csr = x509.load_der_x509_csr(csrs.request(common_name))
    return b64(csr.public_bytes(Encoding.PEM))


def ca_made_elsewhere(common_name: str) -> pki.Made:
    now = datetime.now(UTC)
    return pki.make(
        common_name,
        ca=True,
        key_usage=pki.CA_USAGE,
        not_before=now - timedelta(days=1),
        not_after=now + timedelta(days=3650),
    )


def engine_of(admin: httpx.Client) -> str:
    engines = done(admin.get("/api/ca/v1/engines"), 200)
    engine: str = engines[0]["id"]
    return engine


def make_ca(admin: httpx.Client, ca_id: str, **changed: object) -> Any:
    """As the older console's form: both kinds of an expiration, and leftovers. It is older than
    profiles, which the original asks for by now."""
    body = {
        "id": ca_id,
        "engine_id": engine_of(admin),
        "subject": {
            "country": "ES",
            "state": "Gipuzkoa",
            "locality": "Arrasate",
            "organization": "LKS",
            "organization_unit": "Lab",
            "common_name": ca_id,
        },
        "key_metadata": {"type": "ECDSA", "bits": 256},
        "ca_expiration": {
            "type": "Duration",
            "duration": "2y",
            "time": "2030-01-01T00:00:00+01:00",
        },
        "issuance_expiration": {"type": "Duration", "duration": "100d", "time": ""},
        "ca_type": "MANAGED",
        "profile_id": "device-profile",
    }
    return done(admin.post(CAS, json=body | changed), 201)


def signed(admin: httpx.Client, ca_id: str, common_name: str, **said: object) -> Any:
    body = {"csr": csr_of(common_name), **said}
    return done(admin.post(f"{CAS}/{ca_id}/certificates/sign", json=body), 201)


def test_the_older_consoles_cas(admin: httpx.Client) -> None:
    root = make_ca(admin, "console-root")
    child = make_ca(
        admin,
        "console-child",
        parent_id="console-root",
        ca_expiration={"type": "Duration", "duration": "1y", "time": "2030-01-01T00:00:00Z"},
    )
    assert (root["level"], child["level"]) == (0, 1)
    assert child["certificate"]["issuer_metadata"]["id"] == "console-root"

    everything = {"patches": [{"op": "add", "path": "", "value": {"plant": "north"}}]}
    patched = done(admin.put(f"{CAS}/console-child/metadata", json=everything), 200)
    assert patched["metadata"]["plant"] == "north"

    stats = done(admin.get("/api/ca/v1/stats/console-child"), 200)
    assert set(stats) >= {"ACTIVE", "EXPIRED", "REVOKED"}
    revoked = done(
        admin.post(
            f"{CAS}/console-child/status",
            json={"status": "REVOKED", "revocation_reason": "CessationOfOperation"},
        ),
        201,
    )
    assert revoked["certificate"]["status"] == "REVOKED"
    assert done(admin.delete(f"{CAS}/console-child"), 200) == {}
    assert admin.get(f"{CAS}/console-child").status_code == 404


def test_the_older_console_signs_under_a_profile_of_its_own(admin: httpx.Client) -> None:
    make_ca(admin, "console-signer")
    profile = {
        "validity": {"type": "Time", "time": "2027-06-01T12:00:00+02:00"},
        "sign_as_ca": False,
        "honor_key_usage": False,
        "key_usage": ["DigitalSignature"],
        "honor_extended_key_usages": False,
        "extended_key_usage": ["ClientAuth"],
        "honor_subject": True,
        "honor_extensions": True,
    }
    certificate = signed(admin, "console-signer", "one", profile=profile)
    assert certificate["valid_to"].startswith("2027-06-01T10:00:00")
    assert certificate["extensions"]["extended_key_usage"] == ["ClientAuth"]

    held = done(
        admin.put(
            f"{CERTIFICATES}/{certificate['serial_number']}/status",
            json={"status": "REVOKED", "revocation_reason": "CertificateHold"},
        ),
        200,
    )
    assert held["revocation_reason"] == "CertificateHold"
    again = done(
        admin.put(
            f"{CERTIFICATES}/{certificate['serial_number']}/status", json={"status": "ACTIVE"}
        ),
        200,
    )
    assert again["status"] == "ACTIVE"


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (CERTIFICATES, {"sort_by": "valid_from", "sort_mode": "desc", "page_size": "10"}),
        (CERTIFICATES, {"sort_by": "subject.common_name", "sort_mode": "asc", "page": "1"}),
        (CERTIFICATES, {"sort_by": "serial_number", "filter": "status[equal]ACTIVE"}),
        (CERTIFICATES, {"sort_by": "valid_to", "filter": "subject.common_name[contains]Root CA"}),
        (CERTIFICATES, {"sort_by": "status", "filter": "serial_number[contains]abcdef"}),
        (PROFILES, {"sort_by": "name", "filter": "name[contains_ignorecase]device"}),
        (f"{CAS}/root-ca/certificates", {"sort_by": "valid_from", "sort_mode": "desc"}),
    ],
)
def test_the_newer_consoles_lists(admin: httpx.Client, path: str, query: dict[str, str]) -> None:
    found = done(admin.get(f"{path}?{urlencode(query)}"), 200)
    assert isinstance(found["list"], list)
    paged = urlencode(query | {"page_size": "1"})
    page = done(admin.get(f"{path}?{paged}"), 200)
    while page["next"]:
        # the sort and the filters are sent along with the bookmark
        page = done(admin.get(f"{path}?{paged}&{urlencode({'bookmark': page['next']})}"), 200)
        assert len(page["list"]) <= 1


def test_the_newer_console_makes_a_profile_and_a_ca_for_ever(admin: httpx.Client) -> None:
    profile = done(
        admin.post(
            PROFILES,
            json={
                "name": "From the console",
                "validity": {"type": "Duration", "duration": "90d"},
                "sign_as_ca": False,
                "honor_key_usage": False,
                "key_usage": ["DigitalSignature"],
                "honor_extended_key_usages": False,
                "extended_key_usages": ["ClientAuth"],
                "honor_subject": False,
                "honor_extensions": True,
                "subject": {"organization": "LKS", "organizational_unit": "Lab"},
                "crypto_enforcement": {
                    "enabled": True,
                    "allow_rsa_keys": False,
                    "allow_ecdsa_keys": True,
                    "allowed_rsa_key_sizes": [],
                    "allowed_ecdsa_key_sizes": [256],
                },
            },
        ),
        201,
    )
    body = {
        "parent_id": None,
        "id": "console-for-ever",
        "engine_id": engine_of(admin),
        "subject": {"common_name": "For Ever", "state_province": "Gipuzkoa"},
        "key_metadata": {"type": "ECDSA", "bits": 256},
        "ca_expiration": {"type": "Date", "time": "9999-12-31T23:59:59.999Z"},
        "profile_id": profile["id"],
        "ca_type": "MANAGED",
    }
    ca = done(admin.post(CAS, json=body), 201)
    assert ca["certificate"]["valid_to"].startswith("9999-12-31T23:59:59")

    certificate = signed(admin, "console-for-ever", "device", profile_id=profile["id"])
    assert certificate["subject"]["organization"] == "LKS"
    assert certificate["subject"]["organization_unit"] == "Lab"
    assert done(admin.get(f"{PROFILES}/{profile['id']}"), 200)["name"] == "From the console"
    inline = {
        "extended_key_usages": ["ClientAuth"],
        "key_usage": ["DigitalSignature"],
        "honor_extensions": True,
        "honor_subject": True,
        "validity": {"type": "Date", "time": "9999-12-31T23:59:58.999Z"},
    }
    endless = signed(admin, "console-for-ever", "endless", profile=inline)
    assert endless["valid_to"] <= ca["certificate"]["valid_to"]
    changed = done(
        admin.post(f"{CAS}/console-for-ever/profile", json={"profile_id": "device-profile"}), 200
    )
    assert changed["profile_id"] == "device-profile"


def test_the_newer_consoles_imports(admin: httpx.Client) -> None:
    made = ca_made_elsewhere("Brought Along")
    full = {
        "id": "console-imported",
        "engine_id": engine_of(admin),
        "private_key": b64(
            made.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        ),
        "ca": b64(made.certificate.public_bytes(Encoding.PEM)),
        "ca_chain": [],
        "ca_type": "IMPORTED",
        "profile_id": "device-profile",
        "parent_id": "",
    }
    ca = done(admin.post(f"{CAS}/import", json=full), 201)
    assert ca["certificate"]["type"] == "IMPORTED_WITH_KEY"
    leaf = signed(admin, "console-imported", "leaf", profile_id="device-profile")
    loaded = x509.load_pem_x509_certificate(base64.b64decode(leaf["certificate"]))
    loaded.verify_directly_issued_by(made.certificate)

    foreign = ca_made_elsewhere("Only Known").certificate
    public = {
        "id": "console-public",
        "ca": b64(foreign.public_bytes(Encoding.PEM)),
        "ca_chain": [],
        "ca_type": "EXTERNAL_PUBLIC",
    }
    known = done(admin.post(f"{CAS}/import", json=public), 201)
    assert known["certificate"]["type"] == "IMPORTED_WITHOUT_KEY"
    stray = pki.make("stray").certificate.public_bytes(Encoding.PEM)
    imported = done(
        admin.post(f"{CERTIFICATES}/import", json={"certificate": b64(stray), "metadata": {}}), 201
    )
    assert imported["issuer_metadata"]["id"] == "-"
