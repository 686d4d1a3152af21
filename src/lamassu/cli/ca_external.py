"""`lamassu ca …` for CAs under a root whose key is offline."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Annotated

import typer

from lamassu.cli.client import Api, Item, Listing, Url, read_input, segment, without_empty
from lamassu.cli.options import DEFAULT_DIRECTORY, Directory, err, fail, out
from lamassu.cli.output import Column, Format, Output, PlainFormat, PlainOutput, show_list
from lamassu.services.ceremony.contract import is_bundle

REQUEST_COLUMNS = (
    Column("id", "id"),
    Column("common name", "subject.common_name"),
    Column("status", "status"),
    Column("external root", "external_root"),
    Column("engine", "engine_id"),
    Column("since", "creation_ts"),
)
IMPORTED_COLUMNS = (
    Column("id", "id"),
    Column("common name", "certificate.subject.common_name"),
    Column("status", "certificate.status"),
    Column("key", lambda ca: ca.get("key_status", "ONLINE")),
    Column("issuer", "certificate.issuer_metadata.id"),
    Column("until", "certificate.valid_to"),
)


def ask(api: Api, body: Item, *, csr: Path | None, approval: str) -> None:
    """Send the request for a CA under an offline root, and write its CSR to a file."""
    awaited = api.create("/ca/v1/cas", body, approval=approval)
    path = csr or Path(f"{awaited['id']}.csr")
    write_pem(path, awaited.get("csr"))
    err.print(
        f"{awaited['id']} waits for the signature of {awaited['external_root']}: carry this"
        " request to the ceremony, then run `lamassu ca import-signed BUNDLE`",
        markup=False,
    )
    out.print(str(path), markup=False)


def write_pem(path: Path, value: object) -> None:
    """Write what JSON carries as base64 of PEM; never over a file that is there."""
    try:
        with path.open("xb") as file:
            file.write(base64.b64decode(str(value)))
    except FileExistsError:
        fail(f"{path} is there already and stays; name another file")
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror}")


def import_signed(
    file: Annotated[
        Path, typer.Argument(help="A ceremony's bundle, or certificates in PEM; - is stdin.")
    ],
    root_fingerprint: Annotated[
        str,
        typer.Option(
            help="SHA-256 of the root's certificate, as the transcript has it; needed for a root"
            " that is not known here yet."
        ),
    ] = "",
    output: Output = Format.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Take in what an offline root signed: the root without its key, and the CAs that wait.

    Example: lamassu ca import-signed session-1.bundle --root-fingerprint 5f3a…
    """
    content = read_input(file)
    body = without_empty(
        {
            "signed": base64.b64encode(content).decode("ascii"),
            "root_fingerprint": root_fingerprint,
        }
    )
    answer = Api(directory, url).send("POST", "/ca/v1/cas/import-signed", body)
    items = [item for item in (answer.get("root"), *(answer.get("imported") or ())) if item]
    show_list(items, IMPORTED_COLUMNS, output, certificate="certificate.certificate")
    if is_bundle(content):
        err.print(
            f"its CRL and OCSP responders are taken in by `lamassu va import-crl {file}`",
            markup=False,
        )


def requests(
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """List the CAs that wait for an offline root's signature.

    Example: lamassu ca requests
    """
    show_list(
        Api(directory, url).list("/ca/v1/ca-requests", Listing(limit=0)), REQUEST_COLUMNS, output
    )


def withdraw(
    ca_id: Annotated[str, typer.Argument(help="Id of the CA that waits.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Wait no longer for a certificate, and delete the key that was made.

    Example: lamassu ca withdraw intermediate-ca
    """
    if not yes:
        typer.confirm(f"Delete the key of {ca_id}, which waits?", abort=True, err=True)
    Api(directory, url).send("DELETE", f"/ca/v1/ca-requests/{segment(ca_id)}")
    out.print(f"{ca_id} waits no longer", markup=False)
