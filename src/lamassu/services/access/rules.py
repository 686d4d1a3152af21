"""Who may be named how, and what an internal certificate may say."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography import x509

from lamassu.kernel.errors import RuleViolation, Unauthenticated
from lamassu.kernel.identity import PrincipalKind
from lamassu.services.access.contract import Credential, CredentialKind, Mode

ROOT_LIFETIME = timedelta(hours=87600)
ISSUING_LIFETIME = timedelta(hours=43800)
BACKDATING = timedelta(minutes=5)
"""How far clocks of hosts that show each other fresh certificates may differ."""

HOSTS_MAX = 64
PRINCIPAL_KINDS = {
    CredentialKind.ADMIN: PrincipalKind.ADMIN,
    CredentialKind.SERVICE: PrincipalKind.SERVICE,
}
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_HOST = re.compile(r"(?!.*\.\.)[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_LABEL_LENGTH_MAX = 63


def check_credential_name(name: str) -> None:
    """Names stand in URIs, file names and audit records: a small alphabet."""
    if not _NAME.fullmatch(name):
        raise RuleViolation(
            "a name has 1 to 63 characters of a-z, 0-9, dot, dash and underscore, "
            "and begins with a letter or digit",
            code="bad_name",
            field="name",
        )


def check_lifetime(lifetime: timedelta) -> None:
    """A credential lives for some time."""
    if lifetime <= timedelta(0):
        raise RuleViolation("the lifetime must be positive", code="bad_lifetime", field="lifetime")


def host_names(kind: CredentialKind, hosts: Sequence[str]) -> list[x509.GeneralName]:
    """The names of a server, or of a service that serves too (the EST edge has one certificate
    for both its sides). An admin serves nobody. Raises `RuleViolation`."""
    least, most = {
        CredentialKind.SERVER: (1, HOSTS_MAX),
        CredentialKind.SERVICE: (0, HOSTS_MAX),
        CredentialKind.ADMIN: (0, 0),
    }[kind]
    if not least <= len(hosts) <= most:
        raise RuleViolation(
            f"the certificate of this {kind.value} names {least} to {most} hosts",
            code="bad_hosts",
            field="hosts",
        )
    return [_host_name(host) for host in dict.fromkeys(hosts)]


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    long_label = any(len(label) > _LABEL_LENGTH_MAX for label in host.split("."))
    if not _HOST.fullmatch(host) or long_label:
        raise RuleViolation(
            f"{host[:80]!r} is neither a DNS name nor an IP address",
            code="bad_hosts",
            field="hosts",
        )
    return x509.DNSName(host.lower())


def principal_uri(kind: CredentialKind, name: str) -> str:
    """What names a principal in its certificate (decision 2)."""
    return f"lamassu://{kind.value}/{name}"


def ending(now: datetime, lifetime: timedelta, *, issuer_ends: datetime) -> datetime:
    """A credential ends with its issuer at the latest. Raises `RuleViolation` if that is past."""
    if issuer_ends <= now:
        raise RuleViolation(
            f"the internal CA has expired (at {issuer_ends:%Y-%m-%d})", code="internal_ca_expired"
        )
    return min(now + lifetime, issuer_ends)


def check_stored(leaf: bytes, uris: Sequence[str], stored: Credential | None) -> Credential:
    """A leaf that the internal CA signed must be, byte for byte, one that it knows of.

    Raises `Unauthenticated`: `certificate_unknown`, `certificate_purpose`, `certificate_revoked`.
    """
    if stored is None or stored.der != leaf:
        raise Unauthenticated(
            "the internal CA has no record of this certificate", code="certificate_unknown"
        )
    if stored.kind not in PRINCIPAL_KINDS:
        raise Unauthenticated("certificate is not for clients", code="certificate_purpose")
    if list(uris) != [principal_uri(stored.kind, stored.name)]:
        raise Unauthenticated("certificate names nobody known", code="certificate_unknown")
    check_unrevoked(stored)
    return stored


def check_unrevoked(stored: Credential) -> None:
    """Raises `Unauthenticated` (`certificate_revoked`)."""
    if stored.revoked_at is not None:
        raise Unauthenticated(
            f"certificate was revoked at {stored.revoked_at:%Y-%m-%dT%H:%M:%SZ}",
            code="certificate_revoked",
        )


def settled_mode(configured: Mode, stored: Mode | None) -> Mode:
    """The mode that holds. Raises `RuleViolation` (`mode_lowered`)."""
    if stored is Mode.PRODUCTION and configured is Mode.DEVELOPMENT:
        raise RuleViolation(
            "this installation is in production; `lamassu config lower-mode` leaves it, "
            "and that is recorded",
            code="mode_lowered",
            field="mode",
        )
    return configured
