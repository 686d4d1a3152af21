"""Routes of CAs whose key is offline: CRLs in, orders and responders' CSRs out."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field, JsonValue
from starlette.responses import Response

from lamassu.kernel.errors import RuleViolation
from lamassu.kernel.wire_text import format_time
from lamassu.platform.http.answers import json_answer
from lamassu.platform.http.call import Call
from lamassu.platform.http.routing import Access, Creation, Route
from lamassu.platform.http.wire import WireBase64, WireModel
from lamassu.services.ceremony.contract import order_document
from lamassu.services.kms.contract import KeyAlgorithm, KeySpec
from lamassu.services.va.model import Responder
from lamassu.services.va.usecases import VaService
from lamassu.services.va.usecases.responder_document import responder_document

LARGEST_DELIVERY = 6 * 1024 * 1024


class ImportCrlBody(WireModel):
    """A ceremony's bundle as it is, or a CRL in DER or PEM."""

    signed: WireBase64


class ResponderKey(WireModel):
    """The responder's key."""

    type: str = "ECDSA"
    bits: int = 256


class ResponderBody(WireModel):
    """A delegated OCSP responder to be; `ca_id` is the offline CA's id, known here or not yet."""

    ca_id: str = Field(max_length=128)
    engine_id: str = ""
    key_metadata: ResponderKey = ResponderKey()


class ResponderAnswer(WireModel):
    """A responder; `certificate` is empty until the CA's ceremony signed the CSR."""

    key_id: str
    ca_id: str
    engine_id: str
    status: str
    csr: str
    certificate: str
    valid_to: str
    creation_ts: str


class ResponderList(WireModel):
    """All of them: they are few."""

    next: str
    list: list[ResponderAnswer]


class ImportedCrl(WireModel):
    """The CRL as it is served now."""

    version: int
    valid_from: str
    valid_until: str
    entries: int


class ImportCrlAnswer(WireModel):
    """What was taken in; `pending` are the revoked certificates that the CRL does not list."""

    ca_id: str
    ca_ski: str
    crl: ImportedCrl | None
    responders: list[ResponderAnswer]
    pending: list[str]


class RevocationOrderAnswer(WireModel):
    """What the CA's next CRL must list; the ceremony reads this as a file."""

    format: str
    ca_id: str
    subject_key_id: str
    revoked: list[dict[str, JsonValue]]
    pending: list[str]


def offline_routes(service: VaService) -> list[Route]:
    """For those who may."""
    handlers = _Handlers(service)
    return [
        Route(
            method="POST",
            path="/v1/crls/import",
            access=Access.action("va:update"),
            handler=handlers.import_crl,
            summary="Take in the CRL of a CA whose key is offline",
            description="And, from a ceremony's bundle, the certificates of its OCSP "
            "responders. The CRL is verified with the CA's key and must have a higher number "
            "than the one that is served. The same again changes nothing and answers 200.",
            body=ImportCrlBody,
            body_limit=LARGEST_DELIVERY,
            answer=ImportCrlAnswer,
            status=201,
            other_statuses={200: "The CRL was here already"},
        ),
        Route(
            method="GET",
            path="/v1/cas/{ca_id}/revocations",
            access=Access.action("va:read", scope="ca_id"),
            handler=handlers.revocations,
            summary="What the next CRL of an offline CA must list",
            answer=RevocationOrderAnswer,
            refuses=(409,),
        ),
        Route(
            method="GET",
            path="/v1/responders",
            access=Access.action("va:read"),
            handler=handlers.list_responders,
            summary="List the OCSP responders of offline CAs",
            answer=ResponderList,
        ),
        Route(
            method="POST",
            path="/v1/responders",
            access=Access.action("va:update"),
            handler=handlers.create_responder,
            summary="Make the key and the CSR of an OCSP responder for an offline CA",
            body=ResponderBody,
            answer=ResponderAnswer,
            status=201,
            creates=[Creation("va.responder.create", ResponderAnswer)],
        ),
    ]


class _Handlers:
    def __init__(self, service: VaService) -> None:
        self._service = service

    async def import_crl(self, call: Call) -> Response:
        content = call.decoded(ImportCrlBody).signed
        imported = await self._service.import_crl(content, caller=call.caller)
        order = await self._service.revocation_order(imported.authority.id)
        crl = None
        if imported.crl is not None:
            crl = ImportedCrl(
                version=imported.crl.number,
                valid_from=format_time(imported.crl.this_update),
                valid_until=format_time(imported.crl.next_update),
                entries=imported.entries,
            )
        now = self._service.now()
        answer = ImportCrlAnswer(
            ca_id=imported.authority.id,
            ca_ski=imported.authority.certificate.subject_key_id,
            crl=crl,
            responders=[_responder(one, now) for one in imported.responders],
            pending=list(order.pending),
        )
        return json_answer(answer, status=201 if imported.is_new else 200)

    async def revocations(self, call: Call) -> Response:
        pending = await self._service.revocation_order(call.path["ca_id"])
        return json_answer({**order_document(pending.order), "pending": list(pending.pending)})

    async def list_responders(self, call: Call) -> Response:
        now = self._service.now()
        found = [_responder(one, now) for one in await self._service.responders()]
        return json_answer(ResponderList(next="", list=found))

    async def create_responder(self, call: Call) -> Response:
        body = call.decoded(ResponderBody)
        algorithm = next((a for a in KeyAlgorithm if a.value == body.key_metadata.type), None)
        if algorithm not in (KeyAlgorithm.RSA, KeyAlgorithm.ECDSA):
            raise RuleViolation(
                "a responder's key is RSA or ECDSA",
                code="key_not_supported",
                field="key_metadata.type",
            )
        responder = await self._service.request_responder(
            body.ca_id,
            KeySpec(algorithm, body.key_metadata.bits),
            engine_id=body.engine_id or None,
            caller=call.caller,
        )
        return json_answer(_responder(responder, self._service.now()), status=201)


def _responder(responder: Responder, now: datetime) -> ResponderAnswer:
    return ResponderAnswer.model_validate(responder_document(responder, now))
