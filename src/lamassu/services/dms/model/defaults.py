"""What the configuration decides for all DMSs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class DmsDefaults:
    """Configured parts of DMSs, and the bounds of enrolment.

    `enrollment_ca` and `issuance_profile_id` stand in where the seed's spelling names none
    (decision 17). No `cacerts` hands out `reserved_cas`, the bootstrap CAs (rule 16).
    `production` refuses what is loud in development (decision 7). An issued certificate that
    is in no slot after `unbound_after` is revoked (decision 26); a lost answer can be fetched
    again within `lost_answer_window` (decision 24).
    """

    enrollment_ca: str = ""
    issuance_profile_id: str = ""
    reserved_cas: Sequence[str] = ()
    production: bool = True
    dms_cache: timedelta = timedelta(seconds=1)
    authority_cache: timedelta = timedelta(seconds=3)
    unbound_after: timedelta = timedelta(minutes=10)
    lost_answer_window: timedelta = timedelta(hours=24)
