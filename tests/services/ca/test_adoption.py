"""What another system says of certificates and CAs: what is believed of it, and what is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from asn1crypto import x509 as asn1
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy import func, select

from lamassu.kernel.adoption import Batch, Outcome, Verdict
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.kernel.x509.pem import pem_of
from lamassu.platform.database.journal_tables import tables as journal_tables
from lamassu.services.ca.contract import CertificateStatus, IssueRequest, RevocationReason
from lamassu.services.ca.rules.adoption import FoundAuthority, FoundCertificate, FoundStatus
from lamassu.services.ca.storage import tables
from lamassu.services.kms.contract import KeyPurpose
from tests.support.pki import Made, make, with_another_signature

from .world import ALICE, START, YEAR, World, csr

CLEAR = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
BATCH = Batch("test", 1)
REVOKED = FoundStatus(
    revoked=True, at=START - timedelta(days=2), reason=RevocationReason.KEY_COMPROMISE
)


def a_ca(name: str = "Old CA", **changed: Any) -> Made:
    return make(name, ca=True, not_before=START - YEAR, not_after=START + 9 * YEAR, **changed)


def device(issuer: Made, name: str = "device-1", **changed: Any) -> Made:
    return make(
        name,
        issuer=issuer,
        not_before=START - timedelta(days=30),
        not_after=START + timedelta(days=30),
        **changed,
    )


def found(made: Made, status: FoundStatus | None = None, **more: Any) -> FoundCertificate:
    if status is not None:
        more["status"] = status
    return FoundCertificate(label="here", der=made.der, **more)


def numbered(made: Made, serial_number: int) -> bytes:
    """The certificate with a serial number that no library would sign."""
    certificate = asn1.Certificate.load(made.der)
    certificate["tbs_certificate"]["serial_number"] = serial_number
    dumped: bytes = certificate.dump(force=True)
    return dumped


async def take_ca(
    world: World, made: Made, ca_id: str = "old", *, dry_run: bool = False, **more: Any
) -> Verdict:
    return await world.ca.authority_adoption.adopt(
        FoundAuthority(ca_id, made.der, **more),
        issuers=await world.ca.certificate_adoption.issuers(),
        source="test",
        caller=ALICE,
        dry_run=dry_run,
    )


async def take(
    world: World, *certificates: FoundCertificate, batch: Batch = BATCH
) -> Sequence[Verdict]:
    return await world.ca.certificate_adoption.adopt(
        batch,
        certificates,
        issuers=await world.ca.certificate_adoption.issuers(),
        caller=ALICE,
    )


async def count(world: World) -> int:
    async with world.database.reading("ca") as connection:
        query = select(func.count()).select_from(tables.certificates)
        return int((await connection.execute(query)).scalar_one())


async def records(world: World, kind: str = "") -> list[Any]:
    """Events and audit records, or what the issuance log was told (`log`)."""
    outbox = journal_tables("ca").outbox
    async with world.database.reading("ca") as connection:
        found = list((await connection.execute(select(outbox))).all())
    return [row for row in found if (row.kind == kind if kind else row.kind != "log")]


def serial(made: Made) -> str:
    return certificate_facts(made.der).serial_number


async def test_a_certificate_of_an_adopted_ca_is_known_as_its_source_says(world: World) -> None:
    ca = a_ca()
    good, bad, idle = device(ca, "good"), device(ca, "bad"), device(ca, "idle")
    assert (await take_ca(world, ca)).outcome is Outcome.ADOPTED

    verdicts = await take(
        world,
        found(good, metadata={"site": "north"}, owner="fleet", device_id="good"),
        found(bad, REVOKED),
        found(idle, FoundStatus(inactive=True)),
    )

    assert [verdict.outcome for verdict in verdicts] == [Outcome.ADOPTED] * 3
    stored = await world.ca.get_certificate(serial(good))
    assert stored.der == good.der
    assert (stored.issuer_ca_id, stored.metadata["site"]) == ("old", "north")
    assert stored.metadata["lamassu.io/ra/attached-to"] == {
        "authorized_by": {"ra_id": "fleet"},
        "device_id": "good",
    }
    standing = await world.ca.standing("old", serial(good))
    assert (standing.known, standing.revoked) == (True, False)
    standing = await world.ca.standing("old", serial(bad))
    assert (standing.revoked, standing.revocation_time, standing.reason) == (
        True, REVOKED.at, RevocationReason.KEY_COMPROMISE,
    )  # fmt: skip
    assert not (await world.ca.standing("old", serial(idle))).known
    # nobody is to revoke what was in its slot before it came here
    assert not await world.ca.unreconciled(older_than=START + YEAR, limit=10)


async def test_a_ca_gets_no_id_that_certificates_of_a_deleted_one_name(world: World) -> None:
    """ADR 12: whoever trusts that id comes to trust no other CA by accident."""
    ca = a_ca()
    assert (await take_ca(world, ca)).outcome is Outcome.ADOPTED
    await take(world, found(device(ca)))
    await world.ca.delete_ca("old", cascade=False, caller=ALICE)
    before = await count(world)

    verdict = await take_ca(world, a_ca("Another CA"))

    assert (verdict.outcome, verdict.code) == (Outcome.SKIPPED, "ca_exists")
    assert await count(world) == before
    assert (await take_ca(world, ca)).outcome is Outcome.ADOPTED  # the very one may come back


async def test_only_the_key_of_a_ca_makes_a_certificate_its_own(world: World) -> None:
    """Security rule 14: the source's word counts for nothing."""
    ca, twin, stranger = a_ca(), a_ca(), a_ca("Nobody's CA")
    await take_ca(world, ca)
    before = await count(world)

    verdicts = await take(world, found(device(twin)), found(device(stranger)))

    assert [(one.outcome, one.code) for one in verdicts] == [
        (Outcome.SKIPPED, "signature_invalid"),
        (Outcome.SKIPPED, "issuer_unknown"),
    ]
    assert await count(world) == before


