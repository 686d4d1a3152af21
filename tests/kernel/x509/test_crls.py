"""CRLs that others signed: which are read, which are refused, and whose signature counts."""

from __future__ import annotations

import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from lamassu.kernel.errors import LamassuError
from lamassu.kernel.x509.crls import parse_crl, verify_crl
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.kernel.x509.pem import ders_of
from tests.support.pki import NOW, Made, make

ROOT = make("Root", ca=True)
NUMBER = x509.CRLNumber(7)


def crl(
    *extensions: tuple[x509.ExtensionType, bool],
    number: x509.CRLNumber | None = NUMBER,
    signer: Made = ROOT,
    entry: x509.ExtensionType | None = None,
) -> bytes:
    revoked = (
        x509.RevokedCertificateBuilder().serial_number(4711).revocation_date(NOW - timedelta(1))
    )
    if entry is not None:
        revoked = revoked.add_extension(entry, critical=not isinstance(entry, x509.CRLReason))
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(signer.name)
        .last_update(NOW)
        .next_update(NOW + timedelta(days=9))
        .add_revoked_certificate(revoked.build())
    )
    if number is not None:
        builder = builder.add_extension(number, False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(signer.key, SHA256()).public_bytes(Encoding.DER)


def refusal(data: bytes) -> str:
    with pytest.raises(LamassuError) as refused:
        parse_crl(data)
    return refused.value.code


def test_what_it_says_is_read() -> None:
    facts = parse_crl(crl(entry=x509.CRLReason(x509.ReasonFlags.key_compromise)))
    assert (facts.number, facts.this_update) == (7, NOW)
    assert facts.next_update == NOW + timedelta(days=9)
    [entry] = facts.entries
    assert (entry.serial_number, entry.reason) == (4711, 1)
    assert parse_crl(crl()).entries[0].reason == 0


def test_what_tells_only_a_part_is_refused() -> None:
    def point(**kinds: bool) -> x509.IssuingDistributionPoint:
        names = (
            "only_contains_user_certs",
            "only_contains_ca_certs",
            "indirect_crl",
            "only_contains_attribute_certs",
        )
        flags = {name: kinds.get(name, False) for name in names}
        return x509.IssuingDistributionPoint(None, None, only_some_reasons=None, **flags)

    assert refusal(crl((x509.DeltaCRLIndicator(6), True))) == "crl_not_full"
    assert refusal(crl((point(only_contains_ca_certs=True), True))) == "crl_not_full"
    assert refusal(crl((point(indirect_crl=True), True))) == "crl_not_full"
    other = x509.CertificateIssuer([x509.DirectoryName(make("Other").name)])
    assert refusal(crl(entry=other)) == "crl_not_full"


def test_what_is_no_crl_or_has_no_number_is_refused() -> None:
    assert refusal(crl(number=None)) == "crl_malformed"
    for data in (b"", b"\x30\x00", ROOT.der, crl()[:-1], crl() + b"\x00"):
        assert refusal(data) == "crl_malformed"


def test_the_signature_is_the_named_cas_own() -> None:
    facts, root = parse_crl(crl()), certificate_facts(ROOT.der)
    verify_crl(facts, issuer_der=root.subject_der, spki=root.spki)
    namesake = certificate_facts(make("Root", ca=True).der)
    with pytest.raises(LamassuError):
        verify_crl(facts, issuer_der=namesake.subject_der, spki=namesake.spki)
    renamed = certificate_facts(make("Other", ca=True, key=ROOT.key).der)
    with pytest.raises(LamassuError):
        verify_crl(facts, issuer_der=renamed.subject_der, spki=renamed.spki)


def test_openssls_own_crl_is_read(tmp_path: Path) -> None:
    (tmp_path / "ca.cnf").write_text(
        "[ca]\ndefault_ca = root\n[root]\ndatabase = index\ncrlnumber = number\n"
        "default_md = sha256\ndefault_crl_days = 365\ncrl_extensions = extensions\n"
        "[extensions]\nauthorityKeyIdentifier = keyid\n"
    )
    (tmp_path / "index").touch()
    (tmp_path / "number").write_text("0A\n")
    commands = (
        "req -x509 -newkey rsa:2048 -nodes -keyout root.key -out root.crt -days 3650"
        " -subj /C=PT/O=Acme/CN=Root -addext keyUsage=critical,keyCertSign,cRLSign",
        "ca -gencrl -config ca.cnf -keyfile root.key -cert root.crt -out root.crl",
    )
    for command in commands:
        subprocess.run(["openssl", *command.split()], cwd=tmp_path, check=True, capture_output=True)
    facts = parse_crl(ders_of((tmp_path / "root.crl").read_bytes(), "X509 CRL")[0])
    root = certificate_facts(ders_of((tmp_path / "root.crt").read_bytes())[0])
    assert (facts.number, facts.entries) == (10, ())
    verify_crl(facts, issuer_der=root.subject_der, spki=root.spki)
