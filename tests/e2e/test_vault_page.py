"""`docs/how-to/engine-vault.md`, as a reader types it, on a Vault of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.engines import ComponentMissing
from tests.support.howto import shell_blocks, type_in
from tests.support.missing import missing_component
from tests.support.server import free_port, lamassu, serving
from tests.support.vault import VaultServer, find_vault

PAGE = "engine-vault.md"
SERVE = "With `lamassu serve --dir var`"


@pytest.mark.slow
def test_the_page_works_as_it_stands(tmp_path: Path) -> None:
    try:
        binary = find_vault()
    except ComponentMissing as missing:
        missing_component(str(missing))
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "vault").symlink_to(binary)
    server = VaultServer()
    try:
        server.start()
        names = ("--port", "--http-port", "--internal-port")
        environment = {
            "PORTS": " ".join(f"{name} {free_port()}" for name in names),
            "VAULT_ADDR": server.address,
            "VAULT_CACERT": str(server.ca_file),
            "VAULT_TOKEN": server.root_token,
            "HOME": str(tmp_path),
        }
        first = [
            *shell_blocks(PAGE, before=SERVE),
            'echo "$VAULT_ROLE_ID $VAULT_SECRET_ID" > credentials',
        ]
        type_in(first, folder=tmp_path, environment=environment)
        role_id, secret_id = (tmp_path / "credentials").read_text().split()
        environment |= {"VAULT_ROLE_ID": role_id, "VAULT_SECRET_ID": secret_id}
        used, secrets = shell_blocks(PAGE, after=SERVE)
        with serving(tmp_path / "var", environment=environment) as running:
            with running.admin() as admin:
                seen = type_in([used], folder=tmp_path, environment=environment)
                key = admin.get("/api/kms/v1/keys/firmware").json()
                engines = admin.get("/api/kms/v1/engines").json()
        config = tmp_path / "var" / "config.yml"
        shown = type_in([secrets], folder=tmp_path, environment=environment)
        server.seal()
        sealed = lamassu(
            "config", "check", "--dir", str(tmp_path / "var"), check=False, **environment
        )
    finally:
        server.remove()

    assert key["engine_id"] == "vault-engine"
    assert "-general-" in seen
    assert [engine["type"] for engine in engines] == ["HASHICORP_VAULT_TRANSIT"]
    assert "level: '**********'" in shown
    assert "logs.level" in sealed
    assert "is sealed" in sealed
    assert secret_id not in config.read_text() + shown + sealed
