"""One process serves an installation."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamassu.kernel.errors import Conflict
from lamassu.platform.installation import Installation


def test_a_second_process_is_refused_and_the_lock_ends_with_its_holder(tmp_path: Path) -> None:
    installation = Installation(tmp_path / "var")
    installation.make_directories()

    with installation.served_alone():
        with pytest.raises(Conflict) as refused, installation.served_alone():
            pass

    assert refused.value.code == "served_already"
    with installation.served_alone():
        pass
