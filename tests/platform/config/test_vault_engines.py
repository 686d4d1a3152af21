"""`crypto_engines.hashicorp_vault`: addresses, paths, and what production refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lamassu.platform.config import ConfigurationFaults, Settings, load, start_faults

Vault = Callable[..., Settings]


@pytest.fixture
def vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vault:
    monkeypatch.setenv("VAULT_SECRET_ID", "of the role")

    def read(mode: str = "production", **given: str) -> Settings:
        keys = {"mount_path": "lamassu-pki", "address": "https://vault.internal:8200", **given}
        lines = "".join(f"      {name}: {value}\n" for name, value in keys.items() if value)
        path = tmp_path / "config.yml"
        path.write_text(
            f"mode: {mode}\ncrypto_engines:\n  hashicorp_vault:\n"
            '    - id: vault\n      role_id: role\n      secret_id: "${VAULT_SECRET_ID}"\n' + lines
        )
        return load(path)

    return read


def url(settings: Settings) -> str:
    return settings.crypto_engines.hashicorp_vault[0].url


def test_an_address_or_its_parts_say_where_vault_is(vault: Vault) -> None:
    parts = {"address": "", "protocol": "http", "hostname": "vault", "port": "8300"}

    assert url(vault(address="https://vault.internal:8200/")) == "https://vault.internal:8200"
    assert url(vault(**parts)) == "http://vault:8300"
    assert url(vault(**parts, base_path="/behind/a/proxy/")) == "http://vault:8300/behind/a/proxy"
    with pytest.raises(ConfigurationFaults):
        vault(address="")


@pytest.mark.parametrize("path", ["../sys", "a/../b", "a//b", "/", "a?b", '"a b"', "a/.."])
@pytest.mark.parametrize("key", ["mount_path", "secrets_mount_path", "namespace"])
def test_a_path_stays_beneath_vaults_root(vault: Vault, key: str, path: str) -> None:
    with pytest.raises(ConfigurationFaults) as refusal:
        vault(**{key: path})

    assert [fault.path for fault in refusal.value.faults] == [
        f"crypto_engines.hashicorp_vault[0].{key}"
    ]


def test_production_refuses_a_vault_that_anybody_could_pose_as(vault: Vault) -> None:
    def faults(**given: str) -> list[str]:
        return [
            fault.path.removeprefix("crypto_engines.hashicorp_vault[0].")
            for fault in start_faults(vault(**given), Path())
        ]

    assert faults() == []
    assert faults(address="http://vault.internal:8200") == ["address"]
    assert faults(address="", hostname="vault", protocol="http") == ["protocol"]
    assert faults(insecure_skip_verify="true") == ["insecure_skip_verify"]
    assert faults(address="http://127.0.0.1:8100") == []  # an agent of Vault on this host
    assert faults(mode="development", insecure_skip_verify="true") == []
