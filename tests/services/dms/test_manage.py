"""DMSs over the API, in both spellings (contract/dms-est.md §2, §3)."""

from __future__ import annotations

from typing import Any

import pytest

from lamassu.kernel.identity import Peer
from tests.services.dms.edge import ADMIN_PEER, Client, told, whole_app
from tests.services.dms.world import World

DMS = "/api/dmsmanager/v1/dms"


@pytest.fixture
def admin(world: World) -> Client:
    return Client(whole_app(world), ADMIN_PEER)


def original(**given: Any) -> dict[str, Any]:
    return {
        "id": "fleet",
        "name": "Fleet",
        "metadata": {"site": "north"},
        "settings": {
            "enrollment_settings": {
                "protocol": "EST_RFC7030",
                "est_rfc7030_settings": {
                    "auth_mode": "CLIENT_CERTIFICATE",
                    "client_certificate_settings": {
                        "validation_cas": ["bootstrap-ca"],
                        "chain_level_validation": -1,
                        "allow_expired": False,
                    },
                },
                "device_provisioning_profile": {
                    "icon": "CgAbstract",
                    "icon_color": "#25ee32",
                    "metadata": {"a": [1, {"b": None}]},
                    "tags": ["iot"],
                },
                "enrollment_ca": "fleet-ca",
                "registration_mode": "JITP",
                "verify_csr_signature": False,
                "issuance_profile_id": "left over",
            },
            "reenrollment_settings": {
                "additional_validation_cas": ["other-ca"],
                "reenrollment_delta": "14w2d",
                "preventive_delta": "4w",
                "critical_delta": "1w",
            },
            "ca_distribution_settings": {
                "include_enrollment_ca": True,
                "managed_cas": ["other-ca"],
            },
            "issuance_profile_id": "device-profile",
        }
        | given.pop("settings", {}),
    } | given


SEED: dict[str, Any] = {
    "id": "production-dms",
    "settings": {
        "enrollment_settings": {
            "protocol": "EST",
            "est_rfc7030_settings": {
                "authentication": {
                    "type": "client_certificate",
                    "client_certificate": {
                        "validation_cas": ["bootstrap-ca"],
                        "require_valid_chain": True,
                        "check_revocation": True,
                    },
                }
            },
        }
    },
}


async def test_the_original_body_is_stored_and_read_back(admin: Client) -> None:
    created = await admin("POST", DMS, original())

    assert created.status_code == 201
    body = created.json()
    assert (body["id"], body["name"], body["metadata"]) == ("fleet", "Fleet", {"site": "north"})
    assert body["creation_ts"].endswith("Z")
    enrollment = body["settings"]["enrollment_settings"]
    est = enrollment["est_rfc7030_settings"]
    assert enrollment["protocol"] == "EST_RFC7030"
    assert enrollment["registration_mode"] == "JITP"
    assert enrollment["device_provisioning_profile"]["metadata"] == {"a": [1, {"b": None}]}
    assert est["auth_mode"] == "CLIENT_CERTIFICATE"
    assert est["client_certificate_settings"]["validation_cas"] == ["bootstrap-ca"]
    assert est["client_certificate_settings"]["check_revocation"] is True
    assert est["client_certificate_settings"]["single_use_bootstrap"] is False
    assert body["settings"]["reenrollment_settings"]["reenrollment_delta"] == "14w2d"
    assert (await admin("GET", f"{DMS}/fleet")).json() == body
    put = await admin("PUT", f"{DMS}/fleet", body)
    assert (put.status_code, put.json()) == (200, body)


async def test_the_seeds_body_takes_configured_defaults(admin: Client) -> None:
    policy = {
        "renewal_window_days": 30,
        "auto_renew_enabled": True,
        "notification_days_before_expiry": [60, 30, 7, 1],
    }

    created = await admin("POST", DMS, SEED | {"renewal_policy": policy})

    assert created.status_code == 201
    body = created.json()
    settings = body["settings"]
    enrollment = settings["enrollment_settings"]
    certificate = enrollment["est_rfc7030_settings"]["client_certificate_settings"]
    assert body["name"] == "production-dms"
    assert enrollment["enrollment_ca"] == "fleet-ca"
    assert enrollment["registration_mode"] == "PRE_REGISTRATION"
    assert settings["issuance_profile_id"] == "device-profile"
    assert certificate["single_use_bootstrap"] is True
    assert settings["renewal_policy"] == policy
    assert settings["reenrollment_settings"]["reenrollment_delta"] == "4w2d"


