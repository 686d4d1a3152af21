"""AWS Secrets Manager beyond what every engine promises."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from lamassu.kernel.errors import LamassuError, NotFound, RuleViolation, Unavailable
from lamassu.services.kms.contract import KeyAlgorithm, KeyPurpose, KeySpec, MessageType
from lamassu.services.kms.engines.aws import secrets_manager
from lamassu.services.kms.engines.aws.secrets_manager import SecretsManagerEngine
from lamassu.services.kms.model import SCHEMES
from lamassu.services.kms.ports import EngineDown
from lamassu.services.kms.usecases.signatures import signature_over
from tests.support.moto import INSTALLATION, MotoServer

P256 = KeySpec(KeyAlgorithm.ECDSA, 256)
LATER = datetime.now(UTC) + timedelta(hours=1)


def openssl(*arguments: str, given: bytes = b"") -> bytes:
    done = subprocess.run(["openssl", *arguments], input=given, capture_output=True, check=True)
    return done.stdout


def as_the_original_writes(pem: bytes) -> tuple[str, str]:
    """The name and text of its secret, made without any code of ours."""
    spki = openssl("pkey", "-pubout", "-outform", "DER", given=pem)
    return hashlib.sha256(spki).hexdigest(), '{"key": "' + base64.b64encode(pem).decode() + '"}'


def new_pem(*kind: str) -> bytes:
    return openssl("genpkey", "-algorithm", *kind)


EC = ("EC", "-pkeyopt", "ec_paramgen_curve:P-256")


def sign(engine: SecretsManagerEngine, key: str) -> bytes:
    private = engine.private_key(key, purpose=KeyPurpose.GENERAL)
    return signature_over(private, SCHEMES["ECDSA_SHA_256"], b"m", MessageType.RAW)


def code_of(engine: SecretsManagerEngine, key: str) -> str:
    with pytest.raises(LamassuError) as refusal:
        sign(engine, key)
    assert not isinstance(refusal.value, EngineDown)
    return refusal.value.code


def made(engine: SecretsManagerEngine) -> str:
    return engine.generate(P256, purpose=KeyPurpose.GENERAL).key_id


# The original's form


def test_a_key_is_written_byte_for_byte_as_the_original_writes_it(moto: MotoServer) -> None:
    pem = new_pem(*EC)
    name, text = as_the_original_writes(pem)

    key = load_pem_private_key(pem, None)
    taken = moto.secrets_manager().take_in(key, purpose=KeyPurpose.GENERAL)  # type: ignore[arg-type]

    stored = moto.client("secretsmanager").get_secret_value(SecretId=name)
    assert (taken.key_id, stored["SecretString"]) == (name, text)


@pytest.mark.parametrize("kind", [EC, ("RSA", "-pkeyopt", "rsa_keygen_bits:2048")])
def test_a_key_that_the_original_wrote_is_read(moto: MotoServer, kind: tuple[str, ...]) -> None:
    pem = new_pem(*kind)
    name, text = as_the_original_writes(pem)
    moto.client("secretsmanager").create_secret(Name=name, SecretString=text)

    key = moto.secrets_manager().private_key(name, purpose=KeyPurpose.CA)

    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert hashlib.sha256(public).hexdigest() == name


def test_older_pem_forms_are_read_too(moto: MotoServer) -> None:
    pem = new_pem(*EC)
    name, _ = as_the_original_writes(pem)
    key = load_pem_private_key(pem, None)
    sec1 = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    text = json.dumps({"key": base64.b64encode(sec1).decode()})
    moto.client("secretsmanager").create_secret(Name=name, SecretString=text)

    assert sign(moto.secrets_manager(), name)


def test_a_secret_tells_whose_key_it_is(moto: MotoServer) -> None:
    key = made(moto.secrets_manager())
    tags = moto.client("secretsmanager").describe_secret(SecretId=key)["Tags"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {
        "lamassu:installation": INSTALLATION,
        "lamassu:engine": "aws-secrets",
        "lamassu:purpose": "general",
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "[]",
        '{"other": "x"}',
        '{"key": 7}',
        '{"key": "###"}',
        '{"key": "bm8gUEVN"}',
        "another",
    ],
)
def test_a_secret_that_holds_another_thing_signs_nothing(moto: MotoServer, text: str) -> None:
    client = moto.client("secretsmanager")
    key = made(moto.secrets_manager())
    if text == "another":
        _, text = as_the_original_writes(new_pem(*EC))
    client.put_secret_value(
        SecretId=key, **({"SecretString": text} if text else {"SecretBinary": b"x"})
    )

    assert code_of(moto.secrets_manager(), key) == "key_damaged"


# Production, memory and purposes


def test_it_is_no_engine_for_the_keys_of_cas(moto: MotoServer) -> None:
    facts = moto.secrets_manager().facts()
    assert (facts.for_ca_keys, facts.security_level) == (False, 1)
    assert (facts.type, facts.provider) == ("AWS_SECRETS_MANAGER", "Amazon Web Services")


def test_a_key_is_read_once_and_signs_at_once(moto: MotoServer) -> None:
    key = made(moto.secrets_manager())
    engine = moto.secrets_manager()
    assert engine.inline_key(key, purpose=KeyPurpose.GENERAL) is None
    moto.calm()

    for _ in range(3):
        sign(engine, key)

    assert moto.operations() == ["DescribeSecret", "GetSecretValue"]
    assert engine.inline_key(key, purpose=KeyPurpose.GENERAL) is not None
    engine.close()
    assert engine.inline_key(key, purpose=KeyPurpose.GENERAL) is None


def test_a_key_is_used_for_what_it_is_tagged_for(moto: MotoServer) -> None:
    engine = moto.secrets_manager()
    key = made(engine)
    with pytest.raises(Unavailable) as refusal:
        engine.private_key(key, purpose=KeyPurpose.CA)
    assert refusal.value.code == "key_damaged"


def test_tags_that_may_not_be_read_keep_no_key_from_signing(moto: MotoServer) -> None:
    key = made(moto.secrets_manager())
    moto.fault("DescribeSecret", "AccessDeniedException")
    assert sign(moto.secrets_manager(), key)


# Deleting, and what cannot be used


def test_a_deleted_key_can_be_recovered_for_a_week(moto: MotoServer) -> None:
    client, engine = moto.client("secretsmanager"), moto.secrets_manager()
    key = made(engine)

    engine.delete(key)

    assert code_of(engine, key) == "key_lost"
    ends = client.describe_secret(SecretId=key)["DeletedDate"]
    assert ends < datetime.now(UTC) + timedelta(days=8)
    client.restore_secret(SecretId=key)
    assert sign(engine, key)


def test_a_key_that_was_deleted_and_is_taken_in_again_comes_back(moto: MotoServer) -> None:
    engine = moto.secrets_manager()
    key = made(engine)
    private = engine.take_out(key, purpose=KeyPurpose.GENERAL)
    engine.delete(key)

    assert engine.take_in(private, purpose=KeyPurpose.GENERAL).key_id == key

    assert sign(moto.secrets_manager(), key)


def test_nothing_is_overwritten_by_a_key_taken_in(moto: MotoServer) -> None:
    client, engine = moto.client("secretsmanager"), moto.secrets_manager()
    key = made(engine)
    private = engine.take_out(key, purpose=KeyPurpose.GENERAL)
    client.put_secret_value(SecretId=key, SecretString="of somebody else")

    with pytest.raises(Unavailable) as refusal:
        engine.take_in(private, purpose=KeyPurpose.GENERAL)

    assert refusal.value.code == "key_damaged"
    assert client.get_secret_value(SecretId=key)["SecretString"] == "of somebody else"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("AccessDeniedException", "key_access_denied"),
        ("DecryptionFailure", "secret_undecryptable"),
        ("InvalidRequestException", "key_lost"),
        ("SomethingNew", "engine_failing"),
    ],
)
def test_a_refusal_of_one_secret_says_nothing_of_the_engine(
    moto: MotoServer, answer: str, code: str
) -> None:
    key = made(moto.secrets_manager())
    moto.fault("GetSecretValue", answer)
    assert code_of(moto.secrets_manager(), key) == code


def test_no_name_but_a_key_id_is_asked_for(moto: MotoServer) -> None:
    engine = moto.secrets_manager()
    for name in ("config/database", "0" * 63, "A" * 64, ""):
        assert code_of(engine, name) == "key_lost"
        engine.delete(name)
    assert moto.operations() == []


def test_a_full_account_says_so(moto: MotoServer) -> None:
    moto.fault("CreateSecret", "LimitExceededException")
    with pytest.raises(Unavailable) as refusal:
        made(moto.secrets_manager())
    assert refusal.value.code == "engine_full"


# Orphans


def test_only_this_installations_keys_are_listed_and_set_aside(
    moto: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets_manager, "PAGE", 2)
    engine = moto.secrets_manager()
    foreign = SecretsManagerEngine("e", moto.access(), installation="f" * 16)
    mine, other = made(engine), made(foreign)
    original, text = as_the_original_writes(new_pem(*EC))
    client = moto.client("secretsmanager")
    client.create_secret(Name=original, SecretString=text)
    tagged = {"Key": "lamassu:installation", "Value": INSTALLATION}
    client.create_secret(Name="config/x", SecretString="x", Tags=[tagged])

    held = engine.key_ids(made_before=LATER)

    assert mine in held
    assert not {other, original, "config/x"} & set(held)
    assert engine.key_ids(made_before=datetime.now(UTC) - timedelta(hours=1)) == []

    engine.set_aside(mine)

    assert mine not in engine.key_ids(made_before=LATER)
    assert sign(moto.secrets_manager(), mine), "it comes back when it is used after all"
    assert mine in engine.key_ids(made_before=LATER)


def test_a_listing_is_bounded(moto: MotoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        made(moto.secrets_manager())
    monkeypatch.setattr(secrets_manager, "PAGE", 1)
    monkeypatch.setattr(secrets_manager, "PAGES_LIMIT", 2)
    with pytest.raises(Unavailable) as refusal:
        moto.secrets_manager().key_ids(made_before=LATER)
    assert refusal.value.code == "engine_crowded"


# Secrets that are no keys


def test_a_secret_is_read_for_the_configuration(moto: MotoServer) -> None:
    moto.client("secretsmanager").create_secret(Name="lamassu/db", SecretString="pässword")
    assert moto.secrets_manager().read_secret("lamassu/db") == "pässword"


def test_a_secret_that_is_absent_binary_or_a_key_is_refused(moto: MotoServer) -> None:
    engine, client = moto.secrets_manager(), moto.client("secretsmanager")
    client.create_secret(Name="binary", SecretBinary=b"\x00")
    key = made(engine)
    moto.calm()

    for name, kind, code in (
        ("absent", NotFound, "secret_missing"),
        ("binary", RuleViolation, "secret_is_binary"),
        (key, RuleViolation, "secret_is_key"),
    ):
        with pytest.raises(kind) as refusal:
            engine.read_secret(name)
        assert refusal.value.code == code
    assert moto.operations() == ["GetSecretValue"] * 2, "a key is not even fetched"

    moto.fault("GetSecretValue", "DecryptionFailure")
    with pytest.raises(Unavailable) as undecryptable:
        engine.read_secret("binary")
    assert undecryptable.value.code == "secret_undecryptable"
