"""The sections `aws_kms` and `aws_secrets_manager` of a configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamassu.platform.config import ConfigurationFaults, load, masked_text, start_faults, warnings
from lamassu.platform.config.settings import Settings

STATIC = "auth_method: static, access_key_id: AKIAEXAMPLE"
ROLE = "role_arn: 'arn:aws:iam::123456789012:role/lamassu'"


def written(tmp_path: Path, engine: str, kind: str = "aws_kms") -> Path:
    path = tmp_path / "config.yml"
    path.write_text(f"crypto_engines: {{{kind}: [{{id: one, {engine}}}]}}")
    return path


def judged(tmp_path: Path, engine: str, kind: str = "aws_kms") -> Settings:
    return load(written(tmp_path, engine, kind))


def faults(tmp_path: Path, engine: str, kind: str = "aws_kms") -> dict[str, str]:
    with pytest.raises(ConfigurationFaults) as refusal:
        judged(tmp_path, engine, kind)
    return {fault.path: fault.allowed for fault in refusal.value.faults}


def test_the_guides_example_takes_the_hosts_own_credentials(tmp_path: Path) -> None:
    example = "region: us-east-1, key_spec: RSA_4096, key_usage: SIGN_VERIFY"

    engine = judged(tmp_path, example).crypto_engines.aws_kms[0]

    assert (engine.auth_method, engine.key_spec) == ("default", "RSA_4096")


@pytest.mark.parametrize("kind", ["aws_kms", "aws_secrets_manager"])
@pytest.mark.parametrize(
    ("engine", "path", "allowed"),
    [
        (STATIC, "secret_access_key", "a value, for auth_method static"),
        ("auth_method: role", "role_arn", "a value, for auth_method role"),
        ("access_key_id: AKIA", "access_key_id", "auth_method: static, or no value"),
        (f"auth_method: role, {ROLE}, session_token: x", "session_token", "auth_method: static"),
        (f"auth_method: default, {ROLE}", "role_arn", "auth_method: role, or no value"),
        ("auth_method: role, role_arn: lamassu", "role_arn", "match"),
        ("endpoint_url: kms.local", "endpoint_url", "https://name:port"),
    ],
)
def test_each_way_to_authenticate_has_its_own_keys(
    tmp_path: Path, kind: str, engine: str, path: str, allowed: str
) -> None:
    found = faults(tmp_path, f"region: eu-west-1, {engine}", kind)

    assert allowed in found[f"crypto_engines.{kind}[0].{path}"]


@pytest.mark.parametrize(
    ("engine", "field"),
    [
        ("region: EU WEST", "region"),
        ("region: eu-west-1, key_spec: RSA_1024", "key_spec"),
        ("region: eu-west-1, key_usage: ENCRYPT_DECRYPT", "key_usage"),
        ("auth_method: default", "region"),
    ],
)
def test_a_bad_value_is_named_by_its_path(tmp_path: Path, engine: str, field: str) -> None:
    assert f"crypto_engines.aws_kms[0].{field}" in faults(tmp_path, engine)


def test_a_secret_in_clear_is_warned_about_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET", "hidden-secret")
    clear = f"region: eu-west-1, {STATIC}, secret_access_key: open-secret"

    told = " ".join(warnings(judged(tmp_path, clear)))

    assert "crypto_engines.aws_kms[0].secret_access_key is a secret in clear" in told
    assert "access_key_id" not in told
    assert "open-secret" not in told + masked_text(written(tmp_path, clear))
    named = clear.replace("open-secret", "'${AWS_SECRET}'")
    assert warnings(judged(tmp_path, named)) == []


@pytest.mark.parametrize("field", ["endpoint_url", "sts_endpoint_url"])
def test_production_sends_no_secret_in_clear(tmp_path: Path, field: str) -> None:
    def paths(url: str, mode: str = "production") -> list[str]:
        path = written(tmp_path, f"region: eu-west-1, {field}: '{url}'", "aws_secrets_manager")
        path.write_text(f"mode: {mode}\n{path.read_text()}")
        return [fault.path for fault in start_faults(load(path), tmp_path)]

    wrong = f"crypto_engines.aws_secrets_manager.{field}"
    assert wrong in paths("http://aws.internal")
    for fine in ("https://aws.internal", "http://127.0.0.1:4566", "http://localhost:4566"):
        assert wrong not in paths(fine)
    assert wrong not in paths("http://aws.internal", mode="development")
