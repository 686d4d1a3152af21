"""SIGKILL at any instant loses nothing that was acknowledged.

Devices enroll and re-enroll without pause, retrying as a device would (same key, same request),
while the server is killed and started again.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.support.crashing_server import SOURCES
from tests.support.est import Device, bootstrap, make_dms, new_key
from tests.support.server import Server, free_port, lamassu, make_installation, ports_of
from tests.support.tables import Tables

KILLS = 20
AT_ONCE = 6
GIVE_UP_AFTER = 60.0
CRASHING = (sys.executable, "-m", "tests.support.crashing_server")


@dataclass
class Fleet:
    """Devices that want certificates, and the server that gets killed."""

    server: Server
    folder: Path
    dms: str = "kill-dms"
    devices: list[Device] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def persist(self, device: Device, operation: str) -> None:
        """Ask until the certificate is there: the same key each time, as a device retries."""
        key = new_key()
        deadline = time.monotonic() + GIVE_UP_AFTER
        while True:
            try:
                answer = device.enroll(key) if operation == "enroll" else device.reenroll(key)
                if answer.status_code == 200:
                    return
                problem = f"{answer.status_code} {answer.text}"
                # Only a server that is not well may make a device wait.
                assert answer.status_code == 503, f"{device.id} {operation}: {problem}"
            except httpx.TransportError as error:
                problem = repr(error)
            assert time.monotonic() < deadline, f"{device.id} {operation}: {problem}"
            time.sleep(0.05)

    def live(self, worker: int) -> None:
        """One device after the other: enroll, then renew twice with new keys."""
        number = 0
        while not self.stopping.is_set():
            name = f"device-{worker}-{number}"
            device = Device(
                self.server, self.dms, name, self.folder, bootstrap=self.bootstraps[worker]
            )
            self.devices.append(device)
            for operation in ("enroll", "reenroll", "reenroll"):
                self.persist(device, operation)
            number += 1

    def furnish(self) -> None:
        """A DMS and a bootstrap certificate for each worker."""
        make_dms(self.server, self.dms)
        self.bootstraps = [
            bootstrap(self.server, self.folder, f"bootstrap-{n}") for n in range(AT_ONCE)
        ]


@pytest.fixture(params=["sqlite", "postgresql"])
def server(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    """A server of a fresh installation that starts through the crashing launcher."""
    url = None
    if request.param == "postgresql":
        url = request.getfixturevalue("fresh_postgresql")
    directory = make_installation(tmp_path / "var", database=url, key_type="ecdsa-p256")
    monkeypatch.setattr("tests.support.server.LAMASSU", CRASHING)
    port, http_port = ports_of(directory)
    server = Server(directory, port, http_port, free_port(), database=url)
    server.environment["WITNESS"] = str(tmp_path / "witness")
    yield server
    if server.process is not None:
        server.kill()


def check_promises(fleet: Fleet, tables: Tables) -> None:
    """What every client received is stored, active and in its slot; nothing is half made."""
    received = {
        device.id: [_hex(certificate.serial_number) for certificate in device.received]
        for device in fleet.devices
        if device.received
    }
    assert received
    status = dict(tables.rows("ca", "SELECT serial_number, status FROM ca_certificates"))
    slots: dict[str, list[str]] = {}
    for device_id, serial_number in tables.rows(
        "devicemanager",
        "SELECT device_id, serial_number FROM devicemanager_certificates"
        " WHERE number IS NOT NULL ORDER BY device_id, number",
    ):
        slots.setdefault(device_id, []).append(serial_number)
    for device_id, serial_numbers in received.items():
        for serial_number in serial_numbers:
            assert status.get(serial_number) == "ACTIVE", (device_id, serial_number)
            assert serial_number in slots[device_id]
        assert slots[device_id][-1] == serial_numbers[-1], "the last one is the slot's"
    devices = {
        row[0] for row in tables.rows("devicemanager", "SELECT id FROM devicemanager_devices")
    }
    assert devices == set(slots), "no device without its first identity"
    serials = [row[0] for row in tables.rows("ca", "SELECT serial_number FROM ca_certificates")]
    assert max(Counter(serials).values()) == 1


def _hex(serial_number: int) -> str:
    text = f"{serial_number:x}"
    return text if len(text) % 2 == 0 else "0" + text


def check_records(fleet: Fleet, tables: Tables, witness: Path) -> None:
    """Every event reached the consumer that counts, and certificates have theirs."""
    journalled = {
        (service, row[0])
        for service in SOURCES
        for row in tables.rows(
            service, f"SELECT position FROM {service}_journal WHERE kind = 'event'"
        )
    }
    # At least once: the same event may stand twice, and its place in the journal tells.
    seen = {tuple(line.split()) for line in witness.read_text().splitlines()}
    assert {(service, position) for service, position, _, _ in seen} == journalled
    kinds = Counter(type_ for _, _, _, type_ in seen)
    certificates = sum(len(device.received) for device in fleet.devices)
    assert kinds["ca.sign.certificate"] >= certificates
    assert kinds["device.identity.update"] >= certificates


def test_sigkill_at_random_instants_loses_nothing_acknowledged(
    server: Server, tmp_path: Path
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    server.start()
    fleet = Fleet(server, tmp_path / "fleet")
    fleet.furnish()
    with ThreadPoolExecutor(AT_ONCE) as workers:
        running = [workers.submit(fleet.live, worker) for worker in range(AT_ONCE)]
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.05, 0.6))
            server.kill()
            server.start()
        time.sleep(0.5)
        fleet.stopping.set()
        for worker in running:
            worker.result()

    _settle(server)
    tables = Tables.of(server.directory, server.database)
    check_promises(fleet, tables)
    check_records(fleet, tables, tmp_path / "witness")
    assert "faults" not in lamassu("audit", "verify", "--dir", str(server.directory))


@pytest.mark.parametrize(
    "point",
    [
        "before_issue:2",
        "after_issue:2",
        "after_issue:5",
        "before_bind:4",
        "after_bind:2",
        "after_bind:5",
        "before_answer_enroll:3",
        "before_answer_reenroll:2",
    ],
)
def test_a_kill_between_commit_binding_and_answer_is_healed_by_the_devices_retry(
    server: Server, tmp_path: Path, point: str
) -> None:
    server.start()
    fleet = Fleet(server, tmp_path / "fleet")
    fleet.furnish()
    server.stop()
    server.environment["CRASH_AT"] = point
    server.start()
    crashed = threading.Event()

    def restart_once() -> None:
        assert server.process is not None
        server.process.wait(60)
        crashed.set()
        del server.environment["CRASH_AT"]
        server.start()

    reviver = threading.Thread(target=restart_once)
    reviver.start()
    with ThreadPoolExecutor(AT_ONCE) as workers:
        running = [workers.submit(_one_life, fleet, worker) for worker in range(AT_ONCE)]
        for worker in running:
            worker.result()
    reviver.join(60)

    assert crashed.is_set()
    _settle(server)
    tables = Tables.of(server.directory, server.database)
    check_promises(fleet, tables)
    assert all(len(device.received) == 2 for device in fleet.devices)
    check_records(fleet, tables, tmp_path / "witness")


def _one_life(fleet: Fleet, worker: int) -> None:
    device = Device(
        fleet.server, fleet.dms, f"device-{worker}", fleet.folder, fleet.bootstraps[worker]
    )
    fleet.devices.append(device)
    fleet.persist(device, "enroll")
    fleet.persist(device, "reenroll")


def _settle(server: Server) -> None:
    """Wait until every committed record is in its journal and was handed out, then stop."""
    tables = Tables.of(server.directory, server.database)
    deadline = time.monotonic() + 30
    while not tables.settled(consumer="witness", sources=SOURCES):
        assert time.monotonic() < deadline, "the relay did not catch up"
        time.sleep(0.2)
    server.stop()
