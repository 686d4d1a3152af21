"""`lamassu key`: keys of the key management service."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from lamassu.cli import key_backup, key_upkeep
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
from lamassu.cli.key_view import COLUMNS, DETAILS, Engine, KeyId, Tags
from lamassu.cli.keys import AnyKeyType, usual_signature
from lamassu.cli.options import DEFAULT_DIRECTORY, Approval, Directory, err, fail, out
from lamassu.cli.output import Format, Output, PlainFormat, PlainOutput, show_list, show_one

app = typer.Typer(no_args_is_help=True, help="Keys: they never leave their crypto engine.")

BINDINGS = "lamassu.io/kms/binded-resources"
Message = Annotated[Path, typer.Argument(help="File with the message; - is stdin.")]
Algorithm = Annotated[
    str, typer.Option("--algorithm", help="Such as ECDSA_SHA_256; what fits the key if absent.")
]


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
    """List keys.

    Example: lamassu key list --filter 'algorithm[eq]ECDSA'
    """
    listing = Listing(filters or (), limit, sort, descending)
    show_list(Api(directory, url).list("/kms/v1/keys", listing), COLUMNS, output)


@app.command()
def get(
    key_id: KeyId,
    output: Output = Format.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Show a key; with -o pem its public key.

    Example: lamassu key get firmware -o pem > firmware.pub
    """
    key = Api(directory, url).get(f"/kms/v1/keys/{segment(key_id)}")
    show_one(key, DETAILS, output, certificate="public_key")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Name of the new key.")],
    key_type: Annotated[AnyKeyType, typer.Option("--type", help="Kind of key.")] = AnyKeyType.P256,
    engine: Engine = "",
    tag: Tags = None,
    alias: Annotated[
        list[str] | None, typer.Option(help="Another name in place of the key id; repeatable.")
    ] = None,
    output: Output = Format.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Make a key.

    The name is for people; commands find a key by its id or an alias.

    Example: lamassu key create "Firmware 2030" --alias firmware --type ecdsa-p384
    """
    body = without_empty(
        {
            "name": name,
            "algorithm": key_type.algorithm,
            "size": key_type.bits,
            "engine_id": engine,
            "tags": tag or [],
        }
    )
    api = Api(directory, url)
    for one in alias or ():
        if api.has(f"/kms/v1/keys/{segment(one)}"):
            fail(f"alias {one} is another key's already; no key was made")
    key = api.create("/kms/v1/keys", body)
    if alias:
        made = str(key.get("key_id"))
        patches = [{"op": "add", "path": "/-", "value": one} for one in alias]
        try:
            key = api.send("PUT", f"/kms/v1/keys/{segment(made)}/aliases", {"patches": patches})
        except typer.Exit:
            err.print(
                f"the key was made all the same, without an alias: {made}; "
                f"`lamassu key alias {made} --add NAME` gives it one",
                markup=False,
            )
            raise
    show_one(key, DETAILS, output, certificate="public_key")


@app.command()
def sign(
    key_id: KeyId,
    message: Message,
    algorithm: Algorithm = "",
    to: Annotated[
        Path | None, typer.Option(help="Write the signature's bytes to this file.")
    ] = None,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Sign a message; prints the signature in base64.

    Example: lamassu key sign firmware image.bin --to image.sig
    """
    api = Api(directory, url)
    body = _message(api, key_id, read_input(message), algorithm)
    answer = api.send("POST", f"/kms/v1/keys/{segment(key_id)}/sign", body)
    signature = str(answer.get("signature", ""))
    if to is None:
        typer.echo(signature)
        return
    try:
        to.write_bytes(base64.b64decode(signature))
    except OSError as error:
        fail(f"{to} cannot be written: {error.strerror}")
    out.print(f"{to}", markup=False)


@app.command()
def verify(
    key_id: KeyId,
    message: Message,
    signature: Annotated[Path, typer.Option(help="File with the signature, bytes or base64.")],
    algorithm: Algorithm = "",
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Verify a signature; ends with status 1 if it is wrong.

    Example: lamassu key verify firmware image.bin --signature image.sig
    """
    api = Api(directory, url)
    body = {
        **_message(api, key_id, read_input(message), algorithm),
        "signature": _base64(read_input(signature)),
    }
    answer = api.send("POST", f"/kms/v1/keys/{segment(key_id)}/verify", body)
    if answer.get("valid") is not True:
        fail("the signature is not this key's over this message")
    out.print("the signature is right")


@app.command()
def move(
    key_id: KeyId,
    engine: Annotated[str, typer.Option(help="The crypto engine that the key moves to.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")
    ] = False,
    approval: Approval = "",
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Move a key into another crypto engine; it can be used all the while.

    Both engines have to allow it: most HSMs give no key out (lamassu ca rekey makes a CA a new
    one). A move that was cut off goes on when this is run again. For a CA's key the CA's
    approvers have to agree, if it has any.

    Example: lamassu key move firmware --engine production-hsm --dry-run
    """
    api = Api(directory, url)
    key = api.get(f"/kms/v1/keys/{segment(key_id)}")
    ca_id = _ca_of(api, key)
    path = (
        f"/ca/v1/cas/{segment(ca_id)}/key/move"
        if ca_id
        else f"/kms/v1/keys/{segment(str(key.get('key_id')))}/move"
    )
    body = {"engine_id": engine, "dry_run": dry_run}
    move = api.send("POST", path, body, approval=approval)
    whose = f"the key of CA {ca_id}" if ca_id else f"key {key.get('key_id')}"
    if move.get("step") == "PLANNED":
        out.print(f"{whose} would move from {move.get('source')} to {engine}", markup=False)
    elif dry_run:
        out.print(f"{whose} is on its way to {engine}; run it to go on", markup=False)
    else:
        out.print(f"{whose} is in {engine}", markup=False)


def _ca_of(api: Api, key: Mapping[str, object]) -> str:
    """The CA whose certificate needs the key; empty if none does."""
    metadata = key.get("metadata")
    bindings = metadata.get(BINDINGS) if isinstance(metadata, Mapping) else None
    for binding in bindings if isinstance(bindings, list) else []:
        serial = binding.get("resource_id") if isinstance(binding, Mapping) else None
        certificate = api.get(f"/ca/v1/certificates/{segment(str(serial))}")
        if certificate.get("is_ca"):
            shown = certificate.get("subject_key_id")  # an imported CA's is not its key's id
            query = Listing([f"subject_key_id[eq]{shown}"], 1, "", False)
            for authority in api.list("/ca/v1/cas", query):
                return str(authority.get("id"))
    return ""


def _message(api: Api, key_id: str, message: bytes, algorithm: str) -> dict[str, str]:
    if not algorithm:
        key = api.get(f"/kms/v1/keys/{segment(key_id)}")
        algorithm = usual_signature(str(key.get("algorithm")), int(key.get("size") or 0))
    return {
        "algorithm": algorithm,
        "message": base64.b64encode(message).decode("ascii"),
        "message_type": "raw",
    }


def _base64(signature: bytes) -> str:
    try:
        text = signature.decode("ascii").strip()
        base64.b64decode(text, validate=True)
    except (UnicodeDecodeError, binascii.Error):
        return base64.b64encode(signature).decode("ascii")
    return text


key_upkeep.register(app)
app.add_typer(key_backup.app, name="backup")
