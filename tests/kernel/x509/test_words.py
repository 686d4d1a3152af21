"""Names, serials, usages, keys, PEM, CMS and certificate facts."""

from __future__ import annotations

import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509.oid import NameOID

from lamassu.kernel.errors import Malformed, RuleViolation
from lamassu.kernel.x509.cms import certs_only
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.kernel.x509.keys import (
    KeyFacts,
    key_facts,
    key_id,
    load_public_key,
    signature_hash,
    strength,
)
from lamassu.kernel.x509.names import (
    Subject,
    name_of,
    prepared,
    same_name,
    same_subject,
    subject_of,
    text_fault,
)
from lamassu.kernel.x509.pem import ders_of, pem_of
from lamassu.kernel.x509.serials import new_serial_number, serial_hex, serial_int
from lamassu.kernel.x509.usages import (
    EXTENDED_KEY_USAGE_NAMES,
    KEY_USAGE_NAMES,
    extended_key_usage_extension,
    extended_key_usage_names,
    key_usage_extension,
    key_usage_names,
)
from tests.support.judges import lint_certificate
from tests.support.pki import CLIENT_AUTH, make, spki_of

FULL = Subject("device 1", "Ärzte AG", "Lab", "DE", "Bayern", "München")


def test_a_subject_survives_the_way_through_a_name() -> None:
    assert subject_of(name_of(FULL)) == FULL
    assert subject_of(name_of(Subject())) == Subject()


@pytest.mark.parametrize(
    "subject",
    [
        Subject(common_name="x" * 65),
        Subject(common_name="a\0b"),
        Subject(country="D"),
        Subject(country="D1"),
        Subject(organization=" "),
    ],
)
def test_names_that_break_pkix_are_not_built(subject: Subject) -> None:
    with pytest.raises(RuleViolation) as caught:
        name_of(subject)
    assert caught.value.field is not None
    assert caught.value.field.startswith("subject.")


def test_names_match_but_for_case_and_spacing() -> None:
    other = Subject(" DEVICE   1", "ärzte ag", "LAB", "de", "BAYERN", "mu\u0308nchen")
    assert same_subject(FULL, other)
    assert not same_subject(FULL, Subject("device 2"))
    assert prepared("dev\u00adice\u200b\u00a01") == "device 1"
    for unseen in "\u034f\ufe0f\u3164\uffa0\u2800\u180e\U000e0100":
        assert prepared(f"dev{unseen}ice 1{unseen}") == "device 1"
    assert same_name(name_of(Subject("A  b")), name_of(Subject("a B")))
    assert not same_name(name_of(Subject("a")), name_of(Subject("a", "b")))
    reordered = x509.Name(list(reversed(list(name_of(FULL)))))
    assert not same_name(name_of(FULL), reordered)


def test_what_nobody_sees_or_what_moves_text_is_no_name() -> None:
    for nothing in ("", " ", "\u200b", "\u3164 \u2800"):
        assert text_fault(nothing, 64) == "is empty"
    for command in "\n\x1b\x9b\u2028\u2029\u202e\u2066\u200f\x00":
        assert text_fault(f"dev{command}1", 64) == "has a control character"
    assert text_fault("Gerät 1 من\u200cزل", 64) is None, "joiners are spelling in some scripts"


def test_serial_numbers_are_random_and_spelt_one_way() -> None:
    assert len({new_serial_number() for _ in range(100)}) == 100
    assert all(0 < new_serial_number() < 1 << 128 for _ in range(100))
    assert [serial_hex(n) for n in (0, 1, 0x80, 0xABC)] == ["00", "01", "80", "0abc"]
    assert serial_int("0abc") == 0xABC
    for bad in ("", "xyz", "-1", "0x1", "1" * 41, " 1", "١"):
        with pytest.raises(Malformed):
            serial_int(bad)


def test_usages_keep_their_names() -> None:
    extension = key_usage_extension(KEY_USAGE_NAMES)
    assert extension is not None
    assert key_usage_names(extension) == KEY_USAGE_NAMES
    extended = extended_key_usage_extension([n.upper() for n in EXTENDED_KEY_USAGE_NAMES])
    assert extended is not None
    assert extended_key_usage_names(extended) == EXTENDED_KEY_USAGE_NAMES
    assert key_usage_extension([]) is None
    assert extended_key_usage_extension([]) is None
    for names in (["digitalsignature"], ["EncipherOnly"], [""]):
        with pytest.raises(RuleViolation):
            key_usage_extension(names)
    with pytest.raises(RuleViolation):
        extended_key_usage_extension(["Everything"])


