"""A CA's next generation: made whole or not at all, and what was cut off goes on."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509

from lamassu.kernel.errors import Conflict, LamassuError, RuleViolation, Unavailable
from lamassu.kernel.identity import Caller
from lamassu.kernel.listing import Filter, ListQuery, Operator
from lamassu.kernel.x509.names import Subject
from lamassu.kernel.x509.serials import serial_hex
from lamassu.services.ca.contract import (
    CertificateStatus,
    CertificationAuthority,
    IssuanceProfile,
    RevocationReason,
    Validity,
)
from lamassu.services.ca.model import CaRequest, KeyRequest, RekeyRequest, StatusChange
from lamassu.services.kms.contract import KeyPurpose
from lamassu.services.kms.usecases.describe_key import renamed

from .world import ALICE, DEVICE_PROFILE, YEAR, World


@pytest.fixture
async def root(world: World) -> CertificationAuthority:
    await world.profile()
    return await world.root()


def loaded(ca: CertificationAuthority) -> x509.Certificate:
    return x509.load_der_x509_certificate(ca.certificate.der)


async def keys_named(world: World, name: str) -> list[str]:
    page = await world.kms.list_keys(ListQuery(filters=[Filter("name", Operator.EQ, name)]))
    return [key.key_id for key in page.items]


async def rekeyed(world: World, ca_id: str = "root") -> CertificationAuthority:
    return await world.ca.rekey_ca(ca_id, RekeyRequest(), caller=ALICE)


async def test_the_next_generation_takes_over_what_names_the_ca(
    world: World, root: CertificationAuthority
) -> None:
    before = await world.issue(ca_id=root.id)

    following = await rekeyed(world, root.id)
    after = await world.issue(ca_id=root.id)

    assert (following.id, following.first_generation) == (f"{root.id}.2", root.id)
    assert (before.issuer_ca_id, after.issuer_ca_id) == (root.id, following.id)
    loaded_after = x509.load_der_x509_certificate(after.der)
    loaded_after.verify_directly_issued_by(loaded(following))
    line = await world.ca.generations_of(root.id)
    assert [one.id for one in line] == [root.id, following.id]
    assert await world.ca.generations_of(following.id) == line
    assert [one.id for one in await world.ca.path_of(root.id)] == [following.id]


async def test_each_key_certifies_the_other_for_as_long_as_both_last(
    world: World, root: CertificationAuthority
) -> None:
    world.clock.advance(timedelta(days=30))
    following = await rekeyed(world, root.id)

    across = [
        x509.load_der_x509_certificate(der)
        for der in await world.ca.cross_certificates_of(following.id)
    ]

    old, new = loaded(root), loaded(following)
    [new_with_old] = [one for one in across if one.public_key() == new.public_key()]
    [old_with_new] = [one for one in across if one.public_key() == old.public_key()]
    new_with_old.verify_directly_issued_by(old)
    old_with_new.verify_directly_issued_by(new)
    for one in across:
        assert one.subject == one.issuer == old.subject
        assert one.not_valid_after_utc == min(old.not_valid_after_utc, new.not_valid_after_utc)
    assert old_with_new.not_valid_before_utc == old.not_valid_before_utc


async def test_a_dry_run_changes_nothing(world: World, root: CertificationAuthority) -> None:
    footprint = await world.count()

    plan = await world.ca.plan_rekey(root.id, RekeyRequest("software", "ECDSA", 384))

    assert (plan.new_id, plan.spec.size, plan.signed_by) == ("root.2", 384, "root.2")
    assert await world.count() == footprint


async def test_a_rekey_that_was_cut_off_uses_the_key_that_it_made(
    world: World, root: CertificationAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(*_: object, **__: object) -> None:
        raise Unavailable("the database is gone", code="database_down")

    with monkeypatch.context() as fault:
        fault.setattr(world.ca._rekeying, "_store_all", lost)
        with pytest.raises(Unavailable):
            await rekeyed(world, root.id)
    assert [one.id for one in await world.ca.generations_of(root.id)] == [root.id]
    [made] = await keys_named(world, "ca/root.2/rekey")

    following = await rekeyed(world, root.id)

    assert await keys_named(world, "ca/root.2/rekey") == [made] == [following.key_id]


async def test_of_two_at_once_one_wins_and_the_other_leaves_nothing(
    world: World, root: CertificationAuthority
) -> None:
    outcomes = await asyncio.gather(
        rekeyed(world, root.id), rekeyed(world, root.id), return_exceptions=True
    )

    won = [one for one in outcomes if isinstance(one, CertificationAuthority)]
    lost = [one for one in outcomes if isinstance(one, LamassuError)]
    assert (len(won), len(lost)) in ((1, 1), (2, 0))  # one after the other is fine, too
    assert all(isinstance(one, Conflict) for one in lost)
    line = await world.ca.generations_of(root.id)
    assert len(line) == 1 + len(won)
    assert line[-1].successor_id is None
    key = await world.kms.get(line[-1].key_id, purpose=KeyPurpose.CA)
    assert key.bindings


async def test_issuance_that_races_a_rekey_is_signed_by_the_issuer_it_names(
    world: World, root: CertificationAuthority
) -> None:
    async def issue_some() -> list[tuple[str, bytes]]:
        issued = []
        for _ in range(12):
            certificate = await world.issue(ca_id=root.id)
            issued.append((certificate.issuer_ca_id, certificate.der))
        return issued

    several, following = await asyncio.gather(issue_some(), rekeyed(world, root.id))
    several += await issue_some()

    issuers = {root.id: loaded(root), following.id: loaded(following)}
    for ca_id, der in several:
        x509.load_der_x509_certificate(der).verify_directly_issued_by(issuers[ca_id])
    assert {ca_id for ca_id, _ in several[12:]} == {following.id}


async def test_a_profile_for_this_ca_holds_for_all_its_generations(
    world: World, root: CertificationAuthority
) -> None:
    bound = IssuanceProfile(
        id="bound", name="Bound", ca_id=root.id, validity=DEVICE_PROFILE.validity,
        honor_subject=True, key_usage=("DigitalSignature",), extended_key_usages=("ClientAuth",),
    )  # fmt: skip
    await world.ca.create_profile(bound, caller=ALICE)
    await rekeyed(world, root.id)

    issued = await world.issue(ca_id=root.id, profile_id="bound")

    assert issued.issuer_ca_id == f"{root.id}.2"


async def test_who_loses_a_race_deletes_no_key_that_the_winner_uses(
    world: World, root: CertificationAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second comes while the first has its key, and is refused before that key is held."""
    certify = world.ca._rekeying._certify
    first_has_its_key, second_was_refused = asyncio.Event(), asyncio.Event()

    async def slowly(*arguments: Any) -> Any:
        first_has_its_key.set()
        await asyncio.sleep(0.05)
        return await certify(*arguments)

    hold = world.ca._holds.hold

    async def late(authority: CertificationAuthority, *, caller: Caller) -> None:
        await second_was_refused.wait()
        await hold(authority, caller=caller)

    monkeypatch.setattr(world.ca._rekeying, "_certify", slowly)
    monkeypatch.setattr(world.ca._holds, "hold", late)
    first = asyncio.create_task(rekeyed(world, root.id))
    await first_has_its_key.wait()
    with pytest.raises(Conflict):
        await rekeyed(world, root.id)
    second_was_refused.set()
    following = await first

    assert (await world.kms.get(following.key_id, purpose=KeyPurpose.CA)).bindings
    assert (await world.issue(ca_id=root.id)).issuer_ca_id == following.id


