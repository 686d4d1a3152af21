"""Two people, over a served installation and its command line (security rule 7)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from tests.support.est import Device, bootstrap, make_dms
from tests.support.server import Server, command, copy_installation, serving
from tests.support.tables import Tables

NAMES = ("alice", "bob", "carol")
CA = "development-ca"
PATH = f"/api/ca/v1/cas/{CA}"
HOLD = {"status": "REVOKED", "revocation_reason": "CertificateHold"}
RELEASE = {"status": "ACTIVE"}


def lamassu(*arguments: object, url: str = "", status: int = 0) -> str:
    """The command's words; it has to end with this status."""
    words = [str(argument) for argument in arguments]
    if url:
        words += ["--url", url]
    done, said = command(*words)
    assert done == status, said
    return said


def approval_in(said: str) -> str:
    """The id that a command leaves on its last line when others have to agree."""
    assert "they agree by: lamassu approval approve" in said
    return said.rsplit(maxsplit=1)[-1]


def client_folder(server: Server, folder: Path, name: str) -> Path:
    """A folder as a person has it at their own machine, for `--dir`."""
    shutil.copy(server.directory / "tls-ca.crt", folder)
    for suffix in ("crt", "key"):
        shutil.copy(folder / f"{name}.{suffix}", folder / f"admin.{suffix}")
    return folder


