"""A platform does not start as if nothing were, when keys that it needs are gone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from structlog.testing import CapturingLogger

from lamassu import wiring
from lamassu.kernel.errors import NotFound
from lamassu.kernel.identity import system_caller
from lamassu.services.ca.contract import RevocationReason
from lamassu.wiring import needed_keys
from lamassu.wiring.needed_keys import check_needed_keys
from tests.support.server import Server, copy_installation, free_port, serving
from tests.support.tables import Tables


@pytest.fixture
def directory(fresh: Path, tmp_path: Path) -> Path:
    return copy_installation(fresh, tmp_path / "var")


def key_file(directory: Path, name: str) -> Path:
    """The file of the key that the KMS knows by this name."""
    query = f"SELECT key_id FROM kms_keys WHERE name = '{name}'"
    [(key_id,)] = Tables.of(directory, None).rows("kms", query)
    return directory / "keys" / f"{key_id}.key"


async def refusal(directory: Path) -> str | None:
    """Why a start is refused for its keys, if it is."""
    async with wiring.opened(directory) as platform:
        try:
            await check_needed_keys(platform, {}, without_lost=False)
        except NotFound as refused:
            return refused.text
    return None


def test_serve_refuses_to_start_without_its_keys_and_starts_once_they_are_back(
    directory: Path, tmp_path: Path
) -> None:
    backup = shutil.move(directory / "keys", tmp_path / "keys")
    server = Server(directory, free_port(), free_port(), free_port())
    server.start(wait=False)
    assert server.process is not None
    try:
        assert server.process.wait(20) == 1
    finally:
        server.kill()

    said = server.log.read_text()
    for lost in ("CA root-ca: key ", "CA manufacturing-ca: key ", "the platform's internal "):
        assert lost in said, said
    assert f"restore {directory / 'keys'} from the backup" in said
    assert "Traceback" not in said
    shutil.copytree(backup, directory / "keys", dirs_exist_ok=True)
    with serving(directory, elsewhere=True) as running, running.client() as nobody:
        assert nobody.get("/health/ready").status_code == 200


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("ca/manufacturing-ca", "CA manufacturing-ca"),
        ("internal issuing CA", "the platform's internal issuing CA"),
    ],
)
async def test_a_single_key_that_is_gone_is_named(directory: Path, name: str, told: str) -> None:
    assert await refusal(directory) is None
    file = key_file(directory, name)
    file.unlink()

    said = await refusal(directory)

    assert said is not None
    assert f"  {told}: key {file.stem} in engine software\n" in said
    assert said.count(": key ") == 1


async def test_the_internal_roots_key_may_be_gone(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = CapturingLogger()
    monkeypatch.setattr(needed_keys, "log", log)
    key_file(directory, "internal root CA").unlink()

    assert await refusal(directory) is None

    [call] = log.calls
    assert call.kwargs["text"].startswith("the platform's internal root CA: key ")


async def test_a_revoked_cas_key_may_be_gone(directory: Path) -> None:
    key_file(directory, "ca/development-ca").unlink()
    assert "CA development-ca" in (await refusal(directory) or "")

    async with wiring.opened(directory) as platform:
        await check_needed_keys(platform, {}, without_lost=True)  # the way to revoke it
        ca = await platform.ca.get_ca("development-ca")
        await platform.ca.revoke(
            ca.certificate.serial_number,
            RevocationReason.KEY_COMPROMISE,
            caller=system_caller("test"),
        )

    assert await refusal(directory) is None


def test_an_operator_who_lost_keys_for_good_can_start_all_the_same(directory: Path) -> None:
    file = key_file(directory, "ca/development-ca")
    file.unlink()

    with serving(directory, elsewhere=True, options=("--without-lost-keys",)) as server:
        with server.admin() as admin:
            assert admin.get("/health/ready").status_code == 200
            url = "/api/ca/v1/cas/development-ca/status"
            assert admin.post(url, json={"status": "REVOKED"}).status_code in (200, 201)
        assert f"CA development-ca: key {file.stem}" in server.log.read_text()


async def test_a_renamed_engine_is_no_engine_that_is_merely_away(directory: Path) -> None:
    config = directory / "config.yml"
    config.write_text(
        config.read_text()
        .replace("default_id: software", "default_id: renamed")
        .replace("- id: software", "- id: renamed")
    )

    said = await refusal(directory)

    assert said is not None
    assert "in engine software" in said
    assert "crypto_engines of config.yml" in said
