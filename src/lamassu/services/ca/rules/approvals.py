"""Two people: which policies make sense, who may vote, and whose vote counts (security rule 7)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, fields
from datetime import datetime, timedelta

from lamassu.kernel.errors import Conflict, Forbidden, NotFound, RuleViolation
from lamassu.kernel.identity import Principal, PrincipalKind
from lamassu.kernel.x509.names import Subject
from lamassu.services.ca.contract import (
    AdminStanding,
    AllowedNames,
    Approval,
    ApprovalPolicy,
    ApprovalStatus,
    Demand,
    IssuanceProfile,
    IssuerEnd,
    Operation,
    Verdict,
    Vote,
)
from lamassu.services.ca.contract.approvals import canonical_request
from lamassu.services.ca.rules.validity import backdating_of

APPROVAL_HEADER = "Lamassu-Approval"
SHORTEST, LONGEST = timedelta(minutes=5), timedelta(days=7)
MOST_APPROVERS = 32
MOST_OPEN = 64  # that wait for one CA
MOST_OPEN_OF_ONE = 16  # of these, asked for by one person
LONGEST_REQUEST = 16 * 1024  # octets, of which an approver reads every one
LONGEST_COMMENT = 500

Admins = Mapping[str, AdminStanding]
Policies = Mapping[str, ApprovalPolicy]


# --- policies -------------------------------------------------------------------------------


def check_policy(policy: ApprovalPolicy, admins: Admins, *, at: str = "") -> None:
    """Refuse a policy that could not be met, or that does not mean what it says.

    `at` is where it stands in the request. Raises `RuleViolation`.
    """
    if not 1 <= len(policy.of) <= MOST_APPROVERS:
        raise RuleViolation(
            f"name 1 to {MOST_APPROVERS} approvers", code="approvers_count", field=f"{at}of"
        )
    if not 1 <= policy.required <= len(policy.of):
        raise RuleViolation(
            f"required is 1 to {len(policy.of)}, the number of approvers named",
            code="approvals_infeasible",
            field=f"{at}required",
        )
    if not SHORTEST <= policy.lifetime <= LONGEST:
        raise RuleViolation(
            "a request waits for 5 minutes to 7 days",
            code="lifetime_out_of_range",
            field=f"{at}lifetime",
        )
    _check_persons(policy, admins, at)
    others = {name for name, admin in admins.items() if admin.holds_certificate} - set(policy.of)
    if policy.required == len(policy.of) and not others:
        raise RuleViolation(
            "nobody approves their own request, so with all approvers required none of them "
            "could ask for anything, and there is no other admin; require fewer, name one "
            "more, or make another admin first (lamassu admin issue NAME)",
            code="approvals_infeasible",
            field=f"{at}required",
        )


def _check_persons(policy: ApprovalPolicy, admins: Admins, at: str) -> None:
    folded = [name.casefold() for name in policy.of]
    for name in policy.of:
        if folded.count(name.casefold()) > 1:
            raise RuleViolation(
                f"{name[:64]!r} stands there twice; one person is one approver",
                code="approver_twice",
                field=f"{at}of",
            )
        admin = admins.get(name)
        if admin is None or not admin.holds_certificate:
            raise RuleViolation(
                f"no admin {name[:64]!r} holds a valid certificate; names are those that "
                "`lamassu admin list` shows, and `lamassu admin issue NAME` makes one",
                code="approver_unknown",
                field=f"{at}of",
            )


def expiry_of(policies: Policies, now: datetime) -> datetime:
    """When a request ends: by the most impatient of its policies."""
    return now + min(policy.lifetime for policy in policies.values())


# --- requests -------------------------------------------------------------------------------


def check_person(demand: Demand | None, ca_ids: Iterable[str]) -> Demand:
    """A request that needs approvals is a person's, who can be told apart from the approvers.

    Raises `Forbidden` (`approval_required`).
    """
    if demand is None or demand.caller.principal.kind is not PrincipalKind.ADMIN:
        raise Forbidden(
            f"this needs approvals of the CA {', '.join(ca_ids)}, which an admin asks for over "
            "the API",
            code="approval_required",
        )
    return demand


def check_may_ask(
    demand: Demand, policies: Policies, waiting: Sequence[Approval], *, excluded: Collection[str]
) -> None:
    """Refuse to store what nobody could approve, or too much of it.

    Raises `Conflict` (`approvals_infeasible`, `too_many_approvals`), `RuleViolation`.
    """
    if len(canonical_request(demand.request)) > LONGEST_REQUEST:
        raise RuleViolation(
            f"approvers are to read the request, so it has at most {LONGEST_REQUEST} octets",
            code="request_too_long",
        )
    requester = demand.caller.principal.name
    for ca_id, policy in policies.items():
        able = set(policy.of) - {requester, *excluded}
        if len(able) < policy.required:
            raise Conflict(
                f"{ca_id} needs {policy.required} of {', '.join(policy.of)}, of whom only "
                f"{', '.join(sorted(able)) or 'nobody'} may approve this; somebody else has to "
                "ask for it",
                code="approvals_infeasible",
            )
    mine = sum(approval.requester == requester for approval in waiting)
    if mine >= MOST_OPEN_OF_ONE or len(waiting) >= MOST_OPEN:
        raise Conflict(
            f"{len(waiting)} requests wait for approval here, {mine} of them yours; withdraw "
            "some (reject them), or wait until they are decided or expire",
            code="too_many_approvals",
        )


# --- votes ----------------------------------------------------------------------------------


def check_may_vote(
    approval: Approval, verdict: Verdict, voter: Principal, policies: Policies, now: datetime
) -> None:
    """Who asked approves nothing; who asked may withdraw; nobody else but approvers has a say.

    Raises `Forbidden` (`approver_not_a_person`, `own_request`, `approver_concerned`,
    `not_an_approver`), `Conflict` for what is decided already.
    """
    if voter.kind is not PrincipalKind.ADMIN:
        raise Forbidden("approvers are persons", code="approver_not_a_person")
    if voter.name == approval.requester:
        if verdict is Verdict.APPROVE:
            raise Forbidden(
                "you asked for this; somebody else has to approve it", code="own_request"
            )
    elif voter.name in approval.excluded:
        raise Forbidden(
            "this is about yourself; somebody else has to approve it", code="approver_concerned"
        )
    elif not any(voter.name in policy.of for policy in policies.values()):
        names = sorted({name for policy in policies.values() for name in policy.of})
        raise Forbidden(
            f"you are no approver here; they are {', '.join(names) or 'nobody any more'}",
            code="not_an_approver",
        )
    check_open(approval, now)


def check_open(approval: Approval, now: datetime) -> None:
    """Raises `Conflict` (`approval_rejected`, `approval_expired`, `approval_spent`)."""
    status = approval.status_at(now)
    if status is ApprovalStatus.REJECTED:
        by = [vote.approver for vote in approval.votes if vote.verdict is Verdict.REJECT]
        raise Conflict(
            f"the approval {approval.id} was rejected by {', '.join(by)}; ask anew if need be",
            code="approval_rejected",
        )
    if status is ApprovalStatus.EXPIRED:
        raise Conflict(
            f"the approval {approval.id} expired at {approval.expires_at:%Y-%m-%dT%H:%M:%SZ}; "
            "ask anew",
            code="approval_expired",
        )
    if status is ApprovalStatus.SPENT:
        raise Conflict(
            f"the approval {approval.id} is spent: it was used once; ask anew",
            code="approval_spent",
        )


def stands(vote: Vote, admin: AdminStanding | None) -> bool:
    """Whether a vote still counts: its giver is an admin now, and was not revoked since."""
    if admin is None or not admin.holds_certificate:
        return False
    return admin.last_revoked_at is None or admin.last_revoked_at < vote.cast_at


def counted(approval: Approval, policy: ApprovalPolicy, admins: Admins) -> tuple[str, ...]:
    """Whose approvals count for a policy as it is now."""
    return tuple(
        vote.approver
        for vote in approval.votes
        if vote.verdict is Verdict.APPROVE
        and vote.approver in policy.of
        and vote.approver != approval.requester
        and vote.approver not in approval.excluded
        and stands(vote, admins.get(vote.approver))
    )


def enough(approval: Approval, policies: Policies, admins: Admins) -> bool:
    """Whether each policy has its approvals."""
    return all(
        len(counted(approval, policy, admins)) >= policy.required for policy in policies.values()
    )


# --- use ------------------------------------------------------------------------------------


def check_spendable(
    approval: Approval | None,
    demand: Demand,
    *,
    operation: Operation,
    policies: Policies,
    basis: Mapping[str, str],
    admins: Admins,
    now: datetime,
) -> Approval:
    """Judge, at the moment of the deed, an approval that a request says it has.

    Raises `NotFound`, `Forbidden` (`approval_of_other`), `Conflict` (`approval_mismatch`,
    `approval_outdated`, `approval_pending`, and those of `check_open`).
    """
    if approval is None:
        raise NotFound(
            "there is no such approval; leave the header out to ask for one",
            code="approval_not_found",
            field=APPROVAL_HEADER,
        )
    if approval.requester != demand.caller.principal.name:
        raise Forbidden(
            f"the approval {approval.id} was given to {approval.requester}, who alone can use it",
            code="approval_of_other",
            field=APPROVAL_HEADER,
        )
    if approval.digest != demand.digest or approval.operation is not operation:
        raise Conflict(
            f"the approval {approval.id} was given for another request; repeat that one exactly, "
            "or ask for this one without the header",
            code="approval_mismatch",
            field=APPROVAL_HEADER,
        )
    check_open(approval, now)
    _check_basis(approval, {*policies} - {*approval.ca_ids}, basis)
    _check_enough(approval, policies, admins)
    return approval


def _check_basis(approval: Approval, unasked: Collection[str], basis: Mapping[str, str]) -> None:
    """`unasked` are CAs whose approvers became concerned since."""
    changed = sorted(
        name for name in {*approval.basis, *basis} if approval.basis.get(name) != basis.get(name)
    ) + [f"ca/{ca_id}" for ca_id in sorted(unasked)]
    if not changed:
        return
    raise Conflict(
        f"{', '.join(changed)} changed since the approval {approval.id} was asked for; what was "
        "approved is no more what would be done: ask anew",
        code="approval_outdated",
    )


def _check_enough(approval: Approval, policies: Policies, admins: Admins) -> None:
    for ca_id, policy in policies.items():
        have = counted(approval, policy, admins)
        if len(have) >= policy.required:
            continue
        void = [
            vote.approver
            for vote in approval.votes
            if vote.verdict is Verdict.APPROVE and vote.approver not in have
        ]
        text = (
            f"the approval {approval.id} has {len(have)} of {policy.required} approvals "
            f"for the CA {ca_id}"
        )
        asked = set(policy.of) - {*have, approval.requester, *approval.excluded}
        text += f"; still to ask: {', '.join(sorted(asked)) or 'nobody'}"
        if void:
            text += (
                f"; {', '.join(sorted(void))} approved and no longer counts (revoked since, no "
                "valid certificate, or no approver any more)"
            )
        raise Conflict(text, code="approval_pending")


# --- weaker rules ---------------------------------------------------------------------------


def weakened(previous: IssuanceProfile, updated: IssuanceProfile) -> tuple[str, ...]:
    """The fields in which a profile would allow more than it did."""
    flags = (
        "sign_as_ca",
        "honor_key_usage",
        "honor_extended_key_usages",
        "honor_subject",
        "honor_extensions",
    )
    weaker = [name for name in flags if getattr(updated, name) and not getattr(previous, name)]
    weaker += _usages_weakened(previous, updated)
    if _keys_weakened(previous, updated):
        weaker.append("crypto_enforcement")
    if updated.validity != previous.validity and not _shorter(previous, updated):
        weaker.append("validity")
    if updated.path_length != previous.path_length and (
        updated.path_length is None
        or (previous.path_length is not None and updated.path_length > previous.path_length)
    ):
        weaker.append("path_length")
    if previous.ca_id is not None and updated.ca_id != previous.ca_id:
        weaker.append("ca_id")
    if backdating_of(updated) > backdating_of(previous):
        weaker.append("backdating")
    if previous.at_issuer_end is IssuerEnd.REFUSE and updated.at_issuer_end is IssuerEnd.CLAMP:
        weaker.append("at_issuer_end")
    return (*weaker, *_names_weakened(previous, updated), *_extensions_weakened(previous, updated))


def _usages_weakened(previous: IssuanceProfile, updated: IssuanceProfile) -> Iterator[str]:
    """A certificate without the extension is for every use (RFC 5280 §4.2.1.3, §4.2.1.12); that
    of a CA is never without key usages."""
    for name in ("key_usage", "extended_key_usages"):
        before, now = getattr(previous, name), getattr(updated, name)
        always = name == "key_usage" and updated.sign_as_ca
        honoured = getattr(updated, f"honor_{name}")
        if set(now) - set(before) or (before and not now and not always and not honoured):
            yield name


def _names_weakened(previous: IssuanceProfile, updated: IssuanceProfile) -> Iterator[str]:
    """A name made another way counts, and every bound that fell or changed: which of two
    expressions allows more cannot be told."""
    if not previous.honor_subject and any(
        before != after and (before or label == "common_name")
        for label, before, after in (
            (one.name, getattr(previous.subject, one.name), getattr(updated.subject, one.name))
            for one in fields(Subject)
        )
    ):
        yield "subject"
    old, new = previous.subject_rules, updated.subject_rules
    if new.template not in (None, old.template) or (
        old.template is not None and new.template is None
    ):
        yield "subject_rules.template"
    if any(
        before and before != after
        for before, after in zip(astuple(old.patterns), astuple(new.patterns), strict=True)
    ):
        yield "subject_rules.patterns"
    if set(updated.alternative_names.names) - set(previous.alternative_names.names):
        yield "alternative_names.names"
    bounds, bounds_now = previous.alternative_names.allowed, updated.alternative_names.allowed
    if bounds is not None and (
        bounds_now is None
        or any(not any(_no_wider(one, now) for one in bounds) for now in bounds_now)
    ):
        yield "alternative_names.allowed"


def _no_wider(before: AllowedNames, now: AllowedNames) -> bool:
    if before.type is not now.type:
        return False
    return not before.patterns or (bool(now.patterns) and set(now.patterns) <= set(before.patterns))


def _extensions_weakened(previous: IssuanceProfile, updated: IssuanceProfile) -> Iterator[str]:
    old, new = previous.name_constraints, updated.name_constraints
    types = {name.type for name in old.permitted}
    if (
        set(old.excluded) - set(new.excluded)
        or types - {name.type for name in new.permitted}
        or {name for name in new.permitted if name.type in types} - set(old.permitted)
    ):
        yield "name_constraints"
    for name in ("certificate_policies", "custom_extensions"):
        if set(getattr(updated, name)) - set(getattr(previous, name)):
            yield name
    # whoever is sent elsewhere for the status of a certificate never learns that it was revoked
    for name in ("ocsp_servers", "crl_distribution_points"):
        if getattr(updated, name) != getattr(previous, name):
            yield name


def _shorter(previous: IssuanceProfile, updated: IssuanceProfile) -> bool:
    """Whether both are durations, or both ends, and the new one is less."""
    old, new = previous.validity, updated.validity
    if old.duration is not None and new.duration is not None:
        return new.duration <= old.duration
    if old.not_after is not None and new.not_after is not None:
        return new.not_after <= old.not_after
    return False


def _keys_weakened(previous: IssuanceProfile, updated: IssuanceProfile) -> bool:
    old, new = previous.crypto_enforcement, updated.crypto_enforcement
    # those that only an enforcement allows
    if new.enabled and new.allow_ed25519_keys and not (old.enabled and old.allow_ed25519_keys):
        return True
    if new.enabled and new.allow_ml_dsa_keys and not (old.enabled and old.allow_ml_dsa_keys):
        return True
    if not old.enabled:
        return False
    if not new.enabled:
        return True
    return any(
        allowed_now and (not allowed or _more_sizes(sizes, sizes_now))
        for allowed, sizes, allowed_now, sizes_now in (
            (
                old.allow_rsa_keys,
                old.allowed_rsa_key_sizes,
                new.allow_rsa_keys,
                new.allowed_rsa_key_sizes,
            ),
            (
                old.allow_ecdsa_keys,
                old.allowed_ecdsa_key_sizes,
                new.allow_ecdsa_keys,
                new.allowed_ecdsa_key_sizes,
            ),
            (
                old.allow_ml_dsa_keys,
                old.allowed_ml_dsa_key_sizes,
                new.allow_ml_dsa_keys,
                new.allowed_ml_dsa_key_sizes,
            ),
        )
    )


def _more_sizes(before: Sequence[int] | None, now: Sequence[int] | None) -> bool:
    """`None` is any size."""
    if before is None:
        return False
    return now is None or bool(set(now) - set(before))
