"""The services that keep data, and where each keeps the history of its schema."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

HISTORIES: dict[str, str] = {
    "ca": "lamassu.services.ca.migrations",
    "kms": "lamassu.services.kms.migrations",
    "va": "lamassu.services.va.migrations",
    "dmsmanager": "lamassu.services.dms.migrations",
    "devicemanager": "lamassu.services.devices.migrations",
    "alerts": "lamassu.services.alerts.migrations",
    "access": "lamassu.services.access.migrations",
}
"""Service name (schema and table prefix) to the package of its revisions.

Names only: the platform imports no slice. Tests add services of their own.
"""

SERVICES: tuple[str, ...] = tuple(HISTORIES)


def history_of(service: str) -> Path:
    """The folder of the service's revisions."""
    spec = find_spec(HISTORIES[service])
    if spec is None or not spec.submodule_search_locations:
        raise LookupError(f"service {service} has no migrations package")
    return Path(next(iter(spec.submodule_search_locations)))
