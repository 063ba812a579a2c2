"""Parameters that are a list or a table, so that a statement of the hot path keeps its form."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Dialect,
    Subquery,
    TableValuedAlias,
    Text,
    bindparam,
    cast,
    column,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import NullType, TypeDecorator, TypeEngine

from stationmaster.storage.prepared import Row
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


class _Rows(FunctionElement[Any]):
    inherit_cache = True


class _Cell(FunctionElement[Any]):
    """A row, and the number of the column."""

    inherit_cache = True


def given(name: str, columns: Mapping[str, type[str] | type[int]]) -> Subquery:
    """The parameter `name` as a table: a list of rows, each the values in the columns' order."""
    row = _Rows(bindparam(name, type_=Json())).table_valued("value").c.value
    kinds: dict[type, TypeEngine[Any]] = {str: Text(), int: BigInteger()}
    cells = [
        cast(_Cell(row, literal_column(str(at))), kinds[kind]).label(column)
        for at, (column, kind) in enumerate(columns.items())
    ]
    return select(*cells).subquery(name)


@compiles(_Rows)
def _rows(element: _Rows, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


@compiles(_Rows, "postgresql")
def _rows_there(element: _Rows, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_array_elements(CAST({compiler.process(element.clauses, **options)} AS JSON))"


@compiles(_Cell)
def _cell(element: _Cell, compiler: SQLCompiler, **options: Any) -> str:
    row, at = (compiler.process(each, **options) for each in element.clauses)
    return f"json_extract({row}, '$[{at}]')"


@compiles(_Cell, "postgresql")
def _cell_there(element: _Cell, compiler: SQLCompiler, **options: Any) -> str:
    row, at = (compiler.process(each, **options) for each in element.clauses)
    return f"({row} ->> {at})"


def spread(columns: Iterable[Column[Any]]) -> TableValuedAlias:
    """Rows of these columns as a table, given by `spread_out`. For PostgreSQL alone.

    An array for each column: many rows go in with one statement, and other statements with them.
    """
    kinds = {each.name: _kind(each) for each in columns}
    given = (bindparam(_of(name), type_=ARRAY(kind, dimensions=1)) for name, kind in kinds.items())
    of = (column(name, kind) for name, kind in kinds.items())
    return func.unnest(*given).table_valued(*of).render_derived()


def spread_out(columns: Iterable[Column[Any]], rows: Sequence[Row]) -> dict[str, list[Any]]:
    """The parameters of `spread` for these rows: a value for every column, in their order."""
    return {_of(each.name): [row[at] for row in rows] for at, each in enumerate(columns)}


def _of(name: str) -> str:
    return f"each_{name}"


def _kind(of: Column[Any]) -> TypeEngine[Any]:
    # Not the column's own: a cast to VARCHAR(64) cuts off what is longer, and tells nobody.
    return of.type if isinstance(of.type, BigInteger | Json) else Text()
