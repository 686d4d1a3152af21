"""What needs a key keeps it: bindings, and what the API can do about them (nothing)."""

from __future__ import annotations

import httpx
import pytest

from lamassu.kernel.errors import Conflict, NotFound
from lamassu.services.kms.contract import Binding, KeyPurpose
from lamassu.services.kms.usecases import KmsService

from .conftest import ALICE, MakeKey, Records

SHOWN = "lamassu.io/kms/binded-resources"
CERTIFICATE = Binding("certificate", "0a1b2c")
OTHER = Binding("certificate", "ffee")


@pytest.mark.parametrize(
    ("purpose", "said"),
    [
        (KeyPurpose.GENERAL, "certificate 0a1b2c and 1 more"),
        (KeyPurpose.CA, "the key belongs to a CA; delete the CA instead"),
    ],
)
async def test_a_key_that_something_needs_cannot_be_deleted(
    api: httpx.AsyncClient,
    kms: KmsService,
    make_key: MakeKey,
    records: Records,
    purpose: KeyPurpose,
    said: str,
) -> None:
    key = await make_key(purpose)
    await kms.bind(key.key_id, CERTIFICATE, caller=ALICE)
    await kms.bind(key.key_id, OTHER, caller=ALICE)
    before = await records()

    answer = await api.delete(f"/v1/keys/{key.key_id}")
    with pytest.raises(Conflict):
        await kms.discard(key.key_id, purpose=purpose, caller=ALICE)

    assert (answer.status_code, answer.json()["code"]) == (409, "key_in_use")
    assert said in answer.json()["err"]
    assert await records() == before
    assert await kms.use(key.key_id, lambda _: True, purpose=purpose)


async def test_a_released_key_can_be_deleted(
    api: httpx.AsyncClient, kms: KmsService, make_key: MakeKey
) -> None:
    key = await make_key()
    for _ in range(2):
        await kms.bind(key.key_id, CERTIFICATE, caller=ALICE)
    for _ in range(2):
        await kms.unbind(key.key_id, CERTIFICATE, caller=ALICE)
    await kms.unbind(key.key_id, OTHER, caller=ALICE)
    await kms.unbind("0" * 64, OTHER, caller=ALICE)

    assert (await api.delete(f"/v1/keys/{key.key_id}")).status_code == 200
    with pytest.raises(NotFound):
        await kms.bind(key.key_id, CERTIFICATE, caller=ALICE)


async def test_bindings_are_shown_in_the_metadata_published_and_recorded_once(
    api: httpx.AsyncClient, kms: KmsService, make_key: MakeKey, records: Records
) -> None:
    key = await make_key(KeyPurpose.CA)
    for _ in range(2):
        await kms.bind(key.key_id, CERTIFICATE, caller=ALICE)

    read = (await api.get(f"/v1/keys/{key.key_id}")).json()

    assert read["metadata"] == {SHOWN: [{"resource_type": "certificate", "resource_id": "0a1b2c"}]}
    [listed] = (await api.get("/v1/keys")).json()["list"]
    assert listed == read
    told = [(kind, type_) for kind, type_, _ in await records()][2:]
    assert sorted(told) == [("audit", "kms.bind"), ("event", "kms.metadata.update")]
    assert (await kms.get(key.key_id, purpose=KeyPurpose.CA)).version == key.version + 1


async def test_a_responders_key_is_bound_without_an_event(
    kms: KmsService, make_key: MakeKey, records: Records
) -> None:
    key = await make_key(KeyPurpose.RESPONDER)
    await kms.bind(key.key_id, CERTIFICATE, caller=ALICE)

    assert [kind for kind, type_, _ in await records() if kind == "event"] == []


@pytest.mark.parametrize(
    "patch",
    [
        {"op": "remove", "path": "/lamassu.io~1kms~1binded-resources"},
        {"op": "remove", "path": "/lamassu.io~1kms~1binded-resources/0"},
        {"op": "add", "path": "/lamassu.io~1kms~1binded-resources/-", "value": {"a": "b"}},
        {"op": "replace", "path": "/lamassu.io~1kms~1binded-resources", "value": []},
        {"op": "add", "path": "", "value": {"mine": 2}},
    ],
    ids=["remove", "remove one", "add", "replace", "whole"],
)
async def test_no_patch_changes_a_binding(
    api: httpx.AsyncClient, kms: KmsService, make_key: MakeKey, patch: dict[str, object]
) -> None:
    key = await make_key()
    await kms.bind(key.key_id, CERTIFICATE, caller=ALICE)
    one = f"/v1/keys/{key.key_id}"

    answer = await api.put(
        f"{one}/metadata", json={"patches": [{"op": "add", "path": "/mine", "value": 2}, patch]}
    )

    assert answer.status_code == 200, answer.text
    bound = [{"resource_type": "certificate", "resource_id": "0a1b2c"}]
    assert answer.json()["metadata"] == {"mine": 2, SHOWN: bound}
    assert (await api.delete(one)).status_code == 409


async def test_a_client_cannot_bind_a_key_by_its_metadata(api: httpx.AsyncClient) -> None:
    body = {"algorithm": "ECDSA", "size": 256, "name": "k", "metadata": {SHOWN: ["x"], "a": 1}}
    key = (await api.post("/v1/keys", json=body)).json()

    assert key["metadata"] == {"a": 1}
    assert (await api.delete(f"/v1/keys/{key['key_id']}")).status_code == 200
