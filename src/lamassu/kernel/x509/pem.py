"""PEM (RFC 7468): strict on the way out, bounded on the way in."""

from __future__ import annotations

import base64
import binascii
import re

from lamassu.kernel.errors import Malformed

_LONGEST = 1 << 20
_MOST_BLOCKS = 256
_BLOCK = re.compile(
    rb"-----BEGIN ([A-Z0-9 ]{1,40})-----\r?\n([A-Za-z0-9+/=\s]*)-----END ([A-Z0-9 ]{1,40})-----"
)


def pem_of(der: bytes, label: str = "CERTIFICATE") -> bytes:
    """One PEM block in lines of 64 characters, ended by LF."""
    text = base64.b64encode(der)
    lines = [text[i : i + 64] for i in range(0, len(text), 64)]
    mark = label.encode("ascii")
    return b"\n".join(
        (b"-----BEGIN " + mark + b"-----", *lines, b"-----END " + mark + b"-----", b"")
    )


def ders_of(pem: bytes, label: str = "CERTIFICATE") -> list[bytes]:
    """The contents of every block with this label, in order; other blocks are passed over.

    Raises `Malformed` (`pem_malformed`) when there is none, or a block cannot be read, or
    the text is over 1 MiB or has over 256 blocks.
    """
    if len(pem) > _LONGEST:
        raise Malformed("PEM is longer than 1 MiB", code="pem_malformed")
    found: list[bytes] = []
    for number, match in enumerate(_BLOCK.finditer(pem), start=1):
        if number > _MOST_BLOCKS:
            raise Malformed(f"PEM has more than {_MOST_BLOCKS} blocks", code="pem_malformed")
        if match[1] != match[3]:
            raise Malformed("PEM block ends under another name", code="pem_malformed")
        if match[1] != label.encode("ascii"):
            continue
        try:
            found.append(base64.b64decode(b"".join(match[2].split()), validate=True))
        except binascii.Error:
            raise Malformed("PEM block is not base64", code="pem_malformed") from None
    if not found:
        raise Malformed(f"no PEM block {label}", code="pem_malformed")
    return found
