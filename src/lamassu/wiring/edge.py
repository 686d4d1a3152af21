"""An EST edge in a process of its own: no database, no broker, one port inwards."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx

from lamassu.kernel.errors import NotFound, Unavailable
from lamassu.platform.config import Settings
from lamassu.platform.http import build_app, nobody
from lamassu.platform.http.health import Check
from lamassu.platform.http.server import Listener, start
from lamassu.platform.installation import EdgeFiles, Installation
from lamassu.platform.security.tls import build_client_context, build_server_context
from lamassu.platform.telemetry import start_logging
from lamassu.services.dms.client import RemoteEnrollment
from lamassu.wiring.configuration import load
from lamassu.wiring.listening import (
    PORT_SETTINGS,
    Listen,
    Running,
    chosen,
    server_files,
    tls_policy,
)
from lamassu.wiring.routes import est_mounts

UPSTREAM_TIMEOUT = 25.0  # seconds


@asynccontextmanager
async def serving_edge(directory: Path, listen: Listen) -> AsyncIterator[Running]:
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
    certificate, key = server_files(files.directory, settings)
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
            chosen(listen.port, settings.http.port),
            build_server_context(certificate, key, policy=tls_policy(settings)),
            setting=PORT_SETTINGS["https"],
        )
        running = Running({"https": await start(listener)}, about="EST")
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
