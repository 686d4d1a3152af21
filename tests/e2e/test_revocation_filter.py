"""Revocation filters from a running platform, as `docs/how-to/revocation-filter.md` asks them."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import pytest

from lamassu.kernel.revocation_filter import parse_filter
from tests.support.howto import shell_blocks, type_in
from tests.support.server import Server


@pytest.fixture(scope="module")
def asked(platform: Server) -> Path:
    """The folder in which the page was typed in."""
    folder = platform.directory.parent
    environment = {"PKI": platform.http_url, "LAMASSU_URL": platform.url}
    said = type_in(shell_blocks("revocation-filter.md"), folder=folder, environment=environment)
    assert "\nnot covered\n" in said
    return folder


def verify(folder: Path, certificate: str, *options: str, issuer: str = "fleet-ca.crt") -> str:
    """The verifier's status and words."""
    command = [sys.executable, "-m", "lamassu.cli.verify", certificate, "--issuer", issuer]
    done = subprocess.run(
        [*command, *options], cwd=folder, capture_output=True, text=True, check=False
    )
    return f"{done.returncode} {done.stdout}{done.stderr}".strip()


def test_the_page_works_as_it_stands(asked: Path) -> None:
    assert parse_filter((asked / "fleet.filter").read_bytes()).facts.number == 1


def test_a_filter_that_cannot_be_believed_is_no_answer(asked: Path, platform: Server) -> None:
    content = bytearray((asked / "fleet.filter").read_bytes())
    content[12] ^= 1  # its number
    (asked / "changed.filter").write_bytes(content)
    (asked / "cut.filter").write_bytes(content[:60])
    with platform.admin() as admin:
        other = admin.get("/api/ca/v1/cas/manufacturing-ca").json()["certificate"]
    (asked / "other.crt").write_bytes(base64.b64decode(other["certificate"]))

    changed = verify(asked, "device.crt", "--filter", "changed.filter")
    cut = verify(asked, "device.crt", "--filter", "cut.filter")
    foreign = verify(asked, "device.crt", "--filter", "fleet.filter", issuer="other.crt")
    absent = verify(asked, "device.crt", "--filter", "nowhere.filter")

    assert changed.startswith("3 lamassu-verify: changed.filter is not signed by fleet-ca.crt")
    assert cut.startswith("3 lamassu-verify: cut.filter: the revocation filter cannot be read")
    assert foreign.startswith("3 lamassu-verify: device.crt was not issued by other.crt")
    assert absent.startswith("3 lamassu-verify: nowhere.filter: No such file")