EXTRAS = {
    "require_valid_chain": False,
    "check_revocation": "if_available",
    "single_use_bootstrap": True,
}


async def test_what_the_original_lacks_survives_a_client_that_does_not_know_it(
    admin: Client,
) -> None:
    created = (await admin("POST", DMS, original())).json()
    phases = ("enrollment_settings", "reenrollment_settings")
    parts = [created["settings"][phase]["est_rfc7030_settings"] for phase in phases]
    for part in parts:
        part["client_certificate_settings"] |= EXTRAS
    created["settings"]["renewal_policy"] = {
        "renewal_window_days": 100,
        "auto_renew_enabled": False,
        "notification_days_before_expiry": [7],
    }
    stored = await admin("PUT", f"{DMS}/fleet", created)
    assert (stored.status_code, stored.json()) == (200, created)

    for part in parts:
        for name in EXTRAS:
            del part["client_certificate_settings"][name]
    del created["settings"]["renewal_policy"]
    kept = await admin("PUT", f"{DMS}/fleet", created)

    assert (kept.status_code, kept.json()) == (200, stored.json())


async def test_every_member_of_the_original_is_written_even_when_nothing_is_set(
    admin: Client,
) -> None:
    settings = (await admin("POST", DMS, SEED)).json()["settings"]

    for phase in ("enrollment_settings", "reenrollment_settings"):
        assert settings[phase]["est_rfc7030_settings"]["external_webhook_settings"] == {
            "name": "",
            "url": "",
            "method": "",
            "config": {
                "validate_server_cert": False,
                "log_level": "",
                "auth_mode": "",
                "oidc": {"client_id": "", "client_secret": "", "well_known": ""},
                "apikey": {"key": "", "header": ""},
                "mtls": {"cert": "", "key": ""},
            },
        }
    assert settings["server_keygen_settings"]["key"] == {"type": "0", "bits": 0}


async def test_keys_are_read_in_any_case_and_null_as_absent(admin: Client) -> None:
    body = {"ID": "fleet", "Name": "Fleet", "Settings": {"issuance_profile": None}}

    created = await admin("POST", DMS, body)

    assert created.status_code == 201
    assert created.json()["settings"]["issuance_profile"] is None


def _with(path: str, value: object) -> dict[str, Any]:
    body = original()
    here: Any = body
    *above, last = path.split(".")
    for part in above:
        here = here.setdefault(part, {})
    here[last] = value
    return body


EST = "settings.enrollment_settings.est_rfc7030_settings"


