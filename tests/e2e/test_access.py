"""Who gets in: every mounted route, asked by everybody who has no business there."""

from __future__ import annotations

import asyncio
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from lamassu import wiring
from lamassu.kernel.identity import system_caller
from lamassu.platform.http import Application
from lamassu.platform.http.routing import AccessKind, MountedRoute
from lamassu.services.access.contract import CredentialKind
from lamassu.wiring.serving import Running, applications
from tests.support.est import Credential, Device, bootstrap, make_dms, name, new_key
from tests.support.footprint import Watched
from tests.support.pki import CLIENT_AUTH, LEAF_USAGE
from tests.support.routes import mounted, name_of, path_of
from tests.support.server import (
    Server,
    command,
    copy_installation,
    make_installation,
    serving,
)
from tests.support.sockets import client_context

TABLES = mounted()
ACTIONS = [one for one in TABLES["https"] if one.access.kind is AccessKind.ACTION]
JUDGED = [one for one in TABLES["https"] if one.access.kind is not AccessKind.PUBLIC]
INTERNAL = list(TABLES["internal"])
SECOND = timedelta(seconds=1)  # certificates end with a second, not within it

EST = {
    f"{method} {prefix}/.well-known/est{dms}/{operation}"
    for prefix in ("", "/api/dmsmanager")
    for dms in ("", "/{aps}")
    for method, operation in (
        ("GET", "cacerts"),
        ("GET", "csrattrs"),
        ("POST", "simpleenroll"),
        ("POST", "simplereenroll"),
        ("POST", "serverkeygen"),
        ("POST", "fullcmc"),
    )
}
PUBLIC = {
    "GET /health/live",
    "GET /health/ready",
    *(
        f"GET /api/{service}/health"
        for service in ("kms", "ca", "va", "dmsmanager", "devmanager", "alerts")
    ),
    "POST /api/va/ocsp",
    "GET /api/va/ocsp/{request:path}",
    "GET /api/va/crl/{ski}",
    "GET /api/va/filter/{ski}",
    "GET /api/va/filter/{ski}/delta",
}
DOCUMENTED = {"GET /api/openapi.json", "GET /api/docs"}  # public in development only
PLAIN_HTTP = {
    "POST /",
    "GET /{request:path}",
    "POST /ocsp",
    "GET /ocsp/{request:path}",
    "GET /crl/{ski}",
    "GET /ca/{ca_id}.crl",
    "GET /ca/{ca_id}.crt",
    "GET /ca/{ca_id}.filter",
    "GET /ca/{ca_id}.filter-delta",
}
OF_SERVICE_EST = {
    "GET /internal/dms/{id}/cacerts",
    "POST /internal/dms/{id}/enroll",
    "POST /internal/dms/{id}/reenroll",
}


@dataclass(frozen=True)
class Shown:
    """What a client shows."""

    certificate: Path
    key: Path


@pytest.fixture(scope="module")
def shown(
    platform: Server, watched: Watched, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Shown]:
    """Certificates of everybody, each with its key."""
    folder = tmp_path_factory.mktemp("shown")
    directory = platform.directory
    make_dms(platform, "plant")
    booted = bootstrap(platform, folder, "bootstrap")
    device = Device(platform, "plant", "device", folder, booted)
    assert device.enroll().status_code == 200
    assert device.identity is not None
    found = {
        "an admin": Shown(directory / "admin.crt", directory / "admin.key"),
        "the EST edge": Shown(directory / "est" / "est.crt", directory / "est" / "est.key"),
        "the server": Shown(directory / "tls" / "server.crt", directory / "tls" / "server.key"),
        "a device": _files(device.identity),
        "a bootstrap certificate": _files(booted),
        "one who calls itself admin": _files(_named_admin(platform, folder)),
        "one who made it up": _files(_self_made(folder)),
        "one who made it up under our CA's name": _files(_forged(platform, folder)),
    }
    for admin in ("alice", "mallory"):
        done("admin", "issue", admin, "--dir", str(directory), "--to", str(folder))
        found[admin] = Shown(folder / f"{admin}.crt", folder / f"{admin}.key")
    done("admin", "revoke", "mallory", "--dir", str(directory))
    other = make_installation(folder / "other", key_type="ecdsa-p256")
    found["another platform's admin"] = Shown(other / "admin.crt", other / "admin.key")
    watched.settle()
    return found


@pytest.fixture(scope="module")
def issued(platform: Server, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Shown]:
    """Credentials that no command makes, of the internal CA all the same."""
    made = asyncio.run(_issue(platform.directory, tmp_path_factory.mktemp("issued")))
    while datetime.now(UTC) < _end_of(made["an expired EST edge"]) + SECOND:
        time.sleep(0.05)
    return made


