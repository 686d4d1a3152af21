"""`lamassu-verify`: its verdicts, over a CA, certificates and filters made here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from typer.testing import CliRunner

from lamassu.cli.verify import app
from lamassu.kernel.revocation_filter import (
    FilterFacts,
    Standing,
    build_delta,
    build_full,
    parse_filter,
)
from lamassu.kernel.x509 import signing
from tests.support.pki import Made, make, spki_of

NOW = datetime.now(UTC).replace(microsecond=0)
MONTH = timedelta(days=30)


@dataclass
class Fleet:
    """A CA, three devices, and files about them."""

    folder: Path
    ca: Made
    devices: dict[str, Made]
    facts: FilterFacts

    def standings(self, *revoked: str) -> list[Standing]:
        return [
            Standing(
                made.certificate.serial_number,
                made.certificate.not_valid_before_utc,
                name in revoked,
            )
            for name, made in self.devices.items()
        ]

    def sign(self, name: str, tbs: bytes) -> str:
        path = self.folder / name
        path.write_bytes(tbs + signing.sign(self.ca.key, tbs))
        return str(path)

    def full(self, *revoked: str) -> str:
        return self.sign("full", build_full(self.facts, self.standings(*revoked), new_salt=_salt))

    def delta(self, full: str, *revoked: str) -> str:
        base = parse_filter(Path(full).read_bytes())
        facts = replace(self.facts, number=2, covered_until=NOW)
        return self.sign(
            "delta", build_delta(facts, base, self.standings(*revoked), new_salt=_salt)
        )

    def ask(self, device: str, *options: str) -> tuple[int, str]:
        issuer = str(self.folder / "ca.crt")
        done = CliRunner().invoke(
            app, [str(self.folder / f"{device}.crt"), "--issuer", issuer, *options]
        )
        return done.exit_code, done.output.strip()


def _salt() -> bytes:
    return bytes(8)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    ca = make("CA", ca=True, not_before=NOW - MONTH, not_after=NOW + MONTH)
    begun = {"old": MONTH, "older": MONTH, "young": timedelta(hours=1)}
    devices = {
        name: make(name, issuer=ca, not_before=NOW - age, not_after=NOW + MONTH)
        for name, age in begun.items()
    }
    for name, made in {"ca": ca, **devices}.items():
        (tmp_path / f"{name}.crt").write_bytes(made.certificate.public_bytes(Encoding.PEM))
    facts = FilterFacts(
        issuer=sha256(spki_of(ca.key)).digest(),
        number=1,
        this_update=NOW - timedelta(hours=2),
        next_update=NOW + timedelta(days=7),
        covered_until=NOW - timedelta(days=1),
    )
    return Fleet(tmp_path, ca, devices, facts)


def test_it_tells_good_revoked_and_not_covered_by_word_and_status(fleet: Fleet) -> None:
    full = fleet.full("older")
    assert fleet.ask("old", "--filter", full) == (0, "good")
    assert fleet.ask("older", "--filter", full) == (1, "revoked")
    assert fleet.ask("young", "--filter", full) == (2, "not covered")


def test_a_delta_tells_what_changed_and_what_came(fleet: Fleet) -> None:
    full = fleet.full("older")
    delta = fleet.delta(full, "old", "young")
    asked = ("--filter", full, "--delta", delta)
    assert fleet.ask("old", *asked) == (1, "revoked")
    assert fleet.ask("older", *asked) == (0, "good")
    assert fleet.ask("young", *asked) == (1, "revoked")


@pytest.mark.parametrize("days", [-1, 7])
def test_outside_of_its_time_it_covers_nothing(fleet: Fleet, days: int) -> None:
    at = f"{NOW + timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}"
    assert fleet.ask("older", "--filter", fleet.full("older"), "--at", at) == (2, "not covered")


def test_a_delta_in_place_of_its_filter_is_told(fleet: Fleet) -> None:
    status, said = fleet.ask("old", "--filter", fleet.delta(fleet.full()))
    assert status == 3
    assert "is a delta; give it as --delta" in said


def test_a_delta_of_another_filter_is_told(fleet: Fleet) -> None:
    delta = fleet.delta(fleet.full())
    fleet.facts = replace(fleet.facts, number=5)
    status, said = fleet.ask("old", "--filter", fleet.full(), "--delta", delta)
    assert status == 3
    assert "belongs to another filter; fetch both again" in said


def test_a_certificate_that_expired_is_no_question(fleet: Fleet) -> None:
    at = f"{NOW + MONTH + timedelta(seconds=1):%Y-%m-%dT%H:%M:%SZ}"
    status, said = fleet.ask("old", "--filter", fleet.full(), "--at", at)
    assert status == 3
    assert "expired on" in said


def test_another_cas_filter_is_not_believed(fleet: Fleet) -> None:
    own, fleet.ca = fleet.ca, make("CA", ca=True)
    forged = fleet.full("old")
    fleet.ca = own
    status, said = fleet.ask("old", "--filter", forged)
    assert status == 3
    assert "is not signed by" in said
