"""The internal CA, its keys and its certificates are out of every API's reach (decision 2)."""

from __future__ import annotations

import base64
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tests.security.test_revocation import certificate_of
from tests.support.est import Credential, make_csr, new_key
from tests.support.server import Server

INTERNAL_ROUTE = "/internal/dms/production-dms/cacerts"


@pytest.fixture
def hidden(platform: Server) -> list[x509.Certificate]:
    """The internal root and issuing CA, as every client of the platform has them."""
    return x509.load_pem_x509_certificates((platform.directory / "tls-ca.crt").read_bytes())


def key_id_of(certificate: x509.Certificate) -> str:
    extension = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return extension.value.digest.hex()


def test_no_route_tells_of_the_internal_ca(
    platform: Server, hidden: list[x509.Certificate]
) -> None:
    message = {"algorithm": "ECDSA_SHA_256", "message": "aGk=", "message_type": "raw"}
    with platform.admin() as admin:
        for certificate in hidden:
            key_id, serial = key_id_of(certificate), f"{certificate.serial_number:x}"
            uri = f"pkcs11:token-id=software;id={key_id};type=private"
            refused = [
                *(admin.get(f"/api/kms/v1/keys/{name}") for name in (key_id, uri)),
                admin.post(f"/api/kms/v1/keys/{key_id}/sign", json=message),
                admin.post(f"/api/kms/v1/keys/{key_id}/verify", json=message | {"signature": ""}),
                admin.put(f"/api/kms/v1/keys/{key_id}/name", json={"name": "mine"}),
                admin.delete(f"/api/kms/v1/keys/{key_id}"),
                admin.get(f"/api/ca/v1/certificates/{serial}"),
                admin.post(f"/api/ca/v1/certificates/{serial}/revoke", json={}),
                admin.get(f"/api/va/v1/roles/{key_id}"),
                admin.get(f"/api/va/crl/{key_id}"),
                httpx.get(f"{platform.http_url}/crl/{key_id}"),
                admin.post("/api/ca/v1/cas", json=_ca("with-their-key", "x", key_id=key_id)),
            ]
            assert [answer.status_code for answer in refused] == [404] * len(refused)
            assert key_id not in admin.get("/api/kms/v1/keys?page_size=1000").text
            assert key_id not in admin.get("/api/ca/v1/cas?page_size=1000").text
            assert serial not in admin.get("/api/ca/v1/certificates?page_size=1000").text
            assert key_id not in admin.get("/api/alerts/v1/events/latest").text


def test_a_dms_cannot_let_in_by_the_internal_ca(
    platform: Server, hidden: list[x509.Certificate]
) -> None:
    for name in ("internal", "root", "issuing", *map(key_id_of, hidden)):
        client_certificate = {"client_certificate_settings": {"validation_cas": [name]}}
        enrollment = {
            "enrollment_ca": "manufacturing-ca",
            "est_rfc7030_settings": client_certificate,
        }
        body = {"id": "sly", "name": "sly", "settings": {"enrollment_settings": enrollment}}
        with platform.admin() as admin:
            answer = admin.post("/api/dmsmanager/v1/dms", json=body)
        assert (answer.status_code, answer.json()["code"]) == (400, "ca_not_found")


def test_a_ca_of_the_internal_names_makes_nobody_a_principal(
    platform: Server, hidden: list[x509.Certificate], tmp_path: Path
) -> None:
    """Issuers are trusted by exact certificate (rule 9): the name alone is anybody's."""
    for number, real in enumerate(hidden):
        ca_id, name = f"namesake-{number}", real.subject.get_attributes_for_oid
        organization = str(name(NameOID.ORGANIZATION_NAME)[0].value)
        common_name = str(name(NameOID.COMMON_NAME)[0].value)
        key = new_key()
        csr = x509.load_der_x509_csr(make_csr(key, "admin")).public_bytes(Encoding.PEM)
        with platform.admin() as admin:
            made = _ca(ca_id, common_name, organization=organization)
            admin.post("/api/ca/v1/cas", json=made).raise_for_status()
            signed = admin.post(
                f"/api/ca/v1/cas/{ca_id}/certificates/sign",
                json={"csr": base64.b64encode(csr).decode()},
            ).raise_for_status()
        leaf = x509.load_pem_x509_certificate(base64.b64decode(signed.json()["certificate"]))
        namesake = certificate_of(platform, ca_id)
        assert namesake.subject == real.subject
        shown = Credential.store(tmp_path, ca_id, leaf, key)
        with shown.certificate_path.open("ab") as chain:
            chain.write(namesake.public_bytes(Encoding.PEM))

        with platform.client(shown.certificate_path, shown.key_path) as client:
            assert client.get("/api/ca/v1/cas").status_code == 401
            with pytest.raises(httpx.TransportError):
                client.get(f"https://localhost:{platform.internal_port}{INTERNAL_ROUTE}")


def _ca(
    ca_id: str, common_name: str, *, organization: str = "", key_id: str = ""
) -> dict[str, object]:
    return {
        "id": ca_id,
        "subject": {"common_name": common_name, "organization": organization},
        "key_metadata": {"type": "ECDSA", "bits": 256, "key_id": key_id},
        "ca_expiration": {"type": "Duration", "duration": "100h"},
        "profile_id": "device-profile",
    }
