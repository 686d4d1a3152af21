"""What other slices, and the EST edge, may know of the DMS manager."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lamassu.kernel.identity import Caller, Peer


@dataclass(frozen=True, slots=True)
class CsrPayload:
    """The CSR as the edge decoded it, or the fault it found.

    A fault is raised only after DMS and peer were judged (decision 26a).
    """

    der: bytes = b""
    fault_text: str = ""
    fault_code: str = ""
    fault_field: str = ""


@dataclass(frozen=True, slots=True)
class EnrollmentRequest:
    """A `simpleenroll` or `simplereenroll`; `peer` is unjudged."""

    dms_id: str
    peer: Peer
    payload: CsrPayload
    caller: Caller


class Enrollment(Protocol):
    """Enrolment as the EST edge calls it, in process or over the internal port."""

    async def ca_certificates(self, dms_id: str) -> Sequence[bytes]:
        """The trust anchors and issuers of a DMS (DER). Raises `NotFound`."""
        ...

    async def enroll(self, request: EnrollmentRequest) -> bytes:
        """A device's first certificate (DER), stored, in its slot and active.

        Raises `NotFound`, `Unauthenticated`, `Forbidden`, `Malformed`, `RuleViolation`,
        `Conflict`, `Unavailable`, judged in that order (decision 26a).
        """
        ...

    async def reenroll(self, request: EnrollmentRequest) -> bytes:
        """The next certificate of a device that shows its current one. Errors as `enroll`."""
        ...
