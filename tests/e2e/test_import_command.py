"""`lamassu import` as an operator meets it: what it says, how it ends, and what it leaves."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from lamassu.kernel.x509.facts import certificate_facts
from lamassu.kernel.x509.pem import pem_of
from tests.support.missing import missing_component
from tests.support.pki import Made, make
from tests.support.postgres import PostgresCluster, PostgresMissing
from tests.support.server import command, copy_installation

from .test_import_page import PASSPHRASE, openssl_directory, step_directory


@pytest.fixture
def directory(fresh: Path, tmp_path: Path) -> Path:
    (tmp_path / "pass.txt").write_bytes(PASSPHRASE + b"\n")
    return copy_installation(fresh, tmp_path / "var")


def summary(said: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(said[said.index("{") : said.rindex("}") + 1])
    return found


def test_a_lost_revocation_fails_the_command_after_all_the_rest(
    directory: Path, tmp_path: Path
) -> None:
    openssl_directory(tmp_path)
    newcerts = tmp_path / "old-ca" / "newcerts"
    kept = (newcerts / "1001.pem").read_bytes()
    (newcerts / "1001.pem").unlink()
    asked = (
        "import", "openssl", str(tmp_path / "old-ca"), "--dir", str(directory), "-o", "json",
        "--passphrase-file", str(tmp_path / "pass.txt"), "--report", str(tmp_path / "skipped"),
    )  # fmt: skip

    status, said = command(*asked)
    lines = [json.loads(line) for line in (tmp_path / "skipped").read_text().splitlines()]
    (newcerts / "1001.pem").write_bytes(kept)
    mended, then = command(*asked)

    assert status == 1
    assert "1 certificates that were revoked there" in said
    assert summary(said)["counts"]["certificate"]["adopted"] == 2
    assert ("index.txt:2 1001", "certificate_missing", True) in [
        (line.get("what"), line.get("code"), line.get("revoked")) for line in lines
    ]
    assert lines[-1]["summary"]["lost_revocations"] == 1
    assert stat.S_IMODE((tmp_path / "skipped").stat().st_mode) == 0o600
    assert mended == 0
    assert summary(then)["counts"]["certificate"] == {
        "adopted": 1, "present": 2, "updated": 0, "skipped": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ((), "--passphrase-file"),
        (("--passphrase-file", "wrong.txt"), "does not open with this passphrase"),
        (("--without-key", "--certificate", "nowhere.pem"), "there is no file nowhere.pem"),
    ],
)
def test_what_cannot_begin_changes_nothing(
    directory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    text: str,
) -> None:
    openssl_directory(tmp_path)
    (tmp_path / "wrong.txt").write_bytes(b"not this one\n")
    monkeypatch.chdir(tmp_path)

    status, said = command("import", "openssl", "old-ca", "--dir", str(directory), *options)

    assert status == 1
    assert text in " ".join(said.split())
    assert "not this one" not in said
    _, taken = command("import", "openssl", "old-ca", "--without-key", "--dir", str(directory),
                       "-o", "json")  # fmt: skip
    assert summary(taken)["counts"]["ca"]["adopted"] == 1


def _openssl_tree(folder: Path, ca: Made, *issued: tuple[str, Made]) -> Path:
    """A directory with a plain key, as the usual guides lay it out."""
    (folder / "newcerts").mkdir(parents=True)
    (folder / "private").mkdir()
    (folder / "certs").mkdir()
    (folder / "certs" / "ca.cert.pem").write_bytes(pem_of(ca.der))
    (folder / "private" / "ca.key.pem").write_bytes(
        ca.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    lines = []
    for status, made in issued:
        serial = certificate_facts(made.der).serial_number.upper()
        revocation = "260102030405Z" if status == "R" else ""
        lines.append(f"{status}\t361224012726Z\t{revocation}\t{serial}\tunknown\t/CN=x\n")
        (folder / "newcerts" / f"{serial}.pem").write_bytes(pem_of(made.der))
    (folder / "index.txt").write_text("".join(lines))
    return folder


def test_a_root_and_the_ca_below_it_come_one_after_the_other(
    directory: Path, tmp_path: Path
) -> None:
    """The usual guide counts from 1000 in both of them: what collides is named."""
    root = make("Guide Root CA", ca=True)
    below = make("Guide Intermediate CA", issuer=root, ca=True, serial_number=0x1000)
    first = make("www", issuer=below, serial_number=0x1000)
    second = make("mail", issuer=below, serial_number=0x1001)
    trees = {
        "root": _openssl_tree(tmp_path / "root", root, ("V", below)),
        "below": _openssl_tree(tmp_path / "below", below, ("V", first), ("R", second)),
    }

    status, said = command("import", "openssl", str(trees["root"]), "--dir", str(directory))
    assert status == 0, said
    status, said = command(
        "import", "openssl", str(trees["below"]), "--dir", str(directory), "-o", "json",
        "--id", "web-ca",
    )  # fmt: skip

    assert status == 0, said
    found = summary(said)
    assert found["counts"]["ca"]["adopted"] == 1
    assert found["counts"]["certificate"] == {
        "adopted": 1, "present": 0, "updated": 0, "skipped": 1,
    }  # fmt: skip
    assert [one["code"] for one in found["first"] if one["outcome"] == "skipped"] == [
        "serial_number_taken"
    ]


def test_a_step_ca_in_postgresql_comes_with_its_certificates(
    directory: Path,
    tmp_path: Path,
    postgres_cluster_on_demand: Callable[[], PostgresCluster],
) -> None:
    try:
        cluster = postgres_cluster_on_demand()
    except PostgresMissing as missing:
        missing_component(str(missing))
    step_directory(tmp_path)
    cluster.sql('CREATE DATABASE "stepca"')
    try:
        asyncio.run(_fill_step(cluster.url("stepca"), tmp_path / "tables"))
        (tmp_path / "db.txt").write_text("whatever\n")
        status, said = command(
            "import", "step-ca", str(tmp_path / "step"), "--dir", str(directory), "-o", "json",
            "--passphrase-file", str(tmp_path / "pass.txt"),
            "--database", cluster.url("stepca"), "--password-file", str(tmp_path / "db.txt"),
        )  # fmt: skip
    finally:
        cluster.sql('DROP DATABASE IF EXISTS "stepca" WITH (FORCE)')

    assert status == 1, said  # one that only revoked_x509_certs knows
    found = summary(said)
    assert found["counts"]["certificate"] == {
        "adopted": 2, "present": 0, "updated": 0, "skipped": 1,
    }  # fmt: skip
    assert found["lost_revocations"] == 1
    assert found["counts"]["ca"]["adopted"] == 2


async def _fill_step(url: str, tables: Path) -> None:
    connection = await asyncpg.connect(url)
    try:
        for table in ("x509_certs", "revoked_x509_certs", "x509_crl"):
            await connection.execute(
                f'CREATE TABLE "{table}" (nkey bytea PRIMARY KEY, nvalue bytea)'
            )
            for line in (tables / f"{table}.tsv").read_text().splitlines():
                key, value = (bytes.fromhex(part) for part in line.split("\t"))
                await connection.execute(f'INSERT INTO "{table}" VALUES ($1, $2)', key, value)
        await connection.execute("INSERT INTO revoked_x509_certs VALUES ('77', '{}')")
    finally:
        await connection.close()


def test_a_database_that_is_another_one_is_named(
    directory: Path, postgres_cluster_on_demand: Callable[[], PostgresCluster]
) -> None:
    try:
        cluster = postgres_cluster_on_demand()
    except PostgresMissing as missing:
        missing_component(str(missing))

    status, said = command("import", "lamassu", cluster.url("postgres"), "--dir", str(directory))

    assert status == 1
    assert "the database" in said
    assert "Traceback" not in said
