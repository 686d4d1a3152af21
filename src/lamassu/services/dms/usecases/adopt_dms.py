"""Take over a DMS of another installation, by the judgement that every DMS meets."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime

from lamassu.kernel.adoption import Outcome, Verdict
from lamassu.kernel.errors import Conflict, RuleViolation
from lamassu.kernel.identity import Caller
from lamassu.services.dms.model.dms import Dms, DmsDraft
from lamassu.services.dms.model.documents import dms_document
from lamassu.services.dms.model.settings import DmsSettings, EstAuthentication
from lamassu.services.dms.ports import DmsStore
from lamassu.services.dms.usecases import journal
from lamassu.services.dms.usecases.judge_settings import SettingsJudge


@dataclass(frozen=True, slots=True)
class Promised:
    """Ids of CAs and profiles that a dry run would have brought before its DMSs."""

    cas: Collection[str] = ()
    profiles: Collection[str] = ()


async def adopt_dms(
    store: DmsStore,
    judge: SettingsJudge,
    draft: DmsDraft,
    *,
    created_at: datetime,
    caller: Caller,
    dry_run: bool,
    promised: Promised,
) -> Verdict:
    """A DMS that is here already stays as it is. Raises `Unavailable`.

    The original passes over CAs of a DMS that are gone, except the one that issues: they are
    left out, and said so.
    """
    if await store.find(draft.id) is not None:
        return Verdict(draft.id, Outcome.PRESENT)
    settings, gone = await _without_gone(draft.settings, judge, promised.cas)
    try:
        judged = await judge.judge(
            replace(draft, settings=settings),
            promised_cas=promised.cas,
            promised_profiles=promised.profiles,
        )
    except RuleViolation as error:
        text = f"{error.text} ({error.field})" if error.field else error.text
        return Verdict(draft.id, Outcome.SKIPPED, error.code, text)
    remark = ("cas_dropped", f"names CAs that are not here: {', '.join(gone)}") if gone else ()
    if dry_run:
        return Verdict(draft.id, Outcome.ADOPTED, *remark)
    dms = Dms(
        id=draft.id,
        name=draft.name,
        created_at=created_at,
        settings=judged,
        metadata=draft.metadata or {},
    )
    try:
        async with store.unit() as unit:
            await unit.insert(dms)
            journal.tell(unit, journal.CREATE, dms, dms_document(dms), caller=caller)
    except Conflict:
        return Verdict(draft.id, Outcome.PRESENT)
    return Verdict(draft.id, Outcome.ADOPTED, *remark)


async def _without_gone(
    settings: DmsSettings, judge: SettingsJudge, promised: Collection[str]
) -> tuple[DmsSettings, list[str]]:
    enrollment, reenrollment = settings.enrollment, settings.reenrollment
    distribution = settings.ca_distribution
    named = {
        *enrollment.authentication.client_certificate.validation_cas,
        *reenrollment.authentication.client_certificate.validation_cas,
        *reenrollment.additional_validation_cas,
        *distribution.managed_cas,
    }
    gone = [one for one in sorted(named) if one not in promised and not await judge.is_known(one)]

    def left(ca_ids: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(one for one in ca_ids if one not in gone)

    def trusting(authentication: EstAuthentication) -> EstAuthentication:
        certificate = authentication.client_certificate
        validation_cas = left(certificate.validation_cas)
        return replace(
            authentication,
            client_certificate=replace(certificate, validation_cas=validation_cas),
        )

    return replace(
        settings,
        enrollment=replace(enrollment, authentication=trusting(enrollment.authentication)),
        reenrollment=replace(
            reenrollment,
            authentication=trusting(reenrollment.authentication),
            additional_validation_cas=left(reenrollment.additional_validation_cas),
        ),
        ca_distribution=replace(distribution, managed_cas=left(distribution.managed_cas)),
    ), gone
