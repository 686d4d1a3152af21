"""When CRLs are due, what a role may say, and how long answers live. No I/O, no clock."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from lamassu.kernel.errors import RuleViolation
from lamassu.services.ca.contract import CertificateStanding, RevokedEntry
from lamassu.services.va.contract import CrlRole
from lamassu.services.va.model import CrlFacts, FilterEdition, FilterState, RoleChange, StatusClaim

# The original's defaults.
DEFAULT_REFRESH_INTERVAL = timedelta(days=6, hours=23)
DEFAULT_VALIDITY = timedelta(weeks=1)
LONGEST_VALIDITY = timedelta(days=366)
SHORTEST_FILTER_INTERVAL = timedelta(minutes=1)
# A delta costs its readers a second file: not for more than a quarter of the first.
_LARGEST_DELTA = 4

# Security rule 25: an OCSP answer lives an hour, a cache may keep it for half of what is left.
OCSP_LIFETIME = timedelta(hours=1)
_REUSE_UNTIL_LEFT = timedelta(minutes=15)
_LONGEST_MARGIN = timedelta(hours=1)

# A newer CRL may be there any moment; whoever asks again with the tag is told so in few bytes.
CRL_CACHE_SECONDS = 60


def new_role(ca_id: str, subject_key_id: str) -> CrlRole:
    """The role that a CA begins with."""
    return CrlRole(
        ca_ski=subject_key_id,
        ca_id=ca_id,
        refresh_interval=DEFAULT_REFRESH_INTERVAL,
        validity=DEFAULT_VALIDITY,
        subject_key_id_signer=subject_key_id,
        regenerate_on_revoke=True,
    )


def changed_role(role: CrlRole, change: RoleChange) -> CrlRole:
    """The role after a change, its version one higher.

    Raises `RuleViolation` (`invalid_value`) when refresh interval and validity are not
    0 < refresh <= validity <= 366 days, or another key than the CA's is to sign.
    """
    given = {
        name: value
        for name in (
            "refresh_interval",
            "validity",
            "subject_key_id_signer",
            "regenerate_on_revoke",
            "filter_interval",
        )
        if (value := getattr(change, name)) is not None
    }
    changed = replace(role, **given, version=role.version + 1)
    if changed.refresh_interval < timedelta(seconds=1):
        raise _invalid("the refresh interval is at least 1s", "refresh_interval")
    if not timedelta(seconds=1) <= changed.validity <= LONGEST_VALIDITY:
        raise _invalid("the validity is between 1s and 366d", "validity")
    if changed.refresh_interval > changed.validity:
        raise _invalid("the refresh interval exceeds the validity", "refresh_interval")
    interval = changed.filter_interval
    if interval and not SHORTEST_FILTER_INTERVAL <= interval <= changed.validity / 2:
        raise _invalid(
            "the filter interval is between 1m and half of the validity, or 0s for no filter",
            "filter_interval",
        )
    if changed.subject_key_id_signer in ("", role.ca_ski):
        return replace(changed, subject_key_id_signer=role.ca_ski)
    raise _invalid("a CRL is signed by its CA's own key", "subject_key_id_signer")


def _invalid(text: str, field: str) -> RuleViolation:
    return RuleViolation(text, code="invalid_value", field=field)


def is_due(role: CrlRole, latest: CrlFacts | None, now: datetime) -> bool:
    """Whether the next CRL should be made: its interval has passed, or the present one is
    about to end (a refresh interval as long as the validity would leave a gap)."""
    if latest is None:
        return True
    margin = min(role.validity / 10, _LONGEST_MARGIN)
    return now >= min(latest.this_update + role.refresh_interval, latest.next_update - margin)


def filter_is_due(role: CrlRole, held: FilterState, now: datetime) -> bool:
    """Whether the next filter or delta should be made."""
    newest = held.delta or held.full
    return newest is None or now >= newest.this_update + role.filter_interval


def takes_a_delta(role: CrlRole, full: FilterEdition, now: datetime) -> bool:
    """Whether the full filter is young enough to be built upon."""
    return full.next_update - now > role.validity / 2


def delta_is_worth_it(delta: int, full: int) -> bool:
    """By their sizes in octets."""
    return delta * _LARGEST_DELTA <= full


def entries_digest(entries: Sequence[RevokedEntry]) -> str:
    """What a CRL lists, in one value: equal digests, equal lists."""
    digest = hashlib.sha256()
    for entry in entries:
        line = f"{entry.serial_number} {entry.revocation_time.timestamp():.0f} {entry.reason}\n"
        digest.update(line.encode("ascii"))
    return digest.hexdigest()


def to_the_second(instant: datetime) -> datetime:
    """The last whole second: a status is never claimed for a time after it was read."""
    return instant.replace(microsecond=0)


def claim_of(standing: CertificateStanding) -> StatusClaim:
    """What OCSP says of a certificate with this standing."""
    if standing.revoked:
        revoked_at = to_the_second(standing.revocation_time or standing.read_at)
        return StatusClaim(known=True, revoked_at=revoked_at, reason=standing.reason.number)
    return StatusClaim(known=standing.known, revoked_at=None, reason=0)


def may_reuse(next_update: datetime, now: datetime) -> bool:
    """Whether a signed answer has enough life left for another asker."""
    return next_update - now > _REUSE_UNTIL_LEFT


def cache_seconds(next_update: datetime, now: datetime) -> int:
    """How long others may keep what ends at `next_update`: half of what is left."""
    return max(0, int((next_update - now).total_seconds() / 2))
