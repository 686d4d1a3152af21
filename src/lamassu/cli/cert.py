"""`lamassu cert`: certificates."""

from __future__ import annotations

import base64
import textwrap
from pathlib import Path
from typing import Annotated

import typer

from lamassu.cli import cert_made, cert_requests
from lamassu.cli.cert_made import CERTIFICATE, COLUMNS
from lamassu.cli.client import (
    Api,
    Descending,
    Filters,
    Limit,
    Listing,
    Sort,
    Url,
    read_input,
    segment,
    without_empty,
)
from lamassu.cli.options import DEFAULT_DIRECTORY, Approval, Directory, err
from lamassu.cli.output import Column, Format, Output, revocation_reason, show_list, show_one

app = typer.Typer(no_args_is_help=True, help="Certificates.")
app.command("import")(cert_made.import_)
app.command()(cert_made.create)
app.command()(cert_requests.requests)

DETAILS = (
    *COLUMNS,
    Column("from", "valid_from"),
    Column("key", "key_metadata.type"),
    Column("bits", "key_metadata.bits"),
    Column("key usage", "extensions.key_usage"),
    Column("extended", "extensions.extended_key_usage"),
    Column("subject key id", "subject_key_id"),
    Column("authority key id", "authority_key_id"),
    Column("revoked at", "revocation_timestamp"),
    Column("reason", revocation_reason("")),
    Column("metadata", "metadata"),
)
SerialNumber = Annotated[str, typer.Argument(help="Serial number, lower-case hex.")]


@app.command("list")
def list_(
    ca: Annotated[str, typer.Option(help="Only those that this CA issued.")] = "",
    filters: Filters = None,
    limit: Limit = 100,
    sort: Sort = "",
    descending: Descending = False,
    output: Output = Format.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """List certificates.

    Example: lamassu cert list --ca manufacturing-ca --filter 'status[eq]REVOKED'
    """
    path = f"/ca/v1/cas/{segment(ca)}/certificates" if ca else "/ca/v1/certificates"
    items = Api(directory, url).list(path, Listing(filters or (), limit, sort, descending))
    show_list(items, COLUMNS, output, certificate=CERTIFICATE)


@app.command()
def get(
    serial_number: SerialNumber,
    output: Output = Format.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Show a certificate.

    Example: lamassu cert get 5f3c0a… -o pem | openssl x509 -noout -text
    """
    certificate = Api(directory, url).get(f"/ca/v1/certificates/{_path(serial_number)}")
    show_one(certificate, DETAILS, output, certificate=CERTIFICATE)


@app.command()
def sign(
    csr: Annotated[Path, typer.Argument(help="CSR, PEM or DER; - is stdin.")],
    ca: Annotated[str, typer.Option(help="CA that is to sign.")],
    profile: Annotated[str, typer.Option(help="Profile; the CA's own if absent.")] = "",
    output: Output = Format.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Have a CA sign a CSR.

    Example: lamassu cert sign boot.csr --ca bootstrap-ca --profile bootstrap-profile -o pem
    """
    body = without_empty({"csr": wire_csr(read_input(csr)), "profile_id": profile})
    path = f"/ca/v1/cas/{segment(ca)}/certificates/sign"
    certificate = Api(directory, url).create(path, body)
    show_one(certificate, DETAILS, output, certificate=CERTIFICATE)


@app.command()
def revoke(
    serial_number: SerialNumber,
    reason: Annotated[str, typer.Option(help="Such as KeyCompromise.")] = "Unspecified",
    approval: Approval = "",
    output: Output = Format.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Revoke a certificate.

    Example: lamassu cert revoke 5f3c0a… --reason KeyCompromise
    """
    body = {"status": "REVOKED", "revocation_reason": reason}
    _change(serial_number, body, approval, output, Api(directory, url))


@app.command()
def hold(
    serial_number: SerialNumber,
    approval: Approval = "",
    output: Output = Format.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Put a certificate on hold; `lamassu cert release` ends it.

    Example: lamassu cert hold 5f3c0a…
    """
    body = {"status": "REVOKED", "revocation_reason": "CertificateHold"}
    _change(serial_number, body, approval, output, Api(directory, url))


@app.command()
def release(
    serial_number: SerialNumber,
    approval: Approval = "",
    output: Output = Format.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Release a certificate that is on hold.

    Example: lamassu cert release 5f3c0a…
    """
    _change(serial_number, {"status": "ACTIVE"}, approval, output, Api(directory, url))


@app.command()
def delete(
    serial_number: SerialNumber,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Delete a certificate whose CA was deleted.

    Example: lamassu cert delete 5f3c0a…
    """
    Api(directory, url).send("DELETE", f"/ca/v1/certificates/{_path(serial_number)}")
    err.print(f"{serial_number} is deleted", markup=False)


def _change(
    serial_number: str, body: dict[str, str], approval: str, output: Format, api: Api
) -> None:
    path = f"/ca/v1/certificates/{_path(serial_number)}/status"
    certificate = api.send("PUT", path, body, approval=approval)
    show_one(certificate, DETAILS, output, certificate=CERTIFICATE)


def _path(serial_number: str) -> str:
    """Other tools write serial numbers in capitals, with colons or without."""
    return segment(serial_number.replace(":", "").lower())


def wire_csr(data: bytes) -> str:
    """As the wire has it: base64 of PEM."""
    if b"-----BEGIN" not in data:
        body = "\n".join(textwrap.wrap(base64.b64encode(data).decode("ascii"), 64))
        data = (
            f"-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n"
        ).encode("ascii")
    return base64.b64encode(data).decode("ascii")
