"""DMSs of another installation: judged as every DMS is."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from lamassu.kernel.adoption import Outcome, Verdict
from lamassu.services.dms.model.dms import DmsDraft
from lamassu.services.dms.model.settings import AuthMode, DmsSettings
from lamassu.services.dms.usecases.adopt_dms import Promised

from .world import ADMIN, World, settings

BORN = datetime(2024, 2, 3, tzinfo=UTC)


def draft(dms_id: str = "plant", **given: Any) -> DmsDraft:
    return DmsDraft(id=dms_id, name=dms_id, settings=settings(**given), metadata={"a": 1})


async def take(
    world: World, found: DmsDraft, *, dry_run: bool = False, promised: Promised | None = None
) -> Verdict:
    return await world.service.adopt(
        found,
        created_at=BORN,
        caller=ADMIN,
        dry_run=dry_run,
        promised=promised or Promised(),
    )


def with_cas(
    found: DmsDraft, *, enrollment_ca: str = "", managed: tuple[str, ...] = ()
) -> DmsDraft:
    kept: DmsSettings = found.settings
    enrollment = kept.enrollment
    if enrollment_ca:
        enrollment = replace(enrollment, enrollment_ca=enrollment_ca)
    distribution = replace(kept.ca_distribution, managed_cas=managed)
    return replace(
        found, settings=replace(kept, enrollment=enrollment, ca_distribution=distribution)
    )


async def test_a_dms_comes_as_it_was_and_only_once(world: World) -> None:
    first, again = await take(world, draft()), await take(world, draft())

    assert (first, again.outcome) == (Verdict("plant", Outcome.ADOPTED), Outcome.PRESENT)
    dms = await world.service.get("plant")
    assert (dms.created_at, dms.metadata) == (BORN, {"a": 1})


async def test_cas_that_are_gone_are_left_out_but_for_the_one_that_issues(world: World) -> None:
    kept = await take(world, with_cas(draft(), managed=("gone",)))
    refused = await take(world, with_cas(draft("other"), enrollment_ca="gone"))

    assert (kept.outcome, kept.code) == (Outcome.ADOPTED, "cas_dropped")
    assert (await world.service.get("plant")).settings.ca_distribution.managed_cas == ()
    assert (refused.outcome, refused.code) == (Outcome.SKIPPED, "ca_not_found")


async def test_a_dms_that_lets_anybody_in_stays_out_of_production(world: World) -> None:
    found = draft()
    open_ = replace(found.settings.enrollment.authentication, mode=AuthMode.NO_AUTH)
    enrollment = replace(found.settings.enrollment, authentication=open_)

    verdict = await take(
        world, replace(found, settings=replace(found.settings, enrollment=enrollment))
    )

    assert (verdict.outcome, verdict.code) == (Outcome.SKIPPED, "no_auth_in_production")


async def test_a_dry_run_counts_on_what_it_would_have_brought(world: World) -> None:
    found = with_cas(draft(), enrollment_ca="coming", managed=("coming",))

    alone = await take(world, found, dry_run=True)
    after = await take(world, found, dry_run=True, promised=Promised(["coming"]))

    assert (alone.outcome, after.outcome) == (Outcome.SKIPPED, Outcome.ADOPTED)
    assert not [dms for dms in await world.events() if dms[0] == "dms.create"]
