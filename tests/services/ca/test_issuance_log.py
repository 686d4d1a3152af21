"""The issuance log: what it holds, what it proves, and what it gives away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, text, update

from lamassu.kernel.errors import (
    Conflict,
    Forbidden,
    LamassuError,
    NotFound,
    RuleViolation,
    WrongState,
)
from lamassu.kernel.merkle import Tile, leaf_hash, verify_consistency, verify_inclusion
from lamassu.kernel.signed_note import (
    SignatureType,
    VerifierKey,
    parse_checkpoint,
    verify_note,
)
from lamassu.platform.messaging import EventBus
from lamassu.services.ca.contract import CertificateStatus, RevocationReason
from lamassu.services.ca.model import StatusChange
from lamassu.services.ca.rules.issuance_log import parse_entry
from lamassu.services.ca.storage import CaStorage
from lamassu.services.ca.storage.issuance_log import IssuanceLogStorage
from lamassu.services.ca.storage.log_tables import log_entries, log_head, log_tiles
from lamassu.services.ca.storage.tables import cas, certificates
from lamassu.services.ca.usecases.issuance_log import IssuanceLog, Stale, Submission
from lamassu.services.ca.usecases.issuance_log.audit import LogAudit, LogReport
from lamassu.services.kms.contract import Engine, KeyAlgorithm
from lamassu.wiring.log_audit import DatabaseRows, DiskLedger, FolderTiles, OwnTiles

from .world import ALICE, World

REVOKE = StatusChange(CertificateStatus.REVOKED, RevocationReason.KEY_COMPROMISE)
HOLD = StatusChange(CertificateStatus.REVOKED, RevocationReason.CERTIFICATE_HOLD)
RELEASE = StatusChange(CertificateStatus.ACTIVE)


@dataclass
class Logged:
    """A world with its log, and what an operator does with it."""

    world: World
    log: IssuanceLog
    bus: EventBus
    folder: Path
    count: int = 0

    def of(self, **more: Any) -> IssuanceLog:
        """The log as another process has it."""
        return IssuanceLog(
            store=IssuanceLogStorage(self.world.database),
            keys=self.world.kms,
            clock=self.world.clock,
            host="pki.test",
            **more,
        )

    async def settled(self) -> None:
        await self.bus.drained()

    async def entries(self) -> list[dict[str, Any]]:
        await self.settled()
        size = (await self.log.status()).size
        stored = await IssuanceLogStorage(self.world.database).entries(0, size)
        return [json.loads(each) for each in stored]

    async def told_of(self, serial_number: str) -> list[tuple[str, str]]:
        return [
            (entry["type"], entry.get("status", ""))
            for entry in await self.entries()
            if entry["subject"] == f"certificate/{serial_number}"
        ]

    async def audit(self, source: Any = None, key: VerifierKey | None = None) -> LogReport:
        self.count += 1
        ledger = DiskLedger(self.folder / f"ledger-{self.count}.db")
        try:
            audit = LogAudit(source or OwnTiles(self.log), ledger, key=key or await self.log.key())
            return await audit.run(DatabaseRows(self.world.database))
        finally:
            ledger.close()

    async def findings(self) -> dict[str, str]:
        return {one.subject: one.text for one in (await self.audit()).findings}

    async def sql(self, statement: Any) -> None:
        """What somebody who owns the database does, past the program."""
        async with self.world.database.unit("ca") as unit:
            await unit.connection.execute(statement)

    async def row(self, serial_number: str) -> dict[str, Any]:
        query = select(certificates).where(certificates.c.serial_number == serial_number)
        async with self.world.database.reading("ca") as connection:
            return dict((await connection.execute(query)).one()._mapping)


async def grown(log: IssuanceLog) -> None:
    """As the relay has it grow."""
    while await log.advance():
        pass


@pytest.fixture
async def logged(world: World, tmp_path: Path) -> Logged:
    made = Logged(world, None, EventBus(world.database), tmp_path)  # type: ignore[arg-type]
    made.log = made.of()
    made.bus.follow("issuance-log", "ca", made.log.advance)
    await world.hierarchy()
    return made


async def test_all_that_happens_to_certificates_is_logged_in_order(logged: Logged) -> None:
    world = logged.world
    first, second = await world.issue("a"), await world.issue("b")
    await world.ca.change_certificate_status(first.serial_number, REVOKE, caller=ALICE)
    await world.ca.change_certificate_status(second.serial_number, HOLD, caller=ALICE)
    await world.ca.change_certificate_status(second.serial_number, RELEASE, caller=ALICE)
    await world.ca.change_ca_status("other", HOLD, caller=ALICE)

    entries = await logged.entries()

    assert await logged.told_of(first.serial_number) == [
        ("issued", "ACTIVE"),
        ("status", "REVOKED"),
    ]
    assert [status for _, status in await logged.told_of(second.serial_number)] == [
        "ACTIVE",
        "REVOKED",
        "ACTIVE",
    ]
    other = await world.ca.get_ca("other")
    assert [kind for kind, _ in await logged.told_of(other.certificate.serial_number)] == [
        "issued",
        "status",
    ]
    named = [entry["authority"] for entry in entries if entry.get("authority")]
    assert named[:4] == ["root", "between", "issuing", "other"]
    assert [entry["type"] for entry in entries].count("opened") == 1
    assert (await logged.audit()).findings == []


async def test_a_cascade_is_covered_by_its_cas_entry_until_each_has_its_own(
    logged: Logged,
) -> None:
    certificate = await logged.world.issue("one", ca_id="issuing")
    await logged.world.ca.change_ca_status("issuing", REVOKE, caller=ALICE)
    store = CaStorage(logged.world.database)
    async with store.unit() as transaction:  # one batch, and nobody was told yet
        job = await transaction.lock_pending_job()
        assert job is not None
        now = logged.world.clock.now()
        await transaction.mark_revoked(
            job, "issuing", CertificateStatus.ACTIVE, after="", now=now, limit=10
        )
    assert await logged.told_of(certificate.serial_number) == [("issued", "ACTIVE")]
    assert (await logged.audit()).findings == []

    await logged.world.ca.run_jobs()

    assert await logged.told_of(certificate.serial_number) == [
        ("issued", "ACTIVE"),
        ("status", "REVOKED"),
    ]
    assert (await logged.audit()).findings == []


async def test_an_entry_holds_hashes_and_no_name(logged: Logged) -> None:
    certificate = await logged.world.issue("a-secret-name")

    told = json.dumps(await logged.entries())

    assert "a-secret-name" not in told
    assert certificate.serial_number in told


async def test_a_change_of_metadata_is_no_entry(logged: Logged) -> None:
    certificate = await logged.world.issue()
    before = len(await logged.entries())

    await logged.world.ca.patch_certificate_metadata(certificate.serial_number, [], caller=ALICE)

    assert len(await logged.entries()) == before


async def test_checkpoint_and_proofs_hold_for_whoever_has_the_key(logged: Logged) -> None:
    certificate = await logged.world.issue("one")
    await logged.settled()
    early = parse_checkpoint(await logged.log.checkpoint())
    for number in range(5):
        await logged.world.issue(f"d{number}")
    await logged.settled()

    late = parse_checkpoint(await logged.log.checkpoint())
    verify_note(late, await logged.log.key())
    found = await logged.log.proofs.inclusion(certificate.serial_number)
    for entry in found.entries:
        verify_inclusion(
            leaf_hash(entry.body), entry.position, found.size, entry.proof, late.head.root
        )
        assert parse_entry(entry.body).serial_number == certificate.serial_number
    _, proof = await logged.log.proofs.consistency(early.head.size, None)
    verify_consistency(early.head.size, early.head.root, late.head.size, late.head.root, proof)
    with pytest.raises(NotFound):
        await logged.log.proofs.inclusion("00")


async def test_a_certificate_that_was_not_stored_is_not_logged(logged: Logged) -> None:
    await logged.world.issue(request_key="k")
    before = len(await logged.entries())

    await logged.world.issue(request_key="k")

    assert len(await logged.entries()) == before


async def test_many_grow_the_log_and_its_audit_stays_clean(logged: Logged) -> None:
    shared = (await logged.world.ca.get_ca("issuing")).certificate.der
    async with logged.world.database.unit("ca") as unit:
        from lamassu.kernel.records import LogEntry

        for number in range(600):
            content: dict[str, str | int] = {
                "ca": "-",
                "sha256": f"{number:064x}",
                "status": "ACTIVE",
                "v": 1,
            }
            unit.log(LogEntry("issued", f"certificate/{number:x}", content))
    assert shared
    await logged.settled()

    report = await logged.audit()

    assert report.size > 600
    assert len(report.findings) == 600
    assert all("its row was removed" in one.text for one in report.findings)


# --- attacks ----------------------------------------------------------------------------------


async def test_a_changed_row_is_named(logged: Logged) -> None:
    a, b, c = [await logged.world.issue(name) for name in "abc"]
    await logged.world.ca.change_certificate_status(a.serial_number, REVOKE, caller=ALICE)
    await logged.settled()

    def of(serial_number: str) -> Any:
        return update(certificates).where(certificates.c.serial_number == serial_number)

    await logged.sql(
        of(a.serial_number).values(
            status="ACTIVE", revocation_time=None, revocation_reason="Unspecified"
        )
    )
    await logged.sql(of(b.serial_number).values(der=c.der))
    await logged.sql(of(c.serial_number).values(not_after=c.not_after + timedelta(days=900)))

    found = await logged.findings()

    assert "the row says ACTIVE, the log REVOKED" in found[f"certificate {a.serial_number}"]
    assert "another certificate" in found[f"certificate {b.serial_number}"]
    assert "column not_after" in found[f"certificate {c.serial_number}"]
    assert len(found) == 3


async def test_a_revocation_behind_the_logs_back_and_a_later_one_are_named(logged: Logged) -> None:
    a, b = [await logged.world.issue(name) for name in "ab"]
    await logged.world.ca.change_certificate_status(b.serial_number, REVOKE, caller=ALICE)
    await logged.settled()
    at = logged.world.clock.now() + timedelta(days=3)
    for serial_number in (a.serial_number, b.serial_number):
        await logged.sql(
            update(certificates)
            .where(certificates.c.serial_number == serial_number)
            .values(status="REVOKED", revocation_time=at, revocation_reason="Superseded")
        )

    found = await logged.findings()

    assert set(found) == {f"certificate {each.serial_number}" for each in (a, b)}


async def test_a_removed_row_is_named(logged: Logged) -> None:
    certificate = await logged.world.issue()
    await logged.settled()

    await logged.sql(
        delete(certificates).where(certificates.c.serial_number == certificate.serial_number)
    )

    assert "was removed" in (await logged.findings())[f"certificate {certificate.serial_number}"]


async def test_a_certificate_issued_behind_the_logs_back_is_named(logged: Logged) -> None:
    certificate = await logged.world.issue()
    await logged.settled()
    forged = await logged.row(certificate.serial_number)

    await logged.sql(
        insert(certificates).values({**forged, "serial_number": "abad1dea", "request_key": None})
    )

    assert "behind the log's back" in (await logged.findings())["certificate abad1dea"]


async def test_a_ca_whose_certificate_was_exchanged_is_named(logged: Logged) -> None:
    certificate = await logged.world.issue()
    await logged.settled()

    await logged.sql(
        update(cas).where(cas.c.id == "issuing").values(serial_number=certificate.serial_number)
    )

    assert certificate.serial_number in (await logged.findings())["CA issuing"]


async def test_an_altered_entry_is_named(logged: Logged) -> None:
    certificate = await logged.world.issue()
    entries = await logged.entries()
    at = next(
        number
        for number, entry in enumerate(entries)
        if entry["subject"].endswith(certificate.serial_number)
    )
    altered = {**entries[at], "sha256": "0" * 64}
    body = json.dumps(altered, sort_keys=True, separators=(",", ":"))

    await logged.sql(update(log_entries).where(log_entries.c.position == at).values(body=body))

    found = await logged.findings()
    assert "not what the tree was made of" in found[f"entry {at}"]
    assert "do not make the signed root" in found["checkpoint"]


async def test_who_alters_entry_tiles_and_head_still_has_no_key(logged: Logged) -> None:
    certificate = await logged.world.issue()
    entries = await logged.entries()
    at = len(entries) - 1
    altered = json.dumps(
        {**entries[at], "sha256": "0" * 64}, sort_keys=True, separators=(",", ":")
    ).encode()
    hashes = list((await IssuanceLogStorage(logged.world.database).tiles({Tile(0, 0)}))[Tile(0, 0)])
    hashes[at] = leaf_hash(altered)
    await logged.sql(
        update(log_entries).where(log_entries.c.position == at).values(body=altered.decode())
    )
    await logged.sql(update(log_tiles).values(hashes=b"".join(hashes)))

    found = await logged.findings()

    assert certificate.serial_number
    assert "do not make the signed root" in found["checkpoint"]

    await logged.sql(text("UPDATE ca_log_head SET note = replace(note, 'pki', 'pkj')"))
    report = await logged.audit(key=await logged.of().key())
    assert any(one.subject == "checkpoint" for one in report.findings)


async def test_an_entry_that_nobody_here_wrote_never_gets_into_the_log(logged: Logged) -> None:
    certificate = await logged.world.issue()
    before = len(await logged.entries())
    forged = await logged.row(certificate.serial_number)
    await logged.sql(
        insert(certificates).values({**forged, "serial_number": "abad1dea", "request_key": None})
    )
    await logged.sql(
        text(
            "INSERT INTO ca_outbox (boot, n, kind, type, subject, time, trail, body, mac)"
            " SELECT boot, n + 1000, kind, type, 'certificate/abad1dea', time, trail,"
            f" replace(body, '{certificate.serial_number}', 'abad1dea'), mac"
            " FROM ca_journal WHERE kind = 'log' AND subject = "
            f"'certificate/{certificate.serial_number}'"
        )
    )

    assert len(await logged.entries()) == before
    assert "behind the log's back" in (await logged.findings())["certificate abad1dea"]


async def test_a_genuine_entry_that_is_put_in_again_is_named(logged: Logged) -> None:
    certificate = await logged.world.issue()
    await logged.settled()
    logged.world.clock.advance(timedelta(days=1))
    await logged.world.ca.change_certificate_status(certificate.serial_number, REVOKE, caller=ALICE)
    await logged.settled()
    await logged.sql(
        text(
            "INSERT INTO ca_outbox (boot, n, kind, type, subject, time, trail, body, mac)"
            " SELECT boot, n, kind, type, subject, time, trail, body, mac FROM ca_journal"
            f" WHERE kind = 'log' AND type = 'issued' AND subject = 'certificate/"
            f"{certificate.serial_number}'"
        )
    )
    await logged.sql(
        update(certificates)
        .where(certificates.c.serial_number == certificate.serial_number)
        .values(status="ACTIVE", revocation_time=None, revocation_reason="Unspecified")
    )
    await logged.settled()

    report = await logged.audit()

    assert any("put in again" in one.text for one in report.findings)
    assert any("taken back" in one.text for one in report.findings)


async def test_what_was_adopted_after_adoption_was_closed_is_named(logged: Logged) -> None:
    certificate = await logged.world.issue()
    await logged.settled()
    forged = await logged.row(certificate.serial_number)
    await logged.sql(
        insert(certificates).values({**forged, "serial_number": "abad1dea", "request_key": None})
    )
    later = logged.world.clock.now() + timedelta(days=1)
    await logged.sql(update(log_head).values(adopt_after="", adopt_before=later))
    await logged.world.issue("another")
    await logged.settled()

    report = await logged.audit()

    assert any(
        "abad1dea" in one.subject and "although adoption was closed" in one.text
        for one in report.findings
    )


async def test_a_log_that_was_set_back_cannot_pass_for_the_exported_one(logged: Logged) -> None:
    store = IssuanceLogStorage(logged.world.database)
    await logged.world.issue("a")
    await logged.settled()
    old_head = await store.head()
    old_tiles = await store.tiles({Tile(0, 0)})
    certificate = await logged.world.issue("b")
    await logged.settled()
    seen = parse_checkpoint(await logged.log.checkpoint())
    # as a restored database has it: the later entry never was
    await logged.sql(delete(log_entries).where(log_entries.c.position >= old_head.size))
    await logged.sql(update(log_tiles).values(hashes=b"".join(old_tiles[Tile(0, 0)])))
    async with store.unit() as unit:
        await unit.save_head(old_head)
    await logged.sql(
        text("DELETE FROM ca_journal WHERE position > (SELECT position FROM ca_log_head)")
    )
    await logged.world.issue("c")
    await logged.settled()

    forked = parse_checkpoint(await logged.log.checkpoint())

    assert certificate.serial_number
    _, proof = await logged.log.proofs.consistency(seen.head.size, None)
    with pytest.raises(LamassuError):
        verify_consistency(
            seen.head.size, seen.head.root, forked.head.size, forked.head.root, proof
        )


# --- what was there before ----------------------------------------------------------------------


async def test_rows_from_before_the_log_are_adopted_page_by_page(
    logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lamassu.services.ca.usecases.issuance_log.grow.PAGE", 2)
    older = [await logged.world.issue(name) for name in "abcde"]
    await logged.world.ca.change_certificate_status(older[0].serial_number, REVOKE, caller=ALICE)
    # as an upgrade finds it: rows, and no entries
    await logged.sql(text("DELETE FROM ca_outbox WHERE kind = 'log'"))
    later = logged.world.clock.now() + timedelta(seconds=1)
    await logged.sql(update(log_head).values(adopt_after="", adopt_before=later))
    await logged.log.advance()
    await logged.log.advance()
    logged.world.clock.advance(timedelta(minutes=1))
    newer = await logged.world.issue("f")
    await logged.settled()  # another start goes on where that one ended

    entries = await logged.entries()
    kinds = [entry["type"] for entry in entries]

    assert kinds.count("adopted") == len(older) + 4
    assert kinds.count("adoption-closed") == 1
    assert await logged.told_of(older[0].serial_number) == [("adopted", "REVOKED")]
    assert await logged.told_of(newer.serial_number) == [("issued", "ACTIVE")]
    report = await logged.audit()
    assert report.findings == []
    assert report.adopted == len(older) + 4


async def test_two_processes_make_one_log(logged: Logged) -> None:
    other = logged.of()
    for number in range(20):
        await logged.world.issue(f"d{number}")
    for sequencer in logged.bus._sequencers.values():  # the relay without its followers
        await sequencer.drain()

    await asyncio.gather(*(grown(log) for log in (logged.log, other, logged.log, other)))
    await logged.settled()

    assert (await logged.audit()).findings == []
    assert len(await logged.entries()) == 25


class WithoutEd25519:
    """A KMS whose default engine makes no Ed25519 keys, as some HSMs and clouds do not."""

    def __init__(self, keys: Any) -> None:
        self._keys = keys

    def __getattr__(self, name: str) -> Any:
        return getattr(self._keys, name)

    async def engines(self) -> Sequence[Engine]:
        return [
            replace(one, supported={KeyAlgorithm.ECDSA: (256,)})
            for one in await self._keys.engines()
        ]


async def test_an_engine_without_ed25519_signs_the_log_with_ecdsa_and_is_no_witness(
    logged: Logged,
) -> None:
    logged.world.kms = WithoutEd25519(logged.world.kms)  # type: ignore[assignment]
    log = logged.of()
    for sequencer in logged.bus._sequencers.values():
        await sequencer.drain()
    await grown(log)

    key = await log.key()

    assert key.type is SignatureType.ECDSA
    verify_note(parse_checkpoint(await log.checkpoint()), key)
    with pytest.raises(RuleViolation, match="Ed25519"):
        await log.witnessing.key()


async def test_a_head_is_signed_once_for_each_size(logged: Logged) -> None:
    await logged.settled()
    first = await logged.log.checkpoint()

    await logged.of().advance()
    await logged.log.advance()

    assert await logged.log.checkpoint() == first


async def test_a_crash_between_any_two_steps_leaves_one_tree(
    logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every write of growing and signing fails once; the next start goes on."""
    from lamassu.services.ca.storage.issuance_log import _LogUnit

    notes: dict[int, str] = {}
    for name in ("append", "save_tiles", "save_head"):
        await logged.world.issue(name)
        whole = getattr(_LogUnit, name)

        async def failing(self: Any, *given: Any, whole: Any = whole) -> None:
            await whole(self, *given)
            raise RuntimeError("killed")

        with monkeypatch.context() as patched:
            patched.setattr(_LogUnit, name, failing)
            for sequencer in logged.bus._sequencers.values():
                await sequencer.drain()
            with pytest.raises(RuntimeError):
                await grown(logged.log)
        await logged.settled()
        note = parse_checkpoint(await logged.log.checkpoint())
        assert notes.setdefault(note.head.size, str(note)) == str(note)

    assert (await logged.audit()).findings == []


