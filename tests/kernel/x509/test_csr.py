"""Requests as strangers send them."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from lamassu.kernel.errors import LamassuError, Malformed, RuleViolation
from lamassu.kernel.x509 import der
from lamassu.kernel.x509.csr import parse_csr, verify_csr_signature
from tests.support.pki import CLIENT_AUTH, ec_key, usage

pytestmark = pytest.mark.filterwarnings("ignore:Attribute's length must be")

CN = NameOID.COMMON_NAME


def name(*attributes: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(o, v, _validate=False) for o, v in attributes])


def request(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey | None = None,
    *extensions: x509.ExtensionType,
) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    for extension in extensions:
        builder = builder.add_extension(extension, False)
    return builder.sign(key or ec_key(), SHA256()).public_bytes(Encoding.DER)


def refusal(data: bytes) -> LamassuError:
    with pytest.raises((Malformed, RuleViolation)) as caught:
        parse_csr(data)
    assert caught.value.field == "csr"
    return caught.value


def rebuilt(data: bytes, info: list[bytes]) -> bytes:
    """The request with other contents of its CertificationRequestInfo."""
    outer = der.children(data, der.sole_element(data))
    rest = [data[e.start : e.end] for e in outer[1:]]
    return der.encode(0x30, der.encode(0x30, *info), *rest)


def parts(data: bytes) -> list[bytes]:
    info = der.children(data, der.sole_element(data))[0]
    return [data[e.start : e.end] for e in der.children(data, info)]


def test_a_request_says_what_it_asks_for() -> None:
    san = x509.SubjectAlternativeName([x509.DNSName("a.example")])
    data = request(
        name((NameOID.COUNTRY_NAME, "DE"), (CN, "device-1")),
        None,
        san,
        usage(digital_signature=True, key_agreement=True),
        CLIENT_AUTH,
    )

    asked = parse_csr(data)

    assert (asked.subject.common_name, asked.subject.country) == ("device-1", "DE")
    assert asked.common_names == ("device-1",)
    assert (asked.key.algorithm, asked.key.size) == ("ECDSA", 256)
    assert asked.san_der == san.public_bytes()
    assert asked.key_usage == ("DigitalSignature", "KeyAgreement")
    assert asked.extended_key_usages == ("ClientAuth",)
    assert asked.subject_der == name((NameOID.COUNTRY_NAME, "DE"), (CN, "device-1")).public_bytes()
    verify_csr_signature(asked)


def test_every_common_name_is_seen() -> None:
    assert parse_csr(request(name((CN, "one"), (CN, "two")))).common_names == ("one", "two")


def test_a_request_without_attributes_is_read() -> None:
    data = request(name((CN, "device-1")))
    version, subject, key, *_ = parts(data)

    assert parse_csr(data).san_der is None
    assert parse_csr(rebuilt(data, [version, subject, key, b"\xa0\x00"])).san_der is None


def test_another_keys_signature_proves_nothing() -> None:
    first, second = request(name((CN, "device-1"))), request(name((CN, "device-1")))
    forged = rebuilt(second, parts(first))

    with pytest.raises(RuleViolation) as caught:
        verify_csr_signature(parse_csr(forged))
    assert (caught.value.code, caught.value.text) == (
        "csr_signature_invalid",
        "invalid CSR signature",
    )


def test_a_sha1_signature_proves_nothing() -> None:
    data = request(name((CN, "device-1")))
    sha1 = bytes.fromhex("300906072a8648ce3d0401")
    outer = der.children(data, der.sole_element(data))
    weak = der.encode(
        0x30, data[outer[0].start : outer[0].end], sha1, data[outer[2].start : outer[2].end]
    )

    with pytest.raises(RuleViolation):
        verify_csr_signature(parse_csr(weak))


@pytest.mark.parametrize(
    "attribute",
    [
        (CN, ""),
        (CN, "   "),
        (CN, "device\x00.evil"),
        (CN, "device\n1"),
        (CN, "\x7fdevice"),
        (CN, "device\u202egpj"),
        (CN, "\u200b"),
        (CN, "d" * 65),
        (NameOID.ORGANIZATION_NAME, "o" * 65),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "o" * 65),
        (NameOID.LOCALITY_NAME, "l" * 129),
        (NameOID.STATE_OR_PROVINCE_NAME, "s" * 129),
        (NameOID.COUNTRY_NAME, "DEU"),
        (NameOID.SERIAL_NUMBER, "s" * 65),
    ],
)
def test_bad_subject_attributes_are_refused(attribute: tuple[x509.ObjectIdentifier, str]) -> None:
    fault = refusal(request(name((NameOID.TITLE, "x"), attribute)))

    assert isinstance(fault, RuleViolation)
    assert fault.code == "csr_subject"


def test_the_longest_common_name_is_fine() -> None:
    assert parse_csr(request(name((CN, "ü" * 64)))).subject.common_name == "ü" * 64


def test_too_many_attributes_are_refused() -> None:
    assert refusal(request(name(*[(CN, "a")] * 33))).code == "csr_subject"


def test_weak_and_strange_keys_are_refused() -> None:
    subject = x509.CertificateSigningRequestBuilder().subject_name(name((CN, "device-1")))
    keys = [
        (rsa.generate_private_key(65537, 1024), SHA256()),
        (ec.generate_private_key(ec.SECP224R1()), SHA256()),
        (ec.generate_private_key(ec.SECP256K1()), SHA256()),
        (ed25519.Ed25519PrivateKey.generate(), None),
    ]
    for key, algorithm in keys:
        data = subject.sign(key, algorithm).public_bytes(Encoding.DER)  # type: ignore[arg-type]
        assert refusal(data).code == "key_not_allowed"


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (ed25519.Ed25519PrivateKey.generate(), ("Ed25519", 256)),
        (mldsa.MLDSA44PrivateKey.generate(), ("ML-DSA", 44)),
        (mldsa.MLDSA65PrivateKey.generate(), ("ML-DSA", 65)),
        (mldsa.MLDSA87PrivateKey.generate(), ("ML-DSA", 87)),
    ],
)
def test_newer_keys_are_taken_where_they_are_asked_for(
    key: ed25519.Ed25519PrivateKey, kind: tuple[str, int]
) -> None:
    subject = x509.CertificateSigningRequestBuilder().subject_name(name((CN, "device-1")))
    data = subject.sign(key, None).public_bytes(Encoding.DER)

    parsed = parse_csr(data, newer_keys=True)

    assert (parsed.key.algorithm, parsed.key.size) == kind
    verify_csr_signature(parsed)
    with pytest.raises(RuleViolation, match="invalid CSR signature"):
        verify_csr_signature(parse_csr(data[:-1] + bytes([data[-1] ^ 1]), newer_keys=True))
    assert refusal(data).code == "key_not_allowed"


def rsa_spki(modulus: int, exponent: int) -> bytes:
    def integer(n: int) -> bytes:
        return der.encode(2, n.to_bytes(n.bit_length() // 8 + 1, "big"))

    key = der.encode(0x30, integer(modulus), integer(exponent))
    algorithm = bytes.fromhex("300d06092a864886f70d0101010500")
    return der.encode(0x30, algorithm, der.encode(3, b"\0", key))


@pytest.mark.parametrize(
    ("bits", "exponent"),
    [(2048, 1), (2048, 4), (2048, (1 << 32) + 1), (2048, (1 << 2040) + 1), (8192, 65537)],
)
def test_costly_rsa_numbers_are_refused_before_they_are_used(bits: int, exponent: int) -> None:
    data = request(name((CN, "device-1")))
    version, subject, _, attributes = parts(data)
    spki = rsa_spki((1 << (bits - 1)) + 1, exponent)

    assert refusal(rebuilt(data, [version, subject, spki, attributes])).code == "key_not_allowed"


def test_explicit_curve_parameters_are_refused() -> None:
    data = request(name((CN, "device-1")))
    version, subject, _, attributes = parts(data)
    explicit = der.encode(0x30, bytes.fromhex("06072a8648ce3d0201"), der.encode(0x30, b"\2\1\1"))
    spki = der.encode(0x30, explicit, der.encode(3, b"\0\4" + b"\1" * 64))

    assert refusal(rebuilt(data, [version, subject, spki, attributes])).code == "key_not_allowed"


def test_a_point_off_its_curve_is_refused() -> None:
    data = request(name((CN, "device-1")))
    version, subject, key, attributes = parts(data)

    off = rebuilt(data, [version, subject, key[:-64] + b"\1" * 64, attributes])
    assert refusal(off).code == "csr_malformed"


def test_a_second_extension_request_is_refused() -> None:
    data = request(name((CN, "d")), None, x509.SubjectAlternativeName([x509.DNSName("a")]))
    version, subject, key, attributes = parts(data)
    inner = der.sole_element(attributes)
    attribute = attributes[inner.value : inner.end]

    twice = rebuilt(data, [version, subject, key, der.encode(0xA0, attribute, attribute)])
    assert refusal(twice).code == "csr_attributes"

    oid, values = der.children(attribute, der.sole_element(attribute))
    value = attribute[values.value : values.end]
    two = der.encode(0x30, attribute[oid.start : oid.end], der.encode(0x31, value, value))
    twofold = rebuilt(data, [version, subject, key, der.encode(0xA0, two)])
    assert refusal(twofold).code == "csr_attributes"


def test_another_version_is_refused() -> None:
    data = request(name((CN, "device-1")))
    _, *rest = parts(data)

    assert refusal(rebuilt(data, [b"\2\1\1", *rest])).code == "csr_malformed"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"0",
        b"\x30\x80\0\0",
        b"\x30\x00",
        b"\x30" * 3000,
        b"\x30\x84\xff\xff\xff\xff",
        b"\x30\x03\x02\x01\x00",
        der.encode(0x30, b"\0" * 70_000),
    ],
)
def test_what_is_no_request_is_malformed(data: bytes) -> None:
    fault = refusal(data)

    assert isinstance(fault, Malformed)
    assert fault.code == "csr_malformed"


def test_truncated_and_lengthened_requests_are_malformed() -> None:
    data = request(name((CN, "device-1")))

    for other in (data[:-1], data[1:], data + b"\0", data + data):
        assert refusal(other).code == "csr_malformed"
