"""`docs/how-to/repeat-requests.md`, as a reader types it."""

from __future__ import annotations

from tests.support.howto import shell_blocks, type_in
from tests.support.server import Server


def test_the_page_works_as_it_stands(platform: Server) -> None:
    folder = platform.directory.parent

    said = type_in(
        shell_blocks("repeat-requests.md"),
        folder=folder,
        environment={"LAMASSU_URL": platform.url},
    )

    assert (folder / "first.json").read_bytes() == (folder / "again.json").read_bytes()
    assert "ISSUED" in said
    assert "REFUSED" in said
    assert "profile_not_found" in said
    with platform.admin() as admin:
        issued = admin.get("/api/ca/v1/requests?filter=common_name[eq]pump").json()["list"]
    assert sorted(one["status"] for one in issued) == ["ISSUED", "REFUSED"]
