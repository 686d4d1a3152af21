"""Bad EST requests, over real TLS: each has its own refusal, and nothing is stored.

All of them are sent to the platform and to an EST edge in a process of its own, over both
databases: wherever a device knocks, it is told the same, and the inside keeps nothing.
"""

from __future__ import annotations

import base64
import shutil
import ssl
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support import csrs
from tests.support.csrs import request
from tests.support.est import Credential, Device, bootstrap, make_csr, make_dms, name, new_key
from tests.support.footprint import Watched
from tests.support.pki import CA_USAGE, CLIENT_AUTH, LEAF_USAGE
from tests.support.server import Server, free_port, make_installation, serving
from tests.support.tables import Tables

BLINK = "2s"
HEADERS_OF_PROXIES = ("X-Forwarded-Client-Cert", "ssl-client-cert", "X-Amzn-Mtls-Clientcert")

# In the spelling of the security guide: certificates enroll once, renewals open 30 days before
# the end.
GUIDES_DMS = {
    "id": "guides-plant",
    "settings": {
        "enrollment_settings": {
            "protocol": "EST",
            "registration_mode": "JITP",
            "est_rfc7030_settings": {
                "authentication": {
                    "type": "client_certificate",
                    "client_certificate": {"validation_cas": ["bootstrap-ca"]},
                }
            },
        }
    },
}


@dataclass
class Ask:
    """One EST request."""

    csr: bytes = b""
    as_: str = "bootstrap"  # whose certificate is shown; empty for none
    dms: str = "plant"
    operation: str = "simpleenroll"
    body: bytes | None = None  # in place of the CSR's base64
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class World:
    """A platform with DMSs, devices and certificates of every kind."""

    inside: Server
    edge: Server
    folder: Path
    watched: Watched
    credentials: dict[str, Credential] = field(default_factory=dict)
    clients: dict[tuple[int, str], httpx.Client] = field(default_factory=dict)

    def send(self, door: Server, ask: Ask) -> httpx.Response:
        """Send it, over a connection kept for this certificate."""
        client = self.clients.get((door.port, ask.as_))
        if client is None:
            client = self.clients[door.port, ask.as_] = self._client(door, ask.as_)
        return client.post(
            f"/.well-known/est/{ask.dms}/{ask.operation}",
            content=base64.b64encode(ask.csr) if ask.body is None else ask.body,
            headers={"Content-Type": "application/pkcs10", **ask.headers},
        )

    def _client(self, door: Server, whose: str) -> httpx.Client:
        context = ssl.create_default_context(cafile=str(self.inside.directory / "tls-ca.crt"))
        if whose:
            shown = self.credentials[whose]
            context.load_cert_chain(shown.certificate_path, shown.key_path)
        return httpx.Client(base_url=door.url, verify=context, timeout=30)

    def enrolled(
        self, device_id: str, dms: str, *, by: str = "bootstrap", renewed: bool = False
    ) -> Device:
        """A device with an identity that it has used."""
        device = Device(self.inside, dms, device_id, self.folder, self.credentials[by])
        assert device.enroll().status_code == 200
        if renewed:
            self.credentials[f"{device_id}, superseded"] = self._identity(device)
            assert device.reenroll(new_key()).status_code == 200
            assert device.reenroll(new_key()).status_code == 200
        self.credentials[device_id] = self._identity(device)
        # showing it is a use, which is kept even where what is asked is refused
        device.post("simplereenroll", b"", device.identity)
        return device

    def _identity(self, device: Device) -> Credential:
        assert device.identity is not None
        return device.identity

    def store(self, label: str, certificate: x509.Certificate, key: object) -> None:
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self.credentials[label] = Credential.store(self.folder, label, certificate, key)

    def close(self) -> None:
        for client in self.clients.values():
            client.close()


@dataclass(frozen=True)
class Door:
    """Where a device knocks."""

    world: World
    server: Server

    def send(self, ask: Ask) -> httpx.Response:
        return self.world.send(self.server, ask)


