"""As whom AWS is called, and what each way to fail says."""

from __future__ import annotations

import logging
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from lamassu.kernel.errors import LamassuError, Unavailable
from lamassu.kernel.x509.pem import pem_of
from lamassu.services.kms.contract import KeyAlgorithm, KeyPurpose, KeySpec, MessageType
from lamassu.services.kms.engines.aws.access import AwsAccess
from lamassu.services.kms.engines.aws.kms import AwsKmsEngine
from lamassu.services.kms.engines.aws.secrets_manager import SecretsManagerEngine
from lamassu.services.kms.model import SCHEMES
from lamassu.services.kms.ports import EngineDown, EngineLimits, EngineRefused
from lamassu.services.kms.usecases.signatures import signature_over
from tests.support.moto import ACCESS_KEY, REGION, SECRET_KEY, MotoServer
from tests.support.pki import make
from tests.support.server import command

P256 = KeySpec(KeyAlgorithm.ECDSA, 256)
ROLE = "arn:aws:iam::123456789012:role/lamassu"
QUICK = EngineLimits(workers=4, sign_seconds=1, generate_seconds=2)


def refusal_of(engine: AwsKmsEngine | SecretsManagerEngine) -> EngineDown:
    with pytest.raises(EngineDown) as refusal:
        engine.check()
    text = refusal.value.text
    assert "crypto engine" in text or "region" in text
    for hidden in (SECRET_KEY, "secret-in-text", "arn:aws:kms", "RequestId", "r-1"):
        assert hidden not in text
    return refusal.value


def sign(engine: AwsKmsEngine, key: str) -> bytes:
    private = engine.private_key(key, purpose=KeyPurpose.CA)
    return signature_over(private, SCHEMES["ECDSA_SHA_256"], b"m", MessageType.RAW)


# As whom


