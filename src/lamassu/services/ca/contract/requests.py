"""Certificate requests and what became of them."""

from __future__ import annotations

from dataclasses import dataclass

from lamassu.kernel.identity import Caller


@dataclass(frozen=True, slots=True)
class RefusedRequest:
    """A certificate request of somebody known that was refused.

    `csr_der` is as it came, readable or not. `code` and `reason` are what the caller was told.
    `owner` is the DMS that refused it, if one did, `device_id` whom it was for, as far as known.
    """

    ca_id: str
    csr_der: bytes
    caller: Caller
    code: str
    reason: str
    profile_id: str = ""
    owner: str = ""
    device_id: str = ""
