"""Certificate revocation lists (RFC 5280 §5): version 2, full, signed by their CA."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from lamassu.kernel.x509 import der
from lamassu.kernel.x509.signing import bit_string, integer, time

_VERSION_2 = bytes.fromhex("020101")
_AUTHORITY_KEY_ID = bytes.fromhex("0603551d23")
_CRL_NUMBER = bytes.fromhex("0603551d14")
_REASON_CODE = bytes.fromhex("0603551d15")


@dataclass(frozen=True, slots=True)
class CrlEntry:
    """A revoked certificate; `reason` is the CRLReason, 0 (unspecified) is left out."""

    serial_number: int
    revoked_at: datetime
    reason: int


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
