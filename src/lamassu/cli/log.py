"""`lamassu log`: the issuance log, which nobody can rewrite unseen."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from lamassu.cli.client import Api, Item, Url
from lamassu.cli.options import DEFAULT_DIRECTORY, Directory, err, fail, out, run
from lamassu.cli.output import Column, PlainFormat, PlainOutput, show_one
from lamassu.kernel.errors import LamassuError
from lamassu.kernel.merkle import Head, leaf_hash, verify_inclusion
from lamassu.kernel.signed_note import (
    VerifierKey,
    parse_checkpoint,
    parse_verifier_key,
    proof_lines,
    verify_note,
)
from lamassu.platform.security.private_files import replace_private_file
from lamassu.wiring import log_audit

app = typer.Typer(
    no_args_is_help=True, help="The issuance log: what was issued and revoked, for good."
)

LOG = "/ca/v1/log"
ALARM = 4
"""The status of `monitor` and `verify` when the log or a row is not what it was."""

COLUMNS = (
    Column("origin", "origin"),
    Column("key", "key"),
    Column("entries", "size"),
    Column("signed", "signed_size"),
    Column("adopted", "adopted"),
    Column("adopting", "adopting"),
    Column(
        "witnesses",
        lambda one: ", ".join(f"{each['name']}: {each['size']}" for each in one["witnesses"]),
    ),
    Column("witness key", "witness_key"),
)

Key = Annotated[
    str,
    typer.Option(
        help="The log's key as you wrote it down when you trusted it: name+hash+key, or a file"
        " that holds it."
    ),
]
Tiles = Annotated[
    Path | None, typer.Option("--tiles", help="A folder that `lamassu log export` wrote.")
]


class ApiTiles:
    """The log as the platform's API shows it."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def read(self, path: str) -> bytes | None:
        """A file of the layout of C2SP tlog-tiles."""
        return self._api.content(f"{LOG}/{path}")


