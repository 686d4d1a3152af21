"""How an AWS service is reached, and as whom: sessions and clients of the vendor's library."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import Enum, auto
from typing import Any, Final

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import DeferredRefreshableCredentials
from botocore.exceptions import UnknownRegionError

from lamassu.services.kms.ports import EngineLimits, EngineRefused

STATIC: Final = "static"
ROLE: Final = "role"
ATTEMPTS = 3

# Their debug lines hold whole requests: keys, secrets, signed headers.
for _chatty in ("botocore", "boto3", "urllib3"):
    logging.getLogger(_chatty).setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class AwsAccess:
    """Where and as whom. `auth_method` is `static` (the keys given here), `role` (assume
    `role_arn` with what the default chain finds) or anything else: the default chain.

    `endpoint_url` stands in for the region's own address; for STS too, unless
    `sts_endpoint_url` says otherwise.
    """

    region: str
    auth_method: str = "default"
    endpoint_url: str | None = None
    sts_endpoint_url: str | None = None
    role_arn: str | None = None
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)

    @property
    def where(self) -> str:
        """For error texts."""
        return self.endpoint_url or f"region {self.region}"


class Pace(Enum):
    """How long an answer is waited for."""

    SIGN = auto()  # asked again when throttled or cut off, within the time of a signature
    MAKE = auto()  # asked once, for as long as making a key may take
    CHECK = auto()  # asked once, shorter than whoever asks for readiness waits


class AwsClients:
    """The clients of one service, made when they are first asked for. Safe for threads."""

    def __init__(self, service: str, access: AwsAccess, limits: EngineLimits) -> None:
        self._service = service
        self._access = access
        self._limits = limits
        self._lock = threading.Lock()
        self._session: boto3.session.Session | None = None
        self._clients: dict[Pace, Any] = {}

    def get(self, pace: Pace) -> Any:
        """Raises `EngineRefused` (`unknown_region`) and what the vendor's library raises."""
        client = self._clients.get(pace)
        if client is None:
            with self._lock:
                client = self._clients.get(pace) or self._connect(pace)
                self._clients[pace] = client
        return client

    def close(self) -> None:
        """Let go of the connections; a later `get` opens new ones."""
        with self._lock:
            clients, self._clients = list(self._clients.values()), {}
            self._session = None
        for client in clients:
            client.close()

    def _connect(self, pace: Pace) -> Any:
        if self._session is None:
            self._session = _session(self._access)
            if self._access.endpoint_url is None:
                check_region(self._session, self._service, self._access.region)
        return self._session.client(
            self._service,
            endpoint_url=self._access.endpoint_url,
            config=_config(pace, self._limits),
        )


def check_region(session: boto3.session.Session, service: str, region: str) -> None:
    """Refuse a region that cannot exist: its name fits no partition, or resembles a known one
    and is none. A new region that this library does not know yet passes.

    Raises `EngineRefused` (`unknown_region`).
    """
    known = [
        name
        for partition in session.get_available_partitions()
        for name in session.get_available_regions(service, partition_name=partition)
    ]
    if region in known:
        return
    near = get_close_matches(region, known, n=1, cutoff=0.85)
    try:
        session.get_partition_for_region(region)
        exists = not near or _differs_in_number(region, near[0])
    except UnknownRegionError:
        exists = False
    if not exists:
        hint = f"did you mean {near[0]}?" if near else "a region looks like eu-west-1."
        raise EngineRefused(
            f"{region} is no AWS region; {hint} Correct `region`", code="unknown_region"
        )


def _differs_in_number(region: str, known: str) -> bool:
    return region.rpartition("-")[0] == known.rpartition("-")[0]


def _session(access: AwsAccess) -> boto3.session.Session:
    core = botocore.session.Session()
    core.set_config_variable("region", access.region)
    if access.auth_method == STATIC:
        core.set_credentials(access.access_key_id, access.secret_access_key, access.session_token)
    elif access.auth_method == ROLE:
        # kept by the session, renewed by the library some minutes before it ends
        core._credentials = DeferredRefreshableCredentials(
            refresh_using=lambda: _assume_role(access), method="assume-role"
        )
    return boto3.session.Session(botocore_session=core)


def _assume_role(access: AwsAccess) -> Mapping[str, str]:
    base = boto3.session.Session(region_name=access.region)
    sts = base.client(
        "sts",
        endpoint_url=access.sts_endpoint_url or access.endpoint_url,
        # once and shortly: a signature waits for this, and the next one tries again
        config=Config(connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 1}),
    )
    try:
        given = sts.assume_role(RoleArn=access.role_arn, RoleSessionName="lamassu")["Credentials"]
    finally:
        sts.close()
    return {
        "access_key": given["AccessKeyId"],
        "secret_key": given["SecretAccessKey"],
        "token": given["SessionToken"],
        "expiry_time": given["Expiration"].isoformat(),
    }


def _config(pace: Pace, limits: EngineLimits) -> Config:
    seconds = limits.sign_seconds
    connect, read, attempts = {
        # three answers that do not come and the pauses between them end before the caller's time
        Pace.SIGN: (seconds / 10, seconds / 5, ATTEMPTS),
        # another attempt might make a second key
        Pace.MAKE: (seconds / 5, limits.generate_seconds * 0.9, 1),
        Pace.CHECK: (min(1.0, seconds / 4), min(2.0, seconds / 2), 1),
    }[pace]
    return Config(
        connect_timeout=connect,
        read_timeout=read,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=limits.workers,
        user_agent_appid="lamassu",
    )
