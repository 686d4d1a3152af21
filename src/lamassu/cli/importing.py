"""`lamassu import`: come from elsewhere, with CAs, certificates, devices and what was revoked."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, TextIO

import typer

from lamassu.cli.options import DEFAULT_DIRECTORY, Directory, err, fail, out, run
from lamassu.cli.output import Column, PlainFormat, PlainOutput, show_list
from lamassu.kernel.adoption import Outcome
from lamassu.kernel.records import Json
from lamassu.wiring import importing

app = typer.Typer(
    no_args_is_help=True,
    help="""
    Take over what another system has.

    Every certificate is verified with the key of its CA; what cannot be taken over is reported
    and stops nothing else. A command that was interrupted is repeated: what is here stays.

    Example: lamassu import openssl /etc/ssl/myca --passphrase-file pass.txt --dry-run
    """,
)

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Judge everything and report; write nothing.")
]
ReportFile = Annotated[
    Path | None,
    typer.Option(
        "--report",
        help="Write what was skipped, and why, to this file: JSON a line, the counts last.",
    ),
]
Passphrase = Annotated[
    Path | None, typer.Option("--passphrase-file", help="File with the key's passphrase.")
]
Profile = Annotated[
    str, typer.Option(help="Issuance profile by which CAs that come with a key issue.")
]
WithoutKey = Annotated[
    bool, typer.Option("--without-key", help="Leave keys where they are: CAs issue nothing here.")
]
PasswordFile = Annotated[
    Path | None, typer.Option("--password-file", help="File with the database user's password.")
]

_KINDS = {
    "profile": "issuance profiles",
    "ca": "CAs",
    "crl": "CRL numbers",
    "key": "other keys",
    "certificate": "certificates",
    "dms": "DMSs",
    "device": "devices",
    "event": "event counts",
    "other": "other",
}
_COUNTS = (
    Column("what", "what"),
    Column("adopted", "adopted"),
    Column("here already", "present"),
    Column("updated", "updated"),
    Column("skipped", "skipped"),
)
_BETWEEN_LINES = 2.0  # seconds


@app.command()
def openssl(
    ca_directory: Annotated[Path, typer.Argument(help="What openssl.cnf calls dir.")],
    certificate: Annotated[
        Path | None, typer.Option(help="The CA's certificate, if not at a usual place.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="Its key, if not at a usual place.")] = None,
    passphrase_file: Passphrase = None,
    issuer: Annotated[
        list[Path] | None, typer.Option(help="Certificates of the CAs above it; repeatable.")
    ] = None,
    ca_id: Annotated[str, typer.Option("--id", help="The CA's id here; else of its name.")] = "",
    profile: Profile = "",
    without_key: WithoutKey = False,
    dry_run: DryRun = False,
    report: ReportFile = None,
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
) -> None:
    """Take over a CA that `openssl ca` keeps: index.txt, newcerts/, certificate, key.

    Example: lamassu import openssl /etc/ssl/myca --passphrase-file pass.txt --report skipped.jsonl
    """
    files = importing.OpensslFiles(
        ca_directory,
        certificate=certificate,
        key=key,
        passphrase_file=passphrase_file,
        issuers=issuer or (),
        ca_id=ca_id,
        profile_id=profile,
        with_key=not without_key,
    )
    _import(importing.OpensslDirectory(files), directory, dry_run, report, output)


@app.command("step-ca")
def step_ca(
    step_path: Annotated[Path, typer.Argument(help="What `step path` prints.")],
    passphrase_file: Passphrase = None,
    root_passphrase_file: Annotated[
        Path | None, typer.Option(help="The root key's passphrase, if it is another one.")
    ] = None,
    database: Annotated[
        str, typer.Option(help="Its PostgreSQL database: postgresql://USER@HOST:PORT/NAME.")
    ] = "",
    password_file: PasswordFile = None,
    tables: Annotated[
        Path | None, typer.Option(help="Exported tables, where the database is another one.")
    ] = None,
    cas_only: Annotated[
        bool, typer.Option("--cas-only", help="Take the CAs, and leave their certificates.")
    ] = False,
    profile: Profile = "",
    without_key: WithoutKey = False,
    dry_run: DryRun = False,
    report: ReportFile = None,
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
) -> None:
    """Take over a step-ca: its CAs, and its certificates from PostgreSQL or exported tables.

    Example: lamassu import step-ca ~/.step --passphrase-file pass.txt
    --database postgresql://step@db.example:5432/stepca --password-file db.txt
    """
    files = importing.StepFiles(
        step_path,
        passphrase_file=passphrase_file,
        root_passphrase_file=root_passphrase_file,
        database=importing.SourceDatabase(database, password_file) if database else None,
        tables=tables,
        profile_id=profile,
        with_key=not without_key,
        cas_only=cas_only,
    )
    _import(importing.StepCa(files), directory, dry_run, report, output)


@app.command()
def ejbca(
    ca: Annotated[
        list[Path],
        typer.Option(
            "--ca", help="PKCS#12 of `ejbca.sh ca exportca`, or a CA's certificate; repeatable."
        ),
    ],
    certificates: Annotated[
        Path | None, typer.Option(help="The table CertificateData as CSV, with a header.")
    ] = None,
    crl: Annotated[
        list[Path] | None,
        typer.Option(help="A CA's newest CRL: its number goes on here; repeatable."),
    ] = None,
    passphrase_file: Passphrase = None,
    profile: Profile = "",
    without_key: WithoutKey = False,
    dry_run: DryRun = False,
    report: ReportFile = None,
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
) -> None:
    """Take over an EJBCA: CAs that it exported, its table of certificates, its CRL numbers.

    Example: lamassu import ejbca --ca ManagementCA.p12 --passphrase-file pass.txt
    --certificates CertificateData.csv --crl ManagementCA.crl
    """
    files = importing.EjbcaFiles(
        ca,
        certificates=certificates,
        crls=crl or (),
        passphrase_file=passphrase_file,
        profile_id=profile,
        with_key=not without_key,
    )
    _import(importing.EjbcaExport(files), directory, dry_run, report, output)


@app.command()
def lamassu(
    database: Annotated[
        str, typer.Argument(help="Its PostgreSQL server: postgresql://USER@HOST:PORT.")
    ],
    password_file: PasswordFile = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(help="THEIRS=OURS, where a crypto engine has another id; repeatable."),
    ] = None,
    dry_run: DryRun = False,
    report: ReportFile = None,
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
) -> None:
    """Take over an installation of the original, from its six databases.

    Its crypto engines are configured here first: keys stay where they are.

    Example: lamassu import lamassu postgresql://admin@db.example:5432 --password-file db.txt
    """
    engines = {}
    for one in engine or ():
        theirs, equals, ours = one.partition("=")
        if not (theirs and equals and ours):
            fail(f"--engine {one}: say THEIRS=OURS")
        engines[theirs] = ours
    place = importing.OriginalPlace(importing.SourceDatabase(database, password_file), engines)
    source = importing.OriginalInstallation(place)
    _import(source, directory, dry_run, report, output, installation=source)


def _import(
    source: importing.Source,
    directory: Path,
    dry_run: bool,
    report_file: Path | None,
    output: PlainFormat,
    *,
    installation: importing.OriginalInstallation | None = None,
) -> None:
    with ExitStack() as stack:
        lines = None if report_file is None else stack.enter_context(_opened(report_file))
        report = run(
            importing.import_from(
                directory,
                source,
                progress=_Progress(),
                dry_run=dry_run,
                sink=None if lines is None else lambda entry: _write(lines, entry),
                installation=installation,
            )
        )
        document = report.document()
        if lines is not None:
            _write(lines, {"summary": document})
    _show(report, document, output)
    if report.lost_revocations:
        fail(
            f"{report.lost_revocations} certificates that were revoked there were not taken over:"
            " nothing here says that they are revoked. See why, mend it, and repeat the command"
        )
    if report.count_of("ca", Outcome.SKIPPED):
        fail("a CA was not taken over, nor what it issued")


def _opened(path: Path) -> TextIO:
    """Names of devices are nobody else's business."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    return os.fdopen(descriptor, "w", encoding="utf-8")


def _write(lines: TextIO, entry: Mapping[str, Json]) -> None:
    lines.write(json.dumps(entry, ensure_ascii=False) + "\n")


def _show(report: importing.Report, document: Mapping[str, Json], output: PlainFormat) -> None:
    if output is PlainFormat.JSON:
        typer.echo(json.dumps({**document, "first": report.shown}, indent=2, ensure_ascii=False))
        return
    rows = [{"what": _KINDS[kind], **counts} for kind, counts in report.counts.items() if counts]
    show_list(rows, _COUNTS, output)
    for (kind, outcome, code), count in report.reasons.most_common():
        out.print(f"{count} {_KINDS[kind]} {outcome}: {code}", markup=False)
    for entry in report.shown[:20]:
        out.print(f"  {entry['what']}: {entry['text']}", markup=False)
    if report.dry_run:
        out.print("nothing was written: this was a dry run")


class _Progress:
    """A line now and then, on standard error."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, kind: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if done != total and now - self._last < _BETWEEN_LINES:
            return
        self._last = now
        of = "" if total is None else f" of {total}"
        err.print(f"{_KINDS[kind]}: {done}{of}", markup=False)
