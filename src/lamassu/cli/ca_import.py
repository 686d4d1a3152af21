"""`lamassu ca import`: CAs that were made elsewhere."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Annotated

import typer

from lamassu.cli.client import Api, Item, Url, read_input, without_empty
from lamassu.cli.options import DEFAULT_DIRECTORY, Directory, err, fail
from lamassu.cli.output import Column, Format, Output, show_list
from lamassu.kernel.errors import Malformed
from lamassu.kernel.x509.pem import ders_of

COLUMNS = (
    Column("id", "id"),
    Column("common name", "certificate.subject.common_name"),
    Column("key", lambda ca: ca.get("key_status", "ONLINE")),
    Column("type", "certificate.type"),
    Column("engine", "certificate.engine_id"),
    Column("issuer", "certificate.issuer_metadata.id"),
    Column("level", "level"),
    Column("until", "certificate.valid_to"),
)
LARGEST_PASSWORD = 1024


def import_(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Certificates of CAs, PEM (several in a file) or DER; - is stdin."),
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="Private key of the one CA; PEM or DER, not encrypted.")
    ] = None,
    pkcs12: Annotated[
        Path | None, typer.Option(help="A PKCS #12 file with certificate and key instead.")
    ] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="File whose first line is the password of that file.")
    ] = None,
    ca_id: Annotated[str, typer.Option("--id", help="Id of the one CA; made up if absent.")] = "",
    profile: Annotated[str, typer.Option(help="Default profile of what they issue here.")] = "",
    output: Output = Format.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Take in CAs that were made elsewhere, with or without their keys.

    A CA with its key issues, signs CRLs and answers OCSP from then on; one without is kept as
    an offline one. Each is put below the CA that signed it, in whatever order they come. The
    files stay: remove those with keys.

    Example: lamassu ca import old-root.crt old-issuing.crt

    Example: lamassu ca import plant.crt --key plant.key --id plant-7 --profile device-profile

    Example: lamassu ca import --pkcs12 plant.p12 --password-file password.txt --id plant-7
    """
    bodies = _bodies(files or [], key=key, pkcs12=pkcs12, password_file=password_file)
    if len(bodies) > 1 and ca_id:
        fail(f"these are {len(bodies)} CAs, which cannot all be {ca_id}: import them one by one")
    api = Api(directory, url)
    imported: list[Item] = []
    try:
        for body in bodies:
            given = without_empty({"id": ca_id, "profile_id": profile}) | body
            imported.append(api.create("/ca/v1/cas/import", given))
    finally:
        if imported:
            show_list(imported, COLUMNS, output, certificate="certificate.certificate")
        if len(imported) < len(bodies) > 1:
            err.print(f"{len(imported)} of {len(bodies)} CAs were imported", markup=False)


def _bodies(
    files: list[Path], *, key: Path | None, pkcs12: Path | None, password_file: Path | None
) -> list[Item]:
    if pkcs12 is not None:
        if files or key is not None:
            fail("a PKCS #12 file holds certificate and key: leave the others out")
        password = read_input(password_file).splitlines()[:1] if password_file else []
        return [
            without_empty(
                {
                    "pkcs12": _base64(read_input(pkcs12)),
                    "password": _text(password[0]) if password else "",
                }
            )
        ]
    if password_file is not None:
        fail("--password-file is for --pkcs12; decrypt a key by: openssl pkey -in key.pem")
    if not files:
        fail("name a CA's certificate, or a PKCS #12 file (--pkcs12)")
    bodies: list[Item] = [
        {"ca": _base64(der)} for file in files for der in certificates_in(read_input(file), file)
    ]
    if key is not None:
        if len(bodies) != 1:
            fail(f"--key is the key of one CA, and these are {len(bodies)}")
        bodies[0]["private_key"] = _base64(read_input(key))
    return bodies


def certificates_in(content: bytes, file: Path) -> list[bytes]:
    """The certificates (DER) of a file in PEM or DER."""
    if b"-----BEGIN" not in content:
        return [content]
    try:
        return ders_of(content)
    except Malformed as error:
        fail(f"{file}: {error.text}")


def _text(password: bytes) -> str:
    try:
        return password.decode()[:LARGEST_PASSWORD]
    except UnicodeDecodeError:
        fail("the password file is not UTF-8")


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
