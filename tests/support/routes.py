"""What is mounted, asked of the product itself: a walk meets every route, new ones too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

from lamassu.platform.http import RouteTable
from lamassu.platform.http.routing import MountedRoute
from lamassu.wiring.routes import internal_mounts, public_mounts, validation_mounts

_PARAMETER = re.compile(r"\{([A-Za-z0-9_-]+)(?::path)?\}")
_SERVICES = ("kms", "ca", "va", "dms", "devices", "alerts", "issuance_log")


def mounted() -> Mapping[str, RouteTable]:
    """The table of each listener. No handler is called, so any service will do."""
    platform = cast(Any, SimpleNamespace(**dict.fromkeys(_SERVICES, MagicMock())))
    return {
        "https": RouteTable(public_mounts(platform)),
        "http": RouteTable(validation_mounts(platform)),
        "internal": RouteTable(internal_mounts(platform)),
    }


def name_of(route: MountedRoute) -> str:
    """`GET /api/ca/v1/cas/{id}`."""
    return f"{route.method} {route.path}"


def path_of(route: MountedRoute, values: Mapping[str, str] | None = None) -> str:
    """Its path, each parameter with the value of the longest known beginning.

    `values` maps `BEGINNING {PARAMETER}` to what stands for it: `/api/ca/v1/cas {id}`.
    """

    def value(match: re.Match[str]) -> str:
        known = [
            (len(beginning), given)
            for key, given in (values or {}).items()
            for beginning, _, parameter in (key.partition(" "),)
            if parameter == f"{{{match[1]}}}" and route.path.startswith(beginning)
        ]
        return max(known)[1] if known else "nobody"

    return _PARAMETER.sub(value, route.path)
