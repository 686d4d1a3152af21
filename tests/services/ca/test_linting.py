"""Nothing is signed that breaks the rules, and the finding is in the answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

from lamassu.kernel.errors import LamassuError, RuleViolation
from lamassu.kernel.x509 import lint
from lamassu.services.ca.contract import CryptoEnforcement, IssuanceProfile
from lamassu.services.ca.rules import template as templates
from lamassu.services.ca.rules.kept_profile import check_profile_kept
from lamassu.services.ca.storage import CaStorage
from lamassu.services.ca.usecases import lint as linters
from lamassu.services.ca.usecases import sample_lint
from lamassu.services.ca.usecases.sample_lint import FINDING_EVENT, SampledLint
from tests.kernel.x509.lint import drafts

from .test_profiles import ORIGINAL
from .world import DEVICE_PROFILE, World, csr, wire_csr


def counted(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What CAs' keys signed from now on."""
    signed: list[bytes] = []

    def counting(key: Any, **path: Any) -> CertificateIssuerPrivateKeyTypes:
        def note(octets: bytes) -> None:
            signed.append(octets)

        path["also"] = (*path["also"], note)  # asked last, before the key itself
        return lint.linting_key(key, **path)

    monkeypatch.setattr(templates, "linting_key", counting)
    return signed


