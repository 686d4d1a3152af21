"""EST's bodies (RFC 7030 §3.2.2, §4): strict in what is written, lenient in what is read."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

from lamassu.kernel.errors import Malformed
from lamassu.kernel.x509.cms import certs_only
from lamassu.kernel.x509.pem import ders_of, pem_of
from lamassu.services.dms.contract import CsrPayload

MOST_OCTETS = 128 * 1024  # of a request's body: a CSR of 64 KiB, its base64, and line ends
CSR_TYPE = "application/pkcs10"
PEM_TYPE = "application/x-pem-file"
_CERTS_ONLY_TYPE = "application/pkcs7-mime; smime-type=certs-only"
_LINE = 64
_BLANKS = b" \t\r\n"
_SEQUENCE = 0x30
_PEM_LABELS = ("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")


@dataclass(frozen=True, slots=True)
class EstAnswer:
    """A body with its header fields, in lower case."""

    body: bytes
    headers: dict[str, str]


def write_certificates(certificates: Sequence[bytes], *, accept: str = "") -> EstAnswer:
    """Certificates (DER) as EST sends them; PEM for who accepts exactly that.

    Base64 comes in lines of 64 characters ended by LF, the last one too: GNU `base64 -d` stops
    at a CR, and OpenSSL's wants lines (decision 23).
    """
    if accept.strip().lower() == PEM_TYPE:
        pem = b"".join(pem_of(certificate) for certificate in certificates)
        return EstAnswer(pem, {"content-type": PEM_TYPE})
    return EstAnswer(
        base64_lines(certs_only(certificates)),
        {"content-type": _CERTS_ONLY_TYPE, "content-transfer-encoding": "base64"},
    )


def base64_lines(data: bytes) -> bytes:
    """Base64 in lines of 64 characters, each ended by LF."""
    text = base64.b64encode(data)
    return b"".join(text[i : i + _LINE] + b"\n" for i in range(0, len(text), _LINE))


def read_csr(body: bytes, *, media_type: str) -> CsrPayload:
    """The CSR of an enrolment request, or its fault, for the DMS to raise in its turn (26a).

    Takes base64 with any white space, and what clients send in its place: PEM, plain DER.
    """
    if media_type.partition(";")[0].strip().lower() != CSR_TYPE:
        return _fault(f"content-type must be {CSR_TYPE}", "unsupported_media_type", "content-type")
    if not body.strip(_BLANKS):
        return _fault("the body is empty; send a CSR", "csr_missing")
    try:
        return CsrPayload(der=_der_of(body))
    except (Malformed, binascii.Error):
        return _fault("body payload must be base64 encoded", "base64_malformed")


def _der_of(body: bytes) -> bytes:
    # base64 is ASCII: after a "0" it has no octet of a DER length in the long form
    if len(body) > 1 and body[0] == _SEQUENCE and body[1] >= 0x80:
        return body
    text = body.strip(_BLANKS)
    if text.startswith(b"-----BEGIN "):
        for label in _PEM_LABELS:
            if text.startswith(b"-----BEGIN " + label.encode("ascii") + b"-----"):
                return ders_of(text, label)[0]
    return base64.b64decode(text.translate(None, _BLANKS), validate=True)


def _fault(text: str, code: str, field: str = "csr") -> CsrPayload:
    return CsrPayload(fault_text=text, fault_code=code, fault_field=field)
