"""Routes of CAs under an offline root: the CSR that goes out, and what comes back."""

from __future__ import annotations

from starlette.responses import Response

from lamassu.platform.http import Access, Call, Route, empty_answer, json_answer
from lamassu.services.ca.http.answers import AwaitedCaAnswer, ImportedAnswer, PageAnswer
from lamassu.services.ca.http.bodies import ImportSignedBody
from lamassu.services.ca.http.encoding import Encoder, awaited_answer
from lamassu.services.ca.usecases import CaService

LARGEST_DELIVERY = 6 * 1024 * 1024


def external_routes(service: CaService) -> list[Route]:
    """CAs that wait for their certificate, and its arrival."""
    handlers = _Handlers(service)
    one = "/v1/ca-requests/{id}"
    return [
        Route(
            method="POST",
            path="/v1/cas/import-signed",
            access=Access.action("ca:create"),
            handler=handlers.import_signed,
            summary="Take in what an offline root signed",
            description="A ceremony's bundle, or certificates in PEM. Each CA certificate must "
            "carry the key of a CA that waits here. A root that is not known yet is stored "
            "without a key, if root_fingerprint repeats the SHA-256 of its certificate. The same "
            "again changes nothing and answers 200.",
            body=ImportSignedBody,
            body_limit=LARGEST_DELIVERY,
            answer=ImportedAnswer,
            status=201,
            other_statuses={200: "Everything was here already"},
        ),
        Route(
            method="GET",
            path="/v1/ca-requests",
            access=Access.action("ca:read"),
            handler=handlers.list,
            summary="List the CAs that wait for an offline root's signature",
            answer=PageAnswer[AwaitedCaAnswer],
        ),
        Route(
            method="GET",
            path=one,
            access=Access.action("ca:read", scope="id"),
            handler=handlers.get,
            summary="Get a CA that waits for its certificate, with its CSR",
            answer=AwaitedCaAnswer,
        ),
        Route(
            method="DELETE",
            path=one,
            access=Access.action("ca:create", scope="id"),
            handler=handlers.withdraw,
            summary="Wait no longer for a certificate, and delete the key",
            status=204,
        ),
    ]


class _Handlers:
    def __init__(self, service: CaService) -> None:
        self._service = service

    async def import_signed(self, call: Call) -> Response:
        body = call.decoded(ImportSignedBody)
        imported = await self._service.import_signed(
            body.signed, body.root_fingerprint, caller=call.caller
        )
        encode = Encoder(self._service).ca
        answer = ImportedAnswer(
            root=encode(imported.root),
            imported=[encode(authority) for authority in imported.authorities],
        )
        return json_answer(answer, status=201 if imported.is_new else 200)

    async def list(self, call: Call) -> Response:
        waiting = await self._service.awaited()
        return json_answer(
            PageAnswer[AwaitedCaAnswer](next="", list=[awaited_answer(one) for one in waiting])
        )

    async def get(self, call: Call) -> Response:
        return json_answer(awaited_answer(await self._service.get_awaited(call.path["id"])))

    async def withdraw(self, call: Call) -> Response:
        await self._service.withdraw_awaited(call.path["id"], caller=call.caller)
        return empty_answer(204)