async def test_a_damaged_certificate_stops_no_other(world: World) -> None:
    ca = a_ca()
    await take_ca(world, ca)
    sound = device(ca)
    damaged = [sound.der[:-5], b"", numbered(sound, -5), numbered(sound, 1 << 170)]

    verdicts = await take(world, *(FoundCertificate("", der) for der in damaged), found(sound))

    assert [one.code for one in verdicts] == [
        "certificate_malformed",
        "certificate_malformed",
        "certificate_malformed",
        "serial_number_malformed",
        "",
    ]
    assert verdicts[-1].outcome is Outcome.ADOPTED


async def test_a_serial_number_belongs_to_the_first(world: World) -> None:
    first, second = a_ca("First CA"), a_ca("Second CA")
    await take_ca(world, first, "first")
    await take_ca(world, second, "second")
    mine, theirs = device(first, serial_number=4096), device(second, serial_number=4096)
    await take(world, found(mine))

    verdicts = await take(world, found(theirs), found(mine))

    assert [(one.outcome, one.code) for one in verdicts] == [
        (Outcome.SKIPPED, "serial_number_taken"),
        (Outcome.PRESENT, ""),
    ]
    assert (await world.ca.get_certificate("1000")).der == mine.der


async def test_the_same_certificate_signed_otherwise_is_another(world: World) -> None:
    """From an ECDSA signature anybody makes a second valid one."""
    ca = a_ca()
    await take_ca(world, ca)
    made = device(ca)
    await take(world, found(made))

    (verdict,) = await take(world, FoundCertificate("", with_another_signature(made.der)))

    assert verdict.code == "serial_number_taken"


async def test_a_batch_with_one_thing_twice_stores_it_once(world: World) -> None:
    ca = a_ca()
    await take_ca(world, ca)
    one, other = device(ca, serial_number=77), device(ca, "device-2", serial_number=77)

    verdicts = await take(world, found(one), found(one), found(other))

    assert [(v.outcome, v.code) for v in verdicts] == [
        (Outcome.ADOPTED, ""),
        (Outcome.PRESENT, ""),
        (Outcome.SKIPPED, "serial_number_taken"),
    ]


async def test_repeating_a_batch_changes_nothing(world: World) -> None:
    ca = a_ca()
    await take_ca(world, ca)
    batch = [found(device(ca, f"device-{n}")) for n in range(5)]
    await take(world, *batch)
    rows, told = await count(world), len(await records(world))

    again = await take(world, *batch)

    assert {verdict.outcome for verdict in again} == {Outcome.PRESENT}
    assert (await count(world), len(await records(world))) == (rows, told)


