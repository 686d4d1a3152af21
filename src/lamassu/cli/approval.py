"""`lamassu approval`: what waits for somebody's agreement."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from lamassu.cli.client import Api, Descending, Filters, Limit, Listing, Sort, Url, segment
from lamassu.cli.options import DEFAULT_DIRECTORY, Directory
from lamassu.cli.output import Column, PlainFormat, PlainOutput, show_list, show_one

app = typer.Typer(no_args_is_help=True, help="Requests that wait for somebody's agreement.")


def _votes(item: Mapping[str, Any]) -> object:
    return [
        f"{vote.get('approver')} {str(vote.get('verdict', '')).lower()}s"
        + (f" ({vote['comment']})" if vote.get("comment") else "")
        for vote in item.get("votes") or ()
    ]


def _needs(item: Mapping[str, Any]) -> object:
    return [
        f"{policy.get('ca_id')}: {policy.get('required')} of "
        + " ".join(map(str, policy.get("of") or ()))
        for policy in item.get("policies") or ()
    ]


def _asked(item: Mapping[str, Any]) -> object:
    request = item.get("request") or {}
    return request.get("command") or f"{request.get('method')} {request.get('path')}"


def _body(item: Mapping[str, Any]) -> object:
    """All that is asked, for an approver to read every word."""
    request = dict(item.get("request") or {})
    return json.dumps(request, indent=2, ensure_ascii=False)


COLUMNS = (
    Column("id", "id"),
    Column("status", "status"),
    Column("CA", "ca_id"),
    Column("operation", "operation"),
    Column("asked by", "requester"),
    Column("request", _asked),
    Column("votes", _votes),
    Column("until", "expires_at"),
)
DETAILS = (
    *COLUMNS[:5],
    Column("asked at", "creation_ts"),
    Column("until", "expires_at"),
    Column("needs", _needs),
    Column("rests on", lambda item: list(item.get("basis") or ())),
    Column("may not vote", "excluded"),
    Column("votes", _votes),
    Column("closed at", "closed_at"),
    Column("digest", "digest"),
    Column("request", _body),
)

ApprovalId = Annotated[str, typer.Argument(help="Id of the approval.")]
Comment = Annotated[str, typer.Option(help="Why.")]


@app.command("list")
def list_(
    filters: Filters = None,
    limit: Limit = 100,
    sort: Sort = "creation_ts",
    descending: Descending = False,
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """List requests that wait, or waited.

    Example: lamassu approval list --filter 'status[eq]PENDING'
    """
    listing = Listing(filters or (), limit, sort, descending)
    show_list(Api(directory, url).list("/ca/v1/approvals", listing), COLUMNS, output)


@app.command()
def get(
    approval_id: ApprovalId,
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Show all that is asked; read it before you approve.

    Example: lamassu approval get 0a7d0f0e-8d0f-4f5b-9f43-0c9a0a8f5d11
    """
    found = Api(directory, url).get(f"/ca/v1/approvals/{segment(approval_id)}")
    show_one(found, DETAILS, output)


@app.command()
def approve(
    approval_id: ApprovalId,
    comment: Comment = "",
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Agree to what somebody else asks, as the admin whose certificate is in --dir.

    Example: lamassu approval approve 0a7d0f0e-8d0f-4f5b-9f43-0c9a0a8f5d11 --dir alice
    """
    _vote("approve", approval_id, comment, output, Api(directory, url))


@app.command()
def reject(
    approval_id: ApprovalId,
    comment: Comment = "",
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """End a request, or withdraw one's own.

    Example: lamassu approval reject 0a7d0f0e-8d0f-4f5b-9f43-0c9a0a8f5d11 --comment 'wrong CA'
    """
    _vote("reject", approval_id, comment, output, Api(directory, url))


def _vote(word: str, approval_id: str, comment: str, output: PlainFormat, api: Api) -> None:
    path = f"/ca/v1/approvals/{segment(approval_id)}/{word}"
    show_one(api.send("POST", path, {"comment": comment}), DETAILS, output)
