"""A to-be-signed certificate taken apart: which octets are which field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lamassu.kernel.errors import Malformed
from lamassu.kernel.x509 import der
from lamassu.kernel.x509.lint.findings import fault

_VERSION, _ISSUER_ID, _SUBJECT_ID, _EXTENSIONS = 0xA0, 0x81, 0x82, 0xA3


class ToBeSigned(NamedTuple):
    """The fields as they are encoded, tag and length included; `version` and `extensions` are
    what stands inside their tags."""

    version: bytes
    serial_number: bytes
    algorithm: bytes
    issuer: bytes
    validity: bytes
    subject: bytes
    spki: bytes
    extensions: Sequence[bytes]
    unique_ids: bool


def read_to_be_signed(octets: bytes) -> ToBeSigned:
    """TBSCertificate (RFC 5280 §4.1.2). Raises `PlatformLintRefusal` for what is none."""
    try:
        fields = der.children(octets, der.sole_element(octets))
        first = fields[0]
        if octets[0] != der.SEQUENCE or first.tag != _VERSION or len(fields) < 7:
            raise Malformed("the fields are not those of a certificate of version 3")
        if any(one.tag != der.SEQUENCE for one in fields[2:7]):
            raise Malformed("a field is of another type")
        serial, algorithm, issuer, validity, subject, spki = (
            octets[one.start : one.end] for one in fields[1:7]
        )
        extensions: Sequence[bytes] = ()
        unique_ids = False
        for one in fields[7:]:
            if one.tag in (_ISSUER_ID, _SUBJECT_ID):
                unique_ids = True
            elif one.tag == _EXTENSIONS and one is fields[-1]:
                extensions = _extensions(octets, one)
            else:
                raise Malformed("there is a field that no certificate has")
    except (Malformed, IndexError, ValueError) as unread:
        raise fault(
            "structure", f"it cannot be read: {unread}", section="4.1", part="certificate"
        ) from None
    return ToBeSigned(
        version=octets[first.value : first.end],
        serial_number=serial,
        algorithm=algorithm,
        issuer=issuer,
        validity=validity,
        subject=subject,
        spki=spki,
        extensions=extensions,
        unique_ids=unique_ids,
    )


def _extensions(octets: bytes, tagged: der.Element) -> list[bytes]:
    (listed,) = der.children(octets, tagged)
    found = [octets[one.start : one.end] for one in der.children(octets, listed)]
    if listed.tag != der.SEQUENCE or not found:
        raise Malformed("the list of extensions is empty or no SEQUENCE")
    return found
