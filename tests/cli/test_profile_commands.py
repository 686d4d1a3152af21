"""`lamassu profile`: whole profiles from files, previews and replays."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from lamassu.cli import client, documents, options, profile

from .test_client_commands import Platform

app = typer.Typer()
app.add_typer(profile.app, name="profile")

PROFILE = """\
name: Sensors
validity: {type: Duration, duration: 90d}
subject:
  country: NO        # Norway, no truth value
subject_rules:
  patterns:
    common_name: '[a-z]+-[0-9]+'
certificate_policies:
  - oid: 1.3.6.1
honor_subject: true
minimum_validity: null
path_length: 0
"""


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Platform:
    import httpx

    platform = Platform()
    monkeypatch.setattr(client, "transport_with", lambda _: httpx.MockTransport(platform))
    monkeypatch.setattr(options.out, "width", 200)
    return platform


def lamassu(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, arguments, input=stdin)


def test_yaml_is_read_without_surprises() -> None:
    read = documents.parse_document(PROFILE.encode(), "x")

    assert read["subject"] == {"country": "NO"}
    assert read["certificate_policies"] == [{"oid": "1.3.6.1"}]
    assert (read["honor_subject"], read["minimum_validity"], read["path_length"]) == (True, None, 0)
    times = documents.parse_document(b"a: 2030-01-01T00:00:00Z\nb: 1.2\nc: yes\nd: 0x10", "x")
    assert times == {"a": "2030-01-01T00:00:00Z", "b": "1.2", "c": "yes", "d": "0x10"}
    assert documents.parse_document(documents.as_yaml(read).encode(), "x") == read


@pytest.mark.parametrize(
    "text", ["a: 1\na: 2", "- 1", "{", "a: !!python/object:os.system x", "[" * 5000]
)
def test_what_is_no_object_is_refused_with_a_place(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit):
        documents.parse_document(text.encode(), "file.yml")

    assert "file.yml" in capsys.readouterr().err


def test_a_profile_is_created_and_replaced_from_yaml(platform: Platform) -> None:
    warning = {"code": "x", "field": "validity", "text": "too long"}
    platform.on("POST", "/api/ca/v1/profiles", {"id": "s", "warnings": [warning]}, 201)
    platform.on("PUT", "/api/ca/v1/profiles/s", {"id": "s"})

    created = lamassu("profile", "create", "s", "--file", "-", stdin=PROFILE)

    assert created.exit_code == 0, created.output
    assert platform.body["id"] == "s"
    assert platform.body["subject_rules"] == {"patterns": {"common_name": "[a-z]+-[0-9]+"}}
    assert "validity: too long" in created.output
    updated = lamassu("profile", "update", "s", "--file", "-", "--approval", "a1", stdin=PROFILE)
    assert updated.exit_code == 0, updated.output
    assert platform.requests[-1].headers["lamassu-approval"] == "a1"


def test_show_writes_what_update_takes(platform: Platform) -> None:
    whole = {"id": "s", "subject_rules": {"patterns": {"country": "NO"}}, "key_usage": ["A"]}
    platform.on("GET", "/api/ca/v1/profiles/s", whole)

    shown = lamassu("profile", "show", "s")

    assert documents.parse_document(shown.stdout.encode(), "x") == whole


def test_a_preview_shows_text_and_writes_der(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "a.csr").write_bytes(b"0\x00")
    answer: dict[str, Any] = {
        "subject": "CN=a",
        "issuer": "CN=ca",
        "valid_from": "2026-05-01T12:00:00Z",
        "valid_to": "2027-05-01T12:00:00Z",
        "key": {"type": "ECDSA", "bits": 256},
        "extensions": [{"name": "keyUsage", "critical": True, "text": "DigitalSignature"}],
        "to_be_signed": base64.b64encode(b"der").decode(),
        "lint": ["bad"],
    }
    platform.on("POST", "/api/ca/v1/profiles/s/preview", answer)

    shown = lamassu(
        *("profile", "preview", "s", "--csr", str(tmp_path / "a.csr"), "--ca", "ca"),
        *("--der", str(tmp_path / "a.der")),
    )

    assert shown.exit_code == 0, shown.output
    assert platform.body["ca_id"] == "ca"
    assert (tmp_path / "a.der").read_bytes() == b"der"
    assert "CN=a" in shown.output
    assert "DigitalSignature" in shown.output
    assert "would not be signed: bad" in shown.output


def test_a_replay_asks_page_by_page_and_adds_up(platform: Platform) -> None:
    import httpx

    def answer(request: httpx.Request) -> httpx.Response:
        first = not json.loads(request.content)["after"]
        failure = {"serial_number": "0a", "common_name": "a", "device_id": "d", "text": "no"}
        page = {
            "examined": 2,
            "failures": [failure] if first else [],
            "differing": 1,
            "differences": [
                {"part": "subject", "certificates": 1, "serial_number": "0b", "before": "x"}
            ],
            "refused_before": 0,
            "accepted_now": 0,
            "unreadable": 0,
            "next": "0b" if first else "",
        }
        return httpx.Response(200, json=page)

    platform.answers["POST", "/api/ca/v1/profiles/s/what-if"] = answer

    told = lamassu("profile", "what-if", "s", "--changed", "-", stdin=PROFILE)
    lines = lamassu("profile", "what-if", "s", "--changed", "-", "-o", "json", stdin=PROFILE)

    assert "4 enrolments: 1 would fail, 2 would get another certificate" in told.output
    summary = json.loads(lines.stdout.splitlines()[-1])
    assert (summary["examined"], summary["failures"]) == (4, 1)
    assert summary["differences"][0]["certificates"] == 2
    assert json.loads(lines.stdout.splitlines()[0])["failure"]["serial_number"] == "0a"


def test_check_tells_findings_of_one_or_of_all(platform: Platform) -> None:
    finding = {"code": "san_unpatterned", "field": "alternative_names.allowed", "text": "bound it"}
    platform.on("GET", "/api/ca/v1/profiles", {"next": "", "list": [{"id": "s"}, {"id": "t"}]})
    platform.on("GET", "/api/ca/v1/profiles/s/findings", {"findings": [finding]})
    platform.on("GET", "/api/ca/v1/profiles/t/findings", {"findings": []})

    assert "san_unpatterned" in lamassu("profile", "check").output
    assert "none" in lamassu("profile", "check", "t").output
