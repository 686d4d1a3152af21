"""`docs/how-to/engine-aws-*.md`, as a reader types them, on an emulator in place of AWS."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.engines import ComponentMissing
from tests.support.howto import shell_blocks, type_in
from tests.support.missing import missing_component
from tests.support.moto import ACCESS_KEY, SECRET_KEY, moto_server
from tests.support.server import free_port, serving


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "engine", "made"),
    [
        ("engine-aws-kms.md", "aws-kms-engine", "CreateKey"),
        ("engine-aws-secrets-manager.md", "aws-secrets", "CreateSecret"),
    ],
)
def test_the_page_works_as_it_stands(page: str, engine: str, made: str, tmp_path: Path) -> None:
    names = ("--port", "--http-port", "--internal-port")
    try:
        opened = moto_server()
        moto = opened.__enter__()
    except ComponentMissing as missing:
        missing_component(str(missing))
    environment = {
        "PORTS": " ".join(f"{name} {free_port()}" for name in names),
        # the host's own credentials, and where AWS is for this host
        "AWS_ENDPOINT_URL": moto.url,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        first = shell_blocks(page, before="`lamassu serve --dir var`")
        then = shell_blocks(page, after="`lamassu serve --dir var`")
        assert first
        assert then
        type_in(first, folder=tmp_path, environment=environment)
        with serving(tmp_path / "var", environment=environment) as server, server.admin() as admin:
            type_in(then, folder=tmp_path, environment=environment)
            key = admin.get("/api/kms/v1/keys/firmware").json()
        operations = moto.operations()
    finally:
        opened.__exit__(None, None, None)

    assert key["engine_id"] == engine
    assert made in operations
