"""`lamassu init`: from an empty folder to an installation that can be served."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from lamassu.kernel.clock import SystemClock
from lamassu.kernel.errors import Conflict, Forbidden, LamassuError, RuleViolation, Unavailable
from lamassu.kernel.identity import system_caller
from lamassu.kernel.x509.facts import CertificateFacts, certificate_facts
from lamassu.kernel.x509.pem import ders_of
from lamassu.platform.config import Choices, Settings, edge_template, platform_template
from lamassu.platform.config.yaml_input import read
from lamassu.platform.database import SERVICES, migrate
from lamassu.platform.database.dialect import Dialect
from lamassu.platform.installation import Installation
from lamassu.platform.security.private_files import (
    create_private_file,
    make_private_directory,
    replace_private_file,
    sync_directory,
)
from lamassu.services.access.contract import (
    SERVER_LIFETIME,
    SERVICE_LIFETIME,
    CredentialKind,
    Grounds,
    IssuedCredential,
    Mode,
)
from lamassu.services.access.rules import hosts_of, is_loopback
from lamassu.wiring.asking import held_certificate
from lamassu.wiring.configuration import load
from lamassu.wiring.founding import KeyType, found_pki, is_founded
from lamassu.wiring.platform import AUDIT_KEY, BOOKMARK_KEY, Platform, opened, url_hosts
from lamassu.wiring.root_key import RootKeyPlaces, prepare_export

CALLER = system_caller("lamassu init")
FIRST_ADMIN = "admin"
EDGE_SERVICE = "est"
LOOPBACK = "127.0.0.1"
ANY_ADDRESS = "0.0.0.0"  # noqa: S104  only where --host or --edge-host asks for it
DATABASE_URL = "secrets/database.url"
MAX_PORT = 65535
_HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*")
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Plan:
    """What an operator asks of `init`. `hosts` are names and addresses beside the local ones:
    with any, the platform listens beyond loopback. `edge_hosts` are an EST edge's own; the
    platform's are among them only if `edge_shares_hosts`."""

    directory: Path
    hosts: Sequence[str] = ()
    port: int = 8443
    http_port: int = 8080
    internal_port: int = 8444
    public_url: str | None = None
    database: str | None = None
    key_type: KeyType = KeyType.RSA_4096
    root_key: RootKeyPlaces | None = None
    edge_hosts: Sequence[str] = ()
    edge_shares_hosts: bool = False
    crypto_engines: Path | None = None  # a YAML file with that one section


async def install(
    plan: Plan, tell: Callable[[str], None], reveal: Callable[[str], None] | None = None
) -> None:
    """Make what is missing; an installation that is whole stays as it is.

    `tell` is given a line for each part; `reveal` the passphrase of an exported root key, to be
    shown once (absent: there is no terminal). Raises a `LamassuError` that says what to do next.
    """
    _judge_names(plan)
    installation = Installation(plan.directory)
    kept = installation.config.exists()
    if kept:
        _judge_founding(load(installation.config), installation.directory)
    await asyncio.to_thread(_make_files, installation, plan)
    tell(
        f"configuration: {installation.config}"
        + (" (was there and stays; change it to change ports, names or the database)" * kept)
    )
    settings = load(installation.config)
    await asyncio.to_thread(_make_passphrase, installation, settings)
    database = settings.database_settings(installation.directory)
    if database.dialect is Dialect.POSTGRESQL:
        try:
            await migrate(database, SERVICES)
        except Unavailable as error:
            raise Unavailable(
                f"{error.text}; a wrong address is corrected in {_database_place(installation)}",
                code=error.code,
            ) from error
    async with opened(plan.directory) as platform:
        if platform.mode is Mode.PRODUCTION and not await is_founded(platform.ca):
            _check_founding_engine(settings)
        await _establish_internal_ca(platform, plan, tell, reveal)
        await found_pki(platform.ca, platform.dms, key_type=plan.key_type, tell=tell)
        await platform.bus.start()
        await platform.bus.drained()  # roles and first CRLs of the new CAs
        await platform.bus.stop()
        await _issue_credentials(platform, plan, tell)


def _judge_founding(settings: Settings, directory: Path) -> None:
    """Before anything is made of a configuration that was there: CAs need a place for their keys.

    A database that may hold them already is asked once it is open. Raises `RuleViolation`.
    """
    database = settings.database_settings(directory)
    if settings.mode == "production" and database.path is not None and not database.path.exists():
        _check_founding_engine(settings)


