"""The databases: units of work with their events and audit records, reading, migrations."""

from lamassu.platform.database.database import Database
from lamassu.platform.database.dialect import Dialect
from lamassu.platform.database.migrate import is_current, migrate
from lamassu.platform.database.prepared import Prepared, Step
from lamassu.platform.database.records import RecordWriter
from lamassu.platform.database.services import SERVICES
from lamassu.platform.database.settings import DatabaseSettings, ServiceUser
from lamassu.platform.database.unit import ServiceUnit, Unit

__all__ = [
    "SERVICES",
    "Database",
    "DatabaseSettings",
    "Dialect",
    "Prepared",
    "RecordWriter",
    "ServiceUnit",
    "ServiceUser",
    "Step",
    "Unit",
    "is_current",
    "migrate",
]