async def test_a_revocation_is_learnt_and_never_unlearnt(world: World) -> None:
    ca = a_ca()
    await take_ca(world, ca)
    revoked_there, revoked_here = device(ca, "there"), device(ca, "here")
    await take(world, found(revoked_there), found(revoked_here))
    await world.ca.revoke(serial(revoked_here), RevocationReason.SUPERSEDED, caller=ALICE)

    verdicts = await take(world, found(revoked_there, REVOKED), found(revoked_here))

    assert [one.outcome for one in verdicts] == [Outcome.UPDATED, Outcome.PRESENT]
    standing = await world.ca.standing("old", serial(revoked_there))
    assert (standing.revoked, standing.revocation_time) == (True, REVOKED.at)
    standing = await world.ca.standing("old", serial(revoked_here))
    assert (standing.revoked, standing.reason) == (True, RevocationReason.SUPERSEDED)
    # a revocation is told of one by one, so that a device's slot follows
    told = [row for row in await records(world) if serial(revoked_there) in row.subject]
    assert {row.type for row in told} == {"certificate.status.update"}


async def test_a_revocation_without_or_with_an_impossible_time_stands(world: World) -> None:
    ca = a_ca()
    await take_ca(world, ca)
    timeless, future = device(ca, "timeless"), device(ca, "future")

    await take(
        world,
        found(timeless, FoundStatus(revoked=True)),
        found(future, FoundStatus(revoked=True, at=START + YEAR)),
    )

    standing = await world.ca.standing("old", serial(timeless))
    assert standing.revocation_time == certificate_facts(timeless.der).not_before
    assert (await world.ca.standing("old", serial(future))).revocation_time == START


async def test_a_batch_leaves_one_event_and_one_audit_record(world: World) -> None:
    ca = a_ca()
    await take_ca(world, ca)
    before = len(await records(world))

    await take(world, *(found(device(ca, f"device-{n}")) for n in range(20)))

    told = [row for row in (await records(world))[before:] if row.type == "certificate.adopt"]
    assert len(told) == len((await records(world))[before:]) == 2
    # the issuance log knows each of them
    assert len([row for row in await records(world, "log") if row.type == "imported"]) == 20


async def test_a_dry_run_judges_alike_and_writes_nothing(world: World) -> None:
    ca, twin = a_ca(), a_ca()
    issuers = await world.ca.certificate_adoption.issuers()
    taken = await world.ca.authority_adoption.adopt(
        FoundAuthority("old", ca.der), issuers=issuers, source="test", caller=ALICE, dry_run=True
    )
    batch = replace(BATCH, dry_run=True)
    rows = await count(world)

    verdicts = await world.ca.certificate_adoption.adopt(
        batch, [found(device(ca)), found(device(twin)), found(ca)], issuers=issuers, caller=ALICE
    )

    assert taken.outcome is Outcome.ADOPTED
    assert [one.outcome for one in verdicts] == [
        Outcome.ADOPTED, Outcome.SKIPPED, Outcome.PRESENT,
    ]  # fmt: skip
    assert await count(world) == rows
    assert not await records(world)


# --- CAs ------------------------------------------------------------------------------------


async def test_a_ca_stands_below_whose_key_signed_it(world: World) -> None:
    root = a_ca("Root CA")
    below = a_ca("Issuing CA", issuer=root)
    await take_ca(world, root, "root")
    await take_ca(world, below, "issuing")

    stored = await world.ca.get_ca("issuing")

    assert (stored.parent_id, stored.level) == ("root", 1)
    assert stored.certificate.issuer_ca_id == "root"


async def test_a_ca_that_names_a_parent_which_did_not_sign_it_is_refused(world: World) -> None:
    root, twin = a_ca("Root CA"), a_ca("Root CA")
    await take_ca(world, root, "root")

    verdict = await take_ca(world, a_ca("Issuing CA", issuer=twin), "issuing")

    assert (verdict.outcome, verdict.code) == (Outcome.SKIPPED, "signature_invalid")
    assert [one.id for one in await world.ca.list_cas()] == ["root"]


