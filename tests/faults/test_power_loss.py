"""Nothing is acknowledged before it is on the disk: the disk's refusal is the client's."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.est import Device, bootstrap, make_dms, new_key
from tests.support.missing import missing_component
from tests.support.postgres import PostgresCluster
from tests.support.server import Server, make_installation, serving
from tests.support.tables import Tables

STRACE = shutil.which("strace")

pytestmark = pytest.mark.skipif(
    STRACE is None and not os.environ.get("CI"), reason="strace is not installed"
)


@contextmanager
def syncs_failing(processes: Sequence[int], log: Path) -> Iterator[None]:
    """From now on each fsync and fdatasync of these processes and their children fails."""
    traced = [argument for process in processes for argument in ("-p", str(process))]
    tracer = subprocess.Popen(
        [
            *(STRACE or "strace", "-f", *traced, "-o", str(log)),
            *("-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr is not None
    attached = tracer.stderr.readline()
    if "attached" not in attached:
        tracer.kill()
        missing_component(f"strace cannot attach: {attached.strip()}")
    try:
        yield
    finally:
        tracer.terminate()
        tracer.wait(10)


@dataclass
class Stage:
    """A platform, the processes that write its data, and what puts them up again."""

    directory: Path
    writers: Callable[[Server], Sequence[int]]
    revive: Callable[[], None]
    url: str | None = None


@pytest.fixture(params=["sqlite", "postgresql"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    """On PostgreSQL a cluster of its own, with real syncs: this test makes it panic."""
    if request.param == "sqlite":
        directory = make_installation(tmp_path / "var", key_type="ecdsa-p256")

        def server_itself(server: Server) -> Sequence[int]:
            assert server.process is not None
            return [server.process.pid]

        yield Stage(directory, server_itself, lambda: None)
        return
    request.getfixturevalue("postgres_cluster")  # skips, or fails in CI, where there is none
    cluster = PostgresCluster(durable=True)
    try:
        cluster.create()
        cluster.start()

        def revive() -> None:
            cluster.stop(kill=True)
            cluster.start()

        url = cluster.url()
        directory = make_installation(tmp_path / "var", database=url, key_type="ecdsa-p256")
        yield Stage(directory, lambda server: cluster.processes(), revive, url)
    finally:
        cluster.remove()


def test_an_enrolment_whose_commit_cannot_reach_the_disk_is_not_acknowledged(
    stage: Stage, tmp_path: Path
) -> None:
    with serving(stage.directory) as server:
        make_dms(server, "power")
        credential = bootstrap(server, tmp_path, "power-bootstrap")
        device = Device(server, "power", "power-device", tmp_path / "devices", credential)
        key = new_key()
        log = tmp_path / "strace"

        with syncs_failing(stage.writers(server), log):
            refused = device.enroll(key)
            server.kill()

        assert refused.status_code == 503, refused.text
        assert "INJECTED" in log.read_text(), "the commit did ask for the disk"
        stage.revive()
        tables = Tables.of(stage.directory, stage.url)
        assert not tables.rows("devicemanager", "SELECT id FROM devicemanager_devices")

        server.start()
        assert device.enroll(key).status_code == 200
    [[serial_number]] = tables.rows(
        "devicemanager", "SELECT serial_number FROM devicemanager_certificates"
    )
    assert int(serial_number, 16) == device.received[0].serial_number
