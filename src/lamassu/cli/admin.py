"""`lamassu admin`: who may administer this installation (on the host only)."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
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
    out,
    run,
)
from lamassu.cli.output import Column, PlainFormat, show_list
from lamassu.kernel.identity import system_caller
from lamassu.kernel.records import Json
from lamassu.services.access.contract import Credential, CredentialKind
from lamassu.wiring.installing import check_place

app = typer.Typer(no_args_is_help=True, help="Who may administer this installation.")
CALLER = system_caller("lamassu admin")


@app.command()
def issue(
    name: Annotated[str, typer.Argument(help="Name of the admin: lower-case letters, digits, -.")],
    directory: Directory = DEFAULT_DIRECTORY,
    to: Annotated[Path, typer.Option(help="Folder for NAME.crt and NAME.key.")] = Path(),
    hours: Annotated[
        int | None, typer.Option(min=1, help="Lifetime; the mode's default if absent.")
    ] = None,
    asks: Asks = None,
    approval: Approval = "",
    renew: Annotated[
        Path | None,
        typer.Option(help="NAME.crt, with NAME.key beside it, of the same admin until now."),
    ] = None,
    root_key: RootKey = None,
    root_passphrase_file: RootPassphrase = None,
) -> None:
    """Make an admin's certificate and key.

    A name that is an approver of a CA is certified when the other approvers agree (--approval),
    or when its holder renews (--renew). With nobody left who could agree, the internal root's
    key that left this host does it (--root-key), and that is recorded.

    Example: lamassu admin issue alice --to ~/lamassu

    Example: lamassu admin issue alice --to new --renew old/alice.crt
    """
    lifetime = None if hours is None else timedelta(hours=hours)
    asking = wiring.Asking(asks, approval, renew, root_key, root_passphrase_file)
    certificate, key, until = run(_issue(directory, name, lifetime, to, asking))
    out.print(f"{certificate} and {key}, until {until:%Y-%m-%d %H:%M} UTC", markup=False)


async def _issue(
    directory: Path, name: str, lifetime: timedelta | None, to: Path, asking: wiring.Asking
) -> tuple[Path, Path, datetime]:
    # Before it is issued: a certificate whose key could not be kept would still be an admin's.
    await asyncio.to_thread(check_place, to, name)
    async with wiring.opened(directory) as platform:
        lifetime = lifetime or platform.admin_lifetime
        command: dict[str, Json] = {
            "command": "admin issue",
            "name": name,
            "seconds": int(lifetime.total_seconds()),
        }
        issued = await platform.access.issue(
            CredentialKind.ADMIN,
            name,
            lifetime=lifetime,
            caller=CALLER,
            grounds=await asking.grounds(platform.access, platform.installation, command),
        )
    files = await asyncio.to_thread(wiring.store_credential, to, name, issued)
    return *files, issued.credential.not_after


@app.command("list")
def list_(directory: Directory = DEFAULT_DIRECTORY) -> None:
    """List admins whose certificates have not expired.

    Example: lamassu admin list
    """
    found = [
        {
            "name": credential.name,
            "serial number": credential.serial_number,
            "until": f"{credential.not_after:%Y-%m-%d %H:%M}",
            "revoked": f"{credential.revoked_at:%Y-%m-%d %H:%M}" if credential.revoked_at else "",
        }
        for credential in run(_list(directory))
    ]
    columns = [Column(name, name) for name in ("name", "serial number", "until", "revoked")]
    show_list(found, columns, PlainFormat.TABLE)


async def _list(directory: Path) -> list[Credential]:
    async with wiring.opened(directory) as platform:
        return list(await platform.access.list(CredentialKind.ADMIN))


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Name of the admin, or a serial number.")],
    directory: Directory = DEFAULT_DIRECTORY,
) -> None:
    """Revoke an admin; a running platform refuses it within five seconds.

    Example: lamassu admin revoke alice
    """
    revoked = run(_revoke(directory, name))
    if not revoked:
        out.print(f"{name} was revoked before", markup=False)
    for credential in revoked:
        out.print(f"revoked {credential.name} ({credential.serial_number})")


async def _revoke(directory: Path, name: str) -> list[Credential]:
    async with wiring.opened(directory) as platform:
        return list(await platform.access.revoke(name, caller=CALLER))
