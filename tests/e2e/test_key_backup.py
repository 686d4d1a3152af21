"""Key backups of an installation over tokens of SoftHSM: who agrees, and what is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.engines import ComponentMissing
from tests.support.missing import missing_component
from tests.support.server import (
    LAMASSU,
    command,
    copy_installation,
    free_port,
    lamassu,
    serving,
)
from tests.support.softhsm import SoftHsm, Token

CA = "development-ca"


@dataclass
class Site:
    """An installation whose CAs' keys are in the token `ca`; there are two more tokens, of which
    `other` has another backup key."""

    directory: Path
    tokens: dict[str, Token]

    @property
    def folder(self) -> Path:
        return self.directory.parent

    def run(self, *arguments: object, status: int = 0) -> str:
        """What the command prints; it has to end so."""
        done = subprocess.run(
            [*LAMASSU, *map(str, arguments), "--dir", str(self.directory)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "HSM_PIN": "1234", "NO_COLOR": "1", "COLUMNS": "200"},
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def backup(self, *arguments: object, status: int = 0) -> str:
        return self.run("key", "backup", *arguments, status=status)

    def components(self, *names: str) -> list[object]:
        return [word for name in names for word in ("--component", self.folder / name)]


def _engine(token: Token, backup: str) -> str:
    return (
        f"    - id: {token.label}\n"
        f"      token: {token.label}\n"
        '      pin: "${HSM_PIN}"\n'
        f"      module_path: {token.module_path}\n"
        f"      module_extra_options: {{env: {{SOFTHSM2_CONF: {token.hsm.config}}}}}\n"
        f"      backup: {backup}\n"
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("backup")
    try:
        hsm = SoftHsm(folder / "hsm")
        tokens = {label: hsm.token(label) for label in ("ca", "spare", "other")}
    except ComponentMissing as missing:
        missing_component(str(missing))
    section = folder / "engines.yml"
    text = "crypto_engines:\n  default_id: ca\n  pkcs11:\n"
    section.write_text(text + "".join(_engine(token, "wrapped") for token in tokens.values()))
    names = ("--port", "--http-port", "--internal-port")
    ports = [part for name in names for part in (name, str(free_port()))]
    site = Site(folder / "var", tokens)
    site.run("init", *ports, "--key-type", "ecdsa-p256", "--crypto-engines", section)
    for name in "abc":
        lamassu("key", "backup", "component", str(folder / name))
    officers_pin = folder / "so.pin"
    officers_pin.write_text(tokens["ca"].so_pin)
    officers_pin.chmod(0o600)
    join = ("join", "--engine", "ca", "--as", "origin", "--so-pin-file", officers_pin)
    site.backup(*join, *site.components("a", "b"))
    site.backup("join", "--engine", "spare", "--as", "spare", *site.components("a", "b"))
    site.backup("join", "--engine", "other", "--as", "spare", *site.components("a", "c"))
    return site


@pytest.mark.slow
def test_approvers_of_every_ca_in_it_have_to_agree(site: Site) -> None:
    """A wrapped key that leaves is exported (security rule 7)."""
    people = {}
    for name in ("alice", "bob"):
        people[name] = site.folder / name
        site.run("admin", "issue", name, "--to", people[name])
    alice = people["alice"] / "alice.crt"
    file = site.folder / "agreed.backup"
    create = ("create", "--engine", "ca", "--to", file)
    pin = {"HSM_PIN": "1234"}
    with serving(site.directory, environment=pin) as server, server.admin() as admin:
        assert "the keys of engine ca were never backed up" in server.log.read_text()
        url = ("--url", server.url)
        site.run(
            *("ca", "approvals", "set", CA, "--required", "1"),
            *("--of", "alice", "--of", "bob", *url),
        )
        waits = site.backup(*create, "--as", alice, status=3)
        assert not file.exists()
        approval = waits.rsplit(maxsplit=1)[-1]
        shown = admin.get(f"/api/ca/v1/approvals/{approval}").json()
        assert shown["operation"] == "key.export"
        assert shown["request"]["command"] == "key backup create"
        with server.client(people["bob"] / "bob.crt", people["bob"] / "bob.key") as bob:
            assert bob.post(f"/api/ca/v1/approvals/{approval}/approve").status_code == 200

        key_id = admin.get(f"/api/ca/v1/cas/{CA}").json()["certificate"]["subject_key_id"]
        agreed = ("--as", alice, "--approval", approval)
        other = site.backup(*create, key_id, *agreed, status=1)  # another set of keys
        assert "was given for another request" in other
        assert "was given for another request" in other
        assert not file.exists()
        assert "keys of engine ca" in site.backup(*create, *agreed)
        assert admin.get(f"/api/ca/v1/approvals/{approval}").json()["status"] == "SPENT"
        again = site.folder / "again.backup"
        site.backup("create", "--engine", "ca", "--to", again, *agreed, status=1)
        assert not again.exists()

        free = admin.get("/api/ca/v1/cas/manufacturing-ca").json()["certificate"]
        unguarded = ("create", "--engine", "ca", "--to", again, free["subject_key_id"])
        assert "1 key of engine ca" in site.backup(*unguarded)


@pytest.mark.slow
def test_what_was_changed_or_is_under_another_key_is_refused(site: Site) -> None:
    key = site.run("key", "backup", "status", "-o", "json")
    assert '"spare"' in key
    file = site.folder / "one.backup"
    [key_id, *_] = (line["ID"] for line in site.tokens["ca"].objects() if _general(line))
    site.backup("create", "--engine", "ca", "--to", file, key_id)

    taken = site.backup("create", "--engine", "ca", "--to", file, key_id, status=1)
    assert "is there already and stays" in taken
    differs = site.backup("rehearse", file, "--engine", "other", status=1)
    assert "put the same components into both tokens" in differs
    one_way = site.backup("rehearse", file, "--engine", "ca", status=1)
    assert "name a scratch engine" in one_way
    whole = site.backup("verify", file)
    assert "whole: 1 key of engine ca" in whole
    changed = site.folder / "changed.backup"
    changed.write_bytes(file.read_bytes().replace(b"platform", b"platfarm"))
    for work in (("verify", changed), ("restore", changed, "--engine", "spare")):
        assert "its MAC does not hold" in site.backup(*work, status=1)
    assert [line for line in site.tokens["spare"].objects() if _private(line)] == []

    assert "restored, signed, removed" in site.backup("rehearse", file, "--engine", "spare")
    assert [line for line in site.tokens["spare"].objects() if _private(line)] == []


def _private(line: dict[str, str]) -> bool:
    return line["object"].startswith("Private Key Object")


def _general(line: dict[str, str]) -> bool:
    return _private(line) and ":ca:" not in line.get("label", "")


@pytest.mark.slow
def test_secrets_come_from_files_that_nobody_else_reads(site: Site) -> None:
    component = site.folder / "open"
    component.write_text("aa" * 32)
    component.chmod(0o644)
    join = ("join", "--engine", "spare", "--as", "spare", "--component", component)
    assert f"chmod 600 {component}" in site.backup(*join, status=1)
    component.chmod(0o600)
    assert "at least two components" in site.backup(*join, status=1)
    assert "--so-pin-file goes with" in site.backup(
        "join", "--engine", "ca", "--as", "origin", *site.components("a", "b"), status=1
    )
    stays = site.backup(
        "join", "--engine", "spare", "--as", "spare", *site.components("a", "c"), status=1
    )
    assert "has a backup key" in stays
    trail = (site.directory / "data" / "lamassu.db").read_bytes()
    for name in "abc":
        secret = (site.folder / name).read_text().strip()
        assert secret.encode() not in trail


def test_a_copy_of_a_software_engines_directory_is_rehearsed(fresh: Path, tmp_path: Path) -> None:
    directory = copy_installation(fresh, tmp_path / "var")
    copy = tmp_path / "copy"
    shutil.copytree(directory / "keys", copy)

    def backup(*words: str) -> tuple[int, str]:
        return command("key", "backup", *words, "--dir", str(directory))

    status, said = backup("create", "--engine", "software", "--to", str(tmp_path / "file"))
    assert (status, "its backup is: a copy of its directory" in said) == (1, True)
    status, said = backup("rehearse", str(copy), "--engine", "software")
    assert (status, "keys would come back; recorded" in said) == (0, True), said
    assert '"rehearsed_in": "a copy of its directory"' in backup("status", "-o", "json")[1]
    for place, why in ((directory / "keys", "rehearse its copy"), (tmp_path, "no keystore")):
        status, said = backup("rehearse", str(place), "--engine", "software")
        assert (status, why in said) == (1, True), said

    lost = next(copy.glob("*.key"))
    lost.unlink()
    status, said = backup("rehearse", str(copy), "--engine", "software")
    assert (status, "1 of" in said, lost.stem in said) == (1, True, True), said
