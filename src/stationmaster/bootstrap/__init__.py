"""The composition root: from settings to a running server, and back to nothing."""

from stationmaster.bootstrap.application import Application, Endpoints, running
from stationmaster.bootstrap.serving import JobFailed, Listening, listening, serve

__all__ = [
    "Application",
    "Endpoints",
    "JobFailed",
    "Listening",
    "listening",
    "running",
    "serve",
]