@pytest.mark.parametrize(
    ("path", "value", "code", "field"),
    [
        ("id", "", "missing_field", "id"),
        ("name", "", "missing_field", "name"),
        ("id", "a/b", "invalid_value", "id"),
        ("id", "..", "invalid_value", "id"),
        ("id", "x" * 300, "invalid_value", "id"),
        ("surprise", 1, "unknown_field", "surprise"),
        ("settings.enrollment_settings.protocol", "CMP", "invalid_value", None),
        ("settings.enrollment_settings.registration_mode", "AUTO", "invalid_value", None),
        ("settings.enrollment_settings.enrollment_ca", "nowhere", "ca_not_found", None),
        ("settings.enrollment_settings.enrollment_ca", "bootstrap-ca", "bootstrap_ca", None),
        ("settings.enrollment_settings.enable_replaceable_enrollment", "yes", "wrong_type", None),
        (f"{EST}.auth_mode", "PASSWORD", "invalid_value", f"{EST}.auth_mode"),
        (f"{EST}.auth_mode", "NO_AUTH", "no_auth_in_production", f"{EST}.auth_mode"),
        (f"{EST}.client_certificate_settings.validation_cas", ["no"], "ca_not_found", None),
        (
            f"{EST}.authentication",
            {"type": "client_certificate", "client_certificate": {"validation_cas": ["other-ca"]}},
            "conflicting_fields",
            f"{EST}.authentication.client_certificate",
        ),
        (f"{EST}.authentication", {"type": "no_auth"}, "conflicting_fields", None),
        (f"{EST}.authentication", {"type": "magic"}, "invalid_value", None),
        ("settings.reenrollment_settings.additional_validation_cas", ["no"], "ca_not_found", None),
        ("settings.reenrollment_settings.reenrollment_delta", "soon", "invalid_duration", None),
        ("settings.reenrollment_settings.reenrollment_delta", "-1h", "out_of_range", None),
        ("settings.reenrollment_settings.reenrollment_delta", "200y", "out_of_range", None),
        ("settings.reenrollment_settings.reenrollment_delta", 5, "invalid_duration", None),
        ("settings.renewal_policy", {"renewal_window_days": 10**9}, "invalid_value", None),
        ("settings.renewal_policy", {"renewal_window_days": 7}, "conflicting_fields", None),
        ("settings.ca_distribution_settings.managed_cas", ["no"], "ca_not_found", None),
        ("settings.issuance_profile_id", "nowhere", "profile_not_found", None),
        ("settings.issuance_profile_id", "ca-profile", "profile_signs_cas", None),
        ("settings.issuance_profile_id", "other-ca-profile", "profile_of_other_ca", None),
        (
            "settings.issuance_profile",
            {"sign_as_ca": True, "validity": {"type": "Duration", "duration": "1d"}},
            "profile_signs_cas",
            "settings.issuance_profile",
        ),
        (
            "settings.issuance_profile_id",
            "responder-profile",
            "profile_grants_authority",
            "settings.issuance_profile_id",
        ),
        (
            "settings.issuance_profile",
            {
                "extended_key_usages": ["ClientAuth", "any"],
                "validity": {"type": "Duration", "duration": "1d"},
            },
            "profile_grants_authority",
            "settings.issuance_profile",
        ),
        (
            "settings.issuance_profile",
            {"validity": {"type": "Duration", "duration": "1d"}, "key_usage": ["Sing"]},
            "unknown_key_usage",
            None,
        ),
        ("settings.issuance_profile", {"name": "no validity"}, "invalid_value", None),
    ],
)
async def test_what_a_dms_may_not_say_is_refused_and_not_stored(
    world: World, admin: Client, path: str, value: object, code: str, field: str | None
) -> None:
    answer = await admin("POST", DMS, _with(path, value))

    assert told(answer) == (400, code)
    if field is not None:
        assert answer.json()["field"] == field
    assert (await admin("GET", f"{DMS}?page_size=5")).json() == {"next": "", "list": []}
    assert await world.events() == []


async def test_no_generation_of_a_bootstrap_ca_issues_to_devices(
    world: World, admin: Client
) -> None:
    world.authorities.rekey_ca("bootstrap-ca")
    path = "settings.enrollment_settings.enrollment_ca"

    answer = await admin("POST", DMS, _with(path, "bootstrap-ca.2"))

    assert told(answer) == (400, "bootstrap_ca")


async def test_missing_names_are_refused_in_the_words_that_clients_know(admin: Client) -> None:
    assert (await admin("POST", DMS, {"name": "x"})).json()["err"] == "struct validation error"
    assert (await admin("POST", DMS, {"id": "x"})).json()["err"] == "struct validation error"


async def test_modes_to_come_are_stored_without_secrets(world: World, admin: Client) -> None:
    webhook = {
        "name": "approve",
        "url": "https://approve.example/hook",
        "config": {"auth_mode": "API_KEY", "api_key_auth": {"header": "X-Key"}},
    }
    body = _with(EST, {"auth_mode": "EXTERNAL_WEBHOOK", "external_webhook_settings": webhook})

    created = await admin("POST", DMS, body)

    assert created.status_code == 201
    est = created.json()["settings"]["enrollment_settings"]["est_rfc7030_settings"]
    assert est["auth_mode"] == "EXTERNAL_WEBHOOK"
    assert est["external_webhook_settings"]["config"]["auth_mode"] == "apikey"
    assert est["external_webhook_settings"]["config"]["apikey"] == {"key": "", "header": "X-Key"}


