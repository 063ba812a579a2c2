"""The shared table registry and column types."""

from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy import Dialect, MetaData, Text
from sqlalchemy.types import TypeDecorator

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Json(TypeDecorator[Any]):
    """JSON kept as text.

    Not JSONB: PostgreSQL refuses the escape for NUL there, and a model's output may hold one.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Encode."""
        return _encoded(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Decode."""
        return _decoded(value)

    # A text passes as it is: with these, no more is called for a value than is needed.

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        """See `process_bind_param`."""
        return _encoded

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        """See `process_result_value`."""
        return _decoded


def _encoded(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


def _decoded(value: str | None) -> Any:
    return None if value is None else msgspec.json.decode(value)
