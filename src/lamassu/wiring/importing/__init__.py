"""`lamassu import`: on the host, past the API, which could not take a million certificates.

A reader for each system (`Source`), which only reads; `run.Import`, which has the services judge
and store what it finds.
"""

from __future__ import annotations

from pathlib import Path

from lamassu.wiring.importing.ejbca import EjbcaExport, EjbcaFiles
from lamassu.wiring.importing.material import Installation, Source
from lamassu.wiring.importing.openssl import OpensslDirectory, OpensslFiles
from lamassu.wiring.importing.original import OriginalInstallation, OriginalPlace
from lamassu.wiring.importing.postgres import SourceDatabase
from lamassu.wiring.importing.report import Report, Sink
from lamassu.wiring.importing.run import Import, Progress
from lamassu.wiring.importing.step_ca import StepCa, StepFiles
from lamassu.wiring.platform import opened

__all__ = [
    "EjbcaExport",
    "EjbcaFiles",
    "OpensslDirectory",
    "OpensslFiles",
    "OriginalInstallation",
    "OriginalPlace",
    "Progress",
    "Report",
    "Sink",
    "Source",
    "SourceDatabase",
    "StepCa",
    "StepFiles",
    "import_from",
]


async def import_from(
    directory: Path,
    source: Source,
    *,
    progress: Progress,
    dry_run: bool,
    sink: Sink | None = None,
    installation: Installation | None = None,
) -> Report:
    """Take over what `source` has into the installation in `directory`; `installation` is the
    same source, if it has devices too. Raises a `LamassuError` whose text says what to do."""
    report = Report(source.name, dry_run, sink)
    async with opened(directory) as platform:
        run = Import(
            platform=platform,
            source=source,
            report=report,
            installation=installation,
            progress=progress,
        )
        return await run.run()
