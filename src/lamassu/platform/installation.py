"""An installation is a directory: where its files lie, and its few secrets beside the keystore.

config.yml                         everything that an operator decides
admin.crt, admin.key, tls-ca.crt   what an admin's client needs
tls/server.crt, tls/server.key     the platform's own TLS
keys/                              encrypted private keys (software engine)
secrets/                           passphrase of the keystore, keys of MACs
data/lamassu.db                    the embedded database
est/                               all that an EST edge in a process of its own needs
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lamassu.kernel.errors import Conflict, NotFound
from lamassu.platform.security.private_files import (
    create_private_file,
    make_private_directory,
    replace_private_file,
)

SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class EdgeFiles:
    """The files of an EST edge; it holds no other secret than its own key."""

    directory: Path

    @property
    def config(self) -> Path:
        return self.directory / "config.yml"

    @property
    def certificate(self) -> Path:
        return self.directory / "est.crt"

    @property
    def key(self) -> Path:
        return self.directory / "est.key"

    @property
    def trust_anchor(self) -> Path:
        return self.directory / "tls-ca.crt"


@dataclass(frozen=True, slots=True)
class Installation:
    """The files below one directory."""

    directory: Path

    @property
    def config(self) -> Path:
        return self.directory / "config.yml"

    @property
    def admin_certificate(self) -> Path:
        return self.directory / "admin.crt"

    @property
    def admin_key(self) -> Path:
        return self.directory / "admin.key"

    @property
    def trust_anchor(self) -> Path:
        return self.directory / "tls-ca.crt"

    @property
    def server_certificate(self) -> Path:
        return self.directory / "tls" / "server.crt"

    @property
    def server_key(self) -> Path:
        return self.directory / "tls" / "server.key"

    @property
    def keystore(self) -> Path:
        return self.directory / "keys"

    @property
    def keystore_passphrase(self) -> Path:
        return self.directory / "secrets" / "keystore.pass"

    @property
    def database(self) -> Path:
        return self.directory / "data" / "lamassu.db"

    @property
    def edge(self) -> EdgeFiles:
        return EdgeFiles(self.directory / "est")

    @property
    def complete(self) -> bool:
        """Whether `init` came to its end: the edge's certificate is the last thing it makes."""
        return self.config.exists() and self.edge.certificate.exists()

    def make_directories(self) -> None:
        """Make what is missing, closed to others. Raises `RuleViolation` if one is open."""
        for part in (".", "tls", "keys", "secrets", "data", "est"):
            make_private_directory(self.directory / part)

    def secret(self, name: str) -> bytes:
        """A random secret of this installation, such as `audit.key`.

        Raises `NotFound` (`installation_incomplete`) when `init` has not made it.
        """
        path = self.directory / "secrets" / name
        try:
            return bytes.fromhex(path.read_text().strip())
        except FileNotFoundError:
            raise NotFound(
                f"{path} is missing; `lamassu init --dir {self.directory}` makes an installation",
                code="installation_incomplete",
            ) from None

    def make_secret(self, name: str) -> None:
        """Make a secret of 32 random bytes, written as hex, unless it is there."""
        path = self.directory / "secrets" / name
        if not path.exists():
            create_private_file(path, secrets.token_hex(SECRET_BYTES).encode() + b"\n")

    def store_credential(self, certificate: Path, chain_pem: bytes, key: Path, pem: bytes) -> None:
        """Write a certificate and its key (0600), replacing those before."""
        replace_private_file(key, pem)
        replace_private_file(certificate, chain_pem)

    @contextmanager
    def served_alone(self) -> Iterator[None]:
        """Bar a second process from serving this directory until the end of the block.

        Two would share one embedded database and tell everything twice. The lock goes with the
        process, however it ends. Raises `Conflict` (`served_already`).
        """
        descriptor = os.open(self.directory / "data" / "serve.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(
                    f"another process serves {self.directory} already; stop it first",
                    code="served_already",
                ) from None
            yield
        finally:
            os.close(descriptor)
