"""The client commands, against a platform that answers from memory."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

from lamassu.cli import ca, cert, client, device, dms, key, options, output, profile

PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
WIRE_PEM = base64.b64encode(PEM.encode()).decode()
DEVICE = {
    "id": "dev-1",
    "status": "ACTIVE",
    "dms_owner": "fleet",
    "tags": ["a", "b"],
    "creation_timestamp": "2026-05-01T12:00:00Z",
    "metadata": {},
    "identity": {
        "active_version": 1,
        "versions": {"0": "0a", "1": "0b"},
        "expiration_date": "2026-06-01T12:00:00Z",
        "events": {"2026-05-02T00:00:00Z": {"type": "RENEWED", "description": "to 1"}},
    },
    "events": {"2026-05-01T12:00:00Z": {"type": "CREATED", "description": ""}},
}
CERTIFICATE = {"serial_number": "0b", "status": "ACTIVE", "certificate": WIRE_PEM}

app = typer.Typer()
NOUNS = {"ca": ca, "cert": cert, "profile": profile, "dms": dms, "device": device, "key": key}
for noun, module in NOUNS.items():
    app.add_typer(module.app, name=noun)


class Platform:
    """Answers by method and path; remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], httpx.Response | Callable[..., httpx.Response]] = {}
        self.requests: list[httpx.Request] = []

    def on(
        self, method: str, path: str, body: Any = None, status: int = 200, **headers: str
    ) -> None:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers[method, path] = httpx.Response(status, json=body, headers=names)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        path = request.url.raw_path.decode().partition("?")[0]
        answer = self.answers.get((request.method, path))
        if answer is None:
            return httpx.Response(404, json={"err": "no such path", "code": "x", "field": None})
        return answer(request) if callable(answer) else answer

    @property
    def body(self) -> Any:
        return json.loads(self.requests[-1].content)


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Platform:
    platform = Platform()
    monkeypatch.setattr(client, "transport_with", lambda _: httpx.MockTransport(platform))
    monkeypatch.setattr(options.out, "width", 200)
    return platform


