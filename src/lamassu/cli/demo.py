"""`lamassu demo`: make an installation if there is none, start it, walk a device's life."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from lamassu import wiring
from lamassu.cli import init, serve, walk
from lamassu.cli.options import DEFAULT_DIRECTORY, Directory, err, out, run
from lamassu.platform.installation import Installation


def demo(
    directory: Directory = DEFAULT_DIRECTORY,
    leave: Annotated[
        bool, typer.Option("--exit", help="End after the walk instead of staying up.")
    ] = False,
    port: Annotated[int | None, typer.Option(help="HTTPS port.")] = None,
    http_port: Annotated[int | None, typer.Option(help="HTTP port of OCSP and CRLs.")] = None,
    internal_port: Annotated[int | None, typer.Option(help="Port for an EST edge.")] = None,
) -> None:
    """Walk one device through its life on a real server, printing each command.

    Example: lamassu demo --exit
    """
    listen = wiring.Listen(port=port, http_port=http_port, internal_port=internal_port)
    run(_demo(directory.absolute(), leave, listen))


async def _demo(directory: Path, leave: bool, listen: wiring.Listen) -> None:
    if not Installation(directory).complete:
        await init.found(
            wiring.Plan(
                directory=directory,
                port=listen.port or 8443,
                http_port=listen.http_port or 8080,
                internal_port=listen.internal_port or 8444,
            )
        )
    stopping = serve.stop_signal()
    async with wiring.serving(directory, listen, ()) as running:
        place = walk.Place(
            directory=directory,
            https_url=f"https://localhost:{running.port}",
            http_url=f"http://localhost:{running.http_port}",
            device_id=f"device-{secrets.token_hex(4)}",
        )
        await _walk(place, stopping)
        _say_where(place)
        if not leave:
            out.print("[bold]The platform stays up.[/bold] Ctrl-C ends it.")
            await stopping.wait()


async def _walk(place: walk.Place, stopping: asyncio.Event) -> None:
    out.print("\n[bold cyan]For every command below[/bold cyan]")
    out.print(Text(walk.preamble(place), style="bold"))

    def show(step: walk.Step) -> None:
        out.print(f"\n[bold cyan]{step.title}[/bold cyan]")
        out.print(Text("$ " + step.command, style="bold"))

    try:
        await asyncio.to_thread(walk.walk, place, show, lambda text: out.print(Text(text)))
    except walk.StepFailed as failed:
        if stopping.is_set():  # Ctrl-C reached the step's command too
            err.print("stopped in the middle of the walk")
            raise typer.Exit(130) from None
        err.print(Text(failed.output))
        err.print(f"[bold red]This step did not do what it should:[/bold red] {failed.step.title}")
        raise typer.Exit(1) from None


def _say_where(place: walk.Place) -> None:
    files = Installation(place.directory)
    rows = (
        ("server", place.https_url),
        ("API docs", f"{place.https_url}/api/docs"),
        ("OCSP, CRLs", place.http_url),
        ("admin", f"{files.admin_certificate} with admin.key (trust {files.trust_anchor})"),
        ("data", f"{files.directory}"),
        ("the device", f"{place.folder}"),
    )
    out.print("\n" + "\n".join(f"[bold]{label:<11}[/bold] {text}" for label, text in rows))
