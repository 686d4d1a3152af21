"""Routes of certificate requests and what became of them."""

from __future__ import annotations

from starlette.responses import Response

from lamassu.kernel.listing import FieldType, Filterable
from lamassu.kernel.wire_text import format_time
from lamassu.platform.http import Access, Call, Route, json_answer, page_answer
from lamassu.services.ca.contract import pem_text
from lamassu.services.ca.http.answers import Answer, PageAnswer
from lamassu.services.ca.rules.requests import KeptRequest, Outcome
from lamassu.services.ca.usecases import CaService

REQUESTS = Filterable(
    fields={
        "id": FieldType.STRING,
        "status": FieldType.ENUM,
        "ca_id": FieldType.STRING,
        "profile_id": FieldType.STRING,
        "requester": FieldType.STRING,
        "dms_id": FieldType.STRING,
        "device_id": FieldType.STRING,
        "common_name": FieldType.STRING,
        "code": FieldType.STRING,
        "creation_ts": FieldType.DATE,
    },
    choices={"status": [outcome.value for outcome in Outcome]},
)


class RequestAnswer(Answer):
    """A certificate request. `id` and `serial_number` of an issued one are its certificate's;
    `code` and `reason` are what was told of a refused one."""

    id: str
    status: str
    creation_ts: str
    ca_id: str
    profile_id: str
    requester: str
    dms_id: str
    device_id: str
    common_name: str
    serial_number: str
    code: str
    reason: str


class WholeRequestAnswer(RequestAnswer):
    """A certificate request with its CSR: base64 of PEM, empty where it was too large to keep."""

    csr: str


def request_routes(service: CaService) -> list[Route]:
    """All that came to be signed."""
    handlers = _Handlers(service)
    return [
        Route(
            method="GET",
            path="/v1/requests",
            access=Access.action("certificate:read"),
            handler=handlers.list,
            summary="List certificate requests and what became of them",
            description="Issued ones stay as long as their certificates. Of refused ones those "
            "of known callers are kept for 90 days, as far as there is room; they can be listed "
            "by time: filter=status[eq]REFUSED, sort_by=creation_ts.",
            answer=PageAnswer[RequestAnswer],
            listing=REQUESTS,
        ),
        Route(
            method="GET",
            path="/v1/requests/{id}",
            access=Access.action("certificate:read", scope="id"),
            handler=handlers.get,
            summary="Get a certificate request with its CSR",
            answer=WholeRequestAnswer,
        ),
    ]


class _Handlers:
    def __init__(self, service: CaService) -> None:
        self._service = service

    async def list(self, call: Call) -> Response:
        return page_answer(call, await self._service.requests.page(call.listing), _answer)

    async def get(self, call: Call) -> Response:
        kept = await self._service.requests.get(call.path["id"])
        csr = pem_text(kept.csr_der, "CERTIFICATE REQUEST") if kept.csr_der else ""
        return json_answer(WholeRequestAnswer(**_answer(kept).model_dump(), csr=csr))


def _answer(kept: KeptRequest) -> RequestAnswer:
    return RequestAnswer(
        id=kept.id,
        status=kept.outcome.value,
        creation_ts=format_time(kept.created_at),
        ca_id=kept.ca_id,
        profile_id=kept.profile_id,
        requester=kept.requester,
        dms_id=kept.owner,
        device_id=kept.device_id,
        common_name=kept.common_name,
        serial_number=kept.id if kept.outcome is Outcome.ISSUED else "",
        code=kept.code,
        reason=kept.reason,
    )
