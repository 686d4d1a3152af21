"""All linters over what is new, before a key signs it."""

from __future__ import annotations

import asyncio

from lamassu.kernel.x509.lint.pkix import check_by_linters
from lamassu.services.ca.rules.template import CertificateTemplate


async def lint_whole(*templates: CertificateTemplate) -> None:
    """Hold certificates that will be signed against all of pkilint's PKIX linters, in a thread.

    For a new CA and its cross-certificates, and for the dry run of a profile; what is cheap is
    checked at every signature. Raises `LintRefusal`.
    """
    for template in templates:
        await asyncio.to_thread(check_by_linters, template.rehearsed())
