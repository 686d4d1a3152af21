"""A responder as its event and the wire show it."""

from __future__ import annotations

import base64
from datetime import datetime

from lamassu.kernel.records import Json
from lamassu.kernel.wire_text import format_time
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.kernel.x509.pem import pem_of
from lamassu.services.va.model import Responder


def responder_document(responder: Responder, now: datetime) -> dict[str, Json]:
    """As it stands at `now`."""
    facts = None if responder.certificate is None else certificate_facts(responder.certificate)
    status = "AWAITING_CERTIFICATE"
    if facts is not None:
        status = "ACTIVE" if facts.not_before <= now < facts.not_after else "EXPIRED"
    return {
        "key_id": responder.key_id,
        "ca_id": responder.ca_id,
        "engine_id": responder.engine_id,
        "status": status,
        "csr": _pem(responder.csr, "CERTIFICATE REQUEST"),
        "certificate": "" if responder.certificate is None else _pem(responder.certificate),
        "valid_to": "" if facts is None else format_time(facts.not_after),
        "creation_ts": format_time(responder.created_at),
    }


def _pem(der: bytes, label: str = "CERTIFICATE") -> str:
    return base64.b64encode(pem_of(der, label)).decode("ascii")
