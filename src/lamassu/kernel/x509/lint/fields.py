"""The fields of a certificate but its names and extensions."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key

from lamassu.kernel.errors import LamassuError
from lamassu.kernel.x509 import der
from lamassu.kernel.x509.keys import KeyFacts, check_key_facts, key_facts
from lamassu.kernel.x509.lint.findings import breach, fault
from lamassu.kernel.x509.lint.reading import ToBeSigned
from lamassu.kernel.x509.signing import signature_algorithm

_V3 = bytes.fromhex("020102")
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_MOST_SERIAL_OCTETS = 20


def check_version(tbs: ToBeSigned) -> None:
    """RFC 5280 §4.1.2.1: extensions are of version 3; §4.1.2.8: no unique identifiers."""
    if tbs.version != _V3:
        raise fault("version", "its version is not 3", section="4.1.2.1", part="version")
    if tbs.unique_ids:
        raise fault(
            "unique_id", "it has a unique identifier", section="4.1.2.8", part="certificate"
        )


def check_serial_number(tbs: ToBeSigned) -> None:
    """RFC 5280 §4.1.2.2: a positive integer of at most 20 octets."""
    octets = tbs.serial_number[2:]
    if tbs.serial_number[0] != der.INTEGER or not 1 <= len(octets) <= _MOST_SERIAL_OCTETS:
        raise _serial("it is no integer of 1 to 20 octets")
    if octets[0] >= 0x80 or octets == b"\x00":
        raise _serial("it is not positive")
    if len(octets) > 1 and octets[0] == 0 and octets[1] < 0x80:
        raise _serial("it is not in its shortest form")


def _serial(text: str) -> LamassuError:
    return fault(
        "serial_number", f"of its serial number: {text}", section="4.1.2.2", part="serial_number"
    )


@lru_cache(maxsize=64)
def algorithm_of(signer: bytes) -> bytes:
    """The AlgorithmIdentifier of what the key of this SubjectPublicKeyInfo signs."""
    return signature_algorithm(key_facts(signer))


def check_algorithm(tbs: ToBeSigned, signer: bytes) -> None:
    """RFC 5280 §4.1.2.3: the algorithm is the one that the key signs with, its parameters as
    RFC 4055 §5 (RSA) and RFC 5758 §3.2 (ECDSA) write them."""
    if tbs.algorithm != algorithm_of(signer):
        raise fault(
            "signature_algorithm",
            "its signature algorithm is not that of the key which would sign",
            section="4.1.2.3",
            part="signature",
        )


def check_validity(
    tbs: ToBeSigned, *, issuer_starts: datetime | None, issuer_ends: datetime | None
) -> None:
    """RFC 5280 §4.1.2.5: UTCTime through 2049 and GeneralizedTime from 2050, in Zulu, with
    seconds and without fractions; the end not before the start. It ends with its issuer at the
    latest (decision 15), and begins while that is in force."""
    try:
        start, end = der.children(tbs.validity, der.sole_element(tbs.validity))
        not_before = _time(start.tag, tbs.validity[start.value : start.end])
        not_after = _time(end.tag, tbs.validity[end.value : end.end])
    except (LamassuError, ValueError):
        raise fault(
            "validity_encoding",
            "a time is not written as years up to 2049 (UTCTime) and later ones "
            "(GeneralizedTime) are",
            section="4.1.2.5",
            part="validity",
        ) from None
    if not_after < not_before:
        raise breach(
            "validity_order", "it ends before it begins", section="4.1.2.5", part="validity"
        )
    if issuer_ends is not None and not_after > issuer_ends:
        raise breach(
            "validity_exceeds_issuer",
            f"it would outlive its issuer, which ends {issuer_ends:%Y-%m-%d}",
            section="RFC 5280 §6.1.3",
            part="validity",
        )
    if issuer_starts is not None and not_after < issuer_starts:
        raise breach(
            "validity_before_issuer",
            "it would end before its issuer begins",
            section="RFC 5280 §6.1.3",
            part="validity",
        )


def _time(tag: int, text: bytes) -> datetime:
    """Raises `ValueError`."""
    digits = text[:-1]
    if text[-1:] != b"Z" or not digits.isdigit():
        raise ValueError("not in Zulu")
    if tag == _UTC_TIME and len(text) == 13:
        digits = (b"19" if digits >= b"5" else b"20") + digits
    elif tag != _GENERALIZED_TIME or len(text) != 15 or b"1950" <= digits < b"2050":
        raise ValueError("no time of this form")
    return datetime.fromisoformat(f"{digits[:8].decode()}T{digits[8:].decode()}Z")


# How a key on one of the curves, its point uncompressed, begins.
_CURVE_HEADERS = {
    bytes.fromhex(header): KeyFacts("ECDSA", size)
    for header, size in (
        ("3059301306072a8648ce3d020106082a8648ce3d03010703420004", 256),
        ("3076301006072a8648ce3d020106052b8104002203620004", 384),
        ("30819b301006072a8648ce3d020106052b810400230381860004", 521),
    )
}
_CURVE_LENGTHS = {91: 27, 120: 24, 158: 26}  # of the whole, and of its header


def check_key(tbs: ToBeSigned) -> KeyFacts:
    """RFC 5280 §4.1.2.7, in the forms of RFC 3279 §2.3.1 and RFC 5480 §2.1.1: RSA of 2048 to
    4096 bits with a sane exponent, or one of the curves P-256, P-384, P-521 by name; or Ed25519
    (RFC 8410) or ML-DSA (RFC 9881), where the profile lets them come this far."""
    known = _CURVE_HEADERS.get(tbs.spki[: _CURVE_LENGTHS.get(len(tbs.spki), 0)])
    if known is not None:
        return known
    try:
        facts = key_facts(tbs.spki)
        check_key_facts(facts, field="subject_public_key", newer=True)
        load_der_public_key(tbs.spki)
    except (LamassuError, ValueError, TypeError, UnsupportedAlgorithm) as refusal:
        text = refusal.text if isinstance(refusal, LamassuError) else "its key cannot be read"
        raise breach(
            "subject_public_key", text, section="4.1.2.7", part="subject_public_key"
        ) from None
    return facts
