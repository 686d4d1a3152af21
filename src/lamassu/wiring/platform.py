"""Configuration becomes objects: the whole platform of one process, before anybody listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from lamassu.kernel.clock import SystemClock
from lamassu.kernel.errors import RuleViolation
from lamassu.kernel.identity import system_caller
from lamassu.platform.config import Settings, check_start
from lamassu.platform.database import SERVICES, Database, RecordWriter
from lamassu.platform.database.answer_keeper import AnswerKeeper
from lamassu.platform.installation import Installation
from lamassu.platform.messaging import EventBus
from lamassu.platform.security.process import forbid_core_dumps
from lamassu.platform.telemetry.metrics import Metrics
from lamassu.platform.worker import WorkerProcess, run_apart
from lamassu.services.access.contract import ADMIN_LIFETIME, Mode
from lamassu.services.access.storage import AccessStorage, HostFiles
from lamassu.services.access.usecases import AccessService
from lamassu.services.alerts import events as alerts_events
from lamassu.services.alerts.storage import AlertsStorage
from lamassu.services.alerts.usecases import AlertsService
from lamassu.services.ca import events as ca_events
from lamassu.services.ca.rules.imported import MOST_SECONDS, material_of
from lamassu.services.ca.storage import CaStorage
from lamassu.services.ca.usecases import CaService
from lamassu.services.ca.usecases.approvals import ApprovalDesk
from lamassu.services.ca.usecases.issuance_log import IssuanceLog
from lamassu.services.ca.usecases.replay_enrolments import replay
from lamassu.services.devices import events as devices_events
from lamassu.services.devices.storage import DeviceStorage
from lamassu.services.devices.usecases import DeviceService
from lamassu.services.dms import events as dms_events
from lamassu.services.dms.model.defaults import DmsDefaults
from lamassu.services.dms.storage import DmsStorage
from lamassu.services.dms.usecases import DmsService
from lamassu.services.kms.storage import KmsStorage
from lamassu.services.kms.usecases import KmsService
from lamassu.services.va import events as va_events
from lamassu.services.va.storage import VaStorage
from lamassu.services.va.usecases import VaService
from lamassu.services.va.usecases.filters import build as build_filter
from lamassu.wiring.asking import NO_ASKING, Asking
from lamassu.wiring.configuration import load
from lamassu.wiring.engines import open_engines
from lamassu.wiring.issuance_log import connected_log

AUDIT_KEY = "audit.key"
BOOKMARK_KEY = "bookmark.key"
START = system_caller("start")


@dataclass(frozen=True, slots=True)
class Platform:
    """Everything that one process works with."""

    installation: Installation
    settings: Settings
    mode: Mode
    database: Database
    bus: EventBus
    kms: KmsService
    access: AccessService
    ca: CaService
    va: VaService
    devices: DeviceService
    dms: DmsService
    alerts: AlertsService
    answers: AnswerKeeper
    metrics: Metrics
    issuance_log: IssuanceLog

    @property
    def admin_lifetime(self) -> timedelta:
        """How long an admin's certificate lives by default (security rule 4)."""
        return ADMIN_LIFETIME[self.mode]


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[Platform]:
    """The platform of an installation, closed at the end. Nobody listens yet, no job runs.

    Raises a `LamassuError` whose text says what to do: faults of the configuration, a database
    out of reach or of another revision, a keystore that does not open.
    """
    installation = Installation(directory)
    settings = load(installation.config)
    check_start(settings, installation.directory)
    async with AsyncExitStack() as stack:
        database = await open_database(installation, settings)
        stack.push_async_callback(database.close)
        worker = WorkerProcess()
        stack.callback(worker.close)
        platform = await _connect(installation, settings, database, worker)
        stack.push_async_callback(platform.kms.close)
        stack.push_async_callback(platform.va.close)
        yield platform


async def lower_mode(directory: Path, asking: Asking = NO_ASKING) -> None:
    """Take an installation from production to development, as its configuration says already.

    The platform itself refuses to start so (security rule 3); this is recorded. Where CAs have
    approvers these have to agree; that is asked, and raises `Deferred`, before the configuration
    is changed, because they approve over the API. Raises `RuleViolation` (`mode_not_lowered`)
    while the configuration still says production.
    """
    installation = Installation(directory)
    settings = load(installation.config)
    check_start(settings, installation.directory)
    async with AsyncExitStack() as stack:
        database = await open_database(installation, settings)
        stack.push_async_callback(database.close)
        kms = await _open_kms(installation, settings, database)
        stack.push_async_callback(kms.close)
        access = _access(settings, database, kms)
        access.approvals = ApprovalDesk(
            store=CaStorage(database), people=access, clock=SystemClock()
        )
        grounds = await asking.grounds(access, installation, {"command": "config lower-mode"})
        guarded = bool(await access.approvals.guarded_cas())
        asked_only = guarded and grounds.root_key is None and not asking.approval_id
        if Mode(settings.mode) is not Mode.DEVELOPMENT and not asked_only:
            raise RuleViolation(
                "the configuration says production, and the next start would return to it;"
                " write mode: development there first",
                code="mode_not_lowered",
                field="mode",
            )
        await access.lower_mode(caller=system_caller("lamassu config lower-mode"), grounds=grounds)


