"""`lamassu db`: the database's schema."""

from __future__ import annotations

import typer

from lamassu import wiring
from lamassu.cli.options import DEFAULT_DIRECTORY, Directory, out, run

app = typer.Typer(no_args_is_help=True, help="The database's schema.")


@app.callback()
def _group() -> None:
    """Keep `migrate` a sub-command."""


@app.command()
def migrate(directory: Directory = DEFAULT_DIRECTORY) -> None:
    """Bring every service's tables to this program's revision.

    The services themselves run without the right to change tables.

    Example: lamassu db migrate --dir var
    """
    for line in run(wiring.migrate_database(directory)):
        out.print(line)
