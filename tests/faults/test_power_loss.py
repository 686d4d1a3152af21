"""Nothing is acknowledged before it is on the disk: the disk's refusal is the client's."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.est import Device, bootstrap, make_dms, new_key
from tests.support.server import Server, make_installation, serving
from tests.support.tables import Tables

STRACE = shutil.which("strace")

pytestmark = pytest.mark.skipif(
    STRACE is None and not os.environ.get("CI"), reason="strace is not installed"
)


@contextmanager
def syncs_failing(server: Server, log: Path) -> Iterator[None]:
    """From now on each fsync and fdatasync of the server's threads fails with EIO."""
    assert server.process is not None
    tracer = subprocess.Popen(
        [
            STRACE or "strace",
            "-f",
            "-p",
            str(server.process.pid),
            "-o",
            str(log),
            "-e",
            "trace=fsync,fdatasync",
            "-e",
            "inject=fsync,fdatasync:error=EIO",
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr is not None
    attached = tracer.stderr.readline()
    if "attached" not in attached:
        tracer.kill()
        if os.environ.get("CI"):
            pytest.fail(f"strace cannot attach: {attached}")
        pytest.skip(f"strace cannot attach: {attached.strip()}")
    try:
        yield
    finally:
        tracer.terminate()
        tracer.wait(10)


def test_an_enrolment_whose_commit_cannot_reach_the_disk_is_not_acknowledged(
    tmp_path: Path,
) -> None:
    directory = make_installation(tmp_path / "var", key_type="ecdsa-p256")
    with serving(directory) as server:
        make_dms(server, "power")
        credential = bootstrap(server, tmp_path, "power-bootstrap")
        device = Device(server, "power", "power-device", tmp_path / "devices", credential)
        key = new_key()
        log = tmp_path / "strace"

        with syncs_failing(server, log):
            refused = device.enroll(key)
            server.kill()

        assert refused.status_code == 503, refused.text
        assert "INJECTED" in log.read_text(), "the commit did ask for the disk"
        tables = Tables.of(directory, None)
        assert not tables.rows("devicemanager", "SELECT id FROM devicemanager_devices")

        server.start()
        assert device.enroll(key).status_code == 200
        deadline = time.monotonic() + 10
        while tables.one("ca", "SELECT count(*) FROM ca_outbox") and time.monotonic() < deadline:
            time.sleep(0.1)
    [serial_number] = [
        row[0]
        for row in tables.rows(
            "devicemanager", "SELECT serial_number FROM devicemanager_certificates"
        )
    ]
    assert int(serial_number, 16) == device.received[0].serial_number
