"""SIGKILL while an approval is used: spent and done, or neither (security rule 7)."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.faults.test_kill import server  # noqa: F401
from tests.support.server import Server, lamassu
from tests.support.tables import Tables

NAMES = ("alice", "bob", "carol")
CA = "/api/ca/v1/cas/development-ca"
REVOKE = {"status": "REVOKED", "revocation_reason": "CACompromise"}
VOTES = 2


def approved(server: Server, folder: Path) -> dict[str, str]:  # noqa: F811
    """The header of an approval that two persons gave to the admin's request."""
    for name in NAMES:
        lamassu("admin", "issue", name, "--dir", str(server.directory), "--to", str(folder))
    with server.admin() as admin:
        policy = {"required": VOTES, "of": list(NAMES)}
        assert admin.put(f"{CA}/approvals", json=policy).status_code == 200
        asked = admin.post(f"{CA}/status", json=REVOKE)
    assert asked.status_code == 202, asked.text
    approval = asked.json()["id"]
    for name in NAMES[:VOTES]:
        with server.client(folder / f"{name}.crt", folder / f"{name}.key") as person:
            answer = person.post(f"/api/ca/v1/approvals/{approval}/approve")
            assert answer.status_code == 200, answer.text
    return {"Lamassu-Approval": approval}


def test_an_approval_is_spent_with_the_deed_or_not_at_all(
    server: Server,  # noqa: F811
    tmp_path: Path,
) -> None:
    server.environment["CRASH_AT"] = f"within_spending:{VOTES + 1}"
    server.start()
    header = approved(server, tmp_path)

    killed_while_using(server, header, next_point="after_ca_status:1")
    assert standing(server, header) == ("APPROVED", "ACTIVE")

    killed_while_using(server, header, next_point="")
    assert standing(server, header) == ("SPENT", "REVOKED")
    with server.admin() as admin:
        assert admin.post(f"{CA}/status", json=REVOKE, headers=header).status_code == 400
    server.stop()
    used = Tables.of(server.directory, server.database).rows(
        "ca",
        "SELECT kind FROM ca_journal WHERE type = 'approval.use' UNION ALL"
        " SELECT kind FROM ca_outbox WHERE type = 'approval.use'",
    )
    assert sorted(kind for (kind,) in used) == ["audit", "event"]


def killed_while_using(
    server: Server,  # noqa: F811
    header: dict[str, str],
    *,
    next_point: str,
) -> None:
    """Use the approval, which the server does not survive, and start it again."""
    with server.admin() as admin, pytest.raises(httpx.TransportError):
        admin.post(f"{CA}/status", json=REVOKE, headers=header)
    assert server.process is not None
    assert server.process.wait(20) < 0, "it killed itself"
    del server.environment["CRASH_AT"]
    if next_point:
        server.environment["CRASH_AT"] = next_point
    server.start()


def standing(
    server: Server,  # noqa: F811
    header: dict[str, str],
) -> tuple[str, str]:
    """Of the approval, and of the CA."""
    with server.admin() as admin:
        approval = admin.get(f"/api/ca/v1/approvals/{header['Lamassu-Approval']}").json()
        return approval["status"], admin.get(CA).json()["certificate"]["status"]
