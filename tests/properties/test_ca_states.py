"""Random courses of a hierarchy's life, with a model beside it that says what must hold.

The service runs on SQLite through its facade, is restarted in between, its clock is moved. After
each step everything that a status query is told is compared with the model.
"""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lamassu.kernel.errors import LamassuError
from lamassu.kernel.x509.names import Subject
from lamassu.platform.database import Database, DatabaseSettings, Dialect, RecordWriter
from lamassu.services.ca.contract import (
    CertificateStatus,
    IssueRequest,
    RevocationReason,
    Validity,
)
from lamassu.services.ca.model import CaRequest, KeyRequest, StatusChange
from lamassu.services.ca.storage import CaStorage
from lamassu.services.ca.usecases import CaService
from lamassu.services.kms.engines.software import SoftwareEngine
from lamassu.services.kms.storage import KmsStorage
from lamassu.services.kms.usecases import KmsService
from tests.services.ca.world import ALICE, DEVICE_PROFILE, MovedClock, csr

T = TypeVar("T")
ACTIVE, REVOKED = CertificateStatus.ACTIVE, CertificateStatus.REVOKED
HOLD = RevocationReason.CERTIFICATE_HOLD
REASONS = st.sampled_from([HOLD, RevocationReason.KEY_COMPROMISE, RevocationReason.SUPERSEDED])
MOST_CAS = 6
FOLDER = Path(tempfile.mkdtemp(prefix="lamassu-states-"))


@dataclass
class Node:
    """A CA as the model has it. `held` and `ended` are its own; what is above counts too."""

    id: str
    parent: str | None
    end: datetime
    held: bool = False
    ended: bool = False
    leaves: dict[str, str] = field(default_factory=dict)  # serial number: good, held, ended


