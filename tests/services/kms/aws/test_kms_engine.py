"""AWS KMS beyond what every engine promises."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lamassu.kernel.errors import LamassuError, RuleViolation, Unavailable
from lamassu.kernel.x509.keys import key_id
from lamassu.services.kms.contract import KeyAlgorithm, KeyPurpose, KeySpec, MessageType
from lamassu.services.kms.engines.aws import kms_keys
from lamassu.services.kms.engines.aws.kms import AwsKmsEngine
from lamassu.services.kms.model import SCHEMES
from lamassu.services.kms.ports import EngineDown, GivesOutKeys, KeyStorage, TakesInKeys
from lamassu.services.kms.usecases.engines import EngineDirectory
from lamassu.services.kms.usecases.signatures import signature_holds, signature_over
from lamassu.services.kms.usecases.sweep_orphans import sweep_orphans
from tests.support.moto import INSTALLATION, MotoServer

P256 = KeySpec(KeyAlgorithm.ECDSA, 256)
ED25519 = KeySpec(KeyAlgorithm.ED25519, 256)
LATER = datetime.now(UTC) + timedelta(hours=1)


def sign(engine: AwsKmsEngine, key: str, message: bytes = b"m") -> bytes:
    private = engine.private_key(key, purpose=KeyPurpose.CA)
    return signature_over(private, SCHEMES["ECDSA_SHA_256"], message, MessageType.RAW)


def made(engine: AwsKmsEngine, spec: KeySpec = P256) -> str:
    return engine.generate(spec, purpose=KeyPurpose.CA).key_id


def code_of(engine: AwsKmsEngine, key: str) -> str:
    with pytest.raises(LamassuError) as refusal:
        sign(engine, key)
    return refusal.value.code


def as_the_original_makes(client: Any, spec: str = "ECC_NIST_P256") -> str:
    """CreateKey without tags, then an alias that is the digest of the public key in hex."""
    arn = client.create_key(KeyUsage="SIGN_VERIFY", KeySpec=spec)["KeyMetadata"]["Arn"]
    public_key = client.get_public_key(KeyId=arn)["PublicKey"]
    name = hashlib.sha256(public_key).hexdigest()
    client.create_alias(AliasName=f"alias/{name}", TargetKeyId=arn)
    return name


# Names and tags


def test_a_key_that_the_original_made_signs(moto: MotoServer) -> None:
    client = moto.client("kms")
    name = as_the_original_makes(client)
    engine = moto.kms()

    signature = sign(engine, name, b"message")

    public_key = client.get_public_key(KeyId=f"alias/{name}")["PublicKey"]
    scheme = SCHEMES["ECDSA_SHA_256"]
    assert signature_holds(public_key, scheme, b"message", MessageType.RAW, signature)


def test_a_made_key_has_the_originals_alias_and_tells_whose_it_is(moto: MotoServer) -> None:
    key = made(moto.kms())
    client = moto.client("kms")

    described = client.describe_key(KeyId=f"alias/{key}")["KeyMetadata"]

    assert (described["KeySpec"], described["KeyUsage"]) == ("ECC_NIST_P256", "SIGN_VERIFY")
    tags = client.list_resource_tags(KeyId=described["KeyId"])["Tags"]
    assert {tag["TagKey"]: tag["TagValue"] for tag in tags} == {
        "lamassu:installation": INSTALLATION,
        "lamassu:engine": "aws-kms-engine",
        "lamassu:purpose": "ca",
    }


def test_a_key_is_used_for_what_it_is_tagged_for(moto: MotoServer) -> None:
    engine = moto.kms()
    key = made(engine)

    with pytest.raises(Unavailable) as refusal:
        engine.private_key(key, purpose=KeyPurpose.GENERAL)

    assert refusal.value.code == "key_damaged"


def test_an_alias_that_was_moved_neither_signs_nor_deletes(moto: MotoServer) -> None:
    client = moto.client("kms")
    victim = made(moto.kms())
    other = made(moto.kms())
    target = client.describe_key(KeyId=f"alias/{victim}")["KeyMetadata"]["KeyId"]
    client.update_alias(AliasName=f"alias/{other}", TargetKeyId=target)
    engine = moto.kms()

    assert code_of(engine, other) == "key_damaged"
    with pytest.raises(Unavailable):
        engine.delete(other)
    assert sign(engine, victim)


def test_a_key_is_looked_up_once(moto: MotoServer) -> None:
    key = made(moto.kms())
    engine = moto.kms()
    moto.calm()

    for _ in range(3):
        sign(engine, key)

    assert moto.operations() == ["GetPublicKey", "ListResourceTags", "Sign", "Sign", "Sign"]


def test_no_name_but_a_key_id_is_asked_for(moto: MotoServer) -> None:
    engine = moto.kms()
    for name in ("aws/s3", "0" * 63, "A" * 64, f"{'0' * 64}\n"):
        assert code_of(engine, name) == "key_lost"
        engine.delete(name)
    assert moto.operations() == []


# Making and deleting


def test_it_offers_the_configured_spec_first_and_makes_the_others_too(moto: MotoServer) -> None:
    first = KeySpec(KeyAlgorithm.ECDSA, 384)
    engine = AwsKmsEngine("e", moto.access(), first=first)

    supported = engine.facts().supported

    assert next(iter(supported)) is KeyAlgorithm.ECDSA
    assert supported[KeyAlgorithm.ECDSA] == [384, 256, 521]
    assert supported[KeyAlgorithm.RSA] == [2048, 3072, 4096]
    assert made(engine, KeySpec(KeyAlgorithm.RSA, 2048))


def test_it_neither_takes_keys_in_nor_gives_them_out(moto: MotoServer) -> None:
    assert not isinstance(moto.kms(), TakesInKeys | GivesOutKeys)


def test_a_key_that_could_not_be_named_is_scheduled_for_deletion(moto: MotoServer) -> None:
    client = moto.client("kms")
    before = {key["KeyId"] for key in client.list_keys()["Keys"]}
    moto.fault("CreateAlias", "AccessDeniedException")

    with pytest.raises(LamassuError) as refusal:
        made(moto.kms())

    assert refusal.value.code == "access_denied"
    [left] = {key["KeyId"] for key in client.list_keys()["Keys"]} - before
    state = client.describe_key(KeyId=left)["KeyMetadata"]["KeyState"]
    assert state == "PendingDeletion"


def test_a_key_left_unnamed_by_a_crash_carries_the_tags_to_find_it_by(moto: MotoServer) -> None:
    client = moto.client("kms")
    before = {key["KeyId"] for key in client.list_keys()["Keys"]}
    moto.fault("GetPublicKey", "InternalFailure", status=500)
    moto.fault("ScheduleKeyDeletion", "InternalFailure", status=500)

    with pytest.raises(Unavailable):
        made(moto.kms())

    [left] = {key["KeyId"] for key in client.list_keys()["Keys"]} - before
    tags = client.list_resource_tags(KeyId=left)["Tags"]
    assert {"TagKey": "lamassu:installation", "TagValue": INSTALLATION} in tags


def test_what_was_just_made_may_be_unknown_for_a_moment(moto: MotoServer) -> None:
    moto.fault("GetPublicKey", "NotFoundException", times=2)
    moto.fault("CreateAlias", "NotFoundException", times=1)
    moto.fault("Sign", "NotFoundException", times=2)

    engine = moto.kms()
    assert sign(engine, made(engine))


def test_making_is_repeated_only_when_it_was_throttled(
    moto: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lamassu.services.kms.engines.aws.kms.THROTTLED_PAUSES", (0.0, 0.0))
    moto.fault("CreateKey", "ThrottlingException", times=2)
    assert made(moto.kms())

    moto.calm()
    moto.fault("CreateKey", "InternalFailure", status=500)
    with pytest.raises(Unavailable):
        made(moto.kms())
    assert moto.operations() == ["CreateKey"]


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        ("ValidationException", RuleViolation, "unsupported_key"),
        ("UnsupportedOperationException", RuleViolation, "unsupported_key"),
        ("LimitExceededException", Unavailable, "engine_full"),
    ],
)
def test_what_the_region_or_quota_forbids_is_said_before_there_is_a_key(
    moto: MotoServer, answer: str, kind: type[LamassuError], code: str
) -> None:
    moto.fault("CreateKey", answer)

    with pytest.raises(kind) as refusal:
        made(moto.kms(), ED25519)

    assert refusal.value.code == code
    assert moto.operations() == ["CreateKey"]


def test_a_service_that_makes_another_kind_than_asked_is_not_believed(moto: MotoServer) -> None:
    client = moto.client("kms")

    class Careless(AwsKmsEngine):
        def _create(self, spec: KeySpec, purpose: KeyPurpose) -> str:
            return super()._create(P256, purpose)

    with pytest.raises(RuleViolation) as refusal:
        made(Careless("e", moto.access()), ED25519)

    assert refusal.value.code == "unsupported_key"
    states = [
        client.describe_key(KeyId=key["KeyId"])["KeyMetadata"]["KeyState"]
        for key in client.list_keys()["Keys"]
    ]
    assert states[-1] == "PendingDeletion"


def test_a_deleted_key_ends_after_the_shortest_window(moto: MotoServer) -> None:
    engine, client = moto.kms(), moto.client("kms")
    key = made(engine)
    there = client.describe_key(KeyId=f"alias/{key}")["KeyMetadata"]["KeyId"]

    engine.delete(key)

    described = client.describe_key(KeyId=there)["KeyMetadata"]
    assert described["KeyState"] == "PendingDeletion"
    left = described["DeletionDate"] - datetime.now(UTC)
    assert timedelta(days=6, hours=23) < left <= timedelta(days=7)


def test_a_disabled_key_can_be_deleted(moto: MotoServer) -> None:
    engine, client = moto.kms(), moto.client("kms")
    key = made(engine)
    there = client.describe_key(KeyId=f"alias/{key}")["KeyMetadata"]["KeyId"]
    client.disable_key(KeyId=there)

    moto.kms().delete(key)

    assert client.describe_key(KeyId=there)["KeyMetadata"]["KeyState"] == "PendingDeletion"


# Keys that cannot be used


def test_a_disabled_key_says_so_and_comes_back(moto: MotoServer) -> None:
    engine, client = moto.kms(), moto.client("kms")
    key = made(engine)
    there = client.describe_key(KeyId=f"alias/{key}")["KeyMetadata"]["KeyId"]
    client.disable_key(KeyId=there)

    assert [code_of(engine, key), code_of(moto.kms(), key)] == ["key_disabled", "key_disabled"]

    client.enable_key(KeyId=there)
    assert sign(engine, key)


def test_a_key_pending_deletion_is_lost_and_comes_back_if_that_is_cancelled(
    moto: MotoServer,
) -> None:
    engine, client = moto.kms(), moto.client("kms")
    key = made(engine)
    there = client.describe_key(KeyId=f"alias/{key}")["KeyMetadata"]["KeyId"]
    client.schedule_key_deletion(KeyId=there, PendingWindowInDays=7)

    with pytest.raises(Unavailable) as refusal:
        sign(engine, key)
    assert refusal.value.code == "key_lost"
    assert "pending deletion" in refusal.value.text

    client.cancel_key_deletion(KeyId=there)
    client.enable_key(KeyId=there)
    assert sign(engine, key)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("AccessDeniedException", "key_access_denied"),
        ("InvalidKeyUsageException", "key_damaged"),
        ("KeyUnavailableException", "engine_failing"),
        ("NotFoundException", "key_lost"),
    ],
)
def test_a_refusal_of_one_key_says_nothing_of_the_engine(
    moto: MotoServer, answer: str, code: str
) -> None:
    key = made(moto.kms())
    engine = moto.kms()
    moto.fault("Sign", answer)

    with pytest.raises(Unavailable) as refusal:
        sign(engine, key)

    assert refusal.value.code == code
    assert not isinstance(refusal.value, EngineDown)


def test_tags_that_may_not_be_read_keep_no_key_from_signing(moto: MotoServer) -> None:
    key = made(moto.kms())
    moto.fault("ListResourceTags", "AccessDeniedException")

    assert sign(moto.kms(), key)


# What KMS can sign


def test_a_long_message_is_signed_whole_or_refused(moto: MotoServer) -> None:
    engine = moto.kms()
    long = b"x" * 5000
    for spec, name in ((KeySpec(KeyAlgorithm.ML_DSA, 65), "ML_DSA_65"), (P256, "ECDSA_SHA_256")):
        key = engine.generate(spec, purpose=KeyPurpose.CA)
        private = engine.private_key(key.key_id, purpose=KeyPurpose.CA)
        signature = signature_over(private, SCHEMES[name], long, MessageType.RAW)
        assert signature_holds(key.public_key, SCHEMES[name], long, MessageType.RAW, signature)

    private = engine.private_key(made(engine, ED25519), purpose=KeyPurpose.CA)
    assert isinstance(private, Ed25519PrivateKey)
    for message in (long, b""):
        with pytest.raises(RuleViolation) as refusal:
            private.sign(message)
        assert (refusal.value.code, refusal.value.field) == ("message_too_long", "message")


# Orphans


def test_only_this_installations_keys_are_listed_and_set_aside(
    moto: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kms_keys, "PAGE", 3)  # several pages
    client, engine = moto.client("kms"), moto.kms()
    foreign = AwsKmsEngine("e", moto.access(), installation="f" * 16)
    mine, other = made(engine), made(foreign)
    originals = as_the_original_makes(client)
    client.create_alias(
        AliasName="alias/app", TargetKeyId=client.create_key()["KeyMetadata"]["KeyId"]
    )

    held = engine.key_ids(made_before=LATER)

    assert mine in held
    assert not {other, originals} & set(held)
    assert mine not in engine.key_ids(made_before=datetime.now(UTC) - timedelta(hours=1))

    engine.set_aside(mine)

    assert mine not in engine.key_ids(made_before=LATER)
    assert sign(moto.kms(), mine), "it comes back when it is used after all"
    assert mine in engine.key_ids(made_before=LATER)


def test_a_listing_is_bounded(moto: MotoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        made(moto.kms())
    monkeypatch.setattr(kms_keys, "PAGE", 1)
    monkeypatch.setattr(kms_keys, "PAGES_LIMIT", 2)

    with pytest.raises(Unavailable) as refusal:
        moto.kms().key_ids(made_before=LATER)

    assert refusal.value.code == "engine_crowded"


def test_an_engine_that_does_not_know_its_installation_lists_nothing(moto: MotoServer) -> None:
    engine = AwsKmsEngine("e", moto.access())
    made(engine)
    assert engine.key_ids(made_before=LATER) == ()


def test_the_key_id_is_the_originals(moto: MotoServer) -> None:
    key = moto.kms().generate(P256, purpose=KeyPurpose.CA)
    assert key.key_id == key_id(key.public_key) == hashlib.sha256(key.public_key).hexdigest()


async def test_a_key_that_may_not_be_tagged_keeps_nobody_from_starting(moto: MotoServer) -> None:
    class Rows:
        async def known_among(self, key_ids: Sequence[str]) -> frozenset[str]:
            return frozenset()

    engine = moto.kms()
    key = made(engine)
    moto.fault("TagResource", "AccessDeniedException")
    directory = EngineDirectory([engine], default_id=engine.facts().id)

    swept = await sweep_orphans(
        engines=directory,
        storage=cast("KeyStorage", Rows()),
        now=datetime.now(UTC) + timedelta(hours=2),
    )

    assert key not in swept
    assert key in engine.key_ids(made_before=LATER)