async def test_no_key_that_waits_for_another_ca_becomes_a_generations(
    world: World, root: CertificationAuthority
) -> None:
    waiting = CaRequest(
        id="root.2", subject=Subject(common_name="Not the root"), key=KeyRequest("ECDSA", 256),
        validity=Validity(duration=YEAR), profile_id="device",
    )  # fmt: skip
    awaited = await world.ca.request_certificate(waiting, "offline", caller=ALICE)
    name = "ca/root.3/rekey"
    await world.kms.describe_named(awaited.key_id, "kms.name.update", renamed(name), caller=ALICE)

    following = await rekeyed(world, root.id)

    assert following.id == "root.3"
    assert following.key_id != awaited.key_id
    await world.ca.withdraw_awaited("root.2", caller=ALICE)
    assert (await world.issue(ca_id=root.id)).issuer_ca_id == following.id


@pytest.mark.parametrize("revoked", ["root", "root.2"])
async def test_a_stolen_key_is_vouched_for_by_no_other_generation(
    world: World, root: CertificationAuthority, revoked: str
) -> None:
    following = await rekeyed(world, root.id)
    stolen, other = (root, following) if revoked == "root" else (following, root)
    held = StatusChange(CertificateStatus.REVOKED, RevocationReason.CERTIFICATE_HOLD)
    across = await world.ca.cross_certificates_of(root.id)
    assert len(across) == 2

    await world.ca.change_ca_status(revoked, held, caller=ALICE)
    assert await world.ca.cross_certificates_of(root.id) == []
    await world.ca.change_ca_status(revoked, StatusChange(CertificateStatus.ACTIVE), caller=ALICE)
    assert await world.ca.cross_certificates_of(root.id) == across
    stolen_key = StatusChange(CertificateStatus.REVOKED, RevocationReason.KEY_COMPROMISE)
    world.va.told.clear()
    await world.ca.change_ca_status(revoked, stolen_key, caller=ALICE)

    assert await world.ca.cross_certificates_of(root.id) == []
    [vouching] = [
        one
        for one in map(x509.load_der_x509_certificate, across)
        if one.public_key() == loaded(stolen).public_key()
    ]
    standing = await world.ca.standing(other.id, serial_hex(vouching.serial_number))
    assert (standing.revoked, standing.reason) == (True, RevocationReason.KEY_COMPROMISE)
    assert other.id in world.va.told
    listed = {one.serial_number for one in await world.ca.revoked_under(other.id)}
    assert serial_hex(vouching.serial_number) in listed