def lamassu(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def test_a_list_goes_through_pages_and_sends_filters_once(platform: Platform) -> None:
    def page(request: httpx.Request) -> httpx.Response:
        first = "bookmark" not in request.url.params
        items = [{**DEVICE, "id": f"dev-{n}"} for n in ((1, 2) if first else (3,))]
        return httpx.Response(200, json={"next": "mark" if first else "", "list": items})

    platform.answers["GET", "/api/devmanager/v1/devices"] = page
    done = lamassu(
        "device", "list", "--filter", "status[eq]ACTIVE", "--filter", "id[ct]dev",
        "--sort", "id", "--desc", "-o", "json",
    )  # fmt: skip
    assert done.exit_code == 0
    assert [item["id"] for item in json.loads(done.stdout)] == ["dev-1", "dev-2", "dev-3"]
    first, second = (request.url.params for request in platform.requests)
    assert first.get_list("filter") == ["status[eq]ACTIVE", "id[ct]dev"]
    assert (first["sort_by"], first["sort_mode"], first["page_size"]) == ("id", "desc", "100")
    assert dict(second) == {"bookmark": "mark"}


def test_a_limit_is_kept_and_said(platform: Platform) -> None:
    items = [{**DEVICE, "id": f"dev-{n}"} for n in range(3)]
    platform.on("GET", "/api/devmanager/v1/devices", {"next": "", "list": items})
    done = lamassu("device", "list", "--limit", "2", "-o", "json")
    assert len(json.loads(done.stdout)) == 2
    assert "only the first 2" in done.stderr


def test_the_devices_of_a_dms_are_listed(platform: Platform) -> None:
    platform.on("GET", "/api/devmanager/v1/devices/dms/my%2Ffleet", {"next": "", "list": [DEVICE]})
    done = lamassu("device", "list", "--dms", "my/fleet")
    assert done.exit_code == 0
    assert re.search(r"dev-1\s+ACTIVE\s+fleet\s+1\s+2026-06-01", done.stdout)


def test_a_device_shows_its_history(platform: Platform) -> None:
    platform.on("GET", "/api/devmanager/v1/devices/dev-1", DEVICE)
    shown = lamassu("device", "get", "dev-1").stdout
    assert "serial number  0b" in shown
    assert shown.index("CREATED") < shown.index("RENEWED")


def test_nothing_in_an_answer_commands_the_terminal(platform: Platform) -> None:
    device = {**DEVICE, "tags": ["[red]x[/red]", "\x1b[2J"], "metadata": {"k": "\x1b[2J"}}
    platform.on("GET", "/api/devmanager/v1/devices/dev-1", device)
    shown = lamassu("device", "get", "dev-1").stdout
    assert "\x1b" not in shown
    assert "[red]x[/red]" in shown


def test_a_devices_certificate_comes_as_pem(platform: Platform) -> None:
    platform.on("GET", "/api/devmanager/v1/devices/dev-1", DEVICE)
    platform.on("GET", "/api/ca/v1/certificates/0b", CERTIFICATE)
    done = lamassu("device", "get", "dev-1", "-o", "pem")
    assert done.stdout == PEM


def test_a_device_is_registered(platform: Platform) -> None:
    platform.on("GET", "/api/dmsmanager/v1/dms/fleet", {"id": "fleet"})
    platform.on("POST", "/api/devmanager/v1/devices", DEVICE, 201)
    done = lamassu(
        "device", "create", "dev-1", "--dms", "fleet", "--tag", "a", "--metadata", '{"k": 1}'
    )
    assert done.exit_code == 0
    assert platform.body == {
        "id": "dev-1",
        "dms_id": "fleet",
        "icon": "CgSmartHomeBoiler",
        "icon_color": "#25ee32",
        "tags": ["a"],
        "metadata": {"k": 1},
    }


def test_what_cannot_be_undone_is_asked_first(platform: Platform) -> None:
    assert lamassu("device", "decommission", "dev-1", stdin="n\n").exit_code == 1
    assert lamassu("ca", "revoke", "plant-7", stdin="n\n").exit_code == 1
    assert platform.requests == []
    platform.on("DELETE", "/api/devmanager/v1/devices/dev-1/decommission", DEVICE)
    assert lamassu("device", "decommission", "dev-1", stdin="y\n").exit_code == 0


def test_a_revocation_that_does_not_show_yet_is_said(platform: Platform) -> None:
    platform.on(
        "PUT", "/api/ca/v1/certificates/0b0c/status", CERTIFICATE, lamassu_revocation="pending"
    )
    done = lamassu("cert", "revoke", "0B:0C", "--reason", "KeyCompromise")
    assert done.exit_code == 0
    assert platform.body == {"status": "REVOKED", "revocation_reason": "KeyCompromise"}
    assert "do not show it yet" in done.stderr


@pytest.mark.parametrize("form", ["pem", "der"])
def test_a_csr_is_signed(platform: Platform, tmp_path: Path, form: str) -> None:
    platform.on("POST", "/api/ca/v1/cas/bootstrap-ca/certificates/sign", CERTIFICATE, 201)
    pem = b"-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n"
    (tmp_path / "boot.csr").write_bytes(pem if form == "pem" else b"0\0")
    done = lamassu(
        "cert", "sign", str(tmp_path / "boot.csr"), "--ca", "bootstrap-ca",
        "--profile", "bootstrap-profile", "-o", "pem",
    )  # fmt: skip
    assert done.stdout == PEM
    assert platform.body == {
        "csr": base64.b64encode(pem).decode(),
        "profile_id": "bootstrap-profile",
    }


def test_a_ca_is_made(platform: Platform) -> None:
    platform.on("POST", "/api/ca/v1/cas", {"id": "plant-7"}, 201)
    done = lamassu(
        "ca", "create", "plant-7", "--parent", "intermediate-ca", "--key-type", "ecdsa-p384",
        "--profile", "device-profile", "--org", "Us",
    )  # fmt: skip
    assert done.exit_code == 0
    assert platform.body == {
        "id": "plant-7",
        "parent_id": "intermediate-ca",
        "subject": {"common_name": "plant-7", "organization": "Us"},
        "key_metadata": {"type": "ECDSA", "bits": 384},
        "ca_expiration": {"type": "Duration", "duration": "17520h"},
        "profile_id": "device-profile",
    }


def test_a_dms_is_made_from_flags_or_a_file(platform: Platform) -> None:
    platform.on("POST", "/api/dmsmanager/v1/dms", {"id": "plant-7"}, 201)
    done = lamassu("dms", "create", "plant-7", "--ca", "m", "--bootstrap-ca", "b", "--jitp")
    assert done.exit_code == 0
    enrollment = platform.body["settings"]["enrollment_settings"]
    assert enrollment["registration_mode"] == "JITP"
    authentication = enrollment["est_rfc7030_settings"]
    assert authentication["client_certificate_settings"] == {"validation_cas": ["b"]}

    assert lamassu("dms", "create", "--file", "-", stdin='{"id": "x"}').exit_code == 0
    assert platform.body == {"id": "x"}
    refused = lamassu("dms", "create", "plant-7")
    assert refused.exit_code == 1
    assert "--bootstrap-ca" in refused.stderr


def test_a_message_is_signed_with_what_fits_the_key(platform: Platform, tmp_path: Path) -> None:
    platform.on("GET", "/api/kms/v1/keys/firmware", {"algorithm": "ECDSA", "size": 521})
    platform.on("POST", "/api/kms/v1/keys/firmware/sign", {"signature": "c2ln"})
    message, signature = tmp_path / "image.bin", tmp_path / "image.sig"
    message.write_bytes(b"\0image")

    assert lamassu("key", "sign", "firmware", str(message)).stdout == "c2ln\n"
    assert platform.body == {
        "algorithm": "ECDSA_SHA_512",
        "message": "AGltYWdl",
        "message_type": "raw",
    }
    assert lamassu("key", "sign", "firmware", str(message), "--to", str(signature)).exit_code == 0
    assert signature.read_bytes() == b"sig"

    for valid, status in ((True, 0), (False, 1)):
        platform.on("POST", "/api/kms/v1/keys/firmware/verify", {"valid": valid})
        done = lamassu("key", "verify", "firmware", str(message), "--signature", str(signature))
        assert done.exit_code == status
        assert platform.body["signature"] == "c2ln"


def test_a_device_of_no_dms_is_not_registered(platform: Platform) -> None:
    missing = {"err": "DMS not found", "code": "dms_not_found", "field": None}
    platform.on("GET", "/api/dmsmanager/v1/dms/flet", missing, 404)
    done = lamassu("device", "create", "dev-1", "--dms", "flet")
    assert done.exit_code == 1
    assert "DMS not found: flet; `lamassu dms list` shows all" in done.stderr
    assert [request.method for request in platform.requests] == ["GET"]


def test_a_key_is_given_an_alias_to_be_found_by(platform: Platform) -> None:
    made = {"key_id": "ab12", "name": "Firmware", "aliases": []}
    platform.on("POST", "/api/kms/v1/keys", made, 201)
    platform.on("PUT", "/api/kms/v1/keys/ab12/aliases", {**made, "aliases": ["firmware"]})
    done = lamassu("key", "create", "Firmware", "--alias", "firmware")
    assert "aliases" in done.stdout
    assert platform.body == {"patches": [{"op": "add", "path": "/-", "value": "firmware"}]}


def test_no_key_is_made_for_an_alias_that_is_taken(platform: Platform) -> None:
    platform.on("GET", "/api/kms/v1/keys/firmware", {"key_id": "cd34"})
    done = lamassu("key", "create", "Firmware", "--alias", "firmware")
    assert done.exit_code == 1
    assert "alias firmware is another key's already; no key was made" in done.stderr
    assert [request.method for request in platform.requests] == ["GET"]


def test_a_key_whose_alias_is_refused_is_named(platform: Platform) -> None:
    refused = {"err": "an alias must not look like a key id", "code": "bad_alias", "field": "x"}
    platform.on("POST", "/api/kms/v1/keys", {"key_id": "ab12", "aliases": []}, 201)
    platform.on("PUT", "/api/kms/v1/keys/ab12/aliases", refused, 400)
    done = lamassu("key", "create", "Firmware", "--alias", "pkcs11:x")
    assert done.exit_code == 1
    assert "lamassu key alias ab12 --add NAME" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("field", "said"),
    [
        (None, "CA not found: iot; `lamassu ca list` shows all"),
        ("parent_id", "CA not found (parent_id); `lamassu ca list` shows all"),
    ],
)
def test_what_is_missing_below_a_path_says_where_to_look(
    platform: Platform, field: str | None, said: str
) -> None:
    missing = {"err": "CA not found", "code": "ca_not_found", "field": field}
    platform.on("POST", "/api/ca/v1/cas/iot/rekey", missing, 404)
    assert said in lamassu("ca", "rekey", "iot").stderr


