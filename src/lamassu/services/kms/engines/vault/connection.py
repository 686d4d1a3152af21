"""HTTP to Vault beneath hvac: its requests over kept connections, each within its time.

hvac's own adapter goes through `requests`, which costs more per call than a signature in Vault.
Safe for threads.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import hvac
from hvac.adapters import Adapter

from lamassu.services.kms.engines.vault.access import VaultAccess
from lamassu.services.kms.engines.vault.errors import (
    VaultAnswer,
    timed_out,
    unheard,
    unreadable,
)
from lamassu.services.kms.engines.vault.wire import Answer, BrokenOff, Wire
from lamassu.services.kms.ports import EngineDown

LEAST_SECONDS = 0.05

logging.getLogger("hvac").setLevel(logging.WARNING)  # its debug lines hold paths and answers


class Connection:
    """An `hvac.Client` and the time that its calls have. `token` is what they carry."""

    def __init__(self, access: VaultAccess, *, at_once: int) -> None:
        self._access = access
        self._local = threading.local()
        self._wire: Wire | None = None
        self._lock = threading.Lock()
        self._at_once = at_once
        self.token: str | None = None
        # a token must be given, or hvac looks for one in the environment and the home directory
        self.client = hvac.Client(url=access.url, token="", adapter=lambda **_: _Adapter(self))

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Bound everything that this thread asks in the block, together."""
        outer = getattr(self._local, "until", None)
        until = time.monotonic() + seconds
        self._local.until = until if outer is None else min(outer, until)
        try:
            yield
        finally:
            self._local.until = outer

    @contextmanager
    def anonymous(self) -> Iterator[None]:
        """Send no token in the block."""
        self._local.anonymous = True
        try:
            yield
        finally:
            self._local.anonymous = False

    def left(self) -> float:
        """Seconds until this thread gives up. Raises `EngineDown` when there are none."""
        until = getattr(self._local, "until", None)
        left = 30.0 if until is None else until - time.monotonic()
        if left < LEAST_SECONDS:
            raise timed_out(self._access)
        return left

    def request(self, method: str, path: str, body: object, query: Mapping[str, str]) -> Any:
        """The answer's JSON, `None` where it has no body.

        Raises `VaultAnswer`, `EngineDown`, `EngineRefused`.
        """
        token = None if getattr(self._local, "anonymous", False) else self.token
        headers = {"X-Vault-Request": "true"}
        if token:
            headers["X-Vault-Token"] = token
        if self._access.namespace:
            headers["X-Vault-Namespace"] = self._access.namespace
        content = None
        if body is not None:
            content = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        url = self._access.url.rstrip("/") + "/" + path.lstrip("/")
        if query:
            url += "?" + urlencode(query)
        answer = self._sent(method, url, content, headers)
        if answer.status in (307, 308):  # a standby names the active node
            answer = self._sent(method, self._elsewhere(url, answer), content, headers)
        document = _document(bytes(answer.body))
        if answer.status < 300:
            return document
        errors = document.get("errors") if isinstance(document, dict) else None
        texts = [str(error) for error in errors] if isinstance(errors, list) else []
        where = f"{method} {path.partition('/v1/')[2] or path}"
        raise VaultAnswer(self._access.who, answer.status, texts, path=where, token=token)

    def close(self) -> None:
        """Let go of the connections; a later request opens new ones."""
        with self._lock:
            wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    def _sent(
        self, method: str, url: str, content: bytes | None, headers: Mapping[str, str]
    ) -> Answer:
        for _ in range(2):
            try:
                return self._opened().request(method, url, headers, content, self.left)
            except BrokenOff as error:
                # a kept connection that was ended while it was idle; what is asked here may be
                # asked twice, but for a login, which spends a use of the secret id
                if not error.unused or url.endswith("/login"):
                    raise unheard(self._access, error) from None
                self.close()  # the others will have ended with it
            except OSError as error:
                raise unheard(self._access, error) from None
            except ValueError:
                break
        raise unreadable(self._access)

    def _elsewhere(self, url: str, answer: Answer) -> str:
        target = urljoin(url, answer.headers.get("location", ""))
        if urlsplit(target).scheme != urlsplit(url).scheme:
            raise EngineDown(
                f"{self._access.who} is a standby and names an active node without TLS; correct"
                " its api_addr",
                code="engine_standby",
                retry_after=10,
            )
        return target

    def _opened(self) -> Wire:
        wire = self._wire
        if wire is None:
            with self._lock:
                wire = self._wire
                if wire is None:
                    wire = self._wire = Wire(self._access.tls(), at_once=self._at_once)
        return wire


class _Adapter(Adapter):  # type: ignore[misc]
    """What hvac asks its requests of."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.base_uri, self.token, self.namespace = "", "", None

    def get_login_token(self, response: Any) -> str:
        return str(response["auth"]["client_token"])

    def request(
        self,
        method: str,
        url: str,
        headers: object = None,
        raise_exception: bool = True,
        **more: Any,
    ) -> Any:
        query = {name: str(value) for name, value in (more.get("params") or {}).items()}
        verb = method.upper()
        if verb == "LIST":  # not every proxy lets the verb pass
            verb, query["list"] = "GET", "true"
        return self._connection.request(verb, url, more.get("json"), query)


def _document(data: bytes) -> Any:
    if not data:
        return None
    try:
        return json.loads(data)
    except ValueError:
        return None
