"""An installation of the original, as its six databases and its directory of keys hold it.

The schema is written from `docs`' facts of version 3.8: tables, columns and their types.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from lamassu.kernel.x509.facts import CertificateFacts, certificate_facts
from lamassu.kernel.x509.keys import key_id
from lamassu.kernel.x509.pem import pem_of
from tests.support.est import Credential
from tests.support.pki import CLIENT_AUTH, Made, ec_key, make, spki_of
from tests.support.postgres import PostgresCluster

DATABASES = ("ca", "kms", "va", "dmsmanager", "devicemanager", "alerts")
NOW = datetime.now(UTC).replace(microsecond=0)

# our side of its filesystem engine, beside an engine of our own
ENGINES = """crypto_engines:
  default_id: software
  filesystem:
    - {{id: filesystem-1, storage_directory: {keys}}}
  software:
    - id: software
      storage_directory: keys
      passphrase_file: secrets/keystore.pass
"""

_SCHEMAS = {
    "ca": """
        CREATE TABLE certificates (
            serial_number text PRIMARY KEY, metadata jsonb, issuer_meta_serial_number text,
            issuer_meta_id text, issuer_meta_level bigint, status text, certificate text,
            key_meta_type varchar(255), key_meta_bits bigint, key_meta_strength text,
            subject_common_name text, subject_organization text, subject_organization_unit text,
            subject_country text, subject_state text, subject_locality text,
            valid_from timestamptz, valid_to timestamptz, revocation_timestamp timestamptz,
            revocation_reason varchar(255), type text, engine_id text, subject_key_id varchar,
            is_ca boolean, authority_key_id varchar, issuer_common_name varchar,
            issuer_organization varchar, issuer_organization_unit varchar,
            issuer_country varchar, issuer_state varchar, issuer_locality varchar,
            extensions_key_usage jsonb NOT NULL DEFAULT '[]',
            extensions_extended_key_usage jsonb NOT NULL DEFAULT '[]'
        );
        CREATE TABLE ca_certificates (
            serial_number text NOT NULL REFERENCES certificates ON DELETE CASCADE,
            metadata jsonb, id text NOT NULL, creation_ts timestamptz, level bigint,
            profile_id varchar, PRIMARY KEY (serial_number, id)
        );
        CREATE TABLE issuance_profiles (
            id text PRIMARY KEY, name text NOT NULL, description text,
            validity_type text NOT NULL, validity_time timestamptz, validity_duration text,
            sign_as_ca boolean NOT NULL, honor_key_usage boolean NOT NULL,
            key_usage text NOT NULL, honor_extended_key_usages boolean NOT NULL,
            extended_key_usages text NOT NULL, honor_subject boolean NOT NULL,
            subject_common_name text NOT NULL DEFAULT '', subject_organization text DEFAULT '',
            subject_organization_unit text DEFAULT '', subject_country text DEFAULT '',
            subject_state text DEFAULT '', subject_locality text DEFAULT '',
            honor_extensions boolean NOT NULL, crypto_enforcement_enabled boolean NOT NULL,
            crypto_enforcement_allow_rsa_keys boolean NOT NULL,
            crypto_enforcement_allowed_rsa_key_sizes text,
            crypto_enforcement_allow_ecdsa_keys boolean NOT NULL,
            crypto_enforcement_allowed_ecdsa_key_sizes text
        );
    """,
    "kms": """
        CREATE TABLE kms_keys (
            metadata jsonb, name text NOT NULL, algorithm text NOT NULL, size bigint NOT NULL,
            public_key text NOT NULL, creation_ts timestamptz, engine_id text,
            key_id text PRIMARY KEY, aliases jsonb DEFAULT '[]',
            has_private_key boolean DEFAULT true, tags jsonb DEFAULT '[]'
        );
    """,
    "va": """
        CREATE TABLE va_role (
            ca_ski text PRIMARY KEY, crl_refresh_interval text, crl_validity text,
            crl_subject_key_id_signer text, crl_regenerate_on_revoke boolean,
            latest_crl_version numeric, latest_crl_valid_from timestamptz,
            latest_crl_valid_until timestamptz
        );
    """,
    "dmsmanager": """
        CREATE TABLE dms (
            id text PRIMARY KEY, name text, metadata jsonb, creation_date timestamptz,
            settings jsonb
        );
    """,
    "devicemanager": """
        CREATE TABLE devices (
            id text PRIMARY KEY, tags text, status text, icon text, icon_color text,
            creation_timestamp timestamptz, metadata jsonb, dms_owner text,
            identity_slot jsonb, extra_slots text, events text
        );
        CREATE TABLE device_groups (
            id uuid PRIMARY KEY, name text NOT NULL UNIQUE, description text, parent_id uuid,
            criteria jsonb NOT NULL DEFAULT '[]', created_at timestamptz,
            updated_at timestamptz
        );
    """,
    "alerts": """
        CREATE TABLE events (
            event_type text PRIMARY KEY, event text, last_seen timestamptz, total_seen bigint
        );
        CREATE TABLE subscriptions (
            id text PRIMARY KEY, user_id text, event_type text, subscription_date timestamptz,
            conditions text, channel text
        );
    """,
}


@dataclass
class Held:
    """A certificate of the original's: its row's status, and the key that its holder has."""

    made: Made
    status: str = "ACTIVE"
    reason: str = "Unspecified"

    @property
    def facts(self) -> CertificateFacts:
        return certificate_facts(self.made.der)

    @property
    def serial_number(self) -> str:
        return self.facts.serial_number

    def credential(self, folder: Path, label: str) -> Credential:
        certificate = x509.load_der_x509_certificate(self.made.der)
        return Credential.store(folder, label, certificate, self.made.key)


@dataclass
class Original:
    """Fill it while it stands; `keys` is the directory of its `filesystem` engine."""

    cluster: PostgresCluster
    keys: Path
    cas: dict[str, Held] = field(default_factory=dict)

    @property
    def server(self) -> str:
        return self.cluster.url("postgres")

    async def create(self) -> None:
        """Empty databases under the original's fixed names."""
        self.drop()
        self.keys.mkdir(mode=0o700)
        for name in DATABASES:
            self.cluster.sql(f'CREATE DATABASE "{name}"')
            await self.run(name, _SCHEMAS[name])

    def drop(self) -> None:
        for name in DATABASES:
            self.cluster.sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    async def run(self, database: str, statement: str, *values: object) -> None:
        connection = await asyncpg.connect(self.cluster.url(database))
        try:
            await connection.execute(statement, *values)
        finally:
            await connection.close()

    async def insert(self, database: str, table: str, *rows: Mapping[str, object]) -> None:
        connection = await asyncpg.connect(self.cluster.url(database))
        try:
            names = list(rows[0])
            places = ", ".join(f"${number}" for number, _ in enumerate(names, start=1))
            await connection.executemany(
                f"INSERT INTO {table} ({', '.join(names)}) VALUES ({places})",
                [[row[name] for name in names] for row in rows],
            )
        finally:
            await connection.close()

    async def add_profile(self, profile_id: str, duration: str = "365d", **changed: Any) -> None:
        row: dict[str, object] = {
            "id": profile_id,
            "name": "Devices",
            "description": "",
            "validity_type": "Duration",
            "validity_time": datetime(1, 1, 1, tzinfo=UTC),
            "validity_duration": duration,
            "sign_as_ca": False,
            "honor_key_usage": False,
            "key_usage": '["DigitalSignature"]',
            "honor_extended_key_usages": False,
            "extended_key_usages": '["ClientAuth"]',
            "honor_subject": True,
            "honor_extensions": True,
            "crypto_enforcement_enabled": False,
            "crypto_enforcement_allow_rsa_keys": False,
            "crypto_enforcement_allowed_rsa_key_sizes": "null",
            "crypto_enforcement_allow_ecdsa_keys": False,
            "crypto_enforcement_allowed_ecdsa_key_sizes": "null",
        }
        await self.insert("ca", "issuance_profiles", row | changed)

    async def add_ca(
        self, ca_id: str, *, issuer: str = "", profile_id: str = "devices", crl_number: int = 1,
        key_file: bool = True, **status: str,
    ) -> Held:  # fmt: skip
        """A CA with its key in the engine's directory, its KMS row and its VA role."""
        made = make(
            f"The {ca_id}",
            issuer=self.cas[issuer].made if issuer else None,
            ca=True,
            not_before=NOW - timedelta(days=400),
            not_after=NOW + timedelta(days=3000),
        )
        held = Held(made, **status)
        self.cas[ca_id] = held
        facts = held.facts
        if key_file:
            pem = made.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            (self.keys / made.subject_key_id).write_bytes(pem)
        await self.insert("ca", "certificates", self.row(held, engine_id="filesystem-1"))
        await self.insert("ca", "ca_certificates", {
            "serial_number": facts.serial_number, "id": ca_id, "level": 1 if issuer else 0,
            "metadata": json.dumps({"team": "plant"}), "creation_ts": NOW - timedelta(days=400),
            "profile_id": profile_id,
        })  # fmt: skip
        await self.insert("kms", "kms_keys", {
            "key_id": made.subject_key_id, "engine_id": "filesystem-1", "name": ca_id,
            "algorithm": "ECDSA", "size": 256, "public_key": "", "creation_ts": NOW,
        })  # fmt: skip
        await self.insert("va", "va_role", {
            "ca_ski": facts.ski, "crl_refresh_interval": "6d23h", "crl_validity": "1w",
            "crl_subject_key_id_signer": facts.ski, "crl_regenerate_on_revoke": True,
            "latest_crl_version": crl_number, "latest_crl_valid_from": NOW,
            "latest_crl_valid_until": NOW + timedelta(days=7),
        })  # fmt: skip
        return held

    async def add_key(self, name: str, *, key_file: bool = True) -> str:
        """A key that is no CA's; its id."""
        key = ec_key()
        identifier = key_id(spki_of(key))
        if key_file:
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            (self.keys / identifier).write_bytes(pem)
        await self.insert("kms", "kms_keys", {
            "key_id": identifier, "engine_id": "filesystem-1", "name": name, "tags": '["t"]',
            "algorithm": "ECDSA", "size": 256, "public_key": "", "creation_ts": NOW,
        })  # fmt: skip
        return identifier

    def issue(
        self, ca_id: str, device_id: str, *, key: ec.EllipticCurvePrivateKey | None = None,
        status: str = "ACTIVE", reason: str = "Unspecified",
    ) -> Held:  # fmt: skip
        """A device's certificate; `add_certificates` stores it."""
        made = make(
            device_id,
            issuer=self.cas[ca_id].made,
            key=key,
            extended=CLIENT_AUTH,
            not_before=NOW - timedelta(days=200),
            not_after=NOW + timedelta(days=20),
        )
        return Held(made, status, reason)

    async def add_certificates(self, *held: Held, dms: str = "plant") -> None:
        rows = [self.row(one, dms=dms) for one in held]
        await self.insert("ca", "certificates", *rows)

    def row(self, held: Held, *, engine_id: str = "", dms: str = "") -> dict[str, object]:
        """Of `certificates`, as the original writes it."""
        facts = held.facts
        metadata: dict[str, object] = {}
        if dms:
            metadata["lamassu.io/ra/attached-to"] = {
                "authorized_by": {"ra_id": dms},
                "device_id": facts.subject.common_name,
            }
        revoked = held.status == "REVOKED"
        return {
            "serial_number": facts.serial_number,
            "metadata": json.dumps(metadata),
            "status": held.status,
            "certificate": base64.b64encode(pem_of(held.made.der)).decode(),
            "subject_common_name": facts.subject.common_name,
            "valid_from": facts.not_before,
            "valid_to": facts.not_after,
            "revocation_timestamp": (
                NOW - timedelta(days=3) if revoked else datetime(1, 1, 1, tzinfo=UTC)
            ),
            "revocation_reason": held.reason,
            "type": "MANAGED" if engine_id else "IMPORTED_WITHOUT_KEY",
            "engine_id": engine_id,
            "subject_key_id": facts.ski,
            "authority_key_id": facts.aki,
            "is_ca": facts.is_ca,
        }

    async def add_dms(self, dms_id: str, *, enrollment_ca: str, **changed: Any) -> None:
        """With nulls where the original writes them."""
        est = {
            "auth_mode": "CLIENT_CERTIFICATE",
            "client_certificate_settings": {
                "validation_cas": [enrollment_ca],
                "chain_level_validation": -1,
                "allow_expired": False,
            },
            "external_webhook_settings": {
                "name": "", "url": "", "method": "",
                "config": {
                    "validate_server_cert": False, "log_level": "", "auth_mode": "",
                    "oidc": {"client_id": "", "client_secret": "", "well_known": ""},
                    "apikey": {"key": "", "header": ""}, "mtls": {"cert": "", "key": ""},
                },
            },
        }  # fmt: skip
        settings: dict[str, object] = {
            "server_keygen_settings": {"enabled": False, "key": {"type": "0", "bits": 0}},
            "enrollment_settings": {
                "protocol": "EST_RFC7030",
                "est_rfc7030_settings": est,
                "device_provisioning_profile": {
                    "icon": "Cg/CgSmartphoneChip", "icon_color": "#25ee32-#222222",
                    "metadata": {}, "tags": ["iot"],
                },
                "enrollment_ca": enrollment_ca,
                "enable_replaceable_enrollment": False,
                "registration_mode": "JITP",
                "verify_csr_signature": True,
            },
            "reenrollment_settings": {
                "est_rfc7030_settings": est,
                "additional_validation_cas": None,
                "revoke_on_reenrollment": True,
                "reenrollment_delta": "30d",
                "enable_expired_renewal": False,
                "preventive_delta": "31d",
                "critical_delta": "7d",
            },
            "ca_distribution_settings": {
                "include_system_ca": False, "include_enrollment_ca": True, "managed_cas": None,
            },
            "issuance_profile_id": "",
            "issuance_profile": None,
        }  # fmt: skip
        await self.insert("dmsmanager", "dms", {
            "id": dms_id, "name": dms_id, "metadata": "{}", "creation_date": NOW,
            "settings": json.dumps(settings | changed),
        })  # fmt: skip

    async def add_device(
        self, device_id: str, versions: Sequence[Held] = (), *, dms: str = "plant",
        status: str = "ACTIVE",
    ) -> None:  # fmt: skip
        await self.insert(
            "devicemanager", "devices", self.device(device_id, versions, dms=dms, status=status)
        )

    def device(
        self, device_id: str, versions: Sequence[Held], *, dms: str, status: str
    ) -> dict[str, object]:
        """A row of `devices`: the last of `versions` is the active one."""
        born = NOW - timedelta(days=100)
        slot = None
        if versions:
            events = {}
            for number, _ in enumerate(versions):
                at = (born + timedelta(days=number)).strftime("%Y-%m-%dT%H:%M:%S.123456789Z")
                events[at] = {
                    "type": "RENEWED" if number else "PROVISIONED",
                    "description": f"New Active Version set to {number}" if number else "",
                }
            slot = {
                "status": "REVOKED" if versions[-1].status == "REVOKED" else "ACTIVE",
                "active_version": len(versions) - 1,
                "type": "x509",
                "versions": {str(n): one.serial_number for n, one in enumerate(versions)},
                "expiration_date": versions[-1].facts.not_after.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "events": events,
            }
        told = {born.strftime("%Y-%m-%dT%H:%M:%SZ"): {"type": "CREATED", "description": ""}}
        if status == "DECOMMISSIONED":
            told[NOW.strftime("%Y-%m-%dT%H:%M:%SZ")] = {"type": "DECOMMISSIONED", "description": ""}
        return {
            "id": device_id,
            "tags": '["iot"]',
            "status": status,
            "icon": "Cg/CgSmartphoneChip",
            "icon_color": "#25ee32-#222222",
            "creation_timestamp": born,
            "metadata": json.dumps({"room": "7"}),
            "dms_owner": dms,
            "identity_slot": None if slot is None else json.dumps(slot),
            "extra_slots": "{}",
            "events": json.dumps(told),
        }

    async def add_event(self, kind: str, count: int) -> None:
        await self.insert("alerts", "events", {
            "event_type": kind,
            "event": json.dumps({"specversion": "1.0", "type": kind, "id": "1", "source": "s"}),
            "last_seen": NOW, "total_seen": count,
        })  # fmt: skip