# --- witnesses ----------------------------------------------------------------------------------


class Neighbour:
    """Another installation that signs this one's heads, without the network between."""

    def __init__(self, witness: IssuanceLog, key: VerifierKey) -> None:
        self.witness = witness
        self.key = key
        self.asked: list[int] = []

    async def add_checkpoint(self, old: int, proof: Sequence[bytes], note: str) -> str | int:
        self.asked.append(old)
        try:
            submission = Submission(old, list(proof), parse_checkpoint(note))
            return str(await self.witness.cosign(submission, caller=ALICE))
        except Stale as stale:
            return stale.size


async def witnessed(logged: Logged) -> tuple[IssuanceLog, Neighbour]:
    await logged.settled()
    key = await logged.log.key()
    witness = logged.of(witnessed={key.name: key})
    neighbour = Neighbour(witness, await witness.witnessing.key())
    return logged.of(witnesses=[neighbour]), neighbour


async def test_witnesses_sign_the_newest_head_and_it_is_served(logged: Logged) -> None:
    log, neighbour = await witnessed(logged)

    assert await log.gather() == 1
    assert await log.gather() == 0
    await logged.world.issue()
    await logged.settled()
    fresh = parse_checkpoint(await log.checkpoint())
    both = parse_checkpoint(await log.checkpoint(witnessed=True))
    assert len(fresh.signatures) == 1
    assert len(both.signatures) == 2
    assert await log.gather() == 1

    signed = parse_checkpoint(await log.checkpoint())
    verify_note(signed, neighbour.key)
    verify_note(signed, await log.key())
    status = await log.status()
    assert [(one.name, one.size) for one in status.witnesses] == [
        (neighbour.key.name, status.signed_size)
    ]


