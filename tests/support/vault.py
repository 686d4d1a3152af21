"""HashiCorp Vault itself, built from tests/vault-server: sealed, TLS, data in files."""

from __future__ import annotations

import atexit
import base64
import datetime as dt
import hashlib
import ipaddress
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import hvac
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from lamassu.services.kms.engines.vault import VaultAccess, VaultEngine
from lamassu.services.kms.engines.vault.transit import versions_of
from lamassu.services.kms.model import Padding, SignatureScheme
from lamassu.services.kms.ports import CryptoEngine, EngineLimits
from tests.support.engines import ComponentMissing
from tests.support.server import free_port

MODULE = Path(__file__).resolve().parents[1] / "vault-server"
SHARES, THRESHOLD = 3, 2
INSTALLATION = "0123456789abcdef"
LIMITS = EngineLimits(workers=32, sign_seconds=10, generate_seconds=60)
TRANSIT, KV = "lamassu-pki", "lamassu-pki-kvv2"
TRANSIT_POLICY = """
path "{mount}/keys"             {{ capabilities = ["list"] }}
path "{mount}/keys/*"           {{ capabilities = ["create", "update", "read", "delete"] }}
path "{mount}/sign/*"           {{ capabilities = ["create", "update"] }}
path "{mount}/wrapping_key"     {{ capabilities = ["read"] }}
"""
KV_POLICY = """
path "{mount}/data/*"           {{ capabilities = ["create", "update", "read"] }}
path "{mount}/metadata/*"       {{ capabilities = ["create", "update", "read", "list", "delete"] }}
path "{mount}/metadata"         {{ capabilities = ["list"] }}
"""
ORIGINAL_POLICY = """
path "{mount}/*" {{ capabilities = [ "read", "create", "delete", "list" ] }}
path "sys/mounts/{mount}" {{ capabilities = [ "read", "create", "update" ] }}
path "sys/mounts" {{ capabilities = [ "read" ] }}
"""


@cache
def find_vault() -> Path:
    """The built server. Raises `ComponentMissing`."""
    binary = MODULE / "bin" / "vault"
    if not binary.exists():
        raise ComponentMissing("Vault is not built (scripts/test-vault, which needs Go)")
    return binary


