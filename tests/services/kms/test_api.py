"""The KMS API as clients and attackers use it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from urllib.parse import quote

import httpx
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from lamassu.kernel.errors import Forbidden
from lamassu.services.kms.contract import KeyAlgorithm, KeyPurpose, KeySpec, MessageType
from lamassu.services.kms.usecases import KmsService

from .conftest import MakeKey, Records


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def sign_body(
    message: bytes, message_type: str = "raw", algorithm: str = "ECDSA_SHA_256"
) -> dict[str, str]:
    return {"algorithm": algorithm, "message": b64(message), "message_type": message_type}


async def created(api: httpx.AsyncClient, **fields: object) -> dict[str, object]:
    body = {"algorithm": "ECDSA", "size": 256, "name": "mine", **fields}
    answer = await api.post("/v1/keys", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def test_engines_are_a_plain_array(api: httpx.AsyncClient) -> None:
    [engine] = (await api.get("/v1/engines")).json()

    assert engine["id"] == "software"
    assert engine["default"] is True
    assert engine["type"] == "GOLANG"
    assert {"type": "RSA", "sizes": [2048, 3072, 4096]} in engine["supported_key_types"]
    assert engine["metadata"] == {}, "server paths are nobody's business"


async def test_a_key_is_made_read_and_deleted(api: httpx.AsyncClient) -> None:
    key = await created(api, tags=["a"], metadata={"x": {"y": 1}})

    assert set(key) == {
        *("pkcs11_uri", "key_id", "name", "aliases", "engine_id", "has_private_key"),
        *("algorithm", "size", "public_key", "creation_ts", "tags", "metadata", "origin"),
    }
    assert key["pkcs11_uri"] == f"pkcs11:token-id=software;id={key['key_id']};type=private"
    assert load_pem_public_key(base64.b64decode(str(key["public_key"])))
    assert (await api.get(f"/v1/keys/{key['key_id']}")).json() == key
    assert (await api.get(f"/v1/keys/{quote(str(key['pkcs11_uri']))}")).json() == key

    answer = await api.delete(f"/v1/keys/{key['key_id']}")

    assert (answer.status_code, answer.json()) == (200, {"status": "deleted"})
    gone = await api.get(f"/v1/keys/{key['key_id']}")
    assert (gone.status_code, gone.json()["err"]) == (404, "key not found")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"algorithm": "rsa"}, None),
        ({"algorithm": None}, "missing_field"),
        ({"name": None}, "missing_field"),
        ({"name": ""}, "bad_name"),
        ({"name": "a\x00b"}, None),
        ({"size": None}, "missing_field"),
        ({"size": "256"}, "wrong_type"),
        ({"size": 224}, "unsupported_key"),
        ({"algorithm": "RSA", "size": 1024}, "unsupported_key"),
        ({"algorithm": "Ed25519", "size": 448}, "unsupported_key"),
        ({"algorithm": "ML-DSA", "size": 256}, "unsupported_key"),
        ({"algorithm": "Ed448"}, None),
        ({"size": -1}, "unsupported_key"),
        ({"size": 10**30}, None),
        ({"engine_id": "hsm"}, "unknown_engine"),
        ({"tags": [""]}, "bad_tags"),
        ({"purpose": "ca"}, "unknown_field"),
    ],
)
async def test_a_wrong_body_makes_no_key(
    api: httpx.AsyncClient, records: Records, change: dict[str, object], code: str | None
) -> None:
    answer = await api.post(
        "/v1/keys", json={"algorithm": "ECDSA", "size": 256, "name": "k", **change}
    )

    assert answer.status_code == 400
    assert code in (None, answer.json()["code"])
    assert await records() == []


async def test_platform_and_responder_keys_do_not_exist_for_the_api(
    api: httpx.AsyncClient, make_key: MakeKey, records: Records
) -> None:
    general = await created(api)
    ca = await make_key(KeyPurpose.CA)
    hidden = [await make_key(KeyPurpose.PLATFORM), await make_key(KeyPurpose.RESPONDER)]
    before = await records()

    listed = {key["key_id"] for key in (await api.get("/v1/keys")).json()["list"]}
    assert listed == {general["key_id"], ca.key_id}
    patches = {"patches": [{"op": "add", "path": "/-", "value": "mine"}]}
    for key in hidden:
        uri = f"pkcs11:token-id=software;id={key.key_id};type=private"
        for name in (key.key_id, quote(uri)):
            one = f"/v1/keys/{name}"
            answers = [
                await api.get(one),
                await api.delete(one),
                await api.post(f"{one}/sign", json=sign_body(b"m")),
                await api.post(f"{one}/verify", json=sign_body(b"m") | {"signature": b64(b"s")}),
                await api.put(f"{one}/name", json={"name": "mine"}),
                await api.put(f"{one}/alias", json=patches),
            ]
            assert {answer.status_code for answer in answers} == {404}
            assert {answer.json()["err"] for answer in answers} == {"key not found"}
        filtered = await api.get("/v1/keys", params={"filter": f"key_id[eq]{key.key_id}"})
        assert filtered.json()["list"] == []
    assert await records() == before


async def test_an_alias_can_name_no_key_id(api: httpx.AsyncClient, make_key: MakeKey) -> None:
    platform = await make_key(KeyPurpose.PLATFORM)
    key = await created(api)

    for alias in (platform.key_id, platform.key_id.upper(), "pkcs11:id=x", "", "a\nb", 7):
        answer = await api.put(
            f"/v1/keys/{key['key_id']}/alias",
            json={"patches": [{"op": "add", "path": "/-", "value": alias}]},
        )
        assert answer.status_code == 400, alias
    assert (await api.get(f"/v1/keys/{key['key_id']}")).json()["aliases"] == []


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(bytes.fromhex("3003020101"), id="definite"),
        pytest.param(bytes.fromhex("308103020101"), id="long form"),
        pytest.param(bytes.fromhex("308400000003020101"), id="longer form"),
        pytest.param(bytes.fromhex("30800201010000"), id="indefinite"),
        pytest.param(bytes.fromhex("3103020101"), id="set"),
        pytest.param(bytes.fromhex("3000"), id="empty"),
        pytest.param(b"\x30\x82\x01\x00" + bytes(256), id="unparsable inside"),
    ],
)
async def test_a_ca_key_signs_nothing_that_could_be_a_certificate(
    api: httpx.AsyncClient, make_key: MakeKey, records: Records, message: bytes
) -> None:
    ca = await make_key(KeyPurpose.CA)

    answer = await api.post(f"/v1/keys/{ca.key_id}/sign", json=sign_body(message))

    assert answer.status_code == 403
    assert answer.json()["code"] == "ca_key_message_refused"
    last_kind, last_type, body = (await records())[-1]
    assert (last_kind, last_type) == ("audit", "ca-key.sign")
    assert "refused" in body


async def test_a_ca_key_signs_no_digest(api: httpx.AsyncClient, make_key: MakeKey) -> None:
    ca = await make_key(KeyPurpose.CA)
    digest = hashlib.sha256(bytes.fromhex("3003020101")).digest()

    answer = await api.post(f"/v1/keys/{ca.key_id}/sign", json=sign_body(digest, "hash"))

    assert (answer.status_code, answer.json()["code"]) == (403, "ca_key_digest_refused")


async def test_a_ca_key_signs_an_innocent_raw_message_and_that_is_recorded(
    api: httpx.AsyncClient, make_key: MakeKey, records: Records, kms: KmsService
) -> None:
    ca = await make_key(KeyPurpose.CA)

    answer = await api.post(f"/v1/keys/{ca.key_id}/sign", json=sign_body(b"hello"))

    assert answer.status_code == 200
    assert [type_ for _, type_, _ in await records()][-2:] == ["kms.sign", "ca-key.sign"]
    assert b64(b"hello") not in "".join(body for _, _, body in await records())
    found = await kms.find(ca.key_id)
    assert found is not None
    assert found.has_signed


async def test_the_cas_route_obeys_the_same_rule(kms: KmsService, make_key: MakeKey) -> None:
    ca = await make_key(KeyPurpose.CA)

    for message, message_type in ((bytes.fromhex("3000"), MessageType.RAW), (bytes(32), "hash")):
        with pytest.raises(Forbidden):
            await kms.sign_for_ca(
                ca.key_id,
                algorithm="ECDSA_SHA_256",
                message=message,
                message_type=MessageType(message_type),
            )
    assert await kms.sign_for_ca(
        ca.key_id, algorithm="ECDSA_SHA_256", message=b"x", message_type=MessageType.RAW
    )


async def test_a_ca_key_cannot_be_deleted(
    api: httpx.AsyncClient, make_key: MakeKey, kms: KmsService
) -> None:
    ca = await make_key(KeyPurpose.CA)

    answer = await api.delete(f"/v1/keys/{ca.key_id}")

    assert (answer.status_code, answer.json()["code"]) == (409, "key_in_use")
    assert await kms.get(ca.key_id, purpose=KeyPurpose.CA)


@pytest.mark.parametrize("size", ["256", "384", "512"])
@pytest.mark.parametrize("message_type", ["raw", "hash"])
async def test_ecdsa_signatures_verify(
    api: httpx.AsyncClient, make_key: MakeKey, size: str, message_type: str
) -> None:
    key = await make_key(spec=KeySpec(KeyAlgorithm.ECDSA, 384))
    digest = hashlib.new(f"sha{size}", b"message").digest()
    body = sign_body(
        digest if message_type == "hash" else b"message", message_type, f"ECDSA_SHA_{size}"
    )

    signed = (await api.post(f"/v1/keys/{key.key_id}/sign", json=body)).json()

    whole = body | {"signature": signed["signature"]}
    assert (await api.post(f"/v1/keys/{key.key_id}/verify", json=whole)).json() == {"valid": True}
    raw = sign_body(b"message", "raw", f"ECDSA_SHA_{size}") | signed
    assert (await api.post(f"/v1/keys/{key.key_id}/verify", json=raw)).json() == {"valid": True}
    wrong = sign_body(b"another", "raw", f"ECDSA_SHA_{size}") | signed
    answer = await api.post(f"/v1/keys/{key.key_id}/verify", json=wrong)
    assert (answer.status_code, answer.json()) == (200, {"valid": False})


async def test_rsa_signs_under_each_of_its_schemes(api: httpx.AsyncClient) -> None:
    key = await created(api, algorithm="RSA", size=2048)
    one = f"/v1/keys/{key['key_id']}"
    for family in ("RSASSA_PKCS1_V1_5", "RSASSA_PSS"):
        for size in ("256", "384", "512"):
            body = sign_body(b"m", "raw", f"{family}_SHA_{size}")
            signed = (await api.post(f"{one}/sign", json=body)).json()
            assert (await api.post(f"{one}/verify", json=body | signed)).json()["valid"], body
            digest = hashlib.new(f"sha{size}", b"m").digest()
            hashed = sign_body(digest, "hash", f"{family}_SHA_{size}")
            assert (await api.post(f"{one}/verify", json=hashed | signed)).json()["valid"], body


@pytest.mark.parametrize(
    ("spec", "scheme", "wrong"),
    [
        (KeySpec(KeyAlgorithm.ED25519, 256), "ED25519", "ECDSA_SHA_256"),
        (KeySpec(KeyAlgorithm.ML_DSA, 44), "ML_DSA_44", "ML_DSA_65"),
        (KeySpec(KeyAlgorithm.ML_DSA, 65), "ML_DSA_65", "ED25519"),
        (KeySpec(KeyAlgorithm.ML_DSA, 87), "ML_DSA_87", "RSASSA_PSS_SHA_512"),
    ],
    ids=["Ed25519", "ML-DSA-44", "ML-DSA-65", "ML-DSA-87"],
)
async def test_newer_schemes_sign_whole_messages(
    api: httpx.AsyncClient,
    make_key: MakeKey,
    records: Records,
    spec: KeySpec,
    scheme: str,
    wrong: str,
) -> None:
    key = await make_key(spec=spec)
    one = f"/v1/keys/{key.key_id}"
    body = sign_body(b"message" * 100, "raw", scheme)

    signed = (await api.post(f"{one}/sign", json=body)).json()

    assert (await api.post(f"{one}/verify", json=body | signed)).json() == {"valid": True}
    other = sign_body(b"another", "raw", scheme) | signed
    assert (await api.post(f"{one}/verify", json=other)).json() == {"valid": False}
    before = await records()
    for refused, code in (
        (sign_body(b"m", "raw", wrong), "algorithm_mismatch"),
        (sign_body(bytes(64), "hash", scheme), "invalid_digest_size"),
        (sign_body(b"m", "raw", scheme.lower()), "unsupported_algorithm"),
    ):
        answer = await api.post(f"{one}/sign", json=refused)
        assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert await records() == before


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"algorithm": "ECDSA_SHA_1"}, "unsupported_algorithm"),
        ({"algorithm": "ecdsa_sha_256"}, "unsupported_algorithm"),
        ({"algorithm": "RSASSA_PSS_SHA_256"}, "algorithm_mismatch"),
        ({"message_type": "digest"}, None),
        ({"message_type": "hash"}, "invalid_digest_size"),
        ({"message": "%%%"}, None),
        ({"message": None}, "missing_field"),
        ({"algorithm": None}, "missing_field"),
    ],
)
@pytest.mark.parametrize("verb", ["sign", "verify"])
async def test_a_clients_fault_is_its_own(
    api: httpx.AsyncClient,
    make_key: MakeKey,
    verb: str,
    change: dict[str, object],
    code: str | None,
) -> None:
    key = await make_key()
    extra = {"signature": b64(b"s")} if verb == "verify" else {}

    answer = await api.post(f"/v1/keys/{key.key_id}/{verb}", json=sign_body(b"m") | extra | change)

    assert answer.status_code == 400
    assert code in (None, answer.json()["code"])


async def test_an_empty_message_can_be_signed(api: httpx.AsyncClient, make_key: MakeKey) -> None:
    key = await make_key()

    signed = (await api.post(f"/v1/keys/{key.key_id}/sign", json=sign_body(b""))).json()

    pem = base64.b64decode((await api.get(f"/v1/keys/{key.key_id}")).json()["public_key"])
    public_key = load_pem_public_key(pem)
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    public_key.verify(base64.b64decode(signed["signature"]), b"", ec.ECDSA(hashes.SHA256()))


async def test_a_general_key_that_signed_is_marked(api: httpx.AsyncClient, kms: KmsService) -> None:
    key = await created(api)
    before = await kms.find(str(key["key_id"]))
    await api.post(f"/v1/keys/{key['key_id']}/sign", json=sign_body(b"m"))
    after = await kms.find(str(key["key_id"]))

    assert before is not None
    assert after is not None
    assert (before.has_signed, after.has_signed) == (False, True)
    assert after.version == before.version + 1


async def test_names_tags_metadata_and_aliases_change(
    api: httpx.AsyncClient, records: Records
) -> None:
    key = await created(api, metadata={"keep": 1})
    one = f"/v1/keys/{key['key_id']}"

    await api.put(f"{one}/name", json={"name": "renamed"})
    await api.put(f"{one}/tags", json={"tags": ["x", "y"]})
    bindings = "/lamassu.io~1kms~1binded-resources"
    await api.put(
        f"{one}/metadata",
        json={
            "Patches": [
                {"op": "add", "path": "/new", "value": 2},
                {"op": "add", "path": bindings, "value": [{"resource_type": "certificate"}]},
            ]
        },
    )
    for route, alias in (("alias", "first"), ("aliases", 'se"cond')):
        await api.put(
            f"{one}/{route}", json={"patches": [{"op": "add", "path": "/-", "value": alias}]}
        )

    now = (await api.get("/v1/keys/first")).json()
    assert now["name"] == "renamed"
    assert now["tags"] == ["x", "y"]
    assert now["metadata"] == {"keep": 1, "new": 2}
    assert now["aliases"] == ["first", 'se"cond']
    quoted = quote('se"cond')
    assert (await api.get(f"/v1/keys/{quoted}")).json() == now
    assert [type_ for kind, type_, _ in await records() if kind == "event"] == [
        "kms.create",
        "kms.name.update",
        "kms.tags.update",
        "kms.metadata.update",
        "kms.aliases.update",
        "kms.aliases.update",
    ]


async def test_an_alias_belongs_to_one_key(api: httpx.AsyncClient) -> None:
    first, second = await created(api), await created(api)
    patches = {"patches": [{"op": "add", "path": "/-", "value": "taken"}]}
    await api.put(f"/v1/keys/{first['key_id']}/alias", json=patches)

    for key in (first, second):
        answer = await api.put(f"/v1/keys/{key['key_id']}/alias", json=patches)
        assert (answer.status_code, answer.json()["code"]) == (409, "alias_exists")

    await api.delete(f"/v1/keys/{first['key_id']}")
    answer = await api.put(f"/v1/keys/{second['key_id']}/alias", json=patches)
    assert answer.json()["aliases"] == ["taken"]


async def test_of_many_who_want_an_alias_at_once_one_gets_it(api: httpx.AsyncClient) -> None:
    keys = [await created(api) for _ in range(4)]
    patches = {"patches": [{"op": "add", "path": "/-", "value": "wanted"}]}

    answers = await asyncio.gather(
        *(api.put(f"/v1/keys/{key['key_id']}/alias", json=patches) for key in keys)
    )

    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]
    owners = [key for key in keys if (await aliases_of(api, key)) == ["wanted"]]
    assert [key["key_id"] for key in owners] == [
        (await api.get("/v1/keys/wanted")).json()["key_id"]
    ]


async def aliases_of(api: httpx.AsyncClient, key: dict[str, object]) -> list[str]:
    aliases: list[str] = (await api.get(f"/v1/keys/{key['key_id']}")).json()["aliases"]
    return aliases


@pytest.mark.parametrize(
    "uri",
    [
        "pkcs11:id={id}",
        "pkcs11:token-id=x;id={id}",
        "pkcs11:token-id=x;id={id};type=secret",
        "pkcs11:token-id=x;id={id};id={id};type=private",
        "pkcs11:",
    ],
)
async def test_a_broken_uri_is_the_clients_fault(api: httpx.AsyncClient, uri: str) -> None:
    key = await created(api)

    answer = await api.get(f"/v1/keys/{quote(uri.format(id=key['key_id']))}")

    assert (answer.status_code, answer.json()["code"]) == (400, "bad_key_uri")


async def test_keys_are_listed_filtered_and_paged(api: httpx.AsyncClient) -> None:
    for number in range(5):
        await created(api, name=f"key {number}", tags=["odd"] if number % 2 else ["even"])

    async def names(**query: str | list[str]) -> list[str]:
        answer = await api.get("/v1/keys", params=query)
        assert answer.status_code == 200, answer.text
        return [key["name"] for key in answer.json()["list"]]

    assert await names(sort_by="name", sort_mode="desc") == [f"key {n}" for n in (4, 3, 2, 1, 0)]
    assert set((await names(sort_by="tags"))[:3]) == {"key 0", "key 2", "key 4"}
    assert await names(sort_by="creation_ts", page_size="2") == ["key 0", "key 1"]
    assert sorted(await names(filter="tags[contains]odd")) == ["key 1", "key 3"]
    assert await names(filter="name[eq]key 3") == ["key 3"]
    assert len(await names(filter=["size[eq]256", "algorithm[eq]ECDSA"])) == 5
    assert len(await names(filter="has_private_key[eq]true")) == 5
    assert await names(filter="has_private_key[eq]false") == []
    page = (await api.get("/v1/keys", params={"sort_by": "has_private_key", "page_size": 3})).json()
    rest = (await api.get("/v1/keys", params={"bookmark": page["next"]})).json()
    assert len({k["key_id"] for k in page["list"] + rest["list"]}) == 5
    assert rest["next"] == ""
    for wrong in ("aliases[eq]x", "purpose[eq]ca", "status[eq]x"):
        assert (await api.get("/v1/keys", params={"filter": wrong})).status_code == 400


@pytest.mark.parametrize("mode", ["asc", "desc"])
@pytest.mark.parametrize(
    "field",
    [
        *("key_id", "engine_id", "has_private_key", "algorithm", "size", "public_key"),
        *("creation_ts", "name", "tags", "origin"),
    ],
)
async def test_every_field_sorts_page_by_page(
    api: httpx.AsyncClient, field: str, mode: str
) -> None:
    specs = [("ECDSA", 256), ("ECDSA", 384), ("Ed25519", 256), ("ML-DSA", 44), ("ECDSA", 256)]
    for number, (algorithm, size) in enumerate(specs):
        await created(api, algorithm=algorithm, size=size, name=f"k{number}", tags=[str(number)])

    seen: list[dict[str, object]] = []
    query = {"sort_by": field, "sort_mode": mode, "page_size": "2"}
    while True:
        page = (await api.get("/v1/keys", params=query)).json()
        seen += page["list"]
        if not page["next"]:
            break
        query = {"bookmark": page["next"]}

    values = [key[field] for key in seen]
    assert len({str(key["key_id"]) for key in seen}) == 5
    assert values == sorted(values, key=lambda value: value, reverse=mode == "desc")  # type: ignore[arg-type, return-value]


async def test_every_field_filters(api: httpx.AsyncClient) -> None:
    key = await created(api, name="mine", tags=["blue", 'qu"ote'], metadata={"a": 1})
    await created(api, algorithm="Ed25519", name="other")

    for text in (
        f"key_id[eq]{key['key_id']}",
        f"key_id[in]{key['key_id']},x",
        f"public_key[eq]{key['public_key']}",
        "algorithm[eq_ic]ecdsa",
        "algorithm[ne]Ed25519",
        "name[ct_ic]MIN",
        "name[nc]oth",
        "tags[ct]blue",
        "tags[ct_ic]BLUE",
        'tags[ct]qu"ote',
    ):
        answer = await api.get("/v1/keys", params={"filter": text})
        assert [one["key_id"] for one in answer.json()["list"]] == [key["key_id"]], text
        counted = await api.get("/v1/stats", params={"filter": text})
        assert counted.json()["total_keys"] == 1, text
    for text in (
        "engine_id[eq]software",
        "size[ge]256",
        "has_private_key[eq]true",
        "creation_ts[af]2020-01-01",
        "origin[eq]generated",
    ):
        listed = (await api.get("/v1/keys", params={"filter": text})).json()["list"]
        assert len(listed) == 2, text
    for text in (
        "name[eq]%",
        "name[ct]_",
        "tags[ct]blu",
        "creation_ts[bf]2020-01-01",
        "origin[ne]generated",
    ):
        listed = (await api.get("/v1/keys", params={"filter": text})).json()["list"]
        assert listed == [], text
    refused = await api.get("/v1/keys", params={"filter": "metadata[jsonpath]$.a"})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_json_path")


@pytest.mark.parametrize(
    "identifier", ["%00", "%ff", "%ED%A0%80", "a" * 4000, "%27%3B--", "pkcs11:%00"]
)
async def test_no_identifier_is_a_fault_of_ours(api: httpx.AsyncClient, identifier: str) -> None:
    one = f"/v1/keys/{identifier}"
    patches = {"patches": [{"op": "add", "path": "/-", "value": "\ud800"}]}
    answers = [
        await api.get(one),
        await api.delete(one),
        await api.post(f"{one}/sign", json=sign_body(b"m")),
        await api.put(f"{one}/alias", content=json.dumps(patches)),
    ]
    assert {answer.status_code for answer in answers} <= {400, 404}


@pytest.mark.parametrize("text", ["\ud800", "\x00", "\u202e"])
async def test_no_text_is_a_fault_of_ours(api: httpx.AsyncClient, text: str) -> None:
    key = await created(api)
    one = f"/v1/keys/{key['key_id']}"
    bodies = [
        ("PUT", "alias", {"patches": [{"op": "add", "path": "/-", "value": text}]}),
        ("PUT", "metadata", {"patches": [{"op": "add", "path": f"/{text}", "value": text}]}),
        ("PUT", "tags", {"tags": [text]}),
        ("PUT", "name", {"name": text}),
        ("POST", "sign", sign_body(b"m") | {"algorithm": text}),
        ("POST", "", {"algorithm": "ECDSA", "size": 256, "name": "n", "metadata": {text: text}}),
    ]
    for method, verb, body in bodies:
        path = f"{one}/{verb}" if verb else "/v1/keys"
        answer = await api.request(method, path, content=json.dumps(body))
        assert answer.status_code in (200, 201, 400), (verb, answer.text)
