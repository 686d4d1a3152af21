"""Have the CA keep what a DMS refused a device that it let in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from lamassu.kernel.errors import (
    Conflict,
    Forbidden,
    LamassuError,
    Malformed,
    RuleViolation,
    Unavailable,
    WrongState,
)
from lamassu.kernel.identity import Caller
from lamassu.services.ca.contract import Authorities, RefusedRequest
from lamassu.services.dms.contract import CsrPayload
from lamassu.services.dms.model.dms import Dms

_REFUSALS = (Malformed, RuleViolation, Forbidden, Conflict, WrongState)


@asynccontextmanager
async def refusals_kept(
    authorities: Authorities,
    dms: Dms,
    payload: CsrPayload,
    *,
    caller: Caller,
    device_id: str = "",
) -> AsyncIterator[None]:
    """What is refused in here is kept with its CSR. `caller` is the device, whose certificate was
    judged: of strangers nothing is kept. The refusal is told in any case."""
    try:
        yield
    except _REFUSALS as refusal:
        with suppress(Unavailable):
            await authorities.keep_refused(_refused(dms, payload, caller, device_id, refusal))
        raise


def _refused(
    dms: Dms, payload: CsrPayload, caller: Caller, device_id: str, refusal: LamassuError
) -> RefusedRequest:
    return RefusedRequest(
        ca_id=dms.settings.enrollment.enrollment_ca,
        csr_der=payload.der,
        caller=caller,
        code=refusal.code,
        reason=refusal.text,
        profile_id=dms.settings.issuance_profile_id,
        owner=dms.id,
        device_id=device_id,
    )
