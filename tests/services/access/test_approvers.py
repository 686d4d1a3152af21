"""Commands of the host obey the approvers too (security rule 7)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from lamassu.kernel.errors import Conflict, Deferred, Forbidden, LamassuError, Unavailable
from lamassu.kernel.identity import Caller, Principal, PrincipalKind
from lamassu.kernel.x509.names import Subject
from lamassu.platform.database import Database
from lamassu.services.access.contract import (
    Credential,
    CredentialKind,
    Grounds,
    HeldCertificate,
    IssuedCredential,
    Mode,
    RootKeyExport,
    RootKeyProof,
)
from lamassu.services.access.usecases import AccessService
from lamassu.services.ca.contract import (
    ApprovalPolicy,
    ApprovalStatus,
    Demand,
    IssuanceProfile,
    Validity,
    Verdict,
)
from lamassu.services.ca.model import CaRequest, KeyRequest
from lamassu.services.ca.storage import CaStorage
from lamassu.services.ca.usecases import CaService
from lamassu.services.kms.usecases import KmsService

from .conftest import HOST, Audited, MovedClock

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
PASSPHRASE = b"twelve words that nobody knows"


@pytest.fixture
def database_services() -> Sequence[str]:
    return ["kms", "access", "ca"]


def person(name: str) -> Caller:
    return Caller(Principal(PrincipalKind.ADMIN, name))


@dataclass
class Host:
    """An installation in which alice, bob and carol guard a CA, two of three."""

    access: AccessService
    ca: CaService
    clock: MovedClock
    issued: dict[str, IssuedCredential]

    async def issue(self, name: str, grounds: Grounds) -> IssuedCredential:
        return await self.access.issue(
            CredentialKind.ADMIN, name, lifetime=DAY, caller=HOST, grounds=grounds
        )

    async def asked(self, name: str, by: str = "alice") -> Demand:
        """A demand with an approval that nobody has approved yet."""
        request = {"command": "admin issue", "name": name}
        with pytest.raises(Deferred) as waiting:
            await self.issue(name, Grounds(Demand(person(by), request)))
        return Demand(person(by), request, str(waiting.value.document["id"]))

    async def approve(self, demand: Demand, *names: str) -> None:
        for name in names:
            await self.ca.approvals.vote(
                demand.approval_id, Verdict.APPROVE, comment="", caller=person(name)
            )

    async def names(self) -> list[str]:
        """Everybody who has an unexpired certificate, once for each."""
        return sorted(one.name for one in await self.access.list(CredentialKind.ADMIN))


@pytest.fixture
async def host(
    access: AccessService, kms: KmsService, database: Database, clock: MovedClock
) -> Host:
    ca = CaService(storage=CaStorage(database), keys=kms, clock=clock, people=access)
    issued = {
        name: await access.issue(CredentialKind.ADMIN, name, lifetime=DAY, caller=HOST)
        for name in ("alice", "bob", "carol", "dave")
    }
    await ca.create_profile(IssuanceProfile(id="device"), caller=HOST)
    await ca.create_ca(
        CaRequest(
            profile_id="device",
            id="root",
            subject=Subject(common_name="Root"),
            key=KeyRequest("ECDSA", 256),
            validity=Validity(duration=1000 * DAY),
            approvals=ApprovalPolicy(2, ("alice", "bob", "carol"), 2 * DAY),
        ),
        caller=HOST,
    )
    access.approvals = ca.approvals
    return Host(access, ca, clock, issued)


def held(issued: IssuedCredential) -> HeldCertificate:
    return HeldCertificate(issued.credential.der, issued.key_pem)


async def refused(work: Awaitable[object]) -> str:
    with pytest.raises(LamassuError) as refusal:
        await work
    return refusal.value.code


# --- by approval ----------------------------------------------------------------------------


async def test_no_certificate_is_made_in_an_approvers_name_by_the_host_alone(
    host: Host, audited: Audited
) -> None:
    before, names = await audited(), await host.names()

    assert await refused(host.issue("bob", Grounds())) == "approval_required"
    assert (await host.issue("erin", Grounds())).credential.name == "erin"

    assert len(await audited()) == len(before) + 1
    assert await host.names() == sorted([*names, "erin"])


async def test_the_others_make_an_approver_again(host: Host, audited: Audited) -> None:
    demand = await host.asked("bob", by="dave")
    await host.approve(demand, "alice")
    assert await refused(host.issue("bob", Grounds(demand))) == "approval_pending"
    # bob himself, should he still have a certificate, has no say in it
    assert await refused(host.approve(demand, "bob")) == "approver_concerned"
    await host.approve(demand, "carol")

    made = await host.issue("bob", Grounds(demand))

    assert made.credential.name == "bob"
    action, body = (await audited())[-1]
    assert action == "access.issue"
    assert json.loads(body)["detail"]["grounds"] == f"approval {demand.approval_id}"
    approval = await host.ca.approvals.get(demand.approval_id)
    assert approval.status is ApprovalStatus.SPENT
    assert await refused(host.issue("bob", Grounds(demand))) == "approval_spent"


async def test_an_approval_makes_one_certificate_also_for_two_at_once(host: Host) -> None:
    demand = await host.asked("bob", by="dave")
    await host.approve(demand, "alice", "carol")

    outcomes = await asyncio.gather(
        *(host.issue("bob", Grounds(demand)) for _ in range(4)), return_exceptions=True
    )

    made = [one for one in outcomes if isinstance(one, IssuedCredential)]
    lost = [one for one in outcomes if isinstance(one, Conflict)]
    assert (len(made), len(lost)) == (1, 3)
    assert (await host.names()).count("bob") == 2


async def test_an_approval_serves_once_also_if_the_ca_was_not_told(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    demand = await host.asked("bob", by="dave")
    await host.approve(demand, "alice", "carol")

    async def gone(*_: object) -> None:
        raise Unavailable("the database went away")

    with monkeypatch.context() as patched:
        patched.setattr(host.ca.approvals, "settle", gone)
        assert (await host.issue("bob", Grounds(demand))).key_pem
    approval = await host.ca.approvals.get(demand.approval_id)
    assert approval.status is ApprovalStatus.APPROVED

    assert await refused(host.issue("bob", Grounds(demand))) == "approval_spent"

    approval = await host.ca.approvals.get(demand.approval_id)
    assert approval.status is ApprovalStatus.SPENT
    assert (await host.names()).count("bob") == 2


async def test_an_approval_for_one_name_makes_no_other(host: Host) -> None:
    demand = await host.asked("bob", by="dave")
    await host.approve(demand, "alice", "carol")
    other = Demand(demand.caller, {"command": "admin issue", "name": "carol"}, demand.approval_id)

    assert await refused(host.issue("carol", Grounds(other))) == "approval_mismatch"


async def test_a_revoked_approvers_word_counts_no_more(host: Host) -> None:
    demand = await host.asked("bob", by="dave")
    await host.approve(demand, "alice", "carol")
    host.clock.move(timedelta(minutes=1))
    await host.access.revoke("carol", caller=HOST)

    assert await refused(host.issue("bob", Grounds(demand))) == "approval_pending"
    # nor when she is an admin again, by what the remaining two approved
    again = await host.asked("carol", by="dave")
    await host.approve(again, "alice", "bob")
    host.clock.move(timedelta(minutes=1))
    await host.issue("carol", Grounds(again))
    assert await refused(host.issue("bob", Grounds(demand))) == "approval_pending"
    await host.approve(demand, "carol")
    assert (await host.issue("bob", Grounds(demand))).credential.name == "bob"


# --- by holding the one before ----------------------------------------------------------------


async def test_an_approver_renews_alone_by_what_they_hold(host: Host, audited: Audited) -> None:
    bob = host.issued["bob"]

    made = await host.issue("bob", Grounds(renews=held(bob)))

    assert made.credential.name == "bob"
    assert json.loads((await audited())[-1][1])["detail"]["grounds"] == (
        f"renews {bob.credential.serial_number}"
    )
    host.clock.move(30 * DAY)  # it ended 29 days ago
    assert (await host.issue("bob", Grounds(renews=held(bob)))).credential.name == "bob"
    host.clock.move(2 * DAY)
    assert await refused(host.issue("bob", Grounds(renews=held(bob)))) == "renewal_refused"


async def test_nobody_renews_as_somebody_else(host: Host) -> None:
    bob, alice = host.issued["bob"], host.issued["alice"]
    service = await host.access.issue(
        CredentialKind.SERVICE, "bob", lifetime=DAY, caller=HOST, hosts=["edge.test"]
    )
    forged = Credential(
        **{
            name: getattr(bob.credential, name)
            for name in ("serial_number", "kind", "name", "not_before", "not_after")
        },
        der=bob.credential.der[:-1] + bytes([bob.credential.der[-1] ^ 1]),
    )
    before = await host.names()

    for mine in (
        held(alice),
        held(service),
        HeldCertificate(bob.credential.der, alice.key_pem),
        HeldCertificate(bob.credential.der, b"no key"),
        HeldCertificate(forged.der, bob.key_pem),
    ):
        assert await refused(host.issue("bob", Grounds(renews=mine))) == "renewal_refused"
    assert await host.names() == before


async def test_who_was_revoked_renews_nothing(host: Host) -> None:
    first = host.issued["bob"]
    host.clock.move(20 * HOUR)
    second = await host.issue("bob", Grounds(renews=held(first)))
    host.clock.move(10 * HOUR)  # the first has expired, and is not touched by the revocation
    await host.access.revoke("bob", caller=HOST)

    for certificate in (first, second):
        grounds = Grounds(renews=held(certificate))
        assert await refused(host.issue("bob", grounds)) == "renewal_refused"


# --- by the internal root ---------------------------------------------------------------------


async def test_the_root_key_is_the_way_back_in(
    host: Host, audited: Audited, tmp_path: Path
) -> None:
    host.clock.move(365 * DAY)  # nobody is left who could approve, or renew
    place = tmp_path / "root.pem"
    here = Grounds(root_key=RootKeyProof(b"", b""))
    assert await refused(host.issue("bob", here)) == "root_key_refused"  # it never left
    await host.access.establish(
        caller=HOST, export_root_key_to=RootKeyExport(str(place), PASSPHRASE)
    )
    other = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASSPHRASE)
    )
    before = len(await audited())
    for proof in (
        RootKeyProof(other, PASSPHRASE),
        RootKeyProof(place.read_bytes(), b"another passphrase"),
        RootKeyProof(b"", PASSPHRASE),
    ):
        refusal = await refused(host.issue("bob", Grounds(root_key=proof)))
        assert refusal == "root_key_refused"
    assert len(await audited()) == before

    proof = RootKeyProof(place.read_bytes(), PASSPHRASE)
    assert (await host.issue("bob", Grounds(root_key=proof))).credential.name == "bob"

    told = (await audited())[before:]
    assert [action for action, _ in told] == ["access.recover", "access.recover", "access.issue"]
    assert PASSPHRASE.decode() not in "".join(body for _, body in told)
    # the policy is what it was
    assert (await host.ca.get_ca("root")).approvals is not None


# --- the mode -----------------------------------------------------------------------------------


async def test_the_mode_is_lowered_by_those_who_guard_cas(host: Host, audited: Audited) -> None:
    await host.access.settle_mode(Mode.PRODUCTION, caller=HOST)
    request = {"command": "config lower-mode"}

    async def lower(grounds: Grounds) -> None:
        await host.access.lower_mode(caller=HOST, grounds=grounds)

    assert await refused(lower(Grounds())) == "approval_required"
    # what one holds renews oneself and nothing else
    mine = Grounds(renews=held(host.issued["bob"]))
    assert await refused(lower(mine)) == "approval_required"
    with pytest.raises(Deferred) as waiting:
        await lower(Grounds(Demand(person("alice"), request)))
    demand = Demand(person("alice"), request, str(waiting.value.document["id"]))
    await host.approve(demand, "bob")
    assert await refused(lower(Grounds(demand))) == "approval_pending"
    assert [action for action, _ in await audited()].count("access.mode") == 1  # the rise
    await host.approve(demand, "carol")

    await lower(Grounds(demand))

    action, body = (await audited())[-1]
    detail = json.loads(body)["detail"]
    assert (action, detail["to"]) == ("access.mode", "development")
    assert detail["grounds"] == f"approval {demand.approval_id}"
    await host.access.settle_mode(Mode.PRODUCTION, caller=HOST)
    assert await refused(lower(Grounds(demand))) == "approval_spent"


async def test_without_approvers_the_host_is_as_it_was(
    start: Callable[[], AccessService], access: AccessService
) -> None:
    access.approvals = None
    await access.settle_mode(Mode.PRODUCTION, caller=HOST)
    await access.lower_mode(caller=HOST)
    made = await access.issue(CredentialKind.ADMIN, "alice", lifetime=DAY, caller=HOST)
    assert made.credential.name == "alice"


async def test_who_is_no_admin_asks_for_nothing(host: Host) -> None:
    request = {"command": "admin issue", "name": "bob"}
    for kind in (PrincipalKind.SYSTEM, PrincipalKind.SERVICE, PrincipalKind.DEVICE):
        demand = Demand(Caller(Principal(kind, "dave")), request)
        with pytest.raises(Forbidden):
            await host.issue("bob", Grounds(demand))