@pytest.fixture(scope="module")
def people(platform: Server, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Three admins, two of whom have to agree to what is dangerous for a CA."""
    folders = {}
    for name in NAMES:
        folder = tmp_path_factory.mktemp(name)
        lamassu("admin", "issue", name, "--dir", platform.directory, "--to", folder)
        folders[name] = client_folder(platform, folder, name)
    of = [word for name in NAMES for word in ("--of", name)]
    said = lamassu("ca", "approvals", "set", CA, *of, "--dir", platform.directory, url=platform.url)
    assert "2 of alice, bob, carol" in said
    return folders


def client(server: Server, folder: Path, name: str = "admin") -> httpx.Client:
    return server.client(folder / f"{name}.crt", folder / f"{name}.key")


def approve(server: Server, approval: str, *folders: Path, word: str = "approve") -> None:
    for folder in folders:
        with client(server, folder) as person:
            answer = person.post(f"/api/ca/v1/approvals/{approval}/{word}")
            assert answer.status_code == 200, answer.text


def ask(server: Server, folder: Path, body: Mapping[str, str]) -> str:
    with client(server, folder) as person:
        answer = person.post(f"{PATH}/status", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def use(server: Server, folder: Path, body: Mapping[str, str], approval: str) -> tuple[int, str]:
    with client(server, folder) as person:
        answer = person.post(f"{PATH}/status", json=body, headers={"Lamassu-Approval": approval})
    return answer.status_code, answer.json().get("code", "")


def test_a_ca_is_revoked_by_the_command_line_when_two_agree(
    platform: Server, people: Mapping[str, Path]
) -> None:
    alice, bob, carol = (people[name] for name in NAMES)
    create = (
        *("ca", "create", "short-lived", "--parent", "intermediate-ca", "--validity", "24h"),
        *("--profile", "device-profile"),
    )
    lamassu(*create, "--dir", alice, url=platform.url)
    of = [word for name in NAMES for word in ("--of", name)]
    policy = ("set", "short-lived", *of, "--lifetime", "2h")
    lamassu("ca", "approvals", *policy, "--dir", alice, url=platform.url)
    revoke = ("ca", "revoke", "short-lived", "--yes", "--dir", alice)

    approval = approval_in(lamassu(*revoke, url=platform.url, status=3))

    waiting = ("approval", "list", "--filter", "status[eq]PENDING")
    assert approval in lamassu(*waiting, "--dir", bob, url=platform.url)
    shown = lamassu("approval", "get", approval, "--dir", bob, url=platform.url)
    for word in ("alice", "short-lived: 2 of alice bob carol", "/api/ca/v1/cas/short-lived/status"):
        assert word in shown
    assert '"revocation_reason": "CessationOfOperation"' in shown
    said = lamassu("approval", "approve", approval, "--dir", alice, url=platform.url, status=1)
    assert "you asked for this" in said
    lamassu("approval", "approve", approval, "--dir", bob, url=platform.url)
    early = lamassu(*revoke, "--approval", approval, url=platform.url, status=1)
    assert "has 1 of 2 approvals" in early
    why = ("--comment", "as we said")
    lamassu("approval", "approve", approval, *why, "--dir", carol, url=platform.url)
    other = lamassu(
        *revoke, "--reason", "CACompromise", "--approval", approval, url=platform.url, status=1
    )
    assert "was given for another request" in other
    assert "REVOKED" in lamassu(*revoke, "--approval", approval, url=platform.url)
    shown = lamassu("approval", "get", approval, "-o", "json", "--dir", bob, url=platform.url)
    assert json.loads(shown)["status"] == "SPENT"


def test_a_rejection_ends_it(platform: Server, people: Mapping[str, Path]) -> None:
    approval = ask(platform, people["alice"], HOLD)
    said = lamassu(
        *("approval", "reject", approval, "--comment", "no", "--dir", people["bob"]),
        url=platform.url,
    )
    assert "REJECTED" in said
    assert use(platform, people["alice"], HOLD, approval) == (409, "approval_rejected")


def test_a_person_stays_one_person_with_two_certificates(
    platform: Server, people: Mapping[str, Path], tmp_path: Path
) -> None:
    """A second certificate neither approves what the first one asked nor counts twice."""
    second = {}
    for name in ("alice", "bob"):
        folder = tmp_path / name
        renew = ("--renew", people[name] / "admin.crt")
        lamassu("admin", "issue", name, *renew, "--dir", platform.directory, "--to", folder)
        second[name] = client_folder(platform, folder, name)
    approval = ask(platform, people["alice"], HOLD)

    with client(platform, second["alice"]) as same:
        answer = same.post(f"/api/ca/v1/approvals/{approval}/approve")
    assert (answer.status_code, answer.json()["code"]) == (403, "own_request")
    approve(platform, approval, people["bob"], second["bob"])
    assert use(platform, people["alice"], HOLD, approval) == (409, "approval_pending")
    approve(platform, approval, people["carol"])
    # the same person uses it, by whichever certificate
    assert use(platform, second["alice"], HOLD, approval)[0] == 201
    release = ask(platform, people["alice"], RELEASE)
    approve(platform, release, people["bob"], people["carol"])
    assert use(platform, people["alice"], RELEASE, release)[0] == 201


def test_neither_service_nor_device_nor_stranger_approves(
    platform: Server, people: Mapping[str, Path], tmp_path: Path
) -> None:
    make_dms(platform, "plant")
    device = Device(platform, "plant", "bob", tmp_path, bootstrap(platform, tmp_path, "bob-boot"))
    assert device.enroll().status_code == 200
    assert device.identity is not None
    edge = platform.directory / "est"
    approval = ask(platform, people["alice"], HOLD)

    for person, status in (
        (platform.client(edge / "est.crt", edge / "est.key"), 403),
        (platform.client(device.identity.certificate_path, device.identity.key_path), 401),
        (platform.client(), 401),
        (platform.admin(), 403),
    ):
        with person:
            for word in ("approve", "reject"):
                answer = person.post(f"/api/ca/v1/approvals/{approval}/{word}")
                assert answer.status_code == status, answer.text
    with platform.admin() as admin:
        assert admin.get(f"/api/ca/v1/approvals/{approval}").json()["votes"] == []
    approve(platform, approval, people["alice"], word="reject")


def test_the_host_makes_no_approver_by_itself(
    platform: Server, people: Mapping[str, Path], tmp_path: Path
) -> None:
    issue = ("admin", "issue", "bob", "--dir", platform.directory, "--to", tmp_path / "bob")
    nobody = lamassu(*issue, "--as", platform.directory / "est" / "est.crt", status=1)
    assert "no admin's certificate" in nobody
    assert "--as: " in lamassu(*issue, "--as", tmp_path / "none.crt", status=1)
    approval = approval_in(lamassu(*issue, status=3))
    assert not (tmp_path / "bob" / "bob.key").exists()
    with client(platform, people["bob"]) as bob:
        answer = bob.post(f"/api/ca/v1/approvals/{approval}/approve")
    assert (answer.status_code, answer.json()["code"]) == (403, "approver_concerned")
    approve(platform, approval, people["alice"], people["carol"])

    longer = lamassu(*issue, "--hours", 9000, "--approval", approval, status=1)
    assert "was given for another request" in longer
    lamassu(*issue, "--approval", approval)

    again = ("admin", "issue", "bob", "--dir", platform.directory, "--to", tmp_path / "again")
    assert "is spent" in lamassu(*again, "--approval", approval, status=1)
    mine = lamassu(*again, "--renew", people["alice"] / "admin.crt", status=1)
    assert "it is the certificate of alice" in mine


def test_an_approver_revoked_on_the_host_did_not_approve(
    platform: Server, people: Mapping[str, Path], tmp_path: Path
) -> None:
    approval = ask(platform, people["alice"], HOLD)
    approve(platform, approval, people["bob"], people["carol"])

    lamassu("admin", "revoke", "carol", "--dir", platform.directory)

    assert use(platform, people["alice"], HOLD, approval) == (409, "approval_pending")
    with client(platform, people["carol"]) as carol:
        assert carol.get("/api/ca/v1/approvals").status_code == 401
    to = ("--dir", platform.directory, "--to", tmp_path / "carol")
    renewed = lamassu(
        *("admin", "issue", "carol", "--renew", people["carol"] / "admin.crt", *to), status=1
    )
    assert "it was revoked" in renewed
    # the others bring her back, and her former word still counts for nothing
    back = approval_in(lamassu("admin", "issue", "carol", *to, status=3))
    approve(platform, back, people["alice"], people["bob"])
    lamassu("admin", "issue", "carol", *to, "--approval", back)
    assert use(platform, people["alice"], HOLD, approval) == (409, "approval_pending")
    with platform.admin() as admin:
        assert admin.get(PATH).json()["certificate"]["status"] == "ACTIVE"


def test_the_mode_of_an_installation_with_approvers_is_lowered_by_them(
    fresh: Path, tmp_path: Path
) -> None:
    directory = copy_installation(fresh, tmp_path / "var")
    config, outside = directory / "config.yml", tmp_path / "keystore.pass"
    shutil.copy(directory / "secrets" / "keystore.pass", outside)
    text = config.read_text().replace("secrets/keystore.pass", str(outside))
    config.write_text(text.replace("mode: development", "mode: production"))
    lower = ("config", "lower-mode", "--dir", directory, "--yes")
    with serving(directory, elsewhere=True) as server:
        folders = {}
        for name in NAMES:
            folder = tmp_path / name
            lamassu("admin", "issue", name, "--dir", directory, "--to", folder)
            folders[name] = client_folder(server, folder, name)
        policy = {"required": 2, "of": list(NAMES)}
        with server.admin() as admin:
            assert admin.put(f"{PATH}/approvals", json=policy).status_code == 200

        approval = approval_in(lamassu(*lower, status=3))

        approve(server, approval, folders["alice"], folders["bob"])
    said = lamassu(*lower, "--approval", approval, status=1)
    assert "the configuration says production" in said
    config.write_text(text)
    # editing the file brought nobody past the approvers
    assert approval_in(lamassu(*lower, "--as", folders["carol"] / "admin.crt", status=3))
    lamassu(*lower, "--approval", approval)

    bodies = Tables.of(directory, None).rows(
        "access",
        "SELECT body FROM access_journal WHERE type = 'access.mode' UNION ALL"
        " SELECT body FROM access_outbox WHERE type = 'access.mode'",
    )
    details = [json.loads(body)["detail"] for (body,) in bodies]
    assert {"from": "production", "to": "development", "grounds": f"approval {approval}"} in details
