"""Which refused certificate requests are kept, and for how long.

Whoever may ask can have requests refused without end: what that leaves is bounded for each of
them, for all together, and in time. Nothing is kept of who is not known.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from lamassu.kernel.errors import LamassuError
from lamassu.kernel.identity import PrincipalKind
from lamassu.kernel.listing import Filter, Operator
from lamassu.kernel.x509.csr import parse_csr
from lamassu.services.ca.contract.requests import RefusedRequest

RETENTION = timedelta(days=90)
IN_AN_HOUR = 20
"""Refused requests of one principal that are kept in an hour."""
FOR_ONE = 1000
FOR_ALL = 100_000
LARGEST_CSR = 64 * 1024
_LONGEST_TEXT = 500


class Outcome(StrEnum):
    """What became of a request."""

    ISSUED = "ISSUED"
    REFUSED = "REFUSED"


@dataclass(frozen=True, slots=True)
class KeptRequest:
    """A certificate request and its outcome.

    `id` is the issued certificate's serial number, or one of its own. `requester` is who asked,
    as audit records have it; empty for certificates from before that was kept. `csr_der` is empty
    in lists, and where it was too large to keep.
    """

    id: str
    outcome: Outcome
    created_at: datetime
    ca_id: str
    profile_id: str
    requester: str
    owner: str
    device_id: str
    common_name: str
    csr_der: bytes = b""
    code: str = ""
    reason: str = ""


def is_of_somebody(refused: RefusedRequest) -> bool:
    """Whether it is of a principal, and none of the platform's own."""
    return refused.caller.principal.kind in (
        PrincipalKind.ADMIN,
        PrincipalKind.SERVICE,
        PrincipalKind.DEVICE,
    )


def kept_form(refused: RefusedRequest, request_id: str, now: datetime) -> KeptRequest:
    """What is kept of it, within bounds."""
    return KeptRequest(
        id=request_id,
        outcome=Outcome.REFUSED,
        created_at=now,
        ca_id=_short(refused.ca_id),
        profile_id=_short(refused.profile_id),
        requester=_short(refused.caller.principal.id),
        owner=_short(refused.owner),
        device_id=_short(refused.device_id),
        common_name=_short(_common_name_of(refused.csr_der)),
        csr_der=refused.csr_der if len(refused.csr_der) <= LARGEST_CSR else b"",
        code=refused.code,
        reason=_short(refused.reason),
    )


def outcomes_of(filters: list[Filter]) -> tuple[list[Outcome], list[Filter]]:
    """The outcomes that the conditions on `status` leave, and the other conditions."""
    outcomes = list(Outcome)
    others = []
    for each in filters:
        if each.field != "status":
            others.append(each)
            continue
        named = (each.value,) if isinstance(each.value, str) else each.value
        assert isinstance(named, tuple)
        wanted = each.operator is not Operator.NE
        outcomes = [one for one in outcomes if (one.value in named) == wanted]
    return outcomes, others


def _common_name_of(csr_der: bytes) -> str:
    try:
        return parse_csr(csr_der).subject.common_name
    except LamassuError:
        return ""


def _short(text: str) -> str:
    """Without what a database refuses, and no longer than somebody reads."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()[:_LONGEST_TEXT]
