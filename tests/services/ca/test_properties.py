"""What holds for every input and every course of events."""

from __future__ import annotations

import random
from contextlib import suppress
from datetime import timedelta

from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from lamassu.kernel.errors import LamassuError, RuleViolation
from lamassu.services.ca.contract import (
    CertificateStatus,
    CertificationAuthority,
    RevocationReason,
)
from lamassu.services.ca.model import StatusChange
from lamassu.services.ca.rules.names import check_alternative_names, name_from_der

from .world import ALICE, YEAR, World, named

REASONS = [
    RevocationReason.CERTIFICATE_HOLD,
    RevocationReason.CERTIFICATE_HOLD,
    RevocationReason.KEY_COMPROMISE,
]
SAN = x509.SubjectAlternativeName(
    [x509.DNSName("a.example"), x509.UniformResourceIdentifier("https://a.example")]
).public_bytes()
SEEDS = [SAN, named("device-1", organization="Acme").public_bytes()]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        position = draw(st.integers(0, len(data) - 1))
        match draw(st.integers(0, 2)):
            case 0:
                data[position] = draw(st.integers(0, 255))
            case 1:
                del data[position]
            case _:
                data[position:position] = draw(st.binary(max_size=4))
    return bytes(data)


@given(mutated() | st.binary(max_size=64))
def test_foreign_names_are_taken_or_refused(data: bytes) -> None:
    with suppress(RuleViolation):
        check_alternative_names(data)
        assert b"lamassu:" not in data.lower()
    with suppress(RuleViolation):
        assert name_from_der(data).public_bytes() == data


class Walk:
    """A hierarchy, random changes of it, and what must hold after each."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.random = random.Random(seed)
        self.tree = {f"{seed}-a": "", f"{seed}-b": f"{seed}-a", f"{seed}-c": f"{seed}-b"}
        self.tree[f"{seed}-d"] = f"{seed}-b"
        self.leaves: dict[str, str] = {}
        self.final: set[str] = set()

    async def begin(self) -> None:
        for depth, (ca_id, parent) in enumerate(self.tree.items()):
            await self.world.authority(
                ca_id, parent=parent, duration=YEAR * 10 - timedelta(days=depth)
            )
            await self.issue(ca_id)

    async def issue(self, ca_id: str) -> None:
        issued = await self.world.issue(ca_id=ca_id)
        self.leaves[issued.serial_number] = ca_id

    async def step(self) -> None:
        """One change, of whatever may be changed; refusals are fine."""
        ca_id = self.random.choice(list(self.tree))
        change = self.random.choice(
            [StatusChange(CertificateStatus.ACTIVE)] * 2
            + [StatusChange(CertificateStatus.REVOKED, self.random.choice(REASONS))]
        )
        with suppress(LamassuError):
            match self.random.randrange(4):
                case 0:
                    await self.world.ca.change_ca_status(ca_id, change, caller=ALICE)
                case 1:
                    serial_number = self.random.choice(list(self.leaves))
                    await self.world.ca.change_certificate_status(
                        serial_number, change, caller=ALICE
                    )
                case 2:
                    active = await self.may_issue(ca_id)
                    await self.issue(ca_id)
                    assert active, "a revoked CA issued"
                case _:
                    await self.world.ca.run_jobs()

    async def may_issue(self, ca_id: str) -> bool:
        path = await self.world.ca.path_of(ca_id)
        return all(not self.is_revoked(member) for member in path)

    @staticmethod
    def is_revoked(authority: CertificationAuthority) -> bool:
        return authority.certificate.stored_status is CertificateStatus.REVOKED

    async def check(self) -> None:
        for ca_id, parent in self.tree.items():
            ca = await self.world.ca.get_ca(ca_id)
            assert self.is_revoked(ca) == (ca.revoked_by is not None)
            if parent and self.is_revoked(await self.world.ca.get_ca(parent)):
                assert self.is_revoked(ca), "a CA outlived the revocation of the one above it"
            if self.is_revoked(ca):
                self.note(ca_id, ca.certificate.revocation_reason)
            assert (ca_id in self.final) <= self.is_revoked(ca), "a final revocation was undone"
        for serial_number, ca_id in self.leaves.items():
            standing = await self.world.ca.standing(ca_id, serial_number)
            if self.is_revoked(await self.world.ca.get_ca(ca_id)):
                assert standing.revoked, "a certificate is good under a revoked CA"
            if standing.revoked:
                self.note(serial_number, standing.reason)
            assert (serial_number in self.final) <= standing.revoked

    def note(self, subject: str, reason: RevocationReason) -> None:
        if reason is not RevocationReason.CERTIFICATE_HOLD:
            self.final.add(subject)
        assert subject not in self.final or reason is not RevocationReason.CERTIFICATE_HOLD


async def test_no_course_of_events_makes_a_revoked_certificate_good(world: World) -> None:
    await world.profile()
    for seed in range(5):
        walk = Walk(world, seed)
        await walk.begin()
        for _ in range(14):
            await walk.step()
            await walk.check()
