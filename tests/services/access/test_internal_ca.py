"""The internal CA: what it issues, and that its root's key can leave the host."""

from __future__ import annotations

import ipaddress
import stat
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from lamassu.kernel.errors import Conflict, NotFound, RuleViolation
from lamassu.kernel.x509.pem import ders_of
from lamassu.services.access.contract import (
    CredentialKind,
    InstallationMode,
    InternalCa,
    Mode,
    Principals,
    RootKeyExport,
)
from lamassu.services.access.rules import ISSUING_LIFETIME
from lamassu.services.access.usecases import AccessService
from lamassu.services.kms.contract import KeyPurpose
from lamassu.services.kms.usecases import KmsService
from tests.support.judges import lint_certificate

from .conftest import HOST, Audited, MovedClock

DAY = timedelta(days=1)
PASSPHRASE = b"kept in a safe, elsewhere"


def test_the_service_satisfies_its_contracts(start: Callable[[], AccessService]) -> None:
    internal_ca: InternalCa = start()
    principals: Principals = start()
    mode: InstallationMode = start()
    assert None not in (internal_ca, principals, mode)


async def test_establishing_twice_makes_one_hierarchy(
    access: AccessService, start: Callable[[], AccessService]
) -> None:
    anchors = await access.trust_anchor_pem()

    await start().establish(caller=HOST)

    assert await start().trust_anchor_pem() == anchors
    root, issuing = (x509.load_der_x509_certificate(der) for der in ders_of(anchors))
    root.verify_directly_issued_by(root)
    issuing.verify_directly_issued_by(root)


async def test_two_inits_at_once_make_one_hierarchy_and_leave_no_key(
    start: Callable[[], AccessService], kms: KmsService, access: AccessService
) -> None:
    from lamassu.services.access.usecases.establish import establish_hierarchy

    late = start()
    discarded: list[str] = []
    original = kms.discard

    async def discard(key_id: str, *, purpose: KeyPurpose, caller: object) -> None:
        discarded.append(key_id)
        await original(key_id, purpose=purpose, caller=HOST)

    kms.discard = discard  # type: ignore[method-assign, assignment]
    with pytest.raises(Conflict):
        await establish_hierarchy(caller=HOST, keys=kms, storage=late._storage, clock=late._clock)
    assert len(discarded) == 2
    assert (await late.issue(CredentialKind.ADMIN, "a", lifetime=DAY, caller=HOST)).credential


async def test_its_keys_are_platform_keys(access: AccessService, kms: KmsService) -> None:
    for der in ders_of(await access.trust_anchor_pem()):
        certificate = x509.load_der_x509_certificate(der)
        ski = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        assert await kms.get(ski.digest.hex(), purpose=KeyPurpose.PLATFORM)
        with pytest.raises(NotFound):
            await kms.get_named(ski.digest.hex())


async def test_an_admins_certificate_is_for_clients_and_names_it(
    access: AccessService, clock: MovedClock
) -> None:
    issued = await access.issue(
        CredentialKind.ADMIN, "alice", lifetime=timedelta(days=30), caller=HOST
    )

    certificate = x509.load_pem_x509_certificate(issued.chain_pem)
    extensions = certificate.extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.value for name in names] == ["lamassu://admin/alice"]
    usages = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert certificate.subject.rfc4514_string() == "CN=alice,O=Lamassu"
    assert certificate.not_valid_after_utc == clock.now() + timedelta(days=30)
    key = load_pem_private_key(issued.key_pem, None)
    assert key.public_key() == certificate.public_key()
    assert b"PRIVATE" not in repr(issued).encode()


async def test_a_servers_certificate_names_its_hosts(access: AccessService) -> None:
    issued = await access.issue(
        CredentialKind.SERVER,
        "server",
        lifetime=DAY,
        caller=HOST,
        hosts=["localhost", "PKI.example", "127.0.0.1", "::1", "localhost"],
    )

    certificate = x509.load_pem_x509_certificate(issued.chain_pem)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "pki.example"]
    assert names.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("127.0.0.1"),
        ipaddress.ip_address("::1"),
    ]
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == []
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.SERVER_AUTH]


