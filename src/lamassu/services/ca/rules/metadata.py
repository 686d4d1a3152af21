"""Metadata: the users' own, and the keys that the system renders (decision 11)."""

from __future__ import annotations

from collections.abc import Mapping

from lamassu.kernel.errors import RuleViolation
from lamassu.kernel.records import Json
from lamassu.services.ca.model import ATTACHED_TO, SYSTEM_METADATA


def rendered(metadata: Mapping[str, Json], *, owner: str, device_id: str) -> dict[str, Json]:
    """Metadata as clients see it, with what the columns know."""
    shown = users_own(metadata)
    if owner or device_id:
        shown[ATTACHED_TO] = {"authorized_by": {"ra_id": owner}, "device_id": device_id}
    return shown


def users_own(metadata: Mapping[str, Json]) -> dict[str, Json]:
    """Metadata as stored: what a client wrote to the system's keys is passed over."""
    return {key: value for key, value in metadata.items() if key not in SYSTEM_METADATA}


def patched(document: Json) -> dict[str, Json]:
    """The outcome of a patch, as it is to be stored. Raises `RuleViolation`."""
    if not isinstance(document, Mapping):
        raise RuleViolation(
            "metadata must stay an object", code="metadata_malformed", field="patches"
        )
    return users_own(document)