def certificate_authority(name: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A CA for a listener."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _certificate(subject, subject, key.public_key())
    certificate = (
        builder.add_extension(x509.BasicConstraints(True, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def _certificate(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=1))
    )


@dataclass(frozen=True)
class Role:
    """An AppRole and its credentials."""

    name: str
    role_id: str
    secret_id: str


@dataclass
class VaultServer:
    """Started by `start`, initialised and unsealed; listens on loopback with TLS."""

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="lamassu-vault-")))
    port: int = field(default_factory=free_port)
    root_token: str = ""
    unseal_keys: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def client(self) -> hvac.Client:
        """As root."""
        return hvac.Client(self.address, self.root_token, verify=str(self.ca_file), timeout=20)

    def create(self) -> None:
        """Certificates and configuration."""
        authority, authority_key = certificate_authority("CA of Vault's listener")
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vault")])
        certificate = (
            _certificate(name, authority.subject, key.public_key())
            .add_extension(
                x509.SubjectAlternativeName(
                    [
                        x509.DNSName("localhost"),
                        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
                    ]
                ),
                critical=False,
            )
            .sign(authority_key, hashes.SHA256())
        )
        self.ca_file.write_bytes(authority.public_bytes(Encoding.PEM))
        (self.folder / "server.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        (self.folder / "server.key").write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        configuration = {
            "storage": {"file": {"path": str(self.folder / "data")}},
            "listener": {
                "tcp": {
                    "address": f"127.0.0.1:{self.port}",
                    "tls_cert_file": str(self.folder / "server.pem"),
                    "tls_key_file": str(self.folder / "server.key"),
                }
            },
            "api_addr": self.address,
            "disable_mlock": True,
            "log_level": "info",
        }
        (self.folder / "vault.json").write_text(json.dumps(configuration))

    def run(self) -> None:
        """Run the process and return when it answers, as it may be: sealed."""
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            [str(find_vault()), "server", f"-config={self.folder / 'vault.json'}"],
            stdout=log,
            stderr=log,
            env={**os.environ, "HOME": str(self.folder)},
        )
        log.close()
        deadline = time.monotonic() + 60
        while True:
            with suppress(Exception):
                self.client.sys.read_seal_status()
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "log").read_text(errors="replace")[-4000:])
            time.sleep(0.05)

    def start(self) -> None:
        """Run it; initialise it the first time; unseal it."""
        if not self.ca_file.exists():
            self.create()
        self.run()
        if not self.client.sys.is_initialized():
            made = self.client.sys.initialize(SHARES, THRESHOLD)
            self.root_token, self.unseal_keys = made["root_token"], tuple(made["keys_base64"])
            self.unseal()
            self.client.sys.enable_auth_method("approle")
        else:
            self.unseal()

    def stop(self) -> None:
        """As when its machine loses power."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait(timeout=30)

    def remove(self) -> None:
        """Stop it and delete everything."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def seal(self) -> None:
        self.client.sys.seal()

    def unseal(self) -> None:
        """Unsealed and active when this returns."""
        client = self.client
        for key in self.unseal_keys[:THRESHOLD]:
            client.sys.submit_unseal_key(key=key)
        deadline = time.monotonic() + 30
        while not isinstance(client.sys.read_health_status(method="GET"), dict):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def mount(self, path: str, kind: str) -> str:
        """Make a mount of a kind, unless it is there."""
        if f"{path}/" not in self.client.sys.list_mounted_secrets_engines()["data"]:
            options = {"version": "2"} if kind == "kv" else None
            self.client.sys.enable_secrets_engine(kind, path=path, options=options)
            self._wait_for(path)
        return path

    def _wait_for(self, path: str) -> None:
        """KV v2 upgrades its storage for a moment after it is mounted."""
        deadline = time.monotonic() + 20
        while True:
            with suppress(hvac.exceptions.VaultError):
                self.client.adapter.get(f"/v1/{path}/config")
                return
            if "kv" not in path or time.monotonic() > deadline:
                return
            time.sleep(0.05)

    def role(
        self,
        name: str,
        policy: str,
        *,
        secret_id: Mapping[str, object] | None = None,
        **settings: object,
    ) -> Role:
        """An AppRole with a policy of its own."""  # fmt: skip
        client = self.client
        client.sys.create_or_update_policy(name, policy)
        client.auth.approle.create_or_update_approle(name, token_policies=[name], **settings)
        return Role(
            name,
            client.auth.approle.read_role_id(name)["data"]["role_id"],
            self.new_secret_id(name, **(secret_id or {})),
        )

    def new_secret_id(self, name: str, **limits: object) -> str:
        answer = self.client.adapter.post(
            f"/v1/auth/approle/role/{name}/secret-id", json=dict(limits)
        )
        return str(answer["data"]["secret_id"])

    def access(self, role: Role, mount: str, **changed: Any) -> VaultAccess:
        """What an adapter comes with."""
        given: dict[str, Any] = {
            "engine_id": "vault",
            "url": self.address,
            "mount_path": mount,
            "role_id": role.role_id,
            "secret_id": role.secret_id,
            "ca_file": self.ca_file,
            **changed,
        }
        return VaultAccess(**given)

    def engine(self, role: Role, mount: str, **changed: Any) -> VaultEngine:
        """A fresh adapter, as after a restart of ours."""
        limits = changed.pop("limits", LIMITS)
        return VaultEngine(
            "vault",
            self.access(role, mount, **changed),
            limits=limits,
            installation=INSTALLATION,
        )

    def audit_device(self) -> Path:
        """Have every request written down; where."""
        path = self.folder / "audit.log"
        self.client.sys.enable_audit_device("file", options={"file_path": str(path)})
        return path

    def requests(self, path: Path, pattern: str) -> int:
        """How many requests went to paths that match."""
        entries = [json.loads(line) for line in path.read_text().splitlines()]
        return sum(
            entry["type"] == "request" and bool(re.fullmatch(pattern, entry["request"]["path"]))
            for entry in entries
        )


_running: list[VaultServer] = []


