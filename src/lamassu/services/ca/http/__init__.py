"""The CA's routes (contract/ca.md), relative to `/api/ca`."""

from __future__ import annotations

from lamassu.platform.http import Route
from lamassu.services.ca.http.approvals import approval_routes
from lamassu.services.ca.http.archive import archive_routes
from lamassu.services.ca.http.authorities import authority_routes
from lamassu.services.ca.http.ca_keys import ca_key_routes
from lamassu.services.ca.http.certificates import certificate_routes
from lamassu.services.ca.http.dry_runs import dry_run_routes
from lamassu.services.ca.http.external import external_routes
from lamassu.services.ca.http.imports import import_routes
from lamassu.services.ca.http.lifecycle import lifecycle_routes
from lamassu.services.ca.http.profiles import profile_routes
from lamassu.services.ca.http.requests import request_routes
from lamassu.services.ca.usecases import CaService


def routes(service: CaService) -> list[Route]:
    """All of them."""
    return [
        *external_routes(service),
        *lifecycle_routes(service),
        *import_routes(service),
        *authority_routes(service),
        *ca_key_routes(service),
        *certificate_routes(service),
        *archive_routes(service),
        *request_routes(service),
        *profile_routes(service),
        *dry_run_routes(service),
        *approval_routes(service),
    ]
