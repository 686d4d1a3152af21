"""Options and ends that several commands share."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.markup import escape

from lamassu.kernel.errors import Deferred, LamassuError

T = TypeVar("T")

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

Directory = Annotated[
    Path,
    typer.Option("--dir", help="The installation's directory.", show_default=True),
]
DEFAULT_DIRECTORY = Path("var")
Asks = Annotated[
    Path | None,
    typer.Option(
        "--as", help="Who asks approvers: NAME.crt, with NAME.key beside it; by default admin.crt."
    ),
]
RootKey = Annotated[
    Path | None, typer.Option(help="The internal root's key, back from where it was taken.")
]
RootPassphrase = Annotated[
    Path | None, typer.Option("--root-passphrase-file", help="Its passphrase.")
]
Approval = Annotated[
    str, typer.Option("--approval", help="Id of the approval, once enough approvers agreed.")
]


def fail(text: str) -> NoReturn:
    """Say what is wrong and end with status 1."""
    err.print(f"[bold red]lamassu:[/bold red] {escape(text)}")
    raise typer.Exit(1)


WAITS = 3  # a command's status when it was stored for approval and nothing was done


def waits(approval_id: str, text: str) -> NoReturn:
    """Say that others have to agree first: the approval's id on standard output, status 3."""
    err.print(
        f"[yellow]{escape(text)}[/yellow]\n"
        f"they agree by: lamassu approval approve {escape(approval_id)}\n"
        f"then repeat the command with: --approval {escape(approval_id)}"
    )
    typer.echo(approval_id)
    raise typer.Exit(WAITS)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work; an expected error becomes its text and status 1."""
    try:
        return asyncio.run(work)
    except Deferred as waiting:
        waits(str(waiting.document["id"]), waiting.text)
    except LamassuError as error:
        where = f" ({error.field})" if error.field else ""
        fail(f"{error.text}{where}")
    except OSError as error:
        fail(file_fault(error))


def file_fault(error: OSError) -> str:
    """What the system refused, as one line: the file, if it was one, and why."""
    reason = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {reason}" if error.filename else reason
