"""The routes of alerts (contract/alerts-events.md §1). Subscriptions come with their own issue."""

from __future__ import annotations

from pydantic import BaseModel, JsonValue, RootModel
from starlette.responses import Response

from lamassu.platform.http import Access, Call, Route, json_answer
from lamassu.platform.http.wire import WireTime
from lamassu.services.alerts.model import LatestEvent
from lamassu.services.alerts.usecases import AlertsService


class LatestEventAnswer(BaseModel):
    """The newest event of a type; `event_types` is that one type, under the original's name."""

    event_types: str
    event: dict[str, JsonValue]
    seen_at: WireTime
    counter: int


class LatestEventsAnswer(RootModel[list[LatestEventAnswer]]):
    """One per type: a bare array."""


def routes(service: AlertsService) -> list[Route]:
    """All routes, relative to `/api/alerts`."""

    async def latest(call: Call) -> Response:
        return json_answer([_answer(seen) for seen in await service.latest()])

    return [
        Route(
            method="GET",
            path="/v1/events/latest",
            access=Access.action("alert:read"),
            handler=latest,
            summary="The latest event of each type",
            answer=LatestEventsAnswer,
        )
    ]


def _answer(seen: LatestEvent) -> LatestEventAnswer:
    return LatestEventAnswer.model_validate(
        {
            "event_types": seen.event_type,
            "event": seen.cloud_event,
            "seen_at": seen.seen_at,
            "counter": seen.counter,
        }
    )
