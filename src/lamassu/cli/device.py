"""`lamassu device`: devices and their identities."""

from __future__ import annotations

import json
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
    segment,
    without_empty,
)
from lamassu.cli.options import DEFAULT_DIRECTORY, Directory, fail, out
from lamassu.cli.output import Column, Format, Output, PlainFormat, PlainOutput, show_list, show_one

app = typer.Typer(no_args_is_help=True, help="Devices and their identities.")


def _serial_number(device: object) -> str:
    identity = device.get("identity") if isinstance(device, dict) else None
    if not isinstance(identity, dict):
        return ""
    return str(identity.get("versions", {}).get(str(identity.get("active_version")), ""))


def _history(device: object) -> str:
    """The device's and its slot's events in order, a line each."""
    if not isinstance(device, dict):
        return ""
    slot = (device.get("identity") or {}).get("events") or {}
    lines = sorted([*(device.get("events") or {}).items(), *slot.items()], key=lambda one: one[0])
    return "\n".join(
        f"{at}  {event.get('type', '')}  {event.get('description', '')}".rstrip()
        for at, event in lines
    )


COLUMNS = (
    Column("id", "id"),
    Column("status", "status"),
    Column("DMS", "dms_owner"),
    Column("version", "identity.active_version"),
    Column("until", "identity.expiration_date"),
    Column("tags", "tags"),
)
DETAILS = (
    *COLUMNS,
    Column("created", "creation_timestamp"),
    Column("serial number", _serial_number),
    Column("metadata", "metadata"),
    Column("history", _history),
)

DeviceId = Annotated[str, typer.Argument(help="Id of the device.")]


@app.command("list")
def list_(
    dms: Annotated[str, typer.Option(help="Only those of this DMS.")] = "",
    filters: Filters = None,
    limit: Limit = 100,
    sort: Sort = "",
    descending: Descending = False,
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """List devices.

    Example: lamassu device list --dms factory-dms --filter 'status[ne]ACTIVE'
    """
    path = f"/devmanager/v1/devices/dms/{segment(dms)}" if dms else "/devmanager/v1/devices"
    listing = Listing(filters or (), limit, sort, descending)
    show_list(Api(directory, url).list(path, listing), COLUMNS, output)


@app.command()
def get(
    device_id: DeviceId,
    output: Output = Format.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Show a device; with -o pem its current certificate.

    Example: lamassu device get my-device -o pem | openssl x509 -noout -dates
    """
    api = Api(directory, url)
    device = api.get(f"/devmanager/v1/devices/{segment(device_id)}")
    if output is Format.PEM:
        serial_number = _serial_number(device)
        if not serial_number:
            fail(f"{device_id} has no certificate yet")
        device = api.get(f"/ca/v1/certificates/{segment(serial_number)}")
    show_one(device, DETAILS, output, certificate="certificate")


@app.command()
def create(
    device_id: Annotated[str, typer.Argument(help="Its id, the common name of its certificates.")],
    dms: Annotated[str, typer.Option(help="The DMS that it enrolls with.")],
    icon: Annotated[str, typer.Option(help="Name of its icon.")] = "CgSmartHomeBoiler",
    icon_color: Annotated[str, typer.Option(help="Colour of its icon.")] = "#25ee32",
    tag: Annotated[list[str] | None, typer.Option(help="A tag; repeatable.")] = None,
    metadata: Annotated[str, typer.Option(help="A JSON object.")] = "",
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Register a device, so that it may enroll.

    Example: lamassu device create my-device --dms factory-dms --tag plant-7
    """
    body = without_empty(
        {
            "id": device_id,
            "dms_id": dms,
            "icon": icon,
            "icon_color": icon_color,
            "tags": tag or [],
            "metadata": _metadata(metadata),
        }
    )
    api = Api(directory, url)
    api.get(f"/dmsmanager/v1/dms/{segment(dms)}")  # the API takes any name; ours is a slip
    show_one(api.create("/devmanager/v1/devices", body), DETAILS, output)


@app.command()
def decommission(
    device_id: DeviceId,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Take a device out of service for good and revoke its certificates.

    Example: lamassu device decommission my-device
    """
    if not yes:
        typer.confirm(f"Retire {device_id} for good?", abort=True, err=True)
    path = f"/devmanager/v1/devices/{segment(device_id)}/decommission"
    show_one(Api(directory, url).send("DELETE", path), DETAILS, output)


@app.command()
def delete(device_id: DeviceId, directory: Directory = DEFAULT_DIRECTORY, url: Url = None) -> None:
    """Delete a device that was decommissioned.

    Example: lamassu device delete my-device
    """
    Api(directory, url).send("DELETE", f"/devmanager/v1/devices/{segment(device_id)}")
    out.print(f"deleted {device_id}", markup=False)


def _metadata(text: str) -> object:
    try:
        metadata = json.loads(text or "{}")
    except ValueError as error:
        fail(f"--metadata is no JSON: {error}")
    if not isinstance(metadata, dict):
        fail("--metadata is no JSON object")
    return metadata
