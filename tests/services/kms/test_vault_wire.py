"""What the Vault engine makes of answers that a Vault of one node and no licence does not give."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lamassu.services.kms.engines.vault import VaultAccess, VaultEngine
from lamassu.services.kms.ports import EngineDown, EngineLimits, EngineRefused

LIMITS = EngineLimits(workers=4, sign_seconds=3, generate_seconds=5)
SECRET_ID = "8d1c-very-secret-id"
TOKEN = "hvs.a-very-secret-token"
LOGIN = {"auth": {"client_token": TOKEN, "lease_duration": 3600, "renewable": True}}
MOUNT = {"data": {"type": "kv", "options": {"version": "2"}, "path": "kv/"}}
CAPABILITIES = {"data": {f"kv/data/{'0' * 64}": ["create", "read"]}}


@dataclass
class Played:
    """A listener that answers as told: a status, a document or bytes, and headers."""

    url: str = ""
    answers: dict[str, tuple[int, object, dict[str, str]]] = field(default_factory=dict)
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def say(self, path: str, status: int, document: object, **headers: str) -> None:
        self.answers[path] = (status, document, headers)

    def answer(self, path: str) -> tuple[int, object, dict[str, str]]:
        return self.answers.get(path, (404, {"errors": []}, {}))


def _handler(played: Played) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0].removeprefix("/v1/")
            played.seen.append((path, dict(self.headers.items())))
            status, document, headers = played.answer(path)
            body = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def play() -> Iterator[Callable[[], Played]]:
    servers: list[ThreadingHTTPServer] = []

    def start() -> Played:
        played = Played()
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(played))
        server.daemon_threads = True
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        played.url = f"http://127.0.0.1:{server.server_port}"
        played.say("auth/approle/login", 200, LOGIN)
        played.say("sys/internal/ui/mounts/kv", 200, MOUNT)
        played.say("sys/capabilities-self", 200, CAPABILITIES)
        return played

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def engine(played: Played, **more: str) -> VaultEngine:
    access = VaultAccess("vault", played.url, "kv", "role", SECRET_ID, **more)  # type: ignore[arg-type]
    return VaultEngine("vault", access, limits=LIMITS)


def test_a_namespace_goes_with_every_request(play: Callable[[], Played]) -> None:
    played = play()

    engine(played, namespace="team/a").check()

    assert {headers.get("X-Vault-Namespace") for _, headers in played.seen} == {"team/a"}


def test_a_standby_that_names_the_active_node_is_followed_once(
    play: Callable[[], Played],
) -> None:
    standby, active = play(), play()
    for path in standby.answers:
        standby.say(path, 307, {}, Location=f"{active.url}/v1/{path}")

    engine(standby).check()

    assert [path for path, _ in active.seen] == [path for path, _ in standby.seen]
    active.say("sys/capabilities-self", 307, {}, Location=f"{standby.url}/v1/elsewhere")
    with pytest.raises(EngineDown):
        engine(standby).check()


def test_a_standby_never_sends_a_token_without_tls(play: Callable[[], Played]) -> None:
    standby = play()
    standby.say("auth/approle/login", 307, {}, Location="ftp://elsewhere/v1/auth/approle/login")

    with pytest.raises(EngineDown) as refusal:
        engine(standby).check()

    assert refusal.value.code == "engine_standby"


@pytest.mark.parametrize(
    ("status", "document", "code"),
    [
        (429, {"errors": ["request path limit"]}, "engine_throttled"),
        (500, {"errors": ["internal error"]}, "engine_failing"),
        (502, b"<html>a proxy</html>", "engine_failing"),
        (500, {"errors": ["local node not active but active cluster node not found"]}, "starting"),
    ],
)
def test_each_kind_of_trouble_has_its_code(
    play: Callable[[], Played], status: int, document: object, code: str
) -> None:
    played = play()
    played.say("sys/capabilities-self", status, document)

    with pytest.raises(EngineDown) as refusal:
        engine(played).check()

    assert code in refusal.value.code
    assert refusal.value.retry_after


@pytest.mark.parametrize("document", [b"no json", [], {"data": None}, {}, {"data": {"kv": 1}}])
def test_what_is_no_answer_of_vaults_is_no_crash(
    play: Callable[[], Played], document: object
) -> None:
    for path in ("auth/approle/login", "sys/internal/ui/mounts/kv", "sys/capabilities-self"):
        played = play()
        played.say(path, 200, document)

        with pytest.raises(EngineDown) as refusal:
            engine(played).check()

        assert refusal.value.text


def test_a_role_that_is_locked_out_is_told_from_a_wrong_one(
    play: Callable[[], Played],
) -> None:
    played = play()
    played.say("auth/approle/login", 403, {"errors": ["permission denied"]})

    with pytest.raises(EngineRefused) as refusal:
        engine(played).check()

    assert refusal.value.code == "login_locked"


def test_no_secret_reaches_a_log_or_an_error_however_chatty(
    play: Callable[[], Played], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    played = play()
    texts = []
    for path in ("auth/approle/login", "sys/internal/ui/mounts/kv", "sys/capabilities-self"):
        for status in (400, 403, 404, 500):
            kept = played.answers[path]
            played.say(path, status, {"errors": [f"invalid secret_id {SECRET_ID} {TOKEN}"]})
            one = engine(played)
            try:
                one.check()
            except EngineDown as error:
                texts.append(error.text)
            one.close()
            played.answers[path] = kept
    said = " ".join(texts) + caplog.text + "".join(capfd.readouterr())

    assert texts
    assert SECRET_ID not in said
    assert TOKEN not in said
    assert SECRET_ID not in repr(engine(played)._session.access)
