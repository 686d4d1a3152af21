"""Go on with the CRLs of a CA that another system made them for."""

from __future__ import annotations

from dataclasses import dataclass

from lamassu.kernel.adoption import Outcome, Verdict
from lamassu.kernel.errors import RuleViolation
from lamassu.kernel.identity import Caller
from lamassu.kernel.records import AuditRecord, Event
from lamassu.services.va import rules
from lamassu.services.va.contract import CrlRole
from lamassu.services.va.model import RoleChange
from lamassu.services.va.ports import VaStorage
from lamassu.services.va.usecases.role_document import role_document

MARGIN = 1000
"""CRL numbers that are left to a source which goes on making CRLs while it is taken over."""

_AS_BY_DEFAULT = RoleChange()


@dataclass(frozen=True, slots=True)
class FoundRole:
    """A CA's CRLs as the other system makes them; `last_number` is that of its newest, 0 if it
    made none."""

    ca_id: str
    ca_ski: str
    last_number: int
    change: RoleChange = _AS_BY_DEFAULT


async def adopt_role(
    found: FoundRole, *, caller: Caller, storage: VaStorage, dry_run: bool
) -> Verdict:
    """Give the CA its role, before the CA itself is there, and let its numbers go on above the
    other system's: none comes twice (RFC 5280 §5.2.3, security rule 29).

    A role that is here keeps its settings and at most gets higher numbers.
    """
    label = found.ca_id
    code = text = ""
    role = rules.new_role(found.ca_id, found.ca_ski)
    try:
        role = rules.changed_role(role, found.change)
    except RuleViolation as error:
        code, text = error.code, f"its CRLs are made as by default: {error.text}"
    if dry_run:
        return Verdict(label, Outcome.ADOPTED, code, text)
    following = found.last_number + 1 + MARGIN if found.last_number else 1
    async with storage.unit() as unit:
        present = await unit.lock_role(found.ca_ski)
        if present is None:
            await unit.add_role(role)
        raised = await unit.skip_numbers(found.ca_ski, following)
        outcome = _outcome(present, raised=raised)
        if outcome is not Outcome.PRESENT:
            subject, data = f"crl/{found.ca_ski}", role_document(present or role)
            detail = {**data, "last_number": found.last_number, "next_number": following}
            kind = "va.role.crl.init" if present is None else "va.role.update"
            unit.emit(Event(kind, subject, (present or role).version, data, caller))
            unit.audit(AuditRecord(kind, subject, caller, detail=detail))
    return Verdict(label, outcome, code, text)


def _outcome(present: CrlRole | None, *, raised: bool) -> Outcome:
    if present is None:
        return Outcome.ADOPTED
    return Outcome.UPDATED if raised else Outcome.PRESENT
