"""Pages of `docs/how-to`, as a reader types them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

PAGES = Path(__file__).resolve().parents[2] / "docs" / "how-to"


def shell_blocks(page: str, *, before: str = "", after: str = "") -> list[str]:
    """The page's ```sh blocks, of the part before or after a text that stands in it once."""
    text = (PAGES / page).read_text()
    for cut in (before, after):
        assert not cut or text.count(cut) == 1, f"{cut!r} is to stand once in {page}"
    if before:
        text = text.partition(before)[0]
    if after:
        text = text.partition(after)[2]
    blocks: list[str] = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return blocks


def type_in(
    blocks: Sequence[str], *, folder: Path, environment: Mapping[str, str] | None = None
) -> str:
    """Run the blocks in one shell that stops at the first failure; what was printed.

    `lamassu init` gets ports of its own where the environment's `PORTS` names them.
    """
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    _shim(tools / "lamassu", '[ "$1" = init ] && set -- "$@" $PORTS', "lamassu.cli.main")
    _shim(tools / "lamassu-verify", "", "lamassu.cli.verify")
    given = dict(environment or {})
    done = subprocess.run(
        ["sh", "-eu", "-c", "\n".join(blocks)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env={
            **os.environ,
            "PORTS": "",
            "NO_COLOR": "1",
            "COLUMNS": "200",
            **given,
            "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def _shim(path: Path, before: str, module: str) -> None:
    path.write_text(f'#!/bin/sh\n{before}\nexec "{sys.executable}" -m {module} "$@"\n')
    path.chmod(0o755)