async def test_a_request_is_answered_once_whichever_generation_answered_it(
    world: World, root: CertificationAuthority
) -> None:
    before = await world.issue(ca_id=root.id, request_key="first")
    following = await rekeyed(world, root.id)
    after = await world.issue(ca_id=root.id, request_key="second")
    assert after.issuer_ca_id == following.id

    assert await world.issue(ca_id=root.id, request_key="first") == before
    assert await world.issue(ca_id=root.id, request_key="second") == after


@pytest.mark.parametrize("named", ["root", "root.2"])
async def test_a_changed_profile_holds_whichever_generation_is_named(
    world: World, root: CertificationAuthority, named: str
) -> None:
    await rekeyed(world, root.id)
    strict = IssuanceProfile(
        id="strict", name="Strict", ca_id=root.id, validity=Validity(duration=timedelta(hours=1)),
        honor_subject=True, key_usage=("DigitalSignature",), extended_key_usages=("ClientAuth",),
    )  # fmt: skip
    await world.ca.create_profile(strict, caller=ALICE)

    changed = await world.ca.change_ca_profile(named, "strict", caller=ALICE)

    assert (changed.id, changed.profile_id) == (named, "strict")
    for ca_id in ("root", "root.2"):
        issued = await world.issue(ca_id=ca_id)
        assert issued.not_after - issued.not_before <= timedelta(hours=2)


async def test_a_revoked_ca_gets_no_new_key(world: World, root: CertificationAuthority) -> None:
    revoked = StatusChange(CertificateStatus.REVOKED, RevocationReason.CA_COMPROMISE)
    await world.ca.change_ca_status(root.id, revoked, caller=ALICE)
    footprint = await world.count()

    with pytest.raises(RuleViolation):
        await rekeyed(world, root.id)

    assert await world.count() == footprint