@contextmanager
def running(folder: Path, url: str | None) -> Iterator[World]:
    """A whole world, and an edge with nothing of the installation but a copy of its folder."""
    directory = make_installation(folder / "var", database=url, key_type="ecdsa-p256")
    with serving(directory, database=url) as inside:
        own = Path(shutil.copytree(directory / "est", folder / "edge"))
        edge = Server(own, free_port(), free_port(), inside.internal_port, services=("est",))
        edge.start()
        world = World(inside, edge, folder, Watched(directory, Tables.of(directory, url)))
        try:
            furnish(world)
            world.watched.settle()
            yield world
        finally:
            world.close()
            edge.stop()


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("sqlite"), None) as world:
        yield world


@pytest.fixture(scope="module")
def on_postgresql(postgresql_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("postgresql"), postgresql_url) as world:
        yield world


@pytest.fixture(params=["sqlite platform", "sqlite edge", "postgresql edge"])
def door(request: pytest.FixtureRequest) -> Door:
    database, _, place = request.param.partition(" ")
    world: World = request.getfixturevalue(f"on_{database}")
    return Door(world, world.inside if place == "platform" else world.edge)


def furnish(world: World) -> None:
    """DMSs, devices and certificates; those that have to expire come first."""
    server = world.inside
    with server.admin() as admin:
        made = admin.post(
            "/api/ca/v1/profiles",
            json={
                "id": "blink",
                "name": "blink",
                "validity": {"type": "Duration", "duration": BLINK},
                "key_usage": ["DigitalSignature"],
                "extended_key_usages": ["ClientAuth"],
                "honor_subject": True,
            },
        )
        assert made.status_code == 201, made.text
    own_only = {"client_certificate_settings": {"validation_cas": ["manufacturing-ca"]}}
    for dms_id, settings in {
        "plant": {},
        "other-plant": {},
        "registered": {"registration_mode": "PRE_REGISTRATION"},
        "blink-plant": {"profile": "blink"},
        "relay": {"est_rfc7030_settings": {"auth_mode": "CLIENT_CERTIFICATE", **own_only}},
        "hook": {"est_rfc7030_settings": {"auth_mode": "EXTERNAL_WEBHOOK"}},
    }.items():
        make_dms(server, dms_id, **settings)
    with server.admin() as admin:
        made = admin.post("/api/dmsmanager/v1/dms", json=GUIDES_DMS)
        assert made.status_code == 201, made.text
    folder = world.folder / "bootstrap"
    for label, profile in (
        ("expired bootstrap", "blink"),
        ("bootstrap", "bootstrap-profile"),
        ("revoked bootstrap", "bootstrap-profile"),
        ("spent bootstrap", "bootstrap-profile"),
        ("single-use bootstrap", "bootstrap-profile"),
    ):
        world.credentials[label] = bootstrap(server, folder, label, profile=profile)
    world.enrolled("late-device", "blink-plant")
    world.enrolled("used-device", "plant", renewed=True)
    world.enrolled("foreign-device", "other-plant")
    world.enrolled("revoked-device", "plant")
    world.enrolled("retired-device", "plant")
    world.enrolled("early-device", "guides-plant", by="spent bootstrap")
    forge(world)
    admin_files = [server.directory / f"admin.{suffix}" for suffix in ("crt", "key")]
    certificate = x509.load_pem_x509_certificates(admin_files[0].read_bytes())[0]
    world.credentials["admin"] = Credential(certificate, new_key(), *admin_files)
    with server.admin() as admin:
        for label in ("revoked bootstrap", "revoked-device"):
            revoked = admin.post(
                f"/api/ca/v1/certificates/{world.credentials[label].serial_number}/revoke",
                json={"reason": "key_compromise"},
            )
            assert revoked.status_code == 200, revoked.text
        retired = admin.delete("/api/devmanager/v1/devices/retired-device/decommission")
        assert retired.status_code == 200, retired.text
    for label in ("expired bootstrap", "late-device"):
        end = world.credentials[label].certificate.not_valid_after_utc
        while datetime.now(UTC) < end + timedelta(seconds=1):  # ends with a second, not within it
            time.sleep(0.05)


