"""One file, read strictly and judged whole; what is secret stays so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lamassu.platform.config import (
    Choices,
    ConfigurationFaults,
    Settings,
    edge_template,
    load,
    masked_text,
    not_yet_in_effect,
    platform_template,
    start_faults,
    warnings,
)
from lamassu.platform.config.sections import Section
from lamassu.platform.database.dialect import Dialect

Write = Callable[[str], Path]

SEED = """
crypto_engines:
  default_id: production-hsm
  pkcs11:
    - id: "production-hsm"
      token: "LamassuCA"
      pin: "${HSM_PIN}"  # Use environment variable
      module_path: "/usr/lib/softhsm/libsofthsm2.so"
  hashicorp_vault:
    - id: "vault-engine"
      role_id: "${VAULT_ROLE_ID}"
      secret_id: "${VAULT_SECRET_ID}"
      auto_unseal_enabled: true
      mount_path: "lamassu-pki"
      address: "https://vault.internal:8200"
  aws_kms:
    - id: "aws-kms-engine"
      region: "us-east-1"
      key_spec: "RSA_4096"
      key_usage: "SIGN_VERIFY"
http:
  port: 8443
  protocol: https
  tls:
    cert_file: "/etc/lamassu/tls/server.crt"
    key_file: "/etc/lamassu/tls/server.key"
    min_version: "TLS12"
    cipher_suites:
      - TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
      - TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
      - TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
      - TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
  client_auth:
    enabled: true
    ca_file: "/etc/lamassu/tls/internal-ca.crt"
    required: true
identity_extractors:
  jwt:
    enabled: true
    validate_signature: true  # Always validate in production
    issuer: "https://idp.yourorg.com"
    audience: "lamassu-api"
    public_key_url: "https://idp.yourorg.com/.well-known/jwks.json"
    required_claims:
      - sub
      - exp
      - iat
postgres:
  hostname: "postgres.internal"
  port: 5432
  username: "lamassu_app"
  password: "${DB_PASSWORD}"  # Use environment variable
  sslmode: "require"
  sslcert: "/etc/lamassu/db/client.crt"
  sslkey: "/etc/lamassu/db/client.key"
  sslrootcert: "/etc/lamassu/db/ca.crt"
logs:
  level: info
  security_events:
    enabled: true
    log_authentication: true
    log_authorization: true
    log_ca_operations: true
    log_certificate_issuance: true
otel:
  metrics:
    enabled: true
    interval_in_millis: 10000
    hostname: "otel-collector.internal"
    port: 4318
    scheme: "https"
  traces:
    enabled: true
    hostname: "otel-collector.internal"
    port: 4318
    scheme: "https"
  logging:
    enabled: true
    hostname: "otel-collector.internal"
    port: 4318
    scheme: "https"
"""
SEED_SECRETS = {
    "HSM_PIN": "pin-7351",
    "VAULT_ROLE_ID": "role-7352",
    "VAULT_SECRET_ID": "secret-7353",
    "DB_PASSWORD": "password-7354",
}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(text: str) -> Path:
        path = tmp_path / "config.yml"
        path.write_text(text)
        return path

    return written


@pytest.fixture
def seed(write: Write, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in SEED_SECRETS.items():
        monkeypatch.setenv(name, value)
    return write(SEED)


def faults_of(path: Path) -> dict[str, tuple[str, str]]:
    with pytest.raises(ConfigurationFaults) as raised:
        load(path)
    for fault in raised.value.faults:
        assert str(fault) in raised.value.text
    return {fault.path: (fault.found, fault.allowed) for fault in raised.value.faults}


# The guide's own examples


def test_the_guides_sections_are_taken_as_they_stand(seed: Path) -> None:
    settings = load(seed)
    assert settings.mode == "production"
    assert settings.http.client_auth.required
    database = settings.database_settings(seed.parent)
    assert database.dialect is Dialect.POSTGRESQL
    assert (database.password, database.sslrootcert) == (
        "password-7354",
        Path("/etc/lamassu/db/ca.crt"),
    )


def test_what_has_no_effect_yet_is_named(seed: Path) -> None:
    notes = " ".join(not_yet_in_effect(load(seed)))
    for name in (
        "http.client_auth.ca_file",
        "logs.security_events",
        "otel",
        "identity_extractors",
    ):
        assert name in notes


def test_no_secret_is_shown(seed: Path) -> None:
    settings = load(seed)
    for text in (repr(settings), str(settings), settings.model_dump_json(), masked_text(seed)):
        for secret in SEED_SECRETS.values():
            assert secret not in text
    shown = yaml.safe_load(masked_text(seed))
    assert shown["postgres"]["hostname"] == "postgres.internal"
    assert set(shown["postgres"]["password"]) == {"*"}


# Faults


def test_all_faults_are_told_at_once_with_found_and_allowed(write: Write) -> None:
    faults = faults_of(
        write(
            """
