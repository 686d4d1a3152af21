"""Listeners, jobs and readiness: from objects to a platform that answers."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx
import structlog

from lamassu.kernel.clock import SystemClock
from lamassu.kernel.errors import LamassuError, NotFound, RuleViolation, Unavailable
from lamassu.kernel.x509.pem import ders_of
from lamassu.platform.config import Settings, load, warnings
from lamassu.platform.http import Application, build_app, nobody
from lamassu.platform.http.health import Check
from lamassu.platform.http.server import Listener, RunningListener, start
from lamassu.platform.installation import EdgeFiles, Installation
from lamassu.platform.security.process import forbid_core_dumps, raise_open_file_limit
from lamassu.platform.security.tls import (
    TlsPolicy,
    TlsVersion,
    build_client_context,
    build_server_context,
)
from lamassu.platform.telemetry import start_logging
from lamassu.services.dms.client import RemoteEnrollment
from lamassu.wiring.platform import BOOKMARK_KEY, Platform, opened
from lamassu.wiring.routes import est_mounts, internal_mounts, public_mounts, validation_mounts

SERVICES = ("kms", "ca", "va", "dms", "devices", "alerts", "est")
JOB_INTERVAL = 60.0  # seconds
UPSTREAM_TIMEOUT = 25.0
OPEN_FILES = 16_384  # three listeners at their bounds, pools, files

log = structlog.get_logger(__name__)


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
            "https": "REST APIs and EST",
            "http": "OCSP, CRLs, CA certificates",
            "internal": "the platform's own services, mutual TLS",
        }
        return [
            f"{'http' if name == 'http' else 'https'}://{one.host}:{one.port}  {about[name]}"
            for name, one in self.listeners.items()
        ]


@asynccontextmanager
async def serving(
    directory: Path, listen: Listen, services: Sequence[str]
) -> AsyncIterator[Running]:
    """Serve an installation, or with `services` of `est` alone an edge, until the end.

    Raises a `LamassuError` that says what to do when it cannot start.
    """
    forbid_core_dumps()
    raise_open_file_limit(OPEN_FILES)
    unknown = set(services) - set(SERVICES)
    if unknown:
        raise RuleViolation(
            f"no service is called {', '.join(sorted(unknown))}; there are {', '.join(SERVICES)}",
            code="unknown_service",
            field="service",
        )
    if tuple(services) == ("est",):
        async with _serving_edge(directory, listen) as running:
            yield running
    elif not services or set(services) == set(SERVICES):
        async with _serving_platform(directory, listen) as running:
            yield running
    else:
        raise RuleViolation(
            "with the in-process bus only est can run in a process of its own (--service est);"
            " any other split needs RabbitMQ, which is not built yet",
            code="split_needs_broker",
            field="service",
        )


@asynccontextmanager
async def _serving_platform(directory: Path, listen: Listen) -> AsyncIterator[Running]:
    settings = load(Installation(directory).config)
    start_logging(settings.logs.level, settings.logs.format)
    for warning in warnings(settings):
        log.warning("configuration_warning", text=warning)
    async with AsyncExitStack() as stack:
        platform = await stack.enter_async_context(opened(directory))
        running = Running()
        listeners = await _listeners(platform, listen, running)
        await platform.bus.start()
        stack.push_async_callback(platform.bus.stop)
        await stack.enter_async_context(_jobs(platform))
        for name, listener in listeners.items():
            running.listeners[name] = await start(listener)
            stack.push_async_callback(running.listeners[name].stop)
        yield running


def applications(platform: Platform, running: Running) -> Mapping[str, Application]:
    """What answers on each listener, with all that was ever mounted there."""
    settings = platform.settings
    bookmark_key = platform.installation.secret(BOOKMARK_KEY)
    return {
        "https": build_app(
            public_mounts(platform),
            authenticate=platform.access.authenticate,
            public_hosts=settings.server.public_urls,
            bookmark_key=bookmark_key,
            mode=platform.mode.value,
            checks=_checks(platform, running),
            documented=True,
            certificate_required=settings.http.client_auth.required,
        ),
        "http": build_app(
            validation_mounts(platform),
            authenticate=nobody,
            public_hosts=settings.va.public_urls,
            bookmark_key=bookmark_key,
        ),
        "internal": build_app(
            internal_mounts(platform),
            authenticate=platform.access.authenticate,
            public_hosts=(),
            bookmark_key=bookmark_key,
        ),
    }


async def _listeners(
    platform: Platform, listen: Listen, running: Running
) -> Mapping[str, Listener]:
    settings = platform.settings
    host = listen.host or settings.server.listen_address
    certificate, key = _server_files(platform.installation.directory, settings)
    policy = _policy(settings)
    apps = applications(platform, running)
    anchors = ders_of(await platform.access.trust_anchor_pem())
    return {
        "https": Listener(
            apps["https"],
            host,
            _chosen(listen.port, settings.http.port),
            build_server_context(certificate, key, policy=policy),
        ),
        "http": Listener(apps["http"], host, _chosen(listen.http_port, settings.server.http_port)),
        "internal": Listener(
            apps["internal"],
            host,
            _chosen(listen.internal_port, settings.server.internal_port),
            build_server_context(certificate, key, policy=policy, required_anchors=anchors[:1]),
        ),
    }


@asynccontextmanager
async def _serving_edge(directory: Path, listen: Listen) -> AsyncIterator[Running]:
    files = EdgeFiles(directory)
    settings = load(files.config)
    start_logging(settings.logs.level, settings.logs.format)
    if settings.est is None:
        # The whole installation is here: its own edge folder tells how to ask its inside.
        files = Installation(directory).edge
        settings = load(files.config)
    if settings.est is None:
        raise NotFound(
            f"{files.config} has no section est: it says where an edge asks",
            code="edge_unconfigured",
            field="est",
        )
    certificate, key = _server_files(files.directory, settings)
    async with _upstream(files, settings, listen) as client:
        enrollment = RemoteEnrollment(client)
        app = build_app(
            est_mounts(enrollment),
            authenticate=nobody,
            public_hosts=settings.server.public_urls,
            bookmark_key=secrets.token_bytes(32),  # an edge lists nothing
            checks={"upstream": _upstream_check(client)},
            certificate_required=settings.http.client_auth.required,
        )
        listener = Listener(
            app,
            listen.host or settings.server.listen_address,
            _chosen(listen.port, settings.http.port),
            build_server_context(certificate, key, policy=_policy(settings)),
        )
        running = Running({"https": await start(listener)})
        try:
            yield running
        finally:
            await running.listeners["https"].stop()


@asynccontextmanager
async def _upstream(
    files: EdgeFiles, settings: Settings, listen: Listen
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the internal port; `--internal-port` replaces the port that is configured."""
    assert settings.est is not None  # the caller asked
    url = settings.est.upstream
    if listen.internal_port is not None:
        parts = urlsplit(url)
        url = urlunsplit(parts._replace(netloc=f"{parts.hostname}:{listen.internal_port}"))
    context = build_client_context(
        ca_file=files.directory / settings.est.ca_file,
        cert_file=files.directory / settings.est.cert_file,
        key_file=files.directory / settings.est.key_file,
    )
    async with httpx.AsyncClient(
        base_url=url, verify=context, timeout=UPSTREAM_TIMEOUT, trust_env=False
    ) as client:
        yield client


