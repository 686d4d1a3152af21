"""The Vault engine beyond what every engine promises: its tokens, its seal, its mounts."""

from __future__ import annotations

import asyncio
import base64
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import hvac
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from lamassu.kernel.errors import LamassuError, NotFound, RuleViolation, Unavailable
from lamassu.kernel.x509.keys import key_id as key_id_of
from lamassu.services.kms.contract import KeyAlgorithm, KeyPurpose, KeySpec, MessageType
from lamassu.services.kms.engines.keys_in_memory import public_key_of
from lamassu.services.kms.engines.software import SoftwareEngine
from lamassu.services.kms.engines.vault import VaultEngine, VaultSecrets
from lamassu.services.kms.engines.vault.engine import KvVaultEngine
from lamassu.services.kms.model import SCHEMES, MadeKey
from lamassu.services.kms.ports import EngineDown, EngineLimits, EngineRefused
from lamassu.services.kms.usecases.guard import GuardedEngine
from lamassu.services.kms.usecases.signatures import signature_holds, signature_over
from tests.support.engines import ComponentMissing
from tests.support.missing import missing_component
from tests.support.vault import (
    KV_POLICY,
    ORIGINAL_POLICY,
    TRANSIT_POLICY,
    Role,
    VaultServer,
    certificate_authority,
    find_vault,
    shared_server,
)

P256 = KeySpec(KeyAlgorithm.ECDSA, 256)
SCHEME = SCHEMES["ECDSA_SHA_256"]
MESSAGE = b"to be signed"
LOGIN = "auth/approle/login"
RENEWAL = "auth/token/renew-self"


@pytest.fixture(scope="module")
def vault() -> VaultServer:
    """The run's own, which stays as it is."""
    try:
        server = shared_server()
    except ComponentMissing as missing:
        missing_component(str(missing))
    server.mount("transit-t", "transit")
    server.mount("kv-t", "kv")
    return server


@pytest.fixture(scope="module")
def troubled() -> Iterator[VaultServer]:
    """One that is sealed, stopped and watched."""
    try:
        find_vault()
    except ComponentMissing as missing:
        missing_component(str(missing))
    server = VaultServer()
    try:
        server.start()
        server.mount("transit-t", "transit")
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="module")
def watched(troubled: VaultServer) -> Callable[[str], int]:
    """How many requests went to paths that match."""
    log = troubled.audit_device()
    return lambda pattern: troubled.requests(log, pattern)


@pytest.fixture
def opened() -> Iterator[Callable[..., VaultEngine]]:
    """Adapters that are closed afterwards."""
    engines: list[VaultEngine] = []

    def make(server: VaultServer, role: Role, mount: str, **changed: Any) -> VaultEngine:
        engines.append(server.engine(role, mount, **changed))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


_roles = iter(range(1_000_000))


def role_for(server: VaultServer, mount: str, policy: str = TRANSIT_POLICY, **more: Any) -> Role:
    return server.role(f"role-{next(_roles)}", policy.format(mount=mount), **more)


def sign(engine: VaultEngine, made: MadeKey) -> None:
    """Raises what the engine raises."""
    key = engine.private_key(made.key_id, purpose=KeyPurpose.GENERAL)
    signature = signature_over(key, SCHEME, MESSAGE, MessageType.RAW)
    assert signature_holds(made.public_key, SCHEME, MESSAGE, MessageType.RAW, signature)


