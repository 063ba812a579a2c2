"""What the server says of itself: log lines and metrics."""

from stationmaster.telemetry.logs import RequestLog, configure_logging
from stationmaster.telemetry.metrics import Metrics
from stationmaster.telemetry.redaction import Redactor

__all__ = ["Metrics", "Redactor", "RequestLog", "configure_logging"]
