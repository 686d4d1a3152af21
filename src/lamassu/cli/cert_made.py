"""`lamassu cert import|create`: certificates of elsewhere, and with keys of the platform's."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Annotated

import typer

from lamassu.cli.ca_import import certificates_in
from lamassu.cli.client import Api, Item, Url, read_input, without_empty
from lamassu.cli.keys import AnyKeyType
from lamassu.cli.options import DEFAULT_DIRECTORY, Directory, err, fail
from lamassu.cli.output import Column, Format, Output, show_list, show_one

COLUMNS = (
    Column("serial number", "serial_number"),
    Column("common name", "subject.common_name"),
    Column("status", "status"),
    Column("issuer", "issuer_metadata.id"),
    Column("until", "valid_to"),
)
MADE = (*COLUMNS, Column("key id", "subject_key_id"), Column("engine", "engine_id"))
CERTIFICATE = "certificate"


def import_(
    files: Annotated[
        list[Path], typer.Argument(help="Certificates, PEM (several in a file) or DER; - is stdin.")
    ],
    metadata: Annotated[str, typer.Option(help="Metadata of each, a JSON object.")] = "",
    output: Output = Format.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Keep certificates that were issued elsewhere; import their CAs first.

    Of one that a CA of the platform signed, OCSP and CRL speak from then on; any other is only
    kept.

    Example: lamassu cert import server-1.pem server-2.der
    """
    given = _object(metadata) if metadata else {}
    ders = [der for file in files for der in certificates_in(read_input(file), file)]
    api = Api(directory, url)
    imported: list[Item] = []
    try:
        for der in ders:
            text = base64.b64encode(der).decode("ascii")
            body = without_empty({"certificate": text, "metadata": given})
            imported.append(api.create("/ca/v1/certificates/import", body))
    finally:
        if imported:
            show_list(imported, COLUMNS, output, certificate=CERTIFICATE)
        if len(imported) < len(ders) > 1:
            err.print(f"{len(imported)} of {len(ders)} certificates were imported", markup=False)


def create(
    ca: Annotated[str, typer.Option(help="CA that is to issue.")],
    common_name: Annotated[str, typer.Option("--cn", help="Common name.")],
    organization: Annotated[str, typer.Option("--org", help="Organization.")] = "",
    country: Annotated[str, typer.Option(help="Country, two letters.")] = "",
    key_type: Annotated[
        AnyKeyType | None, typer.Option(help="Kind of the key to make; ecdsa-p256 if absent.")
    ] = None,
    engine: Annotated[str, typer.Option(help="Crypto engine of that key.")] = "",
    key: Annotated[
        str, typer.Option(help="A general key of the KMS instead: id, alias or PKCS #11 URI.")
    ] = "",
    profile: Annotated[str, typer.Option(help="Profile; the CA's own if absent.")] = "",
    output: Output = Format.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Make a key in the KMS and its certificate; the key signs by `lamassu key sign`.

    Example: lamassu cert create --ca issuing-ca --cn signer-1 --key-type rsa-3072
    """
    if key and (key_type is not None or engine):
        fail("a key that is here has its kind and engine: leave --key-type and --engine out")
    kind = key_type or AnyKeyType.P256
    spec = {"type": kind.algorithm, "bits": kind.bits, "engine_id": engine}
    body = without_empty(
        {
            "ca_id": ca,
            "key_spec": {"key_identifier": key} if key else spec,
            "subject": without_empty(
                {"common_name": common_name, "organization": organization, "country": country}
            ),
            "issuance_profile_id": profile,
        }
    )
    made = Api(directory, url).create("/ca/v1/certificates", body)
    show_one(made, MADE, output, certificate=CERTIFICATE)


def _object(text: str) -> Item:
    try:
        document = json.loads(text)
    except ValueError as error:
        fail(f"--metadata is no JSON: {error}")
    if not isinstance(document, dict):
        fail("--metadata is no JSON object")
    return document
