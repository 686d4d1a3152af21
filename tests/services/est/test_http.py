"""EST's routes at both places, as any client may call them (RFC 7030)."""

from __future__ import annotations

import base64
import urllib.parse
from dataclasses import dataclass

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from lamassu.kernel.identity import Peer
from lamassu.kernel.x509.pem import ders_of, pem_of
from tests.services.dms.edge import ADMIN_PEER, Client, told, whole_app
from tests.services.dms.world import Identity, World, csr
from tests.support.pki import ec_key

ROOTS = ("/.well-known/est", "/api/dmsmanager/.well-known/est")
CSR_TYPE = {"content-type": "application/pkcs10"}


@dataclass
class Est:
    """EST as a peer sees it."""

    world: World
    default_dms: str | None = None
    root: str = ROOTS[0]

    async def get(self, path: str, accept: str = "*/*") -> httpx.Response:
        client = Client(whole_app(self.world, self.default_dms), Peer())
        return await client("GET", f"{self.root}/{path}", headers={"accept": accept})

    async def post(
        self,
        path: str,
        peer: Peer,
        content: bytes,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        client = Client(whole_app(self.world, self.default_dms), peer)
        return await client(
            "POST",
            f"{self.root}/{path}",
            content=content,
            headers=CSR_TYPE if headers is None else headers,
        )


@pytest.fixture(params=ROOTS, ids=["root", "api"])
async def est(request: pytest.FixtureRequest, world: World) -> Est:
    await world.dms()
    return Est(world, root=request.param)


def certificates_in(response: httpx.Response) -> list[bytes]:
    cms = base64.b64decode(response.content, validate=False)
    return [c.public_bytes(Encoding.DER) for c in pkcs7.load_der_pkcs7_certificates(cms)]


async def test_a_device_enrolls_and_renews_over_http(world: World, est: Est) -> None:
    bootstrap, key = world.bootstrap(), ec_key()
    body = base64.b64encode(csr(key, "dev-1"))

    first = await est.post("fleet/simpleenroll", bootstrap.peer, body)
    [certificate] = certificates_in(first)
    second = await est.post("fleet/simplereenroll", Peer((certificate,)), body)
    [renewed] = certificates_in(second)

    assert (first.status_code, second.status_code) == (200, 200)
    assert first.headers["content-type"] == "application/pkcs7-mime; smime-type=certs-only"
    assert first.headers["content-transfer-encoding"] == "base64"
    assert int(first.headers["content-length"]) == len(first.content)
    assert await world.current() == Identity(renewed, key).sha256


async def test_pem_comes_to_who_accepts_it(world: World, est: Est) -> None:
    headers = CSR_TYPE | {"accept": "application/x-pem-file"}

    answer = await est.post(
        "fleet/simpleenroll", world.bootstrap().peer, csr(ec_key(), "dev-1"), headers
    )
    trusted = await est.get("fleet/cacerts", accept="application/x-pem-file")

    assert answer.headers["content-type"] == "application/x-pem-file"
    assert "content-transfer-encoding" not in answer.headers
    assert len(ders_of(answer.content)) == 1
    assert ders_of(trusted.content) == [world.made["fleet-ca"].der, world.made["root-ca"].der]


# --- cacerts --------------------------------------------------------------------------------


async def test_cacerts_has_the_enrolment_ca_up_to_its_root_for_anybody(
    world: World, est: Est
) -> None:
    answer = await est.get("fleet/cacerts")

    assert answer.status_code == 200
    assert set(certificates_in(answer)) == {world.made["fleet-ca"].der, world.made["root-ca"].der}


async def test_cacerts_adds_managed_cas_once_and_never_a_bootstrap_ca(world: World) -> None:
    from lamassu.services.dms.model.settings import CaDistributionSettings

    named = ("other-ca", "fleet-ca", "bootstrap-ca", "bootstrap-root", "partner-ca")
    await world.dms(
        "wide",
        validation_cas=["bootstrap-ca", "partner-ca"],
        ca_distribution=CaDistributionSettings(managed_cas=named[:3] + named[4:]),
    )
    await world.dms(
        "narrow",
        ca_distribution=CaDistributionSettings(
            include_enrollment_ca=False, managed_cas=("other-ca",)
        ),
    )
    est = Est(world)

    wide = certificates_in(await est.get("wide/cacerts"))
    narrow = certificates_in(await est.get("narrow/cacerts"))

    def ders(*ids: str) -> set[bytes]:
        return {world.made[ca_id].der for ca_id in ids}

    assert len(wide) == len(set(wide))
    assert set(wide) == ders("fleet-ca", "root-ca", "other-ca")
    assert set(narrow) == ders("other-ca", "root-ca")


async def test_cacerts_ends_a_path_before_a_bootstrap_ca(world: World) -> None:
    from lamassu.services.dms.model.settings import CaDistributionSettings
    from tests.services.dms.authorities import ca_certificate

    below = ca_certificate("line-ca", issuer=world.made["bootstrap-ca"], clock=world.clock)
    world.authorities.add_ca("line-ca", below, parent="bootstrap-ca")
    settings = CaDistributionSettings(managed_cas=("line-ca",))
    await world.dms("line", ca_distribution=settings)

    answer = await Est(world).get("line/cacerts")

    made = world.made
    assert set(certificates_in(answer)) == {made["fleet-ca"].der, made["root-ca"].der, below.der}


@pytest.mark.parametrize("validated", ["partner-ca", "partner-ca.2"])
@pytest.mark.parametrize("managed", ["partner-ca", "partner-ca.2"])
async def test_cacerts_has_no_generation_of_a_ca_that_lets_devices_in(
    world: World, validated: str, managed: str
) -> None:
    from lamassu.services.dms.model.settings import CaDistributionSettings

    world.authorities.rekey_ca("partner-ca")
    await world.dms(
        "wide",
        validation_cas=[validated],
        ca_distribution=CaDistributionSettings(managed_cas=(managed,)),
    )

    answer = await Est(world).get("wide/cacerts")

    assert set(certificates_in(answer)) == {world.made["fleet-ca"].der, world.made["root-ca"].der}


async def test_cacerts_no_longer_has_a_generation_that_was_revoked(world: World) -> None:
    from lamassu.services.dms.model.settings import CaDistributionSettings

    following = world.authorities.rekey_ca("partner-ca")
    settings = CaDistributionSettings(managed_cas=("partner-ca",))
    await world.dms("wide", ca_distribution=settings)
    earlier = world.made["partner-ca"].der
    both = certificates_in(await Est(world).get("wide/cacerts"))
    assert {earlier, following.der} < set(both)

    world.authorities.revoke_ca("partner-ca")

    left = certificates_in(await Est(world).get("wide/cacerts"))
    assert set(both) - set(left) == {earlier}


async def test_csrattrs_asks_for_nothing(world: World, est: Est) -> None:
    assert (await est.get("fleet/csrattrs")).status_code == 204
    assert told(await est.get("nowhere/csrattrs")) == (404, "dms_not_found")


# --- which DMS ------------------------------------------------------------------------------


@pytest.mark.parametrize("root", ROOTS)
async def test_without_a_dms_in_the_path_the_default_answers_if_there_is_one(
    world: World, root: str
) -> None:
    await world.dms()
    bootstrap, body = world.bootstrap(), csr(ec_key(), "dev-1")

    with_default = Est(world, default_dms="fleet", root=root)
    without = Est(world, root=root)

    assert (await with_default.get("cacerts")).status_code == 200
    assert (await with_default.post("simpleenroll", bootstrap.peer, body)).status_code == 200
    assert told(await without.get("cacerts")) == (400, "dms_missing")
    assert told(await without.post("simpleenroll", bootstrap.peer, body)) == (400, "dms_missing")


async def test_an_unknown_dms_is_not_found(world: World, est: Est) -> None:
    peer, body = world.bootstrap().peer, csr(ec_key(), "dev-1")

    assert told(await est.get("nowhere/cacerts")) == (404, "dms_not_found")
    for deed in ("simpleenroll", "simplereenroll"):
        answer = await est.post(f"nowhere/{deed}", peer, body)
        assert told(answer) == (404, "dms_not_found")
        assert answer.json()["err"] == "DMS not found"


# --- refusals -------------------------------------------------------------------------------


@pytest.mark.parametrize("deed", ["simpleenroll", "simplereenroll"])
async def test_each_refusal_has_its_status(world: World, est: Est, deed: str) -> None:
    bootstrap = world.bootstrap(ca="fleet-ca" if deed == "simplereenroll" else "bootstrap-ca")
    stranger = world.bootstrap("x", ca="stranger-ca", stored=False)
    revoked = world.bootstrap("y", ca="fleet-ca" if deed == "simplereenroll" else "bootstrap-ca")
    world.revoke(revoked)
    sound = csr(ec_key(), "dev-1")
    path = f"fleet/{deed}"

    assert told(await est.post(path, Peer(), b"nonsense", {})) == (401, "certificate_missing")
    assert told(await est.post(path, stranger.peer, b"")) == (401, "certificate_unknown")
    if deed == "simpleenroll":
        assert told(await est.post(path, revoked.peer, sound)) == (403, "certificate_revoked")
        for body, headers, code in [
            (sound, {}, "unsupported_media_type"),
            (sound, {"content-type": "text/plain"}, "unsupported_media_type"),
            (b"", CSR_TYPE, "csr_missing"),
            (b"%%%", CSR_TYPE, "base64_malformed"),
            (base64.b64encode(sound[:40]), CSR_TYPE, "csr_malformed"),
            (b"A" * 100_000, CSR_TYPE, "csr_malformed"),
        ]:
            assert told(await est.post(path, bootstrap.peer, body, headers)) == (400, code)
    else:
        assert told(await est.post(path, bootstrap.peer, sound)) == (403, "certificate_not_bound")
    assert await world.devices.find("dev-1") is None
    assert world.authorities.requests == []


async def test_a_body_beyond_bounds_is_refused_before_anybody_is_judged(
    world: World, est: Est
) -> None:
    answer = await est.post("nowhere/simpleenroll", Peer(), b"A" * 200_000)

    assert answer.status_code == 413
    assert set(answer.json()) == {"err", "code", "field"}


@pytest.mark.parametrize(
    "header", ["x-forwarded-client-cert", "ssl-client-cert", "x-amzn-mtls-clientcert"]
)
async def test_a_forged_certificate_header_counts_for_nothing(
    world: World, est: Est, header: str
) -> None:
    pem = urllib.parse.quote(pem_of(world.bootstrap().der).decode())
    value = f'Cert="{pem}"' if header.startswith("x-forwarded") else pem

    answer = await est.post(
        "fleet/simpleenroll", Peer(), csr(ec_key(), "dev-1"), CSR_TYPE | {header: value}
    )

    assert told(answer) == (401, "certificate_missing")
    assert world.authorities.requests == []


async def test_an_admins_certificate_enrolls_nobody(world: World, est: Est) -> None:
    answer = await est.post("fleet/simpleenroll", ADMIN_PEER, csr(ec_key(), "dev-1"))

    assert answer.status_code == 401


async def test_engine_trouble_is_unavailable_with_a_time_to_come_back(
    world: World, est: Est
) -> None:
    world.authorities.unavailable = True

    answer = await est.post("fleet/simpleenroll", world.bootstrap().peer, csr(ec_key(), "dev-1"))

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"


async def test_what_is_not_offered_says_so(world: World, est: Est) -> None:
    peer, body = world.bootstrap().peer, csr(ec_key(), "dev-1")

    assert told(await est.post("fleet/serverkeygen", peer, body)) == (501, "not_available")
    assert told(await est.post("fleet/fullcmc", peer, body)) == (404, "not_available")
    assert (await est.get("fleet/simpleenroll")).status_code == 405
    assert (await est.get("fleet/anything")).status_code == 404
