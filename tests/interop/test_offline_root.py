"""The seed's hierarchy under an offline root: two hosts, a real token, openssl as the judge.

The commands are those of `docs/how-to/offline-root.md`, block by block.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from lamassu.kernel.x509.pem import pem_of
from tests.support.csrs import request
from tests.support.engines import ComponentMissing
from tests.support.missing import missing_component
from tests.support.server import Server, make_installation, serving
from tests.support.softhsm import SoftHsm, Token

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "offline-root.md"
BLOCK = re.compile(r"^```(\w+) ([\w.-]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(kind, where, text) for kind, where, text in BLOCK.findall(PAGE.read_text())]
TODAY = f"{datetime.now(UTC):%Y-%m-%d}"
# date; custodian; another role and name, no more; root: name, organization, country, key,
# validity, depth; CA's request, known, validity, no more; responder's likewise; no revocations;
# CRL; yes
GUIDED = [
    TODAY, "Ada Lovelace", "witness", "Charles Babbage", "", "Acme Root CA", "Acme", "PT",
    "ecdsa-p384", "", "2", "acme-intermediate.csr", "y", "", "", "acme-root-ocsp.csr", "y", "",
    "", "", "", "y",
]  # fmt: skip


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Token:
    try:
        return SoftHsm(tmp_path_factory.mktemp("hsm") / "softhsm").token("AcmeRoot")
    except ComponentMissing as missing:
        missing_component(str(missing))


@dataclass
class Hosts:
    """A platform that is served, and a host with a token; each has a folder of its own."""

    platform: Path
    offline: Path
    server: Server
    token: Token
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, where: str, script: str, stdin: str = "", status: int = 0) -> str:
        folder = self.platform if where == "platform" else self.offline
        # the place that the platform's commands take for granted is its working directory
        environment = {
            **os.environ,
            **self.environment,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "NO_COLOR": "1",
            "COLUMNS": "200",
        }
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=folder, env=environment, input=stdin, capture_output=True, text=True,
            timeout=180, check=False,
        )  # fmt: skip
        assert done.returncode == status, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def carry(self, name: str, *, to: str) -> None:
        """The stick."""
        there = self.platform if to == "platform" else self.offline
        back = self.offline if to == "platform" else self.platform
        found = next(path for path in (back / name, back / "ceremony" / name) if path.exists())
        shutil.copy(found, there / name)

    def fetch(self, path: str) -> bytes:
        answer = httpx.get(f"{self.server.http_url}{path}", timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.content

    def pem(self, ca_id: str) -> Path:
        path = self.platform / f"{ca_id}.crt"
        if not path.exists():
            answer = self.ask("GET", f"/api/ca/v1/cas/{ca_id}")
            path.write_bytes(base64.b64decode(answer.json()["certificate"]["certificate"]))
        return path

    def ask(self, method: str, path: str, body: object = None) -> httpx.Response:
        """As the admin, over the API."""
        with self.server.admin() as client:
            return client.request(method, path, json=body)

    def deliver(self, path: str, content: bytes, **more: str) -> tuple[int, str]:
        """What the API says to a file."""
        body = {"signed": base64.b64encode(content).decode(), **more}
        answer = self.ask("POST", path, body)
        return answer.status_code, answer.json().get("err", "")

    def ocsp(self, name: str, issuer: str) -> str:
        return self.run(
            "platform",
            f"openssl ocsp -issuer {self.pem(issuer)} -cert {self.pem(name)}"
            f" -url {self.server.http_url}/ocsp -CAfile {self.pem('acme-root')} -resp_text",
        )

    def verify(self, leaf: Path, *between: str) -> tuple[bool, str]:
        """`openssl verify -crl_check_all` with every CRL as it is served."""
        crls = b""
        for name in ("acme-root", *between):
            crl = x509.load_der_x509_crl(self.fetch(f"/ca/{name}.crl"))
            crls += crl.public_bytes(Encoding.PEM)
        (self.platform / "crls.pem").write_bytes(crls)
        chain = "".join(self.pem(name).read_text() for name in between)
        (self.platform / "chain.pem").write_text(chain)
        done = subprocess.run(
            ["openssl", "verify", "-x509_strict", "-crl_check_all", "-CRLfile", "crls.pem",
             "-CAfile", str(self.pem("acme-root")), "-untrusted", "chain.pem", str(leaf)],
            cwd=self.platform, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory, token: Token) -> Iterator[Hosts]:
    platform = tmp_path_factory.mktemp("platform")
    offline = tmp_path_factory.mktemp("offline")
    make_installation(platform / "var", key_type="ecdsa-p256")
    with serving(platform / "var") as server:
        yield Hosts(platform, offline, server, token, {"HSM_PIN": token.pin})


def written(hosts: Hosts, name: str, text: str) -> None:
    """A file of the page; the token is this test's."""
    module = re.compile(r'module_path: "[^"]+"')
    place = (
        f'module_path: "{hosts.token.module_path}"\n'
        f"      module_extra_options: {{env: {{SOFTHSM2_CONF: {hosts.token.hsm.config}}}}}"
    )
    day = re.compile(r"^date: 20\d\d-\d\d-\d\d", re.MULTILINE)
    (hosts.offline / name).write_text(day.sub(f"date: {TODAY}", module.sub(lambda _: place, text)))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_seeds_hierarchy_stands_under_an_offline_root(hosts: Hosts) -> None:
    said: list[str] = []
    for kind, where, text in BLOCKS:
        if kind == "yaml":
            written(hosts, where, text)
            continue
        if where == "interactive":
            for name in ("acme-intermediate.csr", "acme-root-ocsp.csr"):
                hosts.carry(name, to="offline")
            check_nothing_is_issued_before(hosts)
            said.append(hosts.run("offline", text, stdin="\n".join(GUIDED) + "\n"))
            continue
        if "import-signed session-1" in text:
            hosts.carry("session-1.bundle", to="platform")
            status = hosts.run("offline", "lamassu ceremony status")
            found = re.search(r"^root ([0-9a-f]{64})$", status, re.MULTILINE)
            assert found
            hosts.environment["FINGERPRINT"] = found[1]
            check_forgeries_are_refused(hosts)
        if "--script session-2.yml" in text:
            hosts.carry("revocations.json", to="offline")
        if "import-crl session-2" in text:
            hosts.carry("session-2.bundle", to="platform")
        if "ca revoke acme-intermediate" in text:
            check_the_hierarchy(hosts)
        said.append(hosts.run(where, text))
        if "ca revoke acme-intermediate" in text:
            assert "has to be made at its ceremony" in said[-1].replace("\n", " ")
            check_what_shows_before_the_ceremony(hosts)
        if "import-crl session-2" in text:
            check_what_shows_after_it(hosts)
    assert "Verified OK" in "".join(said)
    check_the_token(hosts.token)


