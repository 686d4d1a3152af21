"""`lamassu ca archive`: certificates that ended long ago."""

from __future__ import annotations

from typing import Annotated

import typer

from lamassu.cli.client import Api, Url
from lamassu.cli.options import DEFAULT_DIRECTORY, Directory, err


def archive(
    older_than: Annotated[
        str, typer.Option(help="How long ago a certificate has to have ended, such as 1y or 90d.")
    ],
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Archive certificates that ended long ago, so that lists stay small.

    They are in no list any more; `lamassu cert get`, OCSP and the issuance log find them as
    before. Stopped in the middle, run it again: it goes on.

    Example: lamassu ca archive --older-than 1y
    """
    api, total = Api(directory, url), 0
    while True:
        done = api.send("POST", "/ca/v1/certificates/archive", {"older_than": older_than})
        moved = done.get("archived")
        if not isinstance(moved, int) or not moved:
            break
        total += moved
        err.print(f"{total} archived")
    typer.echo(f"archived {total} certificates")
