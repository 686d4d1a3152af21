"""`lamassu cert requests`: what came to be signed, and what became of it."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

import typer

from lamassu.cli.client import Api, Descending, Filters, Limit, Listing, Sort, Url, segment
from lamassu.cli.options import DEFAULT_DIRECTORY, Directory, fail
from lamassu.cli.output import Column, Format, Output, show_list, show_one

COLUMNS = (
    Column("id", "id"),
    Column("common name", "common_name"),
    Column("status", "status"),
    Column("code", "code"),
    Column("CA", "ca_id"),
    Column("requester", "requester"),
    Column("at", "creation_ts"),
)
DETAILS = (
    *COLUMNS,
    Column("reason", "reason"),
    Column("profile", "profile_id"),
    Column("DMS", "dms_id"),
    Column("device", "device_id"),
)


def requests(
    request_id: Annotated[
        str, typer.Argument(help="Show this one; with -o pem its CSR.", metavar="[ID]")
    ] = "",
    refused: Annotated[bool, typer.Option("--refused", help="The latest refused ones.")] = False,
    filters: Filters = None,
    limit: Limit = 100,
    sort: Sort = "",
    descending: Descending = False,
    output: Output = Format.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """List certificate requests and what became of them.

    Refused ones of known callers are kept for 90 days, as far as there is room.

    Example: lamassu cert requests --refused
    """
    api = Api(directory, url)
    if request_id:
        item = api.get(f"/ca/v1/requests/{segment(request_id)}")
        if output is Format.PEM:
            _write_csr(str(item.get("csr", "")))
        else:
            show_one(item, DETAILS, output)
        return
    if output is Format.PEM:
        fail("name the request whose CSR is wanted: lamassu cert requests ID -o pem")
    wanted = list(filters or ())
    if refused:
        wanted.append("status[eq]REFUSED")
        sort, descending = sort or "creation_ts", descending or not sort
    items = api.list("/ca/v1/requests", Listing(wanted, limit, sort, descending))
    show_list(items, COLUMNS, output)


def _write_csr(text: str) -> None:
    try:
        pem = base64.b64decode(text, validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        pem = ""
    if not pem:
        fail("its CSR was too large to keep")
    typer.echo(pem, nl=not pem.endswith("\n"))
