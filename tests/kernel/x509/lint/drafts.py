"""To-be-signed certificates written octet by octet, sound unless a test says otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lamassu.kernel.x509 import der
from lamassu.kernel.x509.signing import bit_string, sign

ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
TRUE = bytes.fromhex("0101ff")
COUNTRY, ORGANIZATION, COMMON_NAME = "550406", "55040a", "550403"
UTF8, PRINTABLE, IA5 = 0x0C, 0x13, 0x16
SKI, AKI, KEY_USAGE, EKU, SAN = "551d0e", "551d23", "551d0f", "551d25", "551d11"
BASIC_CONSTRAINTS, AIA, CDP = "551d13", "2b06010505070101", "551d1f"
NAME_CONSTRAINTS, POLICIES = "551d1e", "551d20"
CLIENT_AUTH, SERVER_AUTH = "2b06010505070302", "2b06010505070301"
TIME_STAMPING = "2b06010505070308"

Key = ec.EllipticCurvePrivateKey


@cache
def key(name: str) -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def spki(of: Key) -> bytes:
    return of.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def oid(text: str) -> bytes:
    return der.encode(der.OBJECT_IDENTIFIER, bytes.fromhex(text))


def sequence(*parts: bytes) -> bytes:
    return der.encode(der.SEQUENCE, *parts)


def attribute(kind: str, value: str | bytes, tag: int = UTF8) -> bytes:
    octets = value.encode() if isinstance(value, str) else value
    return sequence(oid(kind), der.encode(tag, octets))


def name(*attributes: bytes) -> bytes:
    """Each attribute an RDN."""
    return sequence(*(der.encode(der.SET, one) for one in attributes))


def extension(kind: str, value: bytes, *, critical: bool = False) -> bytes:
    flag = [TRUE] if critical else []
    return sequence(oid(kind), *flag, der.encode(der.OCTET_STRING, value))


def key_usage(*bits: int) -> bytes:
    """Named bits, as DER has them."""
    octets = bytearray(max(bits) // 8 + 1)
    for bit in bits:
        octets[bit // 8] |= 0x80 >> (bit % 8)
    unused = 7 - max(bits) % 8
    return der.encode(der.BIT_STRING, bytes([unused]), bytes(octets))


def names(*general: tuple[int, bytes | str]) -> bytes:
    return sequence(
        *(der.encode(tag, v.encode() if isinstance(v, str) else v) for tag, v in general)
    )


def uri(text: str) -> bytes:
    return der.encode(0x86, text.encode())


def access(*uris: bytes, method: str = "2b06010505073001") -> bytes:
    return sequence(*(sequence(oid(method), one) for one in uris))


def points(*uris: bytes) -> bytes:
    return sequence(*(sequence(der.encode(0xA0, der.encode(0xA0, one))) for one in uris))


def utc(text: str) -> bytes:
    return der.encode(0x17, text.encode())


def generalized(text: str) -> bytes:
    return der.encode(0x18, text.encode())


CA_NAME = name(
    attribute(COUNTRY, "ES", PRINTABLE),
    attribute(ORGANIZATION, "Plant"),
    attribute(COMMON_NAME, "CA"),
)
CA_SKI, LEAF_SKI = bytes(range(32)), bytes(range(32, 64))


def leaf_extensions() -> dict[str, bytes]:
    return {
        BASIC_CONSTRAINTS: extension(BASIC_CONSTRAINTS, sequence(), critical=True),
        KEY_USAGE: extension(KEY_USAGE, key_usage(0), critical=True),
        EKU: extension(EKU, sequence(oid(CLIENT_AUTH))),
        SKI: extension(SKI, der.encode(der.OCTET_STRING, LEAF_SKI)),
        AKI: extension(AKI, sequence(der.encode(0x80, CA_SKI))),
        SAN: extension(SAN, names((0x82, "pump-7.plant.example"))),
        AIA: extension(AIA, access(uri("http://pki.plant.example:8080/ocsp"))),
        CDP: extension(CDP, points(uri("http://pki.plant.example:8080/crl/00"))),
    }


def ca_extensions(*, path_length: int | None = None, ski: bytes = CA_SKI) -> dict[str, bytes]:
    length = [] if path_length is None else [der.encode(der.INTEGER, bytes([path_length]))]
    return {
        BASIC_CONSTRAINTS: extension(BASIC_CONSTRAINTS, sequence(TRUE, *length), critical=True),
        KEY_USAGE: extension(KEY_USAGE, key_usage(5, 6), critical=True),
        SKI: extension(SKI, der.encode(der.OCTET_STRING, ski)),
        AKI: extension(AKI, sequence(der.encode(0x80, CA_SKI))),
    }


@dataclass(frozen=True)
class Draft:
    """A TBSCertificate; each field is its whole encoding."""

    version: bytes = bytes.fromhex("a003020102")
    serial_number: bytes = bytes.fromhex("0210") + b"\x41" * 16
    algorithm: bytes = ECDSA_SHA256
    issuer: bytes = CA_NAME
    validity: bytes = sequence(utc("260501000000Z"), utc("270501000000Z"))
    subject: bytes = field(default_factory=lambda: name(attribute(COMMON_NAME, "pump-7")))
    spki: bytes = field(default_factory=lambda: spki(key("leaf")))
    extensions: Mapping[str, bytes] = field(default_factory=leaf_extensions)
    more: Sequence[bytes] = ()  # extensions beside those
    between: bytes = b""  # before the extensions

    def encoded(self) -> bytes:
        listed = sequence(*self.extensions.values(), *self.more)
        return sequence(
            self.version,
            self.serial_number,
            self.algorithm,
            self.issuer,
            self.validity,
            self.subject,
            self.spki,
            self.between,
            der.encode(0xA3, listed),
        )

    def with_extension(self, kind: str, value: bytes, *, critical: bool = False) -> Draft:
        return replace(
            self, extensions={**self.extensions, kind: extension(kind, value, critical=critical)}
        )

    def without(self, kind: str) -> Draft:
        kept = {one: value for one, value in self.extensions.items() if one != kind}
        return replace(self, extensions=kept)

    def signed_by(self, signer: Key) -> bytes:
        """A certificate, whatever it says."""
        octets = self.encoded()
        return sequence(octets, self.algorithm, bit_string(sign(signer, octets)))


def root(**changes: object) -> Draft:
    """The CA's own."""
    made = Draft(
        subject=CA_NAME,
        spki=spki(key("ca")),
        validity=sequence(utc("260101000000Z"), utc("460101000000Z")),
        extensions=ca_extensions(),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def sub_ca(**changes: object) -> Draft:
    """A CA below it."""
    made = Draft(
        subject=name(attribute(COMMON_NAME, "Sub CA")), extensions=ca_extensions(ski=LEAF_SKI)
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@cache
def root_certificate() -> bytes:
    return root().signed_by(key("ca"))
