"""The schema's history, the same for both databases, and bringing a database up to date."""

from stationmaster.migrations.upgrade import HEAD, SchemaError, current, migrate

__all__ = ["HEAD", "SchemaError", "current", "migrate"]