async def _issue(directory: Path, folder: Path) -> dict[str, Shown]:
    caller = system_caller("test")
    made: dict[str, Shown] = {}
    async with wiring.opened(directory) as inside:
        for label, kind, holder, lifetime in (
            ("an expired admin", CredentialKind.ADMIN, "late", timedelta(seconds=1)),
            ("an expired EST edge", CredentialKind.SERVICE, "est", timedelta(seconds=1)),
            ("a revoked EST edge", CredentialKind.SERVICE, "est", timedelta(days=1)),
            ("another service", CredentialKind.SERVICE, "other", timedelta(days=1)),
        ):
            credential = await inside.access.issue(kind, holder, lifetime=lifetime, caller=caller)
            made[label] = Shown(*wiring.store_credential(folder / label, holder, credential))
            if label.startswith("a revoked"):
                serial_number = credential.credential.serial_number
                await inside.access.revoke(serial_number, caller=caller)
    return made


def _end_of(one: Shown) -> datetime:
    return x509.load_pem_x509_certificates(one.certificate.read_bytes())[0].not_valid_after_utc


def _files(credential: Credential) -> Shown:
    return Shown(credential.certificate_path, credential.key_path)


def _named_admin(platform: Server, folder: Path) -> Credential:
    """Issued by a CA of the platform, to a device that took an admin's subject."""
    return bootstrap(platform, folder, "admin", ca="manufacturing-ca", profile="device-profile")


def _self_made(folder: Path) -> Credential:
    key = new_key()
    return Credential.store(folder, "self-made", _admins(name("x"), key, key), key)


def _forged(platform: Server, folder: Path) -> Credential:
    pem = (platform.directory / "tls-ca.crt").read_bytes()
    issuing = x509.load_pem_x509_certificates(pem)[1]
    key = new_key()
    key_id = issuing.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    certificate = _admins(issuing.subject, key, new_key(), key_id.digest)
    return Credential.store(folder, "forged", certificate, key)


def _admins(
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    issuer_key_id: bytes = b"",
) -> x509.Certificate:
    """A certificate that says what an admin's says."""
    now = datetime.now(UTC)
    uri = x509.UniformResourceIdentifier("lamassu://admin/x")
    return (
        x509.CertificateBuilder(issuer, name("x"), key.public_key(), 7)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(False, None), True)
        .add_extension(LEAF_USAGE, True)
        .add_extension(CLIENT_AUTH, False)
        .add_extension(x509.SubjectAlternativeName([uri]), False)
        .add_extension(x509.AuthorityKeyIdentifier(issuer_key_id or bytes(20), None, None), False)
        .sign(signer, SHA256())
    )


def done(*arguments: str) -> None:
    status, said = command(*arguments)
    assert status == 0, said


def client_of(server: Server, one: Shown | None, *, port: int | None = None) -> httpx.Client:
    context = client_context(server, one.certificate if one else None, one.key if one else None)
    return httpx.Client(
        base_url=f"https://localhost:{port or server.port}", verify=context, timeout=30
    )


def answers(
    client: httpx.Client, routes: list[MountedRoute], **headers: str
) -> dict[str, tuple[int, str]]:
    """Status and code that each route gives."""
    found = {}
    for route in routes:
        answer = client.request(route.method, path_of(route), headers=headers)
        refused = answer.status_code >= 400
        found[name_of(route)] = (answer.status_code, answer.json()["code"] if refused else "")
    return found


def everywhere(routes: list[MountedRoute], status: int, code: str) -> dict[str, tuple[int, str]]:
    return dict.fromkeys(map(name_of, routes), (status, code))


# The list of what is open


async def test_nothing_is_open_but_what_is_listed(platform: Server) -> None:
    async with wiring.opened(platform.directory) as inside:
        apps = applications(inside, Running())

    assert _open(apps["https"]) == PUBLIC | DOCUMENTED | EST
    assert _open(apps["http"]) == {name_of(route) for route in apps["http"].routes} == PLAIN_HTTP
    assert _open(apps["internal"]) == set()
    assert {name_of(route) for route in apps["internal"].routes} == OF_SERVICE_EST
    for route in apps["internal"].routes:
        assert route.access.principals == ("service/est",)


def _open(app: Application) -> set[str]:
    shut = (AccessKind.ACTION, AccessKind.INTERNAL)
    return {name_of(route) for route in app.routes if route.access.kind not in shut}


