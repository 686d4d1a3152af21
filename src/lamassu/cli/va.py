"""`lamassu va`: what relying parties are told, also of CAs whose key is offline."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Annotated

import typer

from lamassu.cli.ca_external import write_pem
from lamassu.cli.client import Api, Listing, Url, read_input, segment, without_empty
from lamassu.cli.keys import KeyType
from lamassu.cli.options import DEFAULT_DIRECTORY, Directory, err, fail, out
from lamassu.cli.output import Column, PlainFormat, PlainOutput, show_list, show_one

app = typer.Typer(
    no_args_is_help=True, help="CRLs, revocation filters, and OCSP of CAs whose key is offline."
)

IMPORTED = (
    Column("CA", "ca_id"),
    Column("CRL number", "crl.version"),
    Column("revoked", "crl.entries"),
    Column("until", "crl.valid_until"),
    Column("responders", lambda answer: len(answer.get("responders") or ())),
    Column("revoked here, not on it", "pending"),
)
RESPONDERS = (
    Column("CA", "ca_id"),
    Column("status", "status"),
    Column("until", "valid_to"),
    Column("engine", "engine_id"),
    Column("key id", "key_id"),
)
ROLE = (
    Column("CRL every", "crl_options.refresh_interval"),
    Column("CRLs live", "crl_options.validity"),
    Column("CRL at a revocation", "crl_options.regenerate_on_revoke"),
    Column("newest CRL", "latest_crl.version"),
    Column("until", "latest_crl.valid_until"),
    Column("filter every", "filter_interval"),
)


@app.command("import-crl")
def import_crl(
    file: Annotated[
        Path, typer.Argument(help="A ceremony's bundle, or a CRL in DER or PEM; - is stdin.")
    ],
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Serve the CRL of an offline CA, and answer OCSP with the responders of its bundle.

    Example: lamassu va import-crl session-1.bundle
    """
    body = {"signed": base64.b64encode(read_input(file)).decode("ascii")}
    show_one(Api(directory, url).send("POST", "/va/v1/crls/import", body), IMPORTED, output)


@app.command("export-revocations")
def export_revocations(
    ca_id: Annotated[str, typer.Argument(help="Id of the offline CA.")],
    to: Annotated[Path | None, typer.Option(help="Write to this file.")] = None,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Write down what the next CRL of an offline CA must list, for its ceremony.

    Example: lamassu va export-revocations root-ca --to revocations.json
    """
    order = Api(directory, url).get(f"/va/v1/cas/{segment(ca_id)}/revocations")
    pending = order.pop("pending", None) or []
    text = json.dumps(order, indent=2) + "\n"
    if to is None:
        typer.echo(text, nl=False)
    else:
        try:
            to.write_text(text)
        except OSError as error:
            fail(f"{to} cannot be written: {error.strerror}")
        out.print(str(to), markup=False)
    err.print(
        f"{len(order.get('revoked') or ())} revoked, {len(pending)} of them on no CRL yet",
        markup=False,
    )


@app.command("request-responder")
def request_responder(
    ca_id: Annotated[str, typer.Argument(help="Id of the offline CA, known here or not yet.")],
    csr: Annotated[
        Path | None, typer.Option(help="File for the request; ID-ocsp.csr if absent.")
    ] = None,
    key_type: Annotated[KeyType, typer.Option(help="Kind of its key.")] = KeyType.P256,
    engine: Annotated[str, typer.Option(help="Crypto engine that keeps the key.")] = "",
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Make the key of an OCSP responder for an offline CA, and a CSR for its ceremony.

    Example: lamassu va request-responder root-ca
    """
    body = without_empty(
        {
            "ca_id": ca_id,
            "engine_id": engine,
            "key_metadata": {"type": key_type.algorithm, "bits": key_type.bits},
        }
    )
    responder = Api(directory, url).create("/va/v1/responders", body)
    path = csr or Path(f"{ca_id}-ocsp.csr")
    write_pem(path, responder.get("csr"))
    out.print(str(path), markup=False)


@app.command()
def responders(
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """List the OCSP responders of offline CAs.

    Example: lamassu va responders
    """
    show_list(Api(directory, url).list("/va/v1/responders", Listing(limit=0)), RESPONDERS, output)


@app.command()
def role(
    ca_id: Annotated[str, typer.Argument(help="Id of the CA.")],
    refresh_interval: Annotated[
        str, typer.Option(help="How often its CRL is made, such as 12h.")
    ] = "",
    validity: Annotated[str, typer.Option(help="How long CRLs and filters live.")] = "",
    filter_interval: Annotated[
        str, typer.Option(help="How often its revocation filter is made; 0s for never.")
    ] = "",
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Show how a CA's CRLs and revocation filters are made, or change it.

    Example: lamassu va role fleet-operations-ca --filter-interval 1h
    """
    api = Api(directory, url)
    authority = api.get(f"/ca/v1/cas/{segment(ca_id)}")
    path = f"/va/v1/roles/{segment(authority['certificate']['subject_key_id'])}"
    change = without_empty(
        {
            "refresh_interval": refresh_interval,
            "validity": validity,
            "filter_interval": filter_interval,
        }
    )
    show_one(api.send("PUT", path, change) if change else api.get(path), ROLE, output)
