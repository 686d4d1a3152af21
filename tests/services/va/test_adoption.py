"""CRLs of a CA that another system made them for: their numbers go on."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from cryptography import x509

from lamassu.kernel.adoption import Outcome
from lamassu.kernel.identity import system_caller
from lamassu.services.va.model import RoleChange
from lamassu.services.va.usecases.adopt_role import MARGIN, FoundRole

from .conftest import World

CALLER = system_caller("test")


def role(world: World, last_number: int = 41, **change: timedelta) -> FoundRole:
    return FoundRole("root", world.ski, last_number, RoleChange(**change))  # type: ignore[arg-type]


async def number(world: World) -> int:
    crl = await world.served()
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


async def test_numbers_go_on_above_the_last_one(world: World) -> None:
    """Security rule 29: raised, not reused; with room for those that are still being made."""
    found = role(world, validity=timedelta(days=3), refresh_interval=timedelta(days=1))

    first = await world.service.adopt_role(found, caller=CALLER, dry_run=False)
    again = await world.service.adopt_role(found, caller=CALLER, dry_run=False)

    assert (first.outcome, again.outcome) == (Outcome.ADOPTED, Outcome.PRESENT)
    assert await number(world) == 42 + MARGIN
    crl = await world.service.crl(world.ski)
    assert crl.next_update - crl.this_update == timedelta(days=3)


async def test_a_later_run_raises_them_again_and_never_lowers_them(world: World) -> None:
    await world.service.adopt_role(role(world, 10), caller=CALLER, dry_run=False)
    later = await world.service.adopt_role(role(world, 5000), caller=CALLER, dry_run=False)
    earlier = await world.service.adopt_role(role(world, 3), caller=CALLER, dry_run=False)

    assert (later.outcome, earlier.outcome) == (Outcome.UPDATED, Outcome.PRESENT)
    assert await number(world) == 5001 + MARGIN


async def test_impossible_settings_become_the_default(world: World) -> None:
    """The original keeps 0s where a PUT left a value out."""
    found = role(world, validity=timedelta(0), refresh_interval=timedelta(days=9))

    verdict = await world.service.adopt_role(found, caller=CALLER, dry_run=False)

    assert (verdict.outcome, verdict.code) == (Outcome.ADOPTED, "invalid_value")
    state = await world.service.role(world.ski)
    assert state.role.validity == timedelta(weeks=1)


async def test_a_dry_run_makes_no_role(world: World) -> None:
    await world.service.adopt_role(
        replace(role(world), ca_ski="00" * 20), caller=CALLER, dry_run=True
    )

    assert await number(world) == 1