def _check_founding_engine(settings: Settings) -> None:
    engines = settings.crypto_engines
    if engines.chosen.for_ca_keys:
        return
    others = [engine.id for engine in engines.all if engine.for_ca_keys]
    advice = (
        f"set crypto_engines.default_id to one of {', '.join(others)}"
        if others
        else "configure an HSM (pkcs11), hashicorp_vault or aws_kms under crypto_engines"
    )
    raise RuleViolation(
        f"production makes no keys of CAs in engine {engines.chosen_id} ({engines.chosen.kind}): "
        f"nothing was founded; {advice}, or found this installation with mode: development",
        code="engine_not_for_ca_keys",
        field="crypto_engines.default_id",
    )


def _database_place(installation: Installation) -> Path:
    """The file that holds the database's address."""
    own = installation.directory / DATABASE_URL
    return own if own.exists() else installation.config


def _make_files(installation: Installation, plan: Plan) -> None:
    if not installation.config.exists():
        _judge_options(plan)
    installation.make_directories()
    installation.make_secret(AUDIT_KEY)
    installation.make_secret(BOOKMARK_KEY)
    if not installation.config.exists():
        choices = _choices(plan)
        if plan.database is not None and urlsplit(plan.database).password:
            # A password stands in a file of its own, so that the configuration can be shown.
            path = installation.directory / DATABASE_URL
            replace_private_file(path, plan.database.encode() + b"\n")
            choices = replace(choices, database_url=f"${{file:{DATABASE_URL}}}")
        if plan.crypto_engines is not None:
            choices = replace(choices, crypto_engines=_engines_of(plan.crypto_engines))
        _create_configuration(installation, platform_template(choices))


def _engines_of(path: Path) -> str:
    """The section `crypto_engines`, as it stands in a file of its own.

    Raises `ConfigurationFaults`, `RuleViolation` (`option_refused`).
    """
    if list(read(path).values) != ["crypto_engines"]:
        _refuse("crypto-engines", f"{path} is to hold the section crypto_engines and no other")
    return path.read_text("utf-8")


def _create_configuration(installation: Installation, text: str) -> None:
    """Write the configuration once it reads well: a faulty one would stay."""
    draft = installation.config.with_suffix(".draft")
    replace_private_file(draft, text.encode())
    try:
        load(draft)
        draft.replace(installation.config)
    finally:
        draft.unlink(missing_ok=True)
    sync_directory(installation.directory)


def _make_passphrase(installation: Installation, settings: Settings) -> None:
    """The keystore's, if it is to lie in its usual place; an operator's own is the operator's."""
    place = installation.keystore_passphrase
    configured = {
        installation.directory / engine.passphrase_file
        for engine in settings.crypto_engines.software
    }
    if place in configured and not place.exists():
        create_private_file(place, secrets.token_urlsafe(32).encode() + b"\n")


def _judge_options(plan: Plan) -> None:
    """Refuse options that would make a configuration that cannot start: it would stay.

    Raises `RuleViolation` (`option_refused`).
    """
    ports = (plan.port, plan.http_port, plan.internal_port)
    if not all(0 <= port <= MAX_PORT for port in ports):
        _refuse("port", f"ports are 1 to {MAX_PORT}, or 0 for a free one")
    given = [port for port in ports if port]
    if len(set(given)) < len(given):
        _refuse("port", "--port, --http-port and --internal-port are to differ")
    url = urlsplit(plan.public_url or "https://localhost")
    if url.scheme != "https" or not url.hostname or url.path.strip("/"):
        _refuse("public-url", f"{plan.public_url!r} is not of the form https://name:port")
    database = urlsplit(plan.database or "sqlite:///")
    if database.scheme not in ("sqlite", "postgresql"):
        _refuse("database", "it begins with sqlite:/// or postgresql://")


