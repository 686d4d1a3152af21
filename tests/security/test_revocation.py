"""What relying parties learn, and when, over real TLS and plain HTTP (rules 24, 25)."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from tests.support.est import make_csr, new_key
from tests.support.server import Server


def certificate_of(server: Server, ca_id: str) -> x509.Certificate:
    with server.admin() as admin:
        answer = admin.get(f"/api/ca/v1/cas/{ca_id}").raise_for_status()
    return x509.load_pem_x509_certificate(
        base64.b64decode(answer.json()["certificate"]["certificate"])
    )


def make_ca(server: Server, ca_id: str, parent: str = "", hours: int = 100) -> x509.Certificate:
    body = {
        "id": ca_id,
        "parent_id": parent,
        "subject": {"common_name": ca_id},
        "key_metadata": {"type": "ECDSA", "bits": 256},
        "ca_expiration": {"type": "Duration", "duration": f"{hours}h"},
        "profile_id": "device-profile",
    }
    with server.admin() as admin:
        admin.post("/api/ca/v1/cas", json=body).raise_for_status()
    return certificate_of(server, ca_id)


def sign(server: Server, ca_id: str, common_name: str) -> x509.Certificate:
    csr = x509.load_der_x509_csr(make_csr(new_key(), common_name)).public_bytes(Encoding.PEM)
    with server.admin() as admin:
        answer = admin.post(
            f"/api/ca/v1/cas/{ca_id}/certificates/sign",
            json={"csr": base64.b64encode(csr).decode()},
        ).raise_for_status()
    return x509.load_pem_x509_certificate(base64.b64decode(answer.json()["certificate"]))


def revoke_ca(server: Server, ca_id: str) -> httpx.Response:
    change = {"status": "REVOKED", "revocation_reason": "CACompromise"}
    with server.admin() as admin:
        return admin.post(f"/api/ca/v1/cas/{ca_id}/status", json=change).raise_for_status()


def ask(server: Server, certificate: x509.Certificate, issuer: x509.Certificate) -> str:
    """OCSP by GET, the form that is cached."""
    request = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, SHA256()).build()
    text = base64.urlsafe_b64encode(request.public_bytes(Encoding.DER)).decode()
    answer = httpx.get(f"{server.http_url}/ocsp/{text}")
    response = ocsp.load_der_ocsp_response(answer.content)
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        return response.response_status.name
    return response.certificate_status.name


@contextmanager
def out_of_reach(path: Path) -> Iterator[None]:
    away = path.with_name("away")
    path.rename(away)
    yield
    away.rename(path)


def test_a_revoked_ca_takes_cached_answers_of_its_subtree_along_at_once(platform: Server) -> None:
    top = make_ca(platform, "falls-top")
    middle = make_ca(platform, "falls-middle", "falls-top", hours=99)
    below = make_ca(platform, "falls-below", "falls-middle", hours=98)
    leaf = sign(platform, "falls-below", "falls-leaf")
    chain = ((leaf, below), (below, middle), (middle, top))
    assert [ask(platform, *pair) for pair in chain for _ in range(2)] == ["GOOD"] * 6

    answer = revoke_ca(platform, "falls-middle")

    assert [ask(platform, *pair) for pair in chain] == ["REVOKED"] * 3
    assert ask(platform, top, top) == "GOOD"
    assert "lamassu-job" in answer.headers


def test_a_revocation_that_no_crl_shows_yet_says_pending(platform: Server) -> None:
    """The CA's key is out of reach: the commit stands, the answer says what is missing, and
    the CRL follows by itself."""
    intermediate = certificate_of(platform, "intermediate-ca")
    development = certificate_of(platform, "development-ca")
    ski = intermediate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    key = platform.directory / "keys" / f"{ski.value.digest.hex()}.key"
    crl_url = f"{platform.http_url}/ca/intermediate-ca.crl"
    with out_of_reach(key):
        answer = revoke_ca(platform, "development-ca")
        assert answer.headers["lamassu-revocation"] == "pending"
        assert ask(platform, development, intermediate) == "TRY_LATER", "never a stale good"
        crl = x509.load_der_x509_crl(httpx.get(crl_url).content)
        assert crl.get_revoked_certificate_by_serial_number(development.serial_number) is None

    assert ask(platform, development, intermediate) == "REVOKED"
    deadline = time.monotonic() + 30
    while True:
        crl = x509.load_der_x509_crl(httpx.get(crl_url).content)
        if crl.get_revoked_certificate_by_serial_number(development.serial_number) is not None:
            return
        assert time.monotonic() < deadline, "the CRL never caught up"
        time.sleep(0.1)
