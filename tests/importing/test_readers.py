"""Files and rows of other systems, whole and damaged: a reader skips, and never stumbles."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from lamassu.kernel.errors import Malformed, NotFound, RuleViolation
from lamassu.kernel.x509.pem import pem_of
from lamassu.services.ca.contract import IssuanceProfile, RevocationReason
from lamassu.services.ca.rules.adoption import FoundCertificate, FoundStatus
from lamassu.services.devices.contract import BindMode, SlotStatus
from lamassu.services.devices.usecases.adopt_devices import FoundDevice
from lamassu.wiring.importing import (
    EjbcaExport,
    EjbcaFiles,
    OpensslDirectory,
    OpensslFiles,
    SourceDatabase,
    StepCa,
    StepFiles,
)
from lamassu.wiring.importing import ejbca as ejbca_reader
from lamassu.wiring.importing.files import private_key_in
from lamassu.wiring.importing.material import Damaged, FoundDms, SourceAuthority
from lamassu.wiring.importing.openssl import parse_line
from lamassu.wiring.importing.original_rows import (
    authority_of,
    certificate_of,
    device_of,
    dms_of,
    event_of,
    profile_of,
)
from lamassu.wiring.importing.step_ca import revocation_of
from tests.support.pki import Made, make

CA = make("Old CA", ca=True)
LEAF = make("pump-1", issuer=CA, serial_number=0x1000)
LINE = b"R\t261224012726Z\t260102030405Z,keyCompromise\t1000\tunknown\t/CN=pump-1\n"


async def pages(source: Any) -> list[Any]:
    return [one async for page in source.certificates() for one in page]


# --- openssl --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"V\t261224012726Z\t\t0A\tunknown\t/CN=x", ("0a", False, None)),
        (b"E\t211224012726Z\t\t00FF\tunknown\t/CN=x", ("ff", False, None)),
        (b"R\t261224012726Z\t260102030405Z\t1000\tunknown\t/CN=x", ("1000", True, "Unspecified")),
        (LINE, ("1000", True, "KeyCompromise")),
        (
            b"R\t261224012726Z\t20260102030405Z,CAkeyTime,20250102030405Z\t1000\tunknown\t/CN=x",
            ("1000", True, "CACompromise"),
        ),
        (
            b"R\t261224012726Z\t260102030405Z,holdInstruction,holdInstructionNone\t10\tu\t/CN=x",
            ("10", True, "CertificateHold"),
        ),
        (b"R\t261224012726Z\t260102030405Z,whim\t10\tu\t/CN=x", ("10", True, "Unspecified")),
    ],
)
def test_a_line_of_an_index_says_serial_number_and_status(
    line: bytes, expected: tuple[str, bool, str | None]
) -> None:
    serial_number, status = parse_line(line)

    reason = status.reason.value if status.revoked else None
    assert (serial_number, status.revoked, reason) == expected
    if status.revoked:
        assert status.at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@given(st.binary(max_size=200))
def test_no_line_of_an_index_makes_the_reader_stumble(line: bytes) -> None:
    with suppress(Malformed):
        parse_line(line)


@given(st.integers(0, len(LINE) - 1), st.binary(max_size=3))
def test_a_damaged_line_is_read_or_refused(at: int, instead: bytes) -> None:
    with suppress(Malformed):
        parse_line(LINE[:at] + instead + LINE[at + 1 :])


def openssl_ca(folder: Path, index: bytes) -> Path:
    directory = folder / "ca"
    (directory / "newcerts").mkdir(parents=True)
    (directory / "index.txt").write_bytes(index)
    (directory / "cacert.pem").write_bytes(pem_of(CA.der))
    return directory


async def test_a_revoked_line_without_its_certificate_is_a_lost_revocation(tmp_path: Path) -> None:
    directory = openssl_ca(tmp_path, LINE + LINE.replace(b"1000", b"2000") + b"rubbish\n")
    (directory / "newcerts" / "1000.pem").write_bytes(b"Certificate:\n text\n" + pem_of(LEAF.der))
    (directory / "newcerts" / "2000.pem").write_bytes(pem_of(LEAF.der))

    found = await pages(OpensslDirectory(OpensslFiles(directory)))

    good, other, rubbish = found
    assert isinstance(good, FoundCertificate)
    assert good.der == LEAF.der
    assert (other.code, other.revoked) == ("row_differs", True)
    assert (rubbish.code, rubbish.revoked) == ("index_malformed", False)
    (directory / "newcerts" / "1000.pem").unlink()
    (lost, *_) = await pages(OpensslDirectory(OpensslFiles(directory)))
    assert (lost.code, lost.revoked) == ("certificate_missing", True)


async def test_what_is_missing_is_said_by_name(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"index\.txt"):
        await OpensslDirectory(OpensslFiles(tmp_path)).authorities()
    directory = openssl_ca(tmp_path, b"")
    (directory / "cacert.pem").unlink()
    with pytest.raises(NotFound, match="--certificate"):
        await OpensslDirectory(OpensslFiles(directory)).authorities()
    (directory / "cacert.pem").write_bytes(pem_of(CA.der))
    (directory / "crlnumber").write_bytes(b"many\n")
    with pytest.raises(Malformed, match="crlnumber"):
        await OpensslDirectory(OpensslFiles(directory)).authorities()


def test_an_encrypted_key_wants_its_passphrase_and_never_shows(tmp_path: Path) -> None:
    path = tmp_path / "ca.key"
    path.write_bytes(
        CA.key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"the right one")
        )
    )

    with pytest.raises(RuleViolation, match="--passphrase-file"):
        private_key_in(path, None)
    with pytest.raises(RuleViolation, match="does not open") as refused:
        private_key_in(path, b"a wrong one")
    assert "wrong one" not in refused.value.text
    expected = CA.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert private_key_in(path, b"the right one") == expected


# --- step-ca --------------------------------------------------------------------------------


@given(st.one_of(st.binary(max_size=60), st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["RevokedAt", "ReasonCode", "x"]), inner, max_size=3
    ),
    max_leaves=6,
).map(lambda value: json.dumps(value).encode())))  # fmt: skip
def test_whatever_a_revocation_says_it_is_one(value: bytes) -> None:
    assert revocation_of(value).revoked


async def test_a_step_ca_in_badger_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    settings = {"root": "certs/r", "crt": "certs/c", "key": "k", "db": {"type": "badgerv2"}}
    (tmp_path / "config" / "ca.json").write_text(json.dumps(settings))

    with pytest.raises(RuleViolation, match="--cas-only") as refused:
        await StepCa(StepFiles(tmp_path)).authorities()
    assert refused.value.code == "certificates_elsewhere"


async def test_exported_tables_are_joined_and_what_is_left_over_is_lost(tmp_path: Path) -> None:
    rows = {
        "x509_certs": [(b"4096", LEAF.der), (b"17", LEAF.der), (b"x", b"rubbish")],
        "revoked_x509_certs": [(b"4096", b'{"ReasonCode": 1}'), (b"99", b"{}")],
    }
    for table, lines in rows.items():
        text = "".join(f"{key.hex()}\t{value.hex()}\n" for key, value in lines)
        (tmp_path / f"{table}.tsv").write_text(text)

    found = await pages(StepCa(StepFiles(tmp_path, tables=tmp_path)))

    assert [(type(one).__name__, getattr(one, "code", "")) for one in found] == [
        ("FoundCertificate", ""),
        ("Damaged", "row_differs"),
        ("Damaged", "certificate_malformed"),
        ("Damaged", "certificate_missing"),
    ]
    assert found[0].status.revoked
    assert found[3].revoked


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("postgresql://step:secret@localhost/stepca", "password_in_url"),
        ("mysql://step@localhost/stepca", "bad_url"),
        ("stepca", "bad_url"),
    ],
)
async def test_a_password_does_not_stand_in_a_url(url: str, code: str) -> None:
    with pytest.raises(RuleViolation) as refused:
        async with SourceDatabase(url).connected():
            pass
    assert refused.value.code == code
    assert "secret" not in refused.value.text


# --- EJBCA ----------------------------------------------------------------------------------


def ejbca_row(**changed: str) -> dict[str, str]:
    row = {
        "base64cert": base64.encodebytes(LEAF.der).decode(),
        "status": "20",
        "revocationreason": "-1",
        "revocationdate": "-1",
        "serialnumber": "4096",
    }
    return row | changed


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({}, FoundStatus()),
        ({"status": "21"}, FoundStatus()),
        ({"status": "60"}, FoundStatus()),
        ({"status": "10"}, FoundStatus(inactive=True)),
        (
            {"status": "40", "revocationreason": "6", "revocationdate": "1767323045000"},
            FoundStatus(
                revoked=True,
                at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
                reason=RevocationReason.CERTIFICATE_HOLD,
            ),
        ),
        ({"status": "60", "revocationreason": "1"}, FoundStatus(
            revoked=True, reason=RevocationReason.KEY_COMPROMISE
        )),
        ({"status": "40", "revocationreason": "", "revocationdate": ""}, FoundStatus(revoked=True)),
    ],
)  # fmt: skip
def test_a_row_of_ejbca_says_its_status(changed: dict[str, str], status: FoundStatus) -> None:
    found = ejbca_reader._certificate("1", ejbca_row(**changed))

    assert isinstance(found, FoundCertificate)
    assert found.status == status


@given(
    st.sampled_from(sorted(ejbca_row())),
    st.one_of(st.text(max_size=30), st.integers().map(str)),
)
def test_a_damaged_row_of_ejbca_is_read_or_skipped(column: str, value: str) -> None:
    found = ejbca_reader._certificate("1", ejbca_row(status="40") | {column: value})

    assert isinstance(found, FoundCertificate | Damaged)


async def test_a_table_without_its_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "CertificateData.csv"
    path.write_text("fingerprint,status\nx,20\n")

    with pytest.raises(Malformed, match="base64cert"):
        await pages(EjbcaExport(EjbcaFiles((), certificates=path)))


# --- the original ---------------------------------------------------------------------------


def certificate_row(made: Made = LEAF, **changed: Any) -> dict[str, Any]:
    row = {
        "serial_number": f"{made.certificate.serial_number:x}",
        "certificate": base64.b64encode(pem_of(made.der)).decode(),
        "status": "ACTIVE",
        "revocation_timestamp": datetime(1, 1, 1),
        "revocation_reason": "Unspecified",
        "metadata": "{}",
    }
    return row | changed


def device_row(**changed: Any) -> dict[str, Any]:
    slot = {
        "status": "EXPIRING_SOON",
        "active_version": 1,
        "type": "x509",
        "versions": {"0": "aa", "1": "bb"},
        "events": {
            "2025-01-01T00:00:00.123456789Z": {"type": "PROVISIONED", "description": ""},
            "2025-02-01T00:00:00+01:00": {
                "type": "RENEWED", "description": "New Active Version set to 1",
            },
            "2025-03-01T00:00:00Z": {"type": "STATUS-UPDATED", "description": "from A to B"},
        },
    }  # fmt: skip
    row = {
        "id": "pump-1", "tags": '["a"]', "status": "ACTIVE", "icon": "", "icon_color": None,
        "creation_timestamp": datetime(2025, 1, 1, tzinfo=UTC), "metadata": "",
        "dms_owner": "plant", "identity_slot": json.dumps(slot), "extra_slots": "{}",
        "events": '{"2025-01-01T00:00:00Z": {"type": "CREATED", "description": ""}}',
    }  # fmt: skip
    return row | changed


def test_a_devices_history_comes_along() -> None:
    found = device_of(device_row())

    assert isinstance(found, FoundDevice)
    slot = found.slot
    assert slot is not None
    assert (slot.status, slot.active_version) == (SlotStatus.EXPIRING_SOON, 1)
    first, second = slot.versions[0], slot.versions[1]
    assert (first.mode, second.mode) == (BindMode.PROVISIONED, BindMode.RENEWED)
    assert second.bound_at == datetime(2025, 1, 31, 23, 0, tzinfo=UTC)
    # what the certificates themselves tell is not told twice
    assert [line.type for line in found.timeline] == ["STATUS-UPDATED"]


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"certificate": None}, "certificate_missing"),
        ({"certificate": "%%%"}, "certificate_malformed"),
        ({"certificate": base64.b64encode(b"no PEM").decode()}, "pem_malformed"),
        ({"serial_number": "ff"}, "row_differs"),
        ({"metadata": "{"}, "row_malformed"),
        ({"metadata": "[1]"}, "row_malformed"),
    ],
)
def test_a_damaged_certificate_of_the_original_is_skipped_by_name(
    changed: dict[str, Any], code: str
) -> None:
    found = certificate_of(certificate_row(status="REVOKED", **changed))

    assert isinstance(found, Damaged)
    assert (found.code, found.revoked) == (code, True)


def test_an_unknown_status_is_not_said_to_be_good() -> None:
    found = certificate_of(certificate_row(status="WHATEVER"))

    assert isinstance(found, FoundCertificate)
    assert found.status.inactive


_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63),
    st.text(max_size=20),
    st.recursive(
        st.none() | st.integers() | st.text(max_size=6),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["versions", "active_version", "events", "status", "0", "enrollment_settings"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=8,
    ).map(json.dumps),
)


@given(st.sampled_from(sorted(device_row())), _VALUES)
def test_no_row_of_devices_makes_the_reader_stumble(column: str, value: object) -> None:
    row = device_row(**{column: value})
    if column == "creation_timestamp":
        row[column] = None
    assert isinstance(device_of(row), FoundDevice | Damaged)


@given(st.sampled_from(["certificate", "metadata", "status", "revocation_reason"]), _VALUES)
def test_no_row_of_certificates_makes_the_reader_stumble(column: str, value: object) -> None:
    found = certificate_of(certificate_row(**{column: value}))

    assert isinstance(found, FoundCertificate | Damaged)


@given(_VALUES, _VALUES)
def test_no_row_of_a_dms_makes_the_reader_stumble(settings: object, metadata: object) -> None:
    row = {
        "id": "plant", "name": None, "metadata": metadata, "creation_date": None,
        "settings": settings,
    }  # fmt: skip
    assert isinstance(dms_of(row), FoundDms | Damaged)


@given(st.sampled_from(["type", "metadata", "profile_id", "engine_id", "creation_ts"]), _VALUES)
def test_no_row_of_cas_makes_the_reader_stumble(column: str, value: object) -> None:
    row = certificate_row(CA) | {
        "id": "old", "type": "MANAGED", "engine_id": "e", "profile_id": "p", "creation_ts": None,
    }  # fmt: skip
    role = {
        "latest_crl_version": value if column == "profile_id" else 4,
        "crl_refresh_interval": value, "crl_validity": "1w", "crl_regenerate_on_revoke": True,
    }  # fmt: skip
    found = authority_of(row | {column: value}, {}, role)

    assert isinstance(found, SourceAuthority | Damaged)


@given(_VALUES, _VALUES)
def test_no_row_of_profiles_makes_the_reader_stumble(usage: object, duration: object) -> None:
    row: dict[str, object] = dict.fromkeys(
        (
            "name", "description", "validity_type", "validity_time", "sign_as_ca",
            "honor_key_usage", "honor_extended_key_usages", "extended_key_usages",
            "honor_subject", "subject_common_name", "subject_organization",
            "subject_organization_unit", "subject_country", "subject_state",
            "subject_locality", "honor_extensions", "crypto_enforcement_enabled",
            "crypto_enforcement_allow_rsa_keys", "crypto_enforcement_allowed_rsa_key_sizes",
            "crypto_enforcement_allow_ecdsa_keys", "crypto_enforcement_allowed_ecdsa_key_sizes",
        )
    )  # fmt: skip
    row |= {"id": "p", "key_usage": usage, "validity_duration": duration}
    assert isinstance(profile_of(row), IssuanceProfile | Damaged)


@given(_VALUES, _VALUES)
def test_no_row_of_events_makes_the_reader_stumble(event: object, seen: object) -> None:
    event_of({"event_type": "t", "event": event, "last_seen": seen, "total_seen": 1})
