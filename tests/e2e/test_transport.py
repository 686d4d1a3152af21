"""What the real listeners speak: TLS 1.2 and 1.3, the guide's suites, and nothing older."""

from __future__ import annotations

import socket
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.est import Credential, bootstrap, name, new_key
from tests.support.server import Server, copy_installation, serving
from tests.support.sockets import client_context

ECDSA_SUITES = {"ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256"}
RSA_SUITES = {"ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256"}
# OpenSSL's names of TLS 1.3's suites are IANA's.
TLS13_SUITES = {
    "TLS_AES_256_GCM_SHA384",
    "TLS_AES_128_GCM_SHA256",
    "TLS_CHACHA20_POLY1305_SHA256",
}


def offered() -> list[str]:
    """Every suite up to TLS 1.2 that the test's own OpenSSL could speak, weak ones too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    names = [str(cipher["name"]) for cipher in context.get_ciphers()]
    return [one for one in names if not one.startswith(("TLS_", "PSK", "SRP", "RSA-PSK"))]


def spoken(port: int, edge: Path | None = None) -> set[str]:
    """The suites of TLS 1.2 with which a handshake ends well, an edge's or anybody's."""
    return {suite for suite in offered() if _handshake(port, suite, edge)}


def _handshake(port: int, suite: str, edge: Path | None) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    if edge is not None:
        context.load_cert_chain(edge / "est.crt", edge / "est.key")
    try:
        context.set_ciphers(f"{suite}:@SECLEVEL=0")
        with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
            with context.wrap_socket(raw) as wire:
                return (wire.cipher() or ("",))[0] == suite
    except (ssl.SSLError, ConnectionError):
        return False


def said(port: int, *arguments: str) -> str:
    """What `openssl s_client` tells of a handshake."""
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *arguments],
        input="Q\n",
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return done.stdout + done.stderr


def test_the_guides_suites_are_spoken_on_tls_12_and_no_others(platform: Server) -> None:
    assert len(offered()) > 50
    assert spoken(platform.port) == ECDSA_SUITES
    assert spoken(platform.internal_port, platform.directory / "est") == ECDSA_SUITES


def test_with_an_rsa_certificate_they_are_the_guides_for_rsa(fresh: Path, tmp_path: Path) -> None:
    directory = copy_installation(fresh, tmp_path / "var")
    key = rsa.generate_private_key(65537, 2048)
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name("localhost"), name("localhost"), key.public_key(), 7)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
        .sign(key, SHA256())
        .public_bytes(Encoding.PEM)
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (directory / "tls" / "server.crt").write_bytes(certificate)
    (directory / "tls" / "server.key").write_bytes(pem)
    (directory / "tls-ca.crt").write_bytes(certificate)

    with serving(directory, elsewhere=True) as server:
        assert spoken(server.port) == RSA_SUITES


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
@pytest.mark.parametrize("listener", ["port", "internal_port"])
def test_older_versions_are_refused(platform: Server, version: str, listener: str) -> None:
    answer = said(getattr(platform, listener), version, "-cipher", "ALL:@SECLEVEL=0")

    assert "alert protocol version" in answer
    assert "Cipher is (NONE)" in answer


def test_tls_13_is_spoken_with_its_own_suites(platform: Server) -> None:
    for suite in TLS13_SUITES:
        assert f"Cipher is {suite}" in said(platform.port, "-tls1_3", "-ciphersuites", suite), suite
    weak = said(platform.port, "-tls1_3", "-ciphersuites", "TLS_AES_128_CCM_8_SHA256")
    assert "Cipher is (NONE)" in weak


def test_no_session_is_resumed(platform: Server) -> None:
    answer = said(platform.port, "-tls1_2", "-reconnect")

    assert answer.count("New, TLSv1.2") == 6
    assert "Reused" not in answer


@pytest.fixture(scope="module")
def expired(platform: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Credential]:
    """Certificates that no CA of ours issued, or that is past its end."""
    folder = tmp_path_factory.mktemp("expired")
    key = new_key()
    now = datetime.now(UTC)
    past = (
        x509.CertificateBuilder(name("nobody"), name("nobody"), key.public_key(), 7)
        .not_valid_before(now - timedelta(days=9))
        .not_valid_after(now - timedelta(days=1))
        .sign(key, SHA256())
    )
    return {
        "expired and unknown": Credential.store(folder, "past", past, key),
        "known": bootstrap(platform, folder, "bootstrap"),
    }


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("who", ["", "expired and unknown", "known"])
def test_the_handshake_ends_well_with_any_certificate_and_the_application_refuses(
    platform: Server, expired: dict[str, Credential], who: str, version: ssl.TLSVersion
) -> None:
    shown = expired.get(who)
    context = client_context(
        platform,
        shown.certificate_path if shown else None,
        shown.key_path if shown else None,
    )
    context.minimum_version = context.maximum_version = version

    with socket.create_connection(("localhost", platform.port), timeout=10) as raw:
        with context.wrap_socket(raw, server_hostname="localhost") as wire:
            wire.sendall(b"GET /api/ca/v1/cas HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            assert wire.recv(100).startswith(b"HTTP/1.1 401 ")
