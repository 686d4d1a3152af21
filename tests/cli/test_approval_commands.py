"""Commands that have to wait for others, against a platform that answers from memory."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import typer
from typer.testing import CliRunner, Result

from lamassu.cli import approval, ca, cert, client, options
from tests.cli.test_client_commands import Platform

WAITING: dict[str, Any] = {
    "id": "a-1",
    "status": "PENDING",
    "operation": "ca.status",
    "ca_id": "root",
    "requester": "alice",
    "request": {
        "method": "POST",
        "path": "/api/ca/v1/cas/root/status",
        "body": {"status": "REVOKED", "note": "\u202eevil\x1b[2J"},
    },
    "policies": [
        {"ca_id": "root", "required": 2, "of": ["bob", "carol"], "lifetime": "1d"},
        {"ca_id": "below", "required": 1, "of": ["dave"], "lifetime": "1d"},
    ],
    "votes": [
        {"approver": "bob", "verdict": "APPROVE", "comment": "as \x1b[31magreed", "time": "x"}
    ],
    "excluded": [],
    "expires_at": "2026-05-02T12:00:00Z",
    "closed_at": "0001-01-01T00:00:00Z",
    "basis": {"profile/sub": "0a"},
    "digest": "0b",
}
LOCATION = {"location": "/api/ca/v1/approvals/a-1"}

app = typer.Typer()
for noun, module in {"ca": ca, "cert": cert, "approval": approval}.items():
    app.add_typer(module.app, name=noun)


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Platform:
    platform = Platform()
    monkeypatch.setattr(client, "transport_with", lambda _: httpx.MockTransport(platform))
    monkeypatch.setattr(options.out, "width", 200)
    return platform


def lamassu(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize(
    ("arguments", "method", "path"),
    [
        (("ca", "create", "x", "--parent", "root"), "POST", "/api/ca/v1/cas"),
        (("ca", "revoke", "root", "--yes"), "POST", "/api/ca/v1/cas/root/status"),
        (("ca", "approvals", "clear", "root"), "PUT", "/api/ca/v1/cas/root/approvals"),
        (
            ("ca", "approvals", "set", "root", "--of", "bob", "--of", "carol"),
            "PUT",
            "/api/ca/v1/cas/root/approvals",
        ),
        (("cert", "revoke", "0a"), "PUT", "/api/ca/v1/certificates/0a/status"),
    ],
)
def test_what_waits_is_no_success_and_says_what_to_do(
    platform: Platform, arguments: tuple[str, ...], method: str, path: str
) -> None:
    platform.on(method, path, WAITING, 202, **LOCATION)

    done = lamassu(*arguments)

    assert done.exit_code == options.WAITS
    assert done.stdout == "a-1\n", "a script takes the id"
    assert "nothing was done yet" in done.stderr
    assert "2 of bob, carol and 1 of dave" in done.stderr
    assert "lamassu approval approve a-1" in done.stderr
    assert "--approval a-1" in done.stderr
    assert "lamassu-approval" not in platform.requests[-1].headers

    asked = platform.body
    assert lamassu(*arguments, "--approval", "a-1").exit_code == options.WAITS
    assert platform.requests[-1].headers["lamassu-approval"] == "a-1"
    assert platform.body == asked, "the very same request"


def test_an_approver_reads_every_word_and_no_word_commands_the_terminal(
    platform: Platform,
) -> None:
    platform.on("GET", "/api/ca/v1/approvals/a-1", WAITING)

    shown = lamassu("approval", "get", "a-1").stdout

    for words in ("root: 2 of bob carol", "below: 1 of dave", "profile/sub", "bob approves"):
        assert words in shown
    assert '"status": "REVOKED"' in shown
    assert "evil" in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_votes_carry_their_reason(platform: Platform) -> None:
    for word in ("approve", "reject"):
        platform.on("POST", f"/api/ca/v1/approvals/a-1/{word}", WAITING)
        assert lamassu("approval", word, "a-1", "--comment", "because").exit_code == 0
        assert platform.body == {"comment": "because"}
