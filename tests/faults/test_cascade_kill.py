"""SIGKILL in the midst of a cascade: the next start goes on where it was, and tells each once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamassu.services.ca.storage import tables as ca_tables
from tests.faults.test_kill import CRASHING
from tests.support.bodies import CSR
from tests.support.server import Server, free_port, make_installation, ports_of
from tests.support.tables import Tables

CERTIFICATES = 1200
IN_TIME = 60.0
REVOKED = (
    "SELECT count(*) FROM ca_certificates WHERE issuer_ca_id = 'doomed' AND NOT is_ca"
    " AND status = 'REVOKED'"
)


@pytest.fixture(params=["sqlite", "postgresql"])
def server(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    url = None
    if request.param == "postgresql":
        url = request.getfixturevalue("fresh_postgresql")
    directory = make_installation(tmp_path / "var", database=url, key_type="ecdsa-p256")
    monkeypatch.setattr("tests.support.server.LAMASSU", CRASHING)
    port, http_port = ports_of(directory)
    server = Server(directory, port, http_port, free_port(), database=url)
    yield server
    if server.process is not None:
        server.kill()


def fill(tables: Tables, certificates: int) -> None:
    """Copies of the CA's only certificate, made past the platform."""
    names = [column.name for column in ca_tables.certificates.c]
    values = ["'c0ffee' || (10000000 + i)" if name == "serial_number" else name for name in names]
    tables.rows(
        "ca",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
        f" WHERE i < {certificates})"
        f" INSERT INTO ca_certificates ({', '.join(names)}) SELECT {', '.join(values)}"
        " FROM ca_certificates, n WHERE issuer_ca_id = 'doomed' AND NOT is_ca",
    )


def job_of(server: Server, job_id: str) -> dict[str, int | str]:
    with server.admin() as admin:
        found: dict[str, int | str] = admin.get(f"/api/ca/v1/jobs/{job_id}").json()
    return found


def await_state(server: Server, job_id: str, *states: str) -> dict[str, int | str]:
    deadline = time.monotonic() + IN_TIME
    while (job := job_of(server, job_id))["state"] not in states:
        assert time.monotonic() < deadline, job
        time.sleep(0.1)
    return job


def test_a_cascade_that_was_killed_goes_on_and_tells_of_each_once(server: Server) -> None:
    server.start()
    with server.admin() as admin:
        body = {
            "id": "doomed",
            "subject": {"common_name": "Doomed"},
            "key_metadata": {"type": "ECDSA", "bits": 256},
            "ca_expiration": {"type": "Duration", "duration": "8760h"},
            "profile_id": "device-profile",
        }
        assert admin.post("/api/ca/v1/cas", json=body).status_code == 201
        path = "/api/ca/v1/cas/doomed/certificates/sign"
        assert admin.post(path, json={"csr": CSR}).status_code == 201
    server.stop()
    tables = Tables.of(server.directory, server.database)
    fill(tables, CERTIFICATES)
    server.environment["CRASH_AT"] = "within_cascade:3"
    server.start()
    with server.admin() as admin:
        answer = admin.post("/api/ca/v1/cas/doomed/status", json={"status": "REVOKED"})
    assert answer.status_code == 201
    job_id = answer.headers["lamassu-job"]
    assert server.process is not None
    server.process.wait(IN_TIME)
    marked = tables.one("ca", REVOKED)
    assert 0 < marked < CERTIFICATES, "it was killed in the midst"

    server.environment["CRASH_AT"] = "within_cascade:6"
    server.start()
    assert server.process is not None
    server.process.wait(IN_TIME)
    assert tables.one("ca", REVOKED) == CERTIFICATES + 1

    del server.environment["CRASH_AT"]
    server.start()
    job = await_state(server, job_id, "DONE")
    assert job["done"] == job["announced"] == job["total"] == CERTIFICATES + 1
    server.stop()
    told = Counter(
        subject
        for table in ("ca_journal", "ca_outbox")
        for (subject,) in tables.rows(
            "ca",
            f"SELECT subject FROM {table} WHERE type = 'certificate.status.update'"
            " AND kind = 'event'",
        )
    )
    assert len(told) == CERTIFICATES + 1
    assert set(told.values()) == {1}
