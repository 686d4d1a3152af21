"""The route that archives expired certificates."""

from __future__ import annotations

from starlette.responses import Response

from lamassu.platform.http import Access, Call, Route, WireModel, json_answer
from lamassu.platform.http.wire import WireDuration
from lamassu.services.ca.http.answers import Answer
from lamassu.services.ca.usecases import CaService


class ArchiveBody(WireModel):
    """How long ago a certificate has to have ended."""

    older_than: WireDuration


class ArchivedAnswer(Answer):
    """How many this call archived; 0 when none is left."""

    archived: int


def archive_routes(service: CaService) -> list[Route]:
    """One batch a call, so that a call is short and what was done stays done."""

    async def archive(call: Call) -> Response:
        body = call.decoded(ArchiveBody)
        done = await service.archiving.run(body.older_than, caller=call.caller)
        return json_answer(ArchivedAnswer(archived=done))

    return [
        Route(
            method="POST",
            path="/v1/certificates/archive",
            access=Access.action("certificate:archive"),
            handler=archive,
            summary="Archive certificates that ended long ago",
            description="At most 1000 a call; call again until none is left. Archived ones are "
            "in no list and no count; by serial number, and for OCSP, they are found as before.",
            body=ArchiveBody,
            answer=ArchivedAnswer,
        )
    ]
