"""One AWS service as an adapter calls it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from botocore import exceptions as boto

from lamassu.services.kms.engines.aws.access import AwsAccess, AwsClients, Pace
from lamassu.services.kms.engines.aws.errors import answered, failed, unreadable
from lamassu.services.kms.ports import EngineLimits


class AwsService:
    """Calls go through here, so that every failure is one of the platform's."""

    def __init__(
        self, service: str, *, engine_id: str, access: AwsAccess, limits: EngineLimits
    ) -> None:
        """`service` as the vendor's library names it. Nothing is connected yet."""
        self._engine_id = engine_id
        self._access = access
        self._clients = AwsClients(service, access, limits)

    def call(
        self,
        operation: str,
        parameters: Mapping[str, object],
        *,
        pace: Pace = Pace.SIGN,
        about_key: bool = False,
        gives: str | None = None,
    ) -> dict[str, Any]:
        """What AWS answers. `operation` is the client's method (`get_public_key`); `about_key`
        says that it is for one key, whose policy may forbid it; `gives` names what a real
        answer holds.

        Raises `EngineDown`, `EngineRefused`, and `AwsAnswer` for a refusal that the caller may
        know how to take.
        """
        try:
            answer: dict[str, Any] = getattr(self._clients.get(pace), operation)(**parameters)
        except boto.ClientError as error:
            raise answered(
                error, engine_id=self._engine_id, access=self._access, about_key=about_key
            ) from None
        except boto.BotoCoreError as error:
            raise failed(error, engine_id=self._engine_id, access=self._access) from None
        if gives is not None and gives not in answer:
            # the library reads any 200 as an answer: a proxy's page, another service's
            raise unreadable(engine_id=self._engine_id, access=self._access)
        return answer

    def close(self) -> None:
        """Let go of the connections."""
        self._clients.close()
