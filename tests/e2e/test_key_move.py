"""A CA's key moves while the CA works, over the command line of a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.est import Device, bootstrap, make_dms
from tests.support.server import Server, configure_engines, copy_installation, lamassu, serving

SECOND = """\
crypto_engines:
  default_id: software
  software:
    - id: software
      storage_directory: keys
      passphrase_file: secrets/keystore.pass
    - id: safe
      storage_directory: keys-safe
      passphrase_file: secrets/keystore.pass
"""


@pytest.fixture(scope="module")
def two_engines(fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An installation with a second engine beside the first, served."""
    directory = copy_installation(fresh, tmp_path_factory.mktemp("move") / "var")
    configure_engines(directory, SECOND)
    with serving(directory, elsewhere=True) as server:
        yield server


def run(server: Server, *arguments: str, check: bool = True) -> str:
    return lamassu(*arguments, "--dir", str(server.directory), "--url", server.url, check=check)


def ca(server: Server, ca_id: str) -> dict[str, object]:
    with server.admin() as admin:
        found: dict[str, object] = admin.get(f"/api/ca/v1/cas/{ca_id}").json()
    return found


def key_of(server: Server, ca_id: str) -> str:
    certificate = ca(server, ca_id)["certificate"]
    assert isinstance(certificate, dict)
    return str(certificate["subject_key_id"])


def test_an_issuing_cas_key_moves_and_the_ca_goes_on(two_engines: Server, tmp_path: Path) -> None:
    server = two_engines
    make_dms(server, "moving")
    key_id = key_of(server, "manufacturing-ca")

    planned = run(server, "key", "move", key_id, "--engine", "safe", "--dry-run")
    assert "the key of CA manufacturing-ca would move from software to safe" in planned
    assert (server.directory / "keys" / f"{key_id}.key").exists()

    moved = run(server, "key", "move", key_id, "--engine", "safe")

    assert "the key of CA manufacturing-ca is in safe" in moved
    assert not (server.directory / "keys" / f"{key_id}.key").exists()
    assert (server.directory / "keys-safe" / f"{key_id}.key").exists()
    certificate = ca(server, "manufacturing-ca")["certificate"]
    assert isinstance(certificate, dict)
    assert certificate["engine_id"] == "safe"
    device = Device(server, "moving", "mover-1", tmp_path, bootstrap(server, tmp_path, "mover-1"))
    assert device.enroll().status_code == 200
    again = run(server, "key", "move", key_id, "--engine", "safe", check=False)
    assert "the key is in safe already" in again
    server.stop()
    server.start()
    assert device.reenroll().status_code == 200
    server.stop()
    lamassu("audit", "verify", "--dir", str(server.directory))  # ends with 1 for a broken chain
    server.start()


def test_the_kms_route_moves_general_keys_and_leaves_a_cas_to_the_ca(two_engines: Server) -> None:
    server = two_engines
    run(server, "key", "create", "movable", "--alias", "movable")

    moved = run(server, "key", "move", "movable", "--engine", "safe")

    assert "is in safe" in moved
    assert json.loads(run(server, "key", "get", "movable", "-o", "json"))["engine_id"] == "safe"
    with server.admin() as admin:
        refused = admin.post(
            f"/api/kms/v1/keys/{key_of(server, 'root-ca')}/move", json={"engine_id": "safe"}
        )
        nowhere = admin.post("/api/kms/v1/keys/movable/move", json={"engine_id": "nowhere"})
    assert (refused.status_code, refused.json()["code"]) == (409, "key_of_ca")
    assert (nowhere.status_code, nowhere.json()["field"]) == (400, "engine_id")


def test_a_cas_key_leaves_only_when_its_approvers_agree(
    two_engines: Server, tmp_path: Path
) -> None:
    server = two_engines
    for name in ("bob", "carol"):
        lamassu("admin", "issue", name, "--dir", str(server.directory), "--to", str(tmp_path))
    run(
        server, "ca", "approvals", "set", "development-ca", "--required", "1",
        "--of", "bob", "--of", "carol",
    )  # fmt: skip

    with server.admin() as admin:
        waits = admin.post("/api/ca/v1/cas/development-ca/key/move", json={"engine_id": "safe"})
    assert waits.status_code == 202
    certificate = ca(server, "development-ca")["certificate"]
    assert isinstance(certificate, dict)
    assert certificate["engine_id"] == "software"
