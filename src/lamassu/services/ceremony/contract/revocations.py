"""What the root's next CRL must list, as the platform writes it for the ceremony."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from lamassu.kernel.errors import Malformed
from lamassu.kernel.records import Json
from lamassu.kernel.wire_text import format_time
from lamassu.kernel.x509.crls import CrlEntry
from lamassu.kernel.x509.serials import serial_hex, serial_int

_FORMAT = "lamassu-revocations-1"
_LARGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class RevocationOrder:
    """The revoked certificates of one CA, by its subject key identifier (lower-case hex)."""

    ca_id: str
    subject_key_id: str
    entries: Sequence[CrlEntry]


def order_document(order: RevocationOrder) -> dict[str, Json]:
    """As JSON."""
    return {
        "format": _FORMAT,
        "ca_id": order.ca_id,
        "subject_key_id": order.subject_key_id,
        "revoked": [
            {
                "serial_number": serial_hex(entry.serial_number),
                "revoked_at": format_time(entry.revoked_at.replace(microsecond=0)),
                "reason": entry.reason,
            }
            for entry in order.entries
        ],
    }


def parse_order(data: bytes) -> RevocationOrder:
    """Read the file. Raises `Malformed` (`revocations_malformed`)."""
    try:
        if len(data) > _LARGEST:
            raise ValueError
        document = json.loads(data)
        if document["format"] != _FORMAT:
            raise ValueError
        return RevocationOrder(
            ca_id=str(document["ca_id"]),
            subject_key_id=str(document["subject_key_id"]),
            entries=tuple(_entry(entry) for entry in document["revoked"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError, Malformed):
        raise Malformed(
            "the revocations cannot be read: give the file of `lamassu va export-revocations`",
            code="revocations_malformed",
            field="revocations",
        ) from None


def _entry(document: dict[str, object]) -> CrlEntry:
    reason, at = document["reason"], datetime.fromisoformat(str(document["revoked_at"]))
    if reason not in (0, 1, 2, 3, 4, 5, 6, 9, 10) or at.tzinfo is None:
        raise ValueError
    return CrlEntry(serial_int(str(document["serial_number"])), at, int(str(reason)))
