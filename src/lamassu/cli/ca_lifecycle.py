"""`lamassu ca hold|release|reissue|delete|job`: how CAs end, pause and begin anew."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from lamassu.cli.client import Api, Url, segment, without_empty
from lamassu.cli.options import DEFAULT_DIRECTORY, Approval, Directory, err
from lamassu.cli.output import Column, Format, Output, PlainFormat, PlainOutput, show_one

_LOOK_AGAIN = 1.0

JOB = (
    Column("job", "id"),
    Column("does", "operation"),
    Column("state", "state"),
    Column("certificates", "total"),
    Column("written", "done"),
    Column("told of", "announced"),
    Column("CAs", "ca_ids"),
    Column("begun", "creation_ts"),
    Column("ended", "done_at"),
)
ONE = (
    Column("id", "id"),
    Column("status", "certificate.status"),
    Column("until", "certificate.valid_to"),
    Column("serial number", "serial_number"),
    Column("metadata", "metadata"),
)
CERTIFICATE = "certificate.certificate"

CaId = Annotated[str, typer.Argument(help="Id of the CA.")]


def hold(
    ca_id: CaId,
    approval: Approval = "",
    output: Output = Format.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Put a CA on hold, and with it all below; `lamassu ca release` ends it.

    Example: lamassu ca hold plant-7
    """
    body = {"status": "REVOKED", "revocation_reason": "CertificateHold"}
    _change(ca_id, body, approval, output, Api(directory, url))


def release(
    ca_id: CaId,
    approval: Approval = "",
    output: Output = Format.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Release a CA that is on hold, and all that was held with it.

    Example: lamassu ca release plant-7
    """
    _change(ca_id, {"status": "ACTIVE"}, approval, output, Api(directory, url))


def _change(ca_id: str, body: dict[str, str], approval: str, output: Format, api: Api) -> None:
    ca = api.send("POST", f"/ca/v1/cas/{segment(ca_id)}/status", body, approval=approval)
    show_one(ca, ONE, output, certificate=CERTIFICATE)


def reissue(
    ca_id: CaId,
    profile: Annotated[
        str, typer.Option(help="Profile of the next certificate; of the present shape if absent.")
    ] = "",
    approval: Approval = "",
    output: Output = Format.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Make a CA's certificate anew for the same key: it ends later, all else stays.

    The certificate before stays in force until it ends, so that chains that hold it verify. For a
    new key there is `lamassu ca rekey`.

    Example: lamassu ca reissue manufacturing-ca -o pem > ca.crt
    """
    body = without_empty({"profile_id": profile})
    path = f"/ca/v1/cas/{segment(ca_id)}/reissue"
    ca = Api(directory, url).create(path, body, approval=approval)
    show_one(ca, ONE, output, certificate=CERTIFICATE)


def delete(
    ca_id: CaId,
    cascade: Annotated[
        bool, typer.Option("--cascade", help="Also all CAs and certificates below it.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    approval: Approval = "",
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Delete a CA that is revoked for good or expired, and its key for good.

    Certificates stay, unless --cascade (which the configuration has to allow) deletes them too.

    Example: lamassu ca delete plant-7 --yes
    """
    if not yes:
        below = ", all CAs below and all their certificates" if cascade else ""
        typer.confirm(f"Delete {ca_id}, its key{below} for good?", abort=True, err=True)
    path = f"/ca/v1/cas/{segment(ca_id)}" + ("?cascade_delete=true" if cascade else "")
    Api(directory, url).send("DELETE", path, approval=approval)
    err.print(f"{ca_id} is deleted", markup=False)


def job(
    job_id: Annotated[str, typer.Argument(help="Id of the job, as a revocation told it.")],
    wait: Annotated[
        bool, typer.Option("--wait", help="Until every certificate is written.")
    ] = False,
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Show how far the job is that a revoked or deleted CA left.

    Example: lamassu ca job 0d6c2a5e-6b0f-4c55-9d0f-2a4f8f0c1d11 --wait
    """
    api = Api(directory, url)
    path = f"/ca/v1/jobs/{segment(job_id)}"
    found = api.get(path)
    while wait and found.get("state") == "RUNNING":
        err.print(f"{found.get('done')} of {found.get('total') or '?'}", markup=False)
        time.sleep(_LOOK_AGAIN)
        found = api.get(path)
    show_one(found, JOB, output)
