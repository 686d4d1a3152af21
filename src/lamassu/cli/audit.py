"""`lamassu audit`: the trail of who did what."""

from __future__ import annotations

import typer

from lamassu import wiring
from lamassu.cli.options import DEFAULT_DIRECTORY, Directory, fail, out, run

app = typer.Typer(no_args_is_help=True, help="The trail of who did what.")


@app.callback()
def _group() -> None:
    """Keep `verify` a sub-command."""


@app.command()
def verify(directory: Directory = DEFAULT_DIRECTORY) -> None:
    """Check that no record of any service was changed, removed, inserted or moved.

    Example: lamassu audit verify --dir var
    """
    faults = 0
    for report in run(wiring.verify_journals(directory)):
        out.print(report.summary)
        for fault in report.faults:
            out.print(f"  {fault}")
        faults += len(report.faults)
    if faults:
        fail(f"{faults} faults: the trail was tampered with, or its key is not the one it had")
