"""Where secrets could turn up on the host (rule 10)."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.support.est import Device, bootstrap, make_dms
from tests.support.server import Server, lamassu, told_by

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
        "environment": told_by(process / "environ"),
        "config show": lamassu("config", "show", "--dir", str(directory)).encode(),
    }

    for place, content in places.items():
        assert b"PRIVATE KEY" not in content, place
        for name, secret in _secrets_of(directory).items():
            assert secret not in content, f"{name} is in {place}"


def test_a_command_that_opens_the_keystore_leaves_no_core_file(
    attacked_directory: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(attacked_directory, tmp_path / "var")
    done = subprocess.run(
        [sys.executable, "-c", _WATCH, str(directory)], capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == ["(0,", "0)", "0"]
