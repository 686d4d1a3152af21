"""`lamassu ca`: certification authorities."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lamassu.cli import ca_archive, ca_external, ca_import, ca_lifecycle
from lamassu.cli.ca_lifecycle import CERTIFICATE, CaId
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
from lamassu.cli.options import DEFAULT_DIRECTORY, Approval, Directory, err, fail
from lamassu.cli.output import Column, Format, Output, revocation_reason, show_list, show_one

app = typer.Typer(no_args_is_help=True, help="Certification authorities.")
approvals = typer.Typer(
    no_args_is_help=True, help="Who has to agree to what is dangerous for a CA."
)
app.add_typer(approvals, name="approvals")
app.command("import")(ca_import.import_)
app.command("import-signed")(ca_external.import_signed)
app.command()(ca_archive.archive)
app.command()(ca_external.requests)
app.command()(ca_external.withdraw)
for _command in (
    ca_lifecycle.hold,
    ca_lifecycle.release,
    ca_lifecycle.reissue,
    ca_lifecycle.delete,
    ca_lifecycle.job,
):
    app.command()(_command)

COLUMNS = (
    Column("id", "id"),
    Column("common name", "certificate.subject.common_name"),
    Column("status", "certificate.status"),
    Column("level", "level"),
    Column("issuer", "certificate.issuer_metadata.id"),
    Column("until", "certificate.valid_to"),
    Column("key", lambda item: item.get("key_status", "ONLINE")),
    Column("profile", "profile_id"),
)
DETAILS = (
    *COLUMNS,
    Column("serial number", "serial_number"),
    Column("subject key id", "certificate.subject_key_id"),
    Column("next generation", "successor_id"),
    Column("generation of", "generation_of"),
    Column("key type", "certificate.key_metadata.type"),
    Column("bits", "certificate.key_metadata.bits"),
    Column("revoked at", "certificate.revocation_timestamp"),
    Column("reason", revocation_reason("certificate")),
    Column("approvals", lambda item: _policy(item.get("approvals"))),
    Column("metadata", "metadata"),
)

REKEY_PLAN = (
    Column("CA", "old_id"),
    Column("next generation", "new_id"),
    Column("engine", "engine_id"),
    Column("key", "key_metadata.type"),
    Column("size", "key_metadata.bits"),
    Column("signed by", "signed_by"),
    Column("valid until", "valid_to"),
    Column("cross-certificates until", "cross_certificates_valid_to"),
)


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
    external_root: Annotated[
        str, typer.Option(help="Id of a root whose key is offline: a CSR for it is written.")
    ] = "",
    csr: Annotated[Path | None, typer.Option(help="File for that CSR; ID.csr if absent.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="The whole body as JSON instead; - is stdin.")
    ] = None,
    approval: Approval = "",
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
                "external_root": external_root,
                "profile_id": profile,
                "ca_issuance_profile_id": own_profile,
                "engine_id": engine,
            }
        )
    )
    api = Api(directory, url)
    if body.get("external_root"):
        ca_external.ask(api, body, csr=csr, approval=approval)
        return
    ca = api.create("/ca/v1/cas", body, approval=approval)
    show_one(ca, DETAILS, output, certificate=CERTIFICATE)


@app.command()
def revoke(
    ca_id: CaId,
    reason: Annotated[str, typer.Option(help="Such as CACompromise.")] = "CessationOfOperation",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    approval: Approval = "",
    output: Output = Format.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Revoke a CA, and with it everything below.

    Of a CA that got a new key this is one generation: the next one goes on.

    Example: lamassu ca revoke plant-7 --reason CACompromise
    """
    if not yes:
        typer.confirm(f"Revoke {ca_id} and every certificate under it?", abort=True, err=True)
    body = {"status": "REVOKED", "revocation_reason": reason}
    ca = Api(directory, url).send(
        "POST", f"/ca/v1/cas/{segment(ca_id)}/status", body, approval=approval
    )
    show_one(ca, DETAILS, output, certificate=CERTIFICATE)
    successor = ca.get("successor_id")
    if successor:
        err.print(
            f"{successor}, its next generation, goes on issuing for whatever names {ca_id};"
            f" to end that too: lamassu ca revoke {successor}",
            markup=False,
        )


@app.command()
def rekey(
    ca_id: CaId,
    engine: Annotated[
        str, typer.Option(help="Crypto engine of the new key; the default one if absent.")
    ] = "",
    key_type: Annotated[
        KeyType | None, typer.Option(help="Kind of the new key; the present one's if absent.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be made, and make nothing.")
    ] = False,
    approval: Approval = "",
    output: Output = Format.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Give a CA a new key, in any engine: its next generation.

    Whatever names the CA issues under the new key from then on; the old one answers for what it
    issued. Old and new key certify each other, so that whoever trusts one of them verifies
    what is issued under both. One that was cut off is asked for again.

    Example: lamassu ca rekey manufacturing-ca --engine production-hsm --dry-run
    """
    body: dict[str, object] = {"engine_id": engine, "dry_run": dry_run}
    if key_type is not None:
        body["key_metadata"] = {"type": key_type.algorithm, "bits": key_type.bits}
    api = Api(directory, url)
    made = api.create(f"/ca/v1/cas/{segment(ca_id)}/rekey", body, approval=approval)
    if dry_run:
        show_one(made, REKEY_PLAN, output)
    else:
        show_one(made, DETAILS, output, certificate=CERTIFICATE)


@approvals.command("set")
def set_approvals(
    ca_id: CaId,
    of: Annotated[list[str], typer.Option(help="Name of an admin who approves; repeatable.")],
    required: Annotated[int, typer.Option(min=1, help="So many of them have to agree.")] = 2,
    lifetime: Annotated[str, typer.Option(help="How long a request waits.")] = "24h",
    approval: Approval = "",
    output: Output = Format.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Ask approvers before children, revocation, export, weaker rules, and changes of this.

    Example: lamassu ca approvals set root-ca --required 2 --of alice --of bob --of carol
    """
    policy = {"required": required, "of": of, "lifetime": lifetime}
    _change_approvals(ca_id, policy, approval, output, Api(directory, url))


@approvals.command("clear")
def clear_approvals(
    ca_id: CaId,
    approval: Approval = "",
    output: Output = Format.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Ask nobody any more; those who had to agree have to agree to this too.

    Example: lamassu ca approvals clear root-ca
    """
    _change_approvals(ca_id, {"required": 0, "of": []}, approval, output, Api(directory, url))


def _change_approvals(
    ca_id: str, policy: dict[str, object], approval: str, output: Format, api: Api
) -> None:
    path = f"/ca/v1/cas/{segment(ca_id)}/approvals"
    ca = api.send("PUT", path, policy, approval=approval)
    show_one(ca, DETAILS, output, certificate=CERTIFICATE)


def _policy(policy: object) -> object:
    if not isinstance(policy, dict):
        return None
    return f"{policy.get('required')} of {', '.join(map(str, policy.get('of') or ()))}"