@pytest.mark.parametrize(
    "name", ["", "Alice", "-a", ".a", "a/b", "a b", "a\n", "ä", "a" * 64, "../a", "*"]
)
async def test_a_name_outside_the_grammar_is_refused(access: AccessService, name: str) -> None:
    with pytest.raises(RuleViolation) as refusal:
        await access.issue(CredentialKind.ADMIN, name, lifetime=DAY, caller=HOST)
    assert refusal.value.code == "bad_name"
    assert await access.list() == []


@pytest.mark.parametrize(
    ("kind", "hosts"),
    [
        (CredentialKind.SERVER, []),
        (CredentialKind.ADMIN, ["localhost"]),
        (CredentialKind.SERVER, ["a..b"]),
        (CredentialKind.SERVER, ["*.example"]),
        (CredentialKind.SERVER, ["a b"]),
        (CredentialKind.SERVER, ["a" * 64 + ".example"]),
        (CredentialKind.SERVER, ["lamassu://admin/alice"]),
    ],
)
async def test_hosts_are_judged(
    access: AccessService, kind: CredentialKind, hosts: list[str]
) -> None:
    with pytest.raises(RuleViolation) as refusal:
        await access.issue(kind, "x", lifetime=DAY, caller=HOST, hosts=hosts)
    assert refusal.value.code == "bad_hosts"


async def test_a_credential_ends_with_its_issuer_at_the_latest(
    access: AccessService, clock: MovedClock
) -> None:
    issuing = x509.load_der_x509_certificate(ders_of(await access.trust_anchor_pem())[1])

    issued = await access.issue(
        CredentialKind.SERVICE, "est", lifetime=timedelta(days=99999), caller=HOST
    )

    assert issued.credential.not_after == issuing.not_valid_after_utc
    clock.move(ISSUING_LIFETIME)
    with pytest.raises(RuleViolation, match="expired"):
        await access.issue(CredentialKind.SERVICE, "est", lifetime=DAY, caller=HOST)
    with pytest.raises(RuleViolation, match="positive"):
        await access.issue(CredentialKind.SERVICE, "est", lifetime=-DAY, caller=HOST)


async def test_before_init_nothing_can_be_issued(start: Callable[[], AccessService]) -> None:
    with pytest.raises(NotFound, match="lamassu init"):
        await start().issue(CredentialKind.ADMIN, "a", lifetime=DAY, caller=HOST)


async def test_listing_shows_what_is_unexpired_newest_first(
    access: AccessService, clock: MovedClock
) -> None:
    await access.issue(CredentialKind.ADMIN, "short", lifetime=DAY, caller=HOST)
    clock.move(timedelta(hours=1))
    await access.issue(CredentialKind.ADMIN, "long", lifetime=3 * DAY, caller=HOST)
    await access.issue(CredentialKind.SERVICE, "est", lifetime=3 * DAY, caller=HOST)

    admins = await access.list(CredentialKind.ADMIN)
    assert [credential.name for credential in admins] == ["long", "short"]
    clock.move(DAY)
    assert {credential.name for credential in await access.list()} == {"long", "est"}


async def test_issuing_and_revoking_are_recorded_without_keys(
    access: AccessService, audited: Audited
) -> None:
    issued = await access.issue(CredentialKind.ADMIN, "alice", lifetime=DAY, caller=HOST)
    await access.revoke("alice", caller=HOST)

    written = await audited()
    assert [action for action, _ in written] == [
        "access.establish",
        "access.establish",
        "access.issue",
        "access.revoke",
    ]
    assert issued.credential.serial_number in written[-1][1]
    assert "PRIVATE" not in "".join(body for _, body in written)


async def test_the_roots_key_leaves_the_host_encrypted(
    access: AccessService, kms: KmsService, tmp_path: Path, audited: Audited
) -> None:
    target = tmp_path / "root.key"
    export = RootKeyExport(str(target), PASSPHRASE)

    for _ in range(2):  # the second time there is nothing left to do
        await access.establish(caller=HOST, export_root_key_to=export)

    root = x509.load_der_x509_certificate(ders_of(await access.trust_anchor_pem())[0])
    key = load_pem_private_key(target.read_bytes(), PASSPHRASE)
    assert key.public_key() == root.public_key()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    ski = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    with pytest.raises(NotFound):
        await kms.get(ski.digest.hex(), purpose=KeyPurpose.PLATFORM)
    assert [action for action, _ in await audited()].count("access.root-key.export") == 1
    assert PASSPHRASE.decode() not in repr(export)
    issued = await access.issue(CredentialKind.ADMIN, "alice", lifetime=DAY, caller=HOST)
    assert issued.credential


