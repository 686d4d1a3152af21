"""Keys from elsewhere and what becomes of them, over the command line of a real server."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from lamassu.kernel.x509.keys import key_id as key_id_of
from lamassu.services.kms.usecases.private_keys import spki_of
from tests.support.server import Server, command, copy_installation, free_port, serving

ENGINES = """\
crypto_engines:
  default_id: software
  software:
    - id: software
      storage_directory: keys
      passphrase_file: secrets/keystore.pass
      metadata: {{site: Lisbon}}
  filesystem:
    - id: old
      storage_directory: {pem}
"""
OLD = ec.generate_private_key(ec.SECP256R1())


def pem(
    key: ec.EllipticCurvePrivateKey, encryption: KeySerializationEncryption | None = None
) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


@pytest.fixture(scope="module")
def old_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key as the original's filesystem engine keeps it, under an older name."""
    directory = tmp_path_factory.mktemp("pem") / "keys"
    directory.mkdir(mode=0o700)
    (directory / "factory-ca").write_bytes(pem(OLD))
    return directory


@pytest.fixture(scope="module")
def server(
    fresh: Path, old_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    directory = copy_installation(fresh, tmp_path_factory.mktemp("keys") / "var")
    config = directory / "config.yml"
    section = ENGINES.format(pem=old_directory)
    config.write_text(
        re.sub(r"^crypto_engines:\n(?: .*\n)+", section, config.read_text(), flags=re.MULTILINE)
    )
    with serving(directory, elsewhere=True) as running:
        yield running


def run(server: Server, *arguments: str, status: int = 0) -> str:
    done, said = command("key", *arguments, "--dir", str(server.directory), "--url", server.url)
    assert done == status, said
    return said


def key(server: Server, name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(run(server, "get", name, "-o", "json"))
    return found


def on_host(server: Server, *arguments: str, status: int = 0) -> str:
    done, said = command("key", *arguments, "--dir", str(server.directory))
    assert done == status, said
    return said


def test_keys_in_clear_are_encrypted_at_start_and_adopted_by_the_operator(
    server: Server, old_directory: Path
) -> None:
    old_id = key_id_of(spki_of(OLD))
    content = b"".join(path.read_bytes() for path in old_directory.iterdir())
    assert b"PRIVATE KEY" not in content
    log = server.log.read_text()
    assert "clear_keys_encrypted" in log
    assert "lamassu key adopt --engine old" in log
    assert old_id not in run(server, "list")

    planned = on_host(server, "adopt", "--as", "general", "--engine", "old", "--dry-run")
    assert old_id in planned
    assert "waits" in planned
    assert old_id not in run(server, "list")
    assert "adopted" in on_host(server, "adopt", "--as", "general", "--engine", "old")

    adopted = key(server, "factory-ca")
    assert (adopted["key_id"], adopted["origin"]) == (old_id, "adopted")
    assert adopted["engine_id"] == "old"
    message = server.directory / "message"
    message.write_bytes(b"hello")
    signature = server.directory / "signature"
    run(server, "sign", "factory-ca", str(message), "--to", str(signature))
    assert "right" in run(server, "verify", old_id, str(message), "--signature", str(signature))
    assert "none" in on_host(server, "adopt", "--as", "general", "--engine", "old")
    assert "unknown engine" in on_host(
        server, "adopt", "--as", "ca", "--engine", "nowhere", status=1
    )


def test_a_key_is_imported_described_counted_and_deleted(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(pem(ec.generate_private_key(ec.SECP384R1())))
    before = json.loads(run(server, "stats", "-o", "json"))

    made = run(server, "import", str(file), "--name", "Firmware", "--tag", "a", "-o", "json")
    key_id = json.loads(made)["key_id"]
    assert "here already" in run(server, "import", str(file), status=1)
    run(server, "alias", key_id, "--add", "firmware", "--add", "fw")
    run(server, "alias", "fw", "--remove", "fw", "--add", "fw-2")
    assert "has no alias fw;" in run(server, "alias", "firmware", "--remove", "fw", status=1)
    run(server, "rename", "firmware", "Firmware 2")
    run(server, "tag", "fw-2", "x", "y")

    now = key(server, "firmware")
    assert (now["name"], now["tags"]) == ("Firmware 2", ["x", "y"])
    assert (now["aliases"], now["origin"]) == (["firmware", "fw-2"], "imported")
    after = json.loads(run(server, "stats", "-o", "json"))
    assert after["total_keys"] == before["total_keys"] + 1
    mine = json.loads(run(server, "stats", "--filter", "name[eq]Firmware 2", "-o", "json"))
    assert mine["keys_distribution_per_engine"] == {"software": 1, "old": 0}
    assert "is deleted" in run(server, "delete", "firmware", "--yes")
    assert "key not found" in run(server, "get", key_id, status=1)


def test_an_encrypted_key_is_opened_here_and_a_wrong_passphrase_sends_nothing(
    server: Server, tmp_path: Path
) -> None:
    file, words = tmp_path / "key.pem", tmp_path / "words"
    file.write_bytes(
        pem(ec.generate_private_key(ec.SECP256R1()), BestAvailableEncryption(b"open sesame"))
    )
    words.write_text("open sesame\n")

    assert "is encrypted; decrypt it first" in run(server, "import", str(file), status=1)
    wrong = tmp_path / "wrong"
    wrong.write_text("close sesame\n")
    refused = run(server, "import", str(file), "--passphrase-file", str(wrong), status=1)
    assert "does not open" in refused
    key_id = json.loads(
        run(server, "import", str(file), "--passphrase-file", str(words), "-o", "json")
    )["key_id"]
    assert stat.S_ISREG((server.directory / "keys" / f"{key_id}.key").stat().st_mode)


@pytest.mark.parametrize("kind", ["ed25519", "ml-dsa-44", "ml-dsa-65", "ml-dsa-87"])
def test_keys_of_newer_kinds_sign(server: Server, tmp_path: Path, kind: str) -> None:
    message, signature = tmp_path / "message", tmp_path / "signature"
    message.write_bytes(b"hello")
    key_id = json.loads(run(server, "create", kind, "--type", kind, "-o", "json"))["key_id"]

    run(server, "sign", key_id, str(message), "--to", str(signature))

    assert "right" in run(server, "verify", key_id, str(message), "--signature", str(signature))
    message.write_bytes(b"bye")
    run(server, "verify", key_id, str(message), "--signature", str(signature), status=1)


def test_a_cas_key_is_not_deleted_and_says_who_needs_it(server: Server) -> None:
    with server.admin() as admin:
        found = admin.get("/api/ca/v1/cas/root-ca").json()["certificate"]

    said = run(server, "delete", found["subject_key_id"], "--yes", status=1)

    assert "the key belongs to the CA root-ca; delete the CA instead" in said


@pytest.mark.parametrize("service", ["kms", "ca"])
def test_engines_tell_what_is_configured_to_be_told_and_no_path(
    server: Server, old_directory: Path, service: str
) -> None:
    with server.admin() as admin:
        answer = admin.get(f"/api/{service}/v1/engines")

    engines = {engine["id"]: engine for engine in answer.json()}
    assert engines["software"]["metadata"] == {"site": "Lisbon"}
    assert engines["old"]["metadata"] == {}
    assert [one["id"] for one in engines.values() if one["default"]] == ["software"]
    for secret in (str(server.directory), str(old_directory), "keystore", ".pass"):
        assert secret not in answer.text.replace("Software keystore", "")


def test_production_does_not_start_beside_keys_in_clear(fresh: Path, tmp_path: Path) -> None:
    directory = copy_installation(fresh, tmp_path / "var")
    clear = tmp_path / "pem"
    clear.mkdir(mode=0o700)
    (clear / "a key").write_bytes(pem(OLD))
    outside = tmp_path / "keystore.pass"
    outside.write_bytes((directory / "secrets" / "keystore.pass").read_bytes())
    outside.chmod(0o600)
    config = directory / "config.yml"
    section = ENGINES.format(pem=clear).replace("secrets/keystore.pass", str(outside))
    section += f"      passphrase_file: {outside}\n"
    text = re.sub(r"^crypto_engines:\n(?: .*\n)+", section, config.read_text(), flags=re.MULTILINE)
    config.write_text(text.replace("mode: development", "mode: production"))

    server = Server(directory, free_port(), free_port(), free_port())
    server.start(wait=False)
    assert server.process is not None
    try:
        assert server.process.wait(30) == 1
    finally:
        server.kill()

    said = server.log.read_text()
    assert "lie in clear" in said
    assert "Traceback" not in said
    assert (clear / "a key").read_bytes() == pem(OLD)
