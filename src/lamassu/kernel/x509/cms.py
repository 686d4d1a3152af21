"""Certificates-only CMS messages (RFC 5652 §5, RFC 7030 §4.1.3)."""

from __future__ import annotations

from collections.abc import Sequence

from lamassu.kernel.x509 import der

_SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")
_DATA = bytes.fromhex("06092a864886f70d010701")
_VERSION_1 = bytes.fromhex("020101")
_EMPTY_SET = bytes.fromhex("3100")


def certs_only(certificates: Sequence[bytes]) -> bytes:
    """A degenerate SignedData with these certificates (DER each), without signers.

    The certificates are a SET OF, so DER sorts them: their order says nothing.
    """
    unique = sorted(set(certificates))
    signed_data = der.encode(
        der.SEQUENCE,
        _VERSION_1,
        _EMPTY_SET,
        der.encode(der.SEQUENCE, _DATA),
        der.encode(0xA0, *unique),
        _EMPTY_SET,
    )
    return der.encode(der.SEQUENCE, _SIGNED_DATA, der.encode(0xA0, signed_data))
