"""Two people: who has to agree to what is dangerous for a CA (security rule 7).

A CA may have a policy: M of N persons, named as admins are. A request that the policy is about
changes nothing; it is stored, shown to the approvers, and answered by `Deferred`. When enough of
them agreed, the person who asked repeats it and names the approval, which is spent by that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from lamassu.kernel.identity import Caller
from lamassu.kernel.records import Json

DEFAULT_LIFETIME = timedelta(hours=24)
APPROVALS_PATH = "/api/ca/v1/approvals"


class Operation(StrEnum):
    """What can need approvals; the word stands in answers, events and audit records."""

    CREATE_CHILD = "ca.create-child"
    CHANGE_STATUS = "ca.status"
    DELETE = "ca.delete"
    REKEY = "ca.rekey"
    REISSUE = "ca.reissue"
    CHANGE_PROFILE = "ca.profile"
    WEAKEN_PROFILE = "profile.weaken"
    CHANGE_APPROVALS = "ca.approvals"
    EXPORT_KEY = "key.export"
    ISSUE_ADMIN = "admin.issue"
    LOWER_MODE = "mode.lower"


@dataclass(frozen=True, slots=True)
class ApprovalPolicy:
    """So many of these persons have to agree, within `lifetime` of the request.

    `of` holds names of admins: a person has one name, and as many certificates as they like.
    """

    required: int
    of: tuple[str, ...]
    lifetime: timedelta = DEFAULT_LIFETIME


class ApprovalStatus(StrEnum):
    """`APPROVED` says that enough agreed when they did; whether that still counts is judged
    when it is spent. `EXPIRED` follows from the time, whether it is stored yet or not."""

    PENDING = "PENDING"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"
    SPENT = "SPENT"


class Verdict(StrEnum):
    """What an approver says."""

    APPROVE = "APPROVE"
    REJECT = "REJECT"


@dataclass(frozen=True, slots=True)
class Vote:
    """One person's word; a later one replaces it."""

    approver: str
    verdict: Verdict
    cast_at: datetime
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Approval:
    """A request that waits, or waited, for approvals.

    `ca_ids` are the CAs whose policies it has to meet, each of them, when it was stored; `ca_id`
    is the first. `policies` are these as they were then, to be shown: what counts is read anew.
    `basis` holds digests of what the request names (`profile/x`), so that nothing changes
    between approval and deed. `excluded` are persons who may not vote beside the
    requester.
    """

    id: str
    operation: Operation
    ca_ids: tuple[str, ...]
    requester: str
    digest: str
    request: Mapping[str, Json]
    policies: Mapping[str, ApprovalPolicy]
    created_at: datetime
    expires_at: datetime
    basis: Mapping[str, str] = field(default_factory=dict)
    excluded: tuple[str, ...] = ()
    status: ApprovalStatus = ApprovalStatus.PENDING
    closed_at: datetime | None = None
    votes: tuple[Vote, ...] = ()
    version: int = 1

    @property
    def ca_id(self) -> str:
        return self.ca_ids[0]

    def status_at(self, now: datetime) -> ApprovalStatus:
        """The status at `now`: what waits past its time has expired."""
        if self.status in OPEN and now >= self.expires_at:
            return ApprovalStatus.EXPIRED
        return self.status


OPEN = (ApprovalStatus.PENDING, ApprovalStatus.APPROVED)


@dataclass(frozen=True, slots=True)
class Demand:
    """Somebody asks for something that may need approvals.

    `request` says what, as JSON that an approver can read (method, path and body; or a command
    of the host and its arguments): with the requester it is what an approval is bound to.
    `approval_id` is the approval that they say they have. No secret may be in `request`: it is
    stored, and told in events.
    """

    caller: Caller
    request: Mapping[str, Json]
    approval_id: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of requester and request in one canonical form."""
        asked: dict[str, Json] = {"requester": self.caller.principal.id, "request": self.request}
        return hashlib.sha256(canonical_request(asked)).hexdigest()


def canonical_request(document: Mapping[str, Json]) -> bytes:
    """JSON in one form only: sorted keys, no spaces, ASCII."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


@dataclass(frozen=True, slots=True)
class AdminStanding:
    """An admin of whom access knows: whether one of their certificates can be used now, and when
    one was last revoked, if ever."""

    holds_certificate: bool
    last_revoked_at: datetime | None = None


class People(Protocol):
    """Who the admins are; access tells."""

    async def admins(self) -> Mapping[str, AdminStanding]:
        """Everybody who ever was one, by name, as of now."""
        ...


class Approvals(Protocol):
    """What another slice asks before it does something dangerous to a CA.

    approval_id = await approvals.require(Operation.EXPORT_KEY, [ca.id], demand)
    ...  # act; where a second run would do harm, store approval_id in the same transaction
    await approvals.settle(approval_id, demand.caller)
    """

    async def require(
        self,
        operation: Operation,
        ca_ids: Sequence[str],
        demand: Demand | None,
        *,
        excluded: Sequence[str] = (),
    ) -> str | None:
        """`None` if no policy of these CAs asks for anything: go on.

        Otherwise the id of the approval that the demand names, judged and found sufficient; it
        is not spent yet. Without one the request is stored for approval and `Deferred` raised,
        which the HTTP layer answers with 202. `excluded` persons may not vote on it.

        Raises `Forbidden` (`approval_required`) if there is no demand or it is not a person's,
        `approval_of_other` for another person's, `NotFound`, and `Conflict` for an approval that
        waits, was rejected, has expired, is spent, or is for another request.
        """
        ...

    async def settle(self, approval_id: str | None, caller: Caller) -> None:
        """The deed was done: the approval is spent. Nothing for `None`, or if it is already."""
        ...

    async def guarded_cas(self, approver: str | None = None) -> Sequence[str]:
        """Ids of the CAs that have a policy; of those whose policy names this person."""
        ...
