"""Routes of the issuance log: what C2SP tlog-tiles has as files, proofs, and the witness."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from pydantic import BaseModel
from starlette.responses import Response

from lamassu.kernel.errors import Malformed, NotFound
from lamassu.kernel.merkle import LARGEST_SIZE, WIDTH, parse_index_path
from lamassu.platform.http import Access, Call, Route, json_answer
from lamassu.services.ca.usecases.issuance_log import IssuanceLog, Stale, parse_submission

_BYTES = {"content-type": "application/octet-stream", "cache-control": "private, max-age=86400"}
_TEXT = {"content-type": "text/plain; charset=utf-8", "cache-control": "no-store"}
_DEEPEST = 7
LARGEST_SUBMISSION = 40 * 1024


class WitnessAnswer(BaseModel):
    """How far a witness has signed; `signed_at` is empty for one that never did."""

    name: str
    size: int
    signed_at: str


class LogAnswer(BaseModel):
    """The log as it is; `key` and `witness_key` are verifier keys (C2SP signed-note)."""

    origin: str
    key: str
    size: int
    signed_size: int
    adopting: bool
    adopted: int
    witnesses: list[WitnessAnswer]
    witness_key: str


class ProvedEntryAnswer(BaseModel):
    """An entry: `entry` is its text, `proof` the hashes from its leaf upwards, base64."""

    index: int
    entry: str
    proof: list[str]


class InclusionAnswer(BaseModel):
    """A certificate's entries in the tree of `checkpoint`."""

    checkpoint: str
    size: int
    entries: list[ProvedEntryAnswer]


class ConsistencyAnswer(BaseModel):
    """RFC 9162 §2.1.4, base64."""

    first: int
    second: int
    proof: list[str]


def issuance_log_routes(issuance_log: IssuanceLog) -> list[Route]:
    """All of them."""
    handlers = _Handlers(issuance_log)
    read = Access.action("log:read")
    return [
        Route(
            method="GET",
            path="/v1/log",
            access=read,
            handler=handlers.status,
            summary="Get the issuance log's name, key, size and witnesses",
            answer=LogAnswer,
        ),
        Route(
            method="GET",
            path="/v1/log/checkpoint",
            access=read,
            handler=handlers.checkpoint,
            summary="Get the log's newest signed head",
            description="A C2SP checkpoint, text. With witnessed=true the newest one that all"
            " witnesses signed.",
        ),
        Route(
            method="GET",
            path="/v1/log/tile/entries/{rest:path}",
            access=read,
            handler=handlers.bundle,
            summary="Get a bundle of the log's entries",
            description="As C2SP tlog-tiles has it: x001/x234/067, or 067.p/12 for a partial one.",
        ),
        Route(
            method="GET",
            path="/v1/log/tile/{level}/{rest:path}",
            access=read,
            handler=handlers.tile,
            summary="Get a tile of the log's hashes",
            description="As C2SP tlog-tiles has it: x001/x234/067, or 067.p/12 for a partial one.",
        ),
        Route(
            method="GET",
            path="/v1/log/proof/inclusion",
            access=read,
            handler=handlers.inclusion,
            summary="Prove what the log holds of a certificate",
            description="The newest 100 entries of the certificate with this serial.",
            answer=InclusionAnswer,
        ),
        Route(
            method="GET",
            path="/v1/log/proof/consistency",
            access=read,
            handler=handlers.consistency,
            summary="Prove that the log of size second continues that of size first",
            description="Without second: the newest signed size.",
            answer=ConsistencyAnswer,
        ),
        Route(
            method="POST",
            path="/v1/log/add-checkpoint",
            access=Access.action("log:witness"),
            handler=handlers.add_checkpoint,
            summary="Have this installation sign the head of another log, as a witness",
            description="C2SP tlog-witness: text in, signature lines out; 409 with the last seen"
            " size as text/x.tlog.size where `old` is another.",
            body_limit=LARGEST_SUBMISSION,
        ),
    ]


class _Handlers:
    def __init__(self, issuance_log: IssuanceLog) -> None:
        self._log = issuance_log

    async def status(self, call: Call) -> Response:
        status = await self._log.status()
        witnesses = [
            WitnessAnswer(
                name=one.name,
                size=one.size,
                signed_at=one.signed_at.isoformat() if one.signed_at else "",
            )
            for one in status.witnesses
        ]
        return json_answer(
            LogAnswer(
                origin=status.key.name,
                key=str(status.key),
                size=status.size,
                signed_size=status.signed_size,
                adopting=status.adopting,
                adopted=status.adopted,
                witnesses=witnesses,
                witness_key=str(status.witness_key or ""),
            )
        )

    async def checkpoint(self, call: Call) -> Response:
        wanted = call.argument("witnessed", "false")
        if wanted not in ("true", "false"):
            raise Malformed("true or false", field="witnessed")
        note = await self._log.checkpoint(witnessed=wanted == "true")
        return Response(note.encode(), headers=_TEXT)

    async def tile(self, call: Call) -> Response:
        level = call.path["level"]
        if not level.isascii() or not level.isdecimal() or level != str(int(level[:3])):
            raise Malformed("a tile's level is a number from 0 to 63", field="level")
        if int(level) > _DEEPEST:
            raise NotFound("the signed tree has no such tile", code="no_such_tile")
        number, width = parse_index_path(call.path["rest"])
        return Response(await self._log.proofs.tile(int(level), number, width), headers=_BYTES)

    async def bundle(self, call: Call) -> Response:
        number, width = parse_index_path(call.path["rest"])
        if number > LARGEST_SIZE // WIDTH:
            raise NotFound("the signed tree has no such tile", code="no_such_tile")
        return Response(await self._log.proofs.bundle(number, width), headers=_BYTES)

    async def inclusion(self, call: Call) -> Response:
        serial_number = call.argument("serial", "").lower().replace("-", "").replace(":", "")
        if not serial_number:
            raise Malformed("name a certificate: ?serial=…", field="serial")
        found = await self._log.proofs.inclusion(serial_number)
        entries = [
            ProvedEntryAnswer(index=one.position, entry=one.body.decode(), proof=_base64(one.proof))
            for one in found.entries
        ]
        return json_answer(InclusionAnswer(checkpoint=found.note, size=found.size, entries=entries))

    async def consistency(self, call: Call) -> Response:
        first = _size(call, "first")
        if first is None:
            raise Malformed("say the earlier size: ?first=…", field="first")
        second, proof = await self._log.proofs.consistency(first, _size(call, "second"))
        return json_answer(ConsistencyAnswer(first=first, second=second, proof=_base64(proof)))

    async def add_checkpoint(self, call: Call) -> Response:
        try:
            mark = await self._log.cosign(parse_submission(call.raw), caller=call.caller)
        except Stale as stale:
            return Response(f"{stale.size}\n", 409, {"content-type": "text/x.tlog.size"})
        return Response(str(mark).encode(), headers=_TEXT)


def _size(call: Call, name: str) -> int | None:
    text = call.argument(name, "")
    if not text:
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > 19 or int(text) > LARGEST_SIZE:
        raise Malformed("a size is a whole number", field=name)
    return int(text)


def _base64(proof: Sequence[bytes]) -> list[str]:
    return [base64.b64encode(each).decode() for each in proof]
