"""One parameter that is a list, so that a statement of the hot path keeps its form."""

from typing import Any

from sqlalchemy import ColumnElement, Dialect, Text, bindparam
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import NullType, TypeDecorator, TypeEngine

from stationmaster.storage.schema import Json


class _Texts(TypeDecorator[list[str]]):
    """Texts: an array on PostgreSQL, JSON elsewhere."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """As the dialect takes it."""
        return dialect.type_descriptor(ARRAY(Text()) if dialect.name == "postgresql" else Json())


class _Among(FunctionElement[Any]):
    inherit_cache = True
    # Not Boolean: where a dialect has none, `= 1` would be put behind it, and no index be used.
    type = NullType()


def among(column: ColumnElement[str], name: str) -> ColumnElement[bool]:
    """Whether a text column is one of the texts of the parameter `name`: a list of any length."""
    return _Among(column, bindparam(name, type_=_Texts()))


@compiles(_Among)
def _in_json(element: _Among, compiler: SQLCompiler, **options: Any) -> str:
    column, listed = (compiler.process(each, **options) for each in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({listed}))"  # noqa: S608 - of names


@compiles(_Among, "postgresql")
def _in_array(element: _Among, compiler: SQLCompiler, **options: Any) -> str:
    column, listed = (compiler.process(each, **options) for each in element.clauses)
    return f"{column} = ANY ({listed})"
