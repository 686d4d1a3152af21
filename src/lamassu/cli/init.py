"""`lamassu init`: make an installation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lamassu import wiring
from lamassu.cli.options import DEFAULT_DIRECTORY, Directory, err, fail, out, run


def init(
    directory: Directory = DEFAULT_DIRECTORY,
    host: Annotated[
        list[str] | None,
        typer.Option(help="Name or address that clients use (repeatable); not only loopback."),
    ] = None,
    port: Annotated[int, typer.Option(help="HTTPS port: REST APIs and EST.")] = 8443,
    http_port: Annotated[int, typer.Option(help="HTTP port: OCSP and CRLs only.")] = 8080,
    internal_port: Annotated[int, typer.Option(help="Port for an EST edge.")] = 8444,
    edge_host: Annotated[
        list[str] | None,
        typer.Option(help="Name or address of the EST edge (repeatable); loopback if absent."),
    ] = None,
    edge_shares_hosts: Annotated[
        bool,
        typer.Option(
            "--edge-shares-hosts",
            help="Let the edge carry the platform's names: whoever owns it can pose as us.",
        ),
    ] = False,
    public_url: Annotated[
        str | None, typer.Option(help="The URL under which browsers reach the platform.")
    ] = None,
    database: Annotated[
        str | None, typer.Option(help="postgresql://… or sqlite:///…; embedded if absent.")
    ] = None,
    crypto_engines: Annotated[
        Path | None,
        typer.Option(help="YAML file with the section crypto_engines; software if absent."),
    ] = None,
    key_type: Annotated[
        wiring.KeyType,
        typer.Option(metavar="TYPE", help="Keys of the CAs: rsa-4096, ecdsa-p256, ecdsa-p384."),
    ] = wiring.KeyType.RSA_4096,
    export_root_key: Annotated[
        Path | None,
        typer.Option(help="Move the internal root's key, encrypted, to this file (production)."),
    ] = None,
    root_passphrase_file: Annotated[
        Path | None,
        typer.Option(
            help="Its passphrase: read from this file, made if absent, in another place than"
            " the key; without, it is shown once on the terminal."
        ),
    ] = None,
) -> None:
    """Make an installation: secrets, CAs of the security guide, profiles, a first DMS, an admin.

    What is there already stays; an interrupted init is finished by the next one.

    Example: lamassu init --dir var

    Example: lamassu init --dir var --crypto-engines hsm.yml

    Example: lamassu init --dir /srv/lamassu --host pki.example.com --edge-host est.example.com
    """
    places = None
    if export_root_key is not None:
        places = wiring.RootKeyPlaces(export_root_key, root_passphrase_file)
    elif root_passphrase_file is not None:
        fail("--root-passphrase-file goes with --export-root-key")
    plan = wiring.Plan(
        directory=directory.absolute(),
        hosts=tuple(host or ()),
        port=port,
        http_port=http_port,
        internal_port=internal_port,
        public_url=public_url,
        database=database,
        key_type=key_type,
        root_key=places,
        edge_hosts=tuple(edge_host or ()),
        edge_shares_hosts=edge_shares_hosts,
        crypto_engines=crypto_engines,
    )
    try:
        run(found(plan))
    except KeyboardInterrupt:
        err.print(f"interrupted; `lamassu init --dir {plan.directory}` finishes it", markup=False)
        raise typer.Exit(130) from None
    out.print(f"next: lamassu serve --dir {plan.directory}", markup=False)


async def found(plan: wiring.Plan) -> None:
    """Install, telling each part as it is made."""
    with out.status("making keys and certificates"):
        await wiring.install(
            plan,
            lambda line: out.print(line, markup=False),
            reveal=_reveal if sys.stdout.isatty() else None,
        )


def _reveal(passphrase: str) -> None:
    about = "passphrase of the internal root's key, shown this once and stored nowhere:"
    out.print(f"{about}\n    {passphrase}", markup=False)