mode: testing
http:
  port: 70000
  tls: {min_version: TLS11, cipher_suites: [TLS_RSA_WITH_RC4_128_MD5]}
  timeout: 3
server: {listen_adress: 0.0.0.0}
database: {url: "mysql://here"}
postgres: {port: five}
crypto_engines: {pkcs11: [{id: hsm}]}
logs: [info]
nonsense: true
va: {public_urls: "${NOT_SET_ANYWHERE}"}
"""
        )
    )
    assert faults["mode"] == ("'testing'", "'production' or 'development'")
    assert faults["http.port"][0] == "70000"
    assert "65535" in faults["http.port"][1]
    assert faults["http.tls.min_version"] == ("'TLS11'", "'TLS12' or 'TLS13'")
    found, allowed = faults["http.tls.cipher_suites[0]"]
    assert found == "'TLS_RSA_WITH_RC4_128_MD5'"
    assert "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" in allowed
    assert faults["http.timeout"][1] == "client_auth, port, protocol, tls"
    assert "did you mean listen_address?" in faults["server.listen_adress"][1]
    assert faults["postgres.port"][0] == "'five'"
    assert faults["postgres.hostname"][0] == "nothing"
    assert faults["crypto_engines.pkcs11[0].pin"][0] == "nothing"
    assert faults["logs"] == ("a list", "a mapping")
    assert "crypto_engines" in faults["nonsense"][1]
    assert faults["va.public_urls"] == (
        "${NOT_SET_ANYWHERE}, which is not set",
        "a variable with a value",
    )


@pytest.mark.parametrize(
    ("text", "where", "found"),
    [
        ("http: {port: 1, port: 2}", "http.port", "the key again in line 1"),
        ("logs:\n  level: info\nlogs:\n  level: info\n", "logs", "the key again in line 3"),
        ("http: {\n  port: [1\n", "line 3, column 1", ""),
        ("http:\n\tport: 1", "line 2, column 1", ""),
        ("a: 1\n---\nb: 2", "line 2, column 1", ""),
        ("- http", "the file", "no mapping"),
        ("just text", "the file", "no mapping"),
        ("1: 2", "the file", "a key that is no text (line 1)"),
        ("? [a, b]\n: 1", "the file", "a key that is no text (line 1)"),
        ("http: {<<: {port: 1}}", "http", "a key that is no text (line 1)"),
        ("logs: {level: !!python/object/apply:os.getcwd []}", "logs.level", ""),
        ("logs: !!python/name:os.getcwd x", "logs", "the tag tag:yaml.org,2002:python/name:"),
        ("a: &a [1]\nb: *a", "b", "an alias"),
        ("a: &a\n  b: *a", "a.b", "an alias"),
        ("[" * 100_000, "the file", "deeper nesting"),
        ("a: " + "[" * 40 + "]" * 40, "a" + "[0]" * 32, "deeper nesting"),
        ("\na: \x00", "line 2", "a character that YAML forbids"),
        ("# " + "a" * 1_100_000, "the file", "more than 1 MiB"),
        ("logs: {level: '${OPEN'}", "logs.level", "${ without its }"),
        ("logs: {level: '${}'}", "logs.level", "${}"),
        ("logs: {level: '${a b}'}", "logs.level", "${a b}"),
        ("logs: {level: '${file:absent}'}", "logs.level", "${file:absent}: No such file"),
        ("logs: {level: '${file:.}'}", "logs.level", "${file:.}: Is a directory"),
        ("logs: {level: '${file:/dev/null}'}", "logs.level", "which is empty"),
        ("logs: {level: '${file:/dev/zero}'}", "logs.level", "which exceeds 64 KiB"),
        ("http:", "http", "nothing"),
    ],
)
def test_a_crooked_file_is_told_where(write: Write, text: str, where: str, found: str) -> None:
    faults = faults_of(write(text))
    assert where in faults
    assert found in faults[where][0]


def test_aliases_cannot_blow_up(write: Write) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    assert "a1[0]" in faults_of(write("\n".join(lines)))


def test_a_file_that_is_not_there_or_not_text_is_a_fault(tmp_path: Path) -> None:
    assert "lamassu init" in faults_of(tmp_path / "absent.yml")["the file"][1]
    (tmp_path / "binary.yml").write_bytes(b"\xff\xfe\x00")
    assert "the file" in faults_of(tmp_path / "binary.yml")


def test_an_empty_file_is_all_defaults_in_production(write: Write) -> None:
    assert load(write("")) == Settings()
    assert load(write("")).mode == "production"


@pytest.mark.parametrize(
    "text",
    [
        "postgres: 'postgresql://u:s3cr3t@h/n'",
        "postgres: {hostname: h, username: u, password: {s3cr3t: 1}}",
        "postgres: {hostname: h, username: u, password: [s3cr3t]}",
        "postgres: {hostname: h, username: u, users: {ca: s3cr3t}}",
        "database: s3cr3t",
        "database: {url: 'mysql://u:s3cr3t@h'}",
        "crypto_engines: {pkcs11: [{id: a, token: t, pin: [s3cr3t], module_path: m}]}",
        "http: {port: '${SECRET}'}",
        "logs: {level: 'x${SECRET}'}",
        "logs: '${SECRET}'",
        "crypto_engines: {default_id: '${SECRET}', software: [{}]}",
    ],
)
def test_a_fault_never_repeats_a_secret(
    write: Write, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "s3cr3t")
    with pytest.raises(ConfigurationFaults) as raised:
        load(write(text))
    assert "s3cr3t" not in raised.value.text
    assert "s3cr3t" not in repr(raised.value.__context__ if not raised.value.__cause__ else "")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("database: {url: 'sqlite:///a'}\npostgres: {hostname: h, username: u}", "database"),
        ("crypto_engines: {default_id: b, software: [{}]}", "crypto_engines.default_id"),
        ("crypto_engines: {software: [{id: software}, {id: software}]}", "crypto_engines"),
        ("crypto_engines: {}", "crypto_engines"),
        (
            "crypto_engines: {software: [{}], aws_kms: [{id: b, region: c}]}",
            "crypto_engines.default_id",
        ),
        ("http: {protocol: http}", "http.protocol"),
        ("postgres: {hostname: h, username: u, sslmode: maybe}", "postgres.sslmode"),
    ],
)
def test_contradictions_are_faults(write: Write, text: str, where: str) -> None:
    assert where in faults_of(write(text))


# References


def test_references_are_resolved_inside_any_text(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOST", "db")
    monkeypatch.setenv("PORT", "6543")
    (tmp_path / "password").write_text("p@ss ${HOST} word\n")
    settings = load(
        write(
            """