def forge(world: World) -> None:
    """Certificates that say they are of our CAs, signed by nobody's key."""
    pem = (world.inside.directory / "tls-ca.crt").read_bytes()
    internal = x509.load_pem_x509_certificates(pem)[1]
    device = world.credentials["used-device"].certificate
    boot = world.credentials["bootstrap"].certificate
    for label, imitated in (
        ("forged bootstrap", boot),
        ("forged identity", device),
        ("forged admin", None),
    ):
        issuer = internal.subject if imitated is None else imitated.issuer
        key = new_key()
        uri = x509.UniformResourceIdentifier("lamassu://admin/admin")
        builder = (
            _dated(x509.CertificateBuilder())
            .subject_name(imitated.subject if imitated else name("admin"))
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(imitated.serial_number if imitated else 7)
            .add_extension(x509.BasicConstraints(False, None), True)
            .add_extension(LEAF_USAGE, True)
            .add_extension(CLIENT_AUTH, False)
            .add_extension(x509.SubjectAlternativeName([uri]), False)
        )
        world.store(label, builder.sign(new_key(), SHA256()), key)
    own = new_key()
    self_made = (
        _dated(x509.CertificateBuilder())
        .subject_name(name("used-device"))
        .issuer_name(name("used-device"))
        .public_key(own.public_key())
        .serial_number(7)
        .add_extension(CA_USAGE, True)
        .sign(own, SHA256())
    )
    world.store("self-made", self_made, own)