def test_what_is_not_revoked_shows_no_reason(platform: Platform) -> None:
    certificate = {**CERTIFICATE, "revocation_reason": "Unspecified"}
    platform.on("GET", "/api/ca/v1/certificates/0b", certificate)
    assert "Unspecified" not in lamassu("cert", "get", "0b").stdout
    platform.on("GET", "/api/ca/v1/certificates/0b", {**certificate, "status": "REVOKED"})
    assert "Unspecified" in lamassu("cert", "get", "0b").stdout


def test_a_refusal_is_shown_as_its_text(platform: Platform) -> None:
    error = {"err": "device [x] already exists", "code": "device_exists", "field": "id"}
    platform.on("GET", "/api/dmsmanager/v1/dms/fleet", {"id": "fleet"})
    platform.on("POST", "/api/devmanager/v1/devices", error, 409)
    done = lamassu("device", "create", "dev-1", "--dms", "fleet")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "device [x] already exists (id)" in done.stderr


def test_a_stranger_is_told_how_to_become_an_admin(platform: Platform) -> None:
    platform.on("GET", "/api/ca/v1/cas", {"err": "certificate expired", "code": "x"}, 401)
    done = lamassu("ca", "list")
    assert done.exit_code == 1
    assert "lamassu admin issue" in done.stderr


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (httpx.ConnectError("Connection refused"), "lamassu serve"),
        (httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] …"), "tls-ca.crt"),
        (httpx.ReadTimeout("slow"), "try again"),
    ],
)
def test_a_platform_out_of_reach_says_what_to_do(
    platform: Platform, error: Exception, hint: str
) -> None:
    def fails(_: httpx.Request) -> httpx.Response:
        raise error

    platform.answers["GET", "/api/ca/v1/cas"] = fails
    done = lamassu("ca", "list")
    assert done.exit_code == 1
    assert hint in done.stderr


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"list": 7}'])
def test_what_is_no_platform_is_said_so(platform: Platform, answer: bytes) -> None:
    platform.answers["GET", "/api/ca/v1/cas"] = httpx.Response(200, content=answer)
    done = lamassu("ca", "list")
    assert done.exit_code == 1
    assert "does not answer like a Lamassu platform" in done.stderr


