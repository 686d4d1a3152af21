"""Another installation as a witness of this one's log, over its REST API."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import httpx

from lamassu.kernel.errors import Forbidden, Unavailable
from lamassu.kernel.signed_note import LARGEST_NOTE, VerifierKey, proof_lines

ADD_CHECKPOINT = "/api/ca/v1/log/add-checkpoint"
_RETRY_AFTER = 30  # seconds


class RemoteWitness:
    """The `Witness` port."""

    def __init__(self, key: VerifierKey, connect: Callable[[], httpx.AsyncClient]) -> None:
        """What `connect` makes has the witness's URL as base, shows a certificate that may
        `log:witness` there, follows no redirects and has timeouts."""
        self._key = key
        self._connect = connect

    @property
    def key(self) -> VerifierKey:
        return self._key

    async def add_checkpoint(self, old: int, proof: Sequence[bytes], note: str) -> str | int:
        body = f"old {old}\n{proof_lines(proof)}\n{note}"
        try:
            async with self._connect() as client:
                answer = await client.post(ADD_CHECKPOINT, content=body.encode())
        except httpx.HTTPError as error:
            raise Unavailable(
                f"witness {self._key.name} cannot be reached: {type(error).__name__}",
                code="witness_unreachable",
                retry_after=_RETRY_AFTER,
            ) from None
        text = answer.text[:LARGEST_NOTE]
        if answer.status_code == httpx.codes.OK:
            return text
        size = text.strip()
        if answer.status_code == httpx.codes.CONFLICT and size.isascii() and size.isdecimal():
            return int(size[:19])
        raise Forbidden(
            f"witness {self._key.name} answered {answer.status_code}: {text[:200]}",
            code="witness_refuses",
        )
