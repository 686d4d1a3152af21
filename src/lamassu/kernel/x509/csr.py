"""PKCS #10 certification requests (RFC 2986), as strangers send them."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import NameOID

from lamassu.kernel.errors import LamassuError, Malformed, RuleViolation
from lamassu.kernel.x509 import der
from lamassu.kernel.x509.facts import san_value
from lamassu.kernel.x509.keys import NEWER_KEYS, KeyFacts, check_key_facts, key_facts
from lamassu.kernel.x509.names import Subject, name_fault, subject_of
from lamassu.kernel.x509.usages import extended_key_usage_names, key_usage_names

MOST_OCTETS = 64 * 1024
MOST_DEPTH = 16
_EXTENSION_REQUEST = bytes.fromhex("06092a864886f70d01090e")
_STRONG_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """What a request asks for; its signature is not verified yet.

    `subject_der`, `spki` and `san_der` (the value inside the extension) are the sender's own
    bytes. `key_usage` and `extended_key_usages` hold wire names (unknown usages as OIDs).
    """

    der: bytes
    subject: Subject
    subject_der: bytes
    common_names: tuple[str, ...]
    spki: bytes
    key: KeyFacts
    san_der: bytes | None
    key_usage: tuple[str, ...]
    extended_key_usages: tuple[str, ...]
    parsed: x509.CertificateSigningRequest = field(repr=False, compare=False)
    public_key: CertificatePublicKeyTypes = field(repr=False, compare=False)


def parse_csr(data: bytes, *, newer_keys: bool = False) -> CertificateRequest:
    """Read a request (DER) within bounds; nothing expensive happens (security rule 21).

    With `newer_keys` its key may be Ed25519 or ML-DSA, which a profile then has to allow.

    Raises `Malformed` (`csr_malformed`) when it cannot be read, `RuleViolation` when it reads
    well and asks for what nobody gets: `key_not_allowed`, `csr_subject`, `csr_attributes`.
    The field is always `csr`.
    """
    try:
        der.check_der(data, max_length=MOST_OCTETS, max_depth=MOST_DEPTH)
        return _parse(data, newer_keys)
    except RuleViolation:
        raise
    except Malformed as fault:
        raise _malformed(f"CSR cannot be read: {fault.text}") from None
    except (
        LamassuError,
        ValueError,
        TypeError,
        IndexError,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
        x509.InvalidVersion,
        UnsupportedAlgorithm,
    ):
        raise _malformed("CSR cannot be read") from None


def _parse(data: bytes, newer_keys: bool) -> CertificateRequest:
    info, _algorithm, _signature = der.children(data, der.sole_element(data))
    # attributes [0] may not be left out, yet some senders do when there are none
    version, subject, key, *attributes = der.children(data, info)
    if data[version.start : version.end] != b"\x02\x01\x00":
        raise Malformed("unknown version")
    spki = data[key.start : key.end]
    facts = key_facts(spki)
    check_key_facts(facts, field="csr", newer=newer_keys)
    requests = _extension_requests(data, attributes)
    parsed = x509.load_der_x509_csr(data)
    public_key = parsed.public_key()  # a point that is not on its curve shows here
    name = parsed.subject
    fault = name_fault(name)
    if fault is not None:
        raise RuleViolation(f"CSR subject {fault}", code="csr_subject", field="csr")
    usages: tuple[str, ...] = ()
    extended: tuple[str, ...] = ()
    for extension in parsed.extensions:
        if isinstance(extension.value, x509.KeyUsage):
            usages = key_usage_names(extension.value)
        elif isinstance(extension.value, x509.ExtendedKeyUsage):
            extended = extended_key_usage_names(extension.value)
    return CertificateRequest(
        der=data,
        subject=subject_of(name),
        subject_der=data[subject.start : subject.end],
        common_names=tuple(
            attribute.value if isinstance(attribute.value, str) else ""
            for attribute in name.get_attributes_for_oid(NameOID.COMMON_NAME)
        ),
        spki=spki,
        key=facts,
        san_der=san_value(data, requests[0]) if requests else None,
        key_usage=usages,
        extended_key_usages=extended,
        parsed=parsed,
        public_key=public_key,
    )


def _extension_requests(data: bytes, attributes: list[der.Element]) -> list[der.Element]:
    """The SETs that hold the requested extensions: none or one.

    Two of them, or one of two values, would let two readers see different requests.
    """
    if len(attributes) > 1 or (attributes and attributes[0].tag != 0xA0):
        raise Malformed("attributes are misplaced")
    found: list[der.Element] = []
    for holder in attributes:
        for attribute in der.children(data, holder):
            if data.startswith(_EXTENSION_REQUEST, attribute.value):
                values = der.children(data, attribute)[1]
                if len(der.children(data, values)) != 1:
                    raise _attributes("its extension request has not exactly one value")
                found.append(values)
    if len(found) > 1:
        raise _attributes("it has more than one extension request")
    return found


def verify_csr_signature(request: CertificateRequest) -> None:
    """Proof of possession: the request is signed by the key that it names.

    Raises `RuleViolation` (`csr_signature_invalid`); a hash below SHA-256 proves nothing.
    """
    try:
        strong = request.key.algorithm in NEWER_KEYS or isinstance(
            request.parsed.signature_hash_algorithm, _STRONG_HASHES
        )
        proven = strong and request.parsed.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm):
        proven = False
    if not proven:
        raise RuleViolation("invalid CSR signature", code="csr_signature_invalid", field="csr")


def _malformed(text: str) -> Malformed:
    return Malformed(text, code="csr_malformed", field="csr")


def _attributes(fault: str) -> RuleViolation:
    return RuleViolation(f"CSR refused: {fault}", code="csr_attributes", field="csr")
