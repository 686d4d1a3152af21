"""`lamassu key`, the rest of it: keys made elsewhere, what is said of a key, its end."""

from __future__ import annotations

import base64
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from lamassu import wiring
from lamassu.cli.client import (
    Api,
    Filters,
    Item,
    Listing,
    Url,
    read_input,
    segment,
    without_empty,
)
from lamassu.cli.key_view import DETAILS, STATS, Engine, KeyId, Tags
from lamassu.cli.options import DEFAULT_DIRECTORY, Directory, fail, out, run
from lamassu.cli.output import Column, Format, Output, PlainFormat, PlainOutput, show_list, show_one
from lamassu.wiring.adopting import Adopting, adopt_keys, wanted_adoption

KEYS = "/kms/v1/keys"
ADOPTED = (
    Column("key id", "key_id"),
    Column("old name", "name"),
    Column("algorithm", "algorithm"),
    Column("size", "size"),
    Column("outcome", "outcome"),
)


class Purpose(StrEnum):
    """What an adopted key will be for; it stays so."""

    GENERAL = "general"
    CA = "ca"


def import_(
    file: Annotated[Path, typer.Argument(help="PEM file with the private key; - is stdin.")],
    name: Annotated[str, typer.Option(help="Its name, for people.")] = "",
    engine: Engine = "",
    tag: Tags = None,
    passphrase_file: Annotated[
        Path | None, typer.Option(help="File with the passphrase, if the key is encrypted.")
    ] = None,
    output: Output = Format.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Import a private key that was made elsewhere.

    Whoever may use keys can sign with it; no CA is made of it. The file stays: remove it.

    Example: lamassu key import firmware.pem --name "Firmware 2020"
    """
    pem = read_input(file)
    if passphrase_file is not None:
        pem = _decrypted(pem, read_input(passphrase_file))
    body = without_empty(
        {
            "private_key": base64.b64encode(pem).decode("ascii"),
            "name": name,
            "engine_id": engine,
            "tags": tag or [],
        }
    )
    key = Api(directory, url).create(f"{KEYS}/import", body)
    show_one(key, DETAILS, output, certificate="public_key")


def _decrypted(pem: bytes, passphrase: bytes) -> bytes:
    try:
        key = load_pem_private_key(pem, passphrase.rstrip(b"\r\n"))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        fail("the private key does not open with this passphrase, or is not encrypted")
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def stats(
    filters: Filters = None,
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Count keys by engine and algorithm.

    Example: lamassu key stats --filter 'algorithm[eq]RSA'
    """
    counted = Api(directory, url).get_with("/kms/v1/stats", Listing(filters or ()).query())
    show_one(counted, STATS, output)


def rename(
    key_id: KeyId,
    name: Annotated[str, typer.Argument(help="Its new name.")],
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Give a key another name, for people.

    Example: lamassu key rename firmware "Firmware 2031"
    """
    _show(Api(directory, url).send("PUT", f"{KEYS}/{segment(key_id)}/name", {"name": name}))


def tag(
    key_id: KeyId,
    tags: Annotated[list[str] | None, typer.Argument(help="Its tags from now on.")] = None,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Replace a key's tags; without any, it has none.

    Example: lamassu key tag firmware factory-2 signed-images
    """
    _show(Api(directory, url).send("PUT", f"{KEYS}/{segment(key_id)}/tags", {"tags": tags or []}))


def alias(
    key_id: KeyId,
    add: Annotated[
        list[str] | None, typer.Option(help="One more name to find it by; repeatable.")
    ] = None,
    remove: Annotated[list[str] | None, typer.Option(help="A name to forget; repeatable.")] = None,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Change the names by which a key is found beside its id. One name belongs to one key.

    Example: lamassu key alias firmware --add firmware-2031 --remove firmware-2030
    """
    api = Api(directory, url)
    key = api.get(f"{KEYS}/{segment(key_id)}")
    known = key.get("aliases")
    aliases = [str(one) for one in known] if isinstance(known, list) else []
    missing = [name for name in remove or () if name not in aliases]
    if missing:
        fail(f"the key has no alias {', '.join(missing)}; it has {', '.join(aliases) or 'none'}")
    # tested first, so that a change by somebody else meanwhile is not undone
    patches: list[dict[str, object]] = []
    for name in remove or ():
        at = aliases.index(name)
        patches += [
            {"op": "test", "path": f"/{at}", "value": name},
            {"op": "remove", "path": f"/{at}"},
        ]
        aliases.remove(name)
    patches += [{"op": "add", "path": "/-", "value": name} for name in add or ()]
    path = f"{KEYS}/{segment(str(key.get('key_id')))}/aliases"
    _show(api.send("PUT", path, {"patches": patches}))


def delete(
    key_id: KeyId,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Delete a key for good. A key that a CA or a certificate uses stays.

    Example: lamassu key delete firmware-2020
    """
    if not yes:
        typer.confirm(f"Delete key {key_id} for good?", abort=True, err=True)
    Api(directory, url).send("DELETE", f"{KEYS}/{segment(key_id)}")
    out.print(f"key {key_id} is deleted", markup=False)


def adopt(
    purpose: Annotated[
        Purpose,
        typer.Option(
            "--as",
            help="general: signs for whoever may use keys. ca: for CAs alone. It stays so.",
        ),
    ],
    engine: Engine = "",
    key_id: Annotated[
        list[str] | None,
        typer.Option(help="A key of this id, which any kind of engine finds; repeatable."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what waits, and change nothing.")
    ] = False,
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
) -> None:
    """Take over keys that an engine has from an earlier installation (on the host).

    Such as PEM files in a software engine's directory, which were encrypted at its first start:
    all of them without --key-id. Keys in an HSM, Vault or AWS are named by their ids, the
    SHA-256 of their SubjectPublicKeyInfo in hexadecimal.

    Example: lamassu key adopt --as general --engine software --dry-run --dir var
    """
    wanted = wanted_adoption(engine, purpose.value, dry_run=dry_run, key_ids=key_id or ())
    adopted = run(_adopt(directory, wanted))
    show_list(adopted, ADOPTED, output)
    if any(item["problem"] for item in adopted):
        raise typer.Exit(1)


async def _adopt(directory: Path, wanted: Adopting) -> list[Item]:
    async with wiring.opened(directory) as platform:
        adoptions = await adopt_keys(platform, wanted)
    done = "waits" if wanted.dry_run else "adopted"
    return [
        {
            "key_id": one.found.key_id,
            "name": one.found.name,
            "algorithm": one.found.spec.algorithm.value,
            "size": one.found.spec.size,
            "outcome": one.problem or done,
            "problem": one.problem,
        }
        for one in adoptions
    ]


def _show(key: Item) -> None:
    show_one(key, DETAILS, Format.TABLE)


def register(app: typer.Typer) -> None:
    """Put these commands beside the others of `lamassu key`."""
    app.command("import")(import_)
    for command in (stats, rename, tag, alias, delete, adopt):
        app.command()(command)
