"""`${secret:engine/name}` in a configuration, on engines that a test plays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from lamassu.kernel.errors import NotFound, Unavailable
from lamassu.platform.config import ConfigurationFaults, exposed_secrets, load, masked_text
from lamassu.platform.config.engine_sections import EngineSection

ENGINES = """
mode: development
crypto_engines:
  default_id: software
  software: [{id: software}]
  hashicorp_vault:
    - id: vault
      role_id: role
      secret_id: "${VAULT_SECRET_ID}"
      mount_path: secrets
      address: https://vault.internal:8200
  aws_secrets_manager:
    - {id: aws, region: eu-west-1}
"""
POSTGRES = """
postgres: {hostname: db, username: lamassu, password: "%s"}
"""


@dataclass
class Engines:
    """Secrets by engine, name and field; what was asked."""

    secrets: dict[tuple[str, str, str | None], str] = field(default_factory=dict)
    down: bool = False
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    opened: int = 0
    closed: int = 0

    def __call__(self, section: EngineSection, folder: Path) -> _Reader:
        self.opened += 1
        return _Reader(self, section.id)


@dataclass
class _Reader:
    engines: Engines
    engine_id: str

    def read_secret(self, name: str, field: str | None) -> str:
        place = (self.engine_id, name, field)
        self.engines.asked.append(place)
        if self.engines.down:
            raise Unavailable("Vault is sealed; run: vault operator unseal", code="engine_sealed")
        if place not in self.engines.secrets:
            raise NotFound(f"there is no secret {name}", code="secret_missing")
        return self.engines.secrets[place]

    def close(self) -> None:
        self.engines.closed += 1


Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.setenv("VAULT_SECRET_ID", "of the role")

    def written(text: str) -> Path:
        path = tmp_path / "config.yml"
        path.write_text(text)
        path.chmod(0o644)
        return path

    return written


def faults(path: Path, engines: Engines | None) -> dict[str, str]:
    with pytest.raises(ConfigurationFaults) as refusal:
        load(path, engines)
    return {fault.path: str(fault) for fault in refusal.value.faults}


@pytest.mark.parametrize(
    ("reference", "place"),
    [
        ("vault/db", ("vault", "db", None)),
        ("vault/lamassu/db#password", ("vault", "lamassu/db", "password")),
        ("aws/prod/db", ("aws", "prod/db", None)),
    ],
)
def test_a_value_is_had_from_an_engine_and_masked(
    write: Write, reference: str, place: tuple[str, str, str | None]
) -> None:
    engines = Engines({place: "hunter-2"})
    path = write(ENGINES + POSTGRES % f"${{secret:{reference}}}")

    settings = load(path, engines)

    assert settings.postgres is not None
    assert settings.postgres.password.get_secret_value() == "hunter-2"
    assert (engines.opened, engines.closed) == (1, 1)
    assert "hunter-2" not in masked_text(path, engines)
    assert not any("postgres" in one for one in exposed_secrets(path, engines))


def test_any_value_can_come_from_one_and_be_masked_though_it_is_none_of_the_secret_kinds(
    write: Write,
) -> None:
    engines = Engines({("vault", "names", "host"): "db.internal"})
    text = ENGINES + POSTGRES.replace("hostname: db", 'hostname: "x.${secret:vault/names#host}"')
    path = write(text % "${VAULT_SECRET_ID}")

    settings = load(path, engines)

    assert settings.postgres is not None
    assert settings.postgres.hostname == "x.db.internal"
    assert "db.internal" not in masked_text(path, engines)


def test_one_engines_section_may_take_a_secret_of_another(write: Write) -> None:
    text = ENGINES.replace(
        "  aws_secrets_manager:",
        "  pkcs11:\n"
        '    - {id: hsm, token: ca, pin: "${secret:vault/hsm#pin}", module_path: /lib/x.so}\n'
        "  aws_secrets_manager:",
    )

    settings = load(write(text), Engines({("vault", "hsm", "pin"): "4711"}))

    assert settings.crypto_engines.pkcs11[0].pin.get_secret_value() == "4711"
    assert settings.secrets_in_clear == ()


def test_an_engine_that_needs_a_secret_gives_none(write: Write) -> None:
    engines = Engines({("aws", "vault", None): "of the role", ("vault", "db", None): "x"})
    text = ENGINES.replace("${VAULT_SECRET_ID}", "${secret:aws/vault}")
    assert load(write(text), engines).crypto_engines.hashicorp_vault

    own = ENGINES.replace("${VAULT_SECRET_ID}", "${secret:vault/own}")
    asked = len(engines.asked)
    for path in (write(own), write(text + POSTGRES % "${secret:vault/db}")):
        assert "takes a secret itself" in " ".join(faults(path, engines).values())
    assert {place[0] for place in engines.asked[asked:]} <= {"aws"}


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("vault/none", "there is no secret none"),
        ("other/db", "there is no engine other; those that hold secrets: vault, aws"),
        ("software/db", "holds no secrets"),
        ("vault", "${secret:ENGINE/NAME}"),
        ("vault/", "${secret:ENGINE/NAME}"),
        ("vault/db#", "#FIELD"),
        ("vault/../sys/db", "${secret:ENGINE/NAME}"),
        ("/db", "there is no engine"),
    ],
)
def test_a_reference_that_leads_nowhere_is_a_fault_of_its_field(
    write: Write, reference: str, words: str
) -> None:
    found = faults(write(ENGINES + POSTGRES % f"${{secret:{reference}}}"), Engines())

    assert list(found) == ["postgres.password"]
    assert words in found["postgres.password"]


def test_an_engine_that_is_down_is_asked_once_for_all_secrets(write: Write) -> None:
    engines = Engines(down=True)
    text = ENGINES + POSTGRES % "${secret:vault/db}" + 'logs: {level: "${secret:vault/level}"}\n'

    found = faults(write(text), engines)

    assert set(found) == {"postgres.password", "logs.level"}
    assert all("sealed" in fault for fault in found.values())
    assert len(engines.asked) == 1


def test_a_faulty_engine_is_not_asked(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    engines = Engines({("vault", "db", None): "x"})
    for broken in (
        ENGINES.replace("mount_path: secrets", "mount_path: ../sys"),
        ENGINES.replace("mount_path: secrets", "mount: secrets"),
        ENGINES.replace("address: https://vault.internal:8200", "port: 8200"),
        ENGINES.replace("${VAULT_SECRET_ID}", "${NOT_SET_ANYWHERE}"),
    ):
        assert "postgres.password" in faults(
            write(broken + POSTGRES % "${secret:vault/db}"), engines
        )
    assert engines.asked == []


def test_production_reads_no_secret_over_a_connection_that_it_refuses(write: Write) -> None:
    engines = Engines({("vault", "db", None): "x"})
    text = ENGINES.replace("mode: development\n", "") + POSTGRES % "${secret:vault/db}"
    for weak in (
        text.replace("https://vault.internal", "http://vault.internal"),
        text.replace(
            "mount_path: secrets", "mount_path: secrets\n      insecure_skip_verify: true"
        ),
    ):
        assert "production refuses" in faults(write(weak), engines)["postgres.password"]
    assert engines.asked == []


def test_who_may_not_ask_engines_is_told_so(write: Write) -> None:
    found = faults(write(ENGINES + POSTGRES % "${secret:vault/db}"), None)

    assert "not read here" in found["postgres.password"]


def test_an_unseal_key_in_clear_is_refused(write: Write) -> None:
    text = ENGINES.replace(
        "mount_path: secrets", "mount_path: secrets\n      auto_unseal_keys: [abc]"
    )

    found = faults(write(text), Engines())

    assert list(found) == ["crypto_engines.hashicorp_vault[0].auto_unseal_keys[0]"]
    assert "abc" not in str(found)


def test_the_engines_alone_are_shown_where_nothing_refers_to_them(write: Write) -> None:
    engines = Engines()

    shown = yaml.safe_load(masked_text(write(ENGINES), engines))

    assert shown["crypto_engines"]["hashicorp_vault"][0]["secret_id"] == "**********"
    assert engines.opened == 0