def check_nothing_is_issued_before(hosts: Hosts) -> None:
    ids = [ca["id"] for ca in hosts.ask("GET", "/api/ca/v1/cas").json()["list"]]
    assert "acme-intermediate" not in ids
    assert "AWAITING_CERTIFICATE" in hosts.run("platform", "lamassu ca requests")
    path = "/api/ca/v1/cas/acme-intermediate/certificates/sign"
    assert hosts.ask("POST", path, {"csr": wire_csr()}).status_code == 404


def check_forgeries_are_refused(hosts: Hosts) -> None:
    bundle = (hosts.platform / "session-1.bundle").read_bytes()
    take_in = "/api/ca/v1/cas/import-signed"
    forged = hosts.deliver(take_in, bundle.replace(b"Ada", b"Eve"))
    assert forged[0] == 400
    assert "was changed or is a forgery" in forged[1]
    unconfirmed = hosts.deliver(take_in, bundle)
    assert unconfirmed[0] == 400
    assert "compare its fingerprint" in unconfirmed[1]
    early = hosts.deliver("/api/va/v1/crls/import", bundle)
    assert early[0] == 400
    assert "no CA here signed this" in early[1]
    ids = [ca["id"] for ca in hosts.ask("GET", "/api/ca/v1/cas").json()["list"]]
    assert not [ca_id for ca_id in ids if ca_id.startswith("acme")]


