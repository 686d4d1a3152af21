"""`lamassu dms`: device manufacturing systems, which say how devices enroll."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lamassu.cli.client import (
    Api,
    Descending,
    Filters,
    Item,
    Limit,
    Listing,
    Sort,
    Url,
    read_document,
    segment,
    without_empty,
)
from lamassu.cli.options import DEFAULT_DIRECTORY, Directory, fail, out
from lamassu.cli.output import Column, PlainFormat, PlainOutput, show_list, show_one

app = typer.Typer(no_args_is_help=True, help="Who may enroll, how, and under which CA.")

_ENROLLMENT = "settings.enrollment_settings"
_EST = f"{_ENROLLMENT}.est_rfc7030_settings"
COLUMNS = (
    Column("id", "id"),
    Column("name", "name"),
    Column("enrollment CA", f"{_ENROLLMENT}.enrollment_ca"),
    Column("registration", f"{_ENROLLMENT}.registration_mode"),
    Column("created", "creation_ts"),
)
DETAILS = (
    *COLUMNS,
    Column("profile", "settings.issuance_profile_id"),
    Column("authentication", f"{_EST}.auth_mode"),
    Column("validation CAs", f"{_EST}.client_certificate_settings.validation_cas"),
    Column("renewal window", "settings.reenrollment_settings.reenrollment_delta"),
    Column("metadata", "metadata"),
)

DmsId = Annotated[str, typer.Argument(help="Id of the DMS.")]


@app.command("list")
def list_(
    filters: Filters = None,
    limit: Limit = 100,
    sort: Sort = "",
    descending: Descending = False,
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """List DMSs.

    Example: lamassu dms list
    """
    listing = Listing(filters or (), limit, sort, descending)
    show_list(Api(directory, url).list("/dmsmanager/v1/dms", listing), COLUMNS, output)


@app.command()
def get(
    dms_id: DmsId,
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Show a DMS.

    Example: lamassu dms get factory-dms -o json
    """
    show_one(Api(directory, url).get(f"/dmsmanager/v1/dms/{segment(dms_id)}"), DETAILS, output)


@app.command()
def create(
    dms_id: Annotated[str, typer.Argument(help="Id of the new DMS.")] = "",
    name: Annotated[str, typer.Option(help="Name for people; the id if absent.")] = "",
    ca: Annotated[str, typer.Option(help="CA that signs the devices' certificates.")] = "",
    bootstrap_ca: Annotated[
        list[str] | None, typer.Option(help="CA whose certificates let devices in; repeatable.")
    ] = None,
    profile: Annotated[str, typer.Option(help="Issuance profile; the CA's own if absent.")] = "",
    jitp: Annotated[
        bool, typer.Option("--jitp", help="Make unknown devices when they enroll.")
    ] = False,
    window: Annotated[str, typer.Option(help="How long before its end to renew.")] = "30d",
    file: Annotated[
        Path | None, typer.Option(help="The whole body as JSON instead; - is stdin.")
    ] = None,
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Create a DMS that authenticates devices by a client certificate.

    Example: lamassu dms create plant-7 --ca manufacturing-ca --bootstrap-ca bootstrap-ca --jitp
    """
    if file is not None:
        body = read_document(file)
    elif not (dms_id and ca and bootstrap_ca):
        fail("a DMS needs an id, --ca and --bootstrap-ca, or its whole body with --file")
    else:
        body = _dms(dms_id, name or dms_id, ca, bootstrap_ca, profile, jitp=jitp, window=window)
    show_one(Api(directory, url).create("/dmsmanager/v1/dms", body), DETAILS, output)


@app.command()
def update(
    dms_id: DmsId,
    file: Annotated[Path, typer.Option(help="The whole DMS as JSON; - is stdin.")],
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Replace a DMS's name, metadata and settings.

    Example: lamassu dms get plant-7 -o json > dms.json; lamassu dms update plant-7 --file dms.json
    """
    path = f"/dmsmanager/v1/dms/{segment(dms_id)}"
    show_one(Api(directory, url).send("PUT", path, read_document(file)), DETAILS, output)


@app.command()
def delete(dms_id: DmsId, directory: Directory = DEFAULT_DIRECTORY, url: Url = None) -> None:
    """Delete a DMS; its devices stay.

    Example: lamassu dms delete plant-7
    """
    Api(directory, url).send("DELETE", f"/dmsmanager/v1/dms/{segment(dms_id)}")
    out.print(f"deleted {dms_id}", markup=False)


def _dms(
    dms_id: str,
    name: str,
    ca: str,
    bootstrap_cas: list[str],
    profile: str,
    *,
    jitp: bool,
    window: str,
) -> Item:
    settings = {
        "enrollment_settings": {
            "protocol": "EST_RFC7030",
            "registration_mode": "JITP" if jitp else "PRE_REGISTRATION",
            "enrollment_ca": ca,
            "verify_csr_signature": True,
            "device_provisioning_profile": {
                "icon": "CgSmartHomeBoiler",
                "icon_color": "#25ee32",
            },
            "est_rfc7030_settings": {
                "auth_mode": "CLIENT_CERTIFICATE",
                "client_certificate_settings": {"validation_cas": bootstrap_cas},
            },
        },
        "reenrollment_settings": {"reenrollment_delta": window},
        "issuance_profile_id": profile,
    }
    return {"id": dms_id, "name": name, "settings": without_empty(settings)}