async def test_a_revoked_ca_comes_revoked_and_so_does_all_below(world: World) -> None:
    root = a_ca("Root CA")
    below = a_ca("Issuing CA", issuer=root)
    await take_ca(world, root, "root", status=REVOKED)
    await take_ca(world, below, "issuing")
    certificate = device(below)
    await take(world, found(certificate))

    assert (await world.ca.get_ca("issuing")).revoked_by == "root"
    assert (await world.ca.standing("issuing", serial(certificate))).revoked


async def test_a_revoked_ca_is_not_put_above_one_that_has_approvers(world: World) -> None:
    """It would end that one; the approvers of a CA decide on its end, on the host too."""
    root = a_ca("Root CA")
    await take_ca(world, a_ca("Issuing CA", issuer=root), "issuing")
    policy = {"required": 1, "of": ["bob"]}
    answer = await world.api.put("/v1/cas/issuing/approvals", json=policy)
    assert answer.status_code == 200, answer.text

    verdict = await take_ca(world, root, "root", status=REVOKED)

    assert (verdict.outcome, verdict.code) == (Outcome.SKIPPED, "approval_required")
    kept = await world.ca.get_ca("issuing")
    assert (kept.parent_id, kept.revoked_by) == (None, None)
    assert [one.id for one in await world.ca.list_cas()] == ["issuing"]


async def test_an_expired_ca_comes_along_for_its_history(world: World) -> None:
    ended = make("Ended CA", ca=True, not_before=START - 9 * YEAR, not_after=START - YEAR)

    assert (await take_ca(world, ended)).outcome is Outcome.ADOPTED
    stored = (await world.ca.get_ca("old")).certificate
    assert stored.status_at(START) is CertificateStatus.EXPIRED


@pytest.mark.parametrize(
    ("changed", "code"),
    [({"key_id": "00" * 32}, "key_mismatch"), ({"profile_id": "gone"}, "profile_not_found")],
)
async def test_a_foreign_key_keeps_a_ca_out_and_a_lost_profile_does_not(
    world: World, changed: dict[str, str], code: str
) -> None:
    verdict = await take_ca(world, a_ca(), **changed)

    assert verdict.code == code
    assert bool(await world.ca.list_cas()) is (code == "profile_not_found")


async def test_a_certificate_that_is_no_cas_becomes_none(world: World) -> None:
    ca = a_ca()
    await take_ca(world, ca)

    assert (await take_ca(world, device(ca), "sneaky")).code == "not_a_ca"


async def test_a_subject_key_identifier_stays_one_cas(world: World) -> None:
    """Security rule 14: by it CRLs are found."""
    ca = a_ca()
    await take_ca(world, ca)

    verdict = await take_ca(world, a_ca("Other name", key=ca.key), "other")

    assert (verdict.outcome, verdict.code) == (Outcome.SKIPPED, "key_id_in_use")


async def test_a_ca_with_its_key_here_issues(world: World) -> None:
    profile = await world.profile()
    ca = a_ca()
    pem = ca.key.private_bytes(*CLEAR)
    key = await world.kms.take_in(
        pem,
        public_key=certificate_facts(ca.der).spki,
        purpose=KeyPurpose.CA,
        name="old",
        caller=ALICE,
    )

    verdict = await take_ca(
        world, ca, key_id=key.key_id, engine_id=key.engine_id, profile_id=profile.id
    )
    issued = await world.ca.issue(IssueRequest(ca_id="old", csr_der=csr(), caller=ALICE))

    assert verdict == Verdict("old", Outcome.ADOPTED)
    assert issued.certificate.issuer_ca_id == "old"


async def test_a_ca_that_is_here_stays_as_it_is(world: World) -> None:
    ca = a_ca()
    await take_ca(world, ca)

    again = await take_ca(world, ca, status=REVOKED)
    other = await take_ca(world, a_ca("Another"), "old")

    assert (again.outcome, again.code) == (Outcome.PRESENT, "ca_revoked_at_source")
    assert (other.outcome, other.code) == (Outcome.SKIPPED, "ca_exists")
    assert (await world.ca.get_ca("old")).revoked_by is None