@pytest.mark.parametrize(
    "config",
    [
        {"apikey": {"key": "hunter2"}},
        {"api_key_auth": {"key": "hunter2"}},
        {"oidc": {"client_secret": "hunter2"}},
        {"mtls": {"key": "hunter2"}},
    ],
)
async def test_a_secret_that_cannot_be_kept_safe_is_not_kept(
    world: World, admin: Client, config: dict[str, Any]
) -> None:
    webhook = {"url": "https://approve.example/hook", "config": config}
    body = _with(EST, {"auth_mode": "EXTERNAL_WEBHOOK", "external_webhook_settings": webhook})

    answer = await admin("POST", DMS, body)

    assert told(answer) == (400, "secret_storage_not_available")
    assert "hunter2" not in answer.text
    assert await world.store.find("fleet") is None


async def test_a_password_in_a_webhooks_url_is_a_secret_too(admin: Client) -> None:
    webhook = {"url": "https://me:hunter2@approve.example/hook"}
    body = _with(EST, {"external_webhook_settings": webhook})

    answer = await admin("POST", DMS, body)

    assert told(answer) == (400, "invalid_value")
    assert "hunter2" not in answer.text


async def test_no_auth_is_stored_in_development_and_lets_nobody_in(world: World) -> None:
    world.service = world.restarted(production=False)
    admin = Client(whole_app(world), ADMIN_PEER)

    created = await admin("POST", DMS, _with(f"{EST}.auth_mode", "NO_AUTH"))
    answer = await admin("POST", "/.well-known/est/fleet/simpleenroll", content=b"MII=")

    assert created.status_code == 201
    assert told(answer) == (503, "not_available")


# --- life of a DMS --------------------------------------------------------------------------


async def test_an_id_is_taken_once(admin: Client) -> None:
    await admin("POST", DMS, original())

    again = await admin("POST", DMS, original(name="Other"))

    assert told(again) == (409, "already_exists")
    assert again.json()["err"] == "DMS already exists"
    assert (await admin("GET", f"{DMS}/fleet")).json()["name"] == "Fleet"


async def test_an_unknown_dms_is_not_found(admin: Client) -> None:
    body = original()
    answers = [
        await admin("GET", f"{DMS}/nowhere"),
        await admin("PUT", f"{DMS}/nowhere", body | {"id": "nowhere"}),
        await admin("PATCH", f"{DMS}/nowhere/metadata", {"patches": []}),
        await admin("DELETE", f"{DMS}/nowhere"),
    ]

    for answer in answers:
        assert told(answer) == (404, "dms_not_found")
        assert answer.json()["err"] == "DMS not found"


async def test_the_path_names_the_dms_to_replace(admin: Client) -> None:
    await admin("POST", DMS, original())

    other = await admin("PUT", f"{DMS}/fleet", original(id="other"))
    same = await admin("PUT", f"{DMS}/fleet", original(id="", name="Renamed"))

    assert told(other) == (400, "id_mismatch")
    assert (same.json()["id"], same.json()["name"]) == ("fleet", "Renamed")


async def test_a_change_shows_at_the_next_enrolment(world: World, admin: Client) -> None:
    await admin("POST", DMS, original())
    peer = world.bootstrap()
    await world.enroll(peer, "dev-1")

    barred = _with(f"{EST}.client_certificate_settings.validation_cas", ["other-ca"])
    await admin("PUT", f"{DMS}/fleet", barred)

    with pytest.raises(Exception, match="trusted CA"):
        await world.enroll(peer, "dev-2")
    await admin("DELETE", f"{DMS}/fleet")
    with pytest.raises(Exception, match="DMS not found"):
        await world.enroll(peer, "dev-3")


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_metadata_are_patched_all_or_nothing(admin: Client, method: str) -> None:
    await admin("POST", DMS, original())
    good = {"op": "add", "path": "/line", "value": 3}
    bad = {"op": "replace", "path": "/missing", "value": 1}

    patched = await admin(method, f"{DMS}/fleet/metadata", {"patches": [good]})
    failed = await admin(method, f"{DMS}/fleet/metadata", {"Patches": [good, bad]})
    missing = await admin(method, f"{DMS}/fleet/metadata", {})

    assert patched.json()["metadata"] == {"site": "north", "line": 3}
    assert told(failed) == (400, "patch_failed")
    assert missing.json()["err"] == "struct validation error"
    assert (await admin("GET", f"{DMS}/fleet")).json() == patched.json()