def test_static_keys_are_used_whatever_the_host_has(
    moto: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOFTHEHOST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-host")
    moto.kms().check()
    assert moto.seen() == [("ListAliases", ACCESS_KEY)]


def test_the_default_chain_finds_the_hosts_credentials(
    moto: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOFTHEHOST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-host")
    for method in ("default", "", "instance"):
        AwsKmsEngine("e", AwsAccess(REGION, method, moto.url)).check()
    assert moto.seen() == [("ListAliases", "AKIAOFTHEHOST")] * 3


def test_a_role_is_assumed_once_and_renewed_before_it_ends(
    moto: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOFTHEHOST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-host")
    engine = AwsKmsEngine("e", AwsAccess(REGION, "role", moto.url, role_arn=ROLE))
    key = engine.generate(P256, purpose=KeyPurpose.CA).key_id
    sign(engine, key)
    seen = moto.seen()
    assert seen[0] == ("AssumeRole", "AKIAOFTHEHOST")
    assert [operation for operation, _ in seen].count("AssumeRole") == 1
    [assumed] = {who for operation, who in seen if operation != "AssumeRole"}
    assert assumed.startswith("ASIA")

    # nearer to their end than the library lets a use come: each use renews them first
    with moto.role_lifetime(60):
        engine = AwsKmsEngine("e", AwsAccess(REGION, "role", moto.url, role_arn=ROLE))
        moto.calm()
        for _ in range(2):
            sign(engine, key)
    used = [who for operation, who in moto.seen() if operation == "Sign"]
    assert len(set(used)) == 2


def test_a_role_that_cannot_be_renewed_yet_still_signs(
    moto: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOFTHEHOST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-host")
    with moto.role_lifetime(14 * 60):  # a renewal is tried, and not needed yet
        engine = AwsKmsEngine("e", AwsAccess(REGION, "role", moto.url, role_arn=ROLE))
        key = engine.generate(P256, purpose=KeyPurpose.CA).key_id
        moto.calm()
        moto.fault("AssumeRole", "AccessDenied", status=403)
        assert sign(engine, key)
    assert moto.operations() == ["AssumeRole", "Sign"]


def test_a_role_asks_sts_where_it_is_told(
    moto: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOFTHEHOST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-host")
    nowhere = "http://127.0.0.1:1"
    access = AwsAccess(REGION, "role", moto.url, sts_endpoint_url=nowhere, role_arn=ROLE)
    assert refusal_of(AwsKmsEngine("e", access, limits=QUICK)).code == "engine_unreachable"
    access = AwsAccess(REGION, "role", moto.url, sts_endpoint_url=moto.url, role_arn=ROLE)
    AwsKmsEngine("e", access).check()


def test_the_vendors_library_is_loaded_only_where_aws_is_configured() -> None:
    code = (
        "import sys, lamassu.cli.main, lamassu.wiring;"
        "sys.exit(any(name in sys.modules for name in ('boto3', 'botocore')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Judged here


@pytest.mark.parametrize(
    ("region", "hint"),
    [
        ("us-eats-1", "did you mean us-east-1?"),
        ("eu-wset-1", "did you mean eu-west-1?"),
        ("ireland", "a region looks like eu-west-1"),
        ("eu-west", "did you mean eu-west-"),
    ],
)
def test_an_unknown_region_is_named_without_asking_anybody(region: str, hint: str) -> None:
    access = AwsAccess(region, "static", access_key_id="a", secret_access_key="b")

    refusal = refusal_of(AwsKmsEngine("e", access))

    assert isinstance(refusal, EngineRefused)
    assert refusal.code == "unknown_region"
    assert hint in refusal.text


def test_a_region_beside_an_address_of_ones_own_is_only_a_name(moto: MotoServer) -> None:
    moto.kms(region="local").check()


def test_a_host_without_credentials_says_where_they_were_looked_for(
    moto: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for method in ("default", "role"):
        access = AwsAccess(REGION, method, moto.url, role_arn=ROLE)
        refusal = refusal_of(AwsKmsEngine("e", access))
        assert isinstance(refusal, EngineRefused)
        assert refusal.code == "no_credentials"
        assert "AWS_ACCESS_KEY_ID" in refusal.text
    monkeypatch.setenv("AWS_PROFILE", "of-somebody-else")
    assert refusal_of(AwsKmsEngine("e", AwsAccess(REGION, "", moto.url))).code == "no_credentials"
    assert moto.operations() == []


def test_config_check_live_tells_it_before_a_start(tmp_path: Path, moto: MotoServer) -> None:
    def check(engine: str) -> tuple[int, str]:
        (tmp_path / "config.yml").write_text(
            f"mode: development\ncrypto_engines: {{aws_kms: [{{id: aws-kms-engine, {engine}}}]}}\n"
        )
        status, words = command("config", "check", "--dir", str(tmp_path), "--live")
        return status, " ".join(words.split())

    status, words = check("region: us-eats-1")
    assert status != 0
    assert "us-eats-1 is no AWS region; did you mean us-east-1?" in words
    status, words = check(f"region: us-east-1, endpoint_url: '{moto.url}'")
    assert status != 0
    assert "no AWS credentials were found" in words


# Judged by AWS


@pytest.mark.parametrize(
    ("answer", "kind", "code", "hint"),
    [
        ("UnrecognizedClientException", EngineRefused, "wrong_credentials", "`access_key_id`"),
        ("InvalidClientTokenId", EngineRefused, "wrong_credentials", "`secret_access_key`"),
        ("InvalidSignatureException", EngineRefused, "wrong_credentials", "active"),
        ("ExpiredTokenException", EngineRefused, "token_expired", "`session_token`"),
        ("AccessDeniedException", EngineRefused, "access_denied", "IAM policy"),
        ("RequestExpired", EngineDown, "clock_skew", "clock"),
        ("UnknownOperationException", EngineRefused, "not_this_service", "`endpoint_url`"),
        ("ThrottlingException", EngineDown, "engine_throttled", "quota"),
        ("TooManyRequestsException", EngineDown, "engine_throttled", "quota"),
    ],
)
def test_what_aws_refuses_is_told_by_cause_and_cure(
    moto: MotoServer, answer: str, kind: type[EngineDown], code: str, hint: str
) -> None:
    moto.fault("*", answer)
    for engine in (moto.kms(), moto.secrets_manager()):
        refusal = refusal_of(engine)
        assert (type(refusal), refusal.code) == (kind, code)
        assert hint in refusal.text


def test_a_late_signature_is_this_hosts_clock(moto: MotoServer) -> None:
    moto.fault("*", "InvalidSignatureException", message="Signature expired: 20200101 is earlier")
    assert refusal_of(moto.kms()).code == "clock_skew"


def test_aws_in_trouble_is_waited_for(moto: MotoServer) -> None:
    moto.fault("*", "InternalServiceError", status=500)
    refusal = refusal_of(moto.secrets_manager())
    assert (refusal.code, refusal.retry_after) == ("engine_failing", 5)


def test_an_expired_token_of_the_host_may_be_renewed(
    moto: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOFTHEHOST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-host")
    moto.fault("*", "ExpiredTokenException", times=1)
    engine = AwsKmsEngine("e", AwsAccess(REGION, "default", moto.url))

    refusal = refusal_of(engine)

    assert (type(refusal), refusal.code) == (EngineDown, "token_expired")
    engine.check()


def test_a_role_that_may_not_be_assumed_is_named(
    moto: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOFTHEHOST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-host")
    moto.fault("AssumeRole", "AccessDenied", status=403)
    refusal = refusal_of(AwsKmsEngine("e", AwsAccess(REGION, "role", moto.url, role_arn=ROLE)))
    assert (type(refusal), refusal.code) == (EngineRefused, "role_refused")
    assert ROLE in refusal.text


@contextmanager
def judging(moto: MotoServer) -> Iterator[None]:
    """moto itself judges signatures and policies within this."""

    def after(requests: int) -> None:
        asked = urllib.request.Request(
            f"{moto.url}/moto-api/reset-auth",
            str(requests).encode(),
            {"Content-Type": "text/plain"},
        )
        urllib.request.urlopen(asked).close()

    after(0)
    try:
        yield
    finally:
        after(10**9)


def test_wrong_keys_and_missing_rights_are_told_apart_by_the_emulator_too(
    moto: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By STS, in whose form moto answers as AWS does; its refusals by KMS are in another."""
    iam = moto.client("iam")
    iam.create_user(UserName="nobody")
    given = iam.create_access_key(UserName="nobody")["AccessKey"]

    def refused(key: str, secret: str) -> EngineDown:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        return refusal_of(AwsKmsEngine("e", AwsAccess(REGION, "role", moto.url, role_arn=ROLE)))

    with judging(moto):
        stranger = refused("AKIAOFNOBODY", "secret")
        mistyped = refused(given["AccessKeyId"], "another")
        powerless = refused(given["AccessKeyId"], given["SecretAccessKey"])

    assert [one.code for one in (stranger, mistyped)] == ["wrong_credentials"] * 2
    assert powerless.code == "role_refused"


# Throttled, slow and gone


def test_a_throttled_signature_is_repeated_and_then_given_up(moto: MotoServer) -> None:
    engine = moto.kms()
    key = engine.generate(P256, purpose=KeyPurpose.CA).key_id
    moto.calm()
    moto.fault("Sign", "ThrottlingException", times=2)
    assert sign(engine, key)
    assert moto.operations() == ["Sign"] * 3

    moto.fault("Sign", "ThrottlingException")
    started = time.monotonic()
    with pytest.raises(EngineDown) as refusal:
        sign(engine, key)

    assert time.monotonic() - started < engine.limits.sign_seconds
    assert (refusal.value.code, refusal.value.retry_after) == ("engine_throttled", 2)


def test_a_slow_answer_is_not_waited_for_beyond_the_callers_time(moto: MotoServer) -> None:
    engine = moto.kms(limits=QUICK)
    engine.check()
    moto.fault("*", delay=6)
    started = time.monotonic()

    refusal = refusal_of(engine)

    assert refusal.code == "engine_timeout"
    assert time.monotonic() - started < 5


def test_nobody_listening_is_out_of_reach(moto: MotoServer) -> None:
    with moto.gone():
        refusal = refusal_of(moto.kms())
    assert (refusal.code, refusal.retry_after) == ("engine_unreachable", 5)
    assert moto.url in refusal.text


def test_a_name_that_does_not_resolve_is_told_as_such() -> None:
    access = AwsAccess(
        REGION, "static", "http://kms.invalid", access_key_id="a", secret_access_key="b"
    )
    assert refusal_of(AwsKmsEngine("e", access, limits=QUICK)).code == "endpoint_unknown"


def test_something_else_that_answers_is_not_taken_for_aws() -> None:
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n<ht>") as url:
        access = AwsAccess(REGION, "static", url, access_key_id="a", secret_access_key="b")
        assert refusal_of(AwsKmsEngine("e", access)).code == "engine_unreadable"
    with answering(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\n<ht>") as url:
        access = AwsAccess(REGION, "static", url, access_key_id="a", secret_access_key="b")
        assert refusal_of(AwsKmsEngine("e", access)).code == "not_this_service"


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    stranger = make("localhost")
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    certificate.write_bytes(pem_of(stranger.der))
    key.write_bytes(stranger.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with answering(b"", tls=(certificate, key)) as url:
        access = AwsAccess(REGION, "static", url, access_key_id="a", secret_access_key="b")
        refusal = refusal_of(AwsKmsEngine("e", access))
    assert (type(refusal), refusal.code) == (EngineRefused, "engine_untrusted")
    assert "AWS_CA_BUNDLE" in refusal.text


@contextmanager
def answering(reply: bytes, tls: tuple[Path, Path] | None = None) -> Iterator[str]:
    """A server on loopback that says the same to everybody."""
    listener = socket.create_server(("127.0.0.1", 0))
    context = None
    if tls is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*tls)

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
                if context is not None:
                    peer = context.wrap_socket(peer, server_side=True)
                peer.recv(65536)
                peer.sendall(reply)
                peer.close()
            except ssl.SSLError:
                continue
            except OSError:
                return

    threading.Thread(target=serve, daemon=True).start()
    try:
        scheme = "http" if tls is None else "https"
        yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


# Nothing leaks


def test_no_secret_reaches_a_log_however_chatty(
    moto: MotoServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger().setLevel(logging.DEBUG)
    engine = moto.secrets_manager(session_token="token-of-a-session")
    key = engine.generate(P256, purpose=KeyPurpose.GENERAL).key_id
    stored = moto.client("secretsmanager").get_secret_value(SecretId=key)["SecretString"]
    moto.secrets_manager().private_key(key, purpose=KeyPurpose.GENERAL)
    moto.fault("*", "InternalServiceError", status=500)
    with pytest.raises(Unavailable) as refusal:
        engine.generate(P256, purpose=KeyPurpose.GENERAL)

    said = caplog.text + repr(refusal.value) + repr(moto.access())
    for hidden in (stored, stored[10:60], SECRET_KEY, "token-of-a-session"):
        assert hidden not in said


def test_errors_are_errors_of_the_platform(moto: MotoServer) -> None:
    """Whatever AWS says, no exception of the vendor's library comes out."""
    engine = moto.kms()
    key = engine.generate(P256, purpose=KeyPurpose.CA).key_id
    for name in ("SomethingNew", "we<ird>", "", "KMSInternalException"):
        moto.calm()
        moto.fault("*", name)
        for work in (
            engine.check,
            lambda: sign(engine, key),
            lambda: engine.delete(key),
            lambda: engine.generate(P256, purpose=KeyPurpose.CA),
            lambda: moto.secrets_manager().read_secret("x"),
        ):
            with pytest.raises(LamassuError) as refusal:
                work()
            assert "we<ird>" not in refusal.value.text
