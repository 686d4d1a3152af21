"""What Vault says, in the words of the platform.

Nothing of its texts passes: some repeat what was sent, secret ids among it.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence

from lamassu.kernel.errors import Unavailable
from lamassu.services.kms.engines.vault.access import VaultAccess
from lamassu.services.kms.engines.vault.wire import BrokenOff
from lamassu.services.kms.ports import EngineDown, EngineRefused


class VaultAnswer(Unavailable):
    """Vault answered with an error. Whoever asked says what it means there."""

    default_code = "engine_failing"

    def __init__(
        self, who: str, status: int, errors: Sequence[str], *, path: str, token: str | None
    ) -> None:
        super().__init__(
            f"{who} answered {status} to {path}; if it lasts, look into Vault's own log",
            retry_after=5,
        )
        self.status = status
        self.path = path
        self.token = token  # the one that was sent
        self._errors = tuple(errors)

    def says(self, *texts: str) -> bool:
        """Whether one of these stands in what Vault says."""
        return any(text in error for text in texts for error in self._errors)


def unheard(access: VaultAccess, error: OSError) -> EngineDown:
    """No answer came."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _untrusted(access, error.verify_message.lower())
    if isinstance(error, TimeoutError):
        return timed_out(access)
    if isinstance(error, ssl.SSLError):
        return EngineDown(
            f"{access.who}: no TLS session comes about; does its listener speak TLS 1.2 or later?",
            code="engine_tls",
            retry_after=10,
        )
    if isinstance(error, socket.gaierror):
        return EngineDown(
            f"{access.who}: the name cannot be resolved; correct `address`, or this host's"
            " name server",
            retry_after=10,
        )
    if isinstance(error, BrokenOff):
        return EngineDown(
            f"{access.who} broke the connection off; is it restarting, and does its listener speak"
            f" {access.url.partition(':')[0]}?",
            retry_after=5,
        )
    return EngineDown(
        f"{access.who} cannot be reached; start it, or correct `address` and the network",
        retry_after=5,
    )


def _untrusted(access: VaultAccess, reason: str) -> EngineRefused:
    return EngineRefused(
        f"{access.who}: its certificate is not trusted ({reason}); name the CA of its listener in"
        " `ca_cert_file`, and the host as in its certificate",
        code="engine_untrusted",
    )


def timed_out(access: VaultAccess) -> EngineDown:
    """The time is over."""
    return EngineDown(
        f"{access.who} did not answer in time; is it overloaded, or a firewall between?",
        code="engine_timeout",
        retry_after=5,
    )


def mount_gone(access: VaultAccess, path: str) -> EngineRefused:
    """Vault knows no mount for a path that it should serve."""
    return EngineRefused(
        f"{access.who} has no mount for {path}; was it disabled, or moved? Restore it from a backup"
        " of Vault, or correct `mount_path` and `secrets_mount_path`",
        code="mount_missing",
    )


def unreadable(access: VaultAccess) -> EngineDown:
    """What came back is none of Vault's answers."""
    return EngineDown(
        f"{access.who} ends connections, or answers what cannot be read; is it Vault, or a proxy"
        " between?",
        code="engine_unreadable",
        retry_after=5,
    )


def denied(access: VaultAccess, path: str) -> EngineRefused:
    """The token is good, and the role's policy does not allow this."""
    return EngineRefused(
        f"{access.who}: the policy of the AppRole does not allow {path}; write it as the how-to"
        " page on Vault shows",
        code="access_denied",
    )


def failing(access: VaultAccess, answer: VaultAnswer) -> EngineDown:
    """A 3xx, 5xx or 429 that is no state of the seal, and any other that was not expected."""
    if answer.status == 429:
        return EngineDown(
            f"{access.who} limits the rate of requests; raise its quota if that lasts",
            code="engine_throttled",
            retry_after=2,
        )
    if answer.status < 400 or answer.says("active cluster node not found", "standby"):
        return EngineDown(
            f"{access.who} is a standby, and no node of its cluster is active; wait for the"
            " election, or unseal the others",
            code="engine_standby",
            retry_after=5,
        )
    return EngineDown(
        f"{access.who} fails ({answer.status}); look into its own log",
        code="engine_failing",
        retry_after=5,
    )
