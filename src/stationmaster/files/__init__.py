"""Stored files: uploaded once, owned by a project, used by sessions and model calls."""

from stationmaster.files.depot import Depot
from stationmaster.files.files import Files, StoredFile

__all__ = ["Depot", "Files", "StoredFile"]
