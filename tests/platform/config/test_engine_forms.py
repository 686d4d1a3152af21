"""The original's ways of writing crypto engines are understood, and faults told where they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lamassu.platform.config import (
    ConfigurationFaults,
    exposed_secrets,
    load,
    masked_text,
    not_yet_in_effect,
    warnings,
)

Write = Callable[[str], Path]

ORIGINAL = """\
mode: development
crypto_engines:
  log_level: info
  default_id: fs-1
  migrate_keys_format: true
  engines:
    - id: fs-1
      type: filesystem
      storage_directory: /data/pem
      metadata: {lamassu.io/name: "Old keys"}
    - id: hsm-1
      type: pkcs11
      token: lamassuHSM
      pin: "${HSM_PIN}"
      module_path: /usr/lib/proxy.so
      module_extra_options: {env: {PKCS11_PROXY_SOCKET: "tcp://hsm:5657"}}
    - id: vault-1
      type: hashicorp_vault
      role_id: r
      secret_id: "${HSM_PIN}"
      mount_path: lamassu
      protocol: https
      hostname: vault.internal
      port: 8200
    - id: kms-1
      type: aws_kms
      region: eu-west-1
      auth_method: static
      access_key_id: "${HSM_PIN}"
      secret_access_key: "${HSM_PIN}"
    - id: sm-1
      type: aws_secrets_manager
      region: eu-west-1
  filesystem:
    - {id: fs-2, storage_directory: more}
  software:
    - {id: soft, storage_directory: keys}
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.setenv("HSM_PIN", "hidden-1234")

    def to_file(text: str) -> Path:
        path = tmp_path / "config.yml"
        path.write_text(text)
        path.chmod(0o600)
        return path

    return to_file


def faults(path: Path) -> dict[str, str]:
    with pytest.raises(ConfigurationFaults) as caught:
        load(path)
    return {fault.path: fault.found for fault in caught.value.faults}


def test_the_originals_list_of_engines_is_read(write: Write) -> None:
    settings = load(write(ORIGINAL))
    engines = settings.crypto_engines

    assert engines.chosen_id == "fs-1"
    assert engines.migrate_keys_format
    assert [(one.id, str(one.storage_directory)) for one in engines.software] == [
        ("soft", "keys"),
        ("fs-2", "more"),
        ("fs-1", "/data/pem"),
    ]
    assert engines.software[2].metadata == {"lamassu.io/name": "Old keys"}
    assert [one.id for one in (*engines.pkcs11, *engines.hashicorp_vault)] == ["hsm-1", "vault-1"]
    assert [one.id for one in (*engines.aws_kms, *engines.aws_secrets_manager)] == ["kms-1", "sm-1"]
    assert any("crypto_engines.log_level" in note for note in not_yet_in_effect(settings))


def test_what_came_from_a_variable_stays_masked_in_every_form(write: Write) -> None:
    text = masked_text(write(ORIGINAL))

    assert "hidden-1234" not in text
    assert "Old keys" in text


def test_a_secret_in_clear_is_named_where_it_stands(write: Write) -> None:
    pin = faults(write(ORIGINAL.replace('pin: "${HSM_PIN}"', "pin: in-clear")))
    assert "in-clear" not in str(pin)
    assert set(pin) == {"crypto_engines.engines[1].pin"}

    readable = write(ORIGINAL.replace("role_id: r", "role_id: in-clear"))
    readable.chmod(0o644)
    assert list(exposed_secrets(readable)) == ["crypto_engines.engines[2].role_id"]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("engines: [{id: a, type: golang}]", "crypto_engines.engines[0].type"),
        ("engines: [{id: a}]", "crypto_engines.engines[0].type"),
        ("engines: [{id: a, type: [pkcs11]}]", "crypto_engines.engines[0].type"),
        ("engines: {id: a}", "crypto_engines.engines"),
        ("engines: [a]", "crypto_engines.engines[0]"),
        ("filesystem: [{id: a}]", "crypto_engines.filesystem[0].storage_directory"),
        ("filesystem: [{storage_directory: d}]", "crypto_engines.filesystem[0].id"),
        ("filesystem: x", "crypto_engines.filesystem"),
        (
            "filesystem: [{id: a, storage_directory: d}, {id: b, storage_directory: e, port: 1}]",
            "crypto_engines.filesystem[1].port",
        ),
        (
            "engines: [{id: a, type: filesystem, storage_directory: d}, {id: b, type: pkcs11}]",
            "crypto_engines.engines[1].module_path",
        ),
        (
            "engines: [{id: a, type: aws_kms, region: 'x', key_usage: '${HSM_PIN}'}]",
            "crypto_engines.engines[0].key_usage",
        ),
        ("engines: [{id: a, type: aws_kms, region: '${NO}'}]", "crypto_engines.engines[0].region"),
        ("filesistem: []", "crypto_engines.filesistem"),
    ],
)
def test_faults_are_told_where_they_were_written(write: Write, text: str, where: str) -> None:
    found = faults(write(f"crypto_engines: {{{text}}}"))

    assert where in found
    assert "hidden-1234" not in str(found)


def test_production_is_told_which_engines_are_not_for_cas(write: Write) -> None:
    path = write(ORIGINAL.replace("development", "production"))

    texts = warnings(load(path))

    for engine in ("soft (software)", "fs-1 (software)", "sm-1 (aws_secrets_manager)"):
        assert any(text.startswith(f"high: engine {engine}") for text in texts)
    assert not any("hsm-1 (" in text or "kms-1 (" in text for text in texts)
    assert not any(text.startswith("high:") for text in warnings(load(write(ORIGINAL))))


@pytest.mark.parametrize("mode", ["production", "development"])
def test_unseal_keys_are_a_high_finding_in_production(write: Write, mode: str) -> None:
    unseal = 'mount_path: lamassu\n      auto_unseal_keys: ["${HSM_PIN}"]'
    text = ORIGINAL.replace("development", mode).replace("mount_path: lamassu", unseal)

    texts = warnings(load(write(text)))

    found = [one for one in texts if one.startswith("high: auto_unseal_keys of engine vault-1")]
    assert len(found) == (mode == "production")
