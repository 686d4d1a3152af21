"""`lamassu config`: judge and show the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lamassu import wiring
from lamassu.cli.options import (
    DEFAULT_DIRECTORY,
    Approval,
    Asks,
    Directory,
    RootKey,
    RootPassphrase,
    fail,
    out,
    run,
)
from lamassu.kernel.errors import LamassuError
from lamassu.platform.config import check_start, not_yet_in_effect, warnings
from lamassu.platform.installation import Installation
from lamassu.wiring.configuration import exposed_secrets, load, masked_text

app = typer.Typer(no_args_is_help=True, help="Judge and show the configuration.")


@app.command()
def check(
    directory: Directory = DEFAULT_DIRECTORY,
    live: Annotated[
        bool, typer.Option("--live", help="Also ask every crypto engine for a little work.")
    ] = False,
) -> None:
    """Name every fault, and every section that is not in effect yet.

    Example: lamassu config check --dir var

    Example: lamassu config check --dir var --live
    """
    try:
        path = Installation(directory).config
        settings = load(path)
        for field in exposed_secrets(path):
            out.print(
                f"warning: {field} is a secret that others may read; run: chmod 600 {path}",
                markup=False,
            )
        for note in not_yet_in_effect(settings):
            out.print(f"not yet in effect: {note}", markup=False)
        for warning in warnings(settings):
            out.print(f"warning: {warning}", markup=False)
        if settings.est is None:
            check_start(settings, directory)
    except LamassuError as error:
        fail(error.text)
    if live and settings.est is None:
        _check_engines(directory)
    out.print(f"{Installation(directory).config} can start")


def _check_engines(directory: Path) -> None:
    with out.status("asking the crypto engines"):
        engines = run(wiring.engine_health(directory))
    for engine in engines:
        name, state = f"engine {engine.engine_id}", engine.problem or "can be used"
        said = state.removeprefix("crypto ")  # most engines begin with their own name
        begins = said.startswith((f"{name}: ", f"{name}, "))
        out.print(said if begins else f"{name}: {state}", markup=False)
    if not all(engine.healthy for engine in engines):
        fail("not every crypto engine can be used")
    for warning in run(wiring.backup_warnings(directory)):
        out.print(f"warning: {warning}", markup=False)


@app.command()
def show(directory: Directory = DEFAULT_DIRECTORY) -> None:
    """Print what is in effect, defaults included; secrets are masked.

    Example: lamassu config show --dir var
    """
    try:
        out.print(masked_text(Installation(directory).config), markup=False, end="")
    except LamassuError as error:
        fail(error.text)


@app.command("lower-mode")
def lower_mode(
    directory: Directory = DEFAULT_DIRECTORY,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    asks: Asks = None,
    approval: Approval = "",
    root_key: RootKey = None,
    root_passphrase_file: RootPassphrase = None,
) -> None:
    """Leave production for development, as the configuration says already. It is recorded.

    Without this the platform does not start below the mode that it once had. Where CAs have
    approvers they are asked first, while the configuration still says production.

    Example: lamassu config lower-mode --dir var
    """
    if not yes:
        typer.confirm("Allow what production refuses?", abort=True, err=True)
    asking = wiring.Asking(asks, approval, root_key=root_key, root_passphrase=root_passphrase_file)
    run(wiring.lower_mode(directory, asking))
    out.print("mode: development")
