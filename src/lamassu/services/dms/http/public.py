"""The DMS manager's public routes (contract/dms-est.md §2)."""

from __future__ import annotations

from pydantic import BaseModel
from starlette.responses import Response

from lamassu.kernel.errors import Malformed
from lamassu.kernel.listing import FieldType, Filterable
from lamassu.platform.http import (
    Access,
    Call,
    Creation,
    Route,
    empty_answer,
    json_answer,
    page_answer,
)
from lamassu.platform.http.wire import JsonPatches
from lamassu.services.dms.http.bodies import DmsBody, draft_of
from lamassu.services.dms.model.dms import Dms
from lamassu.services.dms.model.documents import dms_document
from lamassu.services.dms.usecases import DmsService

FIELDS = Filterable(
    fields={
        "id": FieldType.STRING,
        "name": FieldType.STRING,
        "creation_date": FieldType.DATE,
        "metadata": FieldType.JSON,
        "settings": FieldType.JSON,
    }
)


class DmsAnswer(BaseModel):
    """A DMS; `settings` is the whole tree, every default filled in."""

    id: str
    name: str
    metadata: dict[str, object]
    creation_ts: str
    settings: dict[str, object]


class DmssAnswer(BaseModel):
    """A page of DMSs; `next` is the bookmark of the following one, or empty."""

    next: str
    list: list[DmsAnswer]


class StatsAnswer(BaseModel):
    """How many DMSs there are."""

    total: int


def routes(service: DmsService) -> list[Route]:
    """All routes, relative to `/api/dmsmanager`."""
    handlers = _Handlers(service)
    read, change = Access.action("dms:read", scope="id"), Access.action("dms:update", scope="id")
    return [
        Route(
            method="GET",
            path="/v1/stats",
            access=Access.action("dms:read"),
            handler=handlers.stats,
            summary="Count DMSs",
            answer=StatsAnswer,
            listing=FIELDS,
        ),
        Route(
            method="GET",
            path="/v1/dms",
            access=Access.action("dms:read"),
            handler=handlers.list_all,
            summary="List DMSs",
            answer=DmssAnswer,
            listing=FIELDS,
        ),
        Route(
            method="POST",
            path="/v1/dms",
            access=Access.action("dms:create"),
            handler=handlers.create,
            summary="Create a DMS",
            body=DmsBody,
            answer=DmsAnswer,
            status=201,
            creates=[Creation("dms.create", DmsAnswer, etag=True)],
        ),
        Route(
            method="GET",
            path="/v1/dms/{id}",
            access=read,
            handler=handlers.get,
            summary="Get a DMS",
            answer=DmsAnswer,
        ),
        Route(
            method="PUT",
            path="/v1/dms/{id}",
            access=change,
            handler=handlers.update,
            summary="Replace a DMS's name, metadata and settings",
            body=DmsBody,
            answer=DmsAnswer,
        ),
        *(
            Route(
                method=method,
                path="/v1/dms/{id}/metadata",
                access=change,
                handler=handlers.patch_metadata,
                summary="Patch a DMS's metadata",
                body=JsonPatches,
                answer=DmsAnswer,
            )
            for method in ("PUT", "PATCH")
        ),
        Route(
            method="DELETE",
            path="/v1/dms/{id}",
            access=Access.action("dms:delete", scope="id"),
            handler=handlers.delete,
            summary="Delete a DMS; its devices stay",
            status=204,
        ),
    ]


class _Handlers:
    def __init__(self, service: DmsService) -> None:
        self._service = service

    async def stats(self, call: Call) -> Response:
        return json_answer(StatsAnswer(total=await self._service.count(call.listing)))

    async def list_all(self, call: Call) -> Response:
        return page_answer(call, await self._service.list(call.listing), _answer)

    async def create(self, call: Call) -> Response:
        draft = draft_of(call.decoded(DmsBody))
        dms = await self._service.create(draft, caller=call.caller)
        return _dms_answer(dms, status=201)

    async def get(self, call: Call) -> Response:
        return _dms_answer(await self._service.get(call.path["id"]))

    async def update(self, call: Call) -> Response:
        draft = draft_of(call.decoded(DmsBody), dms_id=call.path["id"])
        return _dms_answer(
            await self._service.update(
                draft, caller=call.caller, expected_version=_expected_version(call)
            )
        )

    async def patch_metadata(self, call: Call) -> Response:
        return _dms_answer(
            await self._service.patch_metadata(
                call.path["id"],
                call.decoded(JsonPatches).operations,
                caller=call.caller,
                expected_version=_expected_version(call),
            )
        )

    async def delete(self, call: Call) -> Response:
        await self._service.delete(call.path["id"], caller=call.caller)
        return empty_answer()


def _expected_version(call: Call) -> int | None:
    """The version that the client last read, if it says so (decision 11)."""
    tag = call.headers.get("if-match", "*").strip()
    if tag == "*":
        return None
    number = tag.strip('"')
    if not (number.isascii() and number.isdecimal() and len(number) < 19):
        raise Malformed("If-Match takes the ETag of an answer", code="invalid_value")
    return int(number)


def _dms_answer(dms: Dms, *, status: int = 200) -> Response:
    return json_answer(_answer(dms), status=status, headers={"etag": f'"{dms.version}"'})


def _answer(dms: Dms) -> DmsAnswer:
    return DmsAnswer.model_validate(dms_document(dms))
