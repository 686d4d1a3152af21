"""OCSP messages (RFC 6960, RFC 9654), bounded; of a request every entry is read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from lamassu.kernel.errors import LamassuError, Malformed
from lamassu.kernel.x509 import der
from lamassu.kernel.x509.signing import bit_string, generalized_time

MOST_OCTETS = 10 * 1024
MOST_REQUESTS = 16
LONGEST_NONCE = 128  # RFC 9654 §2.1
_MOST_DEPTH = 16
_LONGEST_SERIAL = 64

_NONCE = bytes.fromhex("06092b0601050507300102")
_BASIC = bytes.fromhex("06092b0601050507300101")
# AlgorithmIdentifier's object identifier, as a value, to the hash's name
_HASHES = {
    bytes.fromhex("2b0e03021a"): "sha1",
    bytes.fromhex("608648016503040201"): "sha256",
    bytes.fromhex("608648016503040202"): "sha384",
    bytes.fromhex("608648016503040203"): "sha512",
}
HASH_NAMES = tuple(_HASHES.values())


class ResponseStatus(IntEnum):
    """OCSPResponseStatus (RFC 6960 §4.2.1) of answers that are not signed."""

    MALFORMED_REQUEST = 1
    INTERNAL_ERROR = 2
    TRY_LATER = 3
    UNAUTHORIZED = 6


@dataclass(frozen=True, slots=True)
class CertificateId:
    """CertID: whose certificate, and its serial number; `der` is the asker's own encoding.

    `hash_name` is empty for a hash that we do not know.
    """

    der: bytes
    hash_name: str
    issuer_name_hash: bytes
    issuer_key_hash: bytes
    serial_number: int


@dataclass(frozen=True, slots=True)
class OcspRequest:
    """What is asked, and the nonce to be echoed."""

    certificates: tuple[CertificateId, ...]
    nonce: bytes | None


@dataclass(frozen=True, slots=True)
class SingleResponse:
    """One certificate's status. `revoked_at` set means revoked, with CRLReason `reason`
    (0 is left out); otherwise it is good, or unknown when not `known`."""

    certificate_id: bytes
    known: bool
    revoked_at: datetime | None
    reason: int
    this_update: datetime
    next_update: datetime


def parse_ocsp_request(data: bytes) -> OcspRequest:
    """Read a request. A signature on it is passed over: anybody may ask.

    Raises `Malformed` (`ocsp_malformed`): not DER, over 10 KiB or 16 entries, a nonce outside
    1 to 128 octets, or a critical extension that we do not know.
    """
    try:
        der.check_der(data, max_length=MOST_OCTETS, max_depth=_MOST_DEPTH)
        return _parse(data)
    except (LamassuError, ValueError, IndexError):
        raise Malformed("OCSP request cannot be read", code="ocsp_malformed") from None


def _parse(data: bytes) -> OcspRequest:
    tbs = der.children(data, der.children(data, der.sole_element(data))[0])
    requests: der.Element | None = None
    nonce: bytes | None = None
    for element in tbs:
        if element.tag == der.SEQUENCE and requests is None:
            requests = element
        elif element.tag == 0xA2 and requests is not None:
            nonce = _nonce(data, element)
        elif element.tag not in (0xA0, 0xA1) or requests is not None:
            raise Malformed("unexpected element")
    if requests is None:
        raise Malformed("no request list")
    entries = der.children(data, requests)
    if not 1 <= len(entries) <= MOST_REQUESTS:
        raise Malformed("too many or no entries")
    return OcspRequest(tuple(_certificate_id(data, entry) for entry in entries), nonce)


def _certificate_id(data: bytes, request: der.Element) -> CertificateId:
    found, *extensions = der.children(data, request)
    for holder in extensions:
        _refuse_critical(data, holder)
    algorithm, name, key, serial = der.children(data, found)
    oid, *parameters = der.children(data, algorithm)
    if [data[p.start : p.end] for p in parameters] not in ([], [b"\x05\x00"]):
        raise Malformed("hash with parameters")
    if (name.tag, key.tag, serial.tag) != (der.OCTET_STRING, der.OCTET_STRING, der.INTEGER):
        raise Malformed("not a CertID")
    if not 1 <= serial.end - serial.value <= _LONGEST_SERIAL:
        raise Malformed("serial number is empty or too long")
    return CertificateId(
        der=data[found.start : found.end],
        hash_name=_HASHES.get(data[oid.value : oid.end], ""),
        issuer_name_hash=data[name.value : name.end],
        issuer_key_hash=data[key.value : key.end],
        serial_number=int.from_bytes(data[serial.value : serial.end], "big", signed=True),
    )


def _extensions(data: bytes, holder: der.Element) -> list[list[der.Element]]:
    [sequence] = der.children(data, holder)
    return [der.children(data, extension) for extension in der.children(data, sequence)]


def _is_critical(data: bytes, extension: list[der.Element]) -> bool:
    return extension[1].tag == der.BOOLEAN and data[extension[1].value] != 0


def _refuse_critical(data: bytes, holder: der.Element) -> None:
    if any(_is_critical(data, extension) for extension in _extensions(data, holder)):
        raise Malformed("critical extension")


def _nonce(data: bytes, holder: der.Element) -> bytes | None:
    nonce: bytes | None = None
    for extension in _extensions(data, holder):
        oid, value = extension[0], extension[-1]
        if data[oid.start : oid.end] == _NONCE:
            inner = der.read_element(data, value.value, value.end)
            if inner.tag != der.OCTET_STRING or inner.end != value.end or nonce is not None:
                raise Malformed("not a nonce")
            nonce = data[inner.value : inner.end]
            if not 1 <= len(nonce) <= LONGEST_NONCE:
                raise Malformed("nonce is empty or too long")
        elif _is_critical(data, extension):
            raise Malformed("critical extension")
    return nonce


def issuer_hashes(hash_name: str, *, subject_der: bytes, spki: bytes) -> tuple[bytes, bytes]:
    """issuerNameHash and issuerKeyHash of a CA (RFC 6960 §4.1.1)."""
    name = hashlib.new(hash_name, subject_der, usedforsecurity=False)
    key = hashlib.new(hash_name, _key_octets(spki), usedforsecurity=False)
    return name.digest(), key.digest()


def _key_octets(spki: bytes) -> bytes:
    bits = der.children(spki, der.sole_element(spki))[1]
    return spki[bits.value + 1 : bits.end]  # without the count of unused bits


def build_response_data(
    responses: Sequence[SingleResponse],
    *,
    responder_spki: bytes,
    produced_at: datetime,
    nonce: bytes | None,
) -> bytes:
    """The ResponseData (DER), to be signed; the responder is named by its key's hash."""
    key_hash = hashlib.sha1(_key_octets(responder_spki), usedforsecurity=False).digest()
    extensions = b""
    if nonce is not None:
        value = der.encode(der.OCTET_STRING, der.encode(der.OCTET_STRING, nonce))
        listed = der.encode(der.SEQUENCE, der.encode(der.SEQUENCE, _NONCE, value))
        extensions = der.encode(0xA1, listed)
    return der.encode(
        der.SEQUENCE,
        der.encode(0xA2, der.encode(der.OCTET_STRING, key_hash)),
        generalized_time(produced_at),
        der.encode(der.SEQUENCE, *(_single(response) for response in responses)),
        extensions,
    )