class CaStates(RuleBasedStateMachine):
    """One course of events."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = MovedClock()
        self.nodes: dict[str, Node] = {}
        self.deleted: dict[str, list[str]] = {}
        self.count = 0
        self.folder = Path(tempfile.mkdtemp(dir=FOLDER))
        self.start()
        self.do(self.ca.create_profile(DEVICE_PROFILE, caller=ALICE))

    def do(self, work: object) -> T:
        return self.runner.run(work)  # type: ignore[arg-type, no-any-return]

    def attempt(self, work: object) -> bool:
        """Whether it was done, and not refused."""
        try:
            self.do(work)
        except LamassuError as error:
            if error.code in ("error", "unavailable"):
                raise  # no refusal, but a fault
            return False
        return True

    def start(self) -> None:
        path = DatabaseSettings(Dialect.SQLITE, path=self.folder / "states.db", durable=False)
        self.database = self.do(
            Database.open(
                path, services=("ca", "kms"), writer=RecordWriter(b"k" * 32), clock=self.clock
            )
        )
        self.kms = KmsService(
            engines=[_engine()],
            default_engine_id="software",
            storage=KmsStorage(self.database),
            clock=self.clock,
        )
        self.ca = CaService(storage=CaStorage(self.database), keys=self.kms, clock=self.clock)

    def teardown(self) -> None:
        self.do(self.database.close())
        self.runner.close()

    # --- what the model says ------------------------------------------------------------------

    def path(self, node: Node) -> list[Node]:
        found = [node]
        while found[-1].parent is not None:
            found.append(self.nodes[found[-1].parent])
        return found

    def ended(self, node: Node) -> bool:
        return any(one.ended for one in self.path(node))

    def stopped(self, node: Node) -> bool:
        return any(one.ended or one.held for one in self.path(node))

    def expired(self, node: Node) -> bool:
        return self.clock.now() > node.end

    def pick(self, number: int) -> Node:
        return list(self.nodes.values())[number % len(self.nodes)]

    # --- steps --------------------------------------------------------------------------------

    @precondition(lambda self: len(self.nodes) < MOST_CAS)
    @rule(number=st.integers(0, 20), below=st.booleans(), days=st.integers(30, 900))
    def create(self, number: int, below: bool, days: int) -> None:
        self.count += 1
        parent = self.pick(number) if below and self.nodes else None
        name = f"ca-{self.count}"
        request = CaRequest(
            id=name,
            subject=Subject(common_name=name),
            key=KeyRequest("ECDSA", 256),
            validity=Validity(duration=timedelta(days=days)),
            parent_id=parent.id if parent else "",
            profile_id="device",
        )
        if self.attempt(self.ca.create_ca(request, caller=ALICE)):
            made = self.do(self.ca.get_ca(name))
            if parent is not None:
                assert not self.stopped(parent), "a CA came under one that stands revoked"
                assert made.certificate.not_after <= parent.end
            self.nodes[name] = Node(name, parent.id if parent else None, made.certificate.not_after)
        elif parent is None:
            raise AssertionError("a root was refused")

    @precondition(lambda self: self.nodes)
    @rule(number=st.integers(0, 20))
    def issue(self, number: int) -> None:
        node = self.pick(number)
        self.count += 1
        request = IssueRequest(ca_id=node.id, csr_der=csr(f"d-{self.count}"), caller=ALICE)
        try:
            issued = self.do(self.ca.issue(request)).certificate
        except LamassuError:
            return
        assert not self.stopped(node), "a revoked CA issued"
        assert not self.expired(node), "an expired CA issued"
        assert issued.not_after <= node.end
        node.leaves[issued.serial_number] = "good"

    @precondition(lambda self: any(node.leaves for node in self.nodes.values()))
    @rule(number=st.integers(0, 50), reason=REASONS, release=st.booleans())
    def change_certificate(self, number: int, reason: RevocationReason, release: bool) -> None:
        leaves = [(n, serial) for n in self.nodes.values() for serial in n.leaves]
        node, serial = leaves[number % len(leaves)]
        was = node.leaves[serial]
        change = StatusChange(ACTIVE) if release else StatusChange(REVOKED, reason)
        if self.attempt(self.ca.change_certificate_status(serial, change, caller=ALICE)):
            assert was != "ended", "a final revocation was changed"
            node.leaves[serial] = "good" if release else "held" if reason is HOLD else "ended"

    @precondition(lambda self: self.nodes)
    @rule(number=st.integers(0, 20), reason=REASONS, release=st.booleans())
    def change_ca(self, number: int, reason: RevocationReason, release: bool) -> None:
        node = self.pick(number)
        change = StatusChange(ACTIVE) if release else StatusChange(REVOKED, reason)
        above = self.path(node)[1:]
        if not self.attempt(self.ca.change_ca_status(node.id, change, caller=ALICE)):
            return
        assert not self.ended(node), "a revoked CA changed its status"
        if release:
            assert not any(one.held or one.ended for one in above) or not node.held
            node.held = False
        elif reason is HOLD:
            # what a hold above brought about already is no hold of its own
            node.held = node.held or not any(one.held for one in above)
        else:
            node.ended = True

    @precondition(lambda self: self.nodes)
    @rule(number=st.integers(0, 20))
    def reissue(self, number: int) -> None:
        node = self.pick(number)
        work = self.ca.reissue_ca(node.id, profile=None, profile_id="", caller=ALICE)
        if self.attempt(work):
            assert not self.stopped(node), "a revoked CA was re-issued"
            assert not self.expired(node), "an expired CA was re-issued"
            end = self.do(self.ca.get_ca(node.id)).certificate.not_after
            assert end >= node.end
            if node.parent is not None:
                assert end <= self.nodes[node.parent].end, "a CA outlives its issuer"
            node.end = end

    @precondition(lambda self: self.nodes)
    @rule(number=st.integers(0, 20))
    def delete(self, number: int) -> None:
        node = self.pick(number)
        self.do(self.ca.run_jobs())
        if not self.attempt(self.ca.delete_ca(node.id, cascade=False, caller=ALICE)):
            return
        assert self.ended(node) or self.expired(node), "a CA that works was deleted"
        for child in [one for one in self.nodes.values() if one.parent == node.id]:
            assert self.ended(child) or self.expired(child), "a CA lost the one above it"
            child.ended = child.ended or self.ended(node)
            child.parent = None
        self.deleted[node.id] = list(node.leaves)
        del self.nodes[node.id]

    @rule(days=st.integers(1, 200))
    def wait(self, days: int) -> None:
        self.clock.advance(timedelta(days=days))

    @rule()
    def work(self) -> None:
        self.do(self.ca.run_jobs())
        self.do(self.ca.expiry.run())

    @rule()
    def restart(self) -> None:
        self.do(self.database.close())
        self.start()

    # --- what must hold -----------------------------------------------------------------------

    @invariant()
    def status_queries_agree_with_the_model(self) -> None:
        for node in self.nodes.values():
            authority = self.do(self.ca.get_ca(node.id))
            stands = authority.certificate.stored_status is REVOKED
            assert stands == self.stopped(node), f"{node.id} is not what the model says"
            assert stands == (authority.revoked_by is not None)
            if self.ended(node):
                assert authority.certificate.revocation_reason is not HOLD
            for serial, state in node.leaves.items():
                standing = self.do(self.ca.standing(node.id, serial))
                assert standing.known
                assert standing.revoked == (self.stopped(node) or state != "good"), serial
                if self.ended(node) or state == "ended":
                    assert standing.reason is not HOLD

    @invariant()
    def what_was_deleted_is_never_good(self) -> None:
        for ca_id, leaves in self.deleted.items():
            for serial in leaves:
                assert not self.do(self.ca.standing(ca_id, serial)).known


_OPENED: list[SoftwareEngine] = []


def _engine() -> SoftwareEngine:
    """Opened once: the key derivation is slow by design."""
    if not _OPENED:
        _OPENED.append(SoftwareEngine.open("software", FOLDER / "keys", b"a passphrase for tests"))
    return _OPENED[0]


CaStates.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestCaStates = CaStates.TestCase