def check_the_hierarchy(hosts: Hosts) -> None:
    listed = hosts.ask("GET", "/api/ca/v1/cas?filter=id[ct]acme").json()["list"]
    cas = {ca["id"]: ca for ca in listed}
    years = {name: round((_end(ca) - datetime.now(UTC)).days / 365) for name, ca in cas.items()}
    assert years == {
        "acme-root": 10, "acme-intermediate": 5, "acme-manufacturing": 2, "acme-fleet": 2,
        "acme-development": 1,
    }  # fmt: skip
    assert cas["acme-root"]["key_status"] == "OFFLINE"
    assert cas["acme-root"]["certificate"]["type"] == "IMPORTED_WITHOUT_KEY"
    assert "key_status" not in cas["acme-intermediate"]
    assert (cas["acme-intermediate"]["level"], cas["acme-fleet"]["level"]) == (1, 2)
    leaf = a_device(hosts)
    right, text = hosts.verify(leaf, "acme-intermediate", "acme-manufacturing")
    assert right, text
    good = hosts.ocsp("acme-intermediate", "acme-root")
    assert "acme-intermediate.crt: good" in good
    assert "Response verify OK" in good
    assert "OCSP responder of acme-root" in good
    refused = hosts.run(
        "platform", "lamassu ca create other --parent acme-root --profile device-profile", status=1
    )
    assert "the key of acme-root is offline" in refused
    bundle = (hosts.platform / "session-1.bundle").read_bytes()
    assert hosts.deliver("/api/ca/v1/cas/import-signed", bundle)[0] == 200
    assert hosts.deliver("/api/va/v1/crls/import", bundle)[0] == 200


def wire_csr() -> str:
    pem = pem_of(request("device-1"), "CERTIFICATE REQUEST")
    return base64.b64encode(pem).decode()


def a_device(hosts: Hosts) -> Path:
    path = "/api/ca/v1/cas/acme-manufacturing/certificates/sign"
    issued = hosts.ask("POST", path, {"csr": wire_csr()})
    assert issued.status_code == 201, issued.text
    leaf = hosts.platform / "device.crt"
    leaf.write_bytes(base64.b64decode(issued.json()["certificate"]))
    return leaf


def check_what_shows_before_the_ceremony(hosts: Hosts) -> None:
    """OCSP knows, the CRL cannot yet."""
    leaf = hosts.platform / "device.crt"
    revoked = hosts.ocsp("acme-intermediate", "acme-root")
    assert "acme-intermediate.crt: revoked" in revoked
    assert "Response verify OK" in revoked
    serial = x509.load_pem_x509_certificate(hosts.pem("acme-intermediate").read_bytes())
    crl = x509.load_der_x509_crl(hosts.fetch("/ca/acme-root.crl"))
    assert crl.get_revoked_certificate_by_serial_number(serial.serial_number) is None
    assert leaf.exists()


def check_what_shows_after_it(hosts: Hosts) -> None:
    right, text = hosts.verify(
        hosts.platform / "device.crt", "acme-intermediate", "acme-manufacturing"
    )
    assert not right
    assert "certificate revoked" in text
    hosts.server.stop()
    hosts.server.start()  # an installation with an offline root starts like any other
    assert "acme-intermediate.crt: revoked" in hosts.ocsp("acme-intermediate", "acme-root")
    path = "/api/va/v1/crls/import"
    older = hosts.deliver(path, (hosts.platform / "session-1.bundle").read_bytes())
    assert older[0] == 409
    assert "CRL number 2 is here already" in older[1]
    again = hosts.deliver(path, (hosts.platform / "session-2.bundle").read_bytes())
    assert again[0] == 200


def check_the_token(token: Token) -> None:
    """One root key, which cannot leave."""
    private = [one for one in token.objects() if one["object"].startswith("Private Key")]
    assert len(private) == 1
    assert "never extractable" in private[0].get("Access", "")


def _end(ca: dict[str, dict[str, str]]) -> datetime:
    return datetime.fromisoformat(ca["certificate"]["valid_to"])