async def test_a_log_that_forgot_its_witness_is_told_where_it_is(logged: Logged) -> None:
    log, neighbour = await witnessed(logged)
    await log.gather()
    await logged.sql(text("DELETE FROM ca_log_cosignatures"))
    await logged.world.issue()
    await logged.settled()

    assert await log.gather() == 1
    assert neighbour.asked[-2:] == [0, parse_checkpoint(await log.checkpoint()).head.size - 1]


async def test_a_witness_signs_no_fork_no_way_back_and_no_stranger(logged: Logged) -> None:
    log, neighbour = await witnessed(logged)
    await log.gather()
    seen = parse_checkpoint(await log.checkpoint())
    store = IssuanceLogStorage(logged.world.database)
    head = await store.head()

    async def signed_note(size: int, root: bytes) -> Any:
        """Signed by the log's own key: its operator is the attacker."""
        from lamassu.kernel.merkle import Head
        from lamassu.kernel.signed_note import Checkpoint, Signature, checkpoint_text, signed
        from lamassu.services.kms.contract import KeyPurpose

        text_ = checkpoint_text(head.origin, Head(size, root))
        value = await logged.world.kms.use(
            head.key_id, lambda key: signed(text_, key), purpose=KeyPurpose.PLATFORM
        )
        mark = Signature(head.origin, (await log.key()).key_id, value)
        return Checkpoint(head.origin, Head(size, root), text_, (mark,))

    fork = await signed_note(seen.head.size, b"\1" * 32)
    with pytest.raises(Conflict, match="forked"):
        await neighbour.witness.cosign(Submission(seen.head.size, [], fork), caller=ALICE)
    longer = await signed_note(seen.head.size + 3, b"\1" * 32)
    with pytest.raises(WrongState, match="does not continue"):
        await neighbour.witness.cosign(Submission(seen.head.size, [], longer), caller=ALICE)
    shorter = await signed_note(1, b"\1" * 32)
    with pytest.raises(Stale):
        await neighbour.witness.cosign(Submission(0, [], shorter), caller=ALICE)
    unsigned = parse_checkpoint(str(seen).replace(f"\n{seen.head.size}\n", "\n999\n"))
    with pytest.raises(Forbidden):
        await neighbour.witness.cosign(Submission(seen.head.size, [], unsigned), caller=ALICE)
    with pytest.raises(NotFound):
        await logged.of().cosign(Submission(0, [], seen), caller=ALICE)

    audited = [
        one for one in await logged.world.records("audit") if one["type"] == "ca.log.witness"
    ]
    assert [one["outcome"] for one in audited] == ["log_forked", "not_consistent"]
    assert await neighbour.witness.witnessing.last_seen(head.origin) == seen.head.size


async def test_an_exported_folder_is_audited_alone(logged: Logged, tmp_path: Path) -> None:
    certificate = await logged.world.issue()
    await logged.settled()
    folder = tmp_path / "export"
    source = OwnTiles(logged.log)
    size = (await logged.log.status()).signed_size
    for path in ("checkpoint", f"tile/0/000.p/{size}", f"tile/entries/000.p/{size}"):
        content = await source.read(path)
        assert content is not None
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)

    assert (await logged.audit(FolderTiles(folder))).findings == []

    altered = folder / f"tile/entries/000.p/{size}"
    altered.write_bytes(altered.read_bytes().replace(certificate.serial_number.encode(), b"f" * 32))
    assert (await logged.audit(FolderTiles(folder))).findings != []