async def test_a_request_that_breaks_the_rules_is_refused_with_the_finding(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.hierarchy()
    signed = counted(monkeypatch)
    san = x509.SubjectAlternativeName([x509.DNSName("pump_7.plant.example")])
    before = await world.api.get("/v1/stats")

    answer = await world.api.post(
        "/v1/cas/issuing/certificates/sign",
        json={"csr": wire_csr(csr("pump-7", extensions=[san]))},
    )

    refusal = answer.json()
    assert answer.status_code == 400, refusal
    assert refusal["code"] == "lint_failed"
    assert refusal["field"] == "extensions.subject_alternative_name"
    assert "pump_7.plant.example" in refusal["err"]
    assert "RFC 5280 §4.2.1.6" in refusal["err"]
    assert signed == []
    assert (await world.api.get("/v1/stats")).json() == before.json()


BROKEN_PROFILES = {
    "purposes without a usage": {
        "key_usage": ["ContentCommitment"],
        "extended_key_usages": ["ServerAuth"],
    },
    "usages that exclude each other": {
        "key_usage": ["KeyAgreement", "EncipherOnly", "DecipherOnly"],
        "crypto_enforcement": {"enabled": True, "allow_ecdsa_keys": True},
    },
    "an address that nobody could fetch from": {
        "crl_distribution_points": ["http://a_b.example/crl"],
    },
    "an extension that is no DER": {
        "custom_extensions": [{"oid": "1.3.6.1.4.1.99999.1", "critical": False, "value": "MAU="}],
    },
}


@pytest.mark.parametrize("changes", BROKEN_PROFILES.values(), ids=BROKEN_PROFILES)
async def test_a_profile_under_which_nothing_could_be_signed_is_refused(
    world: World, changes: dict[str, Any]
) -> None:
    refused = await world.api.post("/v1/profiles", json=ORIGINAL | changes)

    assert refused.status_code == 400, refused.text
    assert (await world.api.get("/v1/profiles")).json()["list"] == []

    created = (await world.api.post("/v1/profiles", json=ORIGINAL)).json()
    kept = (await world.api.get(f"/v1/profiles/{created['id']}")).json()
    replaced = await world.api.put(f"/v1/profiles/{created['id']}", json=ORIGINAL | changes)
    assert replaced.status_code == 400
    assert (await world.api.get(f"/v1/profiles/{created['id']}")).json() == kept


async def test_a_ca_that_pkilint_refuses_is_not_made_and_leaves_no_key(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.hierarchy()
    signed = counted(monkeypatch)
    before = await world.count()

    def refuse(certificate: bytes) -> None:
        raise lint.LintRefusal("pkilint", "pkix.finding", section="RFC 5280", part="certificate")

    monkeypatch.setattr(linters, "check_by_linters", refuse)
    answer = await world.api.post(
        "/v1/cas",
        json={
            "id": "refused",
            "subject": {"common_name": "Refused"},
            "key_metadata": {"type": "ECDSA", "bits": 256},
            "ca_expiration": {"type": "Duration", "duration": "100d"},
            "profile_id": DEVICE_PROFILE.id,
        },
    )

    assert answer.status_code == 400
    assert (answer.json()["code"], "pkix.finding" in answer.json()["err"]) == ("lint_failed", True)
    assert signed == []
    assert (await world.api.get("/v1/cas/refused")).status_code == 404
    assert await world.count() == before


async def test_a_fault_of_the_platform_is_told_as_such(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.hierarchy()
    signed = counted(monkeypatch)
    monkeypatch.setattr(
        "lamassu.services.ca.usecases.draft_certificate.new_serial_number", lambda: 2**160
    )

    answer = await world.api.post(
        "/v1/cas/issuing/certificates/sign", json={"csr": wire_csr(csr("pump-7"))}
    )

    assert (answer.status_code, answer.json()["code"]) == (503, "lint_failed")
    assert "serial_number" in answer.json()["err"]
    assert signed == []


async def test_a_profile_dry_run_uses_no_key_of_the_platform(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []
    use = world.kms.use

    async def counting(key_id: str, *arguments: Any, **named: Any) -> Any:
        used.append(key_id)
        return await use(key_id, *arguments, **named)

    monkeypatch.setattr(world.kms, "use", counting)
    with pytest.raises(RuleViolation):
        await linters.lint_profile(
            replace(DEVICE_PROFILE, key_usage=("ContentCommitment",), honor_key_usage=False),
            world.clock.now(),
        )
    await linters.lint_profile(DEVICE_PROFILE, world.clock.now())

    assert used == []


class Meter:
    def __init__(self) -> None:
        self.seen: list[bool] = []

    def sampled(self, *, clean: bool) -> None:
        self.seen.append(clean)


async def test_a_finding_in_the_sample_is_an_event_a_record_and_a_count(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.hierarchy()
    meter = Meter()
    sampled = SampledLint(store=CaStorage(world.database), clock=world.clock, rate=1.0, meter=meter)
    issued = await world.issue()

    sampled.offer(issued)
    await sampled.read_all()
    assert meter.seen == [True]
    assert FINDING_EVENT not in await world.event_types()

    monkeypatch.setattr(sample_lint, "linter_findings", lambda der: ["pkix.finding at here"])
    sampled.offer(issued)
    await sampled.wait()
    await sampled.read_all()

    assert meter.seen == [True, False]
    assert (await world.event_types()).count(FINDING_EVENT) == 1
    assert "pkix.finding at here" in str(await world.records("audit"))
    # it was issued, and what becomes of it is for people to decide
    assert (await world.ca.get_certificate(issued.serial_number)).der == issued.der


async def test_nothing_is_sampled_unless_asked_and_what_waits_is_bounded(world: World) -> None:
    await world.hierarchy()
    issued = await world.issue()
    meter = Meter()
    store = CaStorage(world.database)

    never = SampledLint(store=store, clock=world.clock, rate=0.0, meter=meter)
    never.offer(issued)
    await never.read_all()
    assert meter.seen == []

    always = SampledLint(store=store, clock=world.clock, rate=1.0, meter=meter)
    for _ in range(100):
        always.offer(issued)
    await always.read_all()
    assert 0 < len(meter.seen) < 100


async def test_what_is_issued_is_offered_to_the_sample_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.hierarchy()
    offered: list[str] = []
    monkeypatch.setattr(
        world.ca.sampled_lint, "offer", lambda one: offered.append(one.serial_number)
    )

    issued = await world.issue(request_key="once")
    again = await world.issue(request_key="once")

    assert issued == again
    assert offered == [issued.serial_number]


PROFILE = replace(
    DEVICE_PROFILE, key_usage=("DigitalSignature",), extended_key_usages=("ClientAuth",)
)
LEAF = drafts.Draft()
NOT_OF_THE_PROFILE = {
    "another purpose": (
        "extensions.extended_key_usage",
        PROFILE,
        LEAF.with_extension(drafts.EKU, drafts.sequence(drafts.oid(drafts.SERVER_AUTH))),
    ),
    "no purpose": ("extensions.extended_key_usage", PROFILE, LEAF.without(drafts.EKU)),
    "a purpose of an authority, honoured": (
        "extensions.extended_key_usage",
        replace(PROFILE, honor_extended_key_usages=True),
        LEAF.with_extension(drafts.EKU, drafts.sequence(drafts.oid("2b06010505070309"))),
    ),
    "another usage": (
        "extensions.key_usage",
        PROFILE,
        LEAF.with_extension(drafts.KEY_USAGE, drafts.key_usage(0, 4), critical=True),
    ),
    "a CA's usage, honoured": (
        "extensions.key_usage",
        replace(PROFILE, honor_key_usage=True),
        LEAF.with_extension(drafts.KEY_USAGE, drafts.key_usage(0, 6), critical=True),
    ),
    "a CA": ("extensions.basic_constraints", PROFILE, drafts.sub_ca()),
    "a key that it does not take": (
        "subject_public_key",
        replace(PROFILE, crypto_enforcement=CryptoEnforcement(enabled=True, allow_rsa_keys=True)),
        LEAF,
    ),
}


@pytest.mark.parametrize(
    ("part", "profile", "draft"), NOT_OF_THE_PROFILE.values(), ids=NOT_OF_THE_PROFILE
)
def test_what_is_not_of_the_profile_is_not_signed(
    part: str, profile: IssuanceProfile, draft: drafts.Draft
) -> None:
    check_profile_kept(LEAF.encoded(), profile=PROFILE)

    with pytest.raises(LamassuError) as refusal:
        check_profile_kept(draft.encoded(), profile=profile)

    assert (refusal.value.code, refusal.value.field) == ("lint_failed", part)


async def test_a_draft_that_forgot_its_profile_is_not_signed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.hierarchy()
    signed = counted(monkeypatch)
    monkeypatch.setattr(
        "lamassu.services.ca.usecases.draft_certificate.extended_key_usages_for",
        lambda profile, requested: ("ServerAuth",),
    )

    answer = await world.api.post(
        "/v1/cas/issuing/certificates/sign", json={"csr": wire_csr(csr("pump-7"))}
    )

    assert (answer.status_code, answer.json()["code"]) == (503, "lint_failed")
    assert signed == []
