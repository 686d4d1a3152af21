"""What a DMS refuses is kept with the CA: of devices that it let in, and of nobody else."""

from __future__ import annotations

from datetime import timedelta

from lamassu.services.dms.contract import CsrPayload
from lamassu.services.dms.model.settings import RegistrationMode
from tests.services.dms.refusals import refused
from tests.services.dms.world import World, csr
from tests.support.pki import ec_key


async def test_a_refused_enrolment_is_kept_with_who_asked_for_what(world: World) -> None:
    await world.dms(mode=RegistrationMode.PRE_REGISTRATION)
    key = ec_key()
    der = csr(key, "dev-1")

    told = await refused(world.enroll(world.bootstrap(), key=key, payload=CsrPayload(der)))

    [kept] = world.authorities.refused
    assert (kept.csr_der, kept.ca_id, kept.owner) == (der, "fleet-ca", "fleet")
    assert (kept.code, kept.reason) == (told.code, told.text)
    assert kept.caller.principal.id == "device/factory"


async def test_a_refused_renewal_is_kept_with_its_device(world: World) -> None:
    await world.dms()
    identity = await world.enroll(world.bootstrap())

    told = await refused(world.reenroll(identity, "another-device"))

    [kept] = world.authorities.refused
    assert (kept.code, kept.device_id) == (told.code, "dev-1")
    assert kept.caller.principal.id == "device/dev-1"


async def test_of_strangers_nothing_is_kept(world: World) -> None:
    """They could fill the database: no certificate, one of nobody's, an expired one."""
    await world.dms()
    expired = world.bootstrap(
        not_before=world.clock.now() - timedelta(days=9),
        not_after=world.clock.now() - timedelta(days=1),
    )
    for peer in (None, world.bootstrap(ca="stranger-ca", stored=False), expired):
        await refused(world.enroll(peer))
        await refused(world.reenroll(peer))

    assert world.authorities.refused == []


async def test_a_refusal_is_told_also_when_it_cannot_be_kept(world: World) -> None:
    await world.dms(mode=RegistrationMode.PRE_REGISTRATION)
    peer = world.bootstrap()

    async def fail(refused: object) -> None:
        from lamassu.kernel.errors import Unavailable

        raise Unavailable("the database is away")

    world.authorities.keep_refused = fail  # type: ignore[method-assign]

    assert (await refused(world.enroll(peer))).code == "device_not_preregistered"
