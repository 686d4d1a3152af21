"""Where Vault is, and as whom we come."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lamassu.services.kms.ports import EngineRefused


@dataclass(frozen=True, slots=True)
class VaultAccess:
    """`mount_path` names a KV v2 or Transit mount. `may_mount`: an absent one is made (Transit);
    production never does. Without `ca_file` the system's roots count; with it, only it."""

    engine_id: str
    url: str
    mount_path: str
    role_id: str = field(repr=False)
    secret_id: str = field(repr=False)
    namespace: str | None = None
    ca_file: Path | None = None
    insecure_skip_verify: bool = False
    may_mount: bool = False
    auto_unseal: bool = False
    unseal_keys: Sequence[str] = field(default=(), repr=False)

    @property
    def who(self) -> str:
        """For error texts."""
        return f"crypto engine {self.engine_id}: Vault at {self.url}"

    def tls(self) -> ssl.SSLContext | None:
        """How its certificate is judged. Raises `EngineRefused` (`ca_file_unreadable`)."""
        if not self.url.startswith("https:"):
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            reason = error.strerror if not isinstance(error, ssl.SSLError) else "no PEM"
            raise EngineRefused(
                f"crypto engine {self.engine_id}: ca_cert_file {self.ca_file} cannot be read as"
                f" certificates ({reason}); name the PEM file of the CA of Vault's listener",
                code="ca_file_unreadable",
            ) from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.insecure_skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context
