"""Certificate revocation lists (RFC 5280 §5): version 2, full, signed by their CA."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

from lamassu.kernel.errors import LamassuError, Malformed, RuleViolation
from lamassu.kernel.x509 import der
from lamassu.kernel.x509.keys import load_public_key
from lamassu.kernel.x509.signing import bit_string, integer, time

_VERSION_2 = bytes.fromhex("020101")
_AUTHORITY_KEY_ID = bytes.fromhex("0603551d23")
_CRL_NUMBER = bytes.fromhex("0603551d14")
_REASON_CODE = bytes.fromhex("0603551d15")
MOST_OCTETS = 1 << 20
_MOST_DEPTH = 16
_UNDERSTOOD = (x509.AuthorityKeyIdentifier, x509.CRLNumber)
_STRONG_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_REASONS = {
    x509.ReasonFlags.unspecified: 0,
    x509.ReasonFlags.key_compromise: 1,
    x509.ReasonFlags.ca_compromise: 2,
    x509.ReasonFlags.affiliation_changed: 3,
    x509.ReasonFlags.superseded: 4,
    x509.ReasonFlags.cessation_of_operation: 5,
    x509.ReasonFlags.certificate_hold: 6,
    x509.ReasonFlags.remove_from_crl: 8,
    x509.ReasonFlags.privilege_withdrawn: 9,
    x509.ReasonFlags.aa_compromise: 10,
}


@dataclass(frozen=True, slots=True)
class CrlEntry:
    """A revoked certificate; `reason` is the CRLReason, 0 (unspecified) is left out."""

    serial_number: int
    revoked_at: datetime
    reason: int


@dataclass(frozen=True, slots=True)
class CrlFacts:
    """What a full CRL that somebody else signed says; its signature is not verified yet."""

    der: bytes
    issuer_der: bytes
    number: int
    this_update: datetime
    next_update: datetime
    entries: Sequence[CrlEntry]


def parse_crl(data: bytes) -> CrlFacts:
    """Read a CRL (DER): version 2, full, with number and next update, within bounds.

    A delta or an indirect CRL, or one for some reasons only, has a critical extension that
    says so and is refused: it would be taken for the whole truth. Raises `Malformed`
    (`crl_malformed`) or `RuleViolation` (`crl_not_full`), field `crl`.
    """
    try:
        der.check_der(data, max_length=MOST_OCTETS, max_depth=_MOST_DEPTH)
        return _facts(data, x509.load_der_x509_crl(data))
    except RuleViolation:
        raise
    except (
        LamassuError,
        ValueError,
        TypeError,
        IndexError,
        KeyError,
        x509.ExtensionNotFound,
        x509.DuplicateExtension,
        x509.InvalidVersion,
        x509.UnsupportedGeneralNameType,
        UnsupportedAlgorithm,
    ):
        raise Malformed(
            "the CRL cannot be read: DER is needed, with a number and a next update",
            code="crl_malformed",
            field="crl",
        ) from None


def _facts(data: bytes, parsed: x509.CertificateRevocationList) -> CrlFacts:
    for extension in parsed.extensions:
        if extension.critical and not isinstance(extension.value, _UNDERSTOOD):
            raise _not_full()
    next_update = parsed.next_update_utc
    if next_update is None:
        raise ValueError("no next update")
    return CrlFacts(
        der=data,
        issuer_der=parsed.issuer.public_bytes(),
        number=parsed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number,
        this_update=parsed.last_update_utc,
        next_update=next_update,
        entries=tuple(_entry_of(entry) for entry in parsed),
    )


def _entry_of(entry: x509.RevokedCertificate) -> CrlEntry:
    reason = 0
    for extension in entry.extensions:
        if isinstance(extension.value, x509.CRLReason):
            reason = _REASONS[extension.value.reason]
        elif extension.critical:
            raise _not_full()
    return CrlEntry(entry.serial_number, entry.revocation_date_utc, reason)


def _not_full() -> RuleViolation:
    return RuleViolation(
        "this is no full CRL of one CA: it has a critical extension that narrows what it says",
        code="crl_not_full",
        field="crl",
    )


def verify_crl(facts: CrlFacts, *, issuer_der: bytes, spki: bytes) -> None:
    """Refuse a CRL that this very CA did not sign: name and key are compared.

    Raises `RuleViolation` (`crl_signature_invalid`, field `crl`).
    """
    try:
        parsed = x509.load_der_x509_crl(facts.der)
        strong = isinstance(parsed.signature_hash_algorithm, _STRONG_HASHES)
        signed_by_it = strong and parsed.is_signature_valid(load_public_key(spki))  # type: ignore[arg-type]
    except (ValueError, TypeError, UnsupportedAlgorithm):
        signed_by_it = False
    if not signed_by_it or facts.issuer_der != issuer_der:
        raise RuleViolation(
            "the CRL is not signed by this CA", code="crl_signature_invalid", field="crl"
        )


def build_crl(
    *,
    issuer_der: bytes,
    issuer_key_id: bytes,
    algorithm: bytes,
    number: int,
    this_update: datetime,
    next_update: datetime,
    entries: Iterable[CrlEntry],
) -> bytes:
    """The TBSCertList (DER), to be signed; `algorithm` is the AlgorithmIdentifier's DER.

    A full list of one CA that names all reasons needs no issuing distribution point (§5.2.5).
    """
    listed = b"".join(_entry(entry) for entry in entries)
    extensions = der.encode(
        der.SEQUENCE,
        _extension(_AUTHORITY_KEY_ID, der.encode(der.SEQUENCE, der.encode(0x80, issuer_key_id))),
        _extension(_CRL_NUMBER, integer(number)),
    )
    return der.encode(
        der.SEQUENCE,
        _VERSION_2,
        algorithm,
        issuer_der,
        time(this_update),
        time(next_update),
        # an empty list must be absent (§5.1.2.6)
        der.encode(der.SEQUENCE, listed) if listed else b"",
        der.encode(0xA0, extensions),
    )


def signed(tbs: bytes, *, algorithm: bytes, signature: bytes) -> bytes:
    """The whole structure: what was signed, how, and the signature."""
    return der.encode(der.SEQUENCE, tbs, algorithm, bit_string(signature))


def _entry(entry: CrlEntry) -> bytes:
    reason = b""
    if entry.reason:
        code = der.encode(0x0A, bytes((entry.reason,)))
        reason = der.encode(der.SEQUENCE, _extension(_REASON_CODE, code))
    return der.encode(der.SEQUENCE, integer(entry.serial_number), time(entry.revoked_at), reason)


def _extension(oid: bytes, value: bytes) -> bytes:
    return der.encode(der.SEQUENCE, oid, der.encode(der.OCTET_STRING, value))
