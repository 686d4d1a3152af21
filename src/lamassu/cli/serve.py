"""`lamassu serve`: start the platform, or the services that are named."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
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
    without_lost_keys: Annotated[
        bool,
        typer.Option(
            "--without-lost-keys",
            help="Start although keys of CAs are lost for good, to revoke what they signed for.",
        ),
    ] = False,
) -> None:
    """Start the platform, or only the services that are named, until SIGTERM or Ctrl-C.

    Example: lamassu serve --dir var

    Example, the EST edge in a DMZ: lamassu serve --dir est --service est
    """
    overrides = wiring.Listen(
        host=host, port=port, http_port=http_port, internal_port=internal_port
    )
    run(_serve(directory, overrides, tuple(service or ()), without_lost_keys))


async def _serve(
    directory: Path, listen: wiring.Listen, services: tuple[str, ...], without_lost_keys: bool
) -> None:
    stopping = stop_signal()
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(
            wiring.serving(directory, listen, services, without_lost_keys=without_lost_keys)
        )
        tune_interpreter()
        for line in running.addresses():
            out.print(line)
        await stopping.wait()
        out.print("stopping")


def tune_interpreter() -> None:
    """Suit CPython to one busy event loop with signing threads beside it.

    A thread that comes back from OpenSSL waits one switch interval for the loop: two threads
    sign 446 instead of 336 times a second (RSA-4096) with the shorter one. What start-up left is
    never garbage, and collecting every 700 objects takes 7 % of an enrolment.
    """
    sys.setswitchinterval(0.0005)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def stop_signal() -> asyncio.Event:
    """An event that SIGTERM or SIGINT sets."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    return stopping
