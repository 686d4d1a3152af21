"""A plan as the transcript keeps it, and back: a session that was cut off needs no memory."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

from cryptography import x509

from lamassu.kernel.records import Json
from lamassu.kernel.wire_text import format_time
from lamassu.kernel.x509.crls import CrlEntry
from lamassu.kernel.x509.csr import parse_csr
from lamassu.kernel.x509.names import Subject
from lamassu.kernel.x509.serials import serial_hex, serial_int
from lamassu.services.ceremony.contract.signed_text import decoded, digest_of, encoded
from lamassu.services.ceremony.contract.transcript import Signed
from lamassu.services.ceremony.model import AgreedRequest, AgreedRoot, Plan, Publication
from lamassu.services.kms.contract import KeyAlgorithm, KeySpec

_SUBJECT = ("common_name", "organization", "organization_unit", "country", "state", "locality")


def plan_document(plan: Plan, *, order: bytes | None) -> dict[str, Json]:
    """The facts of the line; `order` is the file of revocations that was read."""
    return {
        "signing_at": format_time(plan.at),
        "root": None if plan.root is None else _root_document(plan.root),
        "requests": [_request_document(request) for request in plan.requests],
        "revocations_sha256": None if order is None else digest_of(order),
        "revoked": [
            {
                "serial_number": serial_hex(entry.serial_number),
                "revoked_at": format_time(entry.revoked_at),
                "reason": entry.reason,
            }
            for entry in plan.entries
        ],
        "crl_until": format_time(plan.next_update),
    }


def _root_document(root: AgreedRoot) -> dict[str, Json]:
    return {
        "subject": {name: getattr(root.subject, name) for name in _SUBJECT},
        "key": {"algorithm": root.key.algorithm.value, "size": root.key.size},
        "until": format_time(root.not_after),
        "path_length": root.path_length,
    }


def _request_document(request: AgreedRequest) -> dict[str, Json]:
    return {
        "kind": request.kind.value,
        "request": encoded(request.csr.der),
        "request_sha256": digest_of(request.csr.der),
        "subject": subject_text(request),
        "key_sha256": request.key_fingerprint,
        "until": format_time(request.not_after),
        "path_length": request.path_length,
        "crl": list(request.publication.crl),
        "ocsp": list(request.publication.ocsp),
        "ca_issuers": list(request.publication.ca_issuers),
    }


def subject_text(request: AgreedRequest) -> str:
    """The request's subject as RFC 4514 writes it."""
    return x509.load_der_x509_csr(request.csr.der).subject.rfc4514_string()


def plan_from(facts: Mapping[str, Json]) -> Plan:
    """The plan of a line that was verified with its transcript."""
    document = cast("Mapping[str, Any]", facts)
    root = document["root"]
    return Plan(
        at=datetime.fromisoformat(document["signing_at"]),
        root=None if root is None else _root_from(root),
        requests=tuple(_request_from(request) for request in document["requests"]),
        entries=tuple(
            CrlEntry(
                serial_int(entry["serial_number"]),
                datetime.fromisoformat(entry["revoked_at"]),
                entry["reason"],
            )
            for entry in document["revoked"]
        ),
        next_update=datetime.fromisoformat(document["crl_until"]),
    )


def _root_from(document: Mapping[str, Any]) -> AgreedRoot:
    key = document["key"]
    return AgreedRoot(
        subject=Subject(**document["subject"]),
        key=KeySpec(KeyAlgorithm(key["algorithm"]), key["size"]),
        not_after=datetime.fromisoformat(document["until"]),
        path_length=document["path_length"],
    )


def _request_from(document: Mapping[str, Any]) -> AgreedRequest:
    return AgreedRequest(
        kind=Signed(document["kind"]),
        csr=parse_csr(decoded(document["request"], what="transcript")),
        key_fingerprint=document["key_sha256"],
        not_after=datetime.fromisoformat(document["until"]),
        path_length=document["path_length"],
        publication=Publication(
            tuple(document["crl"]), tuple(document["ocsp"]), tuple(document["ca_issuers"])
        ),
    )
