"""Listeners, jobs and readiness: from objects to a platform that answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import structlog

from lamassu.kernel.errors import RuleViolation, Unavailable
from lamassu.kernel.x509.pem import ders_of
from lamassu.platform.config import warnings
from lamassu.platform.http import Application, build_app, nobody
from lamassu.platform.http.health import Check, Spaced
from lamassu.platform.http.metrics import metrics_mount
from lamassu.platform.http.server import Listener, start
from lamassu.platform.installation import Installation
from lamassu.platform.security.process import forbid_core_dumps, raise_open_file_limit
from lamassu.platform.security.tls import (
    build_server_context,
)
from lamassu.platform.telemetry import start_logging
from lamassu.services.access.contract import Mode
from lamassu.wiring.configuration import load
from lamassu.wiring.edge import serving_edge
from lamassu.wiring.jobs import running_jobs
from lamassu.wiring.listening import (
    PORT_SETTINGS,
    Listen,
    Running,
    chosen,
    server_files,
    tls_policy,
)
from lamassu.wiring.needed_keys import check_needed_keys
from lamassu.wiring.platform import BOOKMARK_KEY, Platform, opened
from lamassu.wiring.routes import internal_mounts, public_mounts, validation_mounts

SERVICES = ("kms", "ca", "va", "dms", "devices", "alerts", "est")
OPEN_FILES = 16_384  # three listeners at their bounds, pools, files

log = structlog.get_logger(__name__)


@asynccontextmanager
async def serving(
    directory: Path, listen: Listen, services: Sequence[str], *, without_lost_keys: bool = False
) -> AsyncIterator[Running]:
    """Serve an installation, or with `services` of `est` alone an edge, until the end.

    `without_lost_keys` starts although keys are missing. Raises a `LamassuError` that says what
    to do when it cannot start.
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
        async with serving_edge(directory, listen) as running:
            yield running
    elif not services or set(services) == set(SERVICES):
        async with _serving_platform(directory, listen, without_lost_keys) as running:
            yield running
    else:
        raise RuleViolation(
            "with the in-process bus only est can run in a process of its own (--service est);"
            " any other split needs RabbitMQ, which is not built yet",
            code="split_needs_broker",
            field="service",
        )


@asynccontextmanager
async def _serving_platform(
    directory: Path, listen: Listen, without_lost_keys: bool
) -> AsyncIterator[Running]:
    settings = load(Installation(directory).config)
    if settings.est is not None:
        raise RuleViolation(
            f"{directory} is an EST edge; run: lamassu serve --dir {directory} --service est",
            code="edge_alone",
        )
    start_logging(settings.logs.level, settings.logs.format)
    for warning in warnings(settings):
        log.warning("configuration_warning", text=warning)
    async with AsyncExitStack() as stack:
        stack.enter_context(Installation(directory).served_alone())
        platform = await stack.enter_async_context(opened(directory))
        problems = await _refuse_misconfigured_engines(platform)
        if platform.mode is Mode.PRODUCTION:
            for leftover in await platform.access.leftovers_of_development():
                log.warning("leftover_of_development", text=leftover)
            for finding in await platform.kms.misplaced_ca_keys():
                log.warning("ca_keys_misplaced", text=finding)
        for engine_id, number in (await platform.kms.unclaimed(problems)).items():
            advice = f"lamassu key adopt --engine {engine_id}"
            log.warning("keys_unclaimed", engine=engine_id, keys=number, next=advice)
        for standing in await platform.kms.backups.standings():
            for warning in standing.warnings:
                log.warning("key_backup_due", text=warning)
        await check_needed_keys(platform, problems, without_lost=without_lost_keys)
        running = Running()
        listeners = await _listeners(platform, listen, running)
        await platform.bus.start()
        stack.push_async_callback(platform.bus.stop)
        await stack.enter_async_context(running_jobs(platform))
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
            [*public_mounts(platform), metrics_mount(platform.metrics, platform.kms.health)],
            authenticate=platform.access.authenticate,
            public_hosts=settings.server.public_urls,
            bookmark_key=bookmark_key,
            mode=platform.mode.value,
            checks=_checks(platform, running),
            lesser_checks=_lesser_checks(platform),
            documented=True,
            keeper=platform.answers,
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
    certificate, key = server_files(platform.installation.directory, settings)
    policy = tls_policy(settings)
    apps = applications(platform, running)
    anchors = ders_of(await platform.access.trust_anchor_pem())
    return {
        "https": Listener(
            apps["https"],
            host,
            chosen(listen.port, settings.http.port),
            build_server_context(certificate, key, policy=policy),
            setting=PORT_SETTINGS["https"],
        ),
        "http": Listener(
            apps["http"],
            host,
            chosen(listen.http_port, settings.server.http_port),
            setting=PORT_SETTINGS["http"],
        ),
        "internal": Listener(
            apps["internal"],
            host,
            chosen(listen.internal_port, settings.server.internal_port),
            build_server_context(certificate, key, policy=policy, required_anchors=anchors[:1]),
            setting=PORT_SETTINGS["internal"],
        ),
    }


def _checks(platform: Platform, running: Running) -> Mapping[str, Check]:
    """What readiness asks: database, keys, relay and listeners as they really are."""

    async def listeners() -> None:
        down = [name for name, one in running.listeners.items() if not one.listening]
        if down or len(running.listeners) < 3:
            raise Unavailable(f"listeners are missing: {', '.join(down) or 'some'}")

    return {
        "database": platform.database.check,
        "keys": _engine_check(platform, platform.settings.crypto_engines.chosen_id),
        "relay": platform.bus.check,
        "listeners": listeners,
    }


def _lesser_checks(platform: Platform) -> Mapping[str, Check]:
    """The engines beside the default one: while one is out, all that needs no key of it works."""
    engines = platform.settings.crypto_engines
    return {
        f"engine {engine_id}": _engine_check(platform, engine_id)
        for engine_id in engines.ids
        if engine_id != engines.chosen_id
    }


def _engine_check(platform: Platform, engine_id: str) -> Check:
    """An engine may be far away, or be paid by the question."""
    return Spaced(partial(platform.kms.check_engine, engine_id))


async def _refuse_misconfigured_engines(platform: Platform) -> Mapping[str, str]:
    """An engine that will never work as it is configured is told now, not at the first key.

    One that is merely out of reach is not waited for: readiness tells of it. Returns why each
    engine cannot be used, or nothing of it, so that nobody has to wait for one again. Raises
    `RuleViolation` (`engine_misconfigured`).
    """
    health = await platform.kms.health()
    for engine in health:
        if engine.problem and not engine.misconfigured:
            log.warning("engine_unusable", engine=engine.engine_id, reason=engine.problem)
    wrong = [f"  {one.engine_id}: {one.problem}" for one in health if one.misconfigured]
    if wrong:
        raise RuleViolation(
            "crypto engines cannot work as they are configured:\n" + "\n".join(wrong),
            code="engine_misconfigured",
            field="crypto_engines",
        )
    return {one.engine_id: one.problem for one in health}
