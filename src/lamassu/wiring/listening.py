"""Listeners: what the command line may change, where they ended up, and their TLS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lamassu.kernel.errors import NotFound
from lamassu.platform.config import Settings
from lamassu.platform.http.server import RunningListener
from lamassu.platform.security.tls import TlsPolicy, TlsVersion


@dataclass(frozen=True, slots=True)
class Listen:
    """What the command line says in place of the configuration; `None` leaves it."""

    host: str | None = None
    port: int | None = None
    http_port: int | None = None
    internal_port: int | None = None


@dataclass
class Running:
    """A platform, or an edge, that answers."""

    listeners: dict[str, RunningListener] = field(default_factory=dict)
    about: str = "REST APIs and EST"

    @property
    def port(self) -> int:
        """Of HTTPS."""
        return self.listeners["https"].port

    @property
    def http_port(self) -> int:
        """Of OCSP and CRLs."""
        return self.listeners["http"].port

    def addresses(self) -> Sequence[str]:
        """A line for each listener."""
        about = {
            "https": self.about,
            "http": "OCSP, CRLs, CA certificates",
            "internal": "the platform's own services, mutual TLS",
        }
        return [
            f"{'http' if name == 'http' else 'https'}://{one.host}:{one.port}  {about[name]}"
            for name, one in self.listeners.items()
        ]


PORT_SETTINGS = {
    "https": "--port, or http.port in config.yml",
    "http": "--http-port, or server.http_port in config.yml",
    "internal": "--internal-port, or server.internal_port in config.yml",
}
"""Where the port of each listener can be changed, for people."""


def server_files(directory: Path, settings: Settings) -> tuple[bytes, bytes]:
    tls = settings.http.tls
    try:
        return (directory / tls.cert_file).read_bytes(), (directory / tls.key_file).read_bytes()
    except OSError as error:
        raise NotFound(
            f"the server's TLS file {error.filename} cannot be read: {error.strerror};"
            " `lamassu init` makes it anew, http.tls in config.yml names another",
            code="tls_file_missing",
            field="http.tls",
        ) from None


def tls_policy(settings: Settings) -> TlsPolicy:
    tls = settings.http.tls
    return TlsPolicy(TlsVersion(tls.min_version), tls.cipher_suites)


def chosen(override: int | None, configured: int) -> int:
    return configured if override is None else override
