"""Hold a request to the policies that it touches, and spend the approval that it has."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from lamassu.kernel.errors import Forbidden
from lamassu.services.ca.contract import (
    AdminStanding,
    Approval,
    ApprovalPolicy,
    CertificationAuthority,
    Demand,
    IssuanceProfile,
    Operation,
    profile_document,
)
from lamassu.services.ca.contract.approvals import canonical_request
from lamassu.services.ca.ports import CaStore, CaTransaction
from lamassu.services.ca.rules.approvals import check_person, check_spendable
from lamassu.services.ca.usecases.approvals.spend import spend


@dataclass(frozen=True, slots=True)
class Need:
    """Approvals that a request lacks."""

    operation: Operation
    ca_ids: tuple[str, ...]
    demand: Demand
    basis: Mapping[str, str]
    excluded: tuple[str, ...]


class ApprovalMissing(Forbidden):
    """The request needs approvals and names none; `ApprovalDesk.or_ask` asks for them."""

    default_code = "approval_required"

    def __init__(self, need: Need) -> None:
        super().__init__(f"this needs approvals of the CA {', '.join(need.ca_ids)}")
        self.need = need


class Clearance:
    """A request with what is known of the admins when it came."""

    def __init__(
        self,
        store: CaStore,
        demand: Demand | None,
        admins: Mapping[str, AdminStanding],
        now: datetime,
    ) -> None:
        self._store = store
        self._demand = demand
        self._admins = admins
        self._now = now

    async def judge(
        self,
        operation: Operation,
        policies: Mapping[str, ApprovalPolicy],
        *,
        basis: Mapping[str, str],
        excluded: Sequence[str] = (),
    ) -> str | None:
        """The id of the approval that is sufficient as things are; `None` where none is needed.

        Raises `ApprovalMissing`, and as `rules.check_spendable`.
        """
        demand = self._needing(operation, policies, basis, excluded)
        if demand is None:
            return None
        approval = await self._store.find_approval(demand.approval_id)
        return self._checked(approval, demand, operation, policies, basis).id

    async def admit(
        self,
        transaction: CaTransaction,
        operation: Operation,
        policies: Mapping[str, ApprovalPolicy],
        *,
        basis: Mapping[str, str] | None = None,
    ) -> None:
        """Let the transaction go on, in which the approval is spent, if one is needed.

        Call it under the CAs' locks, after all other judgement. Raises as `judge`.
        """
        basis = basis or {}
        demand = self._needing(operation, policies, basis, ())
        if demand is None:
            return
        approval = await transaction.lock_approval(demand.approval_id)
        found = self._checked(approval, demand, operation, policies, basis)
        await spend(transaction, found, caller=demand.caller, now=self._now)

    def _needing(
        self,
        operation: Operation,
        policies: Mapping[str, ApprovalPolicy],
        basis: Mapping[str, str],
        excluded: Sequence[str],
    ) -> Demand | None:
        if not policies and not (self._demand and self._demand.approval_id):
            return None
        demand = check_person(self._demand, policies)
        if not demand.approval_id:
            raise ApprovalMissing(
                Need(operation, tuple(policies), demand, dict(basis), tuple(excluded))
            )
        return demand

    def _checked(
        self,
        approval: Approval | None,
        demand: Demand,
        operation: Operation,
        policies: Mapping[str, ApprovalPolicy],
        basis: Mapping[str, str],
    ) -> Approval:
        return check_spendable(
            approval,
            demand,
            operation=operation,
            policies=policies,
            basis=basis,
            admins=self._admins,
            now=self._now,
        )


def policies_of(authorities: Sequence[CertificationAuthority]) -> Mapping[str, ApprovalPolicy]:
    """The policies that these CAs have."""
    return {one.id: one.approvals for one in authorities if one.approvals is not None}


def basis_of(profile: IssuanceProfile) -> Mapping[str, str]:
    """A stored profile as an approval is bound to it: by content, as ids and versions can come
    again with another one."""
    content = hashlib.sha256(canonical_request(profile_document(profile)))
    return {f"profile/{profile.id}": content.hexdigest()}
