"""`docs/how-to/engine-pkcs11.md`, as a reader types it; and what an operator sees go wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.engines import ComponentMissing
from tests.support.howto import shell_blocks, type_in
from tests.support.missing import missing_component
from tests.support.server import free_port, lamassu, serving
from tests.support.softhsm import ShimmedHsm, Token, find_module

PAGE = "engine-pkcs11.md"
SERVE = "Now `lamassu serve --dir var`"


@pytest.mark.slow
def test_the_page_works_as_it_stands(tmp_path: Path) -> None:
    try:
        find_module()
    except ComponentMissing as missing:
        missing_component(str(missing))
    names = ("--port", "--http-port", "--internal-port")
    environment = {
        "PORTS": " ".join(f"{name} {free_port()}" for name in names),
        "HSM_PIN": "1234",
        "HSM_SO_PIN": "87654321",
        "SOFTHSM2_CONF": str(tmp_path / "softhsm2.conf"),
    }

    type_in(shell_blocks(PAGE, before=SERVE), folder=tmp_path, environment=environment)
    with serving(tmp_path / "var", environment=environment) as server, server.admin() as admin:
        seen = type_in(shell_blocks(PAGE, after=SERVE), folder=tmp_path, environment=environment)
        key = admin.get("/api/kms/v1/keys/firmware").json()
        engines = admin.get("/api/kms/v1/engines").json()

    assert key["engine_id"] == "production-hsm"
    assert f"lamassu:general:{key['key_id']}" in seen
    assert [engine["type"] for engine in engines] == ["PKCS11"]
    assert "1234" not in (tmp_path / "var" / "config.yml").read_text()


@pytest.fixture
def shimmed(tmp_path: Path) -> ShimmedHsm:
    try:
        return ShimmedHsm(tmp_path / "hsm")
    except ComponentMissing as missing:
        missing_component(str(missing))


@pytest.mark.slow
def test_a_wrong_pin_keeps_it_from_starting_and_is_sent_by_no_later_process(
    shimmed: ShimmedHsm, tmp_path: Path
) -> None:
    token = shimmed.token()
    directory, section = tmp_path / "var", tmp_path / "engines.yml"
    section.write_text(_section(token))
    where = ("--dir", str(directory))
    lamassu(
        "init", *where, "--key-type", "ecdsa-p256", "--crypto-engines", str(section),
        HSM_PIN=token.pin,
    )  # fmt: skip

    checked = lamassu("config", "check", *where, "--live", check=False, HSM_PIN="9999")
    served = lamassu("serve", *where, check=False, HSM_PIN="9999")
    again = lamassu("config", "check", *where, "--live", check=False, HSM_PIN="9999")

    assert "the token refused the PIN" in checked
    assert checked.count("engine hsm") == 1
    assert "was refused before" in served
    assert "was refused before" in again
    assert "9999" not in checked + served + again
    assert "can be used" in lamassu("config", "check", *where, "--live", HSM_PIN=token.pin)


def _section(token: Token) -> str:
    env = ", ".join(f'{name}: "{value}"' for name, value in token.env.items())
    return token.section().replace(f"{{SOFTHSM2_CONF: {token.hsm.config}}}", "{" + env + "}")
