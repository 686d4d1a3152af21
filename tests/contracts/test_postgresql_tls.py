"""`sslmode` and its files mean what libpq means by them, against a server that demands TLS."""

from __future__ import annotations

import datetime
import ipaddress
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from lamassu.kernel.errors import RuleViolation, Unavailable
from lamassu.platform.database import DatabaseSettings, migrate
from tests.support.postgres import USER, PostgresCluster

NOW = datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True)
class Authority:
    """A CA with nothing behind it."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(cls) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder("test CA", "test CA", key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate)

    def issue(self, folder: Path, name: str, *addresses: str) -> tuple[Path, Path]:
        """Paths of a new certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(name, "test CA", key)
        if addresses:
            names = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        certificate_path, key_path = folder / f"{name}.crt", folder / f"{name}.key"
        certificate_path.write_bytes(certificate.public_bytes(Encoding.PEM))
        key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        key_path.chmod(0o600)
        return certificate_path, key_path

    def write(self, path: Path) -> Path:
        path.write_bytes(self.certificate.public_bytes(Encoding.PEM))
        return path


def _builder(name: str, issuer: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    return (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - datetime.timedelta(hours=1))
        .not_valid_after(NOW + datetime.timedelta(hours=1))
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("postgres-tls")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.make()


@pytest.fixture(scope="module")
def secure_cluster(folder: Path, authority: Authority) -> Iterator[PostgresCluster]:
    """Speaks TLS only, and demands a client certificate of every role but `plain`."""
    try:
        cluster = PostgresCluster()
    except Exception as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))
    certificate, key = authority.issue(cluster.root, "server", "127.0.0.1")
    root = authority.write(cluster.root / "clients.crt")
    if os.geteuid() == 0:
        for path in (certificate, key, root):
            shutil.chown(path, "postgres", "postgres")
    cluster.options = (
        "ssl = on",
        f"ssl_cert_file = '{certificate}'",
        f"ssl_key_file = '{key}'",
        f"ssl_ca_file = '{root}'",
    )
    cluster.create()
    (cluster.data / "pg_hba.conf").write_text(
        f"hostssl all {USER} 127.0.0.1/32 cert\nlocal all all trust\n"
    )
    cluster.start()
    yield cluster
    cluster.remove()


@pytest.fixture
def settings(
    secure_cluster: PostgresCluster, folder: Path, authority: Authority
) -> DatabaseSettings:
    certificate, key = authority.issue(folder, USER)
    return replace(
        DatabaseSettings.from_url(secure_cluster.url()),
        sslmode="verify-full",
        sslrootcert=authority.write(folder / "root.crt"),
        sslcert=certificate,
        sslkey=key,
    )


async def connects(settings: DatabaseSettings) -> bool:
    try:
        await migrate(settings, [])
    except Unavailable:
        return False
    return True


async def test_a_client_certificate_logs_in(settings: DatabaseSettings) -> None:
    assert await connects(settings)
    assert await connects(replace(settings, sslmode="require", sslrootcert=None))


async def test_without_it_nobody_gets_in(settings: DatabaseSettings) -> None:
    assert not await connects(replace(settings, sslcert=None, sslkey=None))
    assert not await connects(replace(settings, sslmode="disable"))


async def test_a_server_of_another_ca_is_refused(settings: DatabaseSettings, folder: Path) -> None:
    other = Authority.make().write(folder / "other.crt")
    for mode in ("require", "verify-ca", "verify-full"):
        assert not await connects(replace(settings, sslmode=mode, sslrootcert=other)), mode


async def test_only_verify_full_judges_the_name(settings: DatabaseSettings) -> None:
    elsewhere = replace(settings, host="localhost")  # the certificate says 127.0.0.1
    assert await connects(replace(elsewhere, sslmode="verify-ca"))
    assert not await connects(elsewhere)


async def test_files_that_cannot_be_used_are_named(
    settings: DatabaseSettings, folder: Path
) -> None:
    with pytest.raises(RuleViolation):
        await migrate(replace(settings, sslrootcert=folder / "absent.crt"), [])
    assert settings.sslcert is not None
    with pytest.raises(RuleViolation):
        await migrate(replace(settings, sslkey=settings.sslcert), [])
