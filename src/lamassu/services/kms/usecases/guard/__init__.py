"""What stands between the platform and an engine that may be slow, hang or fail."""

from __future__ import annotations

from lamassu.services.kms.usecases.guard.guarded_engine import GuardedEngine
from lamassu.services.kms.usecases.guard.meter import EngineMeter, Operation, Outcome, Unmetered

__all__ = ["EngineMeter", "GuardedEngine", "Operation", "Outcome", "Unmetered"]
