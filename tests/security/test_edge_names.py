"""An EST edge has names of its own: whoever owns it cannot pose as the platform."""

from __future__ import annotations

import ssl
from ipaddress import ip_address
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from lamassu import wiring
from lamassu.kernel.errors import RuleViolation
from lamassu.services.access.contract import SERVICE_LIFETIME, CredentialKind
from lamassu.services.ca.contract import IssueRequest
from lamassu.wiring.installing import CALLER
from tests.support.est import name as subject
from tests.support.est import new_key
from tests.support.server import command, copy_installation

HOSTS = ("--host", "PKI.example.com", "--host", "192.0.2.7", "--public-url", "https://pki.example")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation with public names, and an edge that was given one of its own."""
    directory = tmp_path_factory.mktemp("edge-names") / "var"
    done("--dir", str(directory), *HOSTS, "--edge-host", "est.example.com")
    return directory


def done(*arguments: str) -> str:
    status, said = command("init", "--key-type", "ecdsa-p256", *arguments)
    assert status == 0, said
    return said


def refused(*arguments: str) -> str:
    status, said = command("init", "--key-type", "ecdsa-p256", *arguments)
    assert status == 1, said
    return said


def taken_for(name: str, certificate: Path, key: Path, anchor: Path) -> bool:
    """Whether a client that trusts `anchor` and asked for `name` believes this server."""
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate, key)
    client_side = ssl.create_default_context(cafile=str(anchor))
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_side.wrap_bio(to_client, to_server, server_hostname=name)
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
    return client.version() is not None and bool(client.getpeercert())


def edge(directory: Path) -> tuple[Path, Path, Path]:
    return directory / "est/est.crt", directory / "est/est.key", directory / "tls-ca.crt"


def test_an_owned_edge_cannot_pose_as_the_platform(made: Path) -> None:
    server = made / "tls/server.crt", made / "tls/server.key", made / "tls-ca.crt"
    for name in ("pki.example.com", "192.0.2.7", "localhost"):
        assert taken_for(name, *server), name
        assert not taken_for(name, *edge(made)), name
    assert not taken_for("pki.example", *edge(made)), "the name of the public URL"

    assert taken_for("est.example.com", *edge(made))
    assert not taken_for("est.example.com", *server)


def test_an_edge_with_a_name_asks_the_platform_by_one(made: Path) -> None:
    written = yaml.safe_load((made / "est" / "config.yml").read_text())

    assert written["est"]["upstream"] == "https://pki.example.com:8444"
    assert written["server"]["listen_address"] == "0.0.0.0"


def test_without_a_name_of_its_own_an_edge_has_loopbacks_only(tmp_path: Path) -> None:
    done("--dir", str(tmp_path / "var"), *HOSTS)

    for name in ("localhost", "127.0.0.1", "::1"):
        assert taken_for(name, *edge(tmp_path / "var")), name
    for name in ("pki.example.com", "192.0.2.7", "pki.example"):
        assert not taken_for(name, *edge(tmp_path / "var")), name


@pytest.mark.parametrize("name", ["pki.EXAMPLE.com", "192.0.2.7", "pki.example"])
def test_a_name_of_the_platforms_is_refused_before_anything_is_made(
    tmp_path: Path, name: str
) -> None:
    said = refused("--dir", str(tmp_path / "var"), *HOSTS, "--edge-host", name)

    assert "--edge-host" in said
    assert "could pose as the platform" in " ".join(said.split())
    assert not (tmp_path / "var").exists()


@pytest.mark.parametrize("name", ["pki.example.com", "192.0.2.7", "pki.example"])
def test_a_later_init_does_not_give_an_edge_such_a_name_either(
    made: Path, tmp_path: Path, name: str
) -> None:
    directory = copy_installation(made, tmp_path / "var")
    kept = (directory / "est/est.crt").read_bytes()

    said = refused("--dir", str(directory), "--edge-host", name)

    assert "could pose as the platform" in " ".join(said.split())
    assert (directory / "est/est.crt").read_bytes() == kept


def test_the_platform_takes_no_name_that_an_edge_has(made: Path, tmp_path: Path) -> None:
    directory = copy_installation(made, tmp_path / "var")

    assert "est.example.com" in refused("--dir", str(directory), "--host", "est.example.com")

    assert not taken_for("est.example.com", *(directory / f for f in SERVER_FILES))


SERVER_FILES = ("tls/server.crt", "tls/server.key", "tls-ca.crt")


def test_an_operator_who_says_so_lets_them_share(made: Path, tmp_path: Path) -> None:
    directory = copy_installation(made, tmp_path / "var")

    done("--dir", str(directory), "--edge-host", "pki.example.com", "--edge-shares-hosts")

    assert taken_for("pki.example.com", *edge(directory))


def test_a_plain_init_keeps_names_and_renews_a_revoked_edge_under_its_own(
    made: Path, tmp_path: Path
) -> None:
    directory = copy_installation(made, tmp_path / "var")
    kept = (directory / "est/est.crt").read_bytes()
    done("--dir", str(directory))
    assert (directory / "est/est.crt").read_bytes() == kept
    assert command("admin", "revoke", "est", "--dir", str(directory))[0] == 0

    done("--dir", str(directory))

    assert (directory / "est/est.crt").read_bytes() != kept
    assert taken_for("est.example.com", *edge(directory))
    assert taken_for("pki.example.com", *(directory / f for f in SERVER_FILES))


def test_an_edge_is_given_exactly_the_names_that_are_asked_for(made: Path, tmp_path: Path) -> None:
    directory = copy_installation(made, tmp_path / "var")
    done("--dir", str(directory), "--edge-host", "est.example.com", "--edge-host", "192.0.2.9")
    assert taken_for("192.0.2.9", *edge(directory))
    [more] = x509.load_pem_x509_certificates((directory / "est/est.crt").read_bytes())[:1]

    said = done("--dir", str(directory), "--edge-host", "192.0.2.9")

    assert taken_for("192.0.2.9", *edge(directory))
    assert not taken_for("est.example.com", *edge(directory))
    # who still has the one before can be shut out
    ended = f"{more.serial_number:032x}"
    assert f"lamassu admin revoke {ended}" in " ".join(said.split())
    assert command("admin", "revoke", ended, "--dir", str(directory))[0] == 0


async def test_the_host_itself_issues_no_service_such_a_name(made: Path, tmp_path: Path) -> None:
    async with wiring.opened(copy_installation(made, tmp_path / "var")) as platform:
        for name in ("pki.example.com", "192.0.2.7", "pki.example"):
            with pytest.raises(RuleViolation) as refusal:
                await platform.access.issue(
                    CredentialKind.SERVICE,
                    "est",
                    lifetime=SERVICE_LIFETIME,
                    caller=CALLER,
                    hosts=["localhost", name],
                )
            assert refusal.value.code == "hosts_shared", name


async def test_no_device_is_certified_for_a_name_of_platform_or_edge(
    made: Path, tmp_path: Path
) -> None:
    """What the internal CA names is the platform's own for every other CA too (rule 12)."""
    dns = [x509.DNSName(one) for one in ("pki.example.com", "pki.example", "est.example.com")]
    address = x509.IPAddress(ip_address("192.0.2.7"))
    async with wiring.opened(copy_installation(made, tmp_path / "var")) as platform:
        for host in (*dns, address, x509.DNSName("device.example.com")):
            builder = x509.CertificateSigningRequestBuilder().subject_name(subject("device"))
            builder = builder.add_extension(x509.SubjectAlternativeName([host]), critical=False)
            csr = builder.sign(new_key(), SHA256()).public_bytes(Encoding.DER)
            request = IssueRequest("manufacturing-ca", csr, CALLER, profile_id="device-profile")
            if host.value == "device.example.com":
                assert (await platform.ca.issue(request)).certificate
                continue
            with pytest.raises(RuleViolation) as refusal:
                await platform.ca.issue(request)
            assert refusal.value.code == "platform_name", host
