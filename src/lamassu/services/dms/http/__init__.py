"""The DMS manager over HTTP: its public routes, and those for an EST edge of its own."""

from lamassu.services.dms.http.internal import internal_routes
from lamassu.services.dms.http.public import routes

__all__ = ["internal_routes", "routes"]
