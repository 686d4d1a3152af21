"""`lamassu`: one program for the platform, its host and its REST API."""

from __future__ import annotations

import sys

import typer

from lamassu.cli import (
    admin,
    approval,
    audit,
    ca,
    ceremony,
    cert,
    config,
    db,
    demo,
    device,
    dms,
    importing,
    init,
    key,
    log,
    profile,
    serve,
    va,
)
from lamassu.cli.options import file_fault
from lamassu.platform.telemetry import start_logging

HOST = "On the host"
API = "Over the REST API"

app = typer.Typer(
    name="lamassu",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
    help="""
    Gives every device an X.509 identity, renews it, and takes it away when it must.

    **A first tour**

    1. `lamassu demo --exit`  walks one device through its whole life.

    2. `lamassu init --dir var`  makes an installation: keys, CAs, profiles, an admin.

    3. `lamassu serve --dir var`  starts it on https://localhost:8443.

    4. `lamassu ca list --dir var`  is the first question to the running platform.
    """,
)

app.command("init", rich_help_panel=HOST)(init.init)
app.command("serve", rich_help_panel=HOST)(serve.serve)
app.command("demo", rich_help_panel=HOST)(demo.demo)
app.add_typer(db.app, name="db", rich_help_panel=HOST)
app.add_typer(config.app, name="config", rich_help_panel=HOST)
app.add_typer(admin.app, name="admin", rich_help_panel=HOST)
app.add_typer(audit.app, name="audit", rich_help_panel=HOST)
app.add_typer(importing.app, name="import", rich_help_panel=HOST)
app.add_typer(ceremony.app, name="ceremony", rich_help_panel=HOST)
app.add_typer(ca.app, name="ca", rich_help_panel=API)
app.add_typer(approval.app, name="approval", rich_help_panel=API)
app.add_typer(va.app, name="va", rich_help_panel=API)
app.add_typer(cert.app, name="cert", rich_help_panel=API)
app.add_typer(profile.app, name="profile", rich_help_panel=API)
app.add_typer(dms.app, name="dms", rich_help_panel=API)
app.add_typer(device.app, name="device", rich_help_panel=API)
app.add_typer(key.app, name="key", rich_help_panel=API)
app.add_typer(log.app, name="log", rich_help_panel=API)


@app.callback()
def _start() -> None:
    """A command itself says what is to be said; `serve` logs as it is configured."""
    start_logging("error", "console")


def main() -> None:
    """The console script."""
    try:
        app()
    except OSError as error:
        sys.exit(f"lamassu: {file_fault(error)}")


if __name__ == "__main__":
    main()
