"""The OpenAPI document is what the server does: schemathesis holds every route to it.

Each operation is asked with what its schema allows and with what breaks it, at and around every
bound, and by methods that it has not; each answer's status, headers, media type and body must be
the document's. `make soak` goes on with random requests.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from lamassu.kernel.x509.pem import pem_of
from tests.support.est import Device, bootstrap, make_csr, make_dms, new_key
from tests.support.server import Server, make_installation, serving

CONFIG = Path(__file__).parent.parent / "support" / "schemathesis.toml"
SOAK = int(os.environ.get("LAMASSU_SOAK_SECONDS", "0"))
# So much of the document has to be answered by success, too, or the examples need care.
LEAST_SUCCEEDING = 0.6


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = make_installation(
        tmp_path_factory.mktemp("described") / "var", key_type="ecdsa-p256"
    )
    with serving(directory) as server:
        yield server


def b64(text: bytes) -> str:
    return base64.b64encode(text).decode("ascii")


class Lived:
    """An installation in which there is one of each thing, and how requests name it."""

    def __init__(self, server: Server, folder: Path) -> None:
        make_dms(server, "described")
        credential = bootstrap(server, folder, "described-bootstrap")
        device = Device(server, "described", "described-1", folder / "device", credential)
        assert device.enroll().status_code == 200
        assert device.identity is not None
        self.csr = b64(pem_of(make_csr(new_key(), "described-2"), "CERTIFICATE REQUEST"))
        self.serial_number = device.identity.serial_number
        with server.admin() as admin:
            self.ca = self._made(admin.post("/api/ca/v1/cas", json=self.new_ca("described-ca")))
            key = admin.post("/api/kms/v1/keys", json=self.new_key("described-key"))
            self.key_id = self._made(key)["key_id"]
            profiles = admin.get("/api/ca/v1/profiles").json()["list"]
            self.profile_id = profiles[0]["id"]
        self.ski = self.ca["certificate"]["subject_key_id"]

    def _made(self, answer: Any) -> Any:
        assert answer.status_code == 201, answer.text
        return answer.json()

    def new_ca(self, ca_id: str) -> dict[str, Any]:
        return {
            "id": ca_id,
            "subject": {"common_name": ca_id},
            "key_metadata": {"type": "ECDSA", "bits": 256},
            "ca_expiration": {"type": "Duration", "duration": "8760h"},
            "profile_id": "device-profile",
        }

    def new_key(self, name: str) -> dict[str, Any]:
        return {"algorithm": "ECDSA", "size": 256, "name": name}

    def path_values(self, path: str, name: str) -> list[str]:
        """Things that are there, by the path that asks for them."""
        if name == "status":
            return ["ACTIVE"]
        if name == "cn":
            return ["described-ca"]
        if name == "sn":
            return [self.serial_number]
        if name == "ski":
            return [self.ski]
        if name == "ca_id":
            return ["described-ca"]
        if name == "dms_id" or "/dms/" in path or "/.well-known/" in path:
            return ["described"]
        for part, value in (
            ("/devices/", "described-1"),
            ("/keys/", self.key_id),
            ("profiles/", self.profile_id),
            ("/cas/", "described-ca"),
            ("/stats/", "described-ca"),
        ):
            if part in path:
                return [value]
        return []

    def bodies(self) -> Mapping[str, dict[str, Any]]:
        """Bodies with which something is done, by method and path."""
        message = b64(b"a message")
        signing = {"message": message, "message_type": "raw"}
        one = "/api/ca/v1/cas/{id}"
        patches = {"patches": [{"op": "add", "path": "/described", "value": 1}]}
        return {
            "post /api/ca/v1/cas": self.new_ca("described-ca-2"),
            f"post {one}/certificates/sign": {"csr": self.csr},
            f"post {one}/profile": {"profile_id": "device-profile"},
            f"post {one}/rekey": {},
            f"post {one}/status": {"status": "ACTIVE"},
            f"post {one}/signature/sign": signing | {"signature_algorithm": "ECDSA_SHA_256"},
            f"post {one}/signature/verify": signing
            | {"signature_algorithm": "ECDSA_SHA_256", "signature": message},
            f"put {one}/metadata": patches,
            f"patch {one}/metadata": patches,
            "put /api/ca/v1/certificates/{sn}/metadata": patches,
            "patch /api/ca/v1/certificates/{sn}/metadata": patches,
            "put /api/ca/v1/certificates/{sn}/status": {
                "status": "REVOKED",
                "revocation_reason": "CertificateHold",
            },
            "post /api/ca/v1/certificates/{sn}/revoke": {"reason": "Superseded"},
            "post /api/kms/v1/keys": self.new_key("described-key-2"),
            "post /api/kms/v1/keys/{id}/sign": signing | {"algorithm": "ECDSA_SHA_256"},
            "post /api/kms/v1/keys/{id}/verify": signing
            | {"algorithm": "ECDSA_SHA_256", "signature": message},
            "put /api/kms/v1/keys/{id}/metadata": patches,
            "put /api/kms/v1/keys/{id}/name": {"name": "described"},
            "put /api/kms/v1/keys/{id}/tags": {"tags": ["described"]},
            "post /api/devmanager/v1/devices": {
                "id": "described-3",
                "dms_id": "described",
                "icon": "",
                "icon_color": "",
            },
            "put /api/devmanager/v1/devices/{id}/metadata": patches,
            "patch /api/devmanager/v1/devices/{id}/metadata": patches,
            "put /api/dmsmanager/v1/dms/{id}/metadata": patches,
            "patch /api/dmsmanager/v1/dms/{id}/metadata": patches,
            "post /api/ca/v1/certificates": {
                "ca_id": "described-ca",
                "key_spec": {"type": "ECDSA", "bits": 256},
                "subject": {"common_name": "described"},
            },
        }


def with_examples(document: dict[str, Any], lived: Lived) -> dict[str, Any]:
    """The document, with examples of what is there."""
    bodies = lived.bodies()
    for path, item in document["paths"].items():
        for method, operation in item.items():
            for parameter in operation["parameters"]:
                values = (
                    lived.path_values(path, parameter["name"]) if parameter["in"] == "path" else []
                )
                if values:
                    parameter["examples"] = {
                        str(number): {"value": value} for number, value in enumerate(values)
                    }
            body = bodies.get(f"{method} {path}")
            if body is not None:
                content = operation["requestBody"]["content"]["application/json"]
                content["example"] = body
    return document


def described(server: Server) -> dict[str, Any]:
    with server.admin() as admin:
        document: dict[str, Any] = admin.get("/api/openapi.json").json()
    return document


@pytest.mark.timeout(1800 + SOAK)  # some 15,000 requests, a minute of processor
def test_the_document_is_what_the_server_does(server: Server, tmp_path: Path) -> None:
    document = with_examples(described(server), Lived(server, tmp_path))
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    phases = ["examples", "coverage"]
    arguments = ["--seed", "1", "--workers", "2", "--continue-on-failure"]
    if SOAK:
        phases.append("fuzzing")
        arguments = ["--max-time", str(SOAK), "--workers", "2"]

    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            "--config-file", str(CONFIG),
            "run", str(tmp_path / "openapi.json"),
            "--url", server.url,
            "--tls-verify", str(server.directory / "tls-ca.crt"),
            "--request-cert", str(server.directory / "admin.crt"),
            "--request-cert-key", str(server.directory / "admin.key"),
            "--phases", ",".join(phases),
            "--warnings", "off",
            "--report", "ndjson",
            "--report-ndjson-path", str(tmp_path / "report.ndjson"),
            *arguments,
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip

    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    statuses = answered(tmp_path / "report.ndjson")
    operations = {
        f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item
    }
    assert statuses.keys() == operations
    failing = sorted(
        one for one in operations if not any(200 <= status < 300 for status in statuses[one])
    )
    assert len(failing) <= (1 - LEAST_SUCCEEDING) * len(operations), failing


def answered(report: Path) -> dict[str, set[int]]:
    """Which statuses each operation answered its own method with."""
    found: dict[str, set[int]] = defaultdict(set)
    for line in report.read_text().splitlines():
        recorder = json.loads(line).get("ScenarioFinished", {}).get("recorder")
        if recorder is None:
            continue
        label = recorder["label"]
        for interaction in recorder.get("interactions", {}).values():
            seen = interaction.get("value", interaction)
            request, response = seen.get("request"), seen.get("response")
            if request and response and request["method"] == label.split()[0]:
                found[label].add(response["status_code"])
    return found


def test_every_route_says_what_it_answers_and_how_it_refuses(server: Server) -> None:
    document = described(server)
    # clients make names of their own of these
    assert not [name for name in document["components"]["schemas"] if "__" in name]
    for path, item in document["paths"].items():
        for method, operation in item.items():
            where = f"{method} {path}"
            responses = operation["responses"]
            assert "default" not in responses, where
            assert all(re.fullmatch(r"[2345]\d\d", status) for status in responses), where
            for status, answer in responses.items():
                says = "content" in answer or "$ref" in answer or status in ("204", "304")
                assert says, f"{where}: {status} without answer or media_types"
