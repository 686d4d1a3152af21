"""`docs/how-to/approvals.md`, as a reader types it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.server import Server

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "approvals.md"


def test_the_page_works_as_it_stands(platform: Server) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 9
    folder = platform.directory.parent
    assert platform.directory.name == "var"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    done = subprocess.run(
        ["sh", "-eux", "-c", "\n".join(blocks)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PATH": path, "LAMASSU_URL": platform.url, "NO_COLOR": "1"},
    )

    assert done.returncode == 0, done.stdout + done.stderr
    with platform.admin() as admin:
        assert admin.get("/api/ca/v1/cas/plant-ca").json()["level"] == 1
        listed = admin.get("/api/ca/v1/approvals?sort_by=creation_ts").json()["list"]
        assert [one["status"] for one in listed] == ["SPENT", "SPENT", "REJECTED"]
    assert (folder / "carol-again" / "carol.crt").exists()
