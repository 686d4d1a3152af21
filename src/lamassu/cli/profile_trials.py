"""`lamassu profile check`, `preview`, `what-if`: what a profile does, before it does."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from lamassu.cli.cert import wire_csr
from lamassu.cli.client import (
    Api,
    Item,
    Listing,
    Url,
    read_document,
    read_input,
    segment,
    without_empty,
)
from lamassu.cli.options import DEFAULT_DIRECTORY, Directory, err, out
from lamassu.cli.output import Column, PlainFormat, PlainOutput, show_list, show_one

_PAGE = 2000
_FINDINGS = (
    Column("profile", "profile"),
    Column("finding", "code"),
    Column("field", "field"),
    Column("what", "text"),
)
_PREVIEW = (
    Column("subject", "subject"),
    Column("issuer", "issuer"),
    Column("from", "valid_from"),
    Column("until", "valid_to"),
    Column("key", lambda item: f"{item['key']['type']} {item['key']['bits']}"),
)
_EXTENSIONS = (
    Column("extension", lambda one: one.get("name") or one.get("oid")),
    Column("critical", "critical"),
    Column("says", "text"),
)
_FAILURES = (
    Column("serial number", "serial_number"),
    Column("common name", "common_name"),
    Column("device", "device_id"),
    Column("why", "text"),
)
_DIFFERENCES = (
    Column("differs", "part"),
    Column("certificates", "certificates"),
    Column("such as", "serial_number"),
    Column("before", "before"),
    Column("after", "after"),
)
_COUNTS = ("examined", "differing", "refused_before", "accepted_now", "unreadable")

ProfileId = Annotated[str, typer.Argument(help="Id of the profile.")]


def warn(findings: Iterable[Mapping[str, Any]]) -> None:
    """What an answer says beside the profile."""
    for one in findings:
        text = f"{one.get('field')}: {one.get('text')}"
        err.print(f"[yellow]warning[/yellow] {escape(text)}")


def check(
    profile_id: Annotated[str, typer.Argument(help="Id of a profile; all, if left out.")] = "",
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Tell what should be known of profiles: names that anybody may choose, CAs that end too
    soon.

    Example: lamassu profile check device-profile
    """
    api = Api(directory, url)
    ids = [profile_id] if profile_id else _all_ids(api)
    found = [
        {"profile": one, **finding}
        for one in ids
        for finding in api.get(f"/ca/v1/profiles/{segment(one)}/findings")["findings"]
    ]
    show_list(found, _FINDINGS, output)


def preview(
    profile_id: ProfileId,
    csr: Annotated[Path, typer.Option(help="CSR, PEM or DER; - is stdin.")],
    ca: Annotated[str, typer.Option(help="The CA; the only one that uses the profile.")] = "",
    device: Annotated[str, typer.Option(help="Id of the device that would ask.")] = "",
    dms: Annotated[str, typer.Option(help="The DMS through which it would.")] = "",
    changed: Annotated[
        Path | None, typer.Option(help="A changed profile in its place, YAML or JSON.")
    ] = None,
    der: Annotated[
        Path | None, typer.Option(help="Write what would be signed to this file, as DER.")
    ] = None,
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Show the certificate that a CSR would get; nothing is signed or stored.

    Example: lamassu profile preview device-profile --csr device.csr --ca manufacturing-ca
    """
    body = without_empty(
        {
            "csr": wire_csr(read_input(csr)),
            "ca_id": ca,
            "device_id": device,
            "dms_id": dms,
            "profile": read_document(changed) if changed is not None else None,
        }
    )
    path = f"/ca/v1/profiles/{segment(profile_id)}/preview"
    shown = Api(directory, url).send("POST", path, body)
    if der is not None:
        der.write_bytes(base64.b64decode(shown["to_be_signed"]))
    show_one(shown, _PREVIEW, output)
    if output is PlainFormat.TABLE:
        show_list(shown["extensions"], _EXTENSIONS, output)
        for one in shown["lint"]:
            err.print(f"[red]would not be signed[/red]: {escape(one)}")


def what_if(
    profile_id: ProfileId,
    changed: Annotated[Path, typer.Option(help="The changed profile, YAML or JSON; - is stdin.")],
    limit: Annotated[
        int, typer.Option(min=0, help="Replay at most so many enrolments; 0 for all.")
    ] = 0,
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Replay what was enrolled under a profile against a changed one: who would fail, and what
    would differ. Nothing is signed or stored.

    Example: lamassu profile what-if device-profile --changed device-profile.yml
    """
    api = Api(directory, url)
    body = {"profile": read_document(changed)}
    path = f"/ca/v1/profiles/{segment(profile_id)}/what-if"
    counts: Counter[str] = Counter()
    differences: dict[str, Item] = {}
    failures = 0
    for page in _pages(api, path, body, limit):
        failures += len(page["failures"])
        if output is PlainFormat.JSON:
            for failure in page["failures"]:
                typer.echo(json.dumps({"failure": failure}, ensure_ascii=False))
        elif page["failures"]:
            show_list(page["failures"], _FAILURES, output)
        counts.update({name: page[name] for name in _COUNTS})
        for one in page["differences"]:
            known = differences.setdefault(one["part"], {**one, "certificates": 0})
            known["certificates"] += one["certificates"]
        err.print(f"[dim]{counts['examined']} replayed[/dim]")
    summary = {"failures": failures, **{name: counts[name] for name in _COUNTS}}
    if output is PlainFormat.JSON:
        whole = {**summary, "differences": list(differences.values())}
        typer.echo(json.dumps(whole, ensure_ascii=False))
        return
    if differences:
        show_list(list(differences.values()), _DIFFERENCES, output)
    out.print(_told(summary), markup=False)


def _told(summary: Mapping[str, Any]) -> str:
    text = (
        f"{summary['examined']} enrolments: {summary['failures']} would fail, "
        f"{summary['differing']} would get another certificate"
    )
    further = [
        f"{summary[name]} {words}"
        for name, words in (
            ("accepted_now", "fail under the stored profile only"),
            ("refused_before", "fail under both"),
            ("unreadable", "cannot be replayed"),
        )
        if summary[name]
    ]
    return "; ".join([text, *further])


def _pages(api: Api, path: str, body: Mapping[str, Any], limit: int) -> Iterator[Item]:
    after, left = "", limit
    while True:
        size = min(_PAGE, left) if limit else _PAGE
        page = api.send("POST", path, {**body, "after": after, "limit": size})
        yield page
        after, left = page["next"], left - size
        if not after or (limit and left <= 0):
            return


def _all_ids(api: Api) -> list[str]:
    return [str(one["id"]) for one in api.list("/ca/v1/profiles", Listing(limit=0))]