async def test_an_existing_file_is_not_overwritten_and_the_key_stays(
    access: AccessService, tmp_path: Path
) -> None:
    target = tmp_path / "root.key"
    target.write_text("another root's key")

    with pytest.raises(Conflict):
        await access.establish(
            caller=HOST, export_root_key_to=RootKeyExport(str(target), PASSPHRASE)
        )

    assert target.read_text() == "another root's key"
    elsewhere = RootKeyExport(str(tmp_path / "elsewhere.key"), PASSPHRASE)
    await access.establish(caller=HOST, export_root_key_to=elsewhere)
    assert (tmp_path / "elsewhere.key").exists()


async def test_a_root_key_removed_by_a_try_that_crashed_is_noted_by_the_next(
    access: AccessService, kms: KmsService, tmp_path: Path, audited: Audited
) -> None:
    root = x509.load_der_x509_certificate(ders_of(await access.trust_anchor_pem())[0])
    ski = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    await kms.discard(ski.digest.hex(), purpose=KeyPurpose.PLATFORM, caller=HOST)

    target = tmp_path / "root.key"
    await access.establish(caller=HOST, export_root_key_to=RootKeyExport(str(target), PASSPHRASE))

    assert not target.exists()
    assert (await audited())[-1][0] == "access.root-key.export"


async def test_openssl_and_pkilint_accept_what_it_issues(
    access: AccessService, tmp_path: Path
) -> None:
    anchors = tmp_path / "anchors.pem"
    anchors.write_bytes(await access.trust_anchor_pem())
    hosts = {CredentialKind.SERVER: ["pki.example"]}
    purposes = {CredentialKind.SERVER: "sslserver"}
    at = str(int(access._clock.now().timestamp()))
    for der in ders_of(anchors.read_bytes()):
        assert lint_certificate(der) == []
    for kind in CredentialKind:
        issued = await access.issue(
            kind, "some.name", lifetime=DAY, caller=HOST, hosts=hosts.get(kind, [])
        )
        chain = tmp_path / f"{kind}.pem"
        chain.write_bytes(issued.chain_pem)
        # the linter's idea of a URI knows the schemes of the web only
        allowed = [] if kind is CredentialKind.SERVER else ["pkix.invalid_uri_syntax"]
        assert lint_certificate(issued.credential.der, allowed=allowed) == []
        purpose = purposes.get(kind, "sslclient")
        command = ["openssl", "verify", "-x509_strict", "-attime", at, "-purpose", purpose]
        subprocess.run([*command, "-CAfile", anchors, chain], check=True, capture_output=True)


async def test_production_is_left_only_by_an_act_of_its_own(
    start: Callable[[], AccessService], audited: Audited
) -> None:
    access = start()
    assert await access.settle_mode(Mode.DEVELOPMENT, caller=HOST) is Mode.DEVELOPMENT
    assert await access.settle_mode(Mode.DEVELOPMENT, caller=HOST) is Mode.DEVELOPMENT
    assert await access.settle_mode(Mode.PRODUCTION, caller=HOST) is Mode.PRODUCTION

    with pytest.raises(RuleViolation) as refusal:
        await start().settle_mode(Mode.DEVELOPMENT, caller=HOST)
    assert refusal.value.code == "mode_lowered"

    await access.lower_mode(caller=HOST)
    assert await start().settle_mode(Mode.DEVELOPMENT, caller=HOST) is Mode.DEVELOPMENT
    assert [action for action, _ in await audited()] == ["access.mode"] * 3


async def test_production_is_told_what_development_left_behind(
    access: AccessService, clock: MovedClock, tmp_path: Path
) -> None:
    month = await access.issue(CredentialKind.ADMIN, "old", lifetime=30 * DAY, caller=HOST)
    await access.issue(CredentialKind.ADMIN, "today", lifetime=DAY, caller=HOST)

    root_key, admin = await access.leftovers_of_development()
    assert "--export-root-key" in root_key
    assert f"admin revoke {month.credential.serial_number}" in admin

    export = RootKeyExport(str(tmp_path / "root.key"), PASSPHRASE)
    await access.establish(caller=HOST, export_root_key_to=export)
    await access.revoke("old", caller=HOST)
    assert await access.leftovers_of_development() == []
