"""The KMS's routes (contract/kms-va.md). Platform and responder keys do not exist here."""

from __future__ import annotations

from pydantic import BaseModel, Field, JsonValue
from starlette.responses import Response

from lamassu.kernel.listing import FieldType, Filterable
from lamassu.platform.http import Access, Call, Route, WireModel, json_answer, page_answer
from lamassu.platform.http.authorization import check_may
from lamassu.platform.http.wire import FreeForm, JsonPatches, WireBase64
from lamassu.services.kms.contract import (
    Key,
    KeyAlgorithm,
    KeyPurpose,
    KeySpec,
    MessageType,
    engine_document,
)
from lamassu.services.kms.model import NewKey
from lamassu.services.kms.usecases import KmsService
from lamassu.services.kms.usecases.describe_key import (
    Change,
    renamed,
    retagged,
    with_aliases_patched,
    with_metadata_patched,
)
from lamassu.services.kms.usecases.key_document import key_document
from lamassu.services.kms.usecases.sign_message import Message

MISSING = "struct validation error"
MESSAGE_FIELDS_NOTE = "message_type is raw (we hash) or hash (the message is the digest)."
CA_KEY_ACCESS = Access.action("ca-key:sign")

FIELDS = Filterable(
    fields={
        "key_id": FieldType.STRING,
        "engine_id": FieldType.STRING,
        "has_private_key": FieldType.ENUM,
        "algorithm": FieldType.STRING,
        "size": FieldType.NUMBER,
        "public_key": FieldType.STRING,
        "creation_ts": FieldType.DATE,
        "name": FieldType.STRING,
        "tags": FieldType.STRING_ARRAY,
        "metadata": FieldType.JSON,
    },
    choices={"has_private_key": ["true", "false"]},
)


class CreateKey(WireModel):
    """A key to make."""

    missing_text = MISSING

    algorithm: KeyAlgorithm
    size: int
    name: str
    engine_id: str = ""
    tags: list[str] = Field(default_factory=list)
    metadata: FreeForm = Field(default_factory=dict)


class SignMessage(WireModel):
    """A message to sign, or its digest."""

    missing_text = MISSING

    algorithm: str
    message: WireBase64
    message_type: MessageType

    def as_message(self) -> Message:
        """The message as the use cases take it."""
        return Message(self.message, self.message_type, self.algorithm)


class VerifyMessage(SignMessage):
    """A message and the signature that it is said to have."""

    signature: WireBase64


class PutName(WireModel):
    """A key's new name."""

    missing_text = MISSING

    name: str


class PutTags(WireModel):
    """All of a key's tags from now on."""

    missing_text = MISSING

    tags: list[str]


class KeyAnswer(BaseModel):
    """A key, without anything secret."""

    pkcs11_uri: str
    key_id: str
    name: str
    aliases: list[str]
    engine_id: str
    has_private_key: bool
    algorithm: str
    size: int
    public_key: str
    creation_ts: str
    tags: list[str]
    metadata: dict[str, JsonValue]
    origin: str


class KeyPage(BaseModel):
    """A page of keys; `next` is the bookmark of the page after it, or empty."""

    next: str
    list: list[KeyAnswer]


class SupportedKeys(BaseModel):
    """An algorithm and its sizes in bits."""

    type: str
    sizes: list[int]


class EngineAnswer(BaseModel):
    """A crypto engine."""

    type: str
    security_level: int
    provider: str
    name: str
    metadata: dict[str, JsonValue]
    supported_key_types: list[SupportedKeys]
    id: str
    default: bool


class SignatureAnswer(BaseModel):
    """A signature."""

    signature: WireBase64


class ValidAnswer(BaseModel):
    """Whether a signature is right."""

    valid: bool


class StatusAnswer(BaseModel):
    """What became of it."""

    status: str


def routes(kms: KmsService) -> list[Route]:
    """Relative to `/api/kms`."""
    handlers = _Handlers(kms)
    one = "/v1/keys/{id}"
    return [
        Route(
            method="GET",
            path="/v1/engines",
            access=Access.action("key:read"),
            handler=handlers.engines,
            summary="List the crypto engines",
            answer=EngineAnswer,
        ),
        Route(
            method="GET",
            path="/v1/keys",
            access=Access.action("key:read"),
            handler=handlers.list,
            summary="List keys",
            answer=KeyPage,
            listing=FIELDS,
        ),
        Route(
            method="POST",
            path="/v1/keys",
            access=Access.action("key:create"),
            handler=handlers.create,
            summary="Make a key",
            body=CreateKey,
            answer=KeyAnswer,
            status=201,
        ),
        Route(
            method="GET",
            path=one,
            access=Access.action("key:read", scope="id"),
            handler=handlers.get,
            summary="Get a key by id, alias or PKCS#11 URI",
            answer=KeyAnswer,
        ),
        Route(
            method="DELETE",
            path=one,
            access=Access.action("key:delete", scope="id"),
            handler=handlers.delete,
            summary="Delete a key for good",
            description="A CA's key cannot be deleted here (409): delete the CA.",
            answer=StatusAnswer,
        ),
        Route(
            method="POST",
            path=f"{one}/sign",
            access=Access.action("key:sign", scope="id"),
            handler=handlers.sign,
            summary="Sign a message or digest",
            description=f"{MESSAGE_FIELDS_NOTE} A CA's key also asks for the right ca-key:sign, "
            "and signs only raw messages that could not be a certificate or CRL.",
            body=SignMessage,
            answer=SignatureAnswer,
        ),
        Route(
            method="POST",
            path=f"{one}/verify",
            access=Access.action("key:verify", scope="id"),
            handler=handlers.verify,
            summary="Verify a signature",
            description=MESSAGE_FIELDS_NOTE,
            body=VerifyMessage,
            answer=ValidAnswer,
        ),
        *_description_routes(handlers, one),
    ]


