"""SIGKILL between the commit and the answer: the request is repeated, and was done once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.test_kill import server  # noqa: F401
from tests.properties.assembled import ca, dms
from tests.support.bodies import CSR
from tests.support.server import Server
from tests.support.tables import Tables

SIGN = "/api/ca/v1/cas/development-ca/certificates/sign"
CAS = "/api/ca/v1/cas"
DMSS = "/api/dmsmanager/v1/dms"


def killed(server: Server, url: str, body: Any, key: str) -> None:  # noqa: F811
    """The server does the deed and dies before it answers; then it is started again."""
    with server.admin() as admin, pytest.raises(httpx.TransportError):
        admin.post(url, json=body, headers={"Idempotency-Key": key})
    assert server.process is not None
    assert server.process.wait(20) < 0, "it killed itself"


def repeated(server: Server, url: str, body: Any, key: str) -> httpx.Response:  # noqa: F811
    with server.admin() as admin:
        return admin.post(url, json=body, headers={"Idempotency-Key": key})


def test_a_request_is_done_once_whatever_is_killed(
    server: Server,  # noqa: F811
) -> None:
    deeds = [
        ("after_issue:1", SIGN, {"csr": CSR}, "ca.sign.certificate", "ca"),
        ("after_create_ca:1", CAS, ca("once"), "ca.create", "ca"),
        ("after_create_dms:1", DMSS, dms("once"), "dms.create", "dmsmanager"),
    ]
    answers = []
    for number, (point, url, body, *_) in enumerate(deeds):
        server.environment["CRASH_AT"] = point
        server.start()
        before = [made(server, event, service) for *_, event, service in deeds]
        killed(server, url, body, f'"deed-{number}"')
        del server.environment["CRASH_AT"]
        server.start()
        first = repeated(server, url, body, f'"deed-{number}"')
        again = repeated(server, url, body, f'"deed-{number}"')
        server.stop()
        after = [made(server, event, service) for *_, event, service in deeds]

        assert first.status_code == 201, first.text
        assert first.headers["idempotency-replayed"] == "true"
        assert again.content == first.content
        assert [later - one for one, later in zip(before, after, strict=True)] == [
            1 if place == number else 0 for place in range(len(deeds))
        ]
        answers.append(first.json())

    server.start()
    with server.admin() as admin:
        serial = answers[0]["serial_number"]
        stored = admin.get(f"/api/ca/v1/certificates/{serial}").json()
        assert stored["certificate"] == answers[0]["certificate"]
        assert admin.get(f"{CAS}/once").json() == answers[1]
        assert admin.get(f"{DMSS}/once").json() == answers[2]


def made(server: Server, event: str, service: str) -> int:  # noqa: F811
    """How many events tell of such a deed."""
    tables = Tables.of(Path(server.directory), server.database)
    rows = tables.rows(
        service,
        " UNION ALL ".join(
            f"SELECT type FROM {service}_{table} WHERE type = '{event}' AND kind = 'event'"
            for table in ("outbox", "journal")
        ),
    )
    return len(rows)
