"""Whatever a stranger sends, the parsers answer with a value or an error of ours."""

from __future__ import annotations

import contextlib
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamassu.kernel.errors import LamassuError
from lamassu.kernel.x509.crls import parse_crl, verify_crl
from lamassu.kernel.x509.csr import parse_csr, verify_csr_signature
from lamassu.kernel.x509.der import check_der, is_one_sequence_or_set
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.kernel.x509.keys import key_facts, load_public_key
from lamassu.kernel.x509.names import Subject, name_of
from lamassu.kernel.x509.ocsp import parse_ocsp_request
from lamassu.kernel.x509.paths import Purpose, verify_path
from lamassu.kernel.x509.pem import ders_of, pem_of
from lamassu.services.va.http import decode_request
from tests.support.pki import CLIENT_AUTH, NOW, ec_key, make, spki_of, usage

_KEY = ec_key()
_CSR = (
    x509.CertificateSigningRequestBuilder()
    .subject_name(name_of(Subject("device-1", "Acme", "Lab", "DE", "Bayern", "Ulm")))
    .add_extension(x509.SubjectAlternativeName([x509.DNSName("a.example")]), False)
    .add_extension(usage(digital_signature=True), True)
    .add_extension(CLIENT_AUTH, False)
    .sign(_KEY, SHA256())
    .public_bytes(Encoding.DER)
)
_ROOT = make("Root", ca=True)
_LEAF = make("device-1", issuer=_ROOT, extended=CLIENT_AUTH)

_few = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def mutated(draw: st.DrawFn, original: bytes) -> bytes:
    """A few bytes changed, dropped, doubled or put in."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.sampled_from(["set", "flip", "cut", "insert", "drop", "double"])):
            case "set":
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case "flip":
                data[at : at + 1] = bytes([data[at] ^ 1 << draw(st.integers(0, 7))] if data else [])
            case "cut":
                del data[at:]
            case "insert":
                data[at:at] = draw(st.binary(max_size=8))
            case "drop":
                del data[at : at + draw(st.integers(1, 16))]
            case "double":
                data[at:at] = data[at : at + draw(st.integers(1, 64))]
    return bytes(data)


@given(mutated(_CSR) | st.binary(max_size=300))
@_few
def test_a_mutated_request_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(LamassuError):
        verify_csr_signature(parse_csr(data))


@given(mutated(_LEAF.der) | st.binary(max_size=300))
@_few
def test_a_mutated_certificate_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(LamassuError):
        certificate_facts(data)


@given(mutated(_LEAF.der))
@_few
def test_a_mutated_certificate_has_no_path(data: bytes) -> None:
    with contextlib.suppress(LamassuError):
        verify_path(
            data, intermediates=[], anchors=[_ROOT.der], at=NOW, purpose=Purpose.CLIENT_AUTH
        )
        assert data == _LEAF.der


@given(mutated(spki_of(_KEY)) | st.binary(max_size=200))
@_few
def test_a_mutated_key_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(LamassuError):
        key_facts(data)
    with contextlib.suppress(LamassuError):
        load_public_key(data)


@given(st.binary(max_size=200) | mutated(_CSR), st.integers(0, 6))
@_few
def test_the_walk_ends_and_what_it_passes_is_one_element(data: bytes, depth: int) -> None:
    with contextlib.suppress(LamassuError):
        check_der(data, max_length=1000, max_depth=depth)
        assert is_one_sequence_or_set(data) == (data[0] & 0xDF in (0x10, 0x11))


@given(mutated(pem_of(_CSR, "CERTIFICATE REQUEST")))
@_few
def test_mutated_pem_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(LamassuError):
        ders_of(data, "CERTIFICATE REQUEST")


def _ocsp_request() -> bytes:
    builder = ocsp.OCSPRequestBuilder().add_certificate(
        _LEAF.certificate, _ROOT.certificate, SHA256()
    )
    nonced = builder.add_extension(x509.OCSPNonce(b"n" * 16), False)
    return nonced.build().public_bytes(Encoding.DER)


@given(mutated(_ocsp_request()) | st.binary(max_size=300))
@_few
def test_a_mutated_status_request_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(LamassuError):
        request = parse_ocsp_request(data)
        assert 1 <= len(request.certificates) <= 16


def _crl() -> bytes:
    revoked = x509.RevokedCertificateBuilder().serial_number(4711).revocation_date(NOW)
    reasoned = revoked.add_extension(x509.CRLReason(x509.ReasonFlags.key_compromise), False)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(_ROOT.name)
        .last_update(NOW)
        .next_update(NOW + timedelta(days=1))
        .add_revoked_certificate(reasoned.build())
        .add_extension(x509.CRLNumber(7), False)
    )
    return builder.sign(_ROOT.key, SHA256()).public_bytes(Encoding.DER)


_CRL = _crl()


@given(mutated(_CRL) | st.binary(max_size=300))
@_few
def test_a_mutated_crl_is_read_or_refused(data: bytes) -> None:
    root = certificate_facts(_ROOT.der)
    with contextlib.suppress(LamassuError):
        verify_crl(parse_crl(data), issuer_der=root.subject_der, spki=root.spki)
        assert data == _CRL


@given(st.text(max_size=200) | mutated(_ocsp_request()).map(lambda d: d.hex()))
@_few
def test_any_path_is_base64_or_refused(text: str) -> None:
    with contextlib.suppress(LamassuError):
        decode_request(text)