def _description_routes(handlers: _Handlers, one: str) -> list[Route]:
    update = Access.action("key:update", scope="id")
    return [
        Route(
            method="PUT",
            path=f"{one}/name",
            access=update,
            handler=handlers.rename,
            summary="Rename a key",
            body=PutName,
            answer=KeyAnswer,
        ),
        Route(
            method="PUT",
            path=f"{one}/tags",
            access=update,
            handler=handlers.retag,
            summary="Replace a key's tags",
            body=PutTags,
            answer=KeyAnswer,
        ),
        Route(
            method="PUT",
            path=f"{one}/metadata",
            access=update,
            handler=handlers.patch_metadata,
            summary="Patch a key's metadata",
            body=JsonPatches,
            answer=KeyAnswer,
        ),
        # the original's route is /alias; its SDK calls /aliases
        *(
            Route(
                method="PUT",
                path=f"{one}/{name}",
                access=update,
                handler=handlers.patch_aliases,
                summary="Patch the array of a key's aliases",
                body=JsonPatches,
                answer=KeyAnswer,
            )
            for name in ("alias", "aliases")
        ),
    ]


class _Handlers:
    def __init__(self, kms: KmsService) -> None:
        self._kms = kms

    async def engines(self, call: Call) -> Response:
        engines = await self._kms.engines()
        return json_answer([EngineAnswer.model_validate(engine_document(e)) for e in engines])

    async def list(self, call: Call) -> Response:
        return page_answer(call, await self._kms.list_keys(call.listing), _answer)

    async def create(self, call: Call) -> Response:
        body = call.decoded(CreateKey)
        wanted = NewKey(
            spec=KeySpec(body.algorithm, body.size),
            name=body.name,
            engine_id=body.engine_id or None,
            tags=body.tags,
            metadata=body.metadata,
        )
        key = await self._kms.create_named(wanted, caller=call.caller)
        return json_answer(_answer(key), status=201)

    async def get(self, call: Call) -> Response:
        return json_answer(_answer(await self._kms.get_named(call.path["id"])))

    async def delete(self, call: Call) -> Response:
        await self._kms.delete_named(call.path["id"], caller=call.caller)
        return json_answer(StatusAnswer(status="deleted"))

    async def sign(self, call: Call) -> Response:
        key = await self._kms.get_named(call.path["id"])
        if key.purpose is KeyPurpose.CA:
            check_may(call.caller.principal, CA_KEY_ACCESS)
        message = call.decoded(SignMessage).as_message()
        signature = await self._kms.sign_named(key.key_id, message, caller=call.caller)
        return json_answer(SignatureAnswer(signature=signature))

    async def verify(self, call: Call) -> Response:
        body = call.decoded(VerifyMessage)
        valid = await self._kms.verify_named(call.path["id"], body.as_message(), body.signature)
        return json_answer(ValidAnswer(valid=valid))

    async def rename(self, call: Call) -> Response:
        return await self._describe(call, "kms.name.update", renamed(call.decoded(PutName).name))

    async def retag(self, call: Call) -> Response:
        return await self._describe(call, "kms.tags.update", retagged(call.decoded(PutTags).tags))

    async def patch_metadata(self, call: Call) -> Response:
        patches = call.decoded(JsonPatches).operations
        return await self._describe(call, "kms.metadata.update", with_metadata_patched(patches))

    async def patch_aliases(self, call: Call) -> Response:
        patches = call.decoded(JsonPatches).operations
        return await self._describe(call, "kms.aliases.update", with_aliases_patched(patches))

    async def _describe(self, call: Call, event_type: str, change: Change) -> Response:
        key = await self._kms.describe_named(
            call.path["id"], event_type, change, caller=call.caller
        )
        return json_answer(_answer(key))


def _answer(key: Key) -> KeyAnswer:
    return KeyAnswer.model_validate(key_document(key))
