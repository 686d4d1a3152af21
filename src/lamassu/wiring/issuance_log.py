"""The issuance log with its witnesses, as it is configured."""

from __future__ import annotations

import ssl
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from lamassu.kernel.clock import Clock
from lamassu.kernel.signed_note import parse_verifier_key
from lamassu.platform.config import Settings
from lamassu.platform.config.settings import LogWitness
from lamassu.platform.database import Database
from lamassu.platform.security.tls import build_client_context
from lamassu.services.ca.client import RemoteWitness
from lamassu.services.ca.storage.issuance_log import IssuanceLogStorage
from lamassu.services.ca.usecases.issuance_log import IssuanceLog
from lamassu.services.kms.contract import Keys

WITNESS_TIMEOUT = 10.0  # seconds


def connected_log(
    directory: Path, settings: Settings, *, database: Database, keys: Keys, clock: Clock
) -> IssuanceLog:
    """Raises `Malformed` where the files of a witness cannot be read."""
    keys_of_logs = [parse_verifier_key(text) for text in settings.log.witnessed]
    return IssuanceLog(
        store=IssuanceLogStorage(database),
        keys=keys,
        clock=clock,
        host=urlsplit(settings.server.public_urls[0]).netloc or "localhost",
        origin=settings.log.origin,
        witnesses=[_witness(directory, each) for each in settings.log.witnesses],
        witnessed={key.name: key for key in keys_of_logs},
    )


def _witness(directory: Path, section: LogWitness) -> RemoteWitness:
    context: ssl.SSLContext = build_client_context(
        ca_file=directory / section.ca_file,
        cert_file=directory / section.cert_file,
        key_file=directory / section.key_file,
    )

    def connect() -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=section.url,
            verify=context,
            timeout=WITNESS_TIMEOUT,
            trust_env=False,
            follow_redirects=False,
        )

    return RemoteWitness(parse_verifier_key(section.key), connect)