def shared_server() -> VaultServer:
    """One for the whole run. Raises `ComponentMissing`."""
    if not _running:
        find_vault()
        server = VaultServer()
        atexit.register(server.remove)
        server.start()
        _running.append(server)
    return _running[0]


@dataclass
class VaultStand:
    """A mount of a kind, and an AppRole that may use it."""

    server: VaultServer
    mount: str
    role: Role

    def engine(self) -> CryptoEngine:
        engine = self.server.engine(self.role, self.mount)
        engine.check()  # what it can do is told by its mount
        return engine

    def section(self) -> str:
        return (
            "crypto_engines:\n"
            "  hashicorp_vault:\n"
            "    - id: vault-engine\n"
            f"      address: {self.server.address}\n"
            '      role_id: "${VAULT_ROLE_ID}"\n'
            '      secret_id: "${VAULT_SECRET_ID}"\n'
            f"      mount_path: {self.mount}\n"
            f"      ca_cert_file: {self.server.ca_file}\n"
        )

    @property
    def environment(self) -> Mapping[str, str]:
        return {"VAULT_ROLE_ID": self.role.role_id, "VAULT_SECRET_ID": self.role.secret_id}

    def native_rate(
        self, key_id: str, scheme: SignatureScheme, message: bytes, callers: int, seconds: float
    ) -> float:
        """What Vault itself does in a second, asked by a program in Go (bench/asker): signatures
        of Transit, or reads of the secret in KV v2."""
        client = self.server.client
        if client.sys.list_mounted_secrets_engines()["data"][f"{self.mount}/"]["type"] == "kv":
            path, body = f"data/{key_id}", b""
        else:
            path, body = f"sign/{self._name_of(key_id)}", _sign_request(scheme, message)
        done = subprocess.run(
            [
                str(_asker()),
                *("-url", f"{self.server.address}/v1/{self.mount}/{path}"),
                *("-ca", str(self.server.ca_file)),
                *("-c", str(callers), "-seconds", str(seconds)),
            ],
            input=body,
            capture_output=True,
            check=True,
            env={**os.environ, "ASK_TOKEN": self.server.root_token},
        )
        return float(done.stdout)

    def _name_of(self, key_id: str) -> str:
        transit = self.server.client.secrets.transit
        for name in transit.list_keys(mount_point=self.mount)["data"]["keys"]:
            data = transit.read_key(name, mount_point=self.mount)["data"]
            if any(key.key_id == key_id for key in versions_of(name, data)):
                return str(name)
        raise LookupError(key_id)

    @contextmanager
    def gone(self) -> Iterator[None]:
        self.server.seal()
        try:
            yield
        finally:
            self.server.unseal()


def _sign_request(scheme: SignatureScheme, message: bytes) -> bytes:
    if scheme.hash is None:
        return json.dumps({"input": base64.b64encode(message).decode()}).encode()
    digest = hashlib.new(scheme.hash.name, message).digest()
    return json.dumps(
        {
            "input": base64.b64encode(digest).decode(),
            "prehashed": True,
            "hash_algorithm": f"sha2-{len(digest) * 8}",
            "signature_algorithm": "pss" if scheme.padding is Padding.PSS else "pkcs1v15",
            "salt_length": "hash",
        }
    ).encode()


@cache
def _asker() -> Path:
    """Built once for the run. Raises `ComponentMissing`."""
    source = MODULE.parents[1] / "bench" / "asker"
    program = source.parent / "bin" / "asker"
    if shutil.which("go") is None:
        raise ComponentMissing("Go is not installed")
    subprocess.run(["go", "build", "-o", str(program), "."], cwd=source, check=True)
    return program


def _stand(kind: str, mount: str, policy: str) -> Callable[[Path], Any]:
    @contextmanager
    def opened(folder: Path) -> Iterator[VaultStand]:
        server = shared_server()
        name = f"{mount}-{os.urandom(4).hex()}"
        server.mount(name, kind)
        yield VaultStand(server, name, server.role(name, policy.format(mount=name)))

    return opened


kv_stand = _stand("kv", KV, KV_POLICY)
transit_stand = _stand("transit", TRANSIT, TRANSIT_POLICY)
