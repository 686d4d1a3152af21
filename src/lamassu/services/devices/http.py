"""The device manager's routes (contract/devices.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from starlette.responses import Response

from lamassu.kernel.errors import Malformed, NotFound, RuleViolation
from lamassu.kernel.listing import FieldType, Filterable
from lamassu.platform.http import (
    Access,
    Call,
    Creation,
    Route,
    WireModel,
    empty_answer,
    json_answer,
    page_answer,
)
from lamassu.platform.http.wire import FreeForm, JsonPatches
from lamassu.services.devices.contract import Device, DeviceStatus, NewDevice, SlotStatus
from lamassu.services.devices.documents import SLOT_TYPE, device_document
from lamassu.services.devices.rules import SlotUpdate
from lamassu.services.devices.usecases import DeviceService, Revoking

PENDING = {"lamassu-revocation": "pending"}

FIELDS = Filterable(
    fields={
        "id": FieldType.STRING,
        "dms_owner": FieldType.STRING,
        "creation_timestamp": FieldType.DATE,
        "status": FieldType.ENUM,
        "tags": FieldType.STRING_ARRAY,
        "metadata": FieldType.JSON,
        "identity_slot": FieldType.JSON,
    },
    choices={"status": [status.value for status in DeviceStatus]},
)


Tag = Annotated[str, Field(max_length=256)]


class CreateDevice(WireModel):
    """A device to register."""

    leftovers = frozenset({"alias"})
    missing_text = "struct validation error"

    id: str
    dms_id: str
    icon: str = Field(max_length=256)
    icon_color: str = Field(max_length=256)
    tags: list[Tag] = Field(default_factory=list, max_length=256)
    metadata: FreeForm = Field(default_factory=dict)


class PutSlot(WireModel):
    """The identity slot as a client wants it.

    `expiration_date` and `events` are what an answer has: they follow from the certificates and
    are not taken from clients.
    """

    leftovers = frozenset({"expiration_date", "events"})
    missing_text = "struct validation error"

    status: SlotStatus
    active_version: int = Field(default=0, ge=0)
    type: str = SLOT_TYPE
    versions: dict[str, str] = Field(default_factory=dict)


class TimelineEntry(BaseModel):
    """A line of history; its time is its key."""

    type: str
    description: str


class SlotAnswer(BaseModel):
    """An identity slot; `versions` maps version numbers to serial numbers."""

    status: SlotStatus
    active_version: int
    type: str
    versions: dict[str, str]
    expiration_date: str | None = Field(None, exclude_if=lambda value: value is None)
    events: dict[str, TimelineEntry]


class DeviceAnswer(BaseModel):
    """A device; `identity` is absent until it has one."""

    model_config = ConfigDict(extra="forbid")

    id: str
    tags: list[str]
    status: DeviceStatus
    icon: str
    icon_color: str
    creation_timestamp: str
    metadata: dict[str, JsonValue]
    dms_owner: str
    identity: SlotAnswer | None = Field(None, exclude_if=lambda value: value is None)
    slots: dict[str, JsonValue]
    events: dict[str, TimelineEntry]


class DevicesAnswer(BaseModel):
    """A page of devices; `next` is the bookmark of the following one, or empty."""

    next: str
    list: list[DeviceAnswer]


class StatsAnswer(BaseModel):
    """How many devices there are, and of each status."""

    total: int
    status_distribution: dict[DeviceStatus, int]


def routes(service: DeviceService) -> list[Route]:
    """All routes, relative to `/api/devmanager`."""
    handlers = _Handlers(service)
    return [*_list_routes(handlers), *_device_routes(handlers)]


def _list_routes(handlers: _Handlers) -> list[Route]:
    read = Access.action("device:read")
    return [
        Route(
            method="GET",
            path="/v1/stats",
            access=read,
            handler=handlers.stats,
            summary="Count devices by status",
            answer=StatsAnswer,
            listing=FIELDS,
        ),
        Route(
            method="GET",
            path="/v1/devices",
            access=read,
            handler=handlers.list_all,
            summary="List devices",
            answer=DevicesAnswer,
            listing=FIELDS,
        ),
        Route(
            method="GET",
            path="/v1/devices/dms/{dms_id}",
            access=Access.action("device:read", scope="dms_id"),
            handler=handlers.list_of_dms,
            summary="List the devices of a DMS",
            answer=DevicesAnswer,
            listing=FIELDS,
        ),
        Route(
            method="POST",
            path="/v1/devices",
            access=Access.action("device:create"),
            handler=handlers.create,
            summary="Register a device",
            body=CreateDevice,
            answer=DeviceAnswer,
            status=201,
            creates=[Creation("device.create", DeviceAnswer)],
        ),
    ]


def _device_routes(handlers: _Handlers) -> list[Route]:
    change = Access.action("device:update", scope="id")
    return [
        Route(
            method="GET",
            path="/v1/devices/{id}",
            access=Access.action("device:read", scope="id"),
            handler=handlers.get,
            summary="Get a device",
            answer=DeviceAnswer,
        ),
        Route(
            method="DELETE",
            path="/v1/devices/{id}",
            access=Access.action("device:delete", scope="id"),
            handler=handlers.delete,
            summary="Delete a decommissioned device",
            status=204,
        ),
        Route(
            method="DELETE",
            path="/v1/devices/{id}/decommission",
            access=change,
            handler=handlers.decommission,
            summary="Take a device out of service for good",
            answer=DeviceAnswer,
        ),
        Route(
            method="PUT",
            path="/v1/devices/{id}/idslot",
            access=change,
            handler=handlers.put_slot,
            summary="Set the status of the identity slot, or add a certificate to it",
            body=PutSlot,
            answer=DeviceAnswer,
        ),
        *(
            Route(
                method=method,
                path="/v1/devices/{id}/metadata",
                access=change,
                handler=handlers.patch_metadata,
                summary="Patch a device's metadata",
                body=JsonPatches,
                answer=DeviceAnswer,
            )
            for method in ("PUT", "PATCH")
        ),
    ]


class _Handlers:
    def __init__(self, service: DeviceService) -> None:
        self._service = service

    async def stats(self, call: Call) -> Response:
        filters = call.listing.filters
        if any(condition.field == "status" for condition in filters):
            raise Malformed("struct validation error", code="invalid_filter", field="filter")
        counts = await self._service.count_by_status(filters)
        return json_answer(
            StatsAnswer(total=sum(counts.values()), status_distribution=dict(counts))
        )

    async def list_all(self, call: Call) -> Response:
        return page_answer(call, await self._service.list(call.listing), _answer)

    async def list_of_dms(self, call: Call) -> Response:
        page = await self._service.list(call.listing, dms_id=call.path["dms_id"])
        return page_answer(call, page, _answer)

    async def create(self, call: Call) -> Response:
        body = call.decoded(CreateDevice)
        new = NewDevice(
            id=body.id,
            dms_id=body.dms_id,
            icon=body.icon,
            icon_color=body.icon_color,
            tags=tuple(body.tags),
            metadata=body.metadata,
        )
        device = await self._service.create(new, caller=call.caller)
        return json_answer(_answer(device), status=201)

    async def get(self, call: Call) -> Response:
        try:
            device = await self._service.get(call.path["id"])
        except NotFound as error:
            # The original's Go client knows a missing device by 400 and this very text.
            raise RuleViolation(error.text, code=error.code) from error
        return json_answer(_answer(device))

    async def delete(self, call: Call) -> Response:
        await self._service.delete(call.path["id"], caller=call.caller)
        return empty_answer()

    async def decommission(self, call: Call) -> Response:
        done = await self._service.decommission(call.path["id"], caller=call.caller)
        return _revoking_answer(done)

    async def put_slot(self, call: Call) -> Response:
        update = _slot_update(call.decoded(PutSlot))
        done = await self._service.update_slot(call.path["id"], update, caller=call.caller)
        return _revoking_answer(done)

    async def patch_metadata(self, call: Call) -> Response:
        device = await self._service.patch_metadata(
            call.path["id"], call.decoded(JsonPatches).operations, caller=call.caller
        )
        return json_answer(_answer(device))


def _slot_update(body: PutSlot) -> SlotUpdate:
    if body.type != SLOT_TYPE:
        raise Malformed(f"the slot's type is {SLOT_TYPE}", code="invalid_value", field="type")
    return SlotUpdate(
        status=body.status,
        active_version=body.active_version,
        versions=_versions(body.versions),
    )


def _versions(wire: Mapping[str, str]) -> Mapping[int, str]:
    versions = {}
    for number, serial_number in wire.items():
        if not (number.isascii() and number.isdecimal()) or str(int(number[:9])) != number:
            raise Malformed(
                "versions are keyed by their numbers, from 0",
                code="invalid_value",
                field=f"versions.{number[:32]}",
            )
        versions[int(number)] = serial_number
    return versions


def _revoking_answer(done: Revoking) -> Response:
    return json_answer(_answer(done.device), headers=None if done.published else PENDING)


def _answer(device: Device) -> DeviceAnswer:
    return DeviceAnswer.model_validate(device_document(device))