async def test_a_ca_that_came_as_a_certificate_of_its_issuers_becomes_a_ca(world: World) -> None:
    """A root's directory lists the CAs below it; theirs are imported after it."""
    root = a_ca("Root CA")
    good, bad = a_ca("Good CA", issuer=root), a_ca("Bad CA", issuer=root)
    await take_ca(world, root, "root")
    await take(world, found(good), found(bad, REVOKED))

    verdicts = [await take_ca(world, good, "good"), await take_ca(world, bad, "bad")]

    assert [one.outcome for one in verdicts] == [Outcome.ADOPTED] * 2
    stored = await world.ca.get_ca("good")
    assert (stored.parent_id, stored.revoked_by, stored.certificate.version) == ("root", None, 2)
    assert (await world.ca.get_ca("bad")).revoked_by == "bad"
    assert (await world.ca.standing("root", serial(bad))).revoked


async def test_a_ca_that_is_here_is_revoked_by_people_only(world: World) -> None:
    root = a_ca("Root CA")
    below = a_ca("Issuing CA", issuer=root)
    await take_ca(world, root, "root")
    await take_ca(world, below, "issuing")

    (verdict,) = await take(world, found(below, REVOKED))

    assert (verdict.outcome, verdict.code) == (Outcome.PRESENT, "ca_revoked_at_source")
    stored = await world.ca.get_ca("issuing")
    assert stored.revoked_by is None
    assert stored.certificate.stored_status is CertificateStatus.ACTIVE


async def test_a_root_that_comes_late_takes_its_place_above(world: World) -> None:
    root = a_ca("Root CA")
    middle = a_ca("Middle CA", issuer=root)
    low = a_ca("Low CA", issuer=middle)
    await take_ca(world, middle, "middle")
    await take_ca(world, low, "low")
    assert (await world.ca.get_ca("middle")).parent_id is None

    await take_ca(world, root, "root", status=REVOKED)

    line = [(one.id, one.parent_id, one.level, one.revoked_by) for one in await world.ca.list_cas()]
    assert sorted(line, key=lambda one: one[2]) == [
        ("root", None, 0, "root"),
        ("middle", "root", 1, "root"),
        ("low", "middle", 2, "root"),
    ]


async def test_a_certificate_learns_its_issuer_when_it_becomes_a_ca(world: World) -> None:
    root = a_ca("Root CA")
    below = a_ca("Issuing CA", issuer=root)
    await take_ca(world, root, "root")
    await take(world, found(below, REVOKED))
    device_of_it = a_ca("Lower CA", issuer=below)
    await take_ca(world, device_of_it, "lower")

    await take_ca(world, below, "issuing")

    lower = await world.ca.get_ca("lower")
    assert (lower.parent_id, lower.revoked_by) == ("issuing", "issuing")


async def test_a_key_is_one_cas(world: World) -> None:
    """Security rule 9: two CAs with one key vouch for each other's certificates."""
    ca = a_ca()
    await take_ca(world, ca, key_id=certificate_facts(ca.der).ski)
    identifier = x509.SubjectKeyIdentifier(b"another")
    twin = (
        x509.CertificateBuilder()
        .subject_name(ca.name)
        .issuer_name(ca.name)
        .public_key(ca.key.public_key())
        .serial_number(7)
        .not_valid_before(START - YEAR)
        .not_valid_after(START + YEAR)
        .add_extension(x509.BasicConstraints(True, None), True)
        .add_extension(identifier, False)
        .sign(ca.key, SHA256())
    )

    verdict = await take_ca(world, Made(twin.public_bytes(Encoding.DER), ca.key), "twin")

    assert (verdict.outcome, verdict.code) == (Outcome.SKIPPED, "key_in_use")


async def test_the_platforms_own_ca_becomes_none_here(world: World) -> None:
    """Decision 2: whoever signs by its key is the platform's operator."""
    own = a_ca("Internal CA")

    async def platform_cas() -> bytes:
        return pem_of(own.der)

    world.ca.authority_adoption._platform_cas = platform_cas

    verdict = await take_ca(world, own)

    assert (verdict.outcome, verdict.code) == (Outcome.SKIPPED, "platform_ca")
    assert not await world.ca.list_cas()
