"""Metadata: the users' own, and the keys that the system renders (decision 11)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from lamassu.kernel.json_patch import Patch, apply_to_object
from lamassu.kernel.records import Json
from lamassu.kernel.wire_text import format_time
from lamassu.services.ca.model import (
    ATTACHED_TO,
    REISSUE_REASON,
    REISSUED_AS,
    REISSUED_AT,
    REISSUED_FROM,
    SYSTEM_METADATA,
)

_REASON = "certificate-reissuance"


@dataclass(frozen=True, slots=True)
class Reissue:
    """What a CA's certificate followed, and what followed it when, by serial number."""

    came_from: str | None = None
    became: str | None = None
    at: datetime | None = None


_NEVER = Reissue()


def rendered(
    metadata: Mapping[str, Json], *, owner: str = "", device_id: str = "", reissue: Reissue = _NEVER
) -> dict[str, Json]:
    """Metadata as clients see it, with what the columns know."""
    shown = users_own(metadata)
    if owner or device_id:
        shown[ATTACHED_TO] = {"authorized_by": {"ra_id": owner}, "device_id": device_id}
    if reissue.became is not None and reissue.at is not None:
        shown |= {REISSUED_AS: reissue.became, REISSUED_AT: format_time(reissue.at)}
    if reissue.came_from is not None:
        shown |= {REISSUED_FROM: reissue.came_from, REISSUE_REASON: _REASON}
    return shown


def users_own(metadata: Mapping[str, Json]) -> dict[str, Json]:
    """Metadata as stored: what a client wrote to the system's keys is passed over."""
    return {key: value for key, value in metadata.items() if key not in SYSTEM_METADATA}


def patched(metadata: Mapping[str, Json], patches: Sequence[Patch]) -> dict[str, Json]:
    """Patched metadata, in which the system's keys are as they were.

    Raises `RuleViolation` (`patch_failed`).
    """
    kept = {key: value for key, value in metadata.items() if key in SYSTEM_METADATA}
    return users_own(apply_to_object(metadata, patches)) | kept
