"""The emulator of AWS for a test run, and adapters that talk to it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from lamassu.services.kms.contract import KeyAlgorithm
from lamassu.services.kms.engines.aws.access import AwsAccess
from lamassu.services.kms.engines.aws.kms import AwsKmsEngine
from lamassu.services.kms.engines.aws.secrets_manager import SecretsManagerEngine
from lamassu.services.kms.model import SignatureScheme
from lamassu.services.kms.ports import CryptoEngine, EngineLimits
from tests.support.engines import ComponentMissing, Stand

BareSigner = Callable[[str, SignatureScheme, bytes], Callable[[], object]]
ANSWER_SECONDS = "LAMASSU_TEST_KMS_SECONDS"  # how long the emulated KMS takes to sign, for figures
REGION = "eu-west-1"
ACCESS_KEY, SECRET_KEY = "AKIAEXAMPLEEXAMPLE01", "the/secret+key/of/an/example/of/AWS/0001"
INSTALLATION = "0123456789abcdef"
LIMITS = EngineLimits(workers=32, sign_seconds=10, generate_seconds=60)
SERVER = Path(__file__).with_name("moto_server.py")


class MotoServer:
    """moto in a process of its own, listening on loopback."""

    def __init__(self) -> None:
        if importlib.util.find_spec("flask") is None:
            raise ComponentMissing("moto's server is not installed (pip install moto[server])")
        self._process = subprocess.Popen(
            # -P: this folder holds a module that is named moto too
            [sys.executable, "-P", str(SERVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "MOTO_ALLOW_NONEXISTENT_REGION": "true"},
        )
        self.url = f"http://127.0.0.1:{self._order(do='up')}"

    def fault(
        self, operation: str, code: str | None = None, *, times: int = 1_000_000, **more: object
    ) -> None:
        """Let calls of an operation (`*`: of all) fail with a code, or only take `delay` s."""
        order = {"do": "fault", "operation": operation, "times": times, **more}
        self._order(**(order if code is None else {**order, "code": code}))

    def calm(self) -> None:
        """Forget the faults, and what was seen."""
        self._order(do="calm")

    def seen(self) -> list[tuple[str, str]]:
        """The operations that were called since `calm`, each with its access key."""
        return [(operation, key) for operation, key in self._order(do="seen")]

    def operations(self) -> list[str]:
        """Their names alone."""
        return [operation for operation, _ in self.seen()]

    @contextmanager
    def role_lifetime(self, seconds: int) -> Iterator[None]:
        """Within it the credentials of a role live so long."""
        self._order(do="role-lifetime", seconds=seconds)
        try:
            yield
        finally:
            self._order(do="role-lifetime", seconds=3600)

    @contextmanager
    def gone(self) -> Iterator[None]:
        """Nothing listens and connections are cut; the keys stay."""
        self._order(do="down")
        try:
            yield
        finally:
            self._order(do="up")

    def client(self, service: str, connections: int = 10) -> Any:
        """The vendor's library, bare."""
        return bare_client(service, self.url, connections)

    def access(self, **different: Any) -> AwsAccess:
        """Static keys."""
        usual = AwsAccess(
            region=REGION,
            auth_method="static",
            endpoint_url=self.url,
            access_key_id=ACCESS_KEY,
            secret_access_key=SECRET_KEY,
        )
        return replace(usual, **different)

    def kms(self, limits: EngineLimits = LIMITS, **different: Any) -> AwsKmsEngine:
        """A fresh adapter."""
        access = self.access(**different)
        return AwsKmsEngine("aws-kms-engine", access, limits=limits, installation=INSTALLATION)

    def secrets_manager(
        self, limits: EngineLimits = LIMITS, **different: Any
    ) -> SecretsManagerEngine:
        """A fresh adapter."""
        access = self.access(**different)
        return SecretsManagerEngine("aws-secrets", access, limits=limits, installation=INSTALLATION)

    def stop(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.terminate()
        self._process.wait(timeout=10)

    def _order(self, **order: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("moto's server has ended")
        return json.loads(line)["answer"]


def bare_client(service: str, url: str, connections: int = 10) -> Any:
    """The vendor's library with its own defaults."""
    session = boto3.session.Session(
        aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY, region_name=REGION
    )
    config = Config(max_pool_connections=connections)
    return session.client(service, endpoint_url=url, config=config)


def _sign_bare(client: Any, key_id: str, scheme: SignatureScheme, message: bytes) -> object:
    asked = {"KeyId": f"alias/{key_id}"}
    if scheme.hash is not None:
        digest = hashlib.new(scheme.hash.name, message).digest()
        asked |= {"Message": digest, "MessageType": "DIGEST", "SigningAlgorithm": scheme.name}
    elif scheme.algorithm is KeyAlgorithm.ED25519:
        asked |= {"Message": message, "SigningAlgorithm": "ED25519_SHA_512"}
    else:
        asked |= {"Message": message, "SigningAlgorithm": "ML_DSA_SHAKE_256"}
    return client.sign(**asked)


@contextmanager
def moto_server() -> Iterator[MotoServer]:
    """A running one."""
    server = MotoServer()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def without_aws_files(folder: Path) -> Iterator[None]:
    """The credentials chain finds nothing of this host: no profile, variable or instance role."""
    hidden = {
        "AWS_CONFIG_FILE": str(folder / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "no-credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    before = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    for name in before:
        del os.environ[name]
    os.environ.update(hidden)
    try:
        yield
    finally:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]
        os.environ.update(before)


@dataclass
class MotoStand:
    """One of the two kinds on moto."""

    server: MotoServer
    kind: str

    def engine(self) -> CryptoEngine:
        return self.server.kms() if self.kind == "aws_kms" else self.server.secrets_manager()

    @property
    def bare_signer(self) -> BareSigner | None:
        """For the bench: the vendor's library asked directly. A key of Secrets Manager signs in
        this process, as one of software's does."""
        if self.kind != "aws_kms":
            return None
        client = self.server.client("kms", connections=32)

        def signer(key_id: str, scheme: SignatureScheme, message: bytes) -> Callable[[], object]:
            return lambda: _sign_bare(client, key_id, scheme, message)

        return signer

    def section(self) -> str:
        return (
            f"crypto_engines:\n  {self.kind}:\n"
            f"    - id: {self.kind}-engine\n"
            f"      region: {REGION}\n"
            f"      endpoint_url: {self.server.url}\n"
            "      auth_method: static\n"
            '      access_key_id: "${AWS_KEY_ID}"\n'
            '      secret_access_key: "${AWS_SECRET_KEY}"\n'
        )

    @property
    def environment(self) -> Mapping[str, str]:
        return {
            "AWS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_KEY": SECRET_KEY,
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @contextmanager
    def gone(self) -> Iterator[None]:
        with self.server.gone():
            yield


@contextmanager
def kms_stand(folder: Path) -> Iterator[Stand]:
    """AWS KMS."""
    with without_aws_files(folder), moto_server() as server:
        if ANSWER_SECONDS in os.environ:
            server.fault("Sign", delay=float(os.environ[ANSWER_SECONDS]))
        yield MotoStand(server, "aws_kms")


@contextmanager
def secrets_manager_stand(folder: Path) -> Iterator[Stand]:
    """AWS Secrets Manager."""
    with without_aws_files(folder), moto_server() as server:
        yield MotoStand(server, "aws_secrets_manager")
