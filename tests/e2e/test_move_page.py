"""The page about moving and rekeying, typed in as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.howto import shell_blocks, type_in
from tests.support.server import free_port, serving

PAGE = "move-and-rekey.md"
SERVED = "With `lamassu serve --dir var` running:"


@pytest.mark.slow
def test_a_reader_moves_a_key_and_gives_a_ca_a_new_one(tmp_path: Path) -> None:
    ports = f"--port {free_port()} --http-port {free_port()} --internal-port {free_port()}"
    type_in(shell_blocks(PAGE, before=SERVED), folder=tmp_path, environment={"PORTS": ports})

    with serving(tmp_path / "var"):
        said = type_in(shell_blocks(PAGE, after=SERVED), folder=tmp_path)

    assert "would move from software to safe" in said
    assert "is in safe" in said
    assert "fleet-operations-ca.2" in said
    assert "CN = Lamassu Issuing CA - Fleet Operations" in said
    assert len(list((tmp_path / "var" / "keys-safe").glob("*.key"))) == 2
