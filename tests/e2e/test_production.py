"""Mode, lifetimes and secrets of an installation (security rules 3, 4 and 10)."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from tests.support.server import Server, command, copy_installation, free_port, serving, told_by
from tests.support.tables import Tables

HOUR = timedelta(hours=1)
# What runs without a mode is in production. Nothing here says so.
CONFIGURATION = """
http:
  port: {port}
server:
  http_port: {http_port}
  internal_port: {internal_port}
  public_urls: ["https://localhost:{port}"]
va:
  public_urls: ["http://127.0.0.1:{http_port}"]
crypto_engines:
  software:
    - id: software
      passphrase_file: {passphrase_file}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an installation `var` in production, its passphrase and its root's key."""
    folder = tmp_path_factory.mktemp("production")
    directory = folder / "var"
    directory.mkdir(mode=0o700)
    secret = folder / "keystore.pass"
    secret.write_text("correct horse battery staple\n")
    secret.chmod(0o600)
    ports = {name: free_port() for name in ("port", "http_port", "internal_port")}
    config = CONFIGURATION.format(passphrase_file=secret, **ports)
    init = ("init", "--dir", str(directory), "--key-type", "ecdsa-p256")
    # production makes no CA keys in software: its CAs are made before it is in production
    (directory / "config.yml").write_text(config.replace("\nhttp:", "\nmode: development\nhttp:"))
    done(*init)
    (directory / "config.yml").write_text(config)
    for name in ("admin.crt", "admin.key"):  # production's first admin lives a day
        (directory / name).unlink()
    assert "in production the internal root's key leaves this host" in refused(*init)
    words = folder / "safe" / "root.passphrase"
    words.parent.mkdir()
    (folder / "medium").mkdir()
    export = ("--export-root-key", str(folder / "medium" / "root.pem"))
    done(*init, *export, "--root-passphrase-file", str(words))
    return folder