def test_what_is_listed_is_open(platform: Server) -> None:
    public = [route for route in TABLES["https"] if route.access.kind is AccessKind.PUBLIC]
    with client_of(platform, None) as nobody:
        for route in public:
            status = nobody.request(route.method, path_of(route)).status_code
            assert status not in (401, 403), name_of(route)
        for line in PUBLIC | DOCUMENTED:
            method, _, path = line.partition(" ")
            if "{" not in path:
                assert nobody.request(method, path).status_code == 200, line


# Who is refused on /api

REFUSED = {
    "nobody": (401, "unauthenticated"),
    "a device": (401, "unauthenticated"),
    "a bootstrap certificate": (401, "unauthenticated"),
    "one who calls itself admin": (401, "unauthenticated"),
    "one who made it up": (401, "unauthenticated"),
    "one who made it up under our CA's name": (401, "unauthenticated"),
    "another platform's admin": (401, "unauthenticated"),
    "mallory": (401, "certificate_revoked"),
    "the server": (401, "certificate_purpose"),
    "the EST edge": (403, "forbidden"),
}


@pytest.mark.parametrize("who", REFUSED)
def test_everybody_but_an_admin_is_refused_on_every_route(
    platform: Server, watched: Watched, shown: Mapping[str, Shown], who: str
) -> None:
    with watched.nothing_stored(), client_of(platform, shown.get(who)) as client:
        got = answers(client, ACTIONS)

    assert got == everywhere(ACTIONS, *REFUSED[who])


@pytest.mark.parametrize(
    ("who", "refusal"),
    [
        ("an expired admin", (401, "certificate_expired")),
        ("a revoked EST edge", (401, "certificate_revoked")),
        ("another service", (403, "forbidden")),
    ],
)
def test_no_other_credential_gets_in_either(
    platform: Server, issued: Mapping[str, Shown], who: str, refusal: tuple[int, str]
) -> None:
    with client_of(platform, issued[who]) as client:
        assert answers(client, ACTIONS) == everywhere(ACTIONS, *refusal)


def test_an_admin_gets_in(platform: Server, shown: Mapping[str, Shown]) -> None:
    for who in ("an admin", "alice"):
        with client_of(platform, shown[who]) as client:
            assert client.get("/api/ca/v1/cas").status_code == 200


def test_an_admin_revoked_on_the_host_is_refused_at_once_on_a_connection_that_lives(
    platform: Server, tmp_path: Path
) -> None:
    done("admin", "issue", "eve", "--dir", str(platform.directory), "--to", str(tmp_path))
    with client_of(platform, Shown(tmp_path / "eve.crt", tmp_path / "eve.key")) as eve:
        assert eve.get("/api/ca/v1/cas").status_code == 200
        done("admin", "revoke", "eve", "--dir", str(platform.directory))

        answer = eve.get("/api/ca/v1/cas")

    assert (answer.status_code, answer.json()["code"]) == (401, "certificate_revoked")


@pytest.mark.parametrize(
    "header", ["X-Forwarded-Client-Cert", "ssl-client-cert", "X-Amzn-Mtls-Clientcert"]
)
def test_a_certificate_in_a_header_is_none(
    platform: Server, watched: Watched, shown: Mapping[str, Shown], header: str
) -> None:
    pem = urllib.parse.quote(shown["an admin"].certificate.read_text())
    value = f'Chain="{pem}"' if header.startswith("X-F") else pem
    with watched.nothing_stored(), client_of(platform, None) as nobody:
        assert answers(nobody, ACTIONS, **{header: value}) == everywhere(
            ACTIONS, 401, "unauthenticated"
        )
    with client_of(platform, shown["a device"]) as device:
        answer = device.get("/api/ca/v1/cas", headers={header: value})
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


# Foreign pages