def test_without_credentials_it_says_where_they_come_from(tmp_path: Path) -> None:
    done = lamassu("ca", "list", "--dir", str(tmp_path))
    assert done.exit_code == 1
    assert "lamassu init" in done.stderr


def test_the_address_comes_from_the_installation(tmp_path: Path) -> None:
    assert client.configured_url(tmp_path) == client.DEFAULT_URL
    (tmp_path / "config.yml").write_text("server:\n  public_urls: ['https://pki.example:9443']\n")
    assert client.configured_url(tmp_path) == "https://pki.example:9443"
    (tmp_path / "config.yml").write_text("nonsense: 1\n")
    assert client.configured_url(tmp_path) == client.DEFAULT_URL


def commands() -> Iterator[tuple[str, str]]:
    for noun, module in NOUNS.items():
        for command in module.app.registered_commands:
            assert command.callback is not None
            yield noun, command.name or command.callback.__name__


@pytest.mark.parametrize(("noun", "verb"), list(commands()))
def test_every_help_has_an_example(noun: str, verb: str) -> None:
    shown = lamassu(noun, verb, "--help")
    assert shown.exit_code == 0
    assert f"Example: lamassu {noun}" in " ".join(shown.stdout.split())


def test_every_noun_has_the_usual_verbs() -> None:
    verbs = set(commands())
    for noun in NOUNS:
        for verb in ("list", "get") if noun == "cert" else ("list", "get", "create"):
            assert (noun, verb) in verbs


