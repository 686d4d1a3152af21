"""Which routes stand on which listener."""

from __future__ import annotations

from collections.abc import Sequence

from lamassu.platform.http import Mount
from lamassu.services.alerts import http as alerts_http
from lamassu.services.ca import http as ca_http
from lamassu.services.ca.http.issuance_log import issuance_log_routes
from lamassu.services.devices import http as devices_http
from lamassu.services.dms import http as dms_http
from lamassu.services.dms.contract import Enrollment
from lamassu.services.est import http as est_http
from lamassu.services.kms import http as kms_http
from lamassu.services.va import http as va_http
from lamassu.wiring.platform import Platform

DMS_PREFIX = "/api/dmsmanager"


def public_mounts(platform: Platform) -> Sequence[Mount]:
    """HTTPS: the REST APIs under the original's prefixes, and EST twice."""
    return [
        Mount("/api/kms", "kms", kms_http.routes(platform.kms)),
        Mount(
            "/api/ca",
            "ca",
            [*ca_http.routes(platform.ca), *issuance_log_routes(platform.issuance_log)],
        ),
        Mount("/api/va", "va", va_http.routes(platform.va)),
        Mount(
            DMS_PREFIX,
            "dmsmanager",
            [*dms_http.routes(platform.dms), *est_http.routes(platform.dms)],
        ),
        Mount("/api/devmanager", "devicemanager", devices_http.routes(platform.devices)),
        Mount("/api/alerts", "alerts", alerts_http.routes(platform.alerts)),
        Mount("", "est", est_http.routes(platform.dms)),
    ]


def est_mounts(enrollment: Enrollment) -> Sequence[Mount]:
    """EST under the DMS manager's prefix and at the root: all that an edge serves."""
    return [
        Mount(DMS_PREFIX, "dmsmanager", est_http.routes(enrollment)),
        Mount("", "est", est_http.routes(enrollment)),
    ]


def validation_mounts(platform: Platform) -> Sequence[Mount]:
    """Plain HTTP: OCSP, CRLs and CA certificates only (decision 4)."""
    return [Mount("", "va", va_http.public_routes(platform.va))]


def internal_mounts(platform: Platform) -> Sequence[Mount]:
    """The internal port: what an EST edge asks (decision 5)."""
    return [Mount("", "dmsmanager", dms_http.internal_routes(platform.dms))]
