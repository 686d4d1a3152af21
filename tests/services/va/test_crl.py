"""CRLs: what they list, how they are numbered, and when they are made."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from lamassu.kernel.errors import NotFound, RuleViolation, Unavailable
from lamassu.kernel.identity import system_caller
from lamassu.kernel.x509.crls import CrlEntry, build_crl, signed
from lamassu.kernel.x509.keys import key_facts
from lamassu.kernel.x509.signing import sign, signature_algorithm
from lamassu.services.ca.contract import RevocationReason
from lamassu.services.va.model import RoleChange
from tests.services.va.conftest import World
from tests.support.judges import lint_crl, openssl_crl, openssl_verify
from tests.support.pki import NOW, make, spki_of

TWO_SECONDS = timedelta(seconds=2)
CALLER = system_caller("test")


async def number(world: World) -> int:
    extensions = (await world.served()).extensions
    return extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


async def test_a_new_ca_has_a_role_and_an_empty_crl(world: World) -> None:
    await world.service.ensure_role("root", world.ski)
    await world.service.ensure_role("root", world.ski)

    crl = await world.service.crl(world.ski)
    assert crl == await world.service.crl_of_ca("root")
    assert crl.number == 1
    assert crl.this_update == NOW
    assert crl.next_update == NOW + timedelta(weeks=1)
    assert await world.listed() == set()


async def test_the_judges_find_nothing_wrong_with_a_crl(world: World) -> None:
    revoked, held, plain, good = (world.issue(f"device-{n}") for n in range(4))
    world.revoke(revoked)
    world.revoke(held, RevocationReason.CERTIFICATE_HOLD)
    world.revoke(plain, RevocationReason.UNSPECIFIED)

    assert await world.service.revocation_changed("root", wait=TWO_SECONDS)

    der = (await world.service.crl(world.ski)).der
    assert lint_crl(der) == []
    verified, text = openssl_crl(der, issuer=world.root.der)
    assert verified, text
    assert "Version 2 (0x1)" in text
    assert "Key Compromise" in text
    assert "Certificate Hold" in text
    at = int(NOW.timestamp()) + 60
    for certificate, fine in ((good, True), (revoked, False), (held, False), (plain, False)):
        accepted, said = openssl_verify(
            certificate.der, anchors=[world.root.der], crls=[der], at=at
        )
        assert accepted is fine, said
    listed = await world.served()
    entry = listed.get_revoked_certificate_by_serial_number(plain.certificate.serial_number)
    assert entry is not None
    assert len(entry.extensions) == 0  # unspecified is left out (RFC 5280 §5.3.1)


async def test_a_release_takes_a_certificate_off_the_crl(world: World) -> None:
    held = world.issue()
    world.revoke(held, RevocationReason.CERTIFICATE_HOLD)
    await world.service.revocation_changed("root", wait=TWO_SECONDS)
    assert await world.listed() == {held.certificate.serial_number}

    world.release(held)
    await world.service.revocation_changed("root", wait=TWO_SECONDS)
    assert await world.listed() == set()
    assert await number(world) == 2


async def test_many_revocations_at_once_share_crls_and_all_are_listed(world: World) -> None:
    await world.service.ensure_role("root", world.ski)
    devices = [world.issue(f"device-{n}") for n in range(30)]
    read_before = world.authorities.lists_read

    async def revoke(position: int) -> bool:
        world.revoke(devices[position])
        return await world.service.revocation_changed("root", wait=timedelta(seconds=10))

    assert all(await asyncio.gather(*(revoke(n) for n in range(30))))

    assert await world.listed() == {d.certificate.serial_number for d in devices}
    assert world.authorities.lists_read - read_before <= 3
    assert lint_crl((await world.service.crl(world.ski)).der) == []


async def test_a_crl_begun_before_a_revocation_does_not_count_for_it(world: World) -> None:
    await world.service.ensure_role("root", world.ski)
    gate = world.authorities.gate = asyncio.Event()
    early = asyncio.create_task(world.service.revocation_changed("root", wait=TWO_SECONDS))
    while world.authorities.lists_read < 2:
        await asyncio.sleep(0.001)
    late = world.issue()
    world.revoke(late)  # after the list was read, before it is signed
    second = asyncio.create_task(world.service.revocation_changed("root", wait=TWO_SECONDS))
    await asyncio.sleep(0.01)
    gate.set()

    assert await early
    assert await second
    assert await world.listed() == {late.certificate.serial_number}


async def test_two_processes_never_give_a_number_twice(world: World) -> None:
    await world.service.ensure_role("root", world.ski)
    other = world.another_process()
    services = [world.service, other] * 4

    await asyncio.gather(*(s.revocation_changed("root", wait=TWO_SECONDS) for s in services))
    revoked = world.issue()
    world.revoke(revoked)
    await asyncio.gather(*(s.revocation_changed("root", wait=TWO_SECONDS) for s in services))

    assert await world.listed() == {revoked.certificate.serial_number}
    assert (await world.service.crl(world.ski)).number == (await other.crl(world.ski)).number
    await other.close()


async def test_a_slower_process_does_not_hide_a_newer_crl(world: World) -> None:
    await world.service.ensure_role("root", world.ski)
    gate = world.keys.gate = asyncio.Event()
    slow = asyncio.create_task(world.service.revocation_changed("root", wait=TWO_SECONDS))
    while world.authorities.lists_read < 2:
        await asyncio.sleep(0.001)
    world.keys.gate = None
    revoked = world.issue()
    world.revoke(revoked)
    other = world.another_process()
    assert await other.revocation_changed("root", wait=TWO_SECONDS)

    gate.set()
    await slow

    assert await number(world) == 3
    assert await world.listed() == {revoked.certificate.serial_number}
    await other.close()


async def test_a_revocation_that_the_engine_holds_up_is_pending_and_comes_later(
    world: World,
) -> None:
    await world.service.ensure_role("root", world.ski)
    revoked = world.issue()
    world.revoke(revoked)
    gate = world.keys.gate = asyncio.Event()

    assert not await world.service.revocation_changed("root", wait=timedelta(milliseconds=20))
    assert await world.listed() == set()

    gate.set()
    while not await world.listed():
        await asyncio.sleep(0.005)
    assert await world.listed() == {revoked.certificate.serial_number}


async def test_a_crl_is_tried_until_it_succeeds(world: World) -> None:
    await world.service.ensure_role("root", world.ski)
    revoked = world.issue()
    world.revoke(revoked)
    world.keys.failure = Unavailable("the engine is away")
    assert not await world.service.revocation_changed("root", wait=timedelta(milliseconds=50))
    while len(world.pauses) < 10:
        await asyncio.sleep(0.002)

    world.keys.failure = None
    while not await world.listed():
        await asyncio.sleep(0.005)
    assert world.pauses[:3] == [0.5, 1.0, 2.0]
    assert max(world.pauses) <= 60.0


async def test_a_role_that_does_not_regenerate_waits_for_its_interval(world: World) -> None:
    await world.service.ensure_role("root", world.ski)
    change = RoleChange(regenerate_on_revoke=False, refresh_interval=timedelta(hours=6))
    await world.service.change_role(world.ski, change, caller=CALLER)
    world.revoke(world.issue())

    assert await world.service.revocation_changed("root", wait=TWO_SECONDS)
    assert await number(world) == 1
    world.clock.forward(hours=5)
    assert await world.service.refresh_due(world.clock.now()) == 0
    world.clock.forward(hours=1)
    assert await world.service.refresh_due(world.clock.now()) == 1
    assert len(await world.listed()) == 1
    assert await world.service.refresh_due(world.clock.now()) == 0


async def test_a_ca_just_made_has_its_crl_when_somebody_asks(world: World) -> None:
    assert (await world.service.crl(world.ski)).number == 1
    late = make("Late", ca=True)
    world.add_ca("late", late)
    assert (await world.service.crl_of_ca("late")).number == 1


async def test_refresh_makes_missing_roles(world: World) -> None:
    assert await world.service.refresh_due(world.clock.now()) == 1
    assert await number(world) == 1


async def test_refresh_comes_before_a_crl_ends_though_the_interval_is_as_long(
    world: World,
) -> None:
    await world.service.ensure_role("root", world.ski)
    change = RoleChange(refresh_interval=timedelta(days=1), validity=timedelta(days=1))
    await world.service.change_role(world.ski, change, caller=CALLER)
    await world.service.revocation_changed("root", wait=TWO_SECONDS)

    world.clock.forward(hours=23, minutes=1)
    assert await world.service.refresh_due(world.clock.now()) == 1


async def test_an_ended_crl_is_made_anew_or_not_served(world: World) -> None:
    await world.service.ensure_role("root", world.ski)
    world.clock.forward(days=8)
    assert (await world.service.crl(world.ski)).number == 2

    world.clock.forward(days=8)
    del world.authorities.cas["root"]
    with pytest.raises(Unavailable):
        await world.service.crl(world.ski)
    with pytest.raises(NotFound):
        await world.service.crl("00" * 32)


async def test_only_a_few_old_crls_are_kept(world: World) -> None:
    for _ in range(8):
        await world.service.revocation_changed("root", wait=TWO_SECONDS)

    from sqlalchemy import select

    from lamassu.services.va.storage import crls

    async with world.database.reading("va") as connection:
        numbers = (await connection.execute(select(crls.c.number))).scalars().all()
    assert sorted(numbers) == [4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    "change",
    [
        RoleChange(validity=timedelta(0)),
        RoleChange(validity=timedelta(days=-1)),
        RoleChange(refresh_interval=timedelta(0)),
        RoleChange(refresh_interval=timedelta(days=8)),
        RoleChange(validity=timedelta(days=367)),
        RoleChange(subject_key_id_signer="ab" * 32),
    ],
)
async def test_senseless_roles_are_refused_and_nothing_changes(
    world: World, change: RoleChange
) -> None:
    await world.service.ensure_role("root", world.ski)
    before = await world.service.role(world.ski)

    with pytest.raises(RuleViolation) as caught:
        await world.service.change_role(world.ski, change, caller=CALLER)

    assert caught.value.field in {"validity", "refresh_interval", "subject_key_id_signer"}
    assert await world.service.role(world.ski) == before


async def test_a_ca_without_a_key_here_has_nothing_to_show(world: World) -> None:
    from dataclasses import replace

    foreign = make("Foreign", ca=True)
    world.add_ca("foreign", foreign)
    world.authorities.cas["foreign"] = replace(world.authorities.cas["foreign"], key_id="")

    assert await world.service.revocation_changed("foreign", wait=TWO_SECONDS)
    with pytest.raises(NotFound):
        await world.service.crl_of_ca("foreign")


async def test_a_role_passes_to_the_next_ca_with_its_key_and_numbers_go_on(
    world: World,
) -> None:
    await world.service.ensure_role("root", world.ski)
    world.add_ca("heir", world.root)
    await world.service.ensure_role("heir", world.ski)
    assert (await world.service.role(world.ski)).role.ca_id == "root"

    del world.authorities.cas["root"]
    await world.service.ensure_role("heir", world.ski)
    assert await world.service.revocation_changed("heir", wait=TWO_SECONDS)
    assert (await world.service.crl_of_ca("heir")).number == 2


@pytest.mark.parametrize("key_kind", ["rsa", "p384", "p521"])
def test_every_kind_of_ca_key_signs_crls_that_openssl_verifies(key_kind: str) -> None:
    key = (
        rsa.generate_private_key(65537, 2048)
        if key_kind == "rsa"
        else ec.generate_private_key(ec.SECP384R1() if key_kind == "p384" else ec.SECP521R1())
    )
    ca = make("Root", ca=True, key=key)  # type: ignore[arg-type]
    algorithm = signature_algorithm(key_facts(spki_of(key)))  # type: ignore[arg-type]
    tbs = build_crl(
        issuer_der=ca.name.public_bytes(),
        issuer_key_id=bytes.fromhex(ca.subject_key_id),
        algorithm=algorithm,
        number=1 << 70,
        this_update=NOW,
        next_update=NOW.replace(year=2051),
        entries=[CrlEntry(1 << 127, NOW, 1), CrlEntry(5, NOW.replace(year=2050), 0)],
    )
    der = signed(tbs, algorithm=algorithm, signature=sign(key, tbs))

    assert openssl_crl(der, issuer=ca.der)[0]
    assert lint_crl(der) == []
