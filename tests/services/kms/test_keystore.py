"""The software engine's directory, attacked by somebody who can write to it or read it."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_public_key,
)

from lamassu.kernel.errors import Conflict, RuleViolation, Unavailable
from lamassu.services.kms.contract import KeyAlgorithm, KeyPurpose, KeySpec
from lamassu.services.kms.engines.keys_in_memory import signs_inline
from lamassu.services.kms.engines.keystore import HEADER, Keystore
from lamassu.services.kms.engines.software import SoftwareEngine
from lamassu.services.kms.model import PrivateKey
from lamassu.services.kms.usecases.guard import GuardedEngine
from lamassu.services.kms.usecases.guard.pool import WorkerPool

from .conftest import P256, SECRET


def reopened(directory: Path) -> GuardedEngine:
    """The engine after a restart: nothing is in memory."""
    return GuardedEngine(SoftwareEngine.open("software", directory, SECRET))


@pytest.fixture
def guarded(engine: SoftwareEngine) -> GuardedEngine:
    """The engine of the whole run, as the KMS uses it."""
    return GuardedEngine(engine)


def test_a_wrong_passphrase_is_told_at_open(fresh_store: Path) -> None:
    Keystore.open(fresh_store, SECRET)

    with pytest.raises(RuleViolation, match="wrong passphrase") as refusal:
        Keystore.open(fresh_store, b"another passphrase")

    assert refusal.value.code == "wrong_passphrase"
    assert b"another" not in str(refusal.value).encode()


def test_a_short_secret_is_refused(fresh_store: Path) -> None:
    with pytest.raises(RuleViolation, match="shorter"):
        Keystore.open(fresh_store, b"short\n")
    assert not fresh_store.exists()


def test_a_line_end_after_the_passphrase_does_not_count(fresh_store: Path) -> None:
    Keystore.open(fresh_store, SECRET)
    Keystore.open(fresh_store, SECRET + b"\r\n")


def test_weakened_derivation_parameters_are_refused(fresh_store: Path) -> None:
    Keystore.open(fresh_store, SECRET)
    header = fresh_store / HEADER
    content = json.loads(header.read_bytes())
    header.write_text(json.dumps(content | {"n": 2}))

    with pytest.raises(RuleViolation, match="out of bounds"):
        Keystore.open(fresh_store, SECRET)


@pytest.mark.parametrize("broken", ["", "[]", "null", '{"format": 1}', '{"format": 1, "kdf": 3}'])
def test_a_broken_header_is_told(fresh_store: Path, broken: str) -> None:
    fresh_store.mkdir(mode=0o700)
    (fresh_store / HEADER).write_text(broken)

    with pytest.raises(RuleViolation) as refusal:
        Keystore.open(fresh_store, SECRET)
    assert refusal.value.code == "keystore_damaged"


async def test_a_lost_header_is_never_replaced_by_a_new_one(fresh_store: Path) -> None:
    await reopened(fresh_store).generate(P256, purpose=KeyPurpose.CA)
    (fresh_store / HEADER).unlink()

    with pytest.raises(RuleViolation, match="restore it from a backup"):
        Keystore.open(fresh_store, SECRET)
    assert not (fresh_store / HEADER).exists()


def test_a_directory_open_to_others_is_refused(fresh_store: Path) -> None:
    fresh_store.mkdir()
    fresh_store.chmod(0o750)

    with pytest.raises(RuleViolation, match="chmod 700"):
        Keystore.open(fresh_store, SECRET)


async def test_files_are_private_and_hold_no_key_in_clear(fresh_store: Path) -> None:
    engine = reopened(fresh_store)
    made = await engine.generate(P256, purpose=KeyPurpose.CA)
    clear = await engine.use(
        made.key_id,
        lambda key: key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        purpose=KeyPurpose.CA,
    )

    assert stat.S_IMODE(fresh_store.stat().st_mode) == 0o700
    files = list(fresh_store.iterdir())
    assert sorted(file.name for file in files) == sorted([HEADER, f"{made.key_id}.key"])
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert clear[-32:] not in file.read_bytes()
    assert "PRIVATE" not in repr(engine)


async def test_a_key_file_moved_to_another_id_does_not_open(fresh_store: Path) -> None:
    engine = reopened(fresh_store)
    mine = await engine.generate(P256, purpose=KeyPurpose.GENERAL)
    theirs = await engine.generate(P256, purpose=KeyPurpose.GENERAL)
    os.replace(fresh_store / f"{mine.key_id}.key", fresh_store / f"{theirs.key_id}.key")

    with pytest.raises(Unavailable) as refusal:
        await reopened(fresh_store).public_key(theirs.key_id, purpose=KeyPurpose.GENERAL)
    assert refusal.value.code == "key_damaged"


@pytest.mark.parametrize("warm", [True, False], ids=["from memory", "from its file"])
async def test_a_key_does_not_open_for_another_purpose(fresh_store: Path, warm: bool) -> None:
    engine = reopened(fresh_store)
    made = await engine.generate(P256, purpose=KeyPurpose.PLATFORM)
    asked = engine if warm else reopened(fresh_store)

    with pytest.raises(Unavailable) as refusal:
        await asked.use(made.key_id, lambda key: key, purpose=KeyPurpose.GENERAL)
    assert refusal.value.code == "key_damaged"


async def test_a_changed_byte_is_noticed(fresh_store: Path) -> None:
    made = await reopened(fresh_store).generate(P256, purpose=KeyPurpose.CA)
    file = fresh_store / f"{made.key_id}.key"
    content = json.loads(file.read_bytes())
    sealed = content["sealed"]
    content["sealed"] = ("A" if sealed[0] != "A" else "B") + sealed[1:]
    file.write_text(json.dumps(content))

    with pytest.raises(Unavailable) as refusal:
        await reopened(fresh_store).public_key(made.key_id, purpose=KeyPurpose.CA)
    assert refusal.value.code == "key_damaged"


@pytest.mark.parametrize("key_id", ["../../etc/passwd", "", "0" * 63, "A" * 64])
async def test_only_key_ids_become_paths(guarded: GuardedEngine, key_id: str) -> None:
    with pytest.raises(Unavailable, match="not the id of a key"):
        await guarded.public_key(key_id, purpose=KeyPurpose.CA)


async def test_keys_survive_a_restart(fresh_store: Path) -> None:
    made = await reopened(fresh_store).generate(P256, purpose=KeyPurpose.CA)
    engine = reopened(fresh_store)

    signature = await engine.use(
        made.key_id, lambda key: key.sign(b"m", ec.ECDSA(hashes.SHA256())), purpose=KeyPurpose.CA
    )

    assert await engine.public_key(made.key_id, purpose=KeyPurpose.CA) == made.public_key
    load_der_public_key(made.public_key).verify(signature, b"m", ec.ECDSA(hashes.SHA256()))


async def test_a_key_file_is_never_overwritten(fresh_store: Path) -> None:
    keystore = Keystore.open(fresh_store, SECRET)
    key = ec.generate_private_key(ec.SECP256R1())
    keystore.write("0" * 64, KeyPurpose.CA, key)

    with pytest.raises(Conflict):
        keystore.write("0" * 64, KeyPurpose.CA, ec.generate_private_key(ec.SECP256R1()))
    assert keystore.read("0" * 64, KeyPurpose.CA).private_numbers() == key.private_numbers()


async def test_a_key_set_aside_comes_back_when_used(fresh_store: Path) -> None:
    engine = reopened(fresh_store)
    made = await engine.generate(P256, purpose=KeyPurpose.CA)

    await engine.set_aside(made.key_id)

    assert not (fresh_store / f"{made.key_id}.key").exists()
    assert await engine.public_key(made.key_id, purpose=KeyPurpose.CA) == made.public_key
    assert (fresh_store / f"{made.key_id}.key").exists()


async def test_a_deleted_key_is_gone_from_memory_too(guarded: GuardedEngine) -> None:
    made = await guarded.generate(P256, purpose=KeyPurpose.GENERAL)
    await guarded.delete(made.key_id)
    await guarded.delete(made.key_id)

    with pytest.raises(Unavailable) as refusal:
        await guarded.use(made.key_id, lambda key: key, purpose=KeyPurpose.GENERAL)
    assert refusal.value.code == "key_lost"


async def test_a_key_opens_for_its_own_purpose_only(guarded: GuardedEngine) -> None:
    ca = await guarded.generate(P256, purpose=KeyPurpose.CA)

    with pytest.raises(Unavailable):
        await guarded.take_out(ca.key_id, purpose=KeyPurpose.PLATFORM)


async def test_rsa_signs_beside_the_event_loop(guarded: GuardedEngine) -> None:
    made = await guarded.generate(KeySpec(KeyAlgorithm.RSA, 2048), purpose=KeyPurpose.CA)
    loop_thread = asyncio.get_running_loop()

    def build(key: object) -> bool:
        try:
            return asyncio.get_running_loop() is loop_thread
        except RuntimeError:
            return False

    assert not await guarded.use(made.key_id, build, purpose=KeyPurpose.CA)
    signature = await guarded.use(
        made.key_id,
        lambda key: key.sign(b"m", padding.PKCS1v15(), hashes.SHA256()),
        purpose=KeyPurpose.CA,
    )
    load_der_public_key(made.public_key).verify(
        signature, b"m", padding.PKCS1v15(), hashes.SHA256()
    )


@pytest.mark.parametrize(
    ("key", "inline"),
    [
        (ec.generate_private_key(ec.SECP256R1()), True),
        (ec.generate_private_key(ec.SECP521R1()), True),
        (ed25519.Ed25519PrivateKey.generate(), True),
        (rsa.generate_private_key(65537, 2048), False),
        (mldsa.MLDSA44PrivateKey.generate(), False),
    ],
)
def test_what_costs_no_more_than_a_hop_signs_inline(key: PrivateKey, inline: bool) -> None:
    assert signs_inline(key) is inline


async def test_a_full_pool_refuses_instead_of_queueing_without_end() -> None:
    pool = WorkerPool("full", workers=1, waiting=1)
    tasks = [asyncio.create_task(pool.run(lambda: time.sleep(0.05))) for _ in range(2)]
    await asyncio.sleep(0)

    with pytest.raises(Unavailable) as refusal:
        await pool.run(lambda: None)
    assert (refusal.value.code, refusal.value.retry_after) == ("engine_busy", 1)

    await asyncio.gather(*tasks)
    await pool.run(lambda: None)
    pool.close()
    with pytest.raises(Unavailable, match="closing"):
        await pool.run(lambda: None)