async def open_database(installation: Installation, settings: Settings) -> Database:
    """The installation's own. Raises `Unavailable`, `NotFound` (`installation_incomplete`)."""
    return await Database.open(
        settings.database_settings(installation.directory),
        services=SERVICES,
        writer=RecordWriter(installation.secret(AUDIT_KEY)),
        clock=SystemClock(),
    )


def _access(settings: Settings, database: Database, kms: KmsService) -> AccessService:
    return AccessService(
        storage=AccessStorage(database),
        keys=kms,
        files=HostFiles(),
        clock=SystemClock(),
        public_hosts=url_hosts((*settings.server.public_urls, *settings.va.public_urls)),
    )


async def _connect(
    installation: Installation, settings: Settings, database: Database, worker: WorkerProcess
) -> Platform:
    clock = SystemClock()
    metrics = Metrics()
    kms = await _open_kms(installation, settings, database, metrics)
    access = _access(settings, database, kms)
    mode = await access.settle_mode(Mode(settings.mode), caller=START)
    kms.production = mode is Mode.PRODUCTION
    ca = CaService(
        storage=CaStorage(database),
        keys=kms,
        clock=clock,
        validation_urls=settings.va.public_urls,
        default_profile_id=settings.dms.issuance_profile,
        own_hosts=await access.own_hosts(),
        people=access,
        production=mode is Mode.PRODUCTION,
        allow_cascade_delete=settings.ca.allow_cascade_delete,
        replay_worker=partial(worker.run, replay),
        platform_cas=access.trust_anchor_pem,
        material_reader=partial(run_apart, material_of, seconds=MOST_SECONDS),
        lint_sample=settings.ca.lint_sample,
        lint_meter=metrics.lint,
    )
    access.approvals = ca.approvals
    va = VaService(
        storage=VaStorage(database),
        authorities=ca,
        keys=kms,
        clock=clock,
        validation_urls=settings.va.public_urls,
        filter_worker=partial(worker.run, build_filter),
    )
    ca.revocations = va
    devices = DeviceService(store=DeviceStorage(database), office=ca, clock=clock)
    dms = DmsService(
        store=DmsStorage(database),
        authorities=ca,
        devices=devices,
        clock=clock,
        defaults=DmsDefaults(
            enrollment_ca=settings.dms.enrollment_ca,
            issuance_profile_id=settings.dms.issuance_profile,
            reserved_cas=settings.dms.bootstrap_cas,
            production=mode is Mode.PRODUCTION,
        ),
    )
    alerts = AlertsService(store=AlertsStorage(database), clock=clock)
    issuance_log = connected_log(
        installation.directory, settings, database=database, keys=kms, clock=clock
    )
    bus = EventBus(database)
    bus.follow("issuance-log", "ca", issuance_log.advance)
    ca_events.subscribe(bus, ca)
    va_events.subscribe(bus, va, authorities=ca)
    devices_events.subscribe(bus, devices)
    dms_events.subscribe(bus, dms)
    alerts_events.subscribe(bus, alerts)
    return Platform(
        installation=installation,
        settings=settings,
        mode=mode,
        database=database,
        bus=bus,
        kms=kms,
        access=access,
        ca=ca,
        va=va,
        devices=devices,
        dms=dms,
        alerts=alerts,
        answers=AnswerKeeper(database, clock),
        metrics=metrics,
        issuance_log=issuance_log,
    )


def url_hosts(urls: Sequence[str]) -> frozenset[str]:
    """The hosts in URLs, in lower case."""
    hosts = {(urlsplit(url).hostname or "").rstrip(".") for url in urls}
    return frozenset(host for host in hosts if host)


async def _open_kms(
    installation: Installation,
    settings: Settings,
    database: Database,
    metrics: Metrics | None = None,
) -> KmsService:
    """Opening a keystore takes long on purpose, so it leaves the loop."""
    forbid_core_dumps()
    kms = KmsService(
        engines=await asyncio.to_thread(open_engines, installation, settings, seal=True),
        default_engine_id=settings.crypto_engines.chosen_id,
        storage=KmsStorage(database),
        clock=SystemClock(),
        meter=None if metrics is None else metrics.engines,
    )
    await kms.start()
    return kms
