"""What was brought from elsewhere is ours by the signature of a CA of ours, by nothing else
(security rule 14)."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from tests.security.test_revocation import ask, certificate_of
from tests.support.est import Credential, Device, bootstrap, make_csr, make_dms, new_key
from tests.support.server import Server


def signed_like(
    real: x509.Certificate,
    issuer: x509.Certificate,
    *,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    ca: bool = False,
) -> x509.Certificate:
    """All that a certificate of that issuer says, for another key and by another signer."""
    now = datetime.now(UTC)
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        x509.CertificateBuilder()
        .subject_name(real.subject)
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca, None), True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), False
        )
        .add_extension(identifier if ca else x509.SubjectKeyIdentifier(b"\x05" * 20), False)
        .sign(signer, SHA256())
    )


def pem(certificate: x509.Certificate) -> str:
    return base64.b64encode(certificate.public_bytes(Encoding.PEM)).decode()


def test_a_forged_certificate_is_kept_and_is_nothing_to_anybody(
    platform: Server, tmp_path: Path
) -> None:
    make_dms(platform, "brought")
    credential = bootstrap(platform, tmp_path, "brought-bootstrap")
    device = Device(platform, "brought", "brought-1", tmp_path, credential)
    assert device.enroll().status_code == 200
    assert device.identity is not None
    real, issuer = device.identity.certificate, certificate_of(platform, "manufacturing-ca")
    thief = new_key()
    forged = signed_like(real, issuer, key=thief, signer=thief)
    shown = Credential.store(tmp_path, "forged", forged, thief)

    with platform.admin() as admin:
        kept = admin.post("/api/ca/v1/certificates/import", json={"certificate": pem(forged)})
        assert kept.status_code == 201, kept.text
        assert kept.json()["issuer_metadata"]["id"] == "-"
        slot = {
            "status": "ACTIVE",
            "active_version": 1,
            "versions": {"0": device.identity.serial_number, "1": shown.serial_number},
        }
        filled = admin.put("/api/devmanager/v1/devices/brought-1/idslot", json=slot)
        assert (filled.status_code, filled.json()["code"]) == (400, "certificate_not_for_device")
        revoked = admin.post(f"/api/ca/v1/certificates/{shown.serial_number}/revoke", json={})
        assert revoked.status_code == 200

    renewal = device.post("simplereenroll", make_csr(thief, "brought-1"), shown)
    assert renewal.status_code == 401
    assert ask(platform, forged, issuer) == "UNKNOWN"
    assert ask(platform, real, issuer) == "GOOD"
    crl = x509.load_der_x509_crl(httpx.get(f"{platform.http_url}/ca/manufacturing-ca.crl").content)
    assert crl.get_revoked_certificate_by_serial_number(forged.serial_number) is None
    assert device.reenroll(new_key()).status_code == 200


def test_an_imported_ca_takes_no_other_cas_key_identifier(platform: Server) -> None:
    real = certificate_of(platform, "manufacturing-ca")
    thief = new_key()
    twin = signed_like(real, real, key=thief, signer=thief, ca=True)

    with platform.admin() as admin:
        answer = admin.post("/api/ca/v1/cas/import", json={"id": "twin", "ca": pem(twin)})
        assert (answer.status_code, answer.json()["code"]) == (409, "key_id_in_use")
        assert admin.get("/api/ca/v1/cas/twin").status_code == 404


@pytest.mark.parametrize("which", [0, 1], ids=["root", "issuing"])
def test_the_internal_ca_is_not_imported(platform: Server, which: int) -> None:
    """Decision 2: no DMS could be told to let in by it."""
    hidden = x509.load_pem_x509_certificates((platform.directory / "tls-ca.crt").read_bytes())

    with platform.admin() as admin:
        answer = admin.post(
            "/api/ca/v1/cas/import", json={"id": "hidden", "ca": pem(hidden[which])}
        )

    assert (answer.status_code, answer.json()["code"]) == (403, "platform_ca")
