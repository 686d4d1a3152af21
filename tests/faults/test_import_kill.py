"""An import that is killed in the middle, twice, and repeated, ends as one that was not."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.missing import missing_component
from tests.support.original import ENGINES, Original
from tests.support.pki import ec_key
from tests.support.postgres import PostgresCluster, PostgresMissing
from tests.support.server import (
    LAMASSU,
    configure_engines,
    copy_installation,
    lamassu,
    make_installation,
)

pytestmark = pytest.mark.slow
DEVICES = 1200
TABLES = {
    "ca_certificates": "serial_number, der, issuer_ca_id, status, revocation_time, device_id",
    "ca_cas": "id, serial_number, key_id, parent_id, profile_id",
    "devicemanager_devices": "id, dms_id, slot_status, active_version, expires_at, timeline",
    "devicemanager_certificates": "serial_number, device_id, number, ca_id, bound_at",
    "dmsmanager_dms": "id",
    "alerts_latest": "event_type",
}


@pytest.fixture
def original(
    tmp_path: Path, postgres_cluster_on_demand: Callable[[], PostgresCluster]
) -> Iterator[Original]:
    try:
        made = Original(postgres_cluster_on_demand(), tmp_path / "old-keys")
    except PostgresMissing as missing:
        missing_component(str(missing))
    asyncio.run(_fill(made))
    yield made
    made.drop()


async def _fill(original: Original) -> None:
    await original.create()
    await original.add_profile("devices")
    await original.add_ca("fleet-ca")
    await original.add_dms("plant", enrollment_ca="fleet-ca")
    await original.add_event("ca.create", 7)
    key = ec_key()
    held = [
        original.issue(
            "fleet-ca", f"pump-{n}", key=key, status="REVOKED" if n % 10 == 0 else "ACTIVE"
        )
        for n in range(DEVICES)
    ]
    await original.add_certificates(*held)
    devices = [
        original.device(
            one.facts.subject.common_name, [one], dms="plant",
            status="REVOKED" if one.status == "REVOKED" else "ACTIVE",
        )
        for one in held
    ]  # fmt: skip
    await original.insert("devicemanager", "devices", *devices)


def count(directory: Path, table: str) -> int:
    try:
        with closing(sqlite3.connect(f"file:{directory}/data/lamassu.db?mode=ro", uri=True)) as db:
            return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def killed(original: Original, directory: Path, table: str) -> None:
    """A run that dies once the table began to fill."""
    before = count(directory, table)
    process = subprocess.Popen(
        [*LAMASSU, "import", "lamassu", original.server, "--dir", str(directory)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=dict(os.environ),
    )
    deadline = time.monotonic() + 60
    while count(directory, table) < before + 100:
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)


def end_state(directory: Path) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(directory / "data/lamassu.db")) as db:
        return {
            table: sorted(db.execute(f"SELECT {columns} FROM {table}").fetchall(), key=repr)
            for table, columns in TABLES.items()
        }


def test_a_run_that_was_killed_twice_ends_as_one_that_was_not(
    original: Original, tmp_path: Path
) -> None:
    directory = make_installation(tmp_path / "var", key_type="ecdsa-p256")
    configure_engines(directory, ENGINES.format(keys=original.keys))
    lamassu("config", "check", "--dir", str(directory), "--live")  # the keys are encrypted now
    twin = copy_installation(directory, tmp_path / "twin")
    (tmp_path / "twin-keys").mkdir(mode=0o700)
    for file in original.keys.iterdir():
        (tmp_path / "twin-keys" / file.name).write_bytes(file.read_bytes())
    configure_engines(twin, ENGINES.format(keys=tmp_path / "twin-keys"))

    killed(original, directory, "ca_certificates")
    killed(original, directory, "devicemanager_devices")
    halfway = count(directory, "devicemanager_devices")
    said = lamassu("import", "lamassu", original.server, "--dir", str(directory), "-o", "json")
    lamassu("import", "lamassu", original.server, "--dir", str(twin))

    assert 0 < halfway < DEVICES
    assert end_state(directory) == end_state(twin)
    counts = json.loads(said[said.index("{") : said.rindex("}") + 1])["counts"]
    assert counts["certificate"]["present"] >= DEVICES
    assert counts["device"]["present"] == halfway
    assert counts["device"]["adopted"] == DEVICES - halfway
    assert "TAMPERED" not in lamassu("audit", "verify", "--dir", str(directory))
