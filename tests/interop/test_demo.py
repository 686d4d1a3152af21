"""What the README promises, done as a reader would: with openssl and curl."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from lamassu.cli import walk
from tests.support.est import bootstrap, make_dms
from tests.support.server import Server, free_port, lamassu, make_installation, serving

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_demo_walks_twice_on_the_same_installation(tmp_path: Path) -> None:
    names = ("--port", "--http-port", "--internal-port")
    ports = [part for name in names for part in (name, str(free_port()))]

    first = lamassu("demo", "--dir", str(tmp_path / "var"), "--exit", *ports)
    second = lamassu("demo", "--dir", str(tmp_path / "var"), "--exit", *ports)

    for output in (first, second):
        assert "device.crt: OK" in output
        assert "device.crt: good" in output
        assert "device.crt: revoked" in output
        assert "certificate_revoked" in output
    folders = list((tmp_path / "var" / "demo").iterdir())
    assert len(folders) == 2, "a new device each run"


def test_the_guides_renewal_script_is_changed_only_in_host_files_subject_and_service(
    tmp_path: Path,
) -> None:
    place = walk.Place(tmp_path, "https://localhost:1", "http://localhost:2", "device-x")
    walk.prepare(place)

    original = files("lamassu.cli").joinpath("renew.sh").read_text().splitlines()
    used = (place.folder / "renew.sh").read_text().splitlines()

    changed = [(a, b) for a, b in zip(original, used, strict=True) if a != b]
    for before, after in changed:
        assert re.search(r"_FILE=|DMS_URL=|/tmp/renew|hostname|systemctl", before), before
        if "DMS_URL=" in before:
            assert after == before.replace("https://est.example.com", place.https_url)


@pytest.mark.slow
def test_the_readmes_first_device_works_line_by_line(platform: Server, tmp_path: Path) -> None:
    readme = (REPOSITORY / "README.md").read_text()
    section = readme[readme.index("## A first device of your own") :]
    [commands] = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)[:1]
    shutil.copytree(platform.directory, tmp_path / "var", dirs_exist_ok=True)
    commands = commands.replace("localhost:8443", f"localhost:{platform.port}")

    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", commands],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "COLUMNS": "200",
        },
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "ACTIVE" in done.stdout
    assert (
        "CN = my-device"
        in subprocess.run(
            ["openssl", "x509", "-in", str(tmp_path / "my-device.crt"), "-noout", "-subject"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )


@pytest.mark.slow
def test_an_edge_process_enrolls_from_a_copy_of_its_own_folder_alone(
    platform: Server, tmp_path: Path
) -> None:
    edge_directory = Path(shutil.copytree(platform.directory / "est", tmp_path / "edge"))
    assert sorted(path.name for path in edge_directory.iterdir()) == [
        "config.yml",
        "est.crt",
        "est.key",
        "tls-ca.crt",
    ]
    from tests.support.est import Device

    make_dms(platform, "edge-dms")
    credential = bootstrap(platform, tmp_path, "edge-bootstrap")
    edge = Server(
        edge_directory, free_port(), free_port(), platform.internal_port, services=("est",)
    )
    edge.start()
    try:
        device = Device(edge, "edge-dms", "edge-device", tmp_path / "devices", credential)
        assert device.enroll().status_code == 200
        assert device.reenroll().status_code == 200
        with edge.client() as stranger:
            assert stranger.get("/api/ca/v1/cas").status_code == 404, "EST is all that it serves"
    finally:
        edge.stop()
    with platform.admin() as admin:
        found = admin.get("/api/devmanager/v1/devices/edge-device").json()
    assert found["status"] == "ACTIVE"
    assert found["identity"]["active_version"] == 1


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running platform with the PKI of `lamassu init`."""
    directory = make_installation(
        tmp_path_factory.mktemp("platform") / "var", key_type="ecdsa-p256"
    )
    with serving(directory) as server:
        yield server