@app.command()
def status(
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Show the log's name and key, how long it is, and how far its witnesses signed.

    Write the key down somewhere else: it is what `verify` and `monitor` trust.

    Example: lamassu log status --dir var
    """
    show_one(Api(directory, url).get(LOG), COLUMNS, output)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Where to; what is there is gone on with.")],
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Copy the log into a folder that any web server can serve (C2SP tlog-tiles).

    Run it again to add what is new. Keep a copy on another host: against it nobody can set
    the log back or fork it.

    Example: lamassu log export /srv/log --dir var
    """
    before, now = run(log_audit.export_log(ApiTiles(Api(directory, url)), folder, _progress))
    out.print(f"{folder}: {now} entries, {now - before} of them new", markup=False)


@app.command()
def verify(
    tiles: Tiles = None,
    key: Key = "",
    database: Annotated[
        bool,
        typer.Option("--database/--no-database", help="Compare every certificate's row, too."),
    ] = True,
    directory: Directory = DEFAULT_DIRECTORY,
) -> None:
    """Compute the tree anew, check its signature, and compare every certificate with it.

    Names each certificate, revocation and row that was changed, removed or issued behind the
    log's back; ends with status 4 then. It asks no server: it reads the database that --dir
    configures, and with --tiles an exported log that is known to be true.

    Example: lamassu log verify --tiles /srv/log --key log.vkey --dir var
    """
    given = _key(key)
    if not database:
        if tiles is None or given is None:
            fail("without the database, --tiles and --key say what to judge")
        report = run(log_audit.verify_tiles(tiles, key=given, progress=_progress))
    else:
        report, given = run(
            log_audit.verify_log(directory, tiles=tiles, key=given, progress=_progress)
        )
    _show(report, anchored=bool(key), key=given)


def _show(report: log_audit.LogReport, *, anchored: bool, key: VerifierKey) -> None:
    for one in report.findings:
        out.print(f"{one.subject}: {one.text}", markup=False)
    if report.unnamed:
        out.print(f"and {report.unnamed} more")
    rows = f", {report.rows} certificates" if report.compared else ""
    adopted = f", {report.adopted} adopted from before the log" if report.adopted else ""
    unanchored = "" if anchored else ", unanchored: the key was taken from what was judged"
    verdict = "intact" if report.intact else "TAMPERED WITH"
    out.print(f"{key.name}: {report.size} entries{rows}{adopted}, {verdict}{unanchored}")
    if not report.intact:
        raise typer.Exit(ALARM)


@dataclass(frozen=True)
class Seen:
    """What a monitor remembers."""

    key: VerifierKey
    head: Head | None


@app.command()
def monitor(
    state: Annotated[Path, typer.Option(help="What was seen last; made at the first run.")],
    tiles: Tiles = None,
    key: Key = "",
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Check that the log goes on from where it was seen last; run it each minute.

    Status 0: it does. 4: it was set back, forked or damaged, and the state file keeps what was
    seen. 1: it could not be read. The first run believes --key, or the key that it is shown.

    Example: lamassu log monitor --state /var/lib/monitor/log.json --dir var
    """
    api = None if tiles else Api(directory, url)
    source: log_audit.TileSource = log_audit.FolderTiles(tiles) if tiles else ApiTiles(_some(api))
    seen = _seen(state, _key(key), api)
    try:
        checkpoint = run_or_alarm(log_audit.follow(source, key=seen.key, seen=seen.head))
    except _Alarm as alarm:
        err.print(f"[bold red]ALARM[/bold red] {alarm.text}")
        raise typer.Exit(ALARM) from None
    document = {
        "key": str(seen.key),
        "size": checkpoint.head.size,
        "root": checkpoint.head.root.hex(),
        "seen_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "checkpoint": str(checkpoint),
    }
    replace_private_file(state, json.dumps(document, indent=2).encode())
    grown = checkpoint.head.size - (seen.head.size if seen.head else 0)
    out.print(
        f"{checkpoint.origin}: {checkpoint.head.size} entries, {grown} since it was seen last",
        markup=False,
    )


class _Alarm(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


def run_or_alarm(work: Any) -> Any:
    """As `run`, but what a log does wrong is told apart from what keeps it from being read."""

    async def judged() -> Any:
        try:
            return await work
        except LamassuError as error:
            if error.code in log_audit.ALARMS:
                raise _Alarm(error.text) from None
            raise

    return run(judged())


def _seen(state: Path, key: VerifierKey | None, api: Api | None) -> Seen:
    if not state.exists():
        if key is None and api is None:
            fail("a folder of tiles does not say whose it is: give --key at the first run")
        return Seen(key or parse_verifier_key(str(_some(api).get(LOG)["key"])), None)
    try:
        told: Mapping[str, Any] = json.loads(state.read_text())
        known = parse_verifier_key(str(told["key"]))
        head = Head(int(told["size"]), bytes.fromhex(told["root"]))
    except (ValueError, KeyError, TypeError, LamassuError):
        fail(f"{state} is no state of a monitor; move it away, after asking who changed it")
    if key is not None and key != known:
        fail(f"{state} belongs to the log {known.name} with another key")
    return Seen(known, head)


def _some(api: Api | None) -> Api:
    assert api is not None  # the caller looked
    return api


@app.command()
def prove(
    serial_number: Annotated[str, typer.Argument(help="Serial number, lower-case hex.")],
    key: Key = "",
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Show what the log holds of a certificate, with proofs that were checked here.

    With -o json: the proofs themselves, which anybody can check with the log's key.

    Example: lamassu log prove 1a2b3c4d --dir var
    """
    api = Api(directory, url)
    found = api.get_with(f"{LOG}/proof/inclusion", [("serial", serial_number)])
    trusted = _key(key) or parse_verifier_key(str(api.get(LOG)["key"]))
    try:
        _check_proofs(found, trusted)
    except LamassuError as error:
        fail(error.text)
    if output is PlainFormat.JSON:
        typer.echo(json.dumps(found, indent=2))
        return
    for entry in found["entries"]:
        told = json.loads(entry["entry"])
        told_status = told.get("status", "")
        out.print(
            f"{entry['index']:>8}  {told['time']}  {told['type']:9} {told_status}", markup=False
        )
    out.print(f"proved in the tree of {found['size']} entries, signed by {trusted.name}")


def _check_proofs(found: Item, key: VerifierKey) -> None:
    checkpoint = parse_checkpoint(str(found["checkpoint"]))
    verify_note(checkpoint, key)
    for entry in found["entries"]:
        proof = [base64.b64decode(each) for each in entry["proof"]]
        leaf = leaf_hash(str(entry["entry"]).encode())
        verify_inclusion(
            leaf, int(entry["index"]), checkpoint.head.size, proof, checkpoint.head.root
        )


@app.command()
def witness(
    tiles: Annotated[Path, typer.Argument(help="Another log's export, as it was carried here.")],
    directory: Directory = DEFAULT_DIRECTORY,
    url: Url = None,
) -> None:
    """Have this installation sign the head of another log, if it continues the one before.

    For logs that cannot reach this installation by themselves (log.witnesses there). The log's
    key must stand under log.witnessed here. Prints the checkpoint with the signature.

    Example: lamassu log witness /media/usb/log --dir var
    """
    api = Api(directory, url)
    source = log_audit.FolderTiles(tiles)
    checkpoint = run(log_audit.read_checkpoint(source))
    old = 0
    for _ in range(2):  # the first answer may be where the witness is
        if old > checkpoint.head.size:
            fail(f"a head of size {old} was signed here: the log was set back")
        proof = run(log_audit.consistency(source, old, checkpoint.head.size))
        answer = api.post_text(
            f"{LOG}/add-checkpoint", f"old {old}\n{proof_lines(proof)}\n{checkpoint}"
        )
        if answer.is_success:
            typer.echo(str(checkpoint) + answer.text, nl=False)
            return
        size = answer.text.strip()
        if not size.isascii() or not size.isdecimal():
            fail(str(answer.json().get("err", "the witness refuses")))
        old = int(size)
    fail("the witness changes its mind; try again")


def _key(given: str) -> VerifierKey | None:
    if not given:
        return None
    try:
        path = Path(given)
        return parse_verifier_key(path.read_text() if path.is_file() else given)
    except OSError as error:
        fail(f"{given} cannot be read: {error.strerror}")
    except LamassuError as error:
        fail(error.text)


def _progress(done: int, of: int) -> None:
    if err.is_terminal and (done == of or not done % 65_536):
        err.print(f"[dim]{done} of {of}[/dim]")
