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

    "unanchored": without a head that was exported before, a missing tail cannot be told.

    Example: lamassu audit verify --dir var
    """
    wrong = 0
    for report in run(wiring.verify_journals(directory)):
        verdict = "intact" if report.intact else "TAMPERED WITH"
        anchored = "" if report.anchored else ", unanchored"
        out.print(f"{report.service}: {report.records} records, {verdict}{anchored}")
        for fault in report.faults:
            where = "" if fault.position is None else f"position {fault.position}: "
            out.print(f"  {where}{fault.text}", markup=False)
        wrong += len(report.faults)
    if wrong:
        fail(f"{wrong} faults: records were tampered with, or secrets/audit.key is another one")
