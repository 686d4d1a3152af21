"""The assembled platform in this process: every listener's application over a real database."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from lamassu import wiring
from lamassu.kernel.identity import Peer, Principal, PrincipalKind
from lamassu.platform.http import Application
from lamassu.wiring.serving import Running, applications
from tests.support.bodies import CSR
from tests.support.server import command, free_port

ADMIN = Peer((b"an admin's certificate",), "192.0.2.1")
EDGE = Peer((b"an edge's certificate",), "192.0.2.2")
PATIENCE = 10.0  # seconds; the slowest honest request takes a fraction of one

_PRINCIPALS = {
    ADMIN.chain: Principal(PrincipalKind.ADMIN, "admin"),
    EDGE.chain: Principal(PrincipalKind.SERVICE, "est"),
}
Headers = Sequence[tuple[bytes, bytes]]


class Doorman:
    """Stands in for access: principals without a certificate."""

    async def authenticate(self, peer: Peer) -> Principal | None:
        return _PRINCIPALS.get(peer.chain)


@dataclass(frozen=True)
class Answer:
    """What the application sent."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Assembled:
    """Opened once for a test file, in an event loop of its own. Requests come one by one."""

    def __init__(self, folder: Path) -> None:
        ports = [str(free_port()) for _ in range(3)]
        options = ("--port", "--http-port", "--internal-port")
        arguments = [word for pair in zip(options, ports, strict=True) for word in pair]
        status, said = command(
            "init", "--dir", str(folder / "var"), "--key-type", "ecdsa-p256", *arguments
        )
        assert status == 0, said
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self.apps = self._runner.run(self._open(folder / "var"))
        self.values = self._furnish()

    async def _open(self, directory: Path) -> Mapping[str, Application]:
        platform = await self._stack.enter_async_context(wiring.opened(directory))
        stood_in = replace(platform, access=cast(Any, Doorman()))
        return applications(stood_in, Running())

    def close(self) -> None:
        """Close the platform, and with it the loop."""
        self._runner.run(self._stack.aclose())
        self._runner.close()

    def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        listener: str = "https",
        query: bytes = b"",
        headers: Headers = (),
        peer: Peer = ADMIN,
    ) -> Answer:
        """One request. Fails when no answer comes within `PATIENCE`."""
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": list(headers),
            "query_string": query,
            "scheme": "https",
            "extensions": {"lamassu.peer": peer},
        }
        return self._runner.run(_served(self.apps[listener], scope, body))

    def make(self, path: str, document: object) -> Any:
        """POST what must be taken; the answer's document."""
        answer = self.ask("POST", path, json.dumps(document).encode())
        assert answer.status in (200, 201), answer.body
        return answer.json

    def _furnish(self) -> dict[str, str]:
        """One thing of every kind, for paths to name; those that tests revoke are nobody's."""
        for ca_id in ("victim-ca", "bystander-ca"):
            self.make("/api/ca/v1/cas", ca(ca_id))
        sign = "/api/ca/v1/cas/{}/certificates/sign"
        booted = self.make(sign.format("bootstrap-ca"), {"csr": CSR})
        self.bootstrap = der_of(booted)
        victim = self.make(sign.format("bystander-ca"), {"csr": CSR})
        key = self.make("/api/kms/v1/keys", {"algorithm": "ECDSA", "size": 256, "name": "one"})
        self.make("/api/dmsmanager/v1/dms", dms("plant"))
        device = {"id": "device", "dms_id": "plant", "icon": "i", "icon_color": "#112233"}
        self.make("/api/devmanager/v1/devices", device)
        manufacturing = self.ask("GET", "/api/ca/v1/cas/manufacturing-ca").json
        return {
            "/api/kms {id}": key["key_id"],
            "/api/ca/v1/cas {id}": "bystander-ca",
            "/api/ca/v1/cas/{id}/status {id}": "victim-ca",
            "/api/ca/v1/stats {id}": "manufacturing-ca",
            "/api/ca/v1/cas {cn}": "Lamassu Root CA",
            "/api/ca {sn}": victim["serial_number"],
            "/api/ca {status}": "ACTIVE",
            "/api/ca/v1/profiles {id}": "device-profile",
            "/api/ca/v1/issuanceprofiles {id}": "device-profile",
            "/api/va {ski}": manufacturing["certificate"]["subject_key_id"],
            "/crl {ski}": manufacturing["certificate"]["subject_key_id"],
            "/ca {ca_id}": "manufacturing-ca",
            "/api/dmsmanager {id}": "plant",
            "/api/dmsmanager {aps}": "plant",
            "/.well-known {aps}": "plant",
            "/internal {id}": "plant",
            "/api/devmanager {id}": "device",
            "/api/devmanager {dms_id}": "plant",
        }


async def _served(app: Application, scope: dict[str, Any], body: bytes) -> Answer:
    sent: list[dict[str, Any]] = []
    unsent = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        if not unsent:
            await asyncio.Event().wait()  # the client stays and says no more
        return unsent.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    async with asyncio.timeout(PATIENCE):
        await app(scope, receive, send)
    start, *parts = sent
    headers = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
    return Answer(start["status"], headers, b"".join(part.get("body", b"") for part in parts))


def ca(ca_id: str) -> dict[str, Any]:
    """The body that makes a small CA of its own."""
    return {
        "id": ca_id,
        "subject": {"common_name": ca_id, "organization": "Lamassu"},
        "key_metadata": {"type": "ECDSA", "bits": 256},
        "ca_expiration": {"type": "Duration", "duration": "1y"},
        "profile_id": "device-profile",
        "metadata": {"a": [1, {"b": None}]},
    }


def dms(dms_id: str) -> dict[str, Any]:
    """The body that makes a DMS with something in every part."""
    authentication = {
        "auth_mode": "CLIENT_CERTIFICATE",
        "client_certificate_settings": {"validation_cas": ["bootstrap-ca"], "allow_expired": False},
    }
    return {
        "id": dms_id,
        "name": "Plant",
        "metadata": {"site": "Ulm"},
        "settings": {
            "server_keygen_settings": {"enabled": False, "key": {"type": "ECDSA", "bits": 256}},
            "enrollment_settings": {
                "protocol": "EST_RFC7030",
                "est_rfc7030_settings": authentication,
                "device_provisioning_profile": {
                    "icon": "i",
                    "icon_color": "#112233",
                    "metadata": {},
                    "tags": ["a"],
                },
                "enrollment_ca": "manufacturing-ca",
                "registration_mode": "JITP",
                "verify_csr_signature": True,
            },
            "reenrollment_settings": {
                "additional_validation_cas": ["development-ca"],
                "reenrollment_delta": "100d",
                "preventive_delta": "31d",
                "critical_delta": "7d",
            },
            "ca_distribution_settings": {"managed_cas": ["root-ca"]},
            "issuance_profile_id": "device-profile",
        },
    }


def der_of(certificate: Mapping[str, Any]) -> bytes:
    """The DER of a certificate that the API answered."""
    pem = base64.b64decode(certificate["certificate"])
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