postgres:
  hostname: ${HOST}.internal
  port: ${PORT}
  username: "a$${b}$c"
  password: ${file:password}
"""
        )
    )
    database = settings.database_settings(tmp_path)
    assert (database.host, database.port) == ("db.internal", 6543)
    assert database.username == "a${b}$c"
    assert database.password == "p@ss ${HOST} word"  # what a file holds is not read again


def test_an_empty_variable_is_a_fault_not_an_empty_value(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTY", "")
    path = write("postgres: {hostname: h, username: u, password: '${EMPTY}'}")
    assert faults_of(path) == {
        "postgres.password": ("${EMPTY}, which is empty", "a variable with a value")
    }


def test_whatever_came_from_a_reference_is_masked(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIST", "https://private.example")
    path = write("server: {public_urls: ['https://open.example', '${LIST}']}")
    assert "private" not in masked_text(path)
    assert "open.example" in masked_text(path)


# Starting


def start_paths(path: Path) -> list[str]:
    return [fault.path for fault in start_faults(load(path), path.parent)]


def test_production_wants_the_passphrase_outside(write: Write, tmp_path: Path) -> None:
    for inside in ("secrets/pass", f"{tmp_path}/x", "../" + tmp_path.name + "/x"):
        path = write(f"crypto_engines: {{software: [{{passphrase_file: {inside}}}]}}")
        assert start_paths(path) == ["crypto_engines.software.passphrase_file"]
    path = write("crypto_engines: {software: [{passphrase_file: /run/credentials/pass}]}")
    assert start_paths(path) == []
    (tmp_path / "link").symlink_to("/run/credentials")
    path = write("mode: development")
    assert start_paths(path) == []


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("http: {client_auth: {enabled: false}}", "http.client_auth.enabled"),
        ("dms: {allow_unverified_csr: true}", "dms.allow_unverified_csr"),
    ],
)
def test_what_would_weaken_or_do_nothing_must_not_start(
    write: Write, text: str, where: str
) -> None:
    assert where in start_paths(write(f"mode: development\n{text}"))


def test_what_should_be_known_is_warned_about(write: Write) -> None:
    wide = "server: {listen_address: 0.0.0.0}"
    assert "beyond this host" in warnings(load(write(f"mode: development\n{wide}")))[0]
    assert not any("beyond this host" in text for text in warnings(load(write(wide))))
    remote = "postgres: {hostname: db, username: u, sslmode: require"
    assert "not verified" in warnings(load(write(remote + "}")))[0]
    verified = warnings(load(write(remote + ", sslrootcert: /ca.pem}")))
    assert not any("not verified" in text for text in verified)
    assert "not verified" in warnings(load(write("database: {url: 'postgresql://db/x'}")))[0]


# What init writes


def test_the_written_file_holds_the_defaults(write: Write) -> None:
    settings = load(write(platform_template(Choices())))
    defaults = Settings(mode="development", database=settings.database)
    assert settings == defaults
    assert not_yet_in_effect(settings) == []
    assert start_faults(settings, Path("/nowhere")) == []


def test_the_written_file_takes_the_choices(write: Write) -> None:
    choices = Choices(
        listen_address="::1",
        port=1,
        http_port=2,
        internal_port=3,
        public_urls=["https://a:1", "https://b/'\": é"],
        validation_urls=["http://c"],
        database_url="postgresql://u:p$${w}@h/n",
    )
    settings = load(write(platform_template(choices)))
    assert settings.server.listen_address == "::1"
    assert (settings.http.port, settings.server.http_port, settings.server.internal_port) == (
        1,
        2,
        3,
    )
    assert settings.server.public_urls == tuple(choices.public_urls)
    assert settings.va.public_urls == ("http://c",)
    assert settings.database_settings(Path()).password == "p${w}"


def test_the_written_file_names_every_key_that_has_an_effect() -> None:
    text = platform_template(Choices())
    absent = {"est", "otel", "identity_extractors", "security_events"}  # an edge's, or later
    theirs = {"log_level"}  # the original's, told by `config check`
    later = {"pkcs11", "hashicorp_vault", "aws_kms", "aws_secrets_manager"}

    def names(section: type[Section]) -> set[str]:
        found = set()
        for name, field in section.model_fields.items():
            if name in absent | later | theirs:
                continue
            found.add(name)
            for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
                if isinstance(inner, type) and issubclass(inner, Section):
                    found |= names(inner)
        return found

    missing = {name for name in names(Settings) if f"{name}:" not in text}
    assert missing == set()
    for name in absent - {"est"} | later:
        assert name in text


def test_an_edges_file_loads(write: Write) -> None:
    text = edge_template(port=9443, upstream="https://inside:8444", listen_address="127.0.0.1")
    settings = load(write(text))
    assert settings.est is not None
    assert settings.est.upstream == "https://inside:8444"
    assert settings.http.port == 9443


PKCS11 = """
crypto_engines:
  pkcs11:
    - {{id: a, token: t, pin: {pin}, module_path: m, module_extra_options: {{env: {{{env}}}}}}}
