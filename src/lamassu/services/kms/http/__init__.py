"""The KMS's routes (contract/kms-va.md). Platform and responder keys do not exist here."""

from __future__ import annotations

from starlette.responses import Response

from lamassu.kernel.listing import FieldType, Filterable
from lamassu.platform.http import Access, Call, Creation, Route, json_answer, page_answer
from lamassu.platform.http.authorization import check_may
from lamassu.platform.http.wire import JsonPatches
from lamassu.services.kms import rules
from lamassu.services.kms.contract import Key, KeyOrigin, KeyPurpose
from lamassu.services.kms.http.bodies import (
    CreateKey,
    ImportKey,
    KeyAnswer,
    KeyPage,
    PutName,
    PutTags,
    SignatureAnswer,
    SignMessage,
    StatsAnswer,
    StatusAnswer,
    ValidAnswer,
    VerifyMessage,
)
from lamassu.services.kms.usecases import KmsService
from lamassu.services.kms.usecases.describe_key import (
    Change,
    renamed,
    retagged,
    with_aliases_patched,
    with_metadata_patched,
)
from lamassu.services.kms.usecases.key_document import key_document
from lamassu.services.kms.wire import EngineAnswer, EnginesAnswer, KeyMoveAnswer, MoveKey

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
        "origin": FieldType.ENUM,
    },
    choices={
        "has_private_key": ["true", "false"],
        "origin": [origin.value for origin in KeyOrigin],
    },
)


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
            answer=EnginesAnswer,
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
            creates=[Creation("kms.create", KeyAnswer)],
        ),
        Route(
            method="POST",
            path="/v1/keys/import",
            access=Access.action("key:import"),
            handler=handlers.import_,
            summary="Import a private key",
            description="RSA of 2048 to 4096 bits, P-256, P-384, P-521, Ed25519 and ML-DSA, where"
            " the engine takes them. The key can sign for whoever may use keys; no CA is made"
            " of it.",
            body=ImportKey,
            answer=KeyAnswer,
            status=201,
            creates=[Creation("kms.import", KeyAnswer)],
        ),
        Route(
            method="GET",
            path="/v1/stats",
            access=Access.action("key:read"),
            handler=handlers.stats,
            summary="Count keys by engine and algorithm",
            answer=StatsAnswer,
            listing=FIELDS,
        ),
        Route(
            method="GET",
            path=one,
            access=Access.action("key:read", scope="id"),
            handler=handlers.get,
            summary="Get a key by id, alias or PKCS#11 URI",
            answer=KeyAnswer,
        ),
        *_one_key_routes(handlers, one),
        *_description_routes(handlers, one),
    ]


def _one_key_routes(handlers: _Handlers, one: str) -> list[Route]:
    """What is done with a key, and to it."""
    return [
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
        Route(
            method="POST",
            path=f"{one}/move",
            access=Access.action("key:move", scope="id"),
            handler=handlers.move,
            summary="Move a key into another crypto engine",
            description="For engines that give keys out and take them in. The key can be used "
            "all the while, and a move that was cut off goes on when it is asked for again. With "
            "dry_run nothing is changed. A CA's key moves by its CA's own route (409).",
            body=MoveKey,
            answer=KeyMoveAnswer,
        ),
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
        return json_answer([EngineAnswer.of(e) for e in engines])

    async def list(self, call: Call) -> Response:
        return page_answer(call, await self._kms.list_keys(call.listing), _answer)

    async def create(self, call: Call) -> Response:
        wanted = call.decoded(CreateKey).as_key()
        key = await self._kms.create_named(wanted, caller=call.caller)
        return json_answer(_answer(key), status=201)

    async def import_(self, call: Call) -> Response:
        wanted = call.decoded(ImportKey).as_key()
        key = await self._kms.import_named(wanted, caller=call.caller)
        return json_answer(_answer(key), status=201)

    async def stats(self, call: Call) -> Response:
        counts = await self._kms.count_keys(call.listing.filters)
        answer = StatsAnswer(
            total_keys=counts.total,
            keys_distribution_per_engine=dict(counts.by_engine),
            keys_distribution_per_algorithm={
                algorithm.value: number for algorithm, number in counts.by_algorithm.items()
            },
        )
        return json_answer(answer)

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

    async def move(self, call: Call) -> Response:
        body = call.decoded(MoveKey)
        key = await self._kms.get_named(call.path["id"])
        rules.check_moves_alone(key)
        if body.dry_run:
            plan = await self._kms.plan_move(key.key_id, body.engine_id, purpose=key.purpose)
            return json_answer(KeyMoveAnswer.planned(plan))
        moved = await self._kms.move(
            key.key_id, body.engine_id, purpose=key.purpose, caller=call.caller
        )
        return json_answer(
            KeyMoveAnswer.done(key.key_id, source=key.engine_id, target=moved.engine_id)
        )

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