def _upstream_check(client: httpx.AsyncClient) -> Check:
    async def check() -> None:
        try:
            # Any answer will do: the handshake and the inside are there.
            await client.get("/health/live")
        except httpx.TransportError as error:
            raise Unavailable(f"the inside cannot be reached: {error}") from None

    return check


def _checks(platform: Platform, running: Running) -> Mapping[str, Check]:
    """What readiness asks: database, keys, relay and listeners as they really are."""

    async def keys() -> None:
        if not platform.kms.healthy():
            raise Unavailable("the default crypto engine cannot be used")

    async def listeners() -> None:
        down = [name for name, one in running.listeners.items() if not one.listening]
        if down or len(running.listeners) < 3:
            raise Unavailable(f"listeners are missing: {', '.join(down) or 'some'}")

    return {
        "database": platform.database.check,
        "keys": keys,
        "relay": platform.bus.check,
        "listeners": listeners,
    }


@asynccontextmanager
async def _jobs(platform: Platform) -> AsyncIterator[None]:
    """Cascades as they come; refresh of CRLs and the reaper each minute."""
    clock = SystemClock()

    async def refresh() -> object:
        return await platform.va.refresh_due(clock.now())

    async def every_minute() -> None:
        while True:
            await _attempt("refresh_crls", refresh)
            await _attempt("reap_unbound", platform.dms.reap)
            await asyncio.sleep(JOB_INTERVAL)

    async def cascades() -> None:
        while True:
            await _attempt("revoke_cascades", platform.ca.run_jobs)
            with suppress(TimeoutError):
                await asyncio.wait_for(platform.ca.jobs_pending.wait(), JOB_INTERVAL)
            platform.ca.jobs_pending.clear()

    tasks = [asyncio.create_task(every_minute()), asyncio.create_task(cascades())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _attempt(name: str, job: Callable[[], Awaitable[object]]) -> None:
    try:
        await job()
    except LamassuError as error:
        log.warning("job_failed", job=name, reason=error.text)
    except Exception:
        # The next round tries again; a job must not end the platform.
        log.exception("job_failed", job=name)


def _server_files(directory: Path, settings: Settings) -> tuple[bytes, bytes]:
    tls = settings.http.tls
    try:
        return (directory / tls.cert_file).read_bytes(), (directory / tls.key_file).read_bytes()
    except OSError as error:
        raise NotFound(
            f"the server's TLS file {error.filename} cannot be read: {error.strerror}",
            code="tls_file_missing",
            field="http.tls",
        ) from None


def _policy(settings: Settings) -> TlsPolicy:
    tls = settings.http.tls
    return TlsPolicy(TlsVersion(tls.min_version), tls.cipher_suites)


def _chosen(override: int | None, configured: int) -> int:
    return configured if override is None else override
