"""EST's bodies: what is taken, and what is written to the octet."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import pkcs7
from hypothesis import given
from hypothesis import strategies as st

from lamassu.kernel.x509.pem import ders_of, pem_of
from lamassu.services.est.messages import (
    PEM_TYPE,
    base64_lines,
    read_csr,
    write_certificates,
)
from tests.services.dms.world import csr
from tests.support.pki import ec_key, make

TYPE = "application/pkcs10"
CSR = csr(ec_key(), "dev-1")


def lines(data: bytes, end: bytes, length: int = 64) -> bytes:
    text = base64.b64encode(data)
    return b"".join(text[i : i + length] + end for i in range(0, len(text), length))


@pytest.mark.parametrize(
    "body",
    [
        base64.b64encode(CSR),
        lines(CSR, b"\n"),
        lines(CSR, b"\r\n", 76),
        b"  " + lines(CSR, b" \r\n\t") + b"\n\n",
        CSR,
        pem_of(CSR, "CERTIFICATE REQUEST"),
        pem_of(CSR, "NEW CERTIFICATE REQUEST").replace(b"\n", b"\r\n"),
    ],
    ids=["one line", "LF", "CRLF", "blanks", "DER", "PEM", "old PEM"],
)
def test_a_csr_is_read_however_clients_wrap_it(body: bytes) -> None:
    assert read_csr(body, media_type=TYPE).der == CSR


@pytest.mark.parametrize("media_type", [TYPE, f"{TYPE}; charset=utf-8", "Application/PKCS10 "])
def test_the_media_type_may_have_parameters(media_type: str) -> None:
    assert read_csr(CSR, media_type=media_type).der == CSR


@pytest.mark.parametrize("media_type", ["", "text/plain", "application/pkcs10x", "x; " + TYPE])
def test_another_media_type_is_a_fault(media_type: str) -> None:
    payload = read_csr(CSR, media_type=media_type)

    assert payload.fault_text == "content-type must be application/pkcs10"
    assert payload.der == b""


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "csr_missing"),
        (b" \r\n", "csr_missing"),
        (b"%%%", "base64_malformed"),
        (base64.b64encode(CSR)[:-1], "base64_malformed"),
        (base64.urlsafe_b64encode(b"\xff" * 99), "base64_malformed"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\nTUlJ\n", "base64_malformed"),
        (pem_of(CSR, "CERTIFICATE"), "base64_malformed"),
        ("é".encode(), "base64_malformed"),
    ],
)
def test_other_bodies_are_faults_for_the_dms_to_raise(body: bytes, code: str) -> None:
    payload = read_csr(body, media_type=TYPE)

    assert (payload.fault_code, payload.der) == (code, b"")


@given(st.binary(max_size=300))
def test_no_body_breaks_the_reader(body: bytes) -> None:
    payload = read_csr(body, media_type=TYPE)

    assert bool(payload.fault_text) != bool(payload.der)


def test_base64_has_lines_of_64_each_ended_by_lf() -> None:
    written = base64_lines(bytes(range(200)))

    *whole, last, nothing = written.split(b"\n")
    assert nothing == b""
    assert {len(line) for line in whole} == {64}
    assert 0 < len(last) <= 64
    assert b"\r" not in written
    assert base64_lines(bytes(48)) == base64.b64encode(bytes(48)) + b"\n"


def test_certificates_travel_as_certs_only_cms() -> None:
    certificates = [make("a").der, make("b").der]

    answer = write_certificates(certificates)

    assert answer.headers == {
        "content-type": "application/pkcs7-mime; smime-type=certs-only",
        "content-transfer-encoding": "base64",
    }
    read = pkcs7.load_der_pkcs7_certificates(base64.b64decode(answer.body))
    assert {certificate.subject.rfc4514_string() for certificate in read} == {"CN=a", "CN=b"}


@pytest.mark.parametrize("accept", ["", "*/*", "application/pkcs7-mime", f"{PEM_TYPE}, */*"])
def test_pem_is_for_who_accepts_exactly_that(accept: str) -> None:
    made = make("a").der

    assert write_certificates([made], accept=accept).headers["content-type"] != PEM_TYPE
    pem = write_certificates([made, made], accept=PEM_TYPE)
    assert pem.headers == {"content-type": PEM_TYPE}
    assert ders_of(pem.body) == [made, made]


def test_the_seeds_own_tools_read_an_answer(tmp_path: Path) -> None:
    made = make("device").der
    (tmp_path / "renewed.b64").write_bytes(write_certificates([made]).body)

    piped = subprocess.run(
        "base64 -d renewed.b64 | openssl pkcs7 -inform DER -print_certs",
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )

    assert ders_of(piped.stdout) == [made]
