"""Events and audit records on their way: sequencing, the journals' chain, delivery."""

from lamassu.platform.messaging.bus import EventBus, Lag
from lamassu.platform.messaging.feed import Handler, Patience
from lamassu.platform.messaging.sequencer import Sequencer
from lamassu.platform.messaging.verification import Fault, JournalReport, verify_journal

__all__ = [
    "EventBus",
    "Fault",
    "Handler",
    "JournalReport",
    "Lag",
    "Patience",
    "Sequencer",
    "verify_journal",
]
