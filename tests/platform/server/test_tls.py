"""The handshake: whom it lets in, what it speaks, and what it never does."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from pathlib import Path

import pytest
from asn1crypto import keys as asn1_keys
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from lamassu.kernel.errors import Malformed, RuleViolation
from lamassu.kernel.x509.pem import pem_of
from lamassu.platform.http.server import ServerLimits
from lamassu.platform.security.cipher_suites import DEFAULT_SUITES
from lamassu.platform.security.tls import (
    TlsPolicy,
    TlsVersion,
    build_client_context,
    build_server_context,
)
from tests.platform.server.conftest import (
    NOW,
    VALID,
    Client,
    Server,
    Start,
    TestPki,
    key_pem,
    refusal,
)
from tests.support.pki import Made, make
from tests.support.raw_tls import answer_to_certificates

ALERT = b"\x15"
ODD = 2**2048 - 1

SUITE = {
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
}


@pytest.fixture
async def server(open_server: Start, pki: TestPki) -> Server:
    return await open_server(tls=pki.server_tls())


async def openssl(server: Server, *arguments: str, entry: bytes = b"Q\n") -> str:
    """What `openssl s_client` says about the listener."""
    process = await asyncio.create_subprocess_exec(
        "openssl",
        "s_client",
        "-connect",
        f"127.0.0.1:{server.running.port}",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(entry), 10)
    return output.decode("utf-8", "replace")


# Any client certificate, or none, ends the handshake well


async def test_no_certificate_reaches_the_application(server: Server) -> None:
    seen = (await (await server.connect()).ask()).json
    assert (seen["chain"], seen["address"], seen["scheme"]) == ([], "127.0.0.1", "https")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("who", ["device", "expired_device", "self_signed", "server", "vendor_ca"])
async def test_any_certificate_reaches_the_application(
    server: Server, client: Client, pki: TestPki, who: str, version: ssl.TLSVersion
) -> None:
    made: Made = getattr(pki, who)
    context = client.presenting(made)
    context.minimum_version = context.maximum_version = version
    seen = (await (await server.connect(context)).ask()).json
    assert seen["chain"] == [made.der.hex()]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_whole_chain_reaches_the_application_its_own_first(
    server: Server, client: Client, pki: TestPki, version: ssl.TLSVersion
) -> None:
    context = client.presenting(pki.device, pki.vendor_ca, pki.vendor_root)
    context.minimum_version = context.maximum_version = version
    wire = await server.connect(context)
    for _ in range(2):
        assert (await wire.ask()).json["chain"] == [
            one.der.hex() for one in (pki.device, pki.vendor_ca, pki.vendor_root)
        ]
    peers = [scope["extensions"]["lamassu.peer"] for scope in server.application.scopes]
    assert peers[0] is peers[1]


async def test_certificates_that_do_not_belong_together_are_the_applications_to_judge(
    server: Server, client: Client, pki: TestPki
) -> None:
    seen = (await (await server.connect(client.presenting(pki.device, pki.root))).ask()).json
    assert seen["chain"] == [pki.device.der.hex(), pki.root.der.hex()]


async def test_the_client_is_asked_for_any_ca(server: Server) -> None:
    for version in ("-tls1_2", "-tls1_3"):
        said = await openssl(server, version)
        assert "No client certificate CA names sent" in said
        assert "Requested Signature Algorithms" in said


# Bounds on strangers


async def test_a_chain_of_too_many_certificates_is_refused(
    server: Server, client: Client, pki: TestPki
) -> None:
    chain = [pki.device, *[pki.vendor_ca] * 8]
    async with refusal():
        await (await server.connect(client.presenting(*chain))).ask()
    assert server.application.scopes == []


async def test_a_chain_of_too_many_bytes_is_refused(
    server: Server, client: Client, pki: TestPki
) -> None:
    stuffed = make(
        "stuffed",
        extra=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.9"), b"a" * 66_000), False)],
        **VALID,
    )
    async with refusal():
        await (await server.connect(client.presenting(stuffed))).ask()
    assert server.application.scopes == []


def mersenne_key(p: int, q: int, exponent: int) -> rsa.RSAPrivateKey:
    """A worthless RSA key of two known primes, because large random ones take minutes."""
    p, q = 2**p - 1, 2**q - 1
    d = pow(exponent, -1, (p - 1) * (q - 1))
    numbers = rsa.RSAPrivateNumbers(
        p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), rsa.RSAPublicNumbers(exponent, p * q)
    )
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


@pytest.mark.parametrize(
    ("key", "let_in"),
    [
        pytest.param(mersenne_key(2_203, 1_279, 65_537), True, id="RSA of 3482 bits"),
        pytest.param(mersenne_key(4_423, 4_253, 65_537), False, id="RSA of 8676 bits"),
        pytest.param(mersenne_key(2_203, 607, 2**200 + 235), False, id="exponent of 201 bits"),
    ],
)
async def test_a_costly_key_is_refused_before_it_is_used(
    server: Server, client: Client, pki: TestPki, key: rsa.RSAPrivateKey, let_in: bool
) -> None:
    certificate = (
        x509.CertificateBuilder()
        .subject_name(pki.device.name)
        .issuer_name(pki.vendor_ca.name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW)
        .not_valid_after(VALID["not_after"])
        .sign(pki.vendor_ca.key, SHA256())
    )
    context = client.context([certificate.public_bytes(Encoding.DER)], key)
    if let_in:
        assert (await (await server.connect(context)).ask()).status == 200
    else:
        async with refusal():
            await (await server.connect(context)).ask()
        assert server.application.scopes == []


def rsa_certificate(pki: TestPki, modulus: int, exponent: int) -> bytes:
    """A certificate whose key is these two numbers, whatever they are."""
    key = asn1_keys.PublicKeyInfo(
        {
            "algorithm": {"algorithm": "rsa"},
            "public_key": asn1_keys.RSAPublicKey({"modulus": modulus, "public_exponent": exponent}),
        }
    )
    certificate = asn1_x509.Certificate.load(pki.device.der)
    certificate["tbs_certificate"]["subject_public_key_info"] = key
    return certificate.dump(force=True)


@pytest.mark.parametrize(
    ("modulus", "exponent"),
    [(ODD, 1), (ODD, 2), (ODD, 0), (ODD, -3), (1, 3), (0, 3)],
    ids=["e=1", "e=2", "e=0", "e=-3", "n=1", "n=0"],
)
async def test_a_key_that_no_library_reads_is_refused_without_a_fault_of_ours(
    server: Server,
    pki: TestPki,
    caplog: pytest.LogCaptureFixture,
    modulus: int,
    exponent: int,
) -> None:
    shown = [rsa_certificate(pki, modulus, exponent)]

    answer = await asyncio.to_thread(answer_to_certificates, server.running.port, shown)

    assert answer[:1] == ALERT
    assert server.application.scopes == []
    assert caplog.records == [], "a traceback for each stranger who likes"


async def test_a_handshake_that_dawdles_is_cut_off(open_server: Start, pki: TestPki) -> None:
    server = await open_server(
        tls=pki.server_tls(), limits=ServerLimits(handshake_timeout=0.2, linger_timeout=0.2)
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", server.running.port)
    writer.write(b"\x16\x03\x01\x02\x00\x01")
    async with refusal():
        await asyncio.wait_for(reader.readexactly(1), 5)
    writer.close()


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 64, b"\xff" * 70_000])
async def test_garbage_instead_of_a_handshake_ends_the_connection(
    server: Server, garbage: bytes
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.running.port)
    writer.write(garbage)
    await asyncio.wait_for(reader.read(), 5)
    writer.close()
    assert (await (await server.connect()).ask()).status == 200


# Sessions, versions, suites


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_no_session_is_resumed(server: Server, tmp_path: Path, version: str) -> None:
    session = tmp_path / "session.pem"
    request = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    first = await openssl(server, version, "-ign_eof", "-sess_out", str(session), entry=request)
    assert "200 OK" in first
    if session.exists():
        again = await openssl(server, version, "-sess_in", str(session))
        assert "New, TLSv1" in again
        assert "Reused" not in again


async def test_reconnecting_makes_new_sessions(server: Server) -> None:
    said = await openssl(server, "-tls1_2", "-reconnect")
    assert len(re.findall("^New, TLSv1.2", said, re.MULTILINE)) == 6
    assert "Reused" not in said


async def test_no_ticket_is_issued_under_tls_12(server: Server) -> None:
    said = await openssl(server, "-tls1_2")
    assert "TLS session ticket" not in said
    assert re.search(r"Session-ID: *$", said, re.MULTILINE)


async def test_a_python_client_cannot_resume_either(server: Server, client: Client) -> None:
    def twice() -> list[bool]:
        context, reused, session = client.context(), [], None
        for _ in range(2):
            raw = socket.create_connection(("127.0.0.1", server.running.port))
            with context.wrap_socket(raw, session=session) as secure:
                secure.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                secure.recv(100)
                reused.append(bool(secure.session_reused))
                session = secure.session
        return reused

    assert await asyncio.to_thread(twice) == [False, False]


async def test_renegotiation_is_refused(server: Server) -> None:
    said = await openssl(server, "-tls1_2", entry=b"R\nQ\n")
    assert "RENEGOTIATING" in said
    assert "no renegotiation" in said


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
async def test_old_versions_are_refused(server: Server, version: str) -> None:
    said = await openssl(server, version, "-cipher", "ALL:@SECLEVEL=0")
    assert "Cipher is (NONE)" in said
    assert "alert protocol version" in said


async def test_tls_13_is_spoken(server: Server) -> None:
    assert "New, TLSv1.3" in await openssl(server)


@pytest.mark.parametrize("name", SUITE)
async def test_the_listed_suites_are_spoken(server: Server, name: str) -> None:
    said = await openssl(server, "-tls1_2", "-cipher", SUITE[name])
    assert f"Cipher is {SUITE[name]}" in said


@pytest.mark.parametrize(
    "cipher",
    ["ECDHE-ECDSA-AES256-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES128-SHA"],
)
async def test_other_suites_are_refused(server: Server, cipher: str) -> None:
    said = await openssl(server, "-tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0")
    assert "Cipher is (NONE)" in said
    assert "alert handshake failure" in said


async def test_the_lowest_version_can_be_tls_13(open_server: Start, pki: TestPki) -> None:
    for policy in (
        TlsPolicy(min_version=TlsVersion.TLS13),
        TlsPolicy(cipher_suites=("TLS_AES_128_GCM_SHA256",)),
    ):
        server = await open_server(tls=pki.server_tls(policy=policy))
        assert "Cipher is (NONE)" in await openssl(server, "-tls1_2")
        assert "New, TLSv1.3" in await openssl(server)


@pytest.mark.parametrize(
    "name", ["TLS_RSA_WITH_AES_128_CBC_SHA", "ECDHE-RSA-AES256-GCM-SHA384", ""]
)
def test_an_unknown_suite_is_a_fault_that_names_the_known(pki: TestPki, name: str) -> None:
    with pytest.raises(RuleViolation, match=DEFAULT_SUITES[0]) as fault:
        pki.server_tls(policy=TlsPolicy(cipher_suites=(DEFAULT_SUITES[0], name)))
    assert fault.value.code == "unknown_cipher_suite"


# Our own certificate


def test_a_key_of_another_certificate_is_refused(pki: TestPki) -> None:
    with pytest.raises(RuleViolation, match="not the key"):
        build_server_context(pem_of(pki.server.der), key_pem(pki.service.key))


@pytest.mark.parametrize("chain", [b"", b"rubbish"])
def test_an_unreadable_certificate_is_refused(pki: TestPki, chain: bytes) -> None:
    with pytest.raises(Malformed, match="not readable"):
        build_server_context(chain, key_pem(pki.server.key))


async def test_a_new_certificate_serves_new_connections_and_old_ones_live_on(
    open_server: Start, pki: TestPki
) -> None:
    tls = pki.server_tls()
    server = await open_server(tls=tls)
    old = await server.connect()
    renewed = make("localhost", issuer=pki.root, **VALID)
    with pytest.raises(RuleViolation):
        tls.replace_certificate(pem_of(renewed.der), key_pem(pki.server.key))
    tls.replace_certificate(pem_of(renewed.der) + pem_of(pki.root.der), key_pem(renewed.key))
    new = await server.connect()

    def shown(wire: object) -> bytes:
        return wire.writer.get_extra_info("ssl_object").getpeercert(True)  # type: ignore[attr-defined]

    assert (shown(old), shown(new)) == (pki.server.der, renewed.der)
    assert (await old.ask()).status == (await new.ask()).status == 200


async def test_goodbye_is_said_in_both_directions(server: Server) -> None:
    request = b"GET /large?100000 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    said = await openssl(server, "-ign_eof", "-msg", entry=request)
    assert said.count("x") >= 100_000
    assert "close_notify" in said.replace("close notify", "close_notify")


async def test_a_tls_client_that_ends_its_side_still_gets_its_answer(server: Server) -> None:
    process = await asyncio.create_subprocess_exec(
        "openssl",
        "s_client",
        "-quiet",
        "-no_ign_eof",
        "-connect",
        f"127.0.0.1:{server.running.port}",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    await asyncio.wait_for(process.communicate(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"), 10)
    assert len(server.application.scopes) == 1


# The internal listener


@pytest.fixture
async def internal(open_server: Start, pki: TestPki) -> Server:
    return await open_server(tls=pki.server_tls(required_anchors=[pki.root.der]))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_internal_port_lets_an_internal_certificate_in(
    internal: Server, client: Client, pki: TestPki, version: ssl.TLSVersion
) -> None:
    context = client.presenting(pki.service)
    context.minimum_version = context.maximum_version = version
    seen = (await (await internal.connect(context)).ask()).json
    assert seen["chain"] == [pki.service.der.hex()]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("who", ["", "late_service", "device", "self_signed", "server"])
async def test_the_internal_port_refuses_everybody_else_in_the_handshake(
    internal: Server, client: Client, pki: TestPki, who: str, version: ssl.TLSVersion
) -> None:
    context = client.presenting(getattr(pki, who)) if who else client.context()
    context.minimum_version = context.maximum_version = version
    async with refusal():
        await (await internal.connect(context)).ask()
    assert internal.application.scopes == []


async def test_the_internal_port_says_why_by_an_alert(internal: Server) -> None:
    said = await openssl(internal, "-tls1_3", "-ign_eof", entry=b"GET / HTTP/1.1\r\n\r\n")
    assert "alert certificate required" in said


async def test_our_own_client_context_speaks_to_the_internal_port(
    internal: Server, client: Client, pki: TestPki, tmp_path: Path
) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(pem_of(pki.root.der))
    cert_file, key_file = client.files([pki.service.der], pki.service.key)
    context = build_client_context(ca_file=ca_file, cert_file=cert_file, key_file=key_file)
    context.check_hostname = False
    assert (await (await internal.connect(context)).ask()).status == 200
    with pytest.raises(Malformed, match="absent"):
        build_client_context(ca_file=tmp_path / "absent.pem")
