"""Enrolment over the internal port: for an EST edge in a process of its own (decision 5)."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import httpx
from pydantic import BaseModel, Field, ValidationError

from lamassu.kernel import errors
from lamassu.kernel.errors import LamassuError, NotFound, Unavailable
from lamassu.services.dms.contract import EnrollmentRequest

_KINDS: Mapping[str, type[LamassuError]] = {
    kind.__name__: kind
    for kind in (
        errors.Malformed,
        errors.RuleViolation,
        errors.Unauthenticated,
        errors.Forbidden,
        errors.NotFound,
        errors.TooSlow,
        errors.Conflict,
        errors.WrongState,
        errors.TooLarge,
        errors.TooMany,
        errors.Unavailable,
    )
}
_RETRY_AFTER = 5  # seconds


class _Refusal(BaseModel):
    kind: str
    text: str
    code: str
    field: str | None = None
    retry_after: int | None = None


class _Answer(BaseModel):
    certificates: list[str] = Field(default_factory=list)
    refusal: _Refusal | None = None


class RemoteEnrollment:
    """`contract.Enrollment`, answered by the DMS manager of another process."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        """`client` has the internal port's URL as base, shows the edge's certificate, trusts
        the internal CA only, and has timeouts. Whoever made it closes it."""
        self._client = client

    async def ca_certificates(self, dms_id: str) -> Sequence[bytes]:
        """The trust anchors and issuers of a DMS (DER)."""
        return await self._certificates("GET", dms_id, "cacerts", None)

    async def enroll(self, request: EnrollmentRequest) -> bytes:
        """A device's first certificate (DER)."""
        return await self._one("enroll", request)

    async def reenroll(self, request: EnrollmentRequest) -> bytes:
        """The next certificate of a device (DER)."""
        return await self._one("reenroll", request)

    async def _one(self, deed: str, request: EnrollmentRequest) -> bytes:
        certificates = await self._certificates("POST", request.dms_id, deed, _body(request))
        if len(certificates) != 1:
            raise _unreachable("answered without a certificate")
        return certificates[0]

    async def _certificates(
        self, method: str, dms_id: str, deed: str, body: Mapping[str, object] | None
    ) -> list[bytes]:
        """Raises what the DMS manager raised, or `Unavailable` when it cannot be asked."""
        if "/" in dms_id or dms_id in (".", ".."):  # such a path would lead elsewhere
            raise NotFound("DMS not found", code="dms_not_found")
        path = f"/internal/dms/{quote(dms_id, safe='')}/{deed}"
        try:
            response = await self._client.request(method, path, json=body)
        except httpx.HTTPError:
            raise _unreachable("cannot be reached") from None
        if response.status_code != httpx.codes.OK:
            # it refused the edge, not the device: no business of the device's
            raise _unreachable(f"refused the EST edge with status {response.status_code}")
        try:
            answer = _Answer.model_validate_json(response.content)
            certificates = [base64.b64decode(text, validate=True) for text in answer.certificates]
        except (ValidationError, ValueError):
            raise _unreachable("gave an answer that cannot be read") from None
        if answer.refusal is not None:
            raise _raised(answer.refusal)
        return certificates


def _body(request: EnrollmentRequest) -> Mapping[str, object]:
    payload = request.payload
    return {
        "peer": {
            "chain": [_text(certificate) for certificate in request.peer.chain],
            "address": request.peer.address,
        },
        "csr": _text(payload.der),
        "fault_text": payload.fault_text,
        "fault_code": payload.fault_code,
        "fault_field": payload.fault_field,
        "request_id": request.caller.request_id,
    }


def _raised(refusal: _Refusal) -> LamassuError:
    kind = _KINDS.get(refusal.kind, Unavailable)
    return kind(
        refusal.text, code=refusal.code, field=refusal.field, retry_after=refusal.retry_after
    )


def _unreachable(fault: str) -> Unavailable:
    return Unavailable(
        f"the DMS manager {fault}; try again", code="upstream_unavailable", retry_after=_RETRY_AFTER
    )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
