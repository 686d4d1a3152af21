"""Who may be named how, and what an internal certificate may say."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import NoReturn

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from lamassu.kernel.errors import Forbidden, RuleViolation, Unauthenticated
from lamassu.kernel.identity import PrincipalKind
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.services.access.contract import (
    Credential,
    CredentialKind,
    HeldCertificate,
    Mode,
    RootKeyProof,
)
from lamassu.services.access.model import Authority

ROOT_LIFETIME = timedelta(hours=87600)
ISSUING_LIFETIME = timedelta(hours=43800)
BACKDATING = timedelta(minutes=5)
"""How far clocks of hosts that show each other fresh certificates may differ."""

RENEWAL_GRACE = timedelta(days=30)
"""How long after its end a certificate still renews itself: its holder may be on holiday."""

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


def hosts_of(certificate: bytes) -> frozenset[str]:
    """The DNS names and addresses in a certificate (DER)."""
    extensions = x509.load_der_x509_certificate(certificate).extensions
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(map(_text, names)) - {""}


def _text(name: x509.GeneralName) -> str:
    return str(name.value) if isinstance(name, x509.DNSName | x509.IPAddress) else ""


def is_loopback(host: str) -> bool:
    """Whether this names each host for itself, so that nobody poses as another with it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_hosts_apart(
    kind: CredentialKind,
    hosts: Iterable[x509.GeneralName],
    *,
    configured: Iterable[str],
    living: Iterable[Credential],
) -> None:
    """No name of the platform's is an edge's too: whoever owns the edge could pose as it.

    `configured` are the platform's public hosts, `living` what the internal CA issued and did
    not revoke. A server's certificate may repeat what one before it said. Raises `RuleViolation`
    (`hosts_shared`).
    """
    named: dict[CredentialKind, set[str]] = {each: set() for each in CredentialKind}
    for credential in living:
        named[credential.kind] |= hosts_of(credential.der)
    wanted = set(map(_text, hosts))
    if kind is CredentialKind.SERVER:
        shared = (wanted & named[CredentialKind.SERVICE]) - named[CredentialKind.SERVER]
    else:
        shared = wanted & (named[CredentialKind.SERVER] | set(configured))
    shared = {host for host in shared if not is_loopback(host)}
    if shared:
        raise RuleViolation(
            f"{', '.join(sorted(shared))} would name the platform and an EST edge alike, and"
            " whoever owns the edge could pose as the platform; give the edge a name of its own",
            code="hosts_shared",
            field="hosts",
        )


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


def holds_key(der: bytes, key_pem: bytes) -> bool:
    """Whether this private key (PEM, not encrypted) is that of the certificate."""
    try:
        key = load_pem_private_key(key_pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return _spki(key) == certificate_facts(der).spki


def serial_number_of(held: HeldCertificate) -> str:
    """Hex, as credentials are stored. Raises `Malformed`."""
    return certificate_facts(held.der).serial_number


def check_may_renew(
    name: str,
    held: HeldCertificate,
    *,
    stored: Credential | None,
    last_revoked_at: datetime | None,
    now: datetime,
) -> None:
    """A person renews their own certificate by holding it, also for a while after its end.

    Not once they were revoked, nor with what was issued before that. Raises `Forbidden`
    (`renewal_refused`).
    """

    def refuse(why: str) -> NoReturn:
        raise Forbidden(f"this renews nothing for {name}: {why}", code="renewal_refused")

    if stored is None or stored.der != held.der or stored.kind is not CredentialKind.ADMIN:
        refuse("the certificate is none of this platform's admins")
    if stored.name != name:
        refuse(f"it is the certificate of {stored.name}")
    if not holds_key(held.der, held.key_pem):
        refuse("the private key is not the certificate's")
    issued_at = stored.not_before + BACKDATING
    if stored.revoked_at is not None or (
        last_revoked_at is not None and last_revoked_at >= issued_at
    ):
        refuse("it was revoked, or issued before its holder was")
    if now >= stored.not_after + RENEWAL_GRACE:
        refuse(f"it ended at {stored.not_after:%Y-%m-%d}, more than {RENEWAL_GRACE.days} days ago")


def check_root_key(proof: RootKeyProof, root: Authority) -> None:
    """Raises `Forbidden` (`root_key_refused`) for any key but the internal root's.

    While that key is in the keystore it is on the host with everything else, and proves nothing.
    """
    if root.key_id is not None:
        raise Forbidden(
            "the internal root's key is still on this host, where it proves nothing; take it "
            "away first: lamassu init --export-root-key FILE",
            code="root_key_refused",
        )
    try:
        key = load_pem_private_key(proof.pem, proof.passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Forbidden(
            "the file is no private key that this passphrase opens", code="root_key_refused"
        ) from None
    if _spki(key) != certificate_facts(root.der).spki:
        raise Forbidden(
            "this is not the key of the internal root that the platform has",
            code="root_key_refused",
        )


def _spki(key: PrivateKeyTypes) -> bytes:
    public = key.public_key()
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


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
