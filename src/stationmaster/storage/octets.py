"""How long a text is, as the database says it without handing the text out."""

from typing import Any

from sqlalchemy import ColumnElement, Integer
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class _Octets(FunctionElement[int]):
    inherit_cache = True
    type = Integer()


def octets(column: ColumnElement[str]) -> ColumnElement[int]:
    """The bytes of a text column, in UTF-8."""
    return _Octets(column)


@compiles(_Octets)
def _of_blob(element: _Octets, compiler: SQLCompiler, **options: Any) -> str:
    # SQLite counts characters of a text, and knows octet_length from 3.43 on.
    [column] = (compiler.process(each, **options) for each in element.clauses)
    return f"length(CAST({column} AS BLOB))"


@compiles(_Octets, "postgresql")
def _of_text(element: _Octets, compiler: SQLCompiler, **options: Any) -> str:
    [column] = (compiler.process(each, **options) for each in element.clauses)
    return f"octet_length({column})"