def test_keys_are_named_graded_and_hashed() -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    spki = spki_of(key)
    assert key_facts(spki) == KeyFacts("ECDSA", 384)
    assert len(key_id(spki)) == 64
    assert isinstance(load_public_key(spki), ec.EllipticCurvePublicKey)
    assert isinstance(signature_hash(key), hashes.SHA384)
    grades = {("RSA", 1024): "LOW", ("RSA", 2048): "MEDIUM", ("RSA", 3072): "HIGH"}
    grades |= {("ECDSA", 224): "MEDIUM", ("ECDSA", 256): "HIGH", ("Ed25519", 256): "LOW"}
    assert {k: strength(KeyFacts(*k)) for k in grades} == grades
    for rubbish in (b"", b"\x30\x00", spki[:-1], spki[:20]):
        with pytest.raises(Malformed):
            key_facts(rubbish)
        with pytest.raises(Malformed):
            load_public_key(rubbish)


def test_pem_goes_out_and_in() -> None:
    data = bytes(range(256))
    text = pem_of(data)
    assert text.endswith(b"-----END CERTIFICATE-----\n")
    assert max(len(line) for line in text.splitlines()) == 64
    assert ders_of(text + b"noise\r\n" + text.replace(b"\n", b"\r\n")) == [data, data]
    for bad in (b"", b"-----BEGIN CERTIFICATE-----\n", text.replace(b"END C", b"END X")):
        with pytest.raises(Malformed):
            ders_of(bad)
    with pytest.raises(Malformed):
        ders_of(text, label="CERTIFICATE REQUEST")
    with pytest.raises(Malformed):
        ders_of(text.replace(b"A", b"=", 1))


def test_certs_only_is_what_openssl_and_the_library_read() -> None:
    root = make("Root", ca=True)
    leaf = make("device-1", issuer=root)
    message = certs_only([leaf.der, root.der])

    read = pkcs7.load_der_pkcs7_certificates(message)
    assert {c.public_bytes(Encoding.DER) for c in read} == {leaf.der, root.der}
    assert message == pkcs7.serialize_certificates(
        [leaf.certificate, root.certificate], Encoding.DER
    )
    printed = subprocess.run(
        ["openssl", "pkcs7", "-inform", "DER", "-print_certs"],
        input=message,
        capture_output=True,
        check=True,
    ).stdout
    assert printed.count(b"BEGIN CERTIFICATE") == 2


def test_facts_are_the_certificates_own_bytes() -> None:
    san = x509.SubjectAlternativeName([x509.DNSName("a.example")])
    root = make("Root", ca=True, path_length=1)
    leaf = make("device-1", issuer=root, extended=CLIENT_AUTH, extra=[(san, False)])

    facts = certificate_facts(leaf.der)

    assert facts.serial_number == serial_hex(leaf.certificate.serial_number)
    assert (facts.subject.common_name, facts.issuer.common_name) == ("device-1", "Root")
    assert facts.subject_der == leaf.name.public_bytes()
    assert facts.issuer_der == root.name.public_bytes()
    assert facts.san_der == san.public_bytes()
    assert (facts.ski, facts.aki) == (leaf.subject_key_id, root.subject_key_id)
    assert facts.spki == spki_of(leaf.key)
    assert (facts.is_ca, facts.path_length) == (False, None)
    assert facts.extended_key_usages == ("ClientAuth",)
    assert facts.sha256 == leaf.certificate.fingerprint(hashes.SHA256()).hex()
    authority = certificate_facts(root.der)
    assert (authority.is_ca, authority.path_length, authority.san_der) == (True, 1, None)
    with pytest.raises(Malformed):
        certificate_facts(leaf.der[:-1])


def test_the_judge_finds_faults() -> None:
    good = make("Root", ca=True)
    bad = make("device-1", issuer=good, extra=[(x509.SubjectAlternativeName([]), False)])

    assert lint_certificate(good.der) == []
    assert lint_certificate(bad.der) != []
    assert NameOID.COMMON_NAME.dotted_string == "2.5.4.3"
