"""What a newcomer meets: helps with whole examples, and errors that say what to do next."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner, Result

from lamassu.cli import options
from lamassu.cli.main import app


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    monkeypatch.setattr(options.err, "width", 200)


def lamassu(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def commands(command: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if not isinstance(command, TyperGroup):
        yield path
        return
    for name, child in command.commands.items():
        yield from commands(child, (*path, name))


@pytest.mark.parametrize("path", list(commands(get_command(app))), ids=" ".join)
def test_every_command_has_an_example_of_itself(path: tuple[str, ...]) -> None:
    help_text = lamassu(*path, "--help").output
    assert f"lamassu {' '.join(path)}" in help_text.split("Example", 1)[1]


@pytest.mark.parametrize("path", list(commands(get_command(app))), ids=" ".join)
def test_a_help_names_every_option_in_whole_on_a_narrow_terminal(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    monkeypatch.setenv("COLUMNS", "80")
    command = get_command(app)
    for name in path:
        assert isinstance(command, TyperGroup)
        command = command.commands[name]

    said = lamassu(*path, "--help").output

    for parameter in command.params:
        if parameter.param_type_name == "option" and not getattr(parameter, "hidden", False):
            for option in (*parameter.opts, *parameter.secondary_opts):
                assert re.search(rf"(?<![\w-]){option}(?![\w-])", said), option


def test_helps_keep_the_brackets_of_a_filter() -> None:
    assert "'status[eq]ACTIVE'" in lamassu("ca", "list", "--help").output
    assert "field[operator]value" in lamassu("ca", "list", "--help").output


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("--port", "99999", "ports are 1 to 65535"),
        ("--port", "8080", "are to differ"),
        ("--host", "bad host!", "neither a DNS name nor an IP address"),
        ("--public-url", "ftp://x", "is not of the form https://name:port"),
        ("--database", "mysql://x", "it begins with sqlite:/// or postgresql://"),
    ],
)
def test_init_refuses_an_option_before_it_writes_anything(
    tmp_path: Path, option: str, value: str, text: str
) -> None:
    result = lamassu("init", "--dir", tmp_path / "var", option, value)
    assert result.exit_code == 1
    assert f"{option}: " in result.output
    assert text in result.output
    assert not (tmp_path / "var").exists()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = lamassu("init", "--dir", tmp_path / "file")
    assert result.exit_code == 1
    assert f"{tmp_path / 'file'}: File exists" in result.output


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("friendly") / "var"
    made = lamassu("init", "--dir", place, "--key-type", "ecdsa-p256")
    assert made.exit_code == 0, made.output
    return place


def test_a_second_init_says_that_the_configuration_stays(installation: Path) -> None:
    again = lamassu("init", "--dir", installation, "--port", "9999")
    assert again.exit_code == 0
    assert "was there and stays" in again.output
    assert "port: 8443" in (installation / "config.yml").read_text()


def test_a_second_init_refuses_a_bad_name_as_the_first_does(installation: Path) -> None:
    again = lamassu("init", "--dir", installation, "--host", "bad host!")
    assert again.exit_code == 1
    assert again.output.startswith("lamassu: --host: 'bad host!' is neither")


def test_no_admin_is_issued_whose_key_has_no_place(installation: Path, tmp_path: Path) -> None:
    (tmp_path / "carol.key").touch()
    refused = lamassu("admin", "issue", "carol", "--dir", installation, "--to", tmp_path)
    assert refused.exit_code == 1
    assert f"{tmp_path / 'carol.key'} is there already and stays" in refused.output
    assert "carol" not in lamassu("admin", "list", "--dir", installation).output


def test_an_admin_revoked_twice_is_told_so(installation: Path, tmp_path: Path) -> None:
    assert lamassu("admin", "issue", "dave", "--dir", installation, "--to", tmp_path).exit_code == 0
    first = lamassu("admin", "revoke", "dave", "--dir", installation)
    assert first.output.startswith("revoked dave")
    assert "was revoked before" in lamassu("admin", "revoke", "dave", "--dir", installation).output


def test_a_database_file_that_is_none_is_one_line(installation: Path) -> None:
    database = installation / "data" / "lamassu.db"
    kept = database.read_bytes()
    for part in installation.joinpath("data").iterdir():
        part.unlink()
    database.write_bytes(b"this is not a database file at all")
    try:
        result = lamassu("audit", "verify", "--dir", installation)
    finally:
        database.write_bytes(kept)
    assert result.exit_code == 1
    assert "the database file cannot be opened: file is not a database" in result.output
    with sqlite3.connect(database) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert os.stat(installation).st_mode & 0o077 == 0


def test_an_edge_served_as_a_platform_is_told_how(installation: Path) -> None:
    refused = lamassu("serve", "--dir", installation / "est")
    assert refused.exit_code == 1
    assert f"lamassu serve --dir {installation / 'est'} --service est" in refused.output


def test_init_names_the_file_where_a_wrong_database_is_corrected(tmp_path: Path) -> None:
    database = "postgresql://lamassu:secret@127.0.0.1:9/lamassu"
    refused = lamassu("init", "--dir", tmp_path / "var", "--database", database)
    assert refused.exit_code == 1
    assert f"{tmp_path / 'var' / 'secrets' / 'database.url'}" in refused.output
    assert "secret@" not in refused.output


SECRETS = """
mode: development
postgres:
  hostname: db
  username: lamassu
  password: "hunter2 {reference}"
  users:
    ca: {{username: ca, password: hunter3}}
crypto_engines:
  default_id: software
  software:
    - id: software
"""


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_config_check_warns_of_secrets_that_others_may_read(
    installation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    monkeypatch.setenv("HALF", "of it")
    config = tmp_path / "config.yml"
    for reference in ("", "${HALF}"):
        config.write_text(SECRETS.format(reference=reference))
        config.chmod(mode)

        said = " ".join(lamassu("config", "check", "--dir", tmp_path).output.split())

        warned = "postgres.users.ca.password is a secret that others may read" in said
        assert warned == (mode != 0o600)
        # what a variable is part of is not in the file
        assert ("postgres.password is a secret" in said) == (mode != 0o600 and not reference)
        assert (f"chmod 600 {config}" in said) == (mode != 0o600)
        assert "hunter" not in said


def test_an_installation_of_its_own_making_is_not_warned_of(installation: Path) -> None:
    assert "warning" not in lamassu("config", "check", "--dir", installation).output
    (installation / "config.yml").chmod(0o644)  # it holds no secret
    assert "warning" not in lamassu("config", "check", "--dir", installation).output
