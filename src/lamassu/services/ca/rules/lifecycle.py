"""When a CA's certificate may be made anew, and when a CA may go."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from lamassu.kernel.errors import Conflict, RuleViolation
from lamassu.services.ca.contract import (
    Certificate,
    CertificateStatus,
    CertificateType,
    CertificationAuthority,
)
from lamassu.services.ca.rules.status import on_hold, revoked_for_good


def check_may_be_reissued(authority: CertificationAuthority, now: datetime) -> None:
    """The original's texts; a CA that is inactive or not yet valid is `check_may_sign`'s."""
    certificate = authority.certificate
    revoked = certificate.stored_status is CertificateStatus.REVOKED
    if revoked or authority.revoked_by is not None:
        raise RuleViolation("CA already revoked", code="ca_revoked")
    if certificate.not_after < now:
        raise RuleViolation("CA is expired", code="ca_expired")
    if not authority.key_id:
        raise Conflict(
            f"the key of {authority.id} is offline: its next certificate is made at its ceremony"
            " (lamassu ceremony run) and brought here by lamassu ca import-signed",
            code="ca_key_offline",
        )


def check_prolongs(not_after: datetime, present: Certificate) -> None:
    """What the CA issued must not outlive it: its end never comes closer."""
    if not_after < present.not_after:
        raise RuleViolation(
            f"ends before the present certificate (until {present.not_after:%Y-%m-%d}), and so"
            " before what the CA issued; lengthen the validity",
            code="validity_shortened",
            field="validity",
        )


def is_over(authority: CertificationAuthority, now: datetime) -> bool:
    """Whether it is revoked for good or expired: nothing brings it back."""
    certificate = authority.certificate
    expired = certificate.status_at(now) is CertificateStatus.EXPIRED
    return revoked_for_good(certificate) or expired


def check_may_be_deleted(authority: CertificationAuthority, now: datetime) -> None:
    """Refuse to delete what works, and what is on hold: with its CA gone, nothing would keep
    those below from being released."""
    certificate = authority.certificate
    if on_hold(certificate):
        raise RuleViolation("CA Status inconsistent", code="ca_on_hold")
    without_key = certificate.type is CertificateType.IMPORTED_WITHOUT_KEY
    if not (is_over(authority, now) or without_key):
        raise RuleViolation("CA Status inconsistent", code="ca_not_deletable")


def check_no_live_child(children: Sequence[CertificationAuthority], now: datetime) -> None:
    """A CA above others that still work stays, whatever it is itself: revoke those first."""
    if not all(is_over(child, now) for child in children):
        raise RuleViolation("CA Status inconsistent", code="ca_has_live_children")


def check_line(
    authority: CertificationAuthority,
    *,
    successor: CertificationAuthority | None,
    predecessor: CertificationAuthority | None,
    now: datetime,
) -> None:
    """Refuse to break a line of generations: what names the first one issues under the newest.

    `successor` and `predecessor` are those that stay.
    """
    if successor is not None:
        raise Conflict(
            f"{authority.id} goes on as {successor.id}, which is found by its id; delete"
            f" {successor.id} first",
            code="ca_has_successor",
        )
    if predecessor is not None and not is_over(predecessor, now):
        raise Conflict(
            f"the generation before it, {predecessor.id}, would issue again; revoke that first",
            code="ca_has_predecessor",
        )
