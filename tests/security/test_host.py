"""What somebody on the host, or a careless operator, could do (rules 3, 4, 10)."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.support.est import Device, bootstrap, make_dms
from tests.support.server import Server, lamassu, make_installation
from tests.support.tables import Tables

# What a program sees of itself once it has opened the keystore (linux/prctl.h).
_WATCH = """
import asyncio, ctypes, pathlib, resource, sys
from lamassu import wiring

async def main():
    async with wiring.opened(pathlib.Path(sys.argv[1])):
        print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))

asyncio.run(main())
"""


def _secrets_of(directory: Path) -> dict[str, bytes]:
    """Every secret of an installation, in each form in which it could turn up."""
    found: dict[str, bytes] = {}
    for path in (directory / "secrets").iterdir():
        text = path.read_text().strip()
        found[path.name] = text.encode()
        if path.suffix == ".key":
            found[f"{path.name} as octets"] = bytes.fromhex(text)
    for name in ("admin.key", "est/est.key", "tls/server.key"):
        pem = (directory / name).read_bytes()
        key = load_pem_private_key(pem, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        number = key.private_numbers().private_value.to_bytes(32, "big")
        found |= {name: number, f"{name} as hex": number.hex().encode()}
        found[f"{name} as PEM"] = pem.splitlines()[1]
    return found


def test_no_secret_is_anywhere_but_in_its_own_file(platform: Server, tmp_path: Path) -> None:
    """After an enrolment and a key's whole life: database, log, keystore, events, `config show`,
    the process's arguments and environment."""
    make_dms(platform, "leaky")
    device = Device(
        platform, "leaky", "leaky-1", tmp_path, bootstrap(platform, tmp_path, "leaky-boot")
    )
    assert device.enroll().status_code == 200
    with platform.admin() as admin:
        wanted = {"algorithm": "ECDSA", "size": 256, "name": "leaky"}
        made = admin.post("/api/kms/v1/keys", json=wanted).json()
        message = {"algorithm": "ECDSA_SHA_256", "message": "aGk=", "message_type": "raw"}
        admin.post(f"/api/kms/v1/keys/{made['key_id']}/sign", json=message).raise_for_status()
        events = admin.get("/api/alerts/v1/events/latest").content
    assert platform.process is not None
    process = Path("/proc") / str(platform.process.pid)
    directory = platform.directory
    files = [*(directory / "data").iterdir(), *(directory / "keys").iterdir(), platform.log]
    places = {path.name: path.read_bytes() for path in files}
    places |= {
        "events": events,
        "arguments": (process / "cmdline").read_bytes(),
        "environment": (process / "environ").read_bytes(),
        "config show": lamassu("config", "show", "--dir", str(directory)).encode(),
    }

    for place, content in places.items():
        assert b"PRIVATE KEY" not in content, place
        for name, secret in _secrets_of(directory).items():
            assert secret not in content, f"{name} is in {place}"


def test_nobody_else_on_the_host_can_read_an_installation(attacked_directory: Path) -> None:
    public = {"tls-ca.crt", "server.log"}  # the log is the test's own
    for path in (attacked_directory, *attacked_directory.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert path.name in public or not mode & 0o077, (path, oct(mode))


def test_a_command_that_opens_the_keystore_leaves_no_core_file(
    attacked_directory: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(attacked_directory, tmp_path / "var")
    done = subprocess.run(
        [sys.executable, "-c", _WATCH, str(directory)], capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == ["(0,", "0)", "0"]


def test_production_is_left_by_a_recorded_command_only(tmp_path: Path) -> None:
    directory = make_installation(tmp_path / "var", key_type="ecdsa-p256")
    config = directory / "config.yml"
    development = config.read_text()
    outside = tmp_path / "keystore.pass"
    (directory / "secrets" / "keystore.pass").rename(outside)
    development = development.replace("secrets/keystore.pass", str(outside))
    production = development.replace("mode: development", "mode: production")
    here = ("--dir", str(directory))

    config.write_text(production)
    lamassu("admin", "list", *here)
    still_said = lamassu("config", "lower-mode", "--yes", *here, check=False)
    config.write_text(development)
    refused = lamassu("admin", "list", *here, check=False)
    lowered = lamassu("config", "lower-mode", "--yes", *here)
    lamassu("admin", "list", *here)

    assert "write mode: development there first" in still_said
    assert "this installation is in production" in refused
    assert "mode: development" in lowered
    trail = "SELECT body FROM access_outbox UNION ALL SELECT body FROM access_journal"
    told = [body for (body,) in Tables.of(directory, None).rows("access", trail)]
    assert any('"from":"production","to":"development"' in body for body in told)