@pytest.fixture
def production(made: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may spoil."""
    return copy_installation(made / "var", tmp_path / "var")


@pytest.fixture
def development(fresh: Path, tmp_path: Path) -> Path:
    """A copy of what a plain `init` makes."""
    return copy_installation(fresh, tmp_path / "dev")


def test_init_in_production_with_software_alone_makes_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "var"
    directory.mkdir(mode=0o700)
    secret = tmp_path / "keystore.pass"
    secret.write_text("correct horse battery staple\n")
    secret.chmod(0o600)
    ports = {name: free_port() for name in ("port", "http_port", "internal_port")}
    config = CONFIGURATION.format(passphrase_file=secret, **ports)
    (directory / "config.yml").write_text(config)

    said = refused("init", "--dir", str(directory), "--key-type", "ecdsa-p256")

    assert "production makes no keys of CAs in engine software" in said
    assert "nothing was founded; configure an HSM (pkcs11), hashicorp_vault or aws_kms" in said
    assert [path.name for path in directory.iterdir()] == ["config.yml"]


def life_of(certificate: Path) -> timedelta:
    """From now (as its maker saw it) to its end, to the hour."""
    read = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
    return read.not_valid_after_utc - read.not_valid_before_utc


def change(directory: Path, old: str, new: str) -> None:
    config = directory / "config.yml"
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))


def fails_to_start(directory: Path) -> str:
    """What `lamassu serve` says when it ends at once, with a status that is not 0."""
    server = Server(directory, free_port(), free_port(), free_port())
    server.start(wait=False)
    assert server.process is not None
    try:
        assert server.process.wait(20) == 1
    finally:
        server.kill()
    said = server.log.read_text()
    assert "Traceback" not in said
    return said


# Rule 3


def test_without_a_mode_it_is_production(production: Path) -> None:
    with serving(production, elsewhere=True) as server, server.client() as nobody:
        for path in ("/api/docs", "/api/openapi.json"):
            assert nobody.get(path).status_code == 401, path
        assert "strict-transport-security" in nobody.get("/health/live").headers
        with server.admin() as admin:
            assert admin.get("/api/docs").status_code == 200
            no_auth = {"est_rfc7030_settings": {"auth_mode": "NO_AUTH"}}
            body = {"id": "d", "name": "d", "settings": {"enrollment_settings": no_auth}}
            answer = admin.post("/api/dmsmanager/v1/dms", json=body)
            assert (answer.status_code, answer.json()["code"]) == (400, "no_auth_in_production")


def test_init_writes_development_on_loopback(development: Path) -> None:
    written = yaml.safe_load((development / "config.yml").read_text())

    assert written["mode"] == "development"
    assert written["server"]["listen_address"] == "127.0.0.1"
    with serving(development, elsewhere=True) as server, server.client() as nobody:
        assert nobody.get("/api/docs").status_code == 200
        assert _listening_addresses(server) == {"127.0.0.1"}


def _listening_addresses(server: Server) -> set[str]:
    """Of the server's three ports, as the kernel has them."""
    ports = {server.port, server.http_port, server.internal_port}
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, _, state = line.split()[1:4]
        address, port = local.split(":")
        if state == "0A" and int(port, 16) in ports:
            found.add(".".join(str(octet) for octet in reversed(bytes.fromhex(address))))
    assert not _listens_on_ipv6(ports)
    return found


def _listens_on_ipv6(ports: set[int]) -> bool:
    table = Path("/proc/net/tcp6")
    lines = table.read_text().splitlines()[1:] if table.exists() else []
    return any(
        line.split()[3] == "0A" and int(line.split()[1].rpartition(":")[2], 16) in ports
        for line in lines
    )


@pytest.mark.parametrize("place", ["../var/keys/../inside.pass", "link"])
def test_production_does_not_start_with_its_passphrase_inside(
    made: Path, production: Path, place: str
) -> None:
    secret = made / "keystore.pass"
    shutil.copy(secret, production / "inside.pass")
    if place == "link":
        place = str(production.parent / "elsewhere.pass")
        Path(place).symlink_to(production / "inside.pass")
    change(production, str(secret), place)

    said = fails_to_start(production)

    assert "crypto_engines.software.passphrase_file" in said
    assert "outside the installation" in said


@pytest.mark.parametrize("command", ["serve", "admin issue eve"])
def test_editing_the_configuration_does_not_lower_the_mode(
    production: Path, tmp_path: Path, command: str
) -> None:
    change(production, "\nhttp:\n", "\nmode: development\nhttp:\n")
    before = Tables.of(production, None).rows("access", "SELECT * FROM access_credentials")

    if command == "serve":
        said = fails_to_start(production)
    else:
        said = refused(*command.split(), "--dir", str(production), "--to", str(tmp_path / "to"))

    assert "this installation is in production" in said
    assert Tables.of(production, None).rows("access", "SELECT * FROM access_credentials") == before


def done(*arguments: str) -> None:
    status, said = command(*arguments)
    assert status == 0, said


def refused(*arguments: str) -> str:
    status, said = command(*arguments)
    assert status == 1, said
    return said


def test_lowering_the_mode_is_a_command_that_is_recorded(production: Path) -> None:
    said = refused("config", "lower-mode", "--dir", str(production), "--yes")
    assert "the configuration says production" in said
    change(production, "\nhttp:\n", "\nmode: development\nhttp:\n")

    done("config", "lower-mode", "--dir", str(production), "--yes")

    with serving(production, elsewhere=True) as server, server.client() as nobody:
        assert nobody.get("/api/docs").status_code == 200
    assert ("production", "development") in _mode_changes(production)


def test_a_rise_to_production_is_kept_and_recorded(development: Path, tmp_path: Path) -> None:
    secret = development / "secrets" / "keystore.pass"
    outside = tmp_path / "keystore.pass"
    shutil.copy(secret, outside)
    change(development, "mode: development", "mode: production")
    change(development, "secrets/keystore.pass", str(outside))
    with serving(development, elsewhere=True) as server, server.client() as nobody:
        assert nobody.get("/api/docs").status_code == 401

    change(development, "mode: production", "mode: development")

    assert "this installation is in production" in fails_to_start(development)
    assert ("development", "production") in _mode_changes(development)


def _mode_changes(directory: Path) -> list[tuple[str, str]]:
    """The audit records of changes of the mode."""
    bodies = Tables.of(directory, None).rows(
        "access",
        "SELECT body FROM access_journal WHERE kind = 'audit' AND type = 'access.mode' UNION ALL"
        " SELECT body FROM access_outbox WHERE kind = 'audit' AND type = 'access.mode'",
    )
    details = [json.loads(body)["detail"] for (body,) in bodies]
    return [(detail["from"], detail["to"]) for detail in details]


# Rule 4


def test_admins_live_a_month_in_development_and_a_day_in_production(
    production: Path, development: Path, tmp_path: Path
) -> None:
    backdated = timedelta(minutes=5)
    for directory, expected in ((development, 30 * 24 * HOUR), (production, 24 * HOUR)):
        assert life_of(directory / "admin.crt") == expected + backdated
        to = tmp_path / directory.name
        done("admin", "issue", "alice", "--dir", str(directory), "--to", str(to))
        assert life_of(to / "alice.crt") == expected + backdated


def test_the_host_alone_names_an_admin_and_records_it(development: Path, tmp_path: Path) -> None:
    done("admin", "issue", "alice", "--dir", str(development), "--to", str(tmp_path))

    certificate = x509.load_pem_x509_certificates((tmp_path / "alice.crt").read_bytes())[0]
    assert certificate.subject.rfc4514_string() == "CN=alice,O=Lamassu"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    assert uris == ["lamassu://admin/alice"]
    assert len(list(names)) == 1
    recorded = Tables.of(development, None).rows(
        "access", "SELECT body FROM access_outbox WHERE subject = 'access/admin/alice'"
    ) + Tables.of(development, None).rows(
        "access", "SELECT body FROM access_journal WHERE subject = 'access/admin/alice'"
    )
    assert len(recorded) == 1
    assert "PRIVATE KEY" not in recorded[0][0]
    assert stat.S_IMODE((tmp_path / "alice.key").stat().st_mode) == 0o600
    refused("admin", "issue", "../eve", "--dir", str(development), "--to", str(tmp_path / "to"))


def test_the_internal_roots_key_left_the_host(made: Path) -> None:
    pem, words = made / "medium" / "root.pem", made / "safe" / "root.passphrase"

    assert pem.read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    for file in (pem, words):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    exported = _public_key_of(pem, words)
    root = x509.load_pem_x509_certificates((made / "var" / "tls-ca.crt").read_bytes())[0]
    digest = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert exported == digest.hex()
    assert not list((made / "var" / "keys").glob(f"{exported}*")), "it is nowhere in the keystore"
    # and what issues goes on without it
    assert list((made / "var" / "keys").glob("*.key"))


def _public_key_of(pem: Path, words: Path) -> str:
    """The id of the key in an encrypted PEM file."""
    der = subprocess.run(
        ["openssl", "pkey", "-in", pem, "-passin", f"file:{words}", "-pubout", "-outform", "DER"],
        capture_output=True,
        check=True,
    ).stdout
    digest = subprocess.run(
        ["openssl", "dgst", "-sha256"], input=der, capture_output=True, check=True
    ).stdout.decode()
    return digest.split()[-1]


# Rule 10


@pytest.fixture(scope="module", params=["development", "production"])
def lived_in(
    request: pytest.FixtureRequest,
    fresh: Path,
    made: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, bytes, dict[str, str]]:
    """An installation that ran a while, its passphrase, and what `/proc` told of its process."""
    folder = tmp_path_factory.mktemp("lived-in")
    source = fresh if request.param == "development" else made / "var"
    directory = copy_installation(source, folder / "var")
    secret = directory / "secrets" / "keystore.pass"
    if request.param == "production":
        secret = made / "keystore.pass"
    change(directory, *_at_debug(request.param))
    with serving(directory, elsewhere=True) as server, server.admin() as admin:
        new = {"id": "new-ca", "subject": {"common_name": "New"}, "profile_id": "device-profile"}
        key = {"key_metadata": {"type": "ECDSA", "bits": 256}}
        ending = {"ca_expiration": {"type": "Duration", "duration": "24h"}}
        answer = admin.post("/api/ca/v1/cas", json={**new, **key, **ending})
        if request.param == "development":
            assert answer.status_code == 201
        else:
            assert answer.json()["code"] == "engine_not_for_ca_keys"
        assert server.process is not None
        proc = Path(f"/proc/{server.process.pid}")
        seen = {name: told_by(proc / name).decode() for name in ("limits", "cmdline", "environ")}
    return directory, secret.read_bytes().strip(), seen


def _at_debug(mode: str) -> tuple[str, str]:
    if mode == "production":
        return "\nhttp:\n", "\nlogs:\n  level: debug\nhttp:\n"
    return "level: info ", "level: debug"


Lived = tuple[Path, bytes, dict[str, str]]
KEYS_IN_CLEAR = {"admin.key", "tls/server.key", "est/est.key"}


def test_nobody_else_can_read_an_installation(lived_in: Lived) -> None:
    directory, _, _ = lived_in

    for path in (directory, *directory.rglob("*")):
        mode = stat.S_IMODE(path.lstat().st_mode)
        name = str(path.relative_to(directory))
        if path.is_dir():
            assert mode == 0o700, name
        elif name not in ("config.yml", "server.log") and path.suffix != ".crt":
            assert mode == 0o600, name


def test_no_key_of_a_ca_and_no_passphrase_lies_in_clear(lived_in: Lived) -> None:
    directory, passphrase, _ = lived_in
    clear = set()
    for path in directory.rglob("*"):
        if not path.is_file():
            continue
        name, content = str(path.relative_to(directory)), path.read_bytes()
        if b"PRIVATE KEY" in content:
            clear.add(name)
        assert passphrase not in content or name == "secrets/keystore.pass", name
        for secret in _transport_keys(directory):
            assert secret not in content or name in KEYS_IN_CLEAR, name

    assert clear == KEYS_IN_CLEAR
    for path in (directory / "keys").glob("*.key"):
        assert set(json.loads(path.read_bytes())) == {"format", "key_id", "nonce", "sealed"}


def _transport_keys(directory: Path) -> list[bytes]:
    """A line of each key that has to lie in clear: it may stand nowhere else."""
    return [(directory / name).read_bytes().splitlines()[1] for name in KEYS_IN_CLEAR]


def test_the_process_leaves_no_core_and_shows_no_secret(lived_in: Lived) -> None:
    _, passphrase, seen = lived_in

    [core] = re.findall(r"^Max core file size\s+(\S+)\s+(\S+)", seen["limits"], re.MULTILINE)
    assert core == ("0", "0")
    for name in ("cmdline", "environ"):
        assert passphrase.decode() not in seen[name]


def test_production_keeps_no_passphrase_of_its_own_inside(made: Path) -> None:
    assert not (made / "var" / "secrets" / "keystore.pass").exists()


def test_a_wrong_passphrase_keeps_it_from_starting(development: Path) -> None:
    (development / "secrets" / "keystore.pass").write_text("a wrong one, and long enough\n")

    assert "wrong passphrase" in fails_to_start(development)


def test_a_key_under_another_keys_name_signs_nothing(development: Path) -> None:
    files = {
        key_id: development / "keys" / f"{key_id}.key"
        for name, key_id in Tables.of(development, None).rows(
            "kms", "SELECT name, key_id FROM kms_keys WHERE name LIKE 'ca/%'"
        )
        if name in ("ca/manufacturing-ca", "ca/root-ca")
    }
    one, other = files.values()
    aside = development / "aside"
    one.rename(aside)
    other.rename(one)
    aside.rename(other)

    with serving(development, elsewhere=True) as server, server.admin() as admin:
        answer = admin.post(
            "/api/ca/v1/cas/manufacturing-ca/signature/sign",
            json={
                "message": "aGVsbG8=",
                "message_type": "raw",
                "signature_algorithm": "ECDSA_SHA_256",
            },
        )

    assert (answer.status_code, answer.json()["code"]) == (503, "key_damaged")
    assert str(os.fspath(development)) not in answer.text