def _judge_names(plan: Plan) -> None:
    """Names are names, and the edge's are its own. Raises `RuleViolation` (`option_refused`)."""
    _judge_hosts("host", plan.hosts)
    _judge_hosts("edge-host", plan.edge_hosts)
    urls = () if plan.public_url is None else (plan.public_url,)
    platforms = {*map(_normal, plan.hosts), *url_hosts(urls)}
    shared = [
        host
        for host in map(_normal, plan.edge_hosts)
        if host in platforms and not is_loopback(host)
    ]
    if shared and not plan.edge_shares_hosts:
        _refuse(
            "edge-host",
            f"{', '.join(shared)} is the platform's too, and whoever owns the edge could pose as"
            " the platform; give the edge a name of its own, or say --edge-shares-hosts",
        )


def _judge_hosts(option: str, hosts: Sequence[str]) -> None:
    for host in hosts:
        if not _HOST.fullmatch(host) and not _is_address(host):
            _refuse(option, f"{host!r} is neither a DNS name nor an IP address")


def _refuse(option: str, text: str) -> NoReturn:
    raise RuleViolation(f"--{option}: {text}", code="option_refused")


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _normal(host: str) -> str:
    """As a certificate spells it."""
    return str(ip_address(host)) if _is_address(host) else host.lower()


def _choices(plan: Plan) -> Choices:
    name = plan.hosts[0] if plan.hosts else "localhost"
    urls = [f"https://{_in_url(name)}:{plan.port}"]
    if plan.hosts:
        urls.append(f"https://localhost:{plan.port}")
    if plan.public_url is not None:
        urls.insert(0, plan.public_url.rstrip("/"))
    return Choices(
        listen_address=ANY_ADDRESS if plan.hosts else LOOPBACK,
        port=plan.port,
        http_port=plan.http_port,
        internal_port=plan.internal_port,
        public_urls=tuple(dict.fromkeys(urls)),
        # By address where no name was given: linters take a bare "localhost" for no host.
        validation_urls=(f"http://{_in_url(name if plan.hosts else LOOPBACK)}:{plan.http_port}",),
        database_url=plan.database or "sqlite:///data/lamassu.db",
    )


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


async def _establish_internal_ca(
    platform: Platform,
    plan: Plan,
    tell: Callable[[str], None],
    reveal: Callable[[str], None] | None,
) -> None:
    export = None
    movable = await platform.kms.default_gives_out_keys()
    here = movable and await platform.access.holds_root_key()
    if plan.root_key is not None and here:
        folder = platform.installation.directory
        export = await asyncio.to_thread(prepare_export, plan.root_key, folder, reveal)
    elif platform.mode is Mode.PRODUCTION and here:
        raise RuleViolation(
            "in production the internal root's key leaves this host: name a file on a medium"
            " that you take away, with --export-root-key",
            code="root_key_stays",
            field="export_root_key",
        )
    await platform.access.establish(caller=CALLER, export_root_key_to=export)
    tell("internal CA: platform TLS, services, admins")
    if export is not None:
        tell(f"internal root key: {export.path}; take it off this host, apart from its passphrase")
    elif plan.root_key is not None and movable:
        tell("internal root key: it left this host before")
    elif plan.root_key is not None:
        tell("internal root key: it stays in its engine, which gives no keys out")