FOREIGN = {
    "another origin": {"Origin": "https://evil.example"},
    "no origin": {"Origin": "null"},
    "another port": {"Origin": "https://localhost:1"},
    "another site": {"Sec-Fetch-Site": "cross-site"},
    "the same site": {"Sec-Fetch-Site": "same-site"},
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_foreign_page_is_refused_on_every_route_that_judges(
    platform: Server, watched: Watched, shown: Mapping[str, Shown], what: str
) -> None:
    with watched.nothing_stored(), client_of(platform, shown["an admin"]) as admin:
        assert answers(admin, JUDGED, **FOREIGN[what]) == everywhere(JUDGED, 403, "foreign_origin")


def test_our_own_page_is_not(platform: Server, shown: Mapping[str, Shown]) -> None:
    configured = yaml.safe_load((platform.directory / "config.yml").read_text())
    [origin] = configured["server"]["public_urls"]
    own = {"Origin": origin, "Sec-Fetch-Site": "same-origin"}
    with client_of(platform, shown["an admin"]) as admin:
        assert admin.get("/api/ca/v1/cas", headers=own).status_code == 200


# The internal port


@pytest.mark.parametrize(
    "who",
    [
        "nobody",
        "a device",
        "a bootstrap certificate",
        "one who made it up",
        "one who made it up under our CA's name",
        "another platform's admin",
        "the server",
        "an expired EST edge",
    ],
)
def test_the_internal_port_refuses_the_handshake_of_strangers(
    platform: Server, shown: Mapping[str, Shown], issued: Mapping[str, Shown], who: str
) -> None:
    one = {**shown, **issued}.get(who)
    with client_of(platform, one, port=platform.internal_port) as stranger:
        with pytest.raises(httpx.TransportError):
            stranger.get("/internal/dms/plant/cacerts")


@pytest.mark.parametrize(
    ("who", "refusal"),
    [
        ("an admin", (403, "forbidden")),
        ("another service", (403, "forbidden")),
        ("mallory", (401, "certificate_revoked")),
        ("a revoked EST edge", (401, "certificate_revoked")),
    ],
)
def test_internal_routes_refuse_who_is_not_named(
    platform: Server,
    watched: Watched,
    shown: Mapping[str, Shown],
    issued: Mapping[str, Shown],
    who: str,
    refusal: tuple[int, str],
) -> None:
    one = {**shown, **issued}[who]
    with watched.nothing_stored():
        with client_of(platform, one, port=platform.internal_port) as client:
            assert answers(client, INTERNAL) == everywhere(INTERNAL, *refusal)


def test_the_edge_has_its_internal_routes_and_nothing_else_there(
    platform: Server, shown: Mapping[str, Shown]
) -> None:
    with client_of(platform, shown["the EST edge"], port=platform.internal_port) as edge:
        for route in INTERNAL:
            status = edge.request(route.method, path_of(route)).status_code
            assert status in (200, 400), name_of(route)
        for route in TABLES["https"]:
            assert edge.request(route.method, path_of(route)).status_code == 404, name_of(route)


def test_internal_routes_are_not_on_the_public_port(
    platform: Server, shown: Mapping[str, Shown]
) -> None:
    with client_of(platform, shown["the EST edge"]) as edge:
        for route in INTERNAL:
            assert edge.request(route.method, path_of(route)).status_code == 404, name_of(route)


# Plain HTTP


def test_plain_http_has_ocsp_crls_and_ca_certificates_only(platform: Server) -> None:
    with httpx.Client(base_url=platform.http_url) as http:
        for route in (*TABLES["https"], *TABLES["internal"]):
            answer = http.request(route.method, path_of(route))
            # OCSP by GET takes any path, so that what is none of its own is a method it lacks
            assert answer.status_code in (404, 405), name_of(route)
        for path in ("/health/live", "/health/ready", "/api/docs", "/api/openapi.json"):
            assert http.get(path).status_code == 404, path
        assert http.get("/ca/root-ca.crl").status_code == 200
        assert http.get("/ca/root-ca.crt").status_code == 200
        assert http.post("/ocsp", content=b"").headers["content-type"].endswith("ocsp-response")


# client_auth.required


@pytest.fixture(scope="module")
def strict(fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A platform whose configuration requires client certificates."""
    directory = copy_installation(fresh, tmp_path_factory.mktemp("strict") / "var")
    config = directory / "config.yml"
    text = config.read_text()
    assert "required: false" in text
    config.write_text(text.replace("required: false", "required: true "))
    with serving(directory, elsewhere=True) as server:
        yield server


def test_a_required_certificate_is_asked_for_by_the_application_not_the_handshake(
    strict: Server,
) -> None:
    api = [route for route in TABLES["https"] if route.path.startswith("/api/")]
    with client_of(strict, None) as nobody:
        assert answers(nobody, api) == everywhere(api, 401, "unauthenticated")
        for path in ("/api/docs", "/api/openapi.json", "/api/ca/health"):
            assert nobody.get(path).status_code == 401, path
        assert nobody.get("/.well-known/est/demo/cacerts").status_code == 404
        assert nobody.get("/health/ready").status_code == 200


def test_where_certificates_are_required_whoever_has_one_is_judged_as_ever(
    strict: Server, tmp_path: Path
) -> None:
    directory = strict.directory
    with client_of(strict, Shown(directory / "admin.crt", directory / "admin.key")) as admin:
        assert admin.get("/api/ca/v1/cas").status_code == 200
    stranger = _self_made(tmp_path)
    with client_of(strict, _files(stranger)) as nobody:
        assert answers(nobody, ACTIONS) == everywhere(ACTIONS, 401, "unauthenticated")
        assert nobody.get("/api/ca/health").status_code == 200
