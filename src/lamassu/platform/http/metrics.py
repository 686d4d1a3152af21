"""`/metrics`, for Prometheus, shown to who has `metrics:read`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.responses import Response

from lamassu.platform.http.call import Call
from lamassu.platform.http.routing import Access, Mount, Route
from lamassu.platform.telemetry.metrics import CONTENT_TYPE, Metrics


def metrics_mount(metrics: Metrics, refresh: Callable[[], Awaitable[object]]) -> Mount:
    """The route; `refresh` is awaited before each answer, to ask what is not counted."""

    async def show(call: Call) -> Response:
        await refresh()
        return Response(metrics.exposition(), 200, {"content-type": CONTENT_TYPE})

    return Mount(
        "",
        "platform",
        [
            Route(
                method="GET",
                path="/metrics",
                access=Access.action("metrics:read"),
                handler=show,
                summary="Show the platform's figures to Prometheus",
                documented=False,
            )
        ],
    )
