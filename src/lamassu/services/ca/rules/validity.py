"""How long certificates live."""

from __future__ import annotations

from datetime import datetime, timedelta

from lamassu.kernel.errors import RuleViolation
from lamassu.kernel.x509.keys import KeyFacts
from lamassu.services.ca.contract import (
    NO_EXPIRY,
    Certificate,
    IssuanceProfile,
    IssuerEnd,
    Validity,
)

# Devices whose clock runs a little behind must not refuse a certificate just made.
BACKDATING = timedelta(minutes=1)
# For a profile that leaves its validity open.
DEFAULT_VALIDITY = timedelta(hours=8760)
# What clamping may leave of a certificate, where the profile sets no bound of its own.
DEFAULT_MINIMUM = timedelta(hours=1)
# Keys below 3072 bits are for short-lived certificates (decision 18).
LONGEST_SMALL_RSA = timedelta(hours=17520)
_SMALL_RSA_BITS = 3072


def is_set(validity: Validity) -> bool:
    """Whether the validity says how long at all."""
    return validity.duration is not None or validity.not_after is not None


def end_of(validity: Validity, now: datetime, *, field: str) -> datetime:
    """When something issued now ends, to the second.

    Raises `RuleViolation` (`validity_out_of_range`) for an end that is past or that X.509
    cannot express, and for a validity that says nothing.
    """
    try:
        end = validity.not_after
        if validity.duration is not None:
            end = now + validity.duration
    except OverflowError:
        end = None
    if end is not None:
        end = end.replace(microsecond=0)  # as certificates do (RFC 5280 §4.1.2.5.2)
    if end is None or not now < end <= NO_EXPIRY:
        raise RuleViolation(
            "the validity must end in the future, and before the year 10000",
            code="validity_out_of_range",
            field=field,
        )
    return end


def start_for(
    issuer: Certificate | None, now: datetime, profile: IssuanceProfile | None = None
) -> datetime:
    """The `not_before` of something issued now: a little ago, or as long ago as the profile
    says, but not before its issuer's."""
    backdating = BACKDATING if profile is None else backdating_of(profile)
    start = (now - backdating).replace(microsecond=0)
    return start if issuer is None else max(start, issuer.not_before)


def backdating_of(profile: IssuanceProfile) -> timedelta:
    """How far before issuance its certificates begin."""
    return BACKDATING if profile.backdating is None else profile.backdating


def check_ends_before_issuer(not_after: datetime, issuer: Certificate, *, field: str) -> None:
    """Refuse a certificate that would outlive its issuer's (decision 15)."""
    if not_after > issuer.not_after:
        raise RuleViolation(
            f"outlives its issuer (until {issuer.not_after:%Y-%m-%d}); shorten the validity",
            code="validity_exceeds_issuer",
            field=field,
        )


def end_entity_period(
    profile: IssuanceProfile, issuer: Certificate, key: KeyFacts, now: datetime
) -> tuple[datetime, datetime]:
    """`not_before` and `not_after` of an end-entity certificate (decisions 15, 18).

    It is clamped to the issuer's end, and to two years for a small RSA key. Raises
    `RuleViolation` when less is left than the profile's minimum (`validity_below_minimum`), or
    less than it asks for where it refuses to clamp (`validity_exceeds_issuer`).
    """
    asked = profile.validity if is_set(profile.validity) else Validity(duration=DEFAULT_VALIDITY)
    start = start_for(issuer, now, profile)
    end = wanted = end_of(asked, now, field="validity")
    if key.algorithm == "RSA" and key.size < _SMALL_RSA_BITS:
        end = min(end, start + LONGEST_SMALL_RSA)
    if profile.at_issuer_end is IssuerEnd.REFUSE:
        check_ends_before_issuer(end, issuer, field="validity")
    end = min(end, issuer.not_after)
    minimum = profile.minimum_validity or min(DEFAULT_MINIMUM, wanted - now)
    if end < wanted and end - now < minimum:
        raise RuleViolation(
            f"the issuing CA ends {issuer.not_after:%Y-%m-%d %H:%M}, too soon for this profile; "
            "issue under another CA",
            code="validity_below_minimum",
            field="validity",
        )
    return start, end