def _single(response: SingleResponse) -> bytes:
    return der.encode(
        der.SEQUENCE,
        response.certificate_id,
        _status(response),
        generalized_time(response.this_update),
        der.encode(0xA0, generalized_time(response.next_update)),
    )


def _status(response: SingleResponse) -> bytes:
    if response.revoked_at is not None:
        reason = b""
        if response.reason:
            reason = der.encode(0xA0, der.encode(0x0A, bytes((response.reason,))))
        return der.encode(0xA1, generalized_time(response.revoked_at), reason)
    return b"\x80\x00" if response.known else b"\x82\x00"


def signed_response(
    data: bytes, *, algorithm: bytes, signature: bytes, certificates: Sequence[bytes] = ()
) -> bytes:
    """A successful OCSPResponse around signed ResponseData; `certificates` (DER) are those of
    a delegated responder, none where the CA signs itself."""
    carried = b""
    if certificates:
        carried = der.encode(0xA0, der.encode(der.SEQUENCE, *certificates))
    basic = der.encode(der.SEQUENCE, data, algorithm, bit_string(signature), carried)
    body = der.encode(der.SEQUENCE, _BASIC, der.encode(der.OCTET_STRING, basic))
    return der.encode(der.SEQUENCE, b"\x0a\x01\x00", der.encode(0xA0, body))


def error_response(status: ResponseStatus) -> bytes:
    """An OCSPResponse that says why there is no answer; errors are never signed."""
    return der.encode(der.SEQUENCE, bytes((0x0A, 1, status)))
