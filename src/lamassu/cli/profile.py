"""`lamassu profile`: issuance profiles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lamassu.cli import profile_trials
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
from lamassu.cli.documents import as_yaml
from lamassu.cli.options import DEFAULT_DIRECTORY, Approval, Directory, fail, out
from lamassu.cli.output import Column, PlainFormat, PlainOutput, show_list, show_one
from lamassu.cli.profile_trials import warn

app = typer.Typer(no_args_is_help=True, help="Issuance profiles: what certificates contain.")
app.command()(profile_trials.check)
app.command()(profile_trials.preview)
app.command("what-if")(profile_trials.what_if)

COLUMNS = (
    Column("id", "id"),
    Column("name", "name"),
    Column("for CAs", "sign_as_ca"),
    Column("validity", lambda item: _validity(item.get("validity"))),
    Column("key usage", "key_usage"),
    Column("extended", "extended_key_usages"),
)
DETAILS = (
    *COLUMNS,
    Column("description", "description"),
    Column("honours subject", "honor_subject"),
    Column("subject rules", "subject_rules"),
    Column("honours SAN", "honor_extensions"),
    Column("SAN rules", "alternative_names"),
    Column("name constraints", "name_constraints"),
    Column("policies", "certificate_policies"),
    Column("only for CA", "ca_id"),
    Column("keys", lambda item: _keys(item.get("crypto_enforcement"))),
)

ProfileId = Annotated[str, typer.Argument(help="Id of the profile.")]


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
    """List profiles.

    Example: lamassu profile list --filter 'name[ct_ic]device'
    """
    listing = Listing(filters or (), limit, sort, descending)
    show_list(Api(directory, url).list("/ca/v1/profiles", listing), COLUMNS, output)


@app.command()
def get(
    profile_id: ProfileId,
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Show a profile.

    Example: lamassu profile get device-profile -o json
    """
    show_one(Api(directory, url).get(f"/ca/v1/profiles/{segment(profile_id)}"), DETAILS, output)


@app.command()
def create(
    profile_id: Annotated[str, typer.Argument(help="Id of the new profile.")] = "",
    name: Annotated[str, typer.Option(help="Name for people; the id if absent.")] = "",
    validity: Annotated[str, typer.Option(help="How long certificates live.")] = "8760h",
    key_usage: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Such as DigitalSignature; repeatable."),
    ] = None,
    extended_key_usage: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Such as ClientAuth; repeatable.")
    ] = None,
    honor_extensions: Annotated[
        bool,
        typer.Option(
            "--honor-extensions/--no-extensions",
            help="Take subject alternative names from the CSR, or none.",
        ),
    ] = True,
    ca: Annotated[str, typer.Option(help="Only for this CA.")] = "",
    file: Annotated[
        Path | None, typer.Option(help="The whole profile, YAML or JSON; - is stdin.")
    ] = None,
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Create a profile for end entities; one for CAs is given with --file.

    Example: lamassu profile create sensors --validity 4380h --extended-key-usage ClientAuth
    """
    if file is None and not profile_id:
        fail("name the new profile, or give its body with --file")
    body = (
        read_document(file) | ({"id": profile_id} if profile_id else {})
        if file is not None
        else without_empty(
            {
                "id": profile_id,
                "name": name or profile_id,
                "validity": {"type": "Duration", "duration": validity},
                "key_usage": key_usage or ["DigitalSignature"],
                "extended_key_usages": extended_key_usage or ["ClientAuth"],
                "honor_subject": True,
                "honor_extensions": honor_extensions,
                "ca_id": ca,
            }
        )
    )
    created = Api(directory, url).create("/ca/v1/profiles", body)
    show_one(created, DETAILS, output)
    warn(created.pop("warnings", ()))


@app.command()
def show(profile_id: ProfileId, directory: Directory = DEFAULT_DIRECTORY, url: Url = None) -> None:
    """Show a whole profile as YAML: a file for create, update, preview and what-if.

    Example: lamassu profile show device-profile > device-profile.yml
    """
    profile = Api(directory, url).get(f"/ca/v1/profiles/{segment(profile_id)}")
    typer.echo(as_yaml(profile), nl=False)


@app.command()
def update(
    profile_id: ProfileId,
    file: Annotated[Path, typer.Option(help="The whole profile, YAML or JSON; - is stdin.")],
    approval: Approval = "",
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Replace a profile. Fields that the original's profile has and the file leaves out get
    their defaults; those beyond it stay as they are.

    Example: lamassu profile update device-profile --file device-profile.yml
    """
    path = f"/ca/v1/profiles/{segment(profile_id)}"
    updated = Api(directory, url).send("PUT", path, read_document(file), approval=approval)
    show_one(updated, DETAILS, output)
    warn(updated.pop("warnings", ()))


@app.command()
def delete(
    profile_id: ProfileId, directory: Directory = DEFAULT_DIRECTORY, url: Url = None
) -> None:
    """Delete a profile that nothing uses.

    Example: lamassu profile delete sensors
    """
    Api(directory, url).send("DELETE", f"/ca/v1/profiles/{segment(profile_id)}")
    out.print(f"deleted {profile_id}", markup=False)


def _validity(validity: object) -> object:
    if not isinstance(validity, dict):
        return None
    return validity.get("duration") or validity.get("time")


def _keys(enforcement: object) -> object:
    """Which keys it certifies, as people say it."""
    if not isinstance(enforcement, dict) or not enforcement.get("enabled"):
        return "any"
    allowed = [
        f"{name} {', '.join(str(size) for size in enforcement.get(sizes) or ())}".rstrip()
        for name, may, sizes in (
            ("RSA", "allow_rsa_keys", "allowed_rsa_key_sizes"),
            ("ECDSA", "allow_ecdsa_keys", "allowed_ecdsa_key_sizes"),
            ("Ed25519", "allow_ed25519_keys", ""),
            ("ML-DSA", "allow_ml_dsa_keys", "allowed_ml_dsa_key_sizes"),
        )
        if enforcement.get(may)
    ]
    return "; ".join(allowed) or "none"
