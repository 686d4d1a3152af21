"""Whose a key is, where several installations share an account or a mount."""

from __future__ import annotations

import hmac

from lamassu.kernel.errors import NotFound
from lamassu.platform.installation import Installation

MARKED_BY = "audit.key"  # the secret that an installation keeps for good, its copies too


def installation_mark(installation: Installation) -> str:
    """A name that tells nothing of the secret that it is made from; empty before `init`."""
    try:
        secret = installation.secret(MARKED_BY)
    except NotFound:
        return ""
    return hmac.digest(secret, b"lamassu installation", "sha256")[:8].hex()
