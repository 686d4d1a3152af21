"""The internal root's key leaves the host, and its passphrase by another way (security rule 4)."""

from __future__ import annotations

import os
import pty
import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import LAMASSU, command, copy_installation


@pytest.fixture
def directory(fresh: Path, tmp_path: Path) -> Path:
    """An installation whose root key is still here."""
    return copy_installation(fresh, tmp_path / "var")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """Where it is to go."""
    (tmp_path / "medium").mkdir()
    return tmp_path / "medium" / "root.pem"


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """Where its passphrase is to go."""
    (tmp_path / "safe").mkdir()
    return tmp_path / "safe" / "root.passphrase"


def init(directory: Path, *arguments: object) -> tuple[int, str]:
    status, said = command("init", "--dir", str(directory), *map(str, arguments))
    return status, " ".join(said.split())


def opens(key: Path, passphrase: str) -> bool:
    """Whether this passphrase opens the key, as `openssl` sees it."""
    reading, writing = os.pipe()
    os.write(writing, passphrase.encode() + b"\n")
    os.close(writing)
    command = ["openssl", "pkey", "-in", str(key), "-noout", "-passin", f"fd:{reading}"]
    done = subprocess.run(command, capture_output=True, check=False, pass_fds=(reading,))
    os.close(reading)
    return done.returncode == 0


def keys_of(directory: Path) -> set[str]:
    return {path.name for path in (directory / "keys").glob("*.key")}


def test_the_passphrase_goes_to_its_own_place(directory: Path, key: Path, words: Path) -> None:
    before = keys_of(directory)

    status, said = init(directory, "--export-root-key", key, "--root-passphrase-file", words)

    assert status == 0, said
    assert [path.name for path in key.parent.iterdir()] == ["root.pem"]
    assert opens(key, words.read_text().strip())
    assert not opens(key, "something else")
    assert words.read_text().strip() not in said
    assert [stat.S_IMODE(path.stat().st_mode) for path in (key, words)] == [0o600, 0o600]
    assert len(before - keys_of(directory)) == 1


def test_a_passphrase_that_is_there_is_taken(directory: Path, key: Path, words: Path) -> None:
    words.write_text("correct horse battery staple\n")
    words.chmod(0o600)

    status, said = init(directory, "--export-root-key", key, "--root-passphrase-file", words)

    assert status == 0, said
    assert opens(key, "correct horse battery staple")


def test_on_a_terminal_it_is_shown_once_and_stored_nowhere(directory: Path, key: Path) -> None:
    said = "".join(on_a_terminal("init", "--dir", str(directory), "--export-root-key", str(key)))

    [passphrase] = re.findall(r"stored nowhere:\s+(\S{40,})\s", said)
    assert said.count(passphrase) == 1
    assert opens(key, passphrase)
    folder = directory.parent
    for path in folder.rglob("*"):
        assert not path.is_file() or passphrase.encode() not in path.read_bytes(), path


def on_a_terminal(*arguments: str) -> Iterator[str]:
    """What the command line says to somebody who sits before it."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(LAMASSU[0], [*LAMASSU, *arguments], {**os.environ, "NO_COLOR": "1"})
    try:
        while data := os.read(terminal, 4096):
            yield data.decode(errors="replace")
    except OSError:
        pass  # so a terminal says that everybody left
    finally:
        os.close(terminal)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_later_init_has_nothing_to_take_away(directory: Path, key: Path, words: Path) -> None:
    taken = ("--root-passphrase-file", words)
    assert init(directory, "--export-root-key", key, *taken)[0] == 0
    content = key.read_bytes()

    status, said = init(directory, "--export-root-key", key, *taken)
    again = init(directory, "--export-root-key", key.with_name("other.pem"))

    assert (status, again[0]) == (0, 0)
    assert "it left this host before" in said
    assert key.read_bytes() == content
    assert not key.with_name("other.pem").exists()


@pytest.mark.parametrize("case", ["beside", "below", "inside", "short", "open", "no folder"])
def test_a_bad_place_or_passphrase_is_refused_and_the_key_stays(
    directory: Path, key: Path, words: Path, case: str
) -> None:
    before = keys_of(directory)
    below = key.parent / "below"
    below.mkdir()
    good = "correct horse battery staple"
    for name, content, mode in (("short", "too short", 0o600), ("open", good, 0o644)):
        (words.parent / name).write_text(content)
        (words.parent / name).chmod(mode)
    place, text = {
        "beside": (key.parent / "root.passphrase", "lies with the key"),
        "below": (below / "root.passphrase", "lies with the key"),
        "inside": (directory / "secrets" / "root.passphrase", "lies inside the installation"),
        "short": (words.parent / "short", "a passphrase has 16 characters at least"),
        "open": (words.parent / "open", "others may read it; run: chmod 600"),
        "no folder": (words / "nowhere", "there is no folder"),
    }[case]

    status, said = init(directory, "--export-root-key", key, "--root-passphrase-file", place)

    assert status == 1
    assert "--root-passphrase-file: " in said
    assert text in said
    assert keys_of(directory) == before
    assert not key.exists()
    assert case in ("short", "open") or not place.exists()


def test_without_a_terminal_a_passphrase_file_is_asked_for(directory: Path, key: Path) -> None:
    before = keys_of(directory)

    status, said = init(directory, "--export-root-key", key)

    assert status == 1
    assert "no terminal to show its passphrase on" in said
    assert "--root-passphrase-file" in said
    assert keys_of(directory) == before
    assert not any(key.parent.iterdir())


def test_the_key_itself_goes_to_no_place_that_stays(
    directory: Path, key: Path, words: Path
) -> None:
    key.write_text("another root's key")
    taken = ("--root-passphrase-file", words)

    assert "there already" in init(directory, "--export-root-key", key, *taken)[1]
    inside = directory / "root.pem"
    assert "inside the installation" in init(directory, "--export-root-key", inside, *taken)[1]

    assert key.read_text() == "another root's key"
    assert not inside.exists()
    assert not words.exists()
