"""Values of a configuration that real engines hold: `${secret:engine/name}`."""

from __future__ import annotations

from pathlib import Path

import boto3
import pytest

from lamassu.platform.config import ConfigurationFaults
from lamassu.wiring.configuration import load, masked_text
from tests.support.engines import ComponentMissing
from tests.support.missing import missing_component
from tests.support.moto import ACCESS_KEY, REGION, SECRET_KEY, moto_server
from tests.support.vault import shared_server

CONFIGURATION = """
mode: development
postgres: {{hostname: db, username: lamassu, password: "${{secret:{reference}}}"}}
crypto_engines:
  default_id: software
  software: [{{id: software}}]
"""


def _fault(path: Path) -> str:
    with pytest.raises(ConfigurationFaults) as refusal:
        load(path)
    [fault] = refusal.value.faults
    assert fault.path == "postgres.password"
    return str(fault)


def test_secrets_manager_gives_texts_and_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET", SECRET_KEY)
    path = tmp_path / "config.yml"
    try:
        opened = moto_server()
        moto = opened.__enter__()
    except ComponentMissing as missing:
        missing_component(str(missing))

    def written(reference: str) -> Path:
        path.write_text(
            CONFIGURATION.format(reference=reference)
            + f"  aws_secrets_manager:\n    - {{id: aws, region: {REGION}, auth_method: static,"
            f" access_key_id: {ACCESS_KEY}, secret_access_key: '${{AWS_SECRET}}',"
            f" endpoint_url: '{moto.url}'}}\n"
        )
        return path

    try:
        secrets = boto3.client(
            "secretsmanager",
            region_name=REGION,
            endpoint_url=moto.url,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )
        secrets.create_secret(Name="plain", SecretString="p/1")
        secrets.create_secret(Name="prod/db", SecretString='{"user": "u", "password": "p/2"}')
        for reference, value in (("aws/plain", "p/1"), ("aws/prod/db#password", "p/2")):
            settings = load(written(reference))
            assert settings.postgres is not None
            assert settings.postgres.password.get_secret_value() == value
            assert value not in masked_text(path)
        assert "no secret none" in _fault(written("aws/none"))
        assert "field user2" in _fault(written("aws/prod/db#user2"))
        assert "no JSON object" in _fault(written("aws/plain#field"))
        assert "private key" in _fault(written(f"aws/{'0' * 64}"))
    finally:
        opened.__exit__(None, None, None)


def test_vault_gives_fields_and_says_what_keeps_one_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        server = shared_server()
    except ComponentMissing as missing:
        missing_component(str(missing))
    mount = server.mount("values", "kv")
    policy = f'path "{mount}/data/lamassu/*" {{ capabilities = ["read"] }}'
    role = server.role("values-role", policy)
    monkeypatch.setenv("VAULT_SECRET_ID", role.secret_id)
    server.client.secrets.kv.v2.create_or_update_secret(
        "lamassu/db", {"user": "u", "password": "p/3"}, mount_point=mount
    )
    path = tmp_path / "config.yml"

    def written(reference: str) -> Path:
        path.write_text(
            CONFIGURATION.format(reference=reference)
            + f"  hashicorp_vault:\n    - {{id: vault, address: '{server.address}',"
            f" role_id: {role.role_id}, secret_id: '${{VAULT_SECRET_ID}}', mount_path: keys,"
            f" secrets_mount_path: {mount}, ca_cert_file: {server.ca_file}}}\n"
        )
        return path

    settings = load(written("vault/lamassu/db#password"))
    assert settings.postgres is not None
    assert settings.postgres.password.get_secret_value() == "p/3"
    assert "p/3" not in masked_text(path)
    assert "no field pin" in _fault(written("vault/lamassu/db#pin"))
    assert "name one of them" in _fault(written("vault/lamassu/db"))
    assert "no secret lamassu/none" in _fault(written("vault/lamassu/none"))
    assert "does not allow" in _fault(written("vault/others"))
    server.seal()
    try:
        assert "is sealed" in _fault(written("vault/lamassu/db#user"))
    finally:
        server.unseal()
    monkeypatch.setenv("VAULT_SECRET_ID", "wrong")
    fault = _fault(written("vault/lamassu/db#other"))
    assert "does not accept" in fault
