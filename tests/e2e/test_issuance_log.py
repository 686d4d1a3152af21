"""The issuance log of real servers: its page, SIGKILL, an attacker in the database, a witness."""

from __future__ import annotations

import base64
import json
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import yaml

from lamassu.kernel.merkle import Head
from lamassu.kernel.signed_note import parse_checkpoint, parse_verifier_key, verify_note
from tests.support.csrs import request
from tests.support.howto import shell_blocks, type_in
from tests.support.server import Server, command, copy_installation, serving

LOG = "/api/ca/v1/log"
SIGN = "/api/ca/v1/cas/manufacturing-ca/certificates/sign"
PEM = "-----BEGIN CERTIFICATE REQUEST-----\n{}-----END CERTIFICATE REQUEST-----\n"
DEADLINE = 30.0


def issue(admin: httpx.Client, name: str) -> str:
    """A certificate's serial number."""
    pem = PEM.format(base64.encodebytes(request(name)).decode())
    body = {"csr": base64.b64encode(pem.encode()).decode(), "profile_id": "device-profile"}
    answer = admin.post(SIGN, json=body)
    assert answer.status_code == 201, answer.text
    serial_number: str = answer.json()["serial_number"]
    return serial_number


def eventually(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not claim():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.1)


def head_of(admin: httpx.Client) -> Head:
    return parse_checkpoint(admin.get(f"{LOG}/checkpoint").text).head


def status_of(admin: httpx.Client) -> dict[str, object]:
    answer: dict[str, object] = admin.get(LOG).json()
    return answer


def test_the_page_works_as_it_stands(platform: Server) -> None:
    said = type_in(
        shell_blocks("issuance-log.md"),
        folder=platform.directory.parent,
        environment={"LAMASSU_URL": platform.url},
    )

    assert said.count("intact") == 3
    assert "TAMPERED" not in said
    assert "unanchored" not in said
    assert "proved in the tree" in said


def test_what_is_issued_is_in_the_signed_log_within_a_second(platform: Server) -> None:
    with platform.admin() as admin:
        began = time.monotonic()
        serial_number = issue(admin, "quick")
        path = f"{LOG}/proof/inclusion?serial={serial_number}"
        eventually(lambda: admin.get(path).status_code == 200)
        took = time.monotonic() - began

        proved = admin.get(path).json()

    assert json.loads(proved["entries"][0]["entry"])["type"] == "issued"
    assert took < 5  # a second where nobody else uses the machine


def test_wrong_questions_are_told_what_is_wrong(platform: Server) -> None:
    with platform.admin() as admin:
        asked = {
            path: admin.get(f"{LOG}/{path}").status_code
            for path in (
                "tile/0/x000/000",
                "tile/a/000",
                "tile/99/000",
                "tile/0/999",
                "tile/entries/999",
                "tile/entries/000.p/0",
                "proof/inclusion",
                "proof/inclusion?serial=00",
                "proof/consistency",
                "proof/consistency?first=1&second=999999999",
                "proof/consistency?first=-1",
                "proof/consistency?first=3&second=2",
                "checkpoint?witnessed=perhaps",
            )
        }
        sent = admin.post(f"{LOG}/add-checkpoint", content=b"old 0\n\nnothing\n")
    with platform.client() as stranger:
        assert stranger.get(f"{LOG}/checkpoint").status_code == 401

    assert sent.status_code == 400
    assert asked == {
        "tile/0/x000/000": 400,
        "tile/a/000": 400,
        "tile/99/000": 404,
        "tile/0/999": 404,
        "tile/entries/999": 404,
        "tile/entries/000.p/0": 400,
        "proof/inclusion": 400,
        "proof/inclusion?serial=00": 404,
        "proof/consistency": 400,
        "proof/consistency?first=1&second=999999999": 400,
        "proof/consistency?first=-1": 400,
        "proof/consistency?first=3&second=2": 400,
        "checkpoint?witnessed=perhaps": 400,
    }


def test_killed_at_any_moment_it_never_signs_two_heads_of_one_size(
    fresh: Path, tmp_path: Path
) -> None:
    directory = copy_installation(fresh, tmp_path / "var")
    seen: dict[int, bytes] = {}
    issued: list[str] = []

    def sizes_seen(admin: httpx.Client) -> int:
        head = head_of(admin)
        assert seen.setdefault(head.size, head.root) == head.root, head.size
        return len(seen)

    def another_size(admin: httpx.Client) -> None:
        before = len(seen)
        eventually(lambda: sizes_seen(admin) > before)

    with serving(directory, elsewhere=True) as server:
        for _ in range(2):
            stopping = threading.Event()

            def work(stopping: threading.Event = stopping) -> None:
                with server.admin() as admin:
                    while not stopping.is_set():
                        try:
                            issued.append(issue(admin, f"d{len(issued)}"))
                        except (httpx.TransportError, AssertionError):
                            return

            worker = threading.Thread(target=work)
            worker.start()
            with server.admin() as admin:
                for _ in range(3):
                    another_size(admin)
            server.kill()
            stopping.set()
            worker.join()
            server.start()
        with server.admin() as admin:
            last = issue(admin, "last")
            path = f"{LOG}/proof/inclusion?serial={last}"
            eventually(lambda: sizes_seen(admin) > 0 and admin.get(path).status_code == 200)
            assert all(
                admin.get(f"{LOG}/proof/inclusion?serial={each}").status_code == 200
                for each in issued
            )

    status, said = command("log", "verify", "--dir", str(directory))
    assert (status, "intact" in said) == (0, True), said


