"""`lamassu key backup`: wrapped copies of an HSM's keys, and proof that they restore (on the
host only)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from lamassu import wiring
from lamassu.cli.client import Item
from lamassu.cli.options import (
    DEFAULT_DIRECTORY,
    Approval,
    Asks,
    Directory,
    err,
    fail,
    out,
    run,
)
from lamassu.cli.output import Column, PlainFormat, PlainOutput, show_list
from lamassu.kernel.wire_text import format_time

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, help="Back keys up, restore them, and rehearse it.")

File = Annotated[Path, typer.Argument(help="The backup's file.")]
REHEARSED = (
    Column("key id", "key_id"),
    Column("name", "name"),
    Column("purpose", "purpose"),
    Column("outcome", "outcome"),
)
RESTORED = (
    Column("key id", "key_id"),
    Column("name", "name"),
    Column("purpose", "purpose"),
    Column("from", "from"),
    Column("outcome", "outcome"),
)
HELD = (
    Column("key id", "key_id"),
    Column("name", "name"),
    Column("algorithm", "algorithm"),
    Column("size", "size"),
    Column("purpose", "purpose"),
)
STANDINGS = (
    Column("engine", "engine_id"),
    Column("keys", "keys"),
    Column("in no backup", "missing"),
    Column("last backup", "last_backup"),
    Column("last rehearsal", "last_rehearsal"),
    Column("backed up by", "way"),
)


class Role(StrEnum):
    """What a token is to do with the backup key; never both."""

    ORIGIN = "origin"
    SPARE = "spare"


@app.command()
def component(
    file: Annotated[Path, typer.Argument(help="New file; for one custodian alone.")],
) -> None:
    """Make a component of a backup key: 32 random bytes in hexadecimal digits.

    At least two, each made and kept by another person, apart from the others and from every
    backup: together they are the key under which all keys leave the token.

    Example: lamassu key backup component alice.component
    """
    run(_component(file))
    out.print(f"{file}", markup=False)


async def _component(file: Path) -> None:
    wiring.make_component(file)


@app.command()
def join(
    engine: Annotated[str, typer.Option(help="The crypto engine that gets the backup key.")],
    role: Annotated[
        Role,
        typer.Option("--as", help="origin: its keys are backed up. spare: it restores them."),
    ],
    components: Annotated[
        list[Path], typer.Option("--component", help="A custodian's component; each of them.")
    ],
    so_pin_file: Annotated[
        Path | None,
        typer.Option(help="File with the security officer's PIN, for a token of origin."),
    ] = None,
    directory: Directory = DEFAULT_DIRECTORY,
) -> None:
    """Put the backup key together in a token, of its components.

    Both tokens show the same check value. In the token of origin the security officer trusts it
    to wrap; a wrong PIN is sent once. Remove the files afterwards.

    Example: lamassu key backup join --engine hsm --as origin --component a --component b
    --so-pin-file so.pin
    """
    if (role is Role.ORIGIN) is (so_pin_file is None):
        fail("--so-pin-file goes with --as origin, and with nothing else")
    value = run(wiring.put_backup_key(directory, engine, components, so_pin_file))
    out.print(f"engine {engine} has the backup key with check value {value}", markup=False)


@app.command()
def create(
    to: Annotated[Path, typer.Option(help="The new file.")],
    keys: Annotated[
        list[str] | None, typer.Argument(help="Key ids or aliases; all of the engine if absent.")
    ] = None,
    engine: Annotated[str, typer.Option(help="The crypto engine; the default one if absent.")] = "",
    partial: Annotated[
        bool, typer.Option("--partial", help="Leave out keys that cannot leave the token.")
    ] = False,
    asks: Asks = None,
    approval: Approval = "",
    directory: Directory = DEFAULT_DIRECTORY,
) -> None:
    """Back up an engine's keys into one file, each wrapped by its token.

    Nothing in the file is in clear, and any change of it shows. For keys of CAs that have
    approvers these have to agree. Keep the file apart from the components of the backup key.

    Example: lamassu key backup create --engine production-hsm --to 2030-01.backup
    """
    asking = wiring.Asking(asks, approval)
    plan = wiring.BackupPlan(engine, to, tuple(keys or ()), partial, asking)
    made = _watched(lambda tell: wiring.create_backup(directory, plan, tell))
    for key, why in made.left_out:
        err.print(f"left out: {key.name} ({key.key_id}): {why}", markup=False)
    out.print(
        f"{to}: {_number(made.record.key_ids)} of engine {made.record.engine_id},"
        f" SHA-256 {made.record.sha256}",
        markup=False,
    )


@app.command()
def verify(
    file: File,
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
) -> None:
    """Show what is in a backup, if it is whole; no engine is asked.

    This shows no more than that the file is what was written: rehearse it.

    Example: lamassu key backup verify 2030-01.backup
    """
    backup, digest = run(wiring.verify_backup(directory, file))
    held: list[Item] = [
        {
            "key_id": key.key_id,
            "name": key.name,
            "algorithm": key.spec.algorithm.value,
            "size": key.spec.size,
            "purpose": key.purpose.value,
            "wrapped_under": key.wrapped.wrapped_under,
        }
        for key in backup.keys
    ]
    show_list(held, HELD, output)
    for key_id in backup.left_out:
        err.print(f"left out when it was made: {key_id}", markup=False)
    values = ", ".join(sorted({key.wrapped.wrapped_under for key in backup.keys}))
    err.print(
        f"whole: {_number(held)} of engine {backup.engine_id},"
        f" {backup.created_at:%Y-%m-%d %H:%M} UTC, under the backup key with check value {values},"
        f" SHA-256 {digest}",
        markup=False,
    )


@app.command()
def restore(
    file: File,
    engine: Annotated[str, typer.Option(help="The crypto engine that gets the keys.")],
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
) -> None:
    """Restore a backup into another token, which the keys are used in from then on.

    Each key signs there before its row is switched; what was cut off goes on when this is run
    again. Copies in the token of origin, should it come back, stay: destroy them. Keys that were
    deleted since do not come back.

    Example: lamassu key backup restore 2030-01.backup --engine spare-hsm
    """
    done = _watched(lambda tell: wiring.restore_backup(directory, file, engine, tell))
    items: list[Item] = [
        {
            "key_id": one.key.key_id,
            "name": one.key.name,
            "purpose": one.key.purpose.value,
            "from": one.was_in,
            "outcome": f"signs in {one.key.engine_id}",
        }
        for one in done.restored
    ]
    items += [
        {
            "key_id": key.key_id,
            "name": key.name,
            "purpose": key.purpose.value,
            "from": "",
            "outcome": "not restored: this database does not know it (any more)",
        }
        for key in done.unknown
    ]
    show_list(items, RESTORED, output)


@app.command()
def rehearse(
    file: Annotated[
        Path, typer.Argument(help="The backup's file; a copy of a software engine's directory.")
    ],
    engine: Annotated[
        str, typer.Option(help="A scratch engine; the software engine that was copied.")
    ],
    passphrase_file: Annotated[
        Path | None, typer.Option(help="The copied keystore's; the engine's own if absent.")
    ] = None,
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
) -> None:
    """Show that a backup restores: into a scratch token, a signature by each key, out again.

    The signatures are verified with the public keys that the database has. No key is used from
    there, and what was there before stays. Status 1 if a key did not come back.

    Example: lamassu key backup rehearse 2030-01.backup --engine scratch-hsm
    """
    if file.is_dir():
        held = _watched(
            lambda tell: wiring.rehearse_copy(directory, file, engine, passphrase_file, tell)
        )
    elif passphrase_file is not None:
        fail("--passphrase-file goes with a copy of a software engine's directory")
    else:
        held = _watched(lambda tell: wiring.rehearse_backup(directory, file, engine, tell))
    items: list[Item] = [
        {
            "key_id": trial.key.key_id,
            "name": trial.key.name,
            "purpose": trial.key.purpose.value,
            "outcome": trial.problem or "restored, signed, removed",
            "problem": trial.problem,
        }
        for trial in held.trials
    ]
    if file.is_dir():
        items = [{**item, "outcome": item["problem"] or "signed"} for item in items]
    show_list(items, REHEARSED, output)
    for key in held.unknown:
        err.print(f"passed over, not known to this database: {key.key_id}", markup=False)
    failed = sum(bool(trial.problem) for trial in held.trials)
    if failed:
        fail(f"{failed} of {len(items)} keys did not come back; make a new backup and rehearse it")
    err.print(f"{_number(items)} would come back; recorded", markup=False)


@app.command()
def status(
    output: PlainOutput = PlainFormat.TABLE,
    directory: Directory = DEFAULT_DIRECTORY,
) -> None:
    """Show how each engine's keys are backed up, and when that was last rehearsed.

    Example: lamassu key backup status
    """
    standings = run(wiring.backup_standings(directory))
    items: list[Item] = [
        {
            "engine_id": one.engine_id,
            "keys": one.keys,
            "missing": one.missing,
            "last_backup": one.last_backup and format_time(one.last_backup.created_at),
            "last_rehearsal": one.last_rehearsal
            and one.last_rehearsal.rehearsed_at
            and format_time(one.last_rehearsal.rehearsed_at),
            "rehearsed_in": one.last_rehearsal and one.last_rehearsal.rehearsed_in,
            "way": one.way,
            "warnings": list(one.warnings),
        }
        for one in standings
    ]
    show_list(items, STANDINGS, output)
    for one in standings:
        for warning in one.warnings:
            err.print(f"warning: {warning}", markup=False)


def _watched(work: Callable[[Callable[[str], None]], Coroutine[Any, Any, T]]) -> T:
    """Run it; on a terminal, with a line that says what it is at."""
    with err.status("opening") as line:
        return run(work(line.update))


def _number(keys: Sequence[object]) -> str:
    return f"{len(keys)} key{'s' * (len(keys) != 1)}"
