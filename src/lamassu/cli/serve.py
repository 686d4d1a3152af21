"""`lamassu serve`: start the platform, or the services that are named."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import typer

from lamassu import wiring
from lamassu.cli.options import DEFAULT_DIRECTORY, Directory, out, run


def serve(
    directory: Directory = DEFAULT_DIRECTORY,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="HTTPS port: REST APIs and EST.")] = None,
    http_port: Annotated[int | None, typer.Option(help="HTTP port: OCSP and CRLs only.")] = None,
    internal_port: Annotated[
        int | None, typer.Option(help="Port for the platform's own services (mutual TLS).")
    ] = None,
    service: Annotated[
        list[str] | None, typer.Option(help="Start only this service (repeatable).")
    ] = None,
) -> None:
    """Start the platform, or only the services that are named, until SIGTERM or Ctrl-C.

    Example: lamassu serve --dir var

    Example, the EST edge in a DMZ: lamassu serve --dir est --service est
    """
    overrides = wiring.Listen(
        host=host, port=port, http_port=http_port, internal_port=internal_port
    )
    run(_serve(directory, overrides, tuple(service or ())))


async def _serve(directory: Path, listen: wiring.Listen, services: tuple[str, ...]) -> None:
    stopping = stop_signal()
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(wiring.serving(directory, listen, services))
        for line in running.addresses():
            out.print(line)
        await stopping.wait()
        out.print("stopping")


def stop_signal() -> asyncio.Event:
    """An event that SIGTERM or SIGINT sets."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    return stopping
