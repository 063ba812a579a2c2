"""Every capability's tables, registered. The one place outside them that may look at them all."""

import stationmaster.access.tables
import stationmaster.audit.tables
import stationmaster.batches.tables
import stationmaster.budgets.tables
import stationmaster.calls.tables
import stationmaster.events.tables
import stationmaster.files.tables
import stationmaster.idempotency.tables
import stationmaster.jobs.tables
import stationmaster.responses.tables
import stationmaster.sessions.tables
import stationmaster.transcripts.tables  # noqa: F401
from stationmaster.storage.schema import metadata

__all__ = ["metadata"]
