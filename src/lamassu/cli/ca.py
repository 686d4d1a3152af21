"""`lamassu ca`: certification authorities."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lamassu.cli.client import (
    Api,
    Descending,
    Filters,
    Limit,
    Listing,
    Sort,
    Url,
    read_document,
    segment,
    without_empty,
)
from lamassu.cli.keys import KeyType
from lamassu.cli.options import DEFAULT_DIRECTORY, Directory, fail
from lamassu.cli.output import Column, Format, Output, revocation_reason, show_list, show_one

app = typer.Typer(no_args_is_help=True, help="Certification authorities.")

COLUMNS = (
    Column("id", "id"),
    Column("common name", "certificate.subject.common_name"),
    Column("status", "certificate.status"),
    Column("level", "level"),
    Column("issuer", "certificate.issuer_metadata.id"),
    Column("until", "certificate.valid_to"),
    Column("profile", "profile_id"),
)
DETAILS = (
    *COLUMNS,
    Column("serial number", "serial_number"),
    Column("subject key id", "certificate.subject_key_id"),
    Column("key", "certificate.key_metadata.type"),
    Column("bits", "certificate.key_metadata.bits"),
    Column("revoked at", "certificate.revocation_timestamp"),
    Column("reason", revocation_reason("certificate")),
    Column("metadata", "metadata"),
)
CERTIFICATE = "certificate.certificate"

CaId = Annotated[str, typer.Argument(help="Id of the CA.")]


@app.command("list")
def list_(
    filters: Filters = None,
    limit: Limit = 100,
    sort: Sort = "",
    descending: Descending = False,
    output: Output = Format.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """List CAs.

    Example: lamassu ca list --filter 'status[eq]ACTIVE' --sort valid_to
    """
    listing = Listing(filters or (), limit, sort, descending)
    items = Api(directory, url).list("/ca/v1/cas", listing)
    show_list(items, COLUMNS, output, certificate=CERTIFICATE)


@app.command()
def get(
    ca_id: CaId,
    output: Output = Format.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Show a CA.

    Example: lamassu ca get manufacturing-ca -o pem > ca.crt
    """
    ca = Api(directory, url).get(f"/ca/v1/cas/{segment(ca_id)}")
    show_one(ca, DETAILS, output, certificate=CERTIFICATE)


@app.command()
def create(
    ca_id: Annotated[str, typer.Argument(help="Id of the new CA.")] = "",
    parent: Annotated[str, typer.Option(help="CA above it; none makes a root.")] = "",
    common_name: Annotated[str, typer.Option("--cn", help="Common name; the id if absent.")] = "",
    organization: Annotated[str, typer.Option("--org", help="Organization.")] = "",
    country: Annotated[str, typer.Option(help="Country, two letters.")] = "",
    key_type: Annotated[KeyType, typer.Option(help="Kind of its key.")] = KeyType.P256,
    validity: Annotated[str, typer.Option(help="How long it lives.")] = "17520h",
    profile: Annotated[str, typer.Option(help="Default profile of what it issues.")] = "",
    own_profile: Annotated[str, typer.Option(help="Profile of the CA's own certificate.")] = "",
    engine: Annotated[str, typer.Option(help="Crypto engine that keeps the key.")] = "",
    file: Annotated[
        Path | None, typer.Option(help="The whole body as JSON instead; - is stdin.")
    ] = None,
    output: Output = Format.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Create a CA with a key of its own.

    Example: lamassu ca create plant-7 --parent intermediate-ca --profile device-profile
    """
    if file is None and not ca_id:
        fail("name the new CA, or give its body with --file")
    body = (
        read_document(file)
        if file is not None
        else without_empty(
            {
                "id": ca_id,
                "parent_id": parent,
                "subject": without_empty(
                    {
                        "common_name": common_name or ca_id,
                        "organization": organization,
                        "country": country,
                    }
                ),
                "key_metadata": {"type": key_type.algorithm, "bits": key_type.bits},
                "ca_expiration": {"type": "Duration", "duration": validity},
                "profile_id": profile,
                "ca_issuance_profile_id": own_profile,
                "engine_id": engine,
            }
        )
    )
    ca = Api(directory, url).send("POST", "/ca/v1/cas", body)
    show_one(ca, DETAILS, output, certificate=CERTIFICATE)


@app.command()
def revoke(
    ca_id: CaId,
    reason: Annotated[str, typer.Option(help="Such as CACompromise.")] = "CessationOfOperation",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    output: Output = Format.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Revoke a CA, and with it everything below.

    Example: lamassu ca revoke plant-7 --reason CACompromise
    """
    if not yes:
        typer.confirm(f"Revoke {ca_id} and every certificate under it?", abort=True, err=True)
    body = {"status": "REVOKED", "revocation_reason": reason}
    ca = Api(directory, url).send("POST", f"/ca/v1/cas/{segment(ca_id)}/status", body)
    show_one(ca, DETAILS, output, certificate=CERTIFICATE)