async def test_a_version_is_checked_only_when_asked_for(admin: Client) -> None:
    created = await admin("POST", DMS, original())
    tag = created.headers["etag"]
    await admin("PUT", f"{DMS}/fleet", original(name="Second"))

    stale = await admin("PUT", f"{DMS}/fleet", original(name="X"), headers={"if-match": tag})
    careless = await admin("PUT", f"{DMS}/fleet", original(name="Third"))
    odd = await admin("PUT", f"{DMS}/fleet", original(), headers={"if-match": '"?"'})

    assert told(stale) == (409, "version_mismatch")
    assert careless.json()["name"] == "Third"
    assert odd.status_code == 400


async def test_deletion_leaves_an_event_and_nothing_else(world: World, admin: Client) -> None:
    await admin("POST", DMS, original())

    deleted = await admin("DELETE", f"{DMS}/fleet")

    assert (deleted.status_code, deleted.content) == (204, b"")
    assert (await admin("GET", f"{DMS}/fleet")).status_code == 404
    assert [(kind, subject) for kind, subject, _ in await world.events()] == [
        ("dms.create", "dms/fleet"),
        ("dms.delete", "dms/fleet"),
    ]


async def test_each_change_tells_of_before_and_after(world: World, admin: Client) -> None:
    await admin("POST", DMS, original())
    await admin("PUT", f"{DMS}/fleet", original(name="Renamed"))
    patch = {"op": "remove", "path": "/site"}
    await admin("PATCH", f"{DMS}/fleet/metadata", {"patches": [patch]})

    created, updated, patched = (body for _, _, body in await world.events())

    assert created["data"]["settings"]["issuance_profile_id"] == "device-profile"
    assert updated["data"]["previous"]["name"] == "Fleet"
    assert updated["data"]["updated"]["name"] == "Renamed"
    assert patched["type"] == "dms.metadata.update"
    assert patched["data"]["updated"]["metadata"] == {}
    assert [e["subjectversion"] for e in (created, updated, patched)] == [1, 2, 3]


async def test_lists_are_paged_filtered_and_counted(admin: Client) -> None:
    for number in range(3):
        await admin("POST", DMS, original(id=f"dms-{number}", name=f"Line {number}"))

    page = (await admin("GET", f"{DMS}?page_size=2&sort_by=name&sort_mode=desc")).json()
    rest = (await admin("GET", f"{DMS}?bookmark={page['next']}")).json()
    named = (await admin("GET", f"{DMS}?filter=name[ct]1")).json()
    stats = await admin("GET", "/api/dmsmanager/v1/stats")
    some = await admin("GET", "/api/dmsmanager/v1/stats?filter=id[eq]dms-0")

    assert [dms["id"] for dms in page["list"]] == ["dms-2", "dms-1"]
    assert [dms["id"] for dms in rest["list"]] == ["dms-0"]
    assert rest["next"] == ""
    assert [dms["id"] for dms in named["list"]] == ["dms-1"]
    assert (stats.json(), some.json()) == ({"total": 3}, {"total": 1})
    assert (await admin("GET", f"{DMS}?filter=colour[eq]red")).status_code == 400


@pytest.mark.parametrize("peer", [Peer(), Peer((b"device",)), Peer((b"est",))])
async def test_the_api_is_for_admins(world: World, peer: Peer) -> None:
    client = Client(whole_app(world), peer)

    for method, path in [("GET", DMS), ("POST", DMS), ("DELETE", f"{DMS}/fleet")]:
        assert (await client(method, path, {})).status_code in (401, 403)
