"""The HTTP layer: what slices need to declare their routes, and the application over them."""

from lamassu.platform.http.answers import empty_answer, json_answer, json_bytes_answer
from lamassu.platform.http.application import PEER_EXTENSION, Application, build_app, nobody
from lamassu.platform.http.call import Call, page_answer
from lamassu.platform.http.routing import Access, AccessKind, Creation, Mount, Route, RouteTable
from lamassu.platform.http.wire import WireModel

__all__ = [
    "PEER_EXTENSION",
    "Access",
    "AccessKind",
    "Application",
    "Call",
    "Creation",
    "Mount",
    "Route",
    "RouteTable",
    "WireModel",
    "build_app",
    "empty_answer",
    "json_answer",
    "json_bytes_answer",
    "nobody",
    "page_answer",
]
