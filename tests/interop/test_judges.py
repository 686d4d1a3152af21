"""Everything that a whole platform issues, for both kinds of CA keys, before outside judges."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp

from tests.support.est import Device, bootstrap, make_dms, new_key
from tests.support.judges import (
    lint_certificate,
    lint_crl,
    lint_ocsp,
    openssl_crl,
    openssl_ocsp_verify,
    openssl_verify,
)
from tests.support.server import Server, make_installation, serving

REASONS = ("KeyCompromise", "Superseded", "CertificateHold", "PrivilegeWithdrawn", "Unspecified")
# Names of this host in a test's TLS certificate, and our own URI scheme, are no mistakes.
INTERNAL_NAMES = ("pkix.invalid_uri_syntax", "pkix.invalid_domain_name_syntax")


@pytest.fixture(scope="module", params=["ecdsa-p256", "ecdsa-p384", "rsa-4096"])
def lived_in(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A platform on which devices were enrolled, renewed and revoked for each reason."""
    folder = tmp_path_factory.mktemp("judged")
    directory = make_installation(folder / "var", key_type=request.param)
    with serving(directory) as server:
        make_dms(server, "judged")
        credential = bootstrap(server, folder, "judged-bootstrap")
        for reason in REASONS:
            device = Device(server, "judged", f"device-{reason}", folder / "devices", credential)
            assert device.enroll().status_code == 200
            assert device.reenroll(new_key()).status_code == 200
            assert device.identity is not None
            with server.admin() as admin:
                answer = admin.put(
                    f"/api/ca/v1/certificates/{device.identity.serial_number}/status",
                    json={"status": "REVOKED", "revocation_reason": reason},
                )
            assert answer.status_code == 200, answer.text
        yield server


def everything(server: Server) -> list[bytes]:
    """Every certificate that the CA service has stored (DER)."""
    found: list[bytes] = []
    with server.admin() as admin:
        bookmark = ""
        while True:
            page = admin.get(
                "/api/ca/v1/certificates", params={"page_size": 5, "bookmark": bookmark}
            ).json()
            found += [
                x509.load_pem_x509_certificate(base64.b64decode(one["certificate"])).public_bytes(
                    serialization.Encoding.DER
                )
                for one in page["list"]
            ]
            bookmark = page["next"]
            if not bookmark:
                return found


def cas(server: Server) -> dict[str, x509.Certificate]:
    """The CAs by id."""
    with server.admin() as admin:
        listed = admin.get("/api/ca/v1/cas", params={"page_size": 100}).json()["list"]
    return {
        one["id"]: x509.load_pem_x509_certificate(
            base64.b64decode(one["certificate"]["certificate"])
        )
        for one in listed
    }


def issuer_of(certificate: x509.Certificate, known: dict[str, x509.Certificate]) -> str:
    return next(id_ for id_, ca in known.items() if ca.subject == certificate.issuer)


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def test_every_certificate_passes_pkilint_and_openssl(lived_in: Server) -> None:
    known = cas(lived_in)
    roots = [der(ca) for ca in known.values() if ca.subject == ca.issuer]
    others = [der(ca) for ca in known.values() if ca.subject != ca.issuer]
    certificates = everything(lived_in)

    assert len(certificates) >= len(known) + 2 * len(REASONS)
    for one in certificates:
        assert lint_certificate(one) == []
        accepted, text = openssl_verify(one, anchors=roots, intermediates=others)
        assert accepted, text


def test_every_crl_passes_pkilint_and_openssl(lived_in: Server) -> None:
    for id_, ca in cas(lived_in).items():
        crl = httpx.get(f"{lived_in.http_url}/ca/{id_}.crl").content
        assert lint_crl(crl) == [], id_
        accepted, text = openssl_crl(crl, issuer=der(ca))
        assert accepted, text


def test_every_ocsp_answer_passes_pkilint_and_its_signature_holds(lived_in: Server) -> None:
    known = cas(lived_in)
    roots = [der(ca) for ca in known.values()]
    for one in everything(lived_in):
        certificate = x509.load_der_x509_certificate(one)
        issuer = known[issuer_of(certificate, known)]
        for algorithm in (hashes.SHA1(), hashes.SHA256()):
            asked = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, algorithm)
            answer = httpx.post(
                f"{lived_in.http_url}/ocsp",
                content=asked.build().public_bytes(serialization.Encoding.DER),
                headers={"Content-Type": "application/ocsp-request"},
            ).content
            assert lint_ocsp(answer) == []
            accepted, text = openssl_ocsp_verify(
                answer,
                issuer=der(issuer),
                certificate_der=one,
                anchors=roots,
                digest=algorithm.name,
            )
            assert accepted, text
            parsed = ocsp.load_der_ocsp_response(answer)
            assert parsed.certificate_status is not ocsp.OCSPCertStatus.UNKNOWN
            assert parsed.serial_number == certificate.serial_number


def test_the_platforms_own_certificates_pass_pkilint(lived_in: Server) -> None:
    for path in ("tls/server.crt", "admin.crt", "tls-ca.crt", "est/est.crt"):
        for one in x509.load_pem_x509_certificates((lived_in.directory / path).read_bytes()):
            assert lint_certificate(der(one), allowed=INTERNAL_NAMES) == [], path


def test_a_relying_party_with_crls_refuses_what_was_revoked(lived_in: Server) -> None:
    known = cas(lived_in)
    path_ids = ("manufacturing-ca", "intermediate-ca", "root-ca")
    crls = [httpx.get(f"{lived_in.http_url}/ca/{one}.crl").content for one in path_ids]
    revoked = {entry.serial_number for one in crls for entry in x509.load_der_x509_crl(one)}
    assert len(revoked) == len(REASONS)

    for one in everything(lived_in):
        certificate = x509.load_der_x509_certificate(one)
        if certificate.issuer != known["manufacturing-ca"].subject:
            continue
        accepted, text = openssl_verify(
            one,
            anchors=[der(known["root-ca"])],
            intermediates=[der(known["manufacturing-ca"]), der(known["intermediate-ca"])],
            crls=crls,
            options=["-crl_check_all"],
        )
        assert accepted == (certificate.serial_number not in revoked), text
        assert accepted or "certificate revoked" in text