@pytest.mark.parametrize("width", [40, 80, 110, 200])
def test_ids_stay_whole_in_a_terminal_however_narrow(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    """They are there to be copied."""
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=width, color_system=None)
    monkeypatch.setattr(output, "out", console)
    key = {
        **{"key_id": "ab" * 32, "name": "plant north, line two", "algorithm": "ECDSA"},
        **{"size": 256, "engine_id": "software", "aliases": [], "tags": [], "metadata": {}},
    }
    ca_ids = ["manufacturing-authority-of-plant-north", "0b" * 18]
    platform.on("GET", "/api/kms/v1/keys", {"next": "", "list": [key, key]})
    platform.on(
        "GET",
        "/api/ca/v1/cas",
        {"next": "", "list": [{"id": ca_id, "certificate": CERTIFICATE} for ca_id in ca_ids]},
    )

    for noun in ("key", "ca"):
        assert lamassu(noun, "list").exit_code == 0
    words = [word for line in shown.getvalue().splitlines() for word in line.split()]
    for whole in ("ab" * 32, *ca_ids):
        if width > len(whole) + 20:
            assert whole in words, shown.getvalue()


def create_device(platform: Platform) -> tuple[Result, list[httpx.Request]]:
    """The command's end, and what it posted."""
    platform.on("GET", "/api/dmsmanager/v1/dms/fleet", {"id": "fleet"})
    done = lamassu("device", "create", "dev-1", "--dms", "fleet")
    return done, [request for request in platform.requests if request.method == "POST"]


def test_what_creates_is_sent_again_under_its_key(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is lost after the deed, the platform restarts, and is still at it."""
    monkeypatch.setattr(client, "PAUSES", (0.0, 0.0, 0.0))
    told: list[httpx.Response | httpx.TransportError] = [
        httpx.RemoteProtocolError("gone"),
        httpx.ConnectError("refused"),
        httpx.Response(409, json={"err": "wait", "code": "request_in_progress", "field": None}),
        httpx.Response(201, json=DEVICE),
    ]

    def answer(request: httpx.Request) -> httpx.Response:
        following = told.pop(0)
        if isinstance(following, httpx.TransportError):
            raise following
        return following

    platform.answers["POST", "/api/devmanager/v1/devices"] = answer
    done, posted = create_device(platform)

    assert done.exit_code == 0, done.output
    keys = {request.headers["idempotency-key"] for request in posted}
    assert len(posted) == 4
    assert len(keys) == 1
    assert re.fullmatch(r'"[0-9a-f-]{36}"', keys.pop())
    assert len({request.content for request in posted}) == 1


def test_each_command_has_a_key_of_its_own(platform: Platform) -> None:
    platform.on("POST", "/api/devmanager/v1/devices", DEVICE, 201)
    create_device(platform)
    _, posted = create_device(platform)
    assert len({request.headers["idempotency-key"] for request in posted}) == 2


def test_a_platform_that_is_not_there_is_told_at_once(platform: Platform) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    platform.answers["POST", "/api/devmanager/v1/devices"] = refuse
    done, posted = create_device(platform)

    assert (done.exit_code, len(posted)) == (1, 1)
    assert "cannot reach" in done.output


def test_what_is_no_creation_is_never_sent_twice(platform: Platform) -> None:
    def lose(request: httpx.Request) -> httpx.Response:
        raise httpx.RemoteProtocolError("gone")

    platform.answers["POST", "/api/ca/v1/cas/a/status"] = lose
    done = lamassu("ca", "revoke", "a", "--reason", "Superseded", "--yes")

    assert (done.exit_code, len(platform.requests)) == (1, 1), done.output
    assert "idempotency-key" not in platform.requests[0].headers