async def _issue_credentials(platform: Platform, plan: Plan, tell: Callable[[str], None]) -> None:
    """Certificates of the server, the first admin and the EST edge: missing or nearly over."""
    files = platform.installation
    access = platform.access
    anchor = await access.trust_anchor_pem()
    await asyncio.to_thread(files.trust_anchor.write_bytes, anchor)
    revoked = {one.serial_number for one in await access.list() if one.revoked_at is not None}
    before = await asyncio.to_thread(_Before.of, files.server_certificate)
    hosts = tuple(dict.fromkeys((*LOCAL_NAMES, *map(_normal, plan.hosts), *sorted(before.hosts))))
    if before.is_due(revoked) or not before.hosts.issuperset(map(_normal, plan.hosts)):
        server = await access.issue(
            CredentialKind.SERVER,
            "server",
            lifetime=SERVER_LIFETIME,
            caller=CALLER,
            hosts=hosts,
            shares_hosts=plan.edge_shares_hosts,
        )
        await asyncio.to_thread(
            files.store_credential,
            files.server_certificate,
            server.chain_pem,
            files.server_key,
            server.key_pem,
        )
    if (await asyncio.to_thread(_Before.of, files.admin_certificate)).is_due(revoked):
        # an approver renews by holding what they had; a lost one is `lamassu admin issue`'s
        held = await asyncio.to_thread(held_certificate, files.admin_certificate, files.admin_key)
        try:
            admin = await access.issue(
                CredentialKind.ADMIN,
                FIRST_ADMIN,
                lifetime=platform.admin_lifetime,
                caller=CALLER,
                grounds=Grounds(renews=held),
            )
        except Forbidden as refusal:
            tell(f"admin: {files.admin_certificate} stays as it is; {refusal.text}")
        else:
            await asyncio.to_thread(
                files.store_credential,
                files.admin_certificate,
                admin.chain_pem,
                files.admin_key,
                admin.key_pem,
            )
            tell(f"admin: {files.admin_certificate}, until {admin.credential.not_after:%Y-%m-%d}")
    before = await asyncio.to_thread(_Before.of, files.edge.certificate)
    asked = frozenset(map(_normal, plan.edge_hosts))
    names = sorted(asked or before.hosts or LOCAL_NAMES)
    if before.is_due(revoked) or (asked and asked != before.hosts):
        edge = await access.issue(
            CredentialKind.SERVICE,
            EDGE_SERVICE,
            lifetime=SERVICE_LIFETIME,
            caller=CALLER,
            hosts=names,
            shares_hosts=plan.edge_shares_hosts,
        )
        await asyncio.to_thread(_store_edge, platform, edge, anchor, hosts)
        tell(f"EST edge: {files.edge.directory}, reached as {', '.join(names)}")
        if before.facts is not None and not before.is_due(revoked):
            tell(
                f"EST edge: the certificate before is good until {before.facts.not_after:%Y-%m-%d};"
                " once the new one is in its place: lamassu admin revoke"
                f" {before.facts.serial_number}"
            )


@dataclass(frozen=True, slots=True)
class _Before:
    """The certificate that a file holds, if any."""

    facts: CertificateFacts | None
    hosts: frozenset[str]

    @classmethod
    def of(cls, path: Path) -> _Before:
        try:
            der = ders_of(path.read_bytes())[0]
        except FileNotFoundError:
            return cls(None, frozenset())
        return cls(certificate_facts(der), hosts_of(der))

    def is_due(self, revoked: Collection[str]) -> bool:
        """Whether it is missing, revoked or in the last third of its life."""
        if self.facts is None or self.facts.serial_number in revoked:
            return True
        left = self.facts.not_after - SystemClock().now()
        return left * 3 < self.facts.not_after - self.facts.not_before


def _store_edge(
    platform: Platform, issued: IssuedCredential, anchor: bytes, platform_hosts: Sequence[str]
) -> None:
    edge = platform.installation.edge
    platform.installation.store_credential(
        edge.certificate, issued.chain_pem, edge.key, issued.key_pem
    )
    edge.trust_anchor.write_bytes(anchor)
    if not edge.config.exists():
        settings = platform.settings
        # An edge with names of its own is to stand on a host of its own.
        remote = not all(map(is_loopback, hosts_of(ders_of(issued.chain_pem)[0])))
        inside = [host for host in platform_hosts if not is_loopback(host)] if remote else []
        upstream = _in_url([*inside, "localhost"][0])
        text = edge_template(
            port=settings.http.port,
            upstream=f"https://{upstream}:{settings.server.internal_port}",
            listen_address=ANY_ADDRESS if remote else settings.server.listen_address,
        )
        create_private_file(edge.config, text.encode())


def check_place(folder: Path, name: str) -> None:
    """Make the folder for an admin's files, and see that none of them is there already.

    Raises `Conflict` (`file_exists`) or `OSError`.
    """
    _make_folder(folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    for path in _places(folder, name):
        if path.exists():
            raise Conflict(
                f"{path} is there already and stays; name another folder with --to, or remove it",
                code="file_exists",
            )


def _make_folder(folder: Path) -> None:
    try:
        make_private_directory(folder)
    except LamassuError:
        # Somebody's own folder may be open to others: the key's file is not.
        folder.mkdir(parents=True, exist_ok=True)


def _places(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.crt", folder / f"{name}.key"


def store_credential(folder: Path, name: str, issued: IssuedCredential) -> tuple[Path, Path]:
    """Write `NAME.crt` and `NAME.key` for an admin; an existing key is not overwritten."""
    _make_folder(folder)
    certificate, key = _places(folder, name)
    create_private_file(key, issued.key_pem)
    create_private_file(certificate, issued.chain_pem)
    return certificate, key