"""


@pytest.mark.parametrize("mode", ["production", "development"])
def test_a_pin_in_clear_is_refused_in_every_mode(write: Write, mode: str) -> None:
    with pytest.raises(ConfigurationFaults) as raised:
        load(write(f"mode: {mode}" + PKCS11.format(pin="'123498'", env="")))

    assert "crypto_engines.pkcs11[0].pin" in raised.value.text
    assert "${VARIABLE}" in raised.value.text
    assert "123498" not in raised.value.text


def test_a_pin_comes_from_a_variable_or_a_file(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HSM_PIN", "0123")
    (tmp_path / "pin").write_text("0456\n")
    for reference, pin in (("${HSM_PIN}", "0123"), (f"${{file:{tmp_path / 'pin'}}}", "0456")):
        settings = load(write(PKCS11.format(pin=f"'{reference}'", env="")))
        assert settings.crypto_engines.pkcs11[0].pin.get_secret_value() == pin


def test_a_librarys_variables_keep_their_case_and_have_one_value(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HSM_PIN", "0123")
    pin = "'${HSM_PIN}'"
    settings = load(write(PKCS11.format(pin=pin, env="SoftHSM2_conf: /x, B: y")))
    env = settings.crypto_engines.pkcs11[0].module_extra_options.env
    assert env == {"SoftHSM2_conf": "/x", "B": "y"}

    second = "    - {id: b, token: u, pin: '${HSM_PIN}', module_path: m,\n"
    second += "       module_extra_options: {env: {B: z}}}\n  default_id: a\n"
    with pytest.raises(ConfigurationFaults) as raised:
        load(write(PKCS11.format(pin=pin, env="B: y") + second))
    assert "crypto_engines.pkcs11[1].module_extra_options.env.B" in raised.value.text
    with pytest.raises(ConfigurationFaults):
        load(write(PKCS11.format(pin=pin, env="'A=B': y")))