def test_who_owns_the_database_is_found_out(fresh: Path, tmp_path: Path) -> None:
    directory = copy_installation(fresh, tmp_path / "var")
    folder, state = tmp_path / "export", tmp_path / "state.json"
    with serving(directory, elsewhere=True) as server:
        with server.admin() as admin:
            revoked, kept = issue(admin, "revoked"), issue(admin, "kept")
            body = {"status": "REVOKED", "revocation_reason": "KeyCompromise"}
            answer = admin.put(f"/api/ca/v1/certificates/{revoked}/status", json=body)
            assert answer.status_code == 200, answer.text
            size = head_of(admin).size
            eventually(lambda: head_of(admin).size > size or bool(status_of(admin)))
            eventually(
                lambda: (
                    len(
                        admin.get(f"{LOG}/proof/inclusion?serial={revoked}")
                        .json()
                        .get("entries", [])
                    )
                    == 2
                )
            )
            key = str(status_of(admin)["key"])
        asked = ("--dir", str(directory), "--url", server.url)
        assert command("log", "export", str(folder), *asked)[0] == 0
        assert command("log", "monitor", "--state", str(state), *asked)[0] == 0
    trusted = ("--key", key, "--dir", str(directory))

    with sqlite3.connect(directory / "data" / "lamassu.db") as database:
        database.execute(
            "UPDATE ca_certificates SET status = 'ACTIVE', revocation_time = NULL,"
            " revocation_reason = 'Unspecified' WHERE serial_number = ?",
            (revoked,),
        )
        database.execute("DELETE FROM ca_certificates WHERE serial_number = ?", (kept,))
    status, said = command("log", "verify", *trusted)
    assert status == 4
    assert f"certificate {revoked}: the row says ACTIVE, the log REVOKED" in said
    assert f"certificate {kept}: its row was removed" in said

    # with everything that the log has of it, too: only the copy tells
    with sqlite3.connect(directory / "data" / "lamassu.db") as database:
        for table in ("entries", "tiles"):
            database.execute(f"DELETE FROM ca_log_{table}")
        database.execute(
            "UPDATE ca_log_head SET size = 0, signed_size = 0, note = '', position ="
            " (SELECT position FROM ca_journal_head)"
        )
    assert command("log", "verify", "--tiles", str(folder), *trusted)[0] == 4
    with serving(directory, elsewhere=True) as server:
        with server.admin() as admin:
            eventually(lambda: admin.get(LOG).status_code == 200)
        asked = ("--dir", str(directory), "--url", server.url)
        status, said = command("log", "monitor", "--state", str(state), *asked)
        assert (status, "set back" in said) == (4, True), said
        status, said = command("log", "export", str(folder), *asked)
        assert (status, "set back" in said) == (1, True), said


@pytest.fixture
def other(fresh: Path, tmp_path: Path) -> Path:
    return copy_installation(fresh, tmp_path / "other" / "var")


def configured(directory: Path, section: dict[str, object]) -> None:
    path = directory / "config.yml"
    document = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**document, "log": section}))


def test_another_installation_signs_each_head(
    platform: Server, other: Path, tmp_path: Path
) -> None:
    with platform.admin() as admin:
        key = str(status_of(admin)["key"])
    configured(other, {"witnessed": [key]})
    with serving(other, elsewhere=True) as witness:
        with witness.admin() as admin:
            eventually(lambda: admin.get(LOG).status_code == 200)
            witness_key = str(status_of(admin)["witness_key"])
        files = {
            "url": witness.url,
            "key": witness_key,
            "cert_file": str(other / "admin.crt"),
            "key_file": str(other / "admin.key"),
            "ca_file": str(other / "tls-ca.crt"),
        }
        platform.stop()
        configured(platform.directory, {"witnesses": [files]})
        platform.start()
        with platform.admin() as admin:
            issue(admin, "witnessed")

            def cosigned() -> bool:
                note = parse_checkpoint(admin.get(f"{LOG}/checkpoint?witnessed=true").text)
                return len(note.signatures) == 2

            eventually(cosigned)
            note = parse_checkpoint(admin.get(f"{LOG}/checkpoint?witnessed=true").text)
            verify_note(note, parse_verifier_key(witness_key))
            verify_note(note, parse_verifier_key(key))

        # and one that is carried there
        folder = tmp_path / "carried"
        asked = ("--dir", str(platform.directory), "--url", platform.url)
        with platform.admin() as admin:
            size = head_of(admin).size
            issue(admin, "carried")
            eventually(lambda: head_of(admin).size > size)
        assert command("log", "export", str(folder), *asked)[0] == 0
        status, said = command(
            "log", "witness", str(folder), "--dir", str(other), "--url", witness.url
        )
        assert status == 0, said
        verify_note(parse_checkpoint(said), parse_verifier_key(witness_key))