def until(done: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def refused(engine: VaultEngine, kind: type[LamassuError] = EngineRefused) -> LamassuError:
    with pytest.raises(kind) as refusal:
        engine.check()
    return refusal.value


# Tokens


def test_a_token_is_renewed_while_nobody_asks(
    troubled: VaultServer, watched: Callable[[str], int], opened: Callable[..., VaultEngine]
) -> None:
    role = role_for(troubled, "transit-t", token_ttl="2s", token_max_ttl="1h")
    engine = opened(troubled, role, "transit-t")
    engine.check()
    logins, renewals = watched(LOGIN), watched(RENEWAL)

    until(lambda: watched(RENEWAL) >= renewals + 2)

    engine.check()
    assert watched(LOGIN) == logins


def test_a_token_that_cannot_be_renewed_further_is_replaced_before_it_ends(
    troubled: VaultServer, watched: Callable[[str], int], opened: Callable[..., VaultEngine]
) -> None:
    role = role_for(troubled, "transit-t", token_ttl="2s", token_max_ttl="3s")
    engine = opened(troubled, role, "transit-t")
    made = engine.generate(P256, purpose=KeyPurpose.GENERAL)
    logins = watched(LOGIN)

    until(lambda: watched(LOGIN) > logins)

    sign(engine, made)


def test_a_revoked_token_costs_one_login_however_many_ask(
    troubled: VaultServer, watched: Callable[[str], int], opened: Callable[..., VaultEngine]
) -> None:
    engine = opened(troubled, role_for(troubled, "transit-t"), "transit-t")
    made = engine.generate(P256, purpose=KeyPurpose.GENERAL)
    time.sleep(1.1)  # a token that young is taken to be alive
    troubled.client.sys.revoke_prefix("auth/approle/login")
    logins = watched(LOGIN)

    with ThreadPoolExecutor(16) as threads:
        for _ in threads.map(lambda _: sign(engine, made), range(48)):
            pass

    assert watched(LOGIN) == logins + 1


def test_what_the_policy_forbids_is_said_and_costs_no_login(
    troubled: VaultServer, watched: Callable[[str], int], opened: Callable[..., VaultEngine]
) -> None:
    policy = TRANSIT_POLICY.replace('path "{mount}/sign/*"', 'path "{mount}/nothing"')
    engine = opened(troubled, role_for(troubled, "transit-t", policy), "transit-t")
    made = engine.generate(P256, purpose=KeyPurpose.GENERAL)
    logins = watched(LOGIN)

    for _ in range(3):
        with pytest.raises(EngineRefused) as refusal:
            sign(engine, made)
        assert refusal.value.code == "access_denied"
        assert "transit-t/sign/" in refusal.value.text

    assert watched(LOGIN) == logins
    assert "update on transit-t/sign/" in refused(engine).text


@pytest.mark.parametrize("wrong", ["role_id", "secret_id"])
def test_a_refused_login_is_said_and_not_repeated(
    troubled: VaultServer,
    watched: Callable[[str], int],
    opened: Callable[..., VaultEngine],
    wrong: str,
) -> None:
    role = role_for(troubled, "transit-t")
    secret = "4f7a-not-this-one"
    engine = opened(troubled, role, "transit-t", **{wrong: secret})
    logins = watched(LOGIN)

    errors = [refused(engine) for _ in range(5)]

    assert {error.code for error in errors} == {"login_refused"}
    assert all(secret not in error.text for error in errors)
    assert all(role.secret_id not in error.text for error in errors)
    assert errors[-1].retry_after is not None
    assert watched(LOGIN) == logins + 1


def test_a_secret_id_that_is_used_up_is_told_from_a_wrong_one(
    troubled: VaultServer, opened: Callable[..., VaultEngine]
) -> None:
    role = role_for(troubled, "transit-t", secret_id={"num_uses": 1})
    engine = opened(troubled, role, "transit-t")
    engine.check()
    time.sleep(1.1)
    troubled.client.sys.revoke_prefix("auth/approle/login")

    error = refused(engine)

    assert error.code == "login_refused"
    assert "accepted the secret id at" in error.text
    assert "used up" in error.text


def test_closing_gives_the_token_back(
    troubled: VaultServer, watched: Callable[[str], int], opened: Callable[..., VaultEngine]
) -> None:
    engine = opened(troubled, role_for(troubled, "transit-t"), "transit-t")
    engine.check()
    revoked = watched("auth/token/revoke-self")

    engine.close()

    assert watched("auth/token/revoke-self") == revoked + 1


def test_a_token_of_the_environment_is_not_used(
    vault: VaultServer, opened: Callable[..., VaultEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAULT_TOKEN", vault.root_token)
    role = Role("none", "0000", "0000")

    assert refused(opened(vault, role, "transit-t")).code == "login_refused"


# The seal, the network


def test_a_sealed_vault_is_a_clear_state_and_an_unsealed_one_works_on(
    troubled: VaultServer, opened: Callable[..., VaultEngine]
) -> None:
    engine = opened(troubled, role_for(troubled, "transit-t"), "transit-t")
    made = engine.generate(P256, purpose=KeyPurpose.GENERAL)

    troubled.seal()
    started = time.monotonic()
    with pytest.raises(EngineDown) as refusal:
        sign(engine, made)
    assert time.monotonic() - started < 3
    assert (refusal.value.code, refusal.value.retry_after) == ("engine_sealed", 30)
    assert "2 of 3 key shares" in refusal.value.text
    assert refused(engine, EngineDown).code == "engine_sealed"

    troubled.unseal()
    sign(engine, made)


def test_auto_unseal_opens_it_and_signs(
    troubled: VaultServer, opened: Callable[..., VaultEngine]
) -> None:
    role = role_for(troubled, "transit-t")
    keys = troubled.unseal_keys[:2]
    engine = opened(troubled, role, "transit-t", auto_unseal=True, unseal_keys=keys)
    made = engine.generate(P256, purpose=KeyPurpose.GENERAL)
    troubled.seal()

    with ThreadPoolExecutor(8) as threads:
        for _ in threads.map(lambda _: sign(engine, made), range(16)):
            pass

    assert not troubled.client.sys.is_sealed()


def test_auto_unseal_without_keys_only_reports(
    troubled: VaultServer, opened: Callable[..., VaultEngine]
) -> None:
    engine = opened(troubled, role_for(troubled, "transit-t"), "transit-t", auto_unseal=True)
    engine.check()
    troubled.seal()
    try:
        error = refused(engine, EngineDown)
        assert error.code == "engine_sealed"
        assert "auto_unseal_keys" in error.text
        assert troubled.client.sys.is_sealed()
    finally:
        troubled.unseal()


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ([base64.b64encode(bytes(32)).decode() + "AA==", "AAAA"], "unseal_keys_wrong"),
        ([base64.b64encode(bytes([n]) * 33).decode() for n in (1, 2)], "unseal_keys_wrong"),
        ([base64.b64encode(bytes(33)).decode()], "unseal_keys_missing"),
    ],
)
def test_unseal_keys_that_do_not_open_it_are_tried_once(
    troubled: VaultServer, opened: Callable[..., VaultEngine], keys: list[str], code: str
) -> None:
    role = role_for(troubled, "transit-t")
    engine = opened(troubled, role, "transit-t", auto_unseal=True, unseal_keys=keys)
    troubled.seal()
    try:
        first, again = refused(engine), refused(engine)
        assert {first.code, again.code} == {code}
        assert all(key not in first.text + again.text for key in keys)
        troubled.client.sys.submit_unseal_key(reset=True)
    finally:
        troubled.unseal()


def test_a_vault_that_was_never_initialised_says_so(
    troubled: VaultServer, opened: Callable[..., VaultEngine], tmp_path: Path
) -> None:
    fresh = VaultServer(folder=tmp_path)
    fresh.create()
    fresh.run()
    try:
        engine = opened(fresh, Role("none", "0000", "0000"), "transit-t")
        error = refused(engine, EngineDown)
    finally:
        fresh.stop()

    assert error.code == "engine_uninitialised"
    assert "vault operator init" in error.text


def test_a_vault_that_is_stopped_and_started_is_used_again(
    troubled: VaultServer, opened: Callable[..., VaultEngine]
) -> None:
    engine = opened(troubled, role_for(troubled, "transit-t"), "transit-t")
    made = engine.generate(P256, purpose=KeyPurpose.GENERAL)

    troubled.stop()
    with pytest.raises(EngineDown) as refusal:
        sign(engine, made)
    assert refusal.value.code == "engine_unreachable"

    troubled.start()
    sign(engine, made)


def test_only_the_ca_file_is_trusted(
    vault: VaultServer, opened: Callable[..., VaultEngine], tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(certificate_authority("another")[0].public_bytes(Encoding.PEM))
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    role = role_for(vault, "transit-t")

    def code(**changed: Any) -> str:
        return refused(opened(vault, role, "transit-t", **changed)).code

    assert code(ca_file=other) == "engine_untrusted"
    assert code(ca_file=None) == "engine_untrusted"
    assert code(ca_file=broken) == "ca_file_unreadable"
    assert code(ca_file=tmp_path / "none.pem") == "ca_file_unreadable"
    opened(vault, role, "transit-t", ca_file=None, insecure_skip_verify=True).check()


def test_http_to_a_tls_listener_is_no_crash(
    vault: VaultServer, opened: Callable[..., VaultEngine]
) -> None:
    role = role_for(vault, "transit-t")
    address = vault.address.replace("https:", "http:")

    with pytest.raises(Unavailable):
        opened(vault, role, "transit-t", url=address).check()


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a listener that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        held: list[socket.socket] = []

        def take() -> None:
            with suppress(OSError):
                while True:
                    held.append(listener.accept()[0])

        threading.Thread(target=take, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        for connection in held:
            connection.close()


async def test_a_vault_that_hangs_stalls_nobody_else(
    vault: VaultServer, opened: Callable[..., VaultEngine], silent: int, tmp_path: Path
) -> None:
    role = role_for(vault, "transit-t")
    limits = EngineLimits(workers=4, sign_seconds=0.6, generate_seconds=2)
    hanging = GuardedEngine(
        opened(vault, role, "transit-t", url=f"https://127.0.0.1:{silent}", limits=limits)
    )
    software = SoftwareEngine.open("software", tmp_path / "keys", b"a long enough passphrase")
    made = software.generate(P256, purpose=KeyPurpose.GENERAL)
    beside = GuardedEngine(software)

    async def use(engine: GuardedEngine) -> str:
        try:
            await engine.use(
                made.key_id,
                lambda key: signature_over(key, SCHEME, MESSAGE, MessageType.RAW),
                purpose=KeyPurpose.GENERAL,
            )
        except Unavailable as error:
            return error.code
        return ""

    started = time.monotonic()
    stuck = [asyncio.create_task(use(hanging)) for _ in range(6)]
    longest = 0.0
    while not all(task.done() for task in stuck):
        before = time.monotonic()
        assert await use(beside) == ""
        await asyncio.sleep(0.01)
        longest = max(longest, time.monotonic() - before)

    assert {task.result() for task in stuck} == {"engine_timeout"}
    assert time.monotonic() - started < 3
    assert longest < 0.5
    before = time.monotonic()
    assert await use(hanging) == "engine_timeout"  # the breaker: at once
    assert time.monotonic() - before < 0.1
    await hanging.close()
    await beside.close()


# Mounts


def test_an_absent_mount_becomes_transit_in_development_alone(
    vault: VaultServer, opened: Callable[..., VaultEngine]
) -> None:
    policy = TRANSIT_POLICY + 'path "sys/mounts/{mount}" {{ capabilities = ["create", "update"] }}'
    role = role_for(vault, "new/pki", policy)

    error = refused(opened(vault, role, "new/pki"))
    assert error.code == "mount_missing"
    assert "vault secrets enable -path=new/pki transit" in error.text
    assert "new/pki/" not in vault.client.sys.list_mounted_secrets_engines()["data"]

    engine = opened(vault, role, "new/pki", may_mount=True)
    engine.check()
    assert engine.facts().type == "HASHICORP_VAULT_TRANSIT"
    sign(engine, engine.generate(P256, purpose=KeyPurpose.GENERAL))
    mounted = vault.client.sys.list_mounted_secrets_engines()["data"]
    assert mounted["new/pki/"]["type"] == "transit"


def test_a_mount_that_may_not_be_made_is_said_in_development_too(
    vault: VaultServer, opened: Callable[..., VaultEngine]
) -> None:
    engine = opened(vault, role_for(vault, "nowhere"), "nowhere", may_mount=True)

    assert refused(engine).code == "mount_missing"


def test_mounts_of_other_kinds_are_refused(
    vault: VaultServer, opened: Callable[..., VaultEngine]
) -> None:
    vault.client.sys.enable_secrets_engine("kv", path="kv-one", options={"version": "1"})
    vault.client.sys.enable_secrets_engine("pki", path="a-pki")

    texts = [
        refused(opened(vault, role_for(vault, mount, ORIGINAL_POLICY), mount)).text
        for mount in ("kv-one", "a-pki")
    ]

    assert "enable-versioning kv-one" in texts[0]
    assert "pki" in texts[1]


def test_what_it_is_before_it_was_asked_is_the_least_it_can_be(
    vault: VaultServer, opened: Callable[..., VaultEngine]
) -> None:
    engine = opened(vault, role_for(vault, "kv-t", KV_POLICY), "kv-t")
    before = engine.facts()
    engine.check()
    after = engine.facts()

    assert (before.type, before.security_level) == ("HASHICORP_VAULT_KV_V2", 1)
    assert KeyAlgorithm.ML_DSA not in before.supported
    assert KeyAlgorithm.ML_DSA in after.supported
    assert isinstance(engine, KvVaultEngine)


@pytest.mark.parametrize("kind", ["kv", "transit"])
def test_a_mount_that_is_taken_away_is_not_taken_for_lost_keys(
    vault: VaultServer, opened: Callable[..., VaultEngine], kind: str
) -> None:
    vault.mount(f"{kind}-brief", kind)
    policy = KV_POLICY if kind == "kv" else TRANSIT_POLICY
    engine = opened(vault, role_for(vault, f"{kind}-brief", policy), f"{kind}-brief")
    made = engine.generate(P256, purpose=KeyPurpose.GENERAL)
    vault.client.sys.disable_secrets_engine(f"{kind}-brief")

    with pytest.raises(EngineRefused) as refusal:
        sign(engine, made)

    assert refusal.value.code == "mount_missing"


def test_after_a_restart_one_thread_reads_the_mount_for_all(
    troubled: VaultServer, watched: Callable[[str], int], opened: Callable[..., VaultEngine]
) -> None:
    troubled.mount("transit-many", "transit")
    role = role_for(troubled, "transit-many")
    before = opened(troubled, role, "transit-many")
    made = [before.generate(P256, purpose=KeyPurpose.GENERAL) for _ in range(20)]
    after = opened(troubled, role, "transit-many")
    read = watched("transit-many/keys/lamassu-.*")

    with ThreadPoolExecutor(20) as threads:
        for _ in threads.map(lambda one: sign(after, one), made):
            pass

    assert watched("transit-many/keys/lamassu-.*") == read + 20


# KV v2, as the original keeps keys


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("kind", ["RSA", "ECDSA"])
def test_a_key_that_the_original_wrote_signs(
    vault: VaultServer, opened: Callable[..., VaultEngine], form: PrivateFormat, kind: str
) -> None:
    key: Any = (
        ec.generate_private_key(ec.SECP256R1())
        if kind == "ECDSA"
        else rsa.generate_private_key(public_exponent=65537, key_size=2048)
    )
    public_key = public_key_of(key)
    pem = key.private_bytes(Encoding.PEM, form, NoEncryption())
    vault.client.secrets.kv.v2.create_or_update_secret(
        key_id_of(public_key), {"key": base64.b64encode(pem).decode()}, mount_point="kv-t"
    )
    engine = opened(vault, role_for(vault, "kv-t", ORIGINAL_POLICY), "kv-t")

    found = engine.private_key(key_id_of(public_key), purpose=KeyPurpose.CA)

    scheme = SCHEME if kind == "ECDSA" else SCHEMES["RSASSA_PSS_SHA_256"]
    signature = signature_over(found, scheme, MESSAGE, MessageType.RAW)
    assert signature_holds(public_key, scheme, MESSAGE, MessageType.RAW, signature)


def test_a_key_is_written_as_the_original_reads_it_and_under_its_policy(
    vault: VaultServer, opened: Callable[..., VaultEngine]
) -> None:
    engine = opened(vault, role_for(vault, "kv-t", ORIGINAL_POLICY), "kv-t")
    engine.check()

    made = engine.generate(P256, purpose=KeyPurpose.CA)

    secret = vault.client.secrets.kv.v2.read_secret_version(
        made.key_id, mount_point="kv-t", raise_on_deleted_version=True
    )["data"]["data"]
    assert list(secret) == ["key"]
    pem = base64.b64decode(secret["key"], validate=True)
    assert pem.startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert public_key_of(load_pem_private_key(pem, None)) == made.public_key  # type: ignore[arg-type]
    engine.delete(made.key_id)
    with pytest.raises(hvac.exceptions.InvalidPath):
        vault.client.secrets.kv.v2.read_secret_metadata(made.key_id, mount_point="kv-t")


def test_a_secret_that_holds_another_key_signs_nothing(
    vault: VaultServer, opened: Callable[..., VaultEngine]
) -> None:
    engine = opened(vault, role_for(vault, "kv-t", KV_POLICY), "kv-t")
    made, other = (engine.generate(P256, purpose=KeyPurpose.GENERAL) for _ in range(2))
    kv = vault.client.secrets.kv.v2
    secret = kv.read_secret_version(
        other.key_id, mount_point="kv-t", raise_on_deleted_version=True
    )["data"]["data"]

    for wrong in (secret, {"key": "no key"}, {"other": "field"}, {"key": {"a": 1}}):
        kv.create_or_update_secret(made.key_id, wrong, mount_point="kv-t")
        with pytest.raises(Unavailable) as refusal:
            sign(engine, made)
        assert refusal.value.code == "key_damaged"


def test_a_deleted_secret_is_lost_and_written_again_by_an_import(
    vault: VaultServer, opened: Callable[..., VaultEngine]
) -> None:
    engine = opened(vault, role_for(vault, "kv-t", KV_POLICY), "kv-t")
    made = engine.generate(P256, purpose=KeyPurpose.GENERAL)
    assert isinstance(engine, KvVaultEngine)
    private = engine.take_out(made.key_id, purpose=KeyPurpose.GENERAL)
    vault.client.secrets.kv.v2.delete_latest_version_of_secret(made.key_id, mount_point="kv-t")
    with pytest.raises(Unavailable) as refusal:
        sign(engine, made)
    assert refusal.value.code == "key_lost"

    assert engine.take_in(private, purpose=KeyPurpose.GENERAL) == made

    sign(engine, made)


def test_only_our_orphans_are_listed_and_set_aside(
    vault: VaultServer, opened: Callable[..., VaultEngine]
) -> None:
    vault.mount("kv-orphans", "kv")
    role = role_for(vault, "kv-orphans", KV_POLICY)
    engine = opened(vault, role, "kv-orphans")
    ours = engine.generate(P256, purpose=KeyPurpose.GENERAL)
    original = ec.generate_private_key(ec.SECP256R1())
    pem = original.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    vault.client.secrets.kv.v2.create_or_update_secret(
        key_id_of(public_key_of(original)),
        {"key": base64.b64encode(pem).decode()},
        mount_point="kv-orphans",
    )
    soon = datetime.now(UTC) + timedelta(minutes=1)

    assert list(engine.key_ids(made_before=soon)) == [ours.key_id]
    assert list(engine.key_ids(made_before=soon - timedelta(hours=1))) == []
    engine.set_aside(ours.key_id)
    assert list(engine.key_ids(made_before=soon)) == []
    sign(engine, ours)  # used after all
    assert list(engine.key_ids(made_before=soon)) == [ours.key_id]


@pytest.mark.parametrize("mount", ["kv-t", "transit-t"])
def test_a_key_serves_no_other_purpose(
    vault: VaultServer, opened: Callable[..., VaultEngine], mount: str
) -> None:
    policy = KV_POLICY if mount == "kv-t" else TRANSIT_POLICY
    engine = opened(vault, role_for(vault, mount, policy), mount)
    made = engine.generate(P256, purpose=KeyPurpose.CA)

    with pytest.raises(Unavailable) as refusal:
        engine.private_key(made.key_id, purpose=KeyPurpose.GENERAL)

    assert refusal.value.code == "key_damaged"


# Transit


def test_a_transit_key_cannot_leave_or_be_deleted_by_mistake(
    vault: VaultServer, opened: Callable[..., VaultEngine]
) -> None:
    vault.mount("transit-alone", "transit")
    engine = opened(vault, role_for(vault, "transit-alone"), "transit-alone")
    made = engine.generate(P256, purpose=KeyPurpose.CA)
    transit = vault.client.secrets.transit

    [name] = transit.list_keys(mount_point="transit-alone")["data"]["keys"]
    facts = transit.read_key(name, mount_point="transit-alone")["data"]

    assert name.startswith("lamassu-0123456789abcdef-ca-")
    assert not facts["exportable"]
    assert not facts["allow_plaintext_backup"]
    assert not facts["deletion_allowed"]
    with pytest.raises(RuleViolation):
        engine.private_key(made.key_id, purpose=KeyPurpose.CA).private_numbers()  # type: ignore[union-attr]
    assert not hasattr(engine, "take_out")
    engine.delete(made.key_id)
    with pytest.raises(hvac.exceptions.InvalidPath):
        transit.list_keys(mount_point="transit-alone")


def test_keys_are_found_among_others_after_a_restart(
    vault: VaultServer, opened: Callable[..., VaultEngine]
) -> None:
    vault.mount("transit-shared", "transit")
    transit = vault.client.secrets.transit
    for kind in ("aes256-gcm96", "ed25519", "rsa-2048"):
        transit.create_key(f"others-{kind}", key_type=kind, mount_point="transit-shared")
    role = role_for(vault, "transit-shared")
    before = opened(vault, role, "transit-shared")
    made = [before.generate(P256, purpose=KeyPurpose.GENERAL) for _ in range(3)]
    name = next(
        name
        for name in transit.list_keys(mount_point="transit-shared")["data"]["keys"]
        if name.startswith("lamassu-")
    )
    transit.rotate_key(name, mount_point="transit-shared")  # somebody's mistake

    after = opened(vault, role, "transit-shared")

    for one in made:
        sign(after, one)
        sign(before, one)


def test_a_key_that_somebody_deleted_is_lost(
    vault: VaultServer, opened: Callable[..., VaultEngine]
) -> None:
    vault.mount("transit-deleted", "transit")
    engine = opened(vault, role_for(vault, "transit-deleted"), "transit-deleted")
    made = engine.generate(P256, purpose=KeyPurpose.GENERAL)
    transit = vault.client.secrets.transit
    [name] = transit.list_keys(mount_point="transit-deleted")["data"]["keys"]
    transit.update_key_configuration(name, deletion_allowed=True, mount_point="transit-deleted")
    transit.delete_key(name, mount_point="transit-deleted")

    for _ in range(2):
        with pytest.raises(Unavailable) as refusal:
            sign(engine, made)
        assert refusal.value.code == "key_lost"


# Secrets for the configuration


def test_secrets_are_read_from_a_mount_of_their_own(vault: VaultServer) -> None:
    vault.mount("settings", "kv")
    kv = vault.client.secrets.kv.v2
    kv.create_or_update_secret("lamassu/db", {"password": "p/4"}, mount_point="settings")
    kv.create_or_update_secret("two", {"a": "1", "b": "2"}, mount_point="settings")
    policy = 'path "{mount}/data/*" {{ capabilities = ["read"] }}'
    role = role_for(vault, "settings", policy)
    access = vault.access(role, "transit-t")
    source = VaultSecrets(access, mount_path="settings", seconds=5)

    assert source.read_secret("lamassu/db") == "p/4"
    assert source.read_secret("two", "b") == "2"
    with pytest.raises(RuleViolation) as several:
        source.read_secret("two")
    assert several.value.code == "secret_ambiguous"
    with pytest.raises(NotFound):
        source.read_secret("two", "c")
    with pytest.raises(NotFound) as missing:
        source.read_secret("none")
    assert missing.value.code == "secret_missing"
    with pytest.raises(RuleViolation) as key:
        source.read_secret("0" * 64)
    assert key.value.code == "secret_is_key"
    elsewhere = VaultSecrets(access, mount_path=None, seconds=5)
    with pytest.raises(EngineRefused) as denied:
        elsewhere.read_secret("lamassu/db")
    assert denied.value.code == "access_denied"
    source.close()
    elsewhere.close()