def _dated(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return builder.not_valid_before(now - timedelta(days=1)).not_valid_after(
        now + timedelta(days=30)
    )


def key_on(curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve)


def shown_in(header: str) -> Callable[[World], Ask]:
    """A proxy's header with the certificate of a device that could enroll."""

    def ask(world: World) -> Ask:
        pem = world.credentials["bootstrap"].certificate.public_bytes(Encoding.PEM).decode()
        quoted = urllib.parse.quote(pem)
        value = f'Cert="{quoted}"' if header.startswith("X-Forwarded") else quoted
        return Ask(csr=request("new-device"), as_="", headers={header: value})

    return ask


Build = Callable[[World], Ask]

BODIES: dict[str, tuple[Build, int, str]] = {
    "a malformed CSR": (lambda w: Ask(csr=b"\x30\x82\x01\x00 nonsense"), 400, "csr_malformed"),
    "a truncated CSR": (lambda w: Ask(csr=request("new-device")[:-7]), 400, "csr_malformed"),
    "a CSR with something behind it": (
        lambda w: Ask(csr=request("new-device") + b"\0"),
        400,
        "csr_malformed",
    ),
    "a certificate in place of a CSR": (
        lambda w: Ask(csr=w.credentials["bootstrap"].certificate.public_bytes(Encoding.DER)),
        400,
        "csr_malformed",
    ),
    "a huge CSR": (lambda w: Ask(csr=csrs.huge("new-device", 66_000)), 400, "csr_malformed"),
    "a CSR beyond the body's bound": (
        lambda w: Ask(csr=csrs.huge("new-device", 120_000)),
        413,
        "too_large",
    ),
    "no CSR": (lambda w: Ask(body=b""), 400, "csr_missing"),
    "a wrong signature": (
        lambda w: Ask(csr=csrs.forged("new-device")),
        400,
        "csr_signature_invalid",
    ),
    "a SHA-1 signature": (
        lambda w: Ask(csr=csrs.signed_with_sha1("new-device", w.folder)),
        400,
        "csr_signature_invalid",
    ),
    "RSA 1024": (
        lambda w: Ask(csr=request("new-device", key=rsa.generate_private_key(65537, 1024))),
        400,
        "key_not_allowed",
    ),
    "RSA with the exponent 1": (
        lambda w: Ask(csr=csrs.with_public_exponent_one("new-device")),
        400,
        "key_not_allowed",
    ),
    "RSA of 16384 bits": (
        lambda w: Ask(csr=csrs.with_endless_rsa_key("new-device", 16_384)),
        400,
        "key_not_allowed",
    ),
    "P-224": (
        lambda w: Ask(csr=request("new-device", key=key_on(ec.SECP224R1()))),
        400,
        "key_not_allowed",
    ),
    "secp256k1": (
        lambda w: Ask(csr=request("new-device", key=key_on(ec.SECP256K1()))),
        400,
        "key_not_allowed",
    ),
    "Ed25519": (
        lambda w: Ask(csr=request("new-device", key=ed25519.Ed25519PrivateKey.generate())),
        400,
        "key_not_allowed",
    ),
    "a curve that the profile does not take": (
        lambda w: Ask(csr=request("new-device", key=key_on(ec.SECP521R1()))),
        400,
        "crypto_enforcement",
    ),
    "another media type": (
        lambda w: Ask(csr=request("new-device"), headers={"Content-Type": "application/json"}),
        400,
        "unsupported_media_type",
    ),
    "an empty media type": (
        lambda w: Ask(csr=request("new-device"), headers={"Content-Type": ""}),
        400,
        "unsupported_media_type",
    ),
    "bad base64": (lambda w: Ask(body=b"MIIB*&^%"), 400, "base64_malformed"),
    "base64 cut short": (
        lambda w: Ask(body=base64.b64encode(request("new-device"))[:-3]),
        400,
        "base64_malformed",
    ),
    "no common name": (lambda w: Ask(csr=request()), 400, "common_name_missing"),
    "two common names": (lambda w: Ask(csr=request("a", "b")), 403, "second_common_name"),
    "a path for a name": (lambda w: Ask(csr=request("../used-device")), 400, "device_id_invalid"),
    "an admin's name in the SAN": (
        lambda w: Ask(
            csr=request(
                "new-device", names=[x509.UniformResourceIdentifier("lamassu://admin/admin")]
            )
        ),
        400,
        "platform_name",
    ),
}

PEERS: dict[str, tuple[Build, int, str]] = {
    "an unknown DMS, before all else": (
        lambda w: Ask(body=b"*", as_="", dms="nowhere"),
        404,
        "dms_not_found",
    ),
    "a DMS whose check is not built": (
        lambda w: Ask(csr=request("new-device"), dms="hook"),
        503,
        "not_available",
    ),
    "no certificate": (lambda w: Ask(body=b"*", as_=""), 401, "certificate_missing"),
    "a revoked certificate": (
        lambda w: Ask(body=b"*", as_="revoked bootstrap"),
        403,
        "certificate_revoked",
    ),
    "an expired certificate": (
        lambda w: Ask(body=b"*", as_="expired bootstrap"),
        401,
        "certificate_expired",
    ),
    "a certificate of another CA under our CA's name": (
        lambda w: Ask(body=b"*", as_="forged bootstrap"),
        401,
        "certificate_unknown",
    ),
    "a self-made certificate": (
        lambda w: Ask(body=b"*", as_="self-made"),
        401,
        "certificate_unknown",
    ),
    "a certificate of another CA of the platform": (
        lambda w: Ask(body=b"*", as_="used-device"),
        401,
        "certificate_unknown",
    ),
    "an admin's certificate": (
        lambda w: Ask(body=b"*", as_="admin"),
        401,
        "certificate_unknown",
    ),
    **{
        f"a certificate in {header}": (shown_in(header), 401, "certificate_missing")
        for header in HEADERS_OF_PROXIES
    },
}

DEVICES: dict[str, tuple[Build, int, str]] = {
    "a device in use": (lambda w: Ask(csr=request("used-device")), 409, "device_in_use"),
    "a device of another DMS": (
        lambda w: Ask(csr=request("foreign-device")),
        403,
        "device_of_other_dms",
    ),
    "a device that was revoked": (
        lambda w: Ask(csr=request("revoked-device")),
        403,
        "device_revoked",
    ),
    "a device that was retired": (
        lambda w: Ask(csr=request("retired-device")),
        403,
        "device_decommissioned",
    ),
    "a device but for case": (
        lambda w: Ask(csr=request("USED-device")),
        409,
        "device_id_lookalike",
    ),
    "a device that nobody announced": (
        lambda w: Ask(csr=request("new-device"), dms="registered"),
        403,
        "device_not_preregistered",
    ),
    "a second device by a certificate that enrolls once": (
        lambda w: Ask(csr=request("new-device"), as_="spent bootstrap", dms="guides-plant"),
        403,
        "bootstrap_spent",
    ),
    "a device in use by a certificate that never enrolled": (
        lambda w: Ask(csr=request("early-device"), dms="guides-plant"),
        409,
        "device_in_use",
    ),
    "another device's certificate": (
        lambda w: Ask(csr=request("new-device"), as_="used-device", dms="relay"),
        403,
        "certificate_of_other_device",
    ),
}


def renewal(csr: bytes = b"", *, as_: str = "used-device", dms: str = "plant") -> Ask:
    return Ask(csr=csr or make_csr(new_key(), as_), as_=as_, dms=dms, operation="simplereenroll")


RENEWALS: dict[str, tuple[Build, int, str]] = {
    "no certificate": (
        lambda w: renewal(make_csr(new_key(), "used-device"), as_=""),
        401,
        "certificate_missing",
    ),
    "a bootstrap certificate": (
        lambda w: renewal(make_csr(new_key(), "used-device"), as_="bootstrap"),
        401,
        "certificate_unknown",
    ),
    "a forged identity": (
        lambda w: renewal(make_csr(new_key(), "used-device"), as_="forged identity"),
        401,
        "certificate_unknown",
    ),
    "an expired identity": (
        lambda w: renewal(as_="late-device", dms="blink-plant"),
        401,
        "certificate_expired",
    ),
    "a revoked identity": (lambda w: renewal(as_="revoked-device"), 403, "certificate_revoked"),
    "a retired device": (lambda w: renewal(as_="retired-device"), 403, "certificate_revoked"),
    "a superseded identity": (
        lambda w: renewal(make_csr(new_key(), "used-device"), as_="used-device, superseded"),
        403,
        "certificate_superseded",
    ),
    "another device's name": (
        lambda w: renewal(make_csr(new_key(), "foreign-device")),
        403,
        "subject_mismatch",
    ),
    "another organization": (lambda w: renewal(request("used-device")), 403, "subject_mismatch"),
    "another DMS's device": (
        lambda w: renewal(as_="foreign-device"),
        403,
        "device_of_other_dms",
    ),
    "an unknown DMS": (lambda w: renewal(dms="nowhere"), 404, "dms_not_found"),
    "a renewal that comes too early": (
        lambda w: renewal(as_="early-device", dms="guides-plant"),
        403,
        "too_early_to_reenroll",
    ),
    "a wrong signature": (
        lambda w: renewal(csrs.forged("used-device")),
        400,
        "csr_signature_invalid",
    ),
    "another media type": (
        lambda w: Ask(
            csr=request("used-device"),
            as_="used-device",
            operation="simplereenroll",
            headers={"Content-Type": "text/plain"},
        ),
        400,
        "unsupported_media_type",
    ),
}


def check(door: Door, build: Build, status: int, code: str) -> None:
    ask = build(door.world)

    with door.world.watched.nothing_stored():
        answer = door.send(ask)

    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code), answer.text
    assert set(body) == {"err", "code", "field"} | ({"request_id"} if status >= 500 else set())
    assert body["err"]
    assert answer.headers["content-type"].startswith("application/json")


@pytest.mark.parametrize("what", BODIES)
def test_a_bad_request_for_a_certificate_is_refused(door: Door, what: str) -> None:
    check(door, *BODIES[what])


@pytest.mark.parametrize("what", PEERS)
def test_who_may_not_enroll_is_refused(door: Door, what: str) -> None:
    check(door, *PEERS[what])


@pytest.mark.parametrize("what", DEVICES)
def test_a_device_that_may_not_enroll_is_refused(door: Door, what: str) -> None:
    check(door, *DEVICES[what])


def test_a_refusal_does_not_spend_a_certificate_that_enrolls_once(door: Door) -> None:
    weak = request("other-device", key=key_on(ec.SECP521R1()))

    with door.world.watched.nothing_stored(audited="dmsmanager"):
        answer = door.send(Ask(csr=weak, as_="single-use bootstrap", dms="guides-plant"))

    assert (answer.status_code, answer.json()["code"]) == (400, "crypto_enforcement")


@pytest.mark.parametrize("what", RENEWALS)
def test_a_bad_renewal_is_refused(door: Door, what: str) -> None:
    check(door, *RENEWALS[what])
