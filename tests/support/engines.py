"""Every kind of crypto engine on its real component: what one contract suite runs on.

A kind is a line in `KINDS`: its name, and where its `stand` is found. A stand starts the component
once for the run, and gives adapters, a configuration for a whole installation, and trouble.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

from lamassu.services.kms.engines.software import SoftwareEngine
from lamassu.services.kms.ports import CryptoEngine


class ComponentMissing(Exception):
    """The real component is not installed here; the text says what to install."""


class Stand(Protocol):
    """A real component, running."""

    def engine(self) -> CryptoEngine:
        """A fresh adapter, as after a restart of ours."""
        ...

    def section(self) -> str:
        """The `crypto_engines:` section of a configuration with this engine as its default."""
        ...

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that the section refers to."""
        ...

    def gone(self) -> AbstractContextManager[None]:
        """Within it the component cannot be used; afterwards it is as before."""
        ...


OpenStand = Callable[[Path], AbstractContextManager[Stand]]
"""Given a folder of its own. Raises `ComponentMissing`."""


def _elsewhere(module: str, name: str = "stand") -> OpenStand:
    """Imported when it is used: a kind's library is slow to load."""

    def open_stand(folder: Path) -> AbstractContextManager[Stand]:
        opened: AbstractContextManager[Stand] = getattr(import_module(module), name)(folder)
        return opened

    return open_stand


@dataclass
class SoftwareStand:
    """A keystore in a folder."""

    folder: Path

    secret = b"a passphrase that is long enough"

    def engine(self) -> CryptoEngine:
        return SoftwareEngine.open("software", self.folder / "keys", self.secret)

    def section(self) -> str:
        return "crypto_engines:\n  software:\n    - id: software\n"

    @property
    def environment(self) -> Mapping[str, str]:
        return {}

    @contextmanager
    def gone(self) -> Iterator[None]:
        away = self.folder / "away"
        shutil.move(self.folder / "keys", away)
        try:
            yield
        finally:
            shutil.rmtree(self.folder / "keys", ignore_errors=True)
            shutil.move(away, self.folder / "keys")


@contextmanager
def software_stand(folder: Path) -> Iterator[Stand]:
    yield SoftwareStand(folder)


KINDS: dict[str, OpenStand] = {
    "software": software_stand,
    "pkcs11": _elsewhere("tests.support.softhsm"),
    "vault-kv": _elsewhere("tests.support.vault", "kv_stand"),
    "vault-transit": _elsewhere("tests.support.vault", "transit_stand"),
    "aws-kms": _elsewhere("tests.support.moto", "kms_stand"),
    "aws-secrets-manager": _elsewhere("tests.support.moto", "secrets_manager_stand"),
}
