"""Files of an installation: for their owner only, whole or not there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from lamassu.kernel.errors import Conflict, RuleViolation
from lamassu.platform.security.private_files import (
    create_private_file,
    make_private_directory,
    replace_private_file,
)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        create_private_file(tmp_path / "key", b"content")
        replace_private_file(tmp_path / "other", b"content")
        make_private_directory(tmp_path / "deep" / "er")
    finally:
        os.umask(before)

    assert mode_of(tmp_path / "key") == mode_of(tmp_path / "other") == 0o600
    assert mode_of(tmp_path / "deep" / "er") == 0o700


def test_creating_never_overwrites_and_replacing_does(tmp_path: Path) -> None:
    path = tmp_path / "key"
    create_private_file(path, b"first")

    with pytest.raises(Conflict):
        create_private_file(path, b"second")
    assert path.read_bytes() == b"first"

    replace_private_file(path, b"second")
    assert path.read_bytes() == b"second"
    assert [file.name for file in tmp_path.iterdir()] == ["key"]


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"elsewhere")
    (tmp_path / "key").symlink_to(target)

    with pytest.raises(Conflict):
        create_private_file(tmp_path / "key", b"secret")
    replace_private_file(tmp_path / "key", b"secret")

    assert target.read_bytes() == b"elsewhere"


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        create_private_file(tmp_path / "key", b"secret")

    assert list(tmp_path.iterdir()) == []


def test_a_directory_open_to_others_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(RuleViolation, match="chmod 700"):
        make_private_directory(tmp_path)
