"""Mutated requests and certificates through the real EST, OCSP and signing routes."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, pkcs7
from cryptography.x509 import ocsp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamassu.kernel.identity import Peer
from lamassu.kernel.x509.pem import pem_of
from tests.properties.assembled import EDGE, Answer, Assembled
from tests.properties.test_every_route import check
from tests.properties.test_mutated_der import mutated
from tests.support.csrs import request
from tests.support.pki import CLIENT_AUTH, make

KEY = ec.generate_private_key(ec.SECP256R1())
CSR = request(
    "device-1", key=KEY, names=[x509.DNSName("a.example"), x509.RFC822Name("a@b.example")]
)
PLAIN = request("device-2", key=KEY)
PLACES = ("/.well-known/est/plant", "/api/dmsmanager/.well-known/est/plant")
PKCS10 = [(b"content-type", b"application/pkcs10")]

_some = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def enroll(
    assembled: Assembled,
    body: bytes,
    *chain: bytes,
    place: str = PLACES[0],
    operation: str = "simpleenroll",
) -> Answer:
    """Whatever comes of it is no fault of ours, and any certificate is for a proven key."""
    answer = assembled.ask(
        "POST", f"{place}/{operation}", body, headers=PKCS10, peer=Peer(chain, "192.0.2.7")
    )
    check(answer, body)
    assert answer.status in (200, 400, 401, 403, 409, 413)
    return answer


def certificate_in(answer: Answer) -> x509.Certificate:
    [certificate] = pkcs7.load_der_pkcs7_certificates(base64.b64decode(answer.body))
    return certificate


def is_of(certificate: x509.Certificate, csr: bytes) -> bool:
    """Whether it is for the key of a request that proves to have it."""
    asked = x509.load_der_x509_csr(csr)
    keys = [
        key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for key in (asked.public_key(), certificate.public_key())
    ]
    return asked.is_signature_valid and keys[0] == keys[1]


@pytest.mark.parametrize("place", PLACES)
def test_a_mutated_request_enrolls_only_the_key_that_signed_it(
    assembled: Assembled, place: str
) -> None:
    @_some
    @given(mutated(CSR) | mutated(PLAIN) | st.binary(max_size=200))
    def ask(der: bytes) -> None:
        answer = enroll(assembled, base64.b64encode(der), assembled.bootstrap, place=place)
        if answer.status == 200:
            assert is_of(certificate_in(answer), der)

    ask()


def test_a_mutated_body_is_read_or_refused(assembled: Assembled) -> None:
    pem = pem_of(CSR, "CERTIFICATE REQUEST")

    @_some
    @given(mutated(base64.b64encode(CSR)) | mutated(pem) | mutated(CSR) | st.binary(max_size=100))
    def ask(body: bytes) -> None:
        enroll(assembled, body, assembled.bootstrap)

    ask()


def test_a_mutated_certificate_admits_nobody(assembled: Assembled) -> None:
    body = base64.b64encode(CSR)

    @_some
    @given(mutated(assembled.bootstrap) | st.binary(max_size=200), st.sampled_from(OPERATIONS))
    def ask(certificate: bytes, operation: str) -> None:
        answer = enroll(assembled, body, certificate, operation=operation)
        if certificate != assembled.bootstrap:
            assert answer.status == 401

    ask()


OPERATIONS = ("simpleenroll", "simplereenroll")


def test_a_mutated_intermediate_harms_nobody(assembled: Assembled) -> None:
    stranger = make("Stranger", ca=True)
    leaf = make("device-3", issuer=stranger, extended=CLIENT_AUTH)

    @_some
    @given(mutated(stranger.der), st.integers(0, 12), st.booleans())
    def ask(certificate: bytes, count: int, ours: bool) -> None:
        own = assembled.bootstrap if ours else leaf.der
        answer = enroll(assembled, base64.b64encode(b"no request"), own, *[certificate] * count)
        assert answer.status in ((400, 401) if ours else (401,))

    ask()


def test_a_mutated_renewal_keeps_the_devices_name(assembled: Assembled) -> None:
    csr = base64.b64encode(request("device-4", key=KEY))
    first = enroll(assembled, csr, assembled.bootstrap)
    identity = certificate_in(first).public_bytes(Encoding.DER)

    @_some
    @given(mutated(request("device-4", key=KEY)) | mutated(CSR))
    def ask(der: bytes) -> None:
        body = base64.b64encode(der)
        answer = enroll(assembled, body, identity, operation="simplereenroll")
        if answer.status == 200:
            renewed = certificate_in(answer)
            assert is_of(renewed, der)
            assert renewed.subject == x509.load_der_x509_certificate(identity).subject

    ask()


def test_an_edge_may_pass_on_anything(assembled: Assembled) -> None:
    chain = st.lists(mutated(assembled.bootstrap) | st.just(assembled.bootstrap), max_size=3)

    @_some
    @given(chain, mutated(CSR), st.sampled_from(["enroll", "reenroll"]))
    def ask(certificates: list[bytes], der: bytes, deed: str) -> None:
        body = {
            "peer": {"chain": [base64.b64encode(one).decode() for one in certificates]},
            "csr": base64.b64encode(der).decode(),
        }
        answer = assembled.ask(
            "POST",
            f"/internal/dms/plant/{deed}",
            json.dumps(body).encode(),
            listener="internal",
            peer=EDGE,
        )
        check(answer)
        assert answer.status == 200, "what the device did wrong is no fault of the edge's"
        assert bool(answer.json["certificates"]) != bool(answer.json["refusal"])

    ask()


def test_a_mutated_request_is_signed_for_its_own_key_only(assembled: Assembled) -> None:
    @_some
    @given(mutated(CSR))
    def ask(der: bytes) -> None:
        pem = base64.b64encode(pem_of(der, "CERTIFICATE REQUEST")).decode()
        answer = assembled.ask(
            "POST",
            "/api/ca/v1/cas/bystander-ca/certificates/sign",
            json.dumps({"csr": pem}).encode(),
        )
        check(answer, der)
        assert answer.status in (201, 400)
        if answer.status == 201:
            issued = x509.load_pem_x509_certificate(base64.b64decode(answer.json["certificate"]))
            assert is_of(issued, der)

    ask()


def test_a_mutated_status_request_is_answered_in_its_own_tongue(assembled: Assembled) -> None:
    root = make("Root", ca=True)
    leaf = make("leaf", issuer=root)
    builder = ocsp.OCSPRequestBuilder().add_certificate(
        leaf.certificate, root.certificate, SHA256()
    )
    honest = builder.add_extension(x509.OCSPNonce(b"n" * 16), False).build()
    der = honest.public_bytes(Encoding.DER)

    @_some
    @given(mutated(der) | st.binary(max_size=100), st.sampled_from(["https", "http"]))
    def ask(sent: bytes, listener: str) -> None:
        base = "/api/va/ocsp" if listener == "https" else "/ocsp"
        posted = assembled.ask("POST", base, sent, listener=listener)
        text = base64.b64encode(sent).decode()
        asked = assembled.ask("GET", f"{base}/{text}", listener=listener) if sent else posted
        for answer in (posted, asked):
            assert answer.status == 200
            assert answer.headers["content-type"] == "application/ocsp-response"
            ocsp.load_der_ocsp_response(answer.body)

    ask()
