"""A plan in words."""

from __future__ import annotations

from collections.abc import Sequence

from lamassu.kernel.x509.names import name_of
from lamassu.kernel.x509.serials import serial_hex
from lamassu.services.ceremony.contract import Signed
from lamassu.services.ceremony.model import Plan
from lamassu.services.ceremony.usecases.plan_text import subject_text


def described(plan: Plan) -> Sequence[str]:
    """What a session would do, line by line: what the people present compare and confirm."""
    lines = [f"Dated {plan.at:%Y-%m-%d %H:%M} UTC."]
    if plan.root is not None:
        root, key = plan.root, plan.root.key
        name = name_of(root.subject).rfc4514_string()
        lines.append(
            f"A new root: {name}\n  key {key.algorithm.value} {key.size}, until"
            f" {root.not_after:%Y-%m-%d}, path length {_shown(root.path_length)}"
        )
    for request in plan.requests:
        kind = "CA" if request.kind is Signed.CA else "OCSP responder"
        depth = f", path length {_shown(request.path_length)}" * (request.kind is Signed.CA)
        urls = (*request.publication.crl, *request.publication.ocsp)
        lines.append(
            f"Sign the {kind} {subject_text(request)}\n  key {request.key_fingerprint}\n  until"
            f" {request.not_after:%Y-%m-%d}{depth}"
            + "".join(f"\n  names {url}" for url in (*urls, *request.publication.ca_issuers))
        )
    lines.append(f"Sign a CRL until {plan.next_update:%Y-%m-%d} with {len(plan.entries)} revoked.")
    lines += [
        f"  {serial_hex(entry.serial_number)}, revoked {entry.revoked_at:%Y-%m-%d},"
        f" reason {entry.reason}"
        for entry in plan.entries
    ]
    return lines


def _shown(path_length: int | None) -> str:
    return "unlimited" if path_length is None else str(path_length)
