"""A CA's key is held in the KMS by its certificate, whatever happens between the commits."""

from __future__ import annotations

from collections.abc import Sequence

import httpx
import pytest

from lamassu.kernel.errors import Conflict, Unavailable
from lamassu.kernel.identity import Peer, Principal
from lamassu.platform.http import Mount, Route, build_app
from lamassu.platform.messaging import EventBus
from lamassu.services.ca import events
from lamassu.services.ca.contract import CertificationAuthority
from lamassu.services.ca.http import routes as ca_routes
from lamassu.services.kms.contract import Binding, KeyPurpose
from lamassu.services.kms.http import routes as kms_routes

from .world import ALICE, World


async def bindings(world: World, authority: CertificationAuthority) -> Sequence[Binding]:
    return (await world.kms.get(authority.key_id, purpose=KeyPurpose.CA)).bindings


async def test_a_new_cas_key_is_bound_to_its_certificate(world: World) -> None:
    await world.profile()
    root = await world.root()

    assert await bindings(world, root) == (Binding("certificate", root.certificate.serial_number),)
    with pytest.raises(Conflict, match=f"belongs to the CA {root.id}"):
        await world.kms.delete_named(root.key_id, caller=ALICE)


async def test_a_ca_whose_binding_was_lost_gets_it_by_its_event(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(*_: object, **__: object) -> None:
        raise Unavailable("the KMS is gone")

    await world.profile()
    with monkeypatch.context() as fault:
        fault.setattr(world.kms, "bind", gone)
        root = await world.root()
    assert await bindings(world, root) == ()

    bus = EventBus(world.database)
    events.subscribe(bus, world.ca)
    await bus.start()
    try:
        await bus.drained()
        assert await bindings(world, root) == (
            Binding("certificate", root.certificate.serial_number),
        )
    finally:
        await bus.stop()


async def test_an_event_of_a_ca_that_is_not_there_is_passed_over(world: World) -> None:
    await world.ca.hold_key_of("nowhere", caller=ALICE)


async def test_the_ca_shows_engines_as_the_kms_does(world: World) -> None:
    app = build_app(
        [Mount("/api/kms", "kms", kms_routes(world.kms))],
        authenticate=as_alice,
        public_hosts=["localhost:8443"],
        bookmark_key=b"b" * 32,
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="https://localhost/api/kms") as kms:
        theirs = (await kms.get("/v1/engines")).json()

    ours = (await world.api.get("/v1/engines")).json()

    assert ours == theirs
    assert [engine["id"] for engine in ours] == ["software"]
    described, theirs_described = _described(ca_routes(world.ca)), _described(kms_routes(world.kms))
    assert described == theirs_described


def _described(table: Sequence[Route]) -> object:
    """The fields of an engine as the API documentation has them."""
    [route] = [one for one in table if one.path == "/v1/engines"]
    assert route.answer is not None
    return {name: field.is_required() for name, field in route.answer.model_fields.items()}


async def as_alice(peer: Peer) -> Principal | None:
    return ALICE.principal
